"""How Cilium decides by identity: which labels count, what an empty list means, the own node, NetworkPolicies under it.

Each was compared with Cilium's own engine (tests/oracles).
"""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.policy import PolicyEngine
from kubectl_genainet.policy.enforcers import named_enforcer
from tests.unit.policy.policy_cluster import Raw, ask, engine, labels, namespace, netpol, node, pod, snapshot, verdict
from tests.unit.policy.test_policy_cilium import cnp

PODS = (
    namespace("ai", team="ml"),
    namespace("web", team="front"),
    node("n1", "192.168.0.1"),
    node("n2", "192.168.0.2"),
    pod("ai/vec-0", "10.1.0.1", node="n1", labels={"app": "vec", "statefulset.kubernetes.io/pod-name": "vec-0"}),
    pod("ai/rag", "10.1.0.2", node="n1", labels={"app": "rag"}),
    pod("web/chat", "10.2.0.1", node="n2", labels={"app": "chat"}),
    pod("web/exporter", "192.168.0.2", node="n2", host_network=True, ports=(("metrics", "TCP", 9100),)),
)
VEC = labels(app="vec")
OWN, OTHER, WORLD = "192.168.0.1", "192.168.0.2", "203.0.113.9"


def config(**data: str) -> dict[str, Any]:
    values = {k.replace("_", "-"): v for k, v in data.items()}
    metadata = {"name": "cilium-config", "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": values}


def under(*policies: dict[str, Any]) -> Any:
    return engine(*PODS, *policies)


def passing(judge: Any, target: str, sources: tuple[str, ...], port: int = 80) -> list[str]:
    return [s for s in sources if verdict(judge, s, target, port) == "allow"]


SOURCES = ("ai/rag", "web/chat", OWN, OTHER, WORLD)


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [
        ({"fromEndpoints": [labels(app="rag")], "toPorts": []}, ["ai/rag", OWN]),
        ({"fromEndpoints": [labels(app="rag")], "icmps": []}, ["ai/rag", OWN]),
        ({"fromEndpoints": [labels(app="rag")], "toPorts": [{}]}, [OWN]),
        ({"fromEndpoints": [labels(app="rag")], "icmps": [{"fields": [{"type": 8}]}]}, [OWN]),
        ({"fromEndpoints": [], "fromEntities": ["world"]}, [OWN]),
        ({"fromGroups": [], "toPorts": [{"ports": [{"port": "80"}]}]}, list(SOURCES)),
        ({"toPorts": [{"ports": [{"port": "0120"}]}]}, list(SOURCES)),  # octal
        ({"toPorts": [{"ports": [{"port": "80", "endPort": 8}]}]}, list(SOURCES)),
        ({"fromCIDRSet": [{"cidr": "203.0.113.0/24", "except": ["203.0.113.0/24"]}]}, [OWN]),
        ({"fromEntities": ["cluster-mesh"]}, ["ai/rag", "web/chat", OWN, OTHER]),
    ],
)
def test_empty_lists_and_ports(rule: dict[str, Any], admitted: list[str]) -> None:
    assert passing(under(cnp(endpointSelector=VEC, ingress=[rule])), "ai/vec-0", SOURCES) == admitted


def test_an_empty_list_of_ports_in_a_deny_rule_denies_every_port() -> None:
    deny = {"fromEndpoints": [labels(app="rag")], "toPorts": []}
    judge = under(cnp(endpointSelector=VEC, ingressDeny=[deny], ingress=[{"fromEntities": ["all"]}]))
    assert verdict(judge, "ai/rag", "ai/vec-0") == "deny"
    no_port = under(
        cnp(endpointSelector=VEC, ingressDeny=[{**deny, "toPorts": [{}]}], ingress=[{"fromEntities": ["all"]}])
    )
    assert verdict(no_port, "ai/rag", "ai/vec-0") == "allow"


def test_an_empty_rule_says_that_it_selects_nobody() -> None:
    answer = ask(under(cnp(endpointSelector=VEC, ingress=[{}])), "ai/rag", "ai/vec-0")
    failed = answer.ingress.policies[0].rules[0].failed
    assert failed is not None and failed.wanted == "nobody (a rule without peers and ports selects no peer)"


def test_default_deny_needs_a_rule_of_its_direction() -> None:
    judge = under(cnp(endpointSelector=VEC, enableDefaultDeny={"egress": True}, ingress=[{}]))
    assert verdict(judge, "ai/vec-0", "web/chat") == "allow"


