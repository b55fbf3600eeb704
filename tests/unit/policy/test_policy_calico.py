"""Calico's policies: order, tiers, actions, selectors and network sets."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.matching.expressions import parse_selector
from kubectl_genainet.policy.where import Where
from tests.unit.policy.policy_cluster import ask, effects, engine, labels, namespace, netpol, pod, unevaluated, verdict

PODS = (
    namespace("ai", team="ml"),
    namespace("web", team="front"),
    pod("ai/llama", "10.1.0.1", ports=(("http", "TCP", 8080),), service_account="model"),
    pod("ai/rag", "10.1.0.2", service_account="rag"),
    pod("web/chat", "10.2.0.1"),
)
V3 = "projectcalico.org/v3"


def policy(name: str = "ai/c", **spec: Any) -> dict[str, Any]:
    where, _, short = name.rpartition("/")
    kind = "NetworkPolicy" if where else "GlobalNetworkPolicy"
    metadata = {"name": short, "namespace": where} if where else {"name": short}
    return {"apiVersion": V3, "kind": kind, "metadata": metadata, "spec": spec}


def tier(name: str, order: float, action: str = "Deny") -> dict[str, Any]:
    spec = {"order": order, "defaultAction": action}
    return {"apiVersion": V3, "kind": "Tier", "metadata": {"name": name}, "spec": spec}


def allow(**source: Any) -> dict[str, Any]:
    return {"action": "Allow", "source": source}


def test_a_selected_pod_is_isolated_and_the_first_matching_rule_decides() -> None:
    deny = {"action": "Deny", "source": {"selector": "app == 'chat'", "namespaceSelector": "all()"}}
    e = engine(*PODS, policy(selector="app == 'llama'", ingress=[deny, allow()]))
    assert effects(ask(e, "web/chat", "ai/llama").ingress) == [("ai/c", "denies", 1)]
    assert effects(ask(e, "ai/rag", "ai/llama").ingress) == [("ai/c", "allows", 2)]
    silent = engine(*PODS, policy(selector="app == 'llama'", types=["Ingress"]))
    assert effects(ask(silent, "ai/rag", "ai/llama").ingress) == [("ai/c", "no_rules", None)]


def test_policies_are_consulted_by_order_and_those_without_come_last() -> None:
    late, early = policy("late", ingress=[{"action": "Deny"}]), policy("early", order=5, ingress=[allow()])
    assert verdict(engine(*PODS, late, early), "web/chat", "ai/llama") == "allow"
    assert (
        verdict(engine(*PODS, policy("late", order=1, ingress=[{"action": "Deny"}]), early), "web/chat", "ai/llama")
        == "deny"
    )


def test_a_network_policy_has_order_1000_in_the_default_tier() -> None:
    isolate = netpol("ai/deny")
    before, after = (policy("g", order=o, ingress=[allow()]) for o in (999, 1001))
    assert verdict(engine(*PODS, isolate, before), "web/chat", "ai/llama") == "allow"
    assert verdict(engine(*PODS, isolate, after), "web/chat", "ai/llama") == "allow"
    deny = policy("g", order=1001, ingress=[{"action": "Deny"}])
    assert verdict(engine(*PODS, netpol("ai/allow", ingress=[{}]), deny), "web/chat", "ai/llama") == "allow"


def test_pass_goes_on_with_the_next_tier_and_log_with_the_next_rule() -> None:
    first = policy("sec.pass", tier="sec", ingress=[{"action": "Log"}, {"action": "Pass"}])
    e = engine(*PODS, tier("sec", 10), first, netpol("ai/allow", ingress=[{"from": [{"podSelector": {}}]}]))
    assert verdict(e, "ai/rag", "ai/llama") == "allow"
    assert verdict(e, "web/chat", "ai/llama") == "deny"
    assert verdict(e, "ai/rag", "web/chat") == "allow"  # passed, and no other tier selects it


def test_a_tier_ends_in_its_default_action() -> None:
    nobody = policy("sec.x", tier="sec", selector="app == 'llama'", ingress=[allow(nets=["203.0.113.0/24"])])
    assert verdict(engine(*PODS, tier("sec", 10), nobody), "ai/rag", "ai/llama") == "deny"
    assert verdict(engine(*PODS, tier("sec", 10, "Pass"), nobody), "ai/rag", "ai/llama") == "allow"


def test_a_tier_that_is_not_there_makes_the_verdict_unknown() -> None:
    answer = ask(engine(*PODS, policy("x", tier="sec", ingress=[{"action": "Deny"}])), "ai/rag", "ai/llama")
    assert answer.verdict.value == "unknown"
    assert answer.not_evaluated[0].field == "spec.tier"


@pytest.mark.parametrize(
    ("source", "passing"),
    [
        ({"selector": "app == 'rag'"}, ["ai/rag"]),
        ({"selector": "app in {'rag', 'chat'}"}, ["ai/rag"]),
        ({"selector": "app in {'rag', 'chat'}", "namespaceSelector": "all()"}, ["ai/rag", "web/chat"]),
        ({"namespaceSelector": "team == 'front'"}, ["web/chat"]),
        ({"namespaceSelector": "projectcalico.org/name == 'web'"}, ["web/chat"]),
        ({"notSelector": "app == 'rag'", "namespaceSelector": "all()"}, ["web/chat"]),
        ({"nets": ["10.2.0.0/16", "203.0.113.9/32"]}, ["web/chat", "203.0.113.9"]),
        ({"nets": ["0.0.0.0/0"], "notNets": ["10.0.0.0/8"]}, ["203.0.113.9"]),
        ({"serviceAccounts": {"names": ["rag"]}}, ["ai/rag"]),
        ({"selector": "projectcalico.org/serviceaccount == 'rag'"}, ["ai/rag"]),
    ],
)
def test_entity_rules(source: dict[str, Any], passing: list[str]) -> None:
    e = engine(*PODS, policy(selector="app == 'llama'", ingress=[allow(**source)]))
    assert [s for s in ("ai/rag", "web/chat", "203.0.113.9") if verdict(e, s, "ai/llama") == "allow"] == passing


def test_network_sets_are_selected_by_their_labels() -> None:
    sets = [
        {
            "apiVersion": V3,
            "kind": "GlobalNetworkSet",
            "metadata": {"name": "hub", "labels": {"role": "hub"}},
            "spec": {"nets": ["203.0.113.0/24"]},
        },
        {
            "apiVersion": V3,
            "kind": "NetworkSet",
            "metadata": {"name": "db", "namespace": "ai", "labels": {"role": "db"}},
            "spec": {"nets": ["198.51.100.0/24"]},
        },
    ]

    def to(**destination: str) -> Any:
        rule = {"action": "Allow", "destination": destination}
        return engine(*PODS, *sets, policy(selector="app == 'llama'", egress=[rule]))

    assert verdict(to(selector="role == 'hub'", namespaceSelector="global()"), "ai/llama", "203.0.113.9") == "allow"
    assert verdict(to(selector="role == 'hub'"), "ai/llama", "203.0.113.9") == "deny"
    assert verdict(to(selector="role == 'db'"), "ai/llama", "198.51.100.9") == "allow"


@pytest.mark.parametrize(
    ("rule", "flow", "passes"),
    [
        ({"protocol": "TCP", "destination": {"ports": [8080]}}, (8080, "TCP"), True),
        ({"protocol": "TCP", "destination": {"ports": ["8000:8080"]}}, (8080, "TCP"), True),
        ({"protocol": "TCP", "destination": {"ports": ["http"]}}, (8080, "TCP"), True),
        ({"protocol": "TCP", "destination": {"ports": ["http"]}}, (80, "TCP"), False),
        ({"protocol": "TCP", "destination": {"notPorts": [8080, "90:99"]}}, (95, "TCP"), False),
        ({"protocol": "TCP", "destination": {"notPorts": [8080, "90:99"]}}, (100, "TCP"), True),
        ({"protocol": 17}, (80, "UDP"), True),
        ({"protocol": "UDP"}, (80, "TCP"), False),
        ({"notProtocol": "UDP"}, (80, "UDP"), False),
        ({"notProtocol": "UDP"}, (80, "SCTP"), True),
        ({"ipVersion": 6}, (80, "TCP"), False),
    ],
)
def test_protocols_and_ports(rule: dict[str, Any], flow: tuple[int, str], passes: bool) -> None:
    e = engine(*PODS, policy(selector="app == 'llama'", ingress=[{"action": "Allow", **rule}]))
    assert (verdict(e, "ai/rag", "ai/llama", *flow) == "allow") is passes


def test_a_rule_may_also_name_its_own_side() -> None:
    rule = {"action": "Allow", "destination": {"selector": "app == 'llama'"}}
    e = engine(*PODS, policy("g", namespaceSelector="team == 'ml'", ingress=[rule]))
    assert verdict(e, "web/chat", "ai/llama") == "allow"
    assert verdict(e, "web/chat", "ai/rag") == "deny"


@pytest.mark.parametrize(
    ("spec", "into", "out"),
    [
        ({}, "deny", "allow"),
        ({"ingress": [{"action": "Allow"}]}, "allow", "allow"),
        ({"egress": [{"action": "Allow", "protocol": "UDP"}]}, "allow", "deny"),
        ({"types": ["Egress"], "ingress": [{"action": "Deny"}]}, "allow", "deny"),
    ],
)
def test_types_by_default_are_what_there_are_rules_for(spec: dict[str, Any], into: str, out: str) -> None:
    e = engine(*PODS, policy(selector="app == 'llama'", **spec))
    assert (verdict(e, "ai/rag", "ai/llama"), verdict(e, "ai/llama", "ai/rag")) == (into, out)


def test_what_is_not_evaluated_is_named() -> None:
    http = {"action": "Allow", "http": {"methods": ["GET"]}}
    answer = ask(engine(*PODS, policy(selector="all()", ingress=[http])), "ai/rag", "ai/llama")
    assert answer.verdict.value == "unknown"
    assert answer.not_evaluated[0].reason == "layer 7 rules (http) are not evaluated"


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("all()", True),
        ("app == 'rag'", True),
        ('app == "rag"', True),
        ("app != 'rag'", False),
        ("gone != 'x'", True),
        ("gone == 'x'", False),
        ("has(app)", True),
        ("!has(app)", False),
        ("app in {'a', 'rag'}", True),
        ("app not in {'a', 'rag'}", False),
        ("gone not in {'a'}", True),
        ("app in {}", False),
        ("app contains 'a'", True),
        ("app starts with 'r'", True),
        ("app ends with 'r'", False),
        ("app == 'x' || tier == 'be' && has(app)", True),
        ("(app == 'x' || tier == 'be') && has(gone)", False),
        ("!(app == 'x') && !has(gone)", True),
        ("example.com/part-of == 'y z'", True),
    ],
)
def test_selectors(text: str, matches: bool) -> None:
    where = Where(KubeObject({}))
    assert parse_selector(text, where).matches({"app": "rag", "tier": "be", "example.com/part-of": "y z"}) is matches


@pytest.mark.parametrize(
    "text", ["app ==", "app = 'x'", "has(", "app == x", "(app == 'x'", "app in {'a' 'b'}", "== 'x'", "a b"]
)
def test_a_bad_selector_is_an_error_with_its_place(text: str) -> None:
    found = unevaluated(*PODS, policy(selector=text))
    assert (str(found.ref), found.field) == ("NetworkPolicy.projectcalico.org ai/c", "spec.selector")


def test_labels_of_a_peer_are_shown_beside_the_selector() -> None:
    (result,) = ask(
        engine(*PODS, policy(ingress=[allow(selector="app == 'x'")])), "ai/rag", "ai/llama"
    ).ingress.policies
    assert result.rules[0].failed is not None
    assert (result.rules[0].failed.wanted, result.rules[0].failed.actual) == (
        "app == 'x' and namespace ai",
        "app=rag",
    )


def test_host_endpoint_policies_do_not_select_pods() -> None:
    assert (
        verdict(engine(*PODS, policy("g", doNotTrack=True, ingress=[{"action": "Deny"}])), "ai/rag", "ai/llama")
        == "allow"
    )


def test_stored_objects_are_read_too() -> None:
    raw = policy("default.g", ingress=[{"action": "Deny"}]) | {"apiVersion": "crd.projectcalico.org/v1"}
    assert verdict(engine(*PODS, raw, netpol("ai/x", podSelector=labels(app="other"))), "ai/rag", "ai/llama") == "deny"


@pytest.mark.parametrize(
    "source",
    [{"notSelector": "has(quarantine)"}, {"serviceAccounts": {"names": ["rag", "default"]}}],
)
def test_what_selects_endpoints_stays_in_the_namespace(source: dict[str, Any]) -> None:
    """notSelector or serviceAccounts alone select in the policy's namespace, and nothing outside the cluster."""
    e = engine(*PODS, policy(selector="app == 'llama'", ingress=[{"action": "Allow", "source": source}]))
    assert verdict(e, "ai/rag", "ai/llama") == "allow"
    assert verdict(e, "web/chat", "ai/llama") == "deny"
    assert verdict(e, "203.0.113.7", "ai/llama") == "deny"


