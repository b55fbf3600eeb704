"""Cilium's policies: union with NetworkPolicies, deny rules, identities, entities, names; layer 7 is named."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policy.policy_cluster import ask, effects, engine, labels, namespace, netpol, node, pod, verdict

PODS = (
    namespace("ai", team="ml"),
    namespace("web", team="front"),
    node("n1", "192.168.0.1"),
    node("n2", "192.168.0.2"),
    pod("ai/llama", "10.1.0.1", node="n1", ports=(("http", "TCP", 8080),), service_account="model"),
    pod("ai/rag", "10.1.0.2", node="n1", service_account="rag"),
    pod("web/chat", "10.2.0.1", node="n2", labels={"app": "chat"}),
)
LLAMA = labels(app="llama")


def cnp(name: str = "ai/c", **spec: Any) -> dict[str, Any]:
    where, _, short = name.rpartition("/")
    kind = "CiliumNetworkPolicy" if where else "CiliumClusterwideNetworkPolicy"
    metadata = {"name": short, "namespace": where} if where else {"name": short}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": kind,
        "metadata": metadata,
        "spec": {"endpointSelector": LLAMA, **spec},
    }


DNS_RULE = {"toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchPattern": "*"}]}}]}


def into(*rules: dict[str, Any], **more: Any) -> Any:
    return engine(*PODS, cnp(ingress=list(rules), **more))


def out(*rules: dict[str, Any], **more: Any) -> Any:
    return engine(*PODS, cnp(egress=list(rules), **more))


@pytest.mark.parametrize(
    ("selector", "from_rag", "from_chat"),
    [
        (labels(app="rag"), True, False),
        (labels(**{"k8s:app": "rag"}), True, False),
        (labels(**{"any:app": "chat"}), False, False),  # the policy's own namespace, unless one is named
        (labels(**{"k8s:io.kubernetes.pod.namespace": "web"}), False, True),
        (labels(**{"k8s:io.kubernetes.pod.namespace": "web", "app": "rag"}), False, False),
        (labels(**{"io.cilium.k8s.policy.serviceaccount": "rag"}), True, False),
        ({}, True, False),
        ({"matchExpressions": [{"key": "k8s:io.kubernetes.pod.namespace", "operator": "Exists"}]}, True, True),
    ],
)
def test_endpoint_selectors(selector: dict[str, Any], from_rag: bool, from_chat: bool) -> None:
    e = into({"fromEndpoints": [selector]})
    assert [verdict(e, s, "ai/llama") == "allow" for s in ("ai/rag", "web/chat")] == [from_rag, from_chat]
    assert verdict(e, "203.0.113.9", "ai/llama") == "deny"


def test_a_clusterwide_policy_selects_in_all_namespaces_and_by_their_labels() -> None:
    by_label = labels(**{"k8s:io.cilium.k8s.namespace.labels.team": "front"})
    e = engine(*PODS, cnp("c", endpointSelector={}, ingress=[{"fromEndpoints": [by_label]}]))
    assert verdict(e, "web/chat", "ai/rag") == "allow"
    assert verdict(e, "ai/rag", "web/chat") == "deny"


def test_an_empty_rule_isolates_and_an_empty_list_does_not() -> None:
    assert verdict(into({}), "ai/rag", "ai/llama") == "deny"
    assert verdict(engine(*PODS, cnp(ingress=[])), "ai/rag", "ai/llama") == "allow"
    assert verdict(into({"fromEndpoints": []}), "ai/rag", "ai/llama") == "deny"
    assert verdict(into({"toPorts": [{"ports": [{"port": "80"}]}]}), "203.0.113.9", "ai/llama") == "allow"


def test_default_deny_can_be_switched_off() -> None:
    e = into({"fromEndpoints": [labels(app="other")]}, enableDefaultDeny={"ingress": False})
    assert verdict(e, "ai/rag", "ai/llama") == "allow"


def test_policies_of_both_kinds_are_united() -> None:
    e = engine(*PODS, cnp(ingress=[{"fromEndpoints": [labels(app="rag")]}]), netpol("ai/deny"))
    answer = ask(e, "ai/rag", "ai/llama")
    assert answer.verdict.value == "allow"
    assert effects(answer.ingress) == [("ai/c", "allows", 1)]
    refused = ask(e, "web/chat", "ai/llama")
    assert [str(r) for r in refused.ingress.isolated_by] == ["CiliumNetworkPolicy ai/c", "NetworkPolicy ai/deny"]


def test_a_deny_rule_goes_before_every_allow_rule() -> None:
    deny = cnp(ingressDeny=[{"fromEndpoints": [labels(app="rag")]}], ingress=[{"fromEntities": ["all"]}])
    e = engine(*PODS, deny, netpol("ai/allow", ingress=[{}]))
    answer = ask(e, "ai/rag", "ai/llama")
    assert effects(answer.ingress) == [("ai/c", "denies", 1)]
    assert verdict(e, "web/chat", "ai/llama") == "allow"


@pytest.mark.parametrize(
    ("port", "flow", "passes"),
    [
        ({"port": "8080", "protocol": "TCP"}, (8080, "TCP"), True),
        ({"port": "8080"}, (8080, "UDP"), True),
        ({"port": "8080", "protocol": "UDP"}, (8080, "TCP"), False),
        ({"port": "8000", "endPort": 8080, "protocol": "TCP"}, (8080, "TCP"), True),
        ({"port": "0", "protocol": "TCP"}, (1, "TCP"), True),
        ({"port": "http", "protocol": "TCP"}, (8080, "TCP"), True),
        ({"port": "http", "protocol": "TCP"}, (80, "TCP"), False),
    ],
)
def test_ports(port: dict[str, Any], flow: tuple[int, str], passes: bool) -> None:
    e = into({"fromEndpoints": [{}], "toPorts": [{"ports": [port]}]})
    assert (verdict(e, "ai/rag", "ai/llama", *flow) == "allow") is passes


@pytest.mark.parametrize(
    ("entity", "passing"),
    [
        ("all", ["web/chat", "192.168.0.1", "192.168.0.2", "203.0.113.9"]),
        ("cluster", ["web/chat", "192.168.0.1", "192.168.0.2"]),
        ("world", ["203.0.113.9"]),
        ("cluster-mesh", ["web/chat", "192.168.0.1", "192.168.0.2"]),
        ("host", ["192.168.0.1"]),
        ("remote-node", ["192.168.0.2"]),
        ("none", []),
    ],
)
def test_entities(entity: str, passing: list[str]) -> None:
    e = out({"toEntities": [entity]})
    targets = ("web/chat", "192.168.0.1", "192.168.0.2", "203.0.113.9")
    assert [t for t in targets if verdict(e, "ai/llama", t) == "allow"] == passing


def test_the_own_node_may_always_enter() -> None:
    e = into({"fromEntities": ["none"]})
    assert verdict(e, "192.168.0.1", "ai/llama") == "allow"
    assert verdict(e, "192.168.0.2", "ai/llama") == "deny"


def test_the_api_server_is_known_by_its_endpoints() -> None:
    slices = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "endpoints": [{"addresses": ["192.168.9.9"]}],
        "ports": [{"port": 6443}],
    }
    rule = {"toEntities": ["kube-apiserver"]}
    assert verdict(engine(*PODS, slices, cnp(egress=[rule])), "ai/llama", "192.168.9.9", 6443) == "allow"
    assert verdict(engine(*PODS, slices, cnp(egress=[rule])), "ai/llama", "203.0.113.9", 6443) == "deny"
    assert verdict(engine(*PODS, cnp(egress=[rule])), "ai/llama", "203.0.113.9", 6443) == "unknown"


def test_blocks_select_neither_pods_nor_nodes() -> None:
    e = out({"toCIDRSet": [{"cidr": "0.0.0.0/0", "except": ["203.0.113.0/24"]}]}, {"toCIDR": ["198.51.100.7/32"]})
    targets = ("ai/rag", "192.168.0.2", "203.0.113.9", "198.51.100.1")
    assert [verdict(e, "ai/llama", t) for t in targets] == ["deny", "deny", "deny", "allow"]


def test_a_group_of_blocks() -> None:
    group = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": "hub"},
        "spec": {"externalCIDRs": ["203.0.113.0/24"]},
    }
    rule = {"toCIDRSet": [{"cidrGroupRef": "hub"}]}
    assert verdict(engine(*PODS, group, cnp(egress=[rule])), "ai/llama", "203.0.113.9") == "allow"
    assert verdict(engine(*PODS, cnp(egress=[rule])), "ai/llama", "203.0.113.9") == "unknown"


@pytest.mark.parametrize(
    ("fqdn", "name", "passes"),
    [
        ({"matchName": "huggingface.co"}, "huggingface.co", True),
        ({"matchName": "huggingface.co"}, "cdn.huggingface.co", False),
        ({"matchPattern": "*.huggingface.co"}, "cdn.huggingface.co", True),
        ({"matchPattern": "*.huggingface.co"}, "a.cdn.huggingface.co", False),
        ({"matchPattern": "**.huggingface.co"}, "a.cdn.huggingface.co", True),
        ({"matchPattern": "cdn*.huggingface.co"}, "cdn-lfs.huggingface.co", True),
        ({"matchPattern": "*"}, "anything.example", True),
    ],
)
def test_names(fqdn: dict[str, str], name: str, passes: bool) -> None:
    e = out({"toFQDNs": [fqdn]}, DNS_RULE)
    assert (verdict(e, "ai/llama", name) == "allow") is passes
    assert verdict(e, "ai/llama", "203.0.113.9") == "unknown"
    assert verdict(e, "ai/llama", "ai/rag") == "deny"


def test_layer_7_is_named_and_the_verdict_unknown_unless_a_rule_without_it_admits() -> None:
    port = {"port": "80", "protocol": "TCP"}
    http = {"fromEndpoints": [{}], "toPorts": [{"ports": [port], "rules": {"http": [{"method": "GET"}]}}]}
    answer = ask(into(http), "ai/rag", "ai/llama")
    assert answer.verdict.value == "unknown"
    assert answer.not_evaluated[0].field == "spec.ingress[0].toPorts[0].rules"
    assert verdict(into(http), "ai/rag", "ai/llama", 81) == "deny"
    assert verdict(into(http, {"fromEndpoints": [{}]}), "ai/rag", "ai/llama") == "allow"


def test_dns_rules_do_not_stop_a_lookup_from_being_let_through() -> None:
    rule = {"toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchPattern": "*"}]}}]}
    assert verdict(out(rule), "ai/llama", "ai/rag", 53, "UDP") == "allow"


def test_what_is_not_evaluated_is_named() -> None:
    e = out({"toServices": [{"k8sService": {"serviceName": "x"}}]})
    answer = ask(e, "ai/llama", "203.0.113.9")
    assert answer.verdict.value == "unknown"
    assert answer.not_evaluated[0].reason == "Service x is not among the objects"


def test_policies_of_nodes_make_flows_into_nodes_unknown() -> None:
    host = cnp("h", endpointSelector=None, nodeSelector={}, ingress=[{}])
    answer = ask(engine(*PODS, host), "web/chat", "192.168.0.1")
    assert answer.verdict.value == "unknown"
    assert verdict(engine(*PODS, host), "web/chat", "ai/llama") == "allow"


def test_several_specs_in_one_object() -> None:
    raw = cnp()
    del raw["spec"]
    raw["specs"] = [
        {"endpointSelector": LLAMA, "ingress": [{"fromEndpoints": [labels(app="rag")]}]},
        {"endpointSelector": labels(app="rag"), "ingress": [{}]},
    ]
    e = engine(*PODS, raw)
    assert verdict(e, "ai/rag", "ai/llama") == "allow"
    assert verdict(e, "ai/llama", "ai/rag") == "deny"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"ingress": [{"fromEntities": ["moon"]}]}, "spec.ingress[0].fromEntities[0]"),
        ({"egress": [{"toCIDR": ["10.0.0.0/40"]}]}, "spec.egress[0].toCIDR[0]"),
        ({"egress": [{"toCIDR": ["10.0.0.1"]}]}, "spec.egress[0].toCIDR[0]"),
        ({"egress": [{"toPorts": [{"ports": [{"protocol": "TCP"}]}]}]}, "spec.egress[0].toPorts[0].ports[0].port"),
        ({"egress": [{"toPorts": [{"ports": [{"port": "090"}]}]}]}, "spec.egress[0].toPorts[0].ports[0].port"),
        ({"egress": [{"toPorts": [{"ports": [{"port": 90}]}]}]}, "spec.egress[0].toPorts[0].ports[0].port"),
        ({"egress": [{"toEndpoints": [{}], "toCIDR": ["10.0.0.0/8"]}]}, "spec.egress[0]"),
        ({"ingress": [{"icmps": [{}], "toPorts": [{}]}]}, "spec.ingress[0].icmps"),
        ({"ingress": [{"toPorts": [DNS_RULE["toPorts"][0]]}]}, "spec.ingress[0].toPorts[0].rules"),
        ({"nodeSelector": {}, "ingress": [{}]}, "spec"),
        ({"ingress": []}, "spec"),
    ],
)
def test_a_refused_policy_is_not_in_force_and_named(spec: dict[str, Any], field: str) -> None:
    """The other policies go on."""
    e = engine(*PODS, cnp(**spec), cnp("ai/other", endpointSelector=labels(app="rag"), ingress=[{}]))
    (refused,) = e.refused
    assert (str(refused.ref), refused.field) == ("CiliumNetworkPolicy ai/c", field)
    direction = "egress" if "egress" in spec else "ingress"
    ends = ("ai/llama", "web/chat") if direction == "egress" else ("web/chat", "ai/llama")
    answer = ask(e, *ends)
    assert answer.verdict.value == "allow"
    (note,) = answer.not_evaluated
    assert note.policy == "CiliumNetworkPolicy ai/c" and note.reason.startswith("not in force: ")
    assert verdict(e, "web/chat", "ai/rag") == "deny"
