"""The variables that a container runs with, wherever they are set: its env, ConfigMaps, command lines, an MPI launcher."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import items, mapping, text
from kubectl_genainet.doctor.objects.workloads import Workload, WorkloadKey
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject

ConfigMaps = Mapping[tuple[str, str], KubeObject]
_ASSIGNED = re.compile(r"(?:^|[\s;&'\"])(?:export\s+)?([A-Z][A-Z0-9_]+)=([^\s;&'\"]+|\"[^\"]*\"|'[^']*')")


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable's value and where it is set."""

    name: str
    value: str
    object: ObjectRef
    field: str


def variables(workload: Workload, container: ContainerSpec, config_maps: ConfigMaps) -> dict[str, Variable]:
    """By name; what the API server's order makes win wins: envFrom, then env, then the command line."""
    by_name: dict[str, Variable] = {}
    for item in (
        *_from_config_maps(workload, container, config_maps),
        *_from_env(workload, container, config_maps),
        *from_command_line(workload, container),
    ):
        by_name[item.name] = item
    return by_name


class Variables:
    """The variables of the containers that are asked for; many checks ask for those of the same."""

    def __init__(self, workloads_in: Mapping[str, Sequence[Workload]], config_maps: ConfigMaps) -> None:
        self._workloads_in, self._config_maps = workloads_in, config_maps
        self._known: dict[tuple[WorkloadKey, str], Mapping[str, Variable]] = {}

    def of(self, workload: Workload, container: ContainerSpec) -> Mapping[str, Variable]:
        """By name; a worker of an MPIJob also has those of its launcher's command."""
        key = (workload.key, container.field)
        if key not in self._known:
            self._known[key] = {**variables(workload, container, self._config_maps), **self._of_launcher(workload)}
        return self._known[key]

    def _of_launcher(self, workload: Workload) -> Mapping[str, Variable]:
        if workload.ref.kind != "MPIJob" or workload.part != "Worker":
            return {}
        parts = (w for w in self._workloads_in[workload.namespace] if w.ref == workload.ref and w.part == "Launcher")
        return {v.name: v for launcher in parts for c in launcher.containers for v in from_command_line(launcher, c)}


def _from_config_maps(workload: Workload, container: ContainerSpec, config_maps: ConfigMaps) -> Iterator[Variable]:
    for entry in items(container.raw, "envFrom"):
        config = config_maps.get((workload.namespace, text(entry, "configMapRef", "name")))
        for key, value in mapping(config.raw, "data").items() if config is not None else ():
            if config is not None:
                yield Variable(f"{text(entry, 'prefix')}{key}", str(value), config.ref, f"data[{key}]")


def _from_env(workload: Workload, container: ContainerSpec, config_maps: ConfigMaps) -> Iterator[Variable]:
    for index, entry in enumerate(items(container.raw, "env")):
        name, field = text(entry, "name"), workload.field(f"{container.field}.env[{index}].value")
        if "value" in entry:
            yield Variable(name, text(entry, "value"), workload.ref, field)
            continue
        reference = mapping(entry, "valueFrom", "configMapKeyRef")
        config = config_maps.get((workload.namespace, text(reference, "name"))) if reference else None
        key = text(reference, "key")
        if config is not None and key in mapping(config.raw, "data"):
            yield Variable(name, text(config.raw, "data", key), config.ref, f"data[{key}]")


def unread_sources(workload: Workload, container: ContainerSpec, config_maps: ConfigMaps) -> list[str]:
    """What a container takes all keys of and nobody read: Secrets, and ConfigMaps that are not here."""
    unread = []
    for entry in items(container.raw, "envFrom"):
        secret, config = text(entry, "secretRef", "name"), text(entry, "configMapRef", "name")
        if secret:
            unread.append(f"Secret {secret}")
        elif config and (workload.namespace, config) not in config_maps:
            unread.append(f"ConfigMap {config}")
    return unread


def from_command_line(workload: Workload, container: ContainerSpec) -> Iterator[Variable]:
    """What a command line sets: `mpirun -x NAME=VALUE`, `export NAME=VALUE` and NAME=VALUE before a command."""
    for key in ("command", "args"):
        for index, word in enumerate(container.raw.get(key) or ()):
            field = workload.field(f"{container.field}.{key}[{index}]")
            for match in _ASSIGNED.finditer(str(word)):
                yield Variable(match[1], match[2].strip("\"'"), workload.ref, field)