def test_a_not_selector_of_a_global_policy_selects_everywhere() -> None:
    rule = {"action": "Allow", "source": {"notSelector": "app == 'rag'"}}
    e = engine(*PODS, policy("g", selector="app == 'llama'", ingress=[rule]))
    assert verdict(e, "203.0.113.7", "ai/llama") == verdict(e, "web/chat", "ai/llama") == "allow"
    assert verdict(e, "ai/rag", "ai/llama") == "deny"


def test_network_sets_are_selected_by_their_namespace() -> None:
    sets = [
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "NetworkSet",
            "metadata": {"name": "s", "namespace": name, "labels": {"set": "y"}},
            "spec": {"nets": [net]},
        }
        for name, net in (("ai", "203.0.113.0/24"), ("web", "198.51.100.0/24"))
    ]
    rule = {"action": "Allow", "source": {"selector": "has(set)", "namespaceSelector": "team == 'front'"}}
    e = engine(*PODS, *sets, policy(selector="app == 'llama'", ingress=[rule]))
    assert verdict(e, "198.51.100.7", "ai/llama") == "allow"
    assert verdict(e, "203.0.113.7", "ai/llama") == "deny"


def test_a_policy_read_through_both_groups_counts_once() -> None:
    one = policy(selector="app == 'llama'", ingress=[allow(selector="app == 'rag'")])
    stored = {**one, "apiVersion": "crd.projectcalico.org/v1", "metadata": {"name": "default.c", "namespace": "ai"}}
    assert [str(p.ref) for p in engine(*PODS, one, stored).policies] == ["NetworkPolicy.projectcalico.org ai/c"]


