"""The harness itself: the API server answers, roles hold, and kube-proxy writes rules."""

from collections.abc import Callable

import pytest

from tests.cluster.harness.api import ApiError
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.kubeproxy import KubeProxy, endpoint_slice

pytestmark = pytest.mark.cluster

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: my-llama-svc, namespace: default}
spec:
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 80, targetPort: 8080}]
"""


def test_the_api_server_answers_and_refuses(control_plane: ControlPlane) -> None:
    assert control_plane.api().get("/version")["gitVersion"].startswith("v1.")
    with pytest.raises(ApiError, match="forbidden") as refused:
        control_plane.api("nobody").get("/api/v1/pods")
    assert refused.value.status == 403


def test_kube_proxy_writes_rules_for_both_families(
    control_plane: ControlPlane, kube_proxy: Callable[..., KubeProxy]
) -> None:
    port = {"name": "http", "port": 8080, "protocol": "TCP"}
    control_plane.api().apply(SERVICE)
    control_plane.api().apply(
        [
            endpoint_slice("my-llama-svc", ["10.244.1.10", "10.244.2.10"], [port]),
            endpoint_slice("my-llama-svc", ["fd44::10"], [port], suffix="6"),
        ]
    )
    proxy = kube_proxy("harness-node")
    rules = proxy.wait_for_rules("--to-destination 10.244.2.10:8080")
    assert "--to-destination 10.244.1.10:8080" in rules
    assert 'default/my-llama-svc:http cluster IP" -m tcp --dport 80' in rules
    assert "[fd44::10]:8080" in proxy.wait_for_rules("[fd44::10]:8080", ipv6=True)
    control_plane.api().delete("/api/v1/namespaces/default/services/my-llama-svc")
    proxy.wait_for_rules("default/my-llama-svc", gone=True)