@pytest.mark.parametrize(
    ("selector", "admitted"),
    [
        (labels(**{"reserved:host": ""}), [OWN]),
        (labels(**{"reserved:remote-node": "", "app": "chat"}), [OWN]),
        ({"matchExpressions": [{"key": "reserved:host", "operator": "DoesNotExist"}]}, list(SOURCES)),
        (
            {"matchExpressions": [{"key": "reserved:host", "operator": "DoesNotExist"}], **labels(app="chat")},
            ["web/chat", OWN],
        ),
        (labels(**{"k8s:io.cilium.k8s.namespace.labels.team": "front"}), ["web/chat", OWN]),
        (labels(**{"io.cilium.k8s.namespace.labels.team": "ml", "app": "rag"}), ["ai/rag", OWN]),
        (labels(**{"container:app": "rag"}), [OWN]),
    ],
)
def test_peers_by_reserved_and_namespace_labels(selector: dict[str, Any], admitted: list[str]) -> None:
    """The own node is let in last, whatever the rules say."""
    assert (
        passing(under(cnp(endpointSelector=VEC, ingress=[{"fromEndpoints": [selector]}])), "ai/vec-0", SOURCES)
        == admitted
    )


@pytest.mark.parametrize(
    ("selector", "applies_to"),
    [
        (labels(**{"k8s:io.kubernetes.pod.namespace": "web", "app": "vec"}), ["ai/vec-0"]),  # overwritten
        (labels(**{"io.kubernetes.pod.namespace": "web"}), []),  # both would have to hold
        (labels(**{"any:io.kubernetes.pod.namespace": "ai"}), ["ai/vec-0", "ai/rag"]),
    ],
)
def test_a_policy_applies_in_its_own_namespace_only(selector: dict[str, Any], applies_to: list[str]) -> None:
    judge = under(cnp(endpointSelector=selector, ingress=[{}]))
    targets = ("ai/vec-0", "ai/rag", "web/chat")
    assert [t for t in targets if verdict(judge, OTHER, t) == "deny"] == applies_to


def test_labels_outside_an_identity() -> None:
    by_pod = labels(**{"statefulset.kubernetes.io/pod-name": "vec-0"})
    policy = cnp(endpointSelector=by_pod, ingress=[{}])
    answer = ask(under(policy), "ai/rag", "ai/vec-0")
    assert answer.verdict.value == "unknown"
    assert "option labels was not read" in answer.not_evaluated[0].reason
    assert verdict(under(policy, config(cluster_name="default")), "ai/rag", "ai/vec-0") == "allow"


def test_the_list_of_identity_labels_is_an_option() -> None:
    arm = pod("ai/arm", "10.1.0.9", node="n1", labels={"kubernetes.io/arch": "arm"})
    policy = cnp(endpointSelector=labels(**{"kubernetes.io/arch": "arm"}), ingress=[{}])
    for chosen, expected in (({}, "allow"), ({"labels": r"k8s:kubernetes\.io/arch"}, "deny")):
        judge = engine(*PODS, arm, policy, config(cluster_name="default", **chosen))
        assert verdict(judge, "web/chat", "ai/arm") == expected


@pytest.mark.parametrize(
    "expression",
    [
        "(a+)+$",
        "a*a*a*a*a*a*b",
        "(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)x",
        "(" * 300,
        "(",
        "a{99999999999}",
        "[[:alpha:]]+",
        "x" * 300,
    ],
)
def test_an_identity_label_by_an_expression_that_is_not_read_is_unknown(expression: str) -> None:
    """Some of Python's take years for a key of sixty characters; Go's, which the agent has, take none."""
    long = pod("ai/long", "10.1.0.9", node="n1", labels={"a" * 62 + "b": "x"})
    policy = cnp(endpointSelector=labels(**{"a" * 62 + "b": "x"}), ingress=[{}])
    judge = engine(*PODS, long, policy, config(cluster_name="default", labels=f"k8s:app k8s:!{expression}"))
    answer = ask(judge, "web/chat", "ai/long")
    assert answer.verdict.value == "unknown"
    assert "option labels was not read" in answer.not_evaluated[0].reason


def test_deny_rules_go_before_the_own_node() -> None:
    judge = under(
        cnp(endpointSelector=VEC, ingressDeny=[{"fromEntities": ["host"]}], ingress=[{"fromEntities": ["all"]}])
    )
    assert passing(judge, "ai/vec-0", SOURCES) == ["ai/rag", "web/chat", OTHER, WORLD]