def test_a_policy_of_the_same_name_as_one_of_kubernetes_is_told_apart() -> None:
    e = engine(*PODS, netpol("ai/c"), policy(selector="app == 'llama'"))
    found = {str(ref) for ref in ask(e, "ai/rag", "ai/llama").ingress.isolated_by}
    assert found == {"NetworkPolicy ai/c", "NetworkPolicy.projectcalico.org ai/c"}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"namespaceSelector": "global()"}, "spec.namespaceSelector"),
        ({"selector": "global()"}, "spec.selector"),
        ({"types": ["Ingress", "Ingress"]}, "spec.types[1]"),
        ({"ingress": [{"action": "allow"}]}, "spec.ingress[0].action"),
        ({"ingress": [allow(nets=["10.0.0.1"])]}, "spec.ingress[0].source.nets[0]"),
        ({"ingress": [allow(nets=["10.0.0.0/8", "fd00::/8"])]}, "spec.ingress[0].source.nets[1]"),
        ({"ingress": [{**allow(nets=["10.0.0.0/8"]), "ipVersion": 6}]}, "spec.ingress[0].source.nets[0]"),
        ({"ingress": [allow(notNets=["0.0.0.0/0"])]}, "spec.ingress[0].source.notNets[0]"),
        ({"ingress": [{"action": "Allow", "destination": {"ports": [80]}}]}, "spec.ingress[0].destination.ports"),
        (
            {"ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [0]}}]},
            "spec.ingress[0].destination.ports[0]",
        ),
        ({"ingress": [{"action": "Allow", "protocol": "tcp"}]}, "spec.ingress[0].protocol"),
        ({"ingress": [{"action": "Allow", "protocol": "ICMP", "ipVersion": 6}]}, "spec.ingress[0].protocol"),
        ({"ingress": [{"action": "Allow", "icmp": {"type": 8}}]}, "spec.ingress[0].icmp"),
        (
            {"ingress": [{"action": "Allow", "destination": {"services": {"name": "s", "namespace": "ai"}}}]},
            "spec.ingress[0].destination.services",
        ),
        ({"ingress": [allow(services={"name": "s"})]}, "spec.ingress[0].source.services.namespace"),
        (
            {"ingress": [allow(services={"name": "s", "namespace": "ai"}, nets=["10.0.0.0/8"])]},
            "spec.ingress[0].source.nets",
        ),
        ({"egress": [{"action": "Allow", "http": {"methods": ["GET"]}}]}, "spec.egress[0].http"),
        ({"ingress": [{"action": "Deny", "http": {"methods": ["GET"]}}]}, "spec.ingress[0].http"),
    ],
)
def test_what_the_api_refuses_is_named_with_its_field(spec: dict[str, Any], field: str) -> None:
    assert unevaluated(*PODS, policy("g", **spec)).field == field


