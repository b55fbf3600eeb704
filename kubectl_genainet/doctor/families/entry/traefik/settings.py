"""What a Traefik was started with: its command line, variables, file, or the values of its chart.

Source: https://doc.traefik.io/traefik/reference/install-configuration/configuration-options/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, items, mapping, strings, text, walk
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject

CROSS_NAMESPACE = "providers.kubernetescrd.allowcrossnamespace"
EXTERNAL_NAMES = "providers.kubernetescrd.allowexternalnameservices"
RESPONSE_HEADERS = "serverstransport.forwardingtimeouts.responseheadertimeout"
_TIMEOUT = re.compile(r"entrypoints\.([^.]+)\.transport\.respondingtimeouts\.(readtimeout|writetimeout)")
_IMAGE = re.compile(r"(^|[/-])traefik($|[:@])")
_FLAG = re.compile(r"--([A-Za-z][\w.-]{0,200})(?:=([^\s\"']+))?")
_LINE = re.compile(r"( *)([\w.-]+):([^\n]*)")
_VARIABLE = "TRAEFIK_"
_LONGEST = 256 * 1024


@dataclass(frozen=True, slots=True)
class Static:
    """A setting that was given, and where it stands."""

    object: ObjectRef
    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One Traefik, by what names its settings in lower case with dots. `whole`: all that it was started with was read."""

    settings: Mapping[str, Static]
    whole: bool

    def timeouts(self, name: Literal["readtimeout", "writetimeout"]) -> dict[str, Static]:
        """How long a whole request may take to come in, or a whole response to go out, by entry point."""
        matched = ((_TIMEOUT.fullmatch(key), static) for key, static in self.settings.items())
        return {match[1]: static for match, static in matched if match is not None and match[2] == name}


def instances(cluster: Cluster) -> list[Instance]:
    """Every Traefik that runs, or else the charts that would install one."""
    running = [_started(cluster, w) for w in cluster.workloads if any(_IMAGE.search(c.image) for c in w.containers)]
    return running or [Instance(settings, False) for settings in _charts(cluster)]


def _started(cluster: Cluster, workload: Workload) -> Instance:
    """A file of its own goes before its command line; which file that is, its mounts tell."""
    settings: dict[str, Static] = {}
    whole = True
    for container in (c for c in workload.containers if _IMAGE.search(c.image)):
        for name, variable in cluster.variables(workload, container).items():
            if name.startswith(_VARIABLE):
                key = name.removeprefix(_VARIABLE).replace("_", ".").lower()
                settings[key] = Static(variable.object, variable.field, variable.value)
        for part in ("args", "command"):
            for index, word in enumerate(strings(container.raw, part)):
                field = workload.field(f"{container.field}.{part}[{index}]")
                settings |= {name: Static(workload.ref, field, value) for name, value in flags(word)}
                whole = whole and not word.lower().startswith("--configfile")
        settings |= _from_files(cluster, workload)
    return Instance(settings, whole)


def _from_files(cluster: Cluster, workload: Workload) -> dict[str, Static]:
    settings: dict[str, Static] = {}
    for volume in items(workload.template.spec, "volumes"):
        config_map = cluster.config_maps.get((workload.namespace, text(volume, "configMap", "name")))
        if config_map is None:
            continue
        for key in ("traefik.yml", "traefik.yaml"):
            for path, value in block_scalars(text(config_map.raw, "data", key)):
                settings[path.lower()] = Static(config_map.ref, f"data[{key}]", value)
    return settings


def flags(line: str) -> Iterator[tuple[str, str]]:
    """(name in lower case, value) of every --NAME[=VALUE] of a text; one without a value is true."""
    return ((match[1].lower(), match[2] or "true") for match in _FLAG.finditer(line[:_LONGEST]))


def block_scalars(document: str) -> Iterator[tuple[str, str]]:
    """(path with dots, scalar) of a YAML document's nested mappings, as people write values; lists are passed over."""
    above: list[tuple[int, str]] = []
    for line in document[:_LONGEST].splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        while above and above[-1][0] >= len(match[1]):
            above.pop()
        above.append((len(match[1]), match[2]))
        value = match[3].partition(" #")[0].strip().strip("\"'")
        if value:
            yield ".".join(key for _, key in above), value


def _charts(cluster: Cluster) -> Iterator[dict[str, Static]]:
    """The values that Traefik's chart is installed with: by K3s, Flux or Argo CD, or as the object says itself."""
    for kind in ("HelmChartConfig", "HelmChart"):
        for obj in cluster.snapshot.of(kind, "helm.cattle.io"):
            if obj.name == "traefik":
                yield _of_text(obj, "spec.valuesContent", text(obj.raw, "spec", "valuesContent"))
    for obj in cluster.snapshot.of("HelmRelease", "helm.toolkit.fluxcd.io"):
        if text(obj.raw, "spec", "chart", "spec", "chart") == "traefik":
            yield _of_values(obj, "spec.values", mapping(obj.raw, "spec", "values"))
    for obj in cluster.snapshot.of("Application", "argoproj.io"):
        sources = [("spec.source", at(obj.raw, "spec", "source"))]
        sources += [(f"spec.sources[{i}]", s) for i, s in enumerate(items(obj.raw, "spec", "sources"))]
        for field, source in sources:
            if text(source, "chart") == "traefik":
                values = mapping(source, "helm", "valuesObject")
                yield {
                    **_of_text(obj, f"{field}.helm.values", text(source, "helm", "values")),
                    **_of_values(obj, f"{field}.helm.valuesObject", values),
                }


def _of_text(obj: KubeObject, field: str, document: str) -> dict[str, Static]:
    written = {_setting(path): Static(obj.ref, field, value) for path, value in block_scalars(document)}
    return {**written, **{name: Static(obj.ref, field, value) for name, value in flags(document)}}


def _of_values(obj: KubeObject, field: str, values: dict[str, object]) -> dict[str, Static]:
    settings: dict[str, Static] = {}
    for path, value in walk(values):
        settings[_setting(path)] = Static(obj.ref, f"{field}.{path}", str(value))
        if path.startswith("additionalArguments["):
            settings |= {name: Static(obj.ref, f"{field}.{path}", told) for name, told in flags(str(value))}
    return settings


def _setting(path: str) -> str:
    """The setting that a value of the chart stands for: `ports` are its entry points."""
    name = path.lower()
    return f"entrypoints.{name.removeprefix('ports.')}" if name.startswith("ports.") else name