def test_a_named_port_of_a_pod_on_the_host_network_is_not_known() -> None:
    port = {"toEntities": ["all"], "toPorts": [{"ports": [{"port": "metrics"}]}]}
    answer = ask(under(cnp(endpointSelector=VEC, egress=[port])), "ai/vec-0", "web/exporter", 9100)
    assert answer.verdict.value == "deny"
    failed = answer.egress.policies[0].rules[0].failed
    assert failed is not None and "Cilium knows no named ports" in failed.actual


def test_from_nodes_hangs_on_an_option() -> None:
    policy = cnp(endpointSelector=VEC, ingress=[{"fromNodes": [{}]}])
    answer = ask(under(policy), "web/chat", "ai/vec-0")
    assert answer.verdict.value == "unknown"
    assert "enable-node-selector-labels" in answer.not_evaluated[0].reason
    assert verdict(under(policy, config(cluster_name="x")), "web/chat", "ai/vec-0") == "allow"
    on = under(policy, config(enable_node_selector_labels="true"))
    assert passing(on, "ai/vec-0", SOURCES) == [OWN, OTHER]


def test_network_policies_under_cilium() -> None:
    anywhere = netpol(
        "ai/np", podSelector=VEC, policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]
    )
    plain, cilium = under(anywhere), under(anywhere, config(cluster_name="default"))
    targets = ("ai/rag", OWN, OTHER, WORLD)
    assert [verdict(plain, "ai/vec-0", t) for t in targets] == ["allow"] * 4
    assert [verdict(cilium, "ai/vec-0", t) for t in targets] == ["deny", "deny", "deny", "allow"]
    by_address = under(anywhere, config(policy_cidr_match_mode="nodes"))
    assert [verdict(by_address, "ai/vec-0", t) for t in targets] == ["deny", "allow", "allow", "allow"]


def test_cilium_applies_rules_that_policy_types_leaves_out() -> None:
    policy = netpol(
        "ai/np", podSelector=VEC, policyTypes=["Egress"], ingress=[{"from": [{"podSelector": labels(app="rag")}]}]
    )
    assert verdict(under(policy), "web/chat", "ai/vec-0") == "allow"
    judge = under(policy, config(cluster_name="default"))
    assert [verdict(judge, s, "ai/vec-0") for s in ("web/chat", "ai/rag")] == ["deny", "allow"]


def test_the_agent_tells_that_cilium_enforces() -> None:
    agent = pod("kube-system/cilium-x", "192.168.0.1", labels={"k8s-app": "cilium"}, host_network=True)
    agent["spec"]["containers"][0] |= {"name": "cilium-agent", "image": "quay.io/cilium/cilium:v1.18.4"}
    only_out = netpol("ai/np", podSelector=VEC, policyTypes=["Egress"])
    assert verdict(engine(*PODS, only_out), "ai/vec-0", OWN) == "allow"
    assert verdict(engine(*PODS, only_out, agent), "ai/vec-0", OWN) == "deny"


def test_groups_of_blocks_by_label() -> None:
    def group(name: str, block: str, **own: str) -> dict[str, Any]:
        metadata = {"name": name, "labels": own}
        return {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumCIDRGroup",
            "metadata": metadata,
            "spec": {"externalCIDRs": [block]},
        }

    groups = (group("hub", "203.0.113.0/24", kind="good"), group("bad", "198.51.100.0/24", kind="bad"))

    def reached(rule: dict[str, Any]) -> list[str]:
        judge = under(*groups, cnp(endpointSelector=VEC, egress=[{"toCIDRSet": [rule]}]))
        return [t for t in (WORLD, "198.51.100.1", "192.0.2.1", "ai/rag") if verdict(judge, "ai/vec-0", t) == "allow"]

    assert reached({"cidrGroupSelector": labels(kind="good")}) == [WORLD]
    not_bad = {"matchExpressions": [{"key": "kind", "operator": "NotIn", "values": ["bad"]}]}
    assert reached({"cidrGroupSelector": not_bad}) == [WORLD, "192.0.2.1"]
    assert reached({"cidrGroupRef": "hub", "except": ["203.0.113.9/32"]}) == []


def test_a_group_that_was_not_read_selects_no_pod() -> None:
    judge = under(cnp(endpointSelector=VEC, egress=[{"toCIDRSet": [{"cidrGroupRef": "missing"}]}]))
    assert [verdict(judge, "ai/vec-0", t) for t in ("ai/rag", OTHER, WORLD)] == ["deny", "deny", "unknown"]