def test_a_port_by_its_name_needs_no_protocol() -> None:
    rule = {"action": "Allow", "destination": {"ports": ["http"]}}
    e = engine(*PODS, policy(selector="app == 'llama'", ingress=[rule]))
    assert ask(e, "ai/rag", "ai/llama", 8080).verdict.value == "allow"
    assert ask(e, "ai/rag", "ai/llama", 80).verdict.value == "deny"


def network_set(name: str, net: str, **set_labels: str) -> dict[str, Any]:
    where, _, short = name.rpartition("/")
    metadata = {"name": short, "labels": set_labels} | ({"namespace": where} if where else {})
    kind = "NetworkSet" if where else "GlobalNetworkSet"
    return {"apiVersion": V3, "kind": kind, "metadata": metadata, "spec": {"nets": [net]}}


def test_a_not_selector_beside_a_selector_is_about_the_same_set() -> None:
    """An address in two network sets is selected by the one that both terms fit, whatever the other says."""
    sets = network_set("a", "203.0.113.0/24", kind="partners"), network_set("b", "203.0.113.7/32", kind="blocked")
    rule = allow(selector="has(kind)", notSelector="kind == 'blocked'")
    e = engine(*PODS, *sets, policy("g", selector="app == 'llama'", ingress=[rule]))
    assert verdict(e, "203.0.113.7", "ai/llama") == "allow"


def test_a_negated_namespace_selector_selects_what_has_no_namespace() -> None:
    sets = network_set("a", "203.0.113.0/24"), network_set("ai/b", "198.51.100.0/24")
    for selector, passing in (
        ("!has(team)", ["203.0.113.7"]),
        ("has(team)", ["198.51.100.7"]),
        ("all()", ["198.51.100.7"]),
    ):
        e = engine(*PODS, *sets, policy("g", selector="app == 'llama'", ingress=[allow(namespaceSelector=selector)]))
        assert [a for a in ("203.0.113.7", "198.51.100.7") if verdict(e, a, "ai/llama") == "allow"] == passing
