"""The always-on mode as `deploy` applies it: what daemonset/metrics and daemonset/otlp add to the base."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from kubectl_genainet.assets import asset_dir

Object = dict[str, Any]

MONITORING = "monitoring.coreos.com"  # the API group of the Prometheus Operator
NAMES = "genainet-names"  # name of the role, of its binding and of the NetworkPolicy of what follows the names
_METRICS = ("service.yaml", "networkpolicy.yaml", "rbac.yaml")


def _read(folder: str, name: str) -> Any:
    return yaml.safe_load(_text(folder, name))


def _text(folder: str, name: str) -> str:
    return (asset_dir("daemonset") / folder / name).read_text()


def metrics_objects(api_port: int) -> list[Object]:
    """`api_port` is where the API server listens behind its Service, 0 where that is not known."""
    objects = [obj for name in _METRICS for obj in yaml.safe_load_all(_text("metrics", name))]
    ways_out = next(o for o in objects if (o["kind"], o["metadata"]["name"]) == ("NetworkPolicy", NAMES))
    admit_api_server(ways_out, api_port)
    return objects


def admit_api_server(policy: Object, api_port: int) -> None:
    """Adds the API server's port to the ways out of a NetworkPolicy, where it is known and not there yet."""
    ports = policy["spec"]["egress"][0]["ports"]
    if api_port and api_port not in {port["port"] for port in ports}:
        ports.append({"port": api_port, "protocol": "TCP"})


def monitoring_objects() -> Iterator[Object]:
    """What the Prometheus Operator and Grafana's sidecar take, as `kubectl kustomize daemonset/metrics/monitoring` has it."""
    kustomization = _read("metrics/monitoring", "kustomization.yaml")
    for name in kustomization["resources"]:
        yield _read("metrics/monitoring", name)
    for generator in kustomization["configMapGenerator"]:
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": generator["name"],
                "namespace": kustomization["namespace"],
                "labels": dict(generator["options"]["labels"]),
            },
            "data": {file: _text("metrics/monitoring", file) for file in generator["files"]},
        }


def otlp_objects(url: str) -> list[Object]:
    """Raises InputError for a URL that is none."""
    from kubectl_genainet.agent.always.otlp import (
        OtlpEndpoint,  # with all that the agent's metrics need: not for every command
    )

    policy = _read("otlp", "networkpolicy.yaml")
    policy["spec"]["egress"][0]["ports"][0]["port"] = OtlpEndpoint.parse(url).port
    return [policy]


def _patch() -> Any:
    return _read("metrics", "daemonset-patch.yaml")["spec"]["template"]["spec"]


def enable_metrics(pod: Object) -> None:
    """Does to the pod's spec what daemonset/metrics/daemonset-patch.yaml does in kustomize."""
    patch = _patch()
    added, names = patch["containers"]
    container = pod["containers"][0]
    container["resources"]["requests"] = added["resources"]["requests"]
    container["args"] = added["args"]
    container.setdefault("ports", []).extend(added["ports"])
    container["volumeMounts"] += added["volumeMounts"]
    names["image"] = container["image"]
    pod["containers"].append(names)
    pod["volumes"] += patch["volumes"]


def enable_otlp(pod: Object, url: str) -> None:
    container = pod["containers"][0]
    container["args"] += ["--otlp-endpoint", url]
    container["resources"]["requests"] = _patch()["containers"][0]["resources"]["requests"]
    pod["dnsPolicy"] = "ClusterFirst"  # the collector may be named as a Service
