"""What `deploy` applies: the kustomize base of daemonset/manifests with the user's choices put in."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml

from kubectl_genainet import __version__
from kubectl_genainet.assets import asset_dir
from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.agents.always import (
    admit_api_server,
    enable_metrics,
    enable_otlp,
    metrics_objects,
    monitoring_objects,
    otlp_objects,
)
from kubectl_genainet.kube.agents.record import RecordChoices, check_record, enable_record, record_objects
from kubectl_genainet.model.packet import AGENT as AGENT

NAMESPACE = "genainet"
CAPABILITY = "genainet-trace"  # name of the Secret that agents and their callers share
MANAGED_BY = ("app.kubernetes.io/managed-by", "kubectl-genainet")
VERSION_LABEL = "app.kubernetes.io/version"
# No registry's name: a default that nobody has claimed yet could be claimed by anybody.
DEFAULT_IMAGE = "localhost/kubectl-genainet-agent"


class Toleration(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""


class DeployOptions(msgspec.Struct, frozen=True):
    """The user's choices. `tolerations` None keeps the base's (all taints).

    `monitoring`: the cluster has the Prometheus Operator's kinds. `api_port`: where the API server listens behind its
    Service, 0 where that is not known. `otlp_endpoint` is a URL or empty. `record`: nothing is recorded where it is None.
    """

    image: str = ""
    namespace: str = NAMESPACE
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[Toleration, ...] | None = None
    metrics: bool = False
    monitoring: bool = False
    api_port: int = 0
    otlp_endpoint: str = ""
    record: RecordChoices | None = None


def parse_node_selector(text: str) -> dict[str, str]:
    """ "gpu=true,zone=a"; raises InputError for what is no KEY=VALUE."""
    pairs = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise InputError(f"{part!r} is not KEY=VALUE", field="--node-selector")
        pairs[key.strip()] = value.strip()
    return pairs


def parse_tolerations(text: str) -> tuple[Toleration, ...]:
    """ "KEY[=VALUE][:EFFECT],…", as taints are written; "all" for every taint and "none" for none."""
    if text == "all":
        return (Toleration(operator="Exists"),)
    if text == "none":
        return ()
    tolerations = []
    for part in filter(None, text.split(",")):
        taint, _, effect = part.partition(":")
        key, equals, value = taint.partition("=")
        if not key or effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
            raise InputError(
                f"{part!r} is not KEY[=VALUE][:EFFECT]",
                field="--tolerations",
                hint="EFFECT is NoSchedule, PreferNoSchedule or NoExecute; e.g. nvidia.com/gpu:NoSchedule",
            )
        tolerations.append(Toleration(key, "Equal" if equals else "Exists", value, effect))
    return tuple(tolerations)


def render(options: DeployOptions) -> list[dict[str, Any]]:
    """The objects in the order they are applied; without the Secret, which is made in the cluster."""
    objects = [*_load()]
    if options.metrics:
        objects[-1:-1] = metrics_objects(options.api_port)  # before the DaemonSet, which is the last
        if options.monitoring:
            objects[-1:-1] = monitoring_objects()
    if options.otlp_endpoint:
        objects[-1:-1] = otlp_objects(options.otlp_endpoint)
    if options.record is not None:
        check_record(options.record)
        objects[-1:-1] = _recorder_objects(options)
    for obj in objects:
        metadata = obj["metadata"]
        metadata["labels"][VERSION_LABEL] = __version__
        if obj["kind"] == "Namespace":
            metadata["name"] = options.namespace
        elif "namespace" in metadata:
            metadata["namespace"] = options.namespace
        for subject in obj.get("subjects", ()):
            subject["namespace"] = options.namespace
        if obj["kind"] == "Deployment":
            _label_image(obj["spec"]["template"], options)
        if obj["kind"] == "DaemonSet":
            _configure(obj["spec"]["template"], options)
    return objects


def _load() -> Iterator[dict[str, Any]]:
    folder = asset_dir("daemonset") / "manifests"
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
        yield from yaml.safe_load_all((folder / name).read_text())


def _recorder_objects(options: DeployOptions) -> list[dict[str, Any]]:
    objects = record_objects()
    admit_api_server(next(o for o in objects if o["kind"] == "NetworkPolicy"), options.api_port)
    return objects


def _label_image(template: dict[str, Any], options: DeployOptions) -> None:
    template["metadata"]["labels"][VERSION_LABEL] = __version__
    template["spec"]["containers"][0]["image"] = options.image or f"{DEFAULT_IMAGE}:v{__version__}"


def _configure(template: dict[str, Any], options: DeployOptions) -> None:
    _label_image(template, options)
    spec = template["spec"]
    spec["nodeSelector"] |= options.node_selector
    if options.tolerations is not None:
        spec["tolerations"] = [msgspec.to_builtins(t) for t in options.tolerations]
    if options.metrics:
        enable_metrics(spec)
    if options.otlp_endpoint:
        enable_otlp(spec, options.otlp_endpoint)
    if options.record is not None:
        enable_record(template, options.record)


def always_on_extras(options: DeployOptions) -> list[dict[str, Any]]:
    """What the always-on mode has in the cluster and these options do not: an earlier `deploy` may have made it."""
    every = msgspec.structs.replace(
        options, metrics=True, monitoring=True, otlp_endpoint="http://localhost", record=RecordChoices()
    )
    wanted = {(o["kind"], o["metadata"]["name"]) for o in render(options)}
    return [o for o in render(every) if (o["kind"], o["metadata"]["name"]) not in wanted]


def capability(namespace: str, name: str = CAPABILITY) -> dict[str, Any]:
    """A new Secret: 256 random bits that only the agents (mounted) and the role of that name (get) see."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "kubectl-genainet", MANAGED_BY[0]: MANAGED_BY[1]},
        },
        "type": "Opaque",
        "stringData": {"token": secrets.token_hex(32)},
    }
