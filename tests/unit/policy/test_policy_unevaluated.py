"""A policy that is not evaluated is named, and makes UNKNOWN exactly the verdicts that it could change."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.policy.left_out.served import RefusedBy
from kubectl_genainet.render.policy.json import flow_json
from tests.unit.policy.policy_cluster import (
    Raw,
    admin,
    ask,
    engine,
    labels,
    namespace,
    netpol,
    node,
    pod,
    unevaluated,
    verdict,
)

PODS = (
    namespace("ai"),
    namespace("web"),
    pod("ai/llama", "10.1.0.1"),
    pod("ai/rag", "10.1.0.2"),
    pod("web/chat", "10.2.0.1"),
)


def other(version: str, kind: str, name: str, **spec: Any) -> Raw:
    where, _, short = name.rpartition("/")
    metadata = {"name": short, **({"namespace": where} if where else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    "policy",
    [
        other("networking.gke.io/v1alpha1", "FQDNNetworkPolicy", "ai/p", podSelector=labels(app="rag"), egress=[]),
        other("networking.k8s.aws/v1alpha1", "ApplicationNetworkPolicy", "ai/p", podSelector={}, egress=[{}]),
        other("networking.k8s.aws/v1alpha1", "ClusterNetworkPolicy", "p", subject={"namespaces": {}}, egress=[{}]),
        other("example.org/v1", "EgressPolicy", "ai/p", podSelector=labels(app="rag"), egress=[]),
        other("networking.k8s.io/v1", "Networkpolicy", "ai/p", podSelector={}, policyTypes=["Egress"]),
        other("networking.k8s.io/v1", "NetworkPolcy", "ai/p", podSelector={}, policyTypes=["Egress"]),
        other("networking.k8s.io/v1", "Netpol", "ai/p", podSelector={}, policyTypes=["Egress"]),
        other("extensions/v1beta1", "NetworkPolicy", "ai/p", podSelector={}, policyTypes=["Egress"]),
    ],
)
def test_a_policy_of_another_kind_is_never_an_allow(policy: Raw) -> None:
    answer = ask(engine(*PODS, policy), "ai/rag", "203.0.113.7", 443)
    assert answer.verdict.value == "unknown"
    assert policy["kind"] in answer.not_evaluated[0].policy
    assert verdict(engine(*PODS, policy), "web/chat", "203.0.113.7", 443) in ("allow", "unknown")


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        (other("cilium.io/v2", "CiliumNetworkPolcy", "ai/p", endpointSelector={}, ingress=[{}]), "CiliumNetworkPolicy"),
        (
            other("cilium.io/v2", "CiliumClusterWideNetworkPolicy", "p", endpointSelector={}, ingress=[{}]),
            "Clusterwide",
        ),
        (
            other("projectcalico.org/v3", "GlobalNetworkPolcy", "p", selector="all()", types=["Ingress"]),
            "GlobalNetworkPolicy",
        ),
        (other("networking.k8s.io/v1", "NetworkPolcy", "ai/p", podSelector={}), "the kind is NetworkPolicy of"),
    ],
)
def test_a_kind_that_differs_in_a_letter_is_told_with_the_right_one(policy: Raw, kind: str) -> None:
    found = unevaluated(*PODS, policy)
    assert (found.field, found.refused_by) == ("kind", RefusedBy.CLIENT)
    assert kind in found.reason
    assert verdict(engine(*PODS, policy), "web/chat", "ai/llama") == "unknown"


@pytest.mark.parametrize(
    ("version", "kind", "shown"),
    [
        ("projectcalico.org/v3", "NetworkPolicy", "NetworkPolicy.projectcalico.org ai/p"),
        ("crd.projectcalico.org/v1", "NetworkPolicy", "NetworkPolicy.crd.projectcalico.org ai/p"),
        ("projectcalico.org/v2", "NetworkPolicy", "NetworkPolicy.projectcalico.org ai/p"),
        ("crd.antrea.io/v1beta1", "NetworkPolicy", "NetworkPolicy.crd.antrea.io ai/p"),
        ("networking.k8s.aws/v1alpha1", "ClusterNetworkPolicy", "ClusterNetworkPolicy.networking.k8s.aws ai/p"),
    ],
)
def test_no_name_of_another_project_is_one_of_kubernetes(version: str, kind: str, shown: str) -> None:
    e = engine(*PODS, other(version, kind, "ai/p", selector="has(", appliedTo=[{}]), netpol("ai/p"))
    assert [str(one.ref) for one in e.unevaluated] == [shown]
    answer = ask(e, "web/chat", "ai/llama")
    assert {str(result.ref) for result in answer.ingress.policies} == {shown, "NetworkPolicy ai/p"}
    record = flow_json(answer)["ingress"]
    assert {policy["kind"] for policy in record["policies"]} == {shown.partition(" ")[0], "NetworkPolicy"}


def test_it_leaves_alone_what_it_can_not_select() -> None:
    egress_only = other("networking.gke.io/v1", "FQDNNetworkPolicy", "ai/p", podSelector=labels(app="rag"), egress=[])
    e = engine(*PODS, egress_only)
    assert verdict(e, "ai/llama", "203.0.113.7") == "allow"
    assert verdict(e, "web/chat", "ai/rag") == "allow"


def test_an_additive_policy_does_not_stop_what_another_admits() -> None:
    fqdn = other("networking.gke.io/v1", "FQDNNetworkPolicy", "ai/p", podSelector={}, egress=[])
    admitted = netpol("ai/out", policyTypes=["Egress"], egress=[{"to": [{"podSelector": labels(app="llama")}]}])
    e = engine(*PODS, fqdn, admitted)
    assert verdict(e, "ai/rag", "ai/llama") == "allow"
    assert verdict(e, "ai/rag", "web/chat") == "unknown"


def test_what_an_admin_policy_denies_stays_denied() -> None:
    bad = netpol("ai/p", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}])
    deny = admin(
        "AdminNetworkPolicy",
        "a",
        priority=1,
        subject={"namespaces": {}},
        ingress=[{"action": "Deny", "from": [{"namespaces": labels(**{"kubernetes.io/metadata.name": "web"})}]}],
    )
    e = engine(*PODS, bad, deny)
    assert verdict(e, "web/chat", "ai/llama") == "deny"
    assert verdict(e, "ai/rag", "ai/llama") == "unknown"


def test_one_refused_policy_does_not_end_the_others() -> None:
    bad = other("crd.projectcalico.org/v1", "GlobalNetworkPolicy", "g", selector="has(", types=["Egress"])
    e = engine(*PODS, bad, netpol("ai/closed"))
    assert verdict(e, "web/chat", "ai/llama") == "deny"
    assert ask(e, "ai/rag", "203.0.113.7").not_evaluated[0].policy == "GlobalNetworkPolicy g"


@pytest.mark.parametrize(
    ("version", "by"),
    [("projectcalico.org/v3", RefusedBy.API), ("crd.projectcalico.org/v1", RefusedBy.AGENT)],
)
def test_who_refuses_is_said(version: str, by: RefusedBy) -> None:
    rule = {"action": "Allow", "destination": {"ports": [80]}}
    found = unevaluated(*PODS, other(version, "NetworkPolicy", "ai/p", ingress=[rule]))
    assert found.refused_by is by
    assert (found.field, found.reason) == (
        "spec.ingress[0].destination.ports",
        "a rule with ports needs the protocol TCP, UDP or SCTP",
    )


def test_old_versions_are_named_with_the_current_one() -> None:
    found = unevaluated(*PODS, other("extensions/v1beta1", "NetworkPolicy", "ai/p", podSelector={}))
    assert found.refused_by is RefusedBy.API
    assert "extensions/v1beta1" in found.reason and "networking.k8s.io/v1" in found.reason


def test_kinds_that_only_look_like_policies_change_nothing() -> None:
    harmless = [
        other("cilium.io/v1alpha1", "TracingPolicyNamespaced", "ai/t", podSelector={}),
        other("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy", "ai/m", podSelector={}),
        other("policy/v1beta1", "PodSecurityPolicy", "p", privileged=False),
        other("networking.k8s.aws/v1alpha1", "PolicyEndpoint", "ai/e", podSelector={}),
    ]
    e = engine(*PODS, *harmless)
    assert e.unevaluated == ()
    assert verdict(e, "ai/rag", "ai/llama") == "allow"


def test_a_field_that_the_kind_lacks_may_be_a_misspelt_direction() -> None:
    policy = netpol("ai/p", egres=[{"to": []}], ingress=[{}])
    assert verdict(engine(*PODS, policy), "ai/rag", "203.0.113.7") == "unknown"


def test_addresses_have_no_place_in_an_ingress_rule_of_administrators() -> None:
    rules = [{"action": "Deny", "from": [{"networks": ["203.0.113.0/24"]}]}]
    policy = admin("AdminNetworkPolicy", "a", priority=1, subject={"namespaces": {}}, ingress=rules)
    answer = ask(engine(*PODS, policy), "203.0.113.9", "ai/llama")
    assert answer.verdict.value == "unknown"
    assert answer.not_evaluated[0].reason == "peers of an ingress rule have no field networks"


def test_a_kind_in_the_wrong_case_is_named() -> None:
    found = unevaluated(*PODS, other("networking.k8s.io/v1", "Networkpolicy", "ai/p", podSelector={}))
    assert (found.field, found.refused_by) == ("kind", RefusedBy.CLIENT)
    assert "the kind is NetworkPolicy" in found.reason


def _antrea(*applied: Raw, **spec: Any) -> Raw:
    metadata = {"name": "nodes"}
    more = {"appliedTo": list(applied), **spec} if applied else spec
    return {"apiVersion": "crd.antrea.io/v1beta1", "kind": "ClusterNetworkPolicy", "metadata": metadata, "spec": more}


_GATES = {"nodeSelector": labels(role="gate")}
_NODES = (node("n1", "192.168.0.1"), node("n2", "192.168.0.2", role="gate"))
_DROP = {"action": "Drop", "from": [{"podSelector": {}}]}


@pytest.mark.parametrize(
    ("policy", "gate", "other", "pods"),
    [
        (_antrea(_GATES, ingress=[_DROP]), "unknown", "allow", "allow"),
        (_antrea(_GATES, {"podSelector": {}}, ingress=[_DROP]), "unknown", "allow", "unknown"),
        (_antrea(ingress=[{**_DROP, "appliedTo": [_GATES]}]), "unknown", "allow", "allow"),
        (_antrea({"nodeSelector": {"matchLabels": 1}}, ingress=[_DROP]), "unknown", "unknown", "allow"),
    ],
)
def test_a_policy_of_nodes_leaves_open_what_reaches_those_that_it_selects(
    policy: Raw, gate: str, other: str, pods: str
) -> None:
    cluster = engine(namespace("a"), *_NODES, pod("a/x", "10.0.0.1", node="n1"), pod("a/y", "10.0.0.2"), policy)
    assert [verdict(cluster, "a/x", target) for target in ("192.168.0.2", "192.168.0.1", "a/y")] == [gate, other, pods]


def test_a_policy_of_nodes_may_be_about_any_node_that_is_not_among_the_objects() -> None:
    cluster = engine(
        namespace("a"), pod("a/host", "192.168.0.9", host_network=True), pod("a/y", "10.0.0.2"), _antrea(_GATES)
    )
    assert verdict(cluster, "a/y", "a/host") == "unknown"
