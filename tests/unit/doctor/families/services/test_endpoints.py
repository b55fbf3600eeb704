"""Endpoints that terminate: kube-proxy uses those that still serve, so their nodes and Services are not without any."""

from __future__ import annotations

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import findings

NODES = "".join(
    f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{}}\n---\n" for name in ("node-1", "node-2")
)
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: llama, namespace: ai}
spec: {type: NodePort, externalTrafficPolicy: Local, ports: [{name: http, port: 80, nodePort: 30080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: llama-1, namespace: ai, labels: {kubernetes.io/service-name: llama}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
"""
READY = "{ready: true}"
LEAVING = "{ready: false, serving: true, terminating: true}"
GONE = "{ready: false, serving: false, terminating: true}"


def world(*conditions: str) -> str:
    """An endpoint of each condition, on node-1, node-2, …"""
    return (
        NODES
        + SERVICE
        + "".join(
            f"- {{addresses: [10.244.{number}.5], nodeName: node-{number}, conditions: {condition}}}\n"
            for number, condition in enumerate(conditions, 1)
        )
    )


def test_a_node_whose_endpoint_still_serves_drops_nothing() -> None:
    assert findings(world(READY, LEAVING), "external-policy-local", complete=True) == []
    (finding,) = findings(world(READY, GONE), "external-policy-local", complete=True)
    assert "1 of 2 nodes" in finding.title


def test_a_service_whose_endpoints_all_terminate_works_until_they_end() -> None:
    (finding,) = findings(world(LEAVING, GONE), "service-endpoints", complete=True)
    assert finding.severity is Severity.WARNING
    assert "1 still serve while they terminate" in finding.evidence[0].statement
    (gone,) = findings(world(GONE, GONE), "service-endpoints", complete=True)
    assert gone.severity is Severity.ERROR