def test_a_name_needs_a_dns_rule_that_admits_it() -> None:
    port = {"port": "53", "protocol": "ANY"}
    names = {"toFQDNs": [{"matchName": "api.openai.com"}]}

    def asked(pattern: str) -> Any:
        dns = {"toPorts": [{"ports": [port], "rules": {"dns": [{"matchPattern": pattern}]}}]}
        return ask(under(cnp(endpointSelector=VEC, egress=[names, dns])), "ai/vec-0", "api.openai.com", 443)

    assert asked("*.openai.com").verdict.value == "allow"
    other = asked("*.example.com")
    assert other.verdict.value == "unknown"
    assert "no DNS rule" in other.not_evaluated[0].reason


@pytest.mark.parametrize(
    "wanted",
    [
        {"k8sService": {"serviceName": "chat", "namespace": "web"}},
        {"k8sServiceSelector": {"selector": labels(tier="front")}},
        {"k8sServiceSelector": {"selector": {"matchLabels": {"k8s:tier": "front"}}, "namespace": "web"}},
    ],
)
def test_services_stand_for_their_pods(wanted: Raw) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "chat", "namespace": "web", "labels": {"tier": "front"}},
        "spec": {"selector": {"app": "chat"}, "ports": [{"port": 80}]},
    }
    rule = {"toServices": [wanted]}
    judge = under(service, cnp(endpointSelector=VEC, egress=[rule]))
    assert [verdict(judge, "ai/vec-0", t) for t in ("web/chat", "ai/rag")] == ["allow", "deny"]


def test_every_address_of_the_other_family_is_nobody_where_the_cluster_has_one() -> None:
    out = netpol("ai/out", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "::/0"}}]}])
    e = under(out, config(cluster_name="default"))
    assert verdict(e, "ai/rag", WORLD) == "deny"
    assert verdict(e, "ai/rag", "2001:db8::9") == "allow"
    four = netpol("ai/out", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])
    assert verdict(under(four, config(cluster_name="default")), "ai/rag", WORLD) == "allow"


def test_a_range_may_begin_at_a_port_by_its_name() -> None:
    server = pod("ai/api", "10.1.0.7", node="n1", ports=(("http", "TCP", 8080),))
    rule = {"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": "http", "endPort": 8090, "protocol": "TCP"}]}]}
    e = under(server, cnp(endpointSelector=labels(app="api"), ingress=[rule]))
    assert [p for p in (8079, 8080, 8085, 8090, 8091) if verdict(e, "ai/rag", "ai/api", p) == "allow"] == [
        8080,
        8085,
        8090,
    ]


def test_for_egress_a_port_by_its_name_begins_no_range() -> None:
    server = pod("web/api", "10.2.0.7", node="n1", ports=(("http", "TCP", 8080),))
    rule = {"toEndpoints": [{}], "toPorts": [{"ports": [{"port": "HTTP", "endPort": 8090}]}]}
    e = under(server, cnp("p", endpointSelector=VEC, egress=[rule]))
    assert [p for p in (8079, 8080, 8085, 8090) if verdict(e, "ai/vec-0", "web/api", p) == "allow"] == [8080]


def test_of_several_ranges_from_one_name_it_is_not_known_which_counts() -> None:
    server = pod("ai/api", "10.1.0.7", node="n1", ports=(("http", "TCP", 8080),))
    short, long = ({"toPorts": [{"ports": [{"port": "http", "endPort": last}]}]} for last in (8090, 8099))
    e = under(server, cnp(endpointSelector=labels(app="api"), ingress=[short, long]))
    assert [verdict(e, "ai/rag", "ai/api", p) for p in (8079, 8080, 8095)] == ["deny", "unknown", "unknown"]
    assert "several values of endPort" in ask(e, "ai/rag", "ai/api", 8095).not_evaluated[0].reason
    open_port = netpol("ai/open", podSelector=labels(app="api"), ingress=[{"ports": [{"port": "http"}]}])
    e = under(server, cnp(endpointSelector=labels(app="api"), ingress=[{"fromEndpoints": [{}], **short}]), open_port)
    assert [verdict(e, WORLD, "ai/api", p) for p in (8079, 8085, 8095)] == ["deny", "unknown", "deny"]


