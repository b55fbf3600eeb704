"""NetworkPolicy semantics, one sentence of the API reference a test."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.model.cluster import LeftOut
from kubectl_genainet.policy import Direction, Reason, Term
from tests.unit.policy.policy_cluster import ask, effects, engine, labels, namespace, netpol, node, pod, verdict

PODS = (
    namespace("ai", team="ml"),
    namespace("web", team="front"),
    pod("ai/llama", "10.1.0.1", ports=(("http", "TCP", 8080), ("http", "UDP", 8081), ("metrics", "TCP", 9090))),
    pod("ai/rag", "10.1.0.2", labels={"app": "rag", "tier": "backend"}),
    pod("web/chat", "10.2.0.1", labels={"app": "chat"}),
)
LLAMA = labels(app="llama")


def ingress(*rules: dict[str, Any], **spec: Any) -> Any:
    return engine(*PODS, netpol("ai/p", podSelector=LLAMA, ingress=list(rules), **spec))


def test_without_policies_every_flow_passes_for_no_reason_of_a_policy() -> None:
    answer = ask(engine(*PODS), "web/chat", "ai/llama")
    assert answer.verdict.value == "allow"
    assert answer.ingress.reason is Reason.DEFAULT
    assert answer.ingress.policies == ()


def test_an_isolated_pod_without_matching_rule_is_denied_by_no_one_and_isolated_by_all() -> None:
    e = engine(*PODS, netpol("ai/b", ingress=[]), netpol("ai/a", podSelector=LLAMA, ingress=[]))
    answer = ask(e, "web/chat", "ai/llama")
    assert answer.verdict.value == "deny"
    assert answer.ingress.reason is Reason.ISOLATED
    assert [r.name for r in answer.ingress.isolated_by] == ["a", "b"]
    assert effects(answer.ingress) == [("ai/a", "no_rules", None), ("ai/b", "no_rules", None)]
    assert [r.name for r in e.isolating(("ai", "llama"), Direction.INGRESS)] == ["a", "b"]
    assert e.isolating(("ai", "llama"), Direction.EGRESS) == ()


def test_the_first_failing_term_is_named_with_wanted_and_actual_value() -> None:
    rules: tuple[dict[str, Any], ...] = (
        {"from": [{"namespaceSelector": labels(team="ml"), "podSelector": labels(app="rag")}]},
        {"from": [{"namespaceSelector": labels(team="front"), "podSelector": labels(app="ui")}]},
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.2.0.0/16"]}}]},
        {"from": [{"podSelector": {}}]},
        {"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP", "port": 80}, {"port": 443}]},
    )
    (policy,) = ask(ingress(*rules), "web/chat", "ai/llama").ingress.policies
    assert [(r.failed.term, r.failed.wanted, r.failed.actual, r.failed.field) for r in policy.rules if r.failed] == [
        (Term.NAMESPACE_LABELS, "team=ml", "team=front", "spec.ingress[0].from[0].namespaceSelector"),
        (Term.POD_LABELS, "app=ui", "app=chat", "spec.ingress[1].from[0].podSelector"),
        (
            Term.ADDRESS,
            "10.0.0.0/8 except 10.2.0.0/16",
            "10.2.0.1, in except 10.2.0.0/16",
            "spec.ingress[2].from[0].ipBlock",
        ),
        (Term.NAMESPACE, "a pod in namespace ai", "web", "spec.ingress[3].from[0].podSelector"),
        (Term.PORT, "TCP 443", "TCP 80", "spec.ingress[4].ports[1].port"),
    ]
    assert (policy.effect.value, policy.rule) == ("ports_not_matched", 5)


def test_a_missing_label_is_said_to_be_missing() -> None:
    rule = {"from": [{"podSelector": {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}}]}
    (policy,) = ask(ingress(rule), "ai/rag", "ai/llama").ingress.policies
    assert policy.rules[0].failed is not None
    assert (policy.rules[0].failed.wanted, policy.rules[0].failed.actual) == ("gpu present", "no label gpu")


@pytest.mark.parametrize(
    ("peer", "from_rag", "from_chat", "from_outside"),
    [
        ({"podSelector": {}}, True, False, False),
        ({"namespaceSelector": {}}, True, True, False),
        ({"podSelector": labels(app="chat")}, False, False, False),
        ({"podSelector": labels(app="chat"), "namespaceSelector": {}}, False, True, False),
        ({"podSelector": labels(app="chat"), "namespaceSelector": labels(team="ml")}, False, False, False),
        ({"ipBlock": {"cidr": "10.1.0.2/32"}}, True, False, False),
        ({"ipBlock": {"cidr": "10.2.0.77/16"}}, False, True, False),  # host bits are masked off
        ({"ipBlock": {"cidr": "0.0.0.0/0"}}, True, True, True),
        ({"ipBlock": {"cidr": "::/0"}}, False, False, False),
    ],
)
def test_peers(peer: dict[str, Any], from_rag: bool, from_chat: bool, from_outside: bool) -> None:
    e = ingress({"from": [peer]})
    found = [verdict(e, source, "ai/llama") == "allow" for source in ("ai/rag", "web/chat", "203.0.113.9")]
    assert found == [from_rag, from_chat, from_outside]


@pytest.mark.parametrize(
    ("operator", "values", "matches"),
    [
        ("In", ["backend", "x"], True),
        ("In", ["x"], False),
        ("NotIn", ["backend"], False),
        ("NotIn", ["x"], True),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ],
)
def test_match_expressions(operator: str, values: list[str], matches: bool) -> None:
    expression = {"key": "tier", "operator": operator, "values": values}
    e = ingress({"from": [{"podSelector": {"matchExpressions": [expression]}}]})
    assert (verdict(e, "ai/rag", "ai/llama") == "allow") is matches


def test_two_peers_in_one_item_are_both_needed_and_in_two_items_either_is_enough() -> None:
    both = ingress({"from": [{"namespaceSelector": labels(team="front"), "podSelector": labels(app="rag")}]})
    either = ingress({"from": [{"namespaceSelector": labels(team="front")}, {"podSelector": labels(app="rag")}]})
    assert [verdict(both, s, "ai/llama") for s in ("ai/rag", "web/chat")] == ["deny", "deny"]
    assert [verdict(either, s, "ai/llama") for s in ("ai/rag", "web/chat")] == ["allow", "allow"]


@pytest.mark.parametrize(
    ("port", "flow", "passes"),
    [
        ({"port": 8080}, (8080, "TCP"), True),
        ({"port": 8080}, (8080, "UDP"), False),  # protocol is TCP where it is not given
        ({"protocol": "UDP"}, (5, "UDP"), True),
        ({"protocol": "SCTP", "port": 9}, (9, "SCTP"), True),
        ({"port": 8000, "endPort": 8080}, (8080, "TCP"), True),
        ({"port": 8000, "endPort": 8080}, (8081, "TCP"), False),
        ({"port": "http"}, (8080, "TCP"), True),
        ({"port": "http"}, (8081, "TCP"), False),  # the port of that name and protocol
        ({"port": "http", "protocol": "UDP"}, (8081, "UDP"), True),
        ({"port": "grpc"}, (8080, "TCP"), False),
    ],
)
def test_ports(port: dict[str, Any], flow: tuple[int, str], passes: bool) -> None:
    assert (verdict(ingress({"ports": [port]}), "web/chat", "ai/llama", *flow) == "allow") is passes


def test_a_named_port_of_an_egress_rule_is_that_of_the_destination() -> None:
    rule = {"ports": [{"port": "http"}]}
    e = engine(*PODS, netpol("web/p", policyTypes=["Egress"], egress=[rule]))
    assert verdict(e, "web/chat", "ai/llama", 8080) == "allow"
    assert verdict(e, "web/chat", "ai/llama", 9090) == "deny"
    assert verdict(e, "web/chat", "ai/rag", 8080) == "deny"
    assert verdict(e, "web/chat", "203.0.113.9", 8080) == "deny"


@pytest.mark.parametrize(
    ("spec", "ingress_allows", "egress_allows"),
    [
        ({}, False, True),  # neither types nor rules: Ingress
        ({"egress": [{"ports": [{"port": 1}]}]}, False, False),  # any egress rule adds Egress
        ({"egress": []}, False, True),
        ({"policyTypes": ["Egress"]}, True, False),
        ({"policyTypes": ["Egress"], "ingress": [{"from": [{"podSelector": {}}]}], "egress": [{}]}, True, True),
        ({"policyTypes": ["Ingress"], "egress": [{"ports": [{"port": 1}]}]}, False, True),
        ({"ingress": [{}]}, True, True),
        ({"ingress": [{"from": [], "ports": []}]}, True, True),
        ({"ingress": []}, False, True),
    ],
)
def test_policy_types_and_absent_rules(spec: dict[str, Any], ingress_allows: bool, egress_allows: bool) -> None:
    e = engine(*PODS, netpol("ai/p", podSelector=LLAMA, **spec))
    assert (verdict(e, "web/chat", "ai/llama") == "allow") is ingress_allows
    assert (verdict(e, "ai/llama", "web/chat") == "allow") is egress_allows


def test_null_is_absent() -> None:
    e = engine(*PODS, netpol("ai/p", podSelector={"matchLabels": None}, ingress=[{"from": None, "ports": None}]))
    assert verdict(e, "web/chat", "ai/llama") == "allow"


def test_both_ends_must_agree() -> None:
    out = netpol("web/out", policyTypes=["Egress"], egress=[{"to": [{"namespaceSelector": labels(team="ml")}]}])
    into = netpol("ai/into", podSelector=LLAMA, ingress=[{"from": [{"podSelector": {}}]}])
    answer = ask(engine(*PODS, out, into), "web/chat", "ai/llama")
    assert (answer.egress.verdict.value, answer.ingress.verdict.value) == ("allow", "deny")
    assert effects(answer.egress) == [("web/out", "allows", 1)]
    assert [str(r) for r in answer.egress.admitted_by] == ["NetworkPolicy web/out"]


def test_ipv6_and_dual_stack() -> None:
    six = {"from": [{"ipBlock": {"cidr": "fd00:1::/64", "except": ["fd00:1::8000/113"]}}]}
    e = engine(
        pod("a/six", "fd00:1::5"),
        pod("a/out", "fd00:1::8001"),
        pod("a/dual", "10.0.0.5,fd00:1::6"),
        pod("a/target", "fd00:2::1"),
        netpol("a/p", podSelector=labels(app="target"), ingress=[six]),
    )
    assert verdict(e, "a/six", "a/target") == "allow"
    assert verdict(e, "a/out", "a/target") == "deny"
    assert verdict(e, "a/dual", "a/target") == "allow"  # the address of the family that the target has
    assert verdict(e, "FD00:1:0::7", "a/target") == "allow"


def test_an_ipv4_mapped_address_is_the_ipv4_address() -> None:
    e = ingress({"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]})
    assert verdict(e, "::ffff:203.0.113.9", "ai/llama") == "allow"


def test_an_address_of_a_pod_is_the_pod() -> None:
    e = ingress({"from": [{"podSelector": labels(app="rag")}]})
    assert verdict(e, "10.1.0.2", "10.1.0.1") == "allow"
    assert verdict(e, "10.2.0.1", "10.1.0.1") == "deny"


def test_pods_on_the_host_network_are_seen_as_their_node() -> None:
    e = engine(
        *PODS,
        node("n1", "192.168.0.1"),
        node("n2", "192.168.0.2"),
        pod("ai/agent", "192.168.0.1", node="n1", host_network=True, labels={"app": "llama"}),
        pod("ai/db", "10.1.0.9", node="n2"),
        netpol("ai/deny"),
        netpol("ai/deny-out", policyTypes=["Egress"]),
        netpol("ai/db", podSelector=labels(app="db"), ingress=[{"from": [{"podSelector": labels(app="llama")}]}]),
    )
    assert ask(e, "web/chat", "ai/agent").ingress.reason is Reason.HOST_NETWORK
    assert verdict(e, "web/chat", "ai/agent") == "allow"
    refused = ask(e, "ai/agent", "ai/db").ingress
    assert refused.verdict.value == "deny"
    assert refused.policies[0].rules[0].failed is not None
    assert refused.policies[0].rules[0].failed.actual == "ai/agent, which uses its node's network"
    by_block = netpol("ai/nodes", ingress=[{"from": [{"ipBlock": {"cidr": "192.168.0.0/24"}}]}])
    assert verdict(engine(*(o.raw for o in e.snapshot.objects), by_block), "ai/agent", "ai/db") == "allow"


def test_a_node_always_reaches_the_pods_that_it_runs() -> None:
    e = engine(
        node("n1", "192.168.0.1"),
        node("n2", "192.168.0.2"),
        pod("ai/db", "10.1.0.9", node="n1"),
        pod("ai/loose", "10.1.0.8"),
        netpol("ai/deny", policyTypes=["Ingress", "Egress"]),
    )
    assert ask(e, "192.168.0.1", "ai/db").ingress.reason is Reason.OWN_NODE
    assert verdict(e, "192.168.0.2", "ai/db") == "deny"
    assert verdict(e, "ai/db", "192.168.0.1") == "allow"
    assert verdict(e, "ai/db", "192.168.0.2") == "deny"
    unscheduled = ask(e, "192.168.0.1", "ai/loose")
    assert unscheduled.verdict.value == "deny"
    assert unscheduled.not_evaluated[0].field == "spec.nodeName"


def test_a_pod_reaches_itself() -> None:
    e = engine(*PODS, netpol("ai/deny", policyTypes=["Ingress", "Egress"]))
    assert ask(e, "ai/llama", "ai/llama").egress.reason is Reason.LOOPBACK
    assert verdict(e, "ai/llama", "127.0.0.1") == "allow"


def test_finished_pods_do_not_own_their_address() -> None:
    e = engine(
        *PODS, pod("ai/job", "10.1.0.7", phase="Succeeded"), netpol("ai/p", ingress=[{"from": [{"podSelector": {}}]}])
    )
    assert verdict(e, "10.1.0.7", "ai/llama") == "deny"


def test_what_hangs_on_an_unknown_address_is_unknown_and_says_so() -> None:
    block = {"from": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}
    answer = ask(engine(*PODS, pod("ai/new"), netpol("ai/p", podSelector=LLAMA, ingress=[block])), "ai/new", "ai/llama")
    assert answer.verdict.value == "unknown"
    assert answer.ingress.reason is Reason.NOT_EVALUATED
    assert str(answer.not_evaluated[0]) == "NetworkPolicy ai/p: spec.ingress[0]: the address of ai/new is not known"


def test_labels_of_a_namespace_that_was_not_read_are_unknown_but_its_name_is_known() -> None:
    rule = {"from": [{"namespaceSelector": labels(team="x")}]}
    by_name = {"from": [{"namespaceSelector": labels(**{"kubernetes.io/metadata.name": "ghost"})}]}
    own: dict[str, Any] = {"from": [{"podSelector": {}}]}
    for rules, expected in (([rule], "unknown"), ([by_name], "allow"), ([own], "deny"), ([rule, by_name], "allow")):
        e = engine(*PODS, pod("ghost/a", "10.3.0.1"), netpol("ai/p", ingress=rules))
        assert verdict(e, "ghost/a", "ai/llama") == expected


def test_a_field_that_the_api_does_not_have_makes_the_verdict_unknown_and_is_named() -> None:
    answer = ask(engine(*PODS, netpol("ai/p", podSelektor={}, ingress=[{"form": []}])), "web/chat", "ai/llama")
    assert answer.verdict.value == "unknown"
    assert {n.field for n in answer.not_evaluated} == {"spec.podSelektor", "spec.ingress[0].form"}


def test_policies_that_could_not_be_read_make_the_verdict_unknown() -> None:
    e = engine(*PODS, left_out=(LeftOut("NetworkPolicy", "forbidden"),))
    answer = ask(e, "web/chat", "ai/llama")
    assert answer.verdict.value == "unknown"
    assert answer.not_evaluated[0].reason == "NetworkPolicy objects could not be read: forbidden"


def test_a_protocol_that_policies_do_not_know_is_unknown_where_one_applies() -> None:
    isolated = engine(*PODS, netpol("ai/p", ingress=[{}]))
    assert verdict(isolated, "web/chat", "ai/llama", 0, "ICMP") == "unknown"
    assert verdict(engine(*PODS), "web/chat", "ai/llama", 0, "ICMP") == "allow"
