"""Who enforces the policies, and what that changes."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.model.kube import without_nulls
from kubectl_genainet.policy import Direction, PolicyEngine, Reason
from kubectl_genainet.policy.enforcers import EnforcerName, Trait, enforcer_of, named_enforcer
from tests.unit.policy.policy_cluster import (
    admin,
    ask,
    daemon_set,
    end,
    engine,
    labels,
    namespace,
    netpol,
    node,
    pod,
    snapshot,
    verdict,
)

PODS = (
    namespace("ai"),
    node("n1", "192.168.0.1"),
    node("n2", "192.168.0.2"),
    pod("ai/rag", "10.1.0.2", node="n1"),
    pod("ai/llama", "10.1.0.3", node="n2"),
)
CLOSED = netpol("ai/closed", policyTypes=["Ingress", "Egress"])


@pytest.mark.parametrize(
    ("image", "arguments", "found"),
    [
        ("quay.io/calico/node:v3.30.1", (), EnforcerName.CALICO),
        ("docker.io/cloudnativelabs/kube-router:v2.1", (), EnforcerName.KUBE_ROUTER),
        ("docker.io/cloudnativelabs/kube-router:v2.1", ("--run-firewall=false",), EnforcerName.NONE),
        ("602.dkr.ecr.eu-west-1.example/amazon/aws-network-policy-agent:v1", (), EnforcerName.UNKNOWN),
        (
            "602.dkr.ecr.eu-west-1.example/amazon/aws-network-policy-agent:v1",
            ("--enable-network-policy=true",),
            EnforcerName.VPC_CNI,
        ),
        ("602.dkr.ecr.eu-west-1.example/amazon-k8s-cni:v1.19", (), EnforcerName.NONE),
        ("ghcr.io/flannel-io/flannel:v0.26", (), EnforcerName.NONE),
        ("docker.io/kindest/kindnetd:v20230511-dc714da8", (), EnforcerName.NONE),
        ("docker.io/kindest/kindnetd:v20250214-acbabc1a", (), EnforcerName.KUBE_NETWORK_POLICIES),
        ("registry.example/team/exporter:1", (), EnforcerName.UNKNOWN),
    ],
)
def test_an_enforcer_is_found_by_its_agent(image: str, arguments: tuple[str, ...], found: EnforcerName) -> None:
    enforcer = enforcer_of(snapshot(*PODS, daemon_set(image, "c", *arguments)))
    assert enforcer.name is found
    assert enforcer.evidence == ("" if found is EnforcerName.UNKNOWN else "DaemonSet kube-system/net")


def test_a_name_alone_shows_nothing() -> None:
    assert enforcer_of(snapshot(daemon_set("registry.example/x:1", name="calico-node"))).name is EnforcerName.UNKNOWN


def test_a_network_that_enforces_nothing_counts_only_alone() -> None:
    canal = (daemon_set("ghcr.io/flannel-io/flannel:v1", name="a"), daemon_set("quay.io/calico/node:v3", name="b"))
    assert enforcer_of(snapshot(*canal)).name is EnforcerName.CALICO


def test_an_agent_that_runs_goes_before_objects_that_are_left_over() -> None:
    left = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "l", "namespace": "ai"}}
    assert enforcer_of(snapshot(left)).name is EnforcerName.CILIUM
    assert enforcer_of(snapshot(left, daemon_set("quay.io/calico/node:v3"))).name is EnforcerName.CALICO
    assert enforcer_of(snapshot(left, daemon_set("docker.io/flannel/flannel:v0.25"))).name is EnforcerName.NONE


def test_without_an_enforcer_every_policy_is_inert() -> None:
    e = engine(*PODS, CLOSED, daemon_set("docker.io/flannel/flannel:v0.25"))
    answer = ask(e, "ai/rag", "ai/llama")
    assert (answer.verdict.value, answer.ingress.reason) == ("allow", Reason.INERT)
    assert e.enforcer.evidence == "DaemonSet kube-system/net"


@pytest.mark.parametrize(("name", "expected"), [("unknown", "allow"), ("calico", "deny"), ("cilium", "deny")])
def test_the_own_node_is_exempt_from_egress_by_the_api_but_not_everywhere(name: str, expected: str) -> None:
    e = PolicyEngine(snapshot(*PODS, CLOSED), named_enforcer(name))
    answer = ask(e, "ai/rag", "192.168.0.1")
    assert answer.verdict.value == expected
    assert bool(e.deviations(answer, Direction.EGRESS)) == (expected == "deny")


def test_a_deviation_is_named_only_where_it_decides() -> None:
    block = netpol("ai/out", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])
    e = PolicyEngine(snapshot(*PODS, block), named_enforcer("cilium"))
    to_pod, outside = ask(e, "ai/rag", "ai/llama"), ask(e, "ai/rag", "203.0.113.1")
    (deviation,) = e.deviations(to_pod, Direction.EGRESS)
    assert to_pod.verdict.value == "deny"
    assert deviation.text.startswith("an ipBlock selects neither pods nor nodes")
    assert (outside.verdict.value, e.deviations(outside, Direction.EGRESS)) == ("allow", ())


def test_pods_without_an_owner_are_outside_what_the_vpc_cni_documents() -> None:
    def owned(raw: dict[str, Any]) -> dict[str, Any]:
        return {**raw, "metadata": {**raw["metadata"], "ownerReferences": [{"kind": "ReplicaSet", "name": "r"}]}}

    closed = netpol("ai/in", podSelector=labels(app="llama"))
    bare, made = (*PODS, closed), (*PODS[:-1], owned(PODS[-1]), closed)
    for objects, expected in ((bare, "unknown"), (made, "deny")):
        e = PolicyEngine(snapshot(*map(without_nulls, objects)), named_enforcer("vpc-cni"))
        assert verdict(e, "ai/rag", "ai/llama") == expected
    assert end("ai/rag").name == "rag"


@pytest.mark.parametrize("name", ["unknown", "kube-router"])
def test_kube_router_tries_both_directions_of_a_policy_in_one_chain(name: str) -> None:
    """Egress to llama is open, ingress is closed; the policy selects both ends, then only one of them."""
    to_llama = [{"to": [{"podSelector": {"matchLabels": {"app": "llama"}}}], "ports": [{"port": 8080}]}]
    rules = {"policyTypes": ["Ingress", "Egress"], "egress": to_llama, "ingress": []}
    both = PolicyEngine(snapshot(*PODS, netpol("ai/both", **rules)), named_enforcer(name))
    model = netpol("ai/one", podSelector={"matchLabels": {"app": "llama"}}, **rules)
    one = PolicyEngine(snapshot(*PODS, model), named_enforcer(name))
    admits = name == "kube-router"
    answer = ask(both, "ai/rag", "ai/llama", 8080)
    assert answer.verdict.value == ("allow" if admits else "deny")
    assert both.verdict(answer.flow) is answer.verdict
    assert [d.trait for d in both.deviations(answer, Direction.INGRESS)] == ([Trait.ONE_CHAIN] if admits else [])
    assert ask(both, "ai/rag", "ai/llama", 9090).verdict.value == "deny"
    assert ask(both, "ai/llama", "ai/rag", 8080).verdict.value == "deny"  # not a peer of the rule
    assert ask(one, "ai/rag", "ai/llama", 8080).verdict.value == "deny"


def test_under_kube_network_policies_any_network_policy_keeps_the_baseline_away() -> None:
    deny = {"action": "Deny", "from": [{"namespaces": {}}]}
    closed = admin("BaselineAdminNetworkPolicy", "default", subject={"namespaces": {}}, ingress=[deny], egress=[])
    egress_only = netpol("ai/out", podSelector=labels(app="llama"), policyTypes=["Egress"], egress=[{}])
    pods = (namespace("ai"), pod("ai/rag", "10.1.0.2"), pod("ai/llama", "10.1.0.3"))
    running = daemon_set("example/kube-network-policies:v0.8.0", "c", "-baseline-admin-network-policy=true")
    objects = (*pods, closed, egress_only, running)
    judge = PolicyEngine(snapshot(*objects), named_enforcer("kube-network-policies"))
    explanation = ask(judge, "ai/rag", "ai/llama")
    assert explanation.verdict.value == "allow"
    (deviation,) = judge.deviations(explanation, Direction.INGRESS)
    assert deviation.trait is Trait.BASELINE
    assert ask(PolicyEngine(snapshot(*objects[:-1])), "ai/rag", "ai/llama").verdict.value == "deny"
    assert ask(judge, "ai/llama", "ai/rag").verdict.value == "deny"  # no NetworkPolicy selects rag


@pytest.mark.parametrize(
    ("option", "expected"), [("--enable-np=false", "allow"), ("--enable-np=true", "deny"), ("", "deny")]
)
def test_kube_ovn_enforces_nothing_where_its_controller_says_so(option: str, expected: str) -> None:
    image = "docker.io/kubeovn/kube-ovn:v1.13.1"
    controller = daemon_set(image, "kube-ovn-controller", option, name="kube-ovn-controller")
    objects = (pod("a/x", "10.0.0.1"), pod("a/y", "10.0.0.2"), netpol("a/closed"), daemon_set(image, "cni-server"))
    cluster = engine(*objects, {**controller, "kind": "Deployment"})
    assert verdict(cluster, "a/x", "a/y") == expected
    assert cluster.enforcer.inert is (expected == "allow")
