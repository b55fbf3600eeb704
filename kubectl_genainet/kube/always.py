"""The always-on mode as `deploy` applies it: what daemonset/metrics and daemonset/otlp add to the base."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from kubectl_genainet.assets import asset_dir
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.identities import Identities

Object = dict[str, Any]

NAMES = "genainet-identities"  # name of the ConfigMap
NAMES_FILE = "identities.json"
MAX_NAMES = 1_000_000  # bytes; an object of the API has at most 1 MiB


def _read(folder: str, name: str) -> Any:
    return yaml.safe_load((asset_dir("daemonset") / folder / name).read_text())


def names(identities: Identities) -> Object:
    """The ConfigMap that the agents read names from. Raises GenainetError where the cluster has too many."""
    text = msgspec.json.encode(identities).decode()
    if len(text) > MAX_NAMES:
        # Remote addresses are the first to go: a node's own pods are known by their UIDs.
        text = msgspec.json.encode(msgspec.structs.replace(identities, addresses={})).decode()
    if len(text) > MAX_NAMES:
        raise GenainetError(
            f"the names of all pods and endpoints take {len(text)} bytes, more than a ConfigMap may have",
            hint="Mount a file of your own at the agents' --identities; see docs/metrics.md.",
        )
    metadata = {
        "name": NAMES, "namespace": "genainet",
        "labels": {"app.kubernetes.io/part-of": "kubectl-genainet", "app.kubernetes.io/managed-by": "kubectl-genainet"},
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {NAMES_FILE: text}}


def metrics_objects(identities: Identities) -> list[Object]:
    return [*(_read("metrics", name) for name in ("service.yaml", "networkpolicy.yaml")), names(identities)]


def otlp_objects(url: str) -> list[Object]:
    """Raises InputError for a URL that is none."""
    from kubectl_genainet.agent.otlp import Endpoint  # with all that the agent's metrics need: not for every command

    policy = _read("otlp", "networkpolicy.yaml")
    policy["spec"]["egress"][0]["ports"][0]["port"] = Endpoint.parse(url).port
    return [policy]


def _patch() -> Any:
    return _read("metrics", "daemonset-patch.yaml")["spec"]["template"]["spec"]


def enable_metrics(pod: Object) -> None:
    """Does to the pod's spec what daemonset/metrics/daemonset-patch.yaml does in kustomize."""
    patch = _patch()
    (added,) = patch["containers"]
    container = pod["containers"][0]
    container["resources"]["requests"] = added["resources"]["requests"]
    container["args"] = added["args"]
    container.setdefault("ports", []).extend(added["ports"])
    container["volumeMounts"] += added["volumeMounts"]
    pod["volumes"] += patch["volumes"]


def enable_otlp(pod: Object, url: str) -> None:
    container = pod["containers"][0]
    container["args"] += ["--otlp-endpoint", url]
    container["resources"]["requests"] = _patch()["containers"][0]["resources"]["requests"]
    pod["dnsPolicy"] = "ClusterFirst"  # the collector may be named as a Service
