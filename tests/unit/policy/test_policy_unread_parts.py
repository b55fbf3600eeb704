"""Objects that policies build on (groups of blocks, network sets, configurations) and that can't be read: they end nothing."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.cluster import LeftOut
from kubectl_genainet.policy import PolicyEngine
from kubectl_genainet.policy.enforcers import named_enforcer
from tests.unit.policy.policy_cluster import Raw, ask, engine, netpol, pod, snapshot, verdict


def cidr_group(spec: object, **labels: str) -> Raw:
    metadata = {"name": "g", "labels": labels}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    "spec", [{"externalCIDRs": ["nonsense"]}, {"externalCIDRs": "10.0.0.0/8"}, {"externalCIDR": ["10.0.0.0/8"]}, [1], 5]
)
@pytest.mark.parametrize("peer", [{"cidrGroupRef": "g"}, {"cidrGroupSelector": {"matchLabels": {"a": "b"}}}])
def test_a_group_of_blocks_that_can_not_be_read_leaves_open_only_what_it_may_hold(spec: object, peer: Raw) -> None:
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "c", "namespace": "ai"},
        "spec": {"endpointSelector": {}, "egress": [{"toCIDRSet": [peer]}]},
    }
    e = engine(pod("ai/a", "10.1.0.1"), pod("ai/b", "10.1.0.2"), policy, cidr_group(spec, a="b"))
    answer = ask(e, "ai/a", "203.0.113.7", 443)
    assert answer.verdict.value == "unknown"
    assert "CiliumCIDRGroup g can't be read" in answer.not_evaluated[0].reason
    assert verdict(e, "ai/a", "ai/b") == "deny"


def test_a_misspelt_field_of_a_network_set_leaves_open_what_it_may_hold() -> None:
    network_set = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkSet",
        "metadata": {"name": "g", "labels": {"a": "b"}},
        "spec": {"net": ["203.0.113.0/24"]},
    }
    egress = [{"action": "Allow", "destination": {"selector": "a == 'b'"}}]
    policy = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": {"selector": "all()", "egress": egress},
    }
    answer = ask(engine(pod("ai/a", "10.1.0.1"), policy, network_set), "ai/a", "203.0.113.7", 443)
    assert answer.verdict.value == "unknown"
    assert "did you mean nets?" in answer.not_evaluated[0].reason


@pytest.mark.parametrize("name", ["cilium-config", "antrea-config", "amazon-vpc-cni", "istio"])
@pytest.mark.parametrize("data", [[1], "x", 5])
def test_a_configuration_of_another_shape_ends_nothing(name: str, data: object) -> None:
    namespace = "istio-system" if name == "istio" else "kube-system"
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}
    for enforcer in ("cilium", "antrea", "vpc-cni"):
        e = PolicyEngine(snapshot(pod("ai/a", "10.1.0.1"), config, netpol("ai/p")), named_enforcer(enforcer))
        assert verdict(e, "203.0.113.7", "ai/a") in ("deny", "unknown")  # unknown: the pod has no owner (VPC CNI)


def test_network_sets_that_may_not_be_read_leave_open_what_they_may_hold() -> None:
    egress = [{"action": "Deny", "destination": {"selector": "a == 'b'"}}, {"action": "Allow"}]
    policy = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": {"selector": "all()", "egress": egress},
    }
    pods = (pod("ai/a", "10.1.0.1"), pod("ai/b", "10.1.0.2"))
    e = engine(*pods, policy, left_out=(LeftOut("GlobalNetworkSet", "forbidden"),))
    answer = ask(e, "ai/a", "203.0.113.7", 443)
    assert answer.verdict.value == "unknown"
    assert "GlobalNetworkSet objects could not be read: forbidden" in answer.not_evaluated[0].reason
    assert verdict(e, "ai/a", "ai/b") == "allow"
    assert verdict(engine(*pods, policy), "ai/a", "203.0.113.7", 443) == "allow"
