"""Equal parts of decoded objects are one."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject


def pod(name: str, **labels: str) -> KubeObject:
    container = {"name": "model", "ports": [{"containerPort": 8080}]}
    metadata: dict[str, Any] = {"name": name, "namespace": "chat", "labels": labels}
    status = {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    raw = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container]},
        "status": status,
    }
    return KubeObject(raw)


def test_pods_of_one_template_share_containers_labels_and_conditions() -> None:
    first, second = ClusterSnapshot((pod("a", app="model", tier="x"), pod("b", app="model", tier="x"))).pods
    assert first.spec.containers is second.spec.containers
    assert first.metadata.labels is second.metadata.labels
    assert first.status.conditions is second.status.conditions
    assert (first.metadata.name, second.metadata.name) == ("a", "b")


def test_labels_that_differ_or_stand_in_another_order_stay_apart() -> None:
    pods = ClusterSnapshot(
        (pod("a", app="model", tier="x"), pod("b", tier="x", app="model"), pod("c", app="other"))
    ).pods
    assert [list(p.metadata.labels) for p in pods] == [["app", "tier"], ["tier", "app"], ["app"]]
    assert pods[2].metadata.labels == {"app": "other"}


def test_parts_with_mappings_inside_are_left_as_they_are() -> None:
    endpoints = [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "zone": "a"}]
    raw = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "s", "namespace": "chat", "labels": {"kubernetes.io/service-name": "s"}},
        "endpoints": endpoints,
    }
    (only,) = ClusterSnapshot((KubeObject(raw),)).endpoint_slices
    assert [list(endpoint.addresses) for endpoint in only.endpoints] == [["10.0.0.1"]]