def test_a_selector_that_only_says_what_is_absent_is_for_everyone() -> None:
    """It selects identity 0, which stands for every identity that is not known."""
    absent = [("io.kubernetes.pod.namespace", "web"), ("io.cilium.k8s.policy.cluster", "default")]
    terms = [{"key": key, "operator": "NotIn", "values": [value]} for key, value in absent]
    for chosen, expected in ((terms, "allow"), (terms[:1], "deny")):
        peer = {"matchExpressions": chosen}
        e = under(cnp(endpointSelector=VEC, ingress=[{"fromEndpoints": [peer]}]), config(cluster_name="default"))
        assert [verdict(e, source, "ai/vec-0") for source in ("web/chat", WORLD)] == [expected, expected]


def test_a_field_that_deny_rules_do_not_have_leaves_open_what_they_deny() -> None:
    rule = {"toFQDNs": [{"matchName": "api.example.com"}], "toPorts": [{"ports": [{"port": "443"}]}]}
    e = under(cnp(endpointSelector=labels(app="rag"), egress=[{"toEntities": ["all"]}], egressDeny=[rule]))
    answer = ask(e, "ai/rag", WORLD, 443)
    assert answer.verdict.value == "unknown"
    assert any("egressDeny[0].toFQDNs" in note.field for note in answer.not_evaluated)


def test_reserved_keys_that_are_all_absent_select_every_identity_but_those_of_nodes() -> None:
    absent = [{"key": "reserved:remote-node", "operator": "DoesNotExist"}, {"key": "app", "operator": "DoesNotExist"}]
    e = under(cnp(endpointSelector=VEC, ingress=[{"fromEndpoints": [{"matchExpressions": absent}]}]))
    assert passing(e, "ai/vec-0", ("ai/rag", "web/chat", WORLD, OTHER)) == ["ai/rag", "web/chat", WORLD]


def test_of_two_values_of_one_label_it_is_not_known_which_counts() -> None:
    """Keys with and without the source "any" are one key to the agent, and its map has no order."""
    twice = {"matchLabels": {"any:app": "rag", "app": "chat"}}
    everywhere = {**twice, "matchExpressions": [{"key": "io.kubernetes.pod.namespace", "operator": "Exists"}]}
    e = under(cnp(endpointSelector=VEC, ingress=[{"fromEndpoints": [everywhere]}]))
    assert [verdict(e, s, "ai/vec-0") for s in ("ai/rag", "web/chat", "ai/vec-0", WORLD)] == [
        *("unknown", "unknown", "allow", "deny")
    ]
    assert "matchLabels gives label app several values" in ask(e, "ai/rag", "ai/vec-0").not_evaluated[0].reason
    e = under(cnp(endpointSelector=twice, ingress=[{"fromEndpoints": [labels(app="vec")]}]))
    assert [verdict(e, WORLD, pod) for pod in ("ai/rag", "ai/vec-0")] == ["unknown", "allow"]
    same = {"matchLabels": {"any:app": "rag", "app": "rag"}}
    e = under(cnp(endpointSelector=same, ingress=[{"fromEndpoints": [labels(app="vec")]}]))
    assert verdict(e, WORLD, "ai/rag") == "deny"


def test_mapped_addresses_are_ipv6_to_cilium() -> None:
    """Elsewhere they are the IPv4 addresses that they stand for."""
    outside, mapped = "203.0.113.9", "::ffff:203.0.113.0/120"
    admitted = netpol("a/in", ingress=[{"from": [{"ipBlock": {"cidr": mapped}}]}])
    objects = (namespace("a"), node("n1", "192.168.0.1"), pod("a/s", "10.0.0.1", node="n1"))
    assert verdict(PolicyEngine(snapshot(*objects, admitted), named_enforcer("calico")), outside, "a/s") == "allow"
    assert verdict(PolicyEngine(snapshot(*objects, admitted), named_enforcer("cilium")), outside, "a/s") == "deny"
    own: Raw = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "in", "namespace": "a"},
    }
    for rule in ({"fromCIDR": [mapped]}, {"fromCIDRSet": [{"cidr": mapped}]}):
        spec = {"endpointSelector": {}, "ingress": [rule]}
        judge = PolicyEngine(snapshot(*objects, {**own, "spec": spec}), named_enforcer("cilium"))
        assert verdict(judge, outside, "a/s") == "deny"
    excepted = {
        "endpointSelector": {},
        "ingress": [{"fromCIDRSet": [{"cidr": mapped, "except": ["203.0.113.128/25"]}]}],
    }
    judge = PolicyEngine(snapshot(*objects, {**own, "spec": excepted}), named_enforcer("cilium"))
    assert [str(policy.ref) for policy in judge.refused] == ["CiliumNetworkPolicy a/in"]
    assert verdict(judge, outside, "a/s") == "allow"  # it is not in force
