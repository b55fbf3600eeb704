"""A port of a node is one pod's: as many pods as nodes, no more."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import findings, unchecked

GATEWAY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge, namespace: ai}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: edge}}
  template:
    metadata: {labels: {app: edge}}
    spec: {PODcontainers: [{name: c, image: "registry.test/edge:1", ports: [PORT]}]}
"""
NODE = """
---
apiVersion: v1
kind: Node
metadata: {name: NAME, labels: {pool: POOL}}
spec: {unschedulable: CORDONED}
"""


def node(name: str, pool: str = "edge", *, cordoned: bool = False) -> str:
    return NODE.replace("NAME", name).replace("POOL", pool).replace("CORDONED", str(cordoned).lower())


def workload(replicas: int, port: str = "{containerPort: 80, hostPort: 80}", pod: str = "") -> str:
    return GATEWAY.replace("REPLICAS", str(replicas)).replace("PORT", port).replace("POD", pod)


TWO = node("a") + node("b")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (workload(3) + TWO, 1),
        (workload(2) + TWO, 0),
        (workload(3, "{containerPort: 80}") + TWO, 0),
        (workload(3, "{containerPort: 80}", "hostNetwork: true, ") + TWO, 1),
        (workload(2, pod="nodeSelector: {pool: edge}, ") + node("a") + node("b", "gpu"), 1),
        (workload(2) + node("a") + node("b", cordoned=True), 1),
    ],
)
def test_more_pods_than_nodes_for_a_port_of_the_node(text: str, found: int) -> None:
    told = findings(text, "host-port-replicas", complete=True)
    assert len(told) == found
    assert all(f.evidence[0].field.startswith("spec.template.spec.containers[0].ports[0]") for f in told)


def test_manifests_without_nodes_tell_nothing() -> None:
    assert findings(workload(3), "host-port-replicas") == []
    assert "nodes it may use" in unchecked(workload(3), "host-port-replicas")
