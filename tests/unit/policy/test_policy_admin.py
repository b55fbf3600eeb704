"""Policies of administrators: order, actions, peers and ports of the kinds of policy.networking.k8s.io."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.policy import Reason
from tests.unit.policy.policy_cluster import admin, ask, effects, engine, labels, namespace, netpol, node, pod, verdict

PODS = (
    namespace("ai", team="ml", zone="eu"),
    namespace("web", team="front", zone="eu"),
    pod("ai/llama", "10.1.0.1", ports=(("http", "TCP", 8080), ("dns", "UDP", 53))),
    pod("web/chat", "10.2.0.1"),
)
EVERYWHERE: dict[str, Any] = {"namespaces": {}}
FROM_WEB = [{"namespaces": labels(team="front")}]


def anp(name: str, priority: int, *ingress: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return admin("AdminNetworkPolicy", name, priority=priority, subject=EVERYWHERE, ingress=list(ingress), **spec)


def banp(*ingress: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return admin("BaselineAdminNetworkPolicy", "default", subject=EVERYWHERE, ingress=list(ingress), **spec)


def rule(action: str, **more: Any) -> dict[str, Any]:
    return {"action": action, "from": FROM_WEB, **more}


DENY_ALL = netpol("ai/deny")
ALLOW_ALL = netpol("ai/allow", ingress=[{}])


def test_allow_goes_before_network_policies() -> None:
    answer = ask(engine(*PODS, anp("a", 1, rule("Allow")), DENY_ALL), "web/chat", "ai/llama")
    assert answer.verdict.value == "allow"
    assert effects(answer.ingress) == [("a", "allows", 1)]
    assert answer.ingress.isolated_by == ()


def test_deny_goes_before_network_policies() -> None:
    answer = ask(engine(*PODS, anp("a", 1, rule("Deny", name="no-web")), ALLOW_ALL), "web/chat", "ai/llama")
    assert answer.verdict.value == "deny"
    assert answer.ingress.reason is Reason.RULE
    assert [(p.effect.value, p.rule, p.rule_name) for p in answer.ingress.policies] == [("denies", 1, "no-web")]


def test_pass_leaves_it_to_network_policies_and_then_to_the_baseline() -> None:
    passing = anp("a", 1, rule("Pass"), rule("Deny"))
    assert verdict(engine(*PODS, passing, ALLOW_ALL), "web/chat", "ai/llama") == "allow"
    answer = ask(engine(*PODS, passing, banp(rule("Deny"))), "web/chat", "ai/llama")
    assert effects(answer.ingress) == [("a", "passes", 1), ("default", "denies", 1)]
    assert verdict(engine(*PODS, passing), "web/chat", "ai/llama") == "allow"


def test_the_lower_priority_number_goes_first_and_then_the_order_of_rules() -> None:
    e = engine(*PODS, anp("late", 20, rule("Deny")), anp("early", 10, rule("Allow"), rule("Deny")))
    answer = ask(e, "web/chat", "ai/llama")
    assert effects(answer.ingress) == [("early", "allows", 1)]


def test_equal_priorities_with_different_actions_are_unknown() -> None:
    answer = ask(engine(*PODS, anp("a", 5, rule("Deny")), anp("b", 5, rule("Allow"))), "web/chat", "ai/llama")
    assert answer.verdict.value == "unknown"
    assert "same priority" in answer.not_evaluated[0].reason
    same = engine(*PODS, anp("a", 5, rule("Deny")), anp("b", 5, rule("Deny")))
    assert verdict(same, "web/chat", "ai/llama") == "deny"


def test_the_baseline_is_not_asked_where_a_network_policy_isolates() -> None:
    assert verdict(engine(*PODS, banp(rule("Deny")), ALLOW_ALL), "web/chat", "ai/llama") == "allow"
    assert verdict(engine(*PODS, banp(rule("Allow")), DENY_ALL), "web/chat", "ai/llama") == "deny"
    assert verdict(engine(*PODS, banp(rule("Deny"))), "web/chat", "ai/llama") == "deny"


@pytest.mark.parametrize(
    ("port", "flow", "denied"),
    [
        ({"portNumber": {"protocol": "TCP", "port": 8080}}, (8080, "TCP"), True),
        ({"portNumber": {"protocol": "UDP", "port": 8080}}, (8080, "TCP"), False),
        ({"portRange": {"protocol": "TCP", "start": 8000, "end": 8080}}, (8080, "TCP"), True),
        ({"portRange": {"protocol": "TCP", "start": 8000, "end": 8079}}, (8080, "TCP"), False),
        ({"namedPort": "http"}, (8080, "TCP"), True),
        ({"namedPort": "http"}, (8080, "UDP"), False),
        ({"namedPort": "dns"}, (53, "UDP"), True),
    ],
)
def test_ports_of_v1alpha1(port: dict[str, Any], flow: tuple[int, str], denied: bool) -> None:
    e = engine(*PODS, anp("a", 1, rule("Deny", ports=[port])))
    assert (verdict(e, "web/chat", "ai/llama", *flow) == "deny") is denied


@pytest.mark.parametrize(
    ("protocol", "flow", "denied"),
    [
        ({"tcp": {"destinationPort": {"number": 8080}}}, (8080, "TCP"), True),
        ({"udp": {"destinationPort": {"number": 8080}}}, (8080, "TCP"), False),
        ({"sctp": {"destinationPort": {"range": {"start": 1, "end": 9}}}}, (9, "SCTP"), True),
        ({"tcp": {}}, (1234, "TCP"), True),
        ({"destinationNamedPort": "http"}, (8080, "TCP"), True),
        ({"destinationNamedPort": "http"}, (8081, "TCP"), False),
    ],
)
def test_protocols_of_v1alpha2(protocol: dict[str, Any], flow: tuple[int, str], denied: bool) -> None:
    policy = admin(
        "ClusterNetworkPolicy",
        "c",
        tier="Admin",
        priority=1,
        subject=EVERYWHERE,
        ingress=[rule("Deny", protocols=[protocol])],
    )
    assert (verdict(engine(*PODS, policy), "web/chat", "ai/llama", *flow) == "deny") is denied


def test_tiers_of_cluster_network_policies() -> None:
    def cnp(name: str, tier: str, action: str) -> dict[str, Any]:
        return admin("ClusterNetworkPolicy", name, tier=tier, priority=1, subject=EVERYWHERE, ingress=[rule(action)])

    assert verdict(engine(*PODS, cnp("a", "Admin", "Accept"), DENY_ALL), "web/chat", "ai/llama") == "allow"
    assert verdict(engine(*PODS, cnp("b", "Baseline", "Deny"), ALLOW_ALL), "web/chat", "ai/llama") == "allow"
    assert verdict(engine(*PODS, cnp("b", "Baseline", "Deny")), "web/chat", "ai/llama") == "deny"
    both = engine(*PODS, cnp("a", "Admin", "Pass"), cnp("b", "Baseline", "Deny"))
    assert effects(ask(both, "web/chat", "ai/llama").ingress) == [("a", "passes", 1), ("b", "denies", 1)]


def test_networks_select_pods_too_and_host_bits_are_masked_off() -> None:
    to = [{"networks": ["203.0.113.77/24", "10.1.0.0/16", "ff06::/3"]}]
    e = engine(*PODS, anp("a", 1, egress=[{"action": "Deny", "to": to}]))
    assert verdict(e, "web/chat", "203.0.113.1") == "deny"
    assert verdict(e, "web/chat", "ai/llama") == "deny"
    assert verdict(e, "web/chat", "203.0.114.1") == "allow"


def test_nodes_are_selected_by_label_with_the_pods_that_use_their_network() -> None:
    to = [{"nodes": labels(pool="gpu")}]
    e = engine(
        *PODS,
        node("g", "192.168.0.1", pool="gpu"),
        node("c", "192.168.0.2", pool="cpu"),
        node("bare", pool="gpu"),
        pod("ai/agent", "192.168.0.9", host_network=True, node="bare"),
        anp("a", 1, egress=[{"action": "Deny", "to": to}]),
    )
    assert verdict(e, "web/chat", "192.168.0.1") == "deny"
    assert verdict(e, "web/chat", "192.168.0.2") == "allow"
    assert verdict(e, "web/chat", "ai/agent") == "deny"


def test_domain_names_are_evaluated_for_a_name_and_unknown_for_an_address() -> None:
    names = [{"domainNames": ["*.huggingface.co", "downloads.example"]}]
    allow = {"action": "Accept", "to": names}
    deny = {"action": "Deny", "to": [{"networks": ["128.0.0.0/1", "10.0.0.0/8"]}]}
    e = engine(
        *PODS, admin("ClusterNetworkPolicy", "c", tier="Admin", priority=1, subject=EVERYWHERE, egress=[allow, deny])
    )
    assert verdict(e, "ai/llama", "cdn.huggingface.co") == "allow"
    assert verdict(e, "ai/llama", "a.b.huggingface.co") == "allow"
    assert verdict(e, "ai/llama", "Downloads.example") == "allow"
    assert verdict(e, "ai/llama", "huggingface.co") == "unknown"  # its addresses may lie in the denied block
    by_address = ask(e, "ai/llama", "203.0.113.1")
    assert by_address.verdict.value == "unknown"
    assert "depends on DNS" in by_address.not_evaluated[0].reason
    assert verdict(e, "ai/llama", "web/chat") == "deny"  # names select nothing inside the cluster


def test_subjects_and_peers_by_namespace_and_pod() -> None:
    subject = {"pods": {"namespaceSelector": labels(team="ml"), "podSelector": labels(app="llama")}}
    peer = [{"pods": {"namespaceSelector": labels(team="front"), "podSelector": labels(app="chat")}}]
    policy = admin("AdminNetworkPolicy", "a", priority=1, subject=subject, ingress=[{"action": "Deny", "from": peer}])
    e = engine(*PODS, pod("ai/rag", "10.1.0.2"), pod("web/ui", "10.2.0.2"), policy)
    found = {(s, d): verdict(e, s, d) for s in ("web/chat", "web/ui") for d in ("ai/llama", "ai/rag")}
    assert [pair for pair, v in found.items() if v == "deny"] == [("web/chat", "ai/llama")]


@pytest.mark.parametrize(
    ("field", "key", "denied"),
    [("sameLabels", "zone", True), ("sameLabels", "team", False), ("notSameLabels", "team", True)],
)
def test_same_labels_of_v0_1_0(field: str, key: str, denied: bool) -> None:
    e = engine(*PODS, anp("a", 1, {"action": "Deny", "from": [{"namespaces": {field: [key]}}]}))
    assert (verdict(e, "web/chat", "ai/llama") == "deny") is denied


def test_an_older_shape_of_peers_is_read() -> None:
    peer = {"pods": {"namespaces": {"namespaceSelector": labels(team="front")}, "podSelector": labels(app="chat")}}
    assert verdict(engine(*PODS, anp("a", 1, {"action": "Deny", "from": [peer]})), "web/chat", "ai/llama") == "deny"


def test_subjects_do_not_select_pods_on_the_host_network() -> None:
    host = pod("ai/agent", "192.168.0.1", host_network=True)
    answer = ask(engine(*PODS, host, anp("a", 1, rule("Deny"))), "web/chat", "ai/agent")
    assert answer.verdict.value == "allow"


def test_kinds_of_others_are_named_and_make_the_verdict_unknown() -> None:
    antrea = {"apiVersion": "crd.antrea.io/v1beta1", "kind": "ClusterNetworkPolicy", "metadata": {"name": "strict"}}
    answer = ask(engine(*PODS, antrea), "web/chat", "ai/llama")
    assert answer.verdict.value == "unknown"
    named = "ClusterNetworkPolicy.crd.antrea.io strict: ClusterNetworkPolicy (crd.antrea.io)"
    assert str(answer.not_evaluated[0]).startswith(named)


def test_a_mesh_policy_can_only_stop_what_passes_and_only_the_pods_it_selects() -> None:
    mesh = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "m", "namespace": "ai"},
        "spec": {"selector": labels(app="llama")},
    }
    e = engine(*PODS, pod("ai/rag", "10.1.0.2"), mesh)
    assert verdict(e, "web/chat", "ai/llama") == "unknown"
    assert verdict(e, "web/chat", "ai/rag") == "allow"
    assert verdict(engine(*PODS, mesh, DENY_ALL), "web/chat", "ai/llama") == "deny"
