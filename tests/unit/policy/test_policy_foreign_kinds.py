"""An object matters only to an enforcer that reads its kind: under any other one it is inert, also where it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.model.cluster import LeftOut
from kubectl_genainet.policy import PolicyEngine
from kubectl_genainet.policy.enforcers import named_enforcer
from tests.unit.policy.policy_cluster import Raw, daemon_set, labels, namespace, node, pod, snapshot, verdict

PODS = (namespace("ai"), pod("ai/rag", "10.1.0.2", node="n1"), pod("web/chat", "10.2.0.1"))
EVERY = ("cilium", "calico", "antrea", "ovn", "kube-router", "vpc-cni", "kube-network-policies", "azure-npm", "weave")
DENY = [{"action": "Deny", "from": [{"namespaces": {}}]}]


def of(version: str, kind: str, namespace: str = "ai", /, **spec: Any) -> Raw:
    metadata = {"name": "default", **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def under(name: str, *objects: Raw, left_out: tuple[LeftOut, ...] = ()) -> PolicyEngine:
    return PolicyEngine(snapshot(*PODS, *objects, left_out=left_out), named_enforcer(name))


ADMIN = "policy.networking.k8s.io/v1alpha1"
OF_CILIUM = [
    of("cilium.io/v2", "CiliumNetworkPolicy", endpointSelectr={}, ingress=[{}]),  # refused by its agent
    of(
        "cilium.io/v1", "CiliumNetworkPolicy", endpointSelector={}, ingressDeny=[{"fromEntities": ["all"]}]
    ),  # not served
    of("cilium.io/v2", "CiliumClusterwideNetworkPolicy", "", nodeSelector={}, ingressDeny=[{"fromEntities": ["all"]}]),
    of("cilium.io/v2", "CiliumNodeConfig", defaults={"enable-policy": "always"}),
]
OF_CALICO = [
    of("projectcalico.org/v3", "NetworkPolicy", selector="has("),
    of("crd.projectcalico.org/v1", "GlobalNetworkPolicy", "", selector="has("),
    of("projectcalico.org/v1", "GlobalNetworkPolicy", "", selector="all()", types=["Ingress"]),
]
OF_ANTREA = [
    of(
        "crd.antrea.io/v1beta1",
        "ClusterNetworkPolicy",
        "",
        appliedTo=[{"podSelector": {}}],
        ingress=[{"action": "Drop"}],
    ),
    of("crd.antrea.io/v1beta1", "NetworkPolicy", appliedTo=[{"podSelector": {}}], ingress=[{"action": "Drop"}]),
]
OF_AWS = [
    of("networking.k8s.aws/v1alpha1", "ApplicationNetworkPolicy", podSelector={}, ingress=[]),
    of("networking.k8s.aws/v1alpha1", "ClusterNetworkPolicy", "", subject={"namespaces": {}}, ingress=DENY),
]
OF_OVN = [of("k8s.ovn.org/v1", "UserDefinedNetwork", topology="Layer2", layer2={"role": "Primary"})]


@pytest.mark.parametrize("enforcer", EVERY)
@pytest.mark.parametrize(
    ("reader", "policy"),
    [
        *(("cilium", policy) for policy in OF_CILIUM),
        *(("calico", policy) for policy in OF_CALICO),
        *(("antrea", policy) for policy in OF_ANTREA),
        *(("vpc-cni", policy) for policy in OF_AWS),
        *(("ovn", policy) for policy in OF_OVN),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else value,
)
def test_a_kind_of_another_enforcer_is_inert_and_said_to_be(enforcer: str, reader: str, policy: Raw) -> None:
    if enforcer == reader:
        assert all("does not read this kind" not in one.reason for one in under(enforcer, policy).unevaluated)
        return
    e = under(enforcer, policy)
    assert verdict(e, "web/chat", "ai/rag") == "allow"
    assert ["does not read this kind" in one.reason for one in e.unevaluated] == [True]
    assert e.host_policies == ()


@pytest.mark.parametrize(
    "policy",
    [
        of(ADMIN, "AdminNetworkPolicy", "", subjct={"namespaces": {}}, priority=1, ingress=DENY),
        of(ADMIN, "AdminNetworkPolicy", "", subject={"namespaces": {}}, ingress=DENY),
        of(ADMIN, "BaselineAdminNetworkPolicy", "", subject={}, ingress=DENY),
        {**of(ADMIN, "AdminNetworkPolicy", "", ingress=DENY), "apiVersion": "policy.networking.k8s.io/v1alpha0"},
    ],
)
def test_cilium_never_reads_the_first_kinds_of_administrators_however_broken(policy: Raw) -> None:
    e = under("cilium", policy)
    assert verdict(e, "web/chat", "ai/rag") == "allow"
    (one,) = e.unevaluated
    assert "Cilium enforces the policies, and it does not read this kind" in one.reason
    assert verdict(under("unknown", policy), "web/chat", "ai/rag") == "unknown"


def test_a_kind_that_could_not_be_read_matters_only_where_it_would_be_in_force() -> None:
    unread = (LeftOut("AdminNetworkPolicy", "forbidden"),)
    assert verdict(under("cilium", left_out=unread), "web/chat", "ai/rag") == "allow"
    assert verdict(under("unknown", left_out=unread), "web/chat", "ai/rag") == "unknown"
    shared = (LeftOut("NetworkPolicy", "forbidden"),)  # Kubernetes has this kind too
    assert verdict(under("cilium", left_out=shared), "web/chat", "ai/rag") == "unknown"


def test_an_enforcer_that_runs_beside_another_one_reads_its_kinds() -> None:
    agent = daemon_set("amazon/aws-network-policy-agent:v1", "agent", "--enable-network-policy=true")
    assert verdict(under("cilium", OF_AWS[0], agent), "web/chat", "ai/rag") == "unknown"


def test_policies_of_nodes_count_only_under_their_enforcer() -> None:
    nodes = of(
        "crd.antrea.io/v1beta1",
        "ClusterNetworkPolicy",
        "",
        appliedTo=[{"nodeSelector": labels(role="gate")}],
        ingress=[{"action": "Drop"}],
    )
    host = (node("n1", "192.168.0.1", role="gate"),)
    assert verdict(under("cilium", nodes, *host), "web/chat", "192.168.0.1") == "allow"
    assert verdict(under("antrea", nodes, *host), "web/chat", "192.168.0.1") == "unknown"
