"""The picture's arrows: a port is named where it is known."""

from __future__ import annotations

from tests.unit.doctor.worlds.manifests import report_of

QDRANT = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: qdrant, namespace: rag}
spec:
  template:
    metadata: {labels: {app: qdrant}}
    spec: {containers: [{name: q, image: "qdrant/qdrant:v1.13.4", ports: [{containerPort: 6333}, {containerPort: 6334}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: qdrant, namespace: rag}
spec: {selector: {app: qdrant}, ports: [{name: http, port: 6333}, {name: grpc, port: 6334}]}
---
"""
CLIENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: rag}
spec:
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: api, image: "registry.test/api:1", env: [{name: QDRANT_HOST, value: "VALUE"}]}]}
---
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: vectors, namespace: rag}
spec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: qdrant}]}]}
"""


def labels(value: str) -> dict[tuple[str, str], str]:
    picture = report_of(QDRANT + CLIENT.replace("VALUE", value) + ROUTE).picture
    names = {box.id: str(box.object) for box in picture.boxes}
    return {(names[a.source], names[a.target]): a.label for a in picture.arrows}


def test_a_call_without_a_port_to_a_service_with_several_has_none() -> None:
    assert labels("qdrant")["Deployment rag/api", "Service rag/qdrant"] == ""
    assert labels("qdrant:6334")["Deployment rag/api", "Service rag/qdrant"] == "port 6334"


def test_a_route_without_a_port_has_none() -> None:
    assert labels("qdrant")["HTTPRoute rag/vectors", "Service rag/qdrant"] == ""
