"""Which node ports the real API server refuses: what `doctor` calls an error of manifests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.harness.api import Api, ApiError
from tests.cluster.harness.controlplane import ControlPlane
from tests.unit.doctor.worlds.manifests import findings, service

pytestmark = pytest.mark.cluster

NAMESPACE, PORT = "node-ports", 31917
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
SETUP = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
"""


def asking(name: str, ports: str, more: str = "type: NodePort") -> str:
    return service(name, f"{{{more}, selector: {{app: x}}, ports: [{ports}]}}", NAMESPACE)


TCP, UDP = f"{{name: t, port: 80, nodePort: {PORT}}}", f"{{name: u, port: 80, nodePort: {PORT}, protocol: UDP}}"
LOCAL = f"type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: {PORT}"


@pytest.fixture
def api(control_plane: ControlPlane) -> Iterator[Api]:
    api = control_plane.api()
    api.apply(SETUP)
    yield api
    for obj in api.get(SERVICES)["items"]:
        api.delete(f"{SERVICES}/{obj['metadata']['name']}")


@pytest.mark.parametrize(
    "second",
    [
        asking("second", TCP),
        asking("second", UDP),
        asking("second", "{name: w, port: 81}", LOCAL),
        asking("second", TCP, "type: LoadBalancer"),
    ],
    ids=["the same", "another protocol", "for health checks", "of a load balancer"],
)
def test_a_node_port_of_another_service_is_refused(api: Api, second: str) -> None:
    api.apply(asking("first", TCP))
    with pytest.raises(ApiError, match="already allocated"):
        api.apply(second)
    assert len(findings(asking("first", TCP) + second, "node-port-twice")) == 1


def test_ports_of_one_number_share_a_node_port(api: Api) -> None:
    both, two = asking("first", f"{TCP}, {UDP}"), asking("second", f"{TCP}, {UDP.replace('port: 80', 'port: 81')}")
    with pytest.raises(ApiError, match="already allocated"):
        api.apply(two)
    api.apply(both)
    assert len(findings(two, "node-port-twice")) == 1
    assert findings(both, "node-port-twice") == []
