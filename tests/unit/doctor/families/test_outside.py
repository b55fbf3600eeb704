"""Clients that a load balancer brings, against the policies of the pods behind it."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, service

UI = deployment("ui", "image: 'registry.test/ui:1', ports: [{containerPort: 8501}]")
LOAD_BALANCER = service("ui", "{type: LoadBalancer, selector: {app: ui}, ports: [{port: 80, targetPort: 8501}]}")
PODS, ADDRESSES = "{namespaceSelector: {}}", "{ipBlock: {cidr: 10.0.0.0/8}}"


def policy(ingress: str) -> str:
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: ui, namespace: ml}}
spec: {{podSelector: {{matchLabels: {{app: ui}}}}, policyTypes: [Ingress], ingress: [{ingress}]}}
"""


@pytest.mark.parametrize(
    ("ingress", "found"),
    [
        ("", 1),
        (f"{{from: [{PODS}], ports: [{{port: 8501}}]}}", 1),
        (f"{{from: [{PODS}]}}, {{ports: [{{port: 9090}}]}}", 1),
        (f"{{from: [{PODS}]}}, {{ports: [{{port: 8501}}]}}", 0),
        (f"{{from: [{PODS}, {ADDRESSES}]}}", 0),
    ],
)
def test_a_client_from_outside_is_no_pod(ingress: str, found: int) -> None:
    reported = findings(UI + LOAD_BALANCER + policy(ingress), "policy-blocks-outside")
    assert [f.severity for f in reported] == [Severity.WARNING] * found


def test_pods_without_a_policy_and_services_of_the_cluster_are_left_alone() -> None:
    assert findings(UI + LOAD_BALANCER, "policy-blocks-outside") == []
    inside = LOAD_BALANCER.replace("type: LoadBalancer, ", "")
    assert findings(UI + inside + policy(""), "policy-blocks-outside") == []


def test_a_pod_on_the_nodes_network_has_no_policy() -> None:
    on_the_node = UI.replace("spec: {containers:", "spec: {hostNetwork: true, containers:")
    assert findings(on_the_node + LOAD_BALANCER + policy(""), "policy-blocks-outside") == []


def test_the_remedy_admits_the_ranges_that_the_service_takes() -> None:
    own = LOAD_BALANCER.replace("type: LoadBalancer,", "type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.0/24],")
    (found,) = findings(UI + own + policy(f"{{from: [{PODS}]}}"), "policy-blocks-outside")
    assert str(found.object) == "Deployment ml/ui"
    assert found.title == "clients of the load balancer of Service ml/ui are not admitted to TCP 8501"
    assert found.remedy is not None
    assert "192.0.2.0/24" in found.remedy.yaml
    assert found.remedy.trial.startswith("tried: heals it")
