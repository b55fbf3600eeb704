"""Which node ports the real API server refuses: what `doctor` calls an error of manifests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.harness.api import Api, ApiError
from tests.cluster.harness.controlplane import ControlPlane
from tests.unit.doctor.worlds.manifests import findings

pytestmark = pytest.mark.cluster

NAMESPACE, PORT = "node-ports", 31917
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
SETUP = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
"""


def service(name: str, ports: str, more: str = "type: NodePort") -> str:
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec: {{{more}, selector: {{app: x}}, ports: [{ports}]}}
"""


TCP, UDP = f"{{name: t, port: 80, nodePort: {PORT}}}", f"{{name: u, port: 80, nodePort: {PORT}, protocol: UDP}}"
LOCAL = f"type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: {PORT}"


@pytest.fixture
def api(control_plane: ControlPlane) -> Iterator[Api]:
    api = control_plane.api()
    api.apply(SETUP)
    yield api
    for service in api.get(SERVICES)["items"]:
        api.delete(f"{SERVICES}/{service['metadata']['name']}")


@pytest.mark.parametrize(
    "second",
    [
        service("second", TCP),
        service("second", UDP),
        service("second", "{name: w, port: 81}", LOCAL),
        service("second", TCP, "type: LoadBalancer"),
    ],
    ids=["the same", "another protocol", "for health checks", "of a load balancer"],
)
def test_a_node_port_of_another_service_is_refused(api: Api, second: str) -> None:
    api.apply(service("first", TCP))
    with pytest.raises(ApiError, match="already allocated"):
        api.apply(second)
    assert len(findings(service("first", TCP) + second, "node-port-twice")) == 1


def test_ports_of_one_number_share_a_node_port(api: Api) -> None:
    both, two = service("first", f"{TCP}, {UDP}"), service("second", f"{TCP}, {UDP.replace('port: 80', 'port: 81')}")
    with pytest.raises(ApiError, match="already allocated"):
        api.apply(two)
    api.apply(both)
    assert len(findings(two, "node-port-twice")) == 1
    assert findings(both, "node-port-twice") == []
