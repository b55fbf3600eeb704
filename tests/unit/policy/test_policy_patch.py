"""Patches: the smallest change, tried before it is offered, with all that it admits besides."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.policy import PatchOption, PolicyEngine, PolicyFlow, patch, patch_all
from tests.unit.policy.policy_cluster import admin, end, engine, labels, namespace, netpol, node, pod, snapshot, verdict

PODS = (
    namespace("ai"),
    namespace("web"),
    pod("ai/llama-0", "10.1.0.1", labels={"app": "llama", "pod-template-hash": "abc"}),
    pod("ai/llama-1", "10.1.0.2", labels={"app": "llama", "pod-template-hash": "abc"}),
    pod("ai/rag", "10.1.0.3", labels={"app": "rag", "pod-template-hash": "def"}),
    pod("web/chat", "10.2.0.1", labels={"app": "chat", "env": "prod"}),
)
EVERYWHERE: dict[str, Any] = {"namespaces": {}}


def flow(source: str, target: str, port: int = 80, protocol: str = "TCP") -> PolicyFlow:
    return PolicyFlow(end(source), end(target), protocol, port)


def after(judge: PolicyEngine, option: PatchOption | None) -> PolicyEngine:
    assert option is not None
    kept = [o.raw for o in judge.snapshot.objects if o.ref not in {c.ref for c in option.changes}]
    return engine(*kept, *(c.object for c in option.changes))


def test_a_port_is_added_to_the_rule_that_selects_the_peer() -> None:
    judge = engine(
        *PODS,
        netpol(
            "ai/p",
            podSelector=labels(app="llama"),
            ingress=[{"from": [{"podSelector": labels(app="rag")}], "ports": [{"port": 8080}]}],
        ),
    )
    found = patch(judge, flow("ai/rag", "ai/llama-0"))
    assert found is not None and found.edit is not None
    (change,) = found.edit.changes
    assert change.what == "spec.ingress[0].ports[1] added"
    assert change.object["spec"]["ingress"][0]["ports"] == [{"port": 8080}, {"protocol": "TCP", "port": 80}]
    assert found.edit.also_admits == (("ai/rag", "ai/llama-1"),)
    assert verdict(after(judge, found.edit), "ai/rag", "ai/llama-0") == "allow"


def test_a_rule_is_added_with_the_fewest_lasting_labels() -> None:
    judge = engine(*PODS, netpol("ai/p", ingress=[]))
    found = patch(judge, flow("web/chat", "ai/rag", 8080))
    assert found is not None and found.edit is not None and found.new is not None
    rule = {
        "from": [
            {
                "namespaceSelector": labels(**{"kubernetes.io/metadata.name": "web"}),
                "podSelector": labels(app="chat"),
            }
        ],
        "ports": [{"protocol": "TCP", "port": 8080}],
    }
    assert found.edit.changes[0].object["spec"]["ingress"] == [rule]
    assert set(found.edit.also_admits) == {("web/chat", "ai/llama-0"), ("web/chat", "ai/llama-1")}
    new = found.new.changes[0].object
    assert new["metadata"] == {"name": "allow-rag-from-chat", "namespace": "ai"}
    assert new["spec"] == {"podSelector": labels(app="rag"), "policyTypes": ["Ingress"], "ingress": [rule]}
    assert found.new.also_admits == ()
    assert found.smallest is found.new


def test_both_directions_are_patched_at_once() -> None:
    judge = engine(*PODS, netpol("ai/in", ingress=[]), netpol("web/out", policyTypes=["Egress"], egress=[]))
    found = patch(judge, flow("web/chat", "ai/rag"))
    assert found is not None
    for option in (found.edit, found.new):
        assert option is not None and len(option.changes) == 2
        assert verdict(after(judge, option), "web/chat", "ai/rag") == "allow"


def test_an_address_is_admitted_alone() -> None:
    judge = engine(*PODS, netpol("ai/p", podSelector=labels(app="rag"), ingress=[]))
    found = patch(judge, flow("203.0.113.9", "ai/rag"))
    assert found is not None and found.new is not None
    assert found.new.changes[0].object["spec"]["ingress"][0]["from"] == [{"ipBlock": {"cidr": "203.0.113.9/32"}}]
    assert verdict(after(judge, found.new), "203.0.113.10", "ai/rag") == "deny"


def replicas_of_one(*, isolated: str) -> list[dict[str, Any]]:
    """Two replicas, and a policy of Cilium's without one spec to edit that selects the labels of one of them."""
    names = ("ai/db-0", "ai/db-1")
    pods = [pod(n, f"10.1.3.{i}", labels={"app": "db", "shard": f"s{i}"}) for i, n in enumerate(names)]
    for made in pods:
        made["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": "db"}]
    return [*pods, netpol("ai/one", podSelector=labels(shard=isolated), policyTypes=["Ingress"])]


def test_a_new_policy_that_would_isolate_others_is_not_offered() -> None:
    """One replica is isolated, and the labels that it shares with the other are the only ones that last."""
    found = patch(engine(*PODS, *replicas_of_one(isolated="s0")), flow("ai/rag", "ai/db-0"))
    assert found is not None
    assert found.edit is not None and found.new is None


def test_an_allow_rule_goes_before_the_denying_rule_of_an_administrator() -> None:
    rules = [{"name": "no-web", "action": "Deny", "from": [{"namespaces": {}}]}]
    judge = engine(*PODS, admin("AdminNetworkPolicy", "a", priority=5, subject=EVERYWHERE, ingress=rules))
    found = patch(judge, flow("web/chat", "ai/rag"))
    assert found is not None and found.edit is not None and found.new is not None
    first = found.edit.changes[0].object["spec"]["ingress"][0]
    assert (first["action"], first["ports"]) == ("Allow", [{"portNumber": {"protocol": "TCP", "port": 80}}])
    assert found.new.changes[0].object["spec"]["priority"] == 4
    for option in (found.edit, found.new):
        assert verdict(after(judge, option), "web/chat", "ai/rag") == "allow"
        assert verdict(after(judge, option), "web/chat", "ai/rag", 81) == "deny"
    assert found.new.also_admits == ()


def test_the_baseline_and_cluster_network_policies_are_patched_in_their_own_words() -> None:
    deny = [{"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]}]
    baseline = engine(*PODS, admin("BaselineAdminNetworkPolicy", "default", subject=EVERYWHERE, egress=deny))
    found = patch(baseline, flow("ai/rag", "203.0.113.9", 443))
    assert found is not None and found.edit is not None and found.new is None
    assert found.edit.changes[0].object["spec"]["egress"][0]["to"] == [{"networks": ["203.0.113.9/32"]}]
    spec = {"tier": "Admin", "priority": 3, "subject": EVERYWHERE, "egress": deny}
    cluster = engine(
        *PODS, admin("ClusterNetworkPolicy", "c", **spec), admin("ClusterNetworkPolicy", "d", **{**spec, "priority": 2})
    )
    found = patch(cluster, flow("ai/rag", "203.0.113.9", 443))
    assert found is not None and found.new is not None
    new = found.new.changes[0].object["spec"]
    assert (new["tier"], new["priority"], new["egress"][0]["action"]) == ("Admin", 1, "Accept")


def calico_policy(**spec: Any) -> dict[str, Any]:
    spec = {"types": ["Ingress"], "ingress": [{"action": "Deny"}], **spec}
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "g"},
        "spec": spec,
    }


def cilium_policy(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "c", "namespace": "ai"},
        "spec": {"endpointSelector": {}, **spec},
    }


def test_there_is_no_patch_for_what_passes_is_unknown_or_is_denied_by_cilium() -> None:
    deny = cilium_policy(ingressDeny=[{"fromEntities": ["all"]}])
    assert patch(engine(*PODS), flow("ai/rag", "ai/llama-0")) is None
    assert patch(engine(*PODS, deny), flow("ai/rag", "ai/llama-0")) is None
    unknown = engine(*PODS, pod("ai/new"), netpol("ai/p", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]))
    assert patch(unknown, flow("ai/new", "ai/rag")) is None
    assert patch(engine(*PODS, netpol("ai/p", policyTypes=["Egress"])), flow("ai/rag", "example.com")) is None


def test_a_new_network_policy_admits_what_cilium_isolates() -> None:
    judge = engine(*PODS, cilium_policy(ingress=[{}]))
    found = patch(judge, flow("web/chat", "ai/rag"))
    assert found is not None and found.new is not None and found.edit is not None
    assert found.smallest.changes[0].object["kind"] == "NetworkPolicy"
    for option in (found.edit, found.new):
        assert verdict(after(judge, option), "web/chat", "ai/rag") == "allow"
    rule = found.edit.changes[0].object["spec"]["ingress"][1]
    assert rule["fromEndpoints"] == [labels(**{"k8s:io.kubernetes.pod.namespace": "web", "app": "chat"})]


@pytest.mark.parametrize(("order", "kinds"), [(2000, {"NetworkPolicy"}), (500, {"NetworkPolicy"}), (0, set())])
def test_calico_gets_an_allow_rule_before_the_one_that_denies(order: int, kinds: set[str]) -> None:
    """Of order 1000 or more the one that denies comes after NetworkPolicies; before order 0 there is nothing."""
    judge = engine(*PODS, calico_policy(order=order, selector="all()"))
    found = patch(judge, flow("web/chat", "ai/rag"))
    assert found is not None and found.edit is not None
    rule = found.edit.changes[0].object["spec"]["ingress"][0]
    entity = {"selector": "app == 'chat'", "namespaceSelector": "projectcalico.org/name == 'web'"}
    assert rule == {"action": "Allow", "protocol": "TCP", "source": entity, "destination": {"ports": [80]}}
    assert {c.object["kind"] for c in found.new.changes} == kinds if found.new else not kinds
    for option in filter(None, (found.edit, found.new)):
        assert verdict(after(judge, option), "web/chat", "ai/rag") == "allow"
        assert verdict(after(judge, option), "web/chat", "ai/rag", 81) == "deny"


def test_nodes_and_api_servers_are_entities_under_cilium() -> None:
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "endpoints": [{"addresses": ["192.168.0.2"]}],
        "ports": [{"port": 6443}],
    }
    nodes = (node("n1", "192.168.0.1"), node("n2", "192.168.0.2"), node("n3", "192.168.0.3"))
    here = pod("ai/here", "10.1.0.9", node="n1")
    judge = engine(*PODS, *nodes, here, endpoints, cilium_policy(egress=[{}]))
    targets = (("192.168.0.1", "host"), ("192.168.0.2", "kube-apiserver"), ("192.168.0.3", "remote-node"))
    for target, entity in targets:
        found = patch(judge, flow("ai/here", target, 6443))
        assert found is not None and found.edit is not None and found.new is not None
        spec = found.new.changes[0].object["spec"]
        assert spec["egress"][0]["toEntities"] == [entity]
        for option in (found.edit, found.new):
            assert verdict(after(judge, option), "ai/here", target, 6443) == "allow"
            assert verdict(after(judge, option), "ai/here", "203.0.113.9", 6443) == "deny"


def test_a_domain_name_gets_its_dns_rule_under_cilium() -> None:
    judge = engine(*PODS, cilium_policy(egress=[{}]))
    found = patch(judge, flow("ai/rag", "huggingface.co", 443))
    assert found is not None and found.new is not None
    names, dns = found.new.changes[0].object["spec"]["egress"]
    assert names["toFQDNs"] == [{"matchName": "huggingface.co"}]
    assert dns["toPorts"][0]["rules"] == {"dns": [{"matchPattern": "*"}]}
    assert verdict(after(judge, found.new), "ai/rag", "huggingface.co", 443) == "allow"


CHANGING = {
    "app.kubernetes.io/version": "1.2",
    "helm.sh/chart": "web-1.2",
    "rollouts-pod-template-hash": "a",
    "leaderworkerset.sigs.k8s.io/group-index": "0",
    "apps.kubernetes.io/pod-index": "0",
    "service.istio.io/canonical-revision": "v2",
    "git-commit": "abc",
}


def test_a_patch_names_no_label_that_a_release_or_a_replica_changes() -> None:
    web = pod("web/web-0", "10.2.0.7", labels={**CHANGING, "app.kubernetes.io/name": "web", "app": "web"})
    judge = engine(*PODS, web, netpol("ai/p", ingress=[]))
    found = patch(judge, flow("web/web-0", "ai/rag"))
    assert found is not None and found.edit is not None
    peer = found.edit.changes[0].object["spec"]["ingress"][0]["from"][0]
    assert peer["podSelector"] == labels(**{"app.kubernetes.io/name": "web"})


def test_labels_that_differ_between_replicas_are_left_out_and_the_owners_come_first() -> None:
    def replica(number: int) -> dict[str, Any]:
        made = pod(f"web/db-{number}", f"10.2.1.{number}", labels={"shard": str(number), "zz": "db", "aa": "x"})
        made["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": "db"}]
        return made

    owner = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "web"},
        "spec": {"selector": labels(zz="db")},
    }
    judge = engine(*PODS, replica(0), replica(1), owner, netpol("ai/p", ingress=[]))
    found = patch(judge, flow("web/db-0", "ai/rag"))
    assert found is not None and found.edit is not None
    peer = found.edit.changes[0].object["spec"]["ingress"][0]["from"][0]
    assert peer["podSelector"] == labels(zz="db")


def test_as_many_labels_as_it_takes() -> None:
    ui = {"app": "shop", "part": "ui", "zone": "a"}
    others = [{**ui, "app": "x"}, {**ui, "part": "api"}, {**ui, "zone": "b"}]
    pods = [pod(f"web/p{i}", f"10.2.2.{i + 1}", labels=found) for i, found in enumerate([ui, *others])]
    found = patch(engine(*PODS, *pods, netpol("ai/p", ingress=[])), flow("web/p0", "ai/rag"))
    assert found is not None and found.edit is not None
    peer = found.edit.changes[0].object["spec"]["ingress"][0]["from"][0]
    assert peer["podSelector"] == labels(**ui)


@pytest.mark.parametrize(("kind", "most"), [("AdminNetworkPolicy", 100), ("ClusterNetworkPolicy", 25)])
def test_a_policy_that_is_full_gets_no_further_rule(kind: str, most: int) -> None:
    rules = [{"name": f"r{i}", "action": "Deny", "from": [{"namespaces": {}}]} for i in range(most)]
    spec = {"priority": 0, "subject": EVERYWHERE, **({"tier": "Admin"} if kind == "ClusterNetworkPolicy" else {})}
    full = engine(*PODS, admin(kind, "a", **spec, ingress=rules))
    assert patch(full, flow("web/chat", "ai/rag")) is None
    room = engine(*PODS, admin(kind, "a", **spec, ingress=rules[1:]))
    found = patch(room, flow("web/chat", "ai/rag"))
    assert found is not None and found.edit is not None


def test_a_policy_that_isolates_open_pods_is_the_last_resort_and_says_so() -> None:
    """The policy that isolates the one replica has two specs, and can't be edited."""
    *pods, _ = replicas_of_one(isolated="s0")
    several = cilium_policy(ingress=[])
    del several["spec"]
    several["specs"] = [{"endpointSelector": labels(shard="s0"), "ingress": [{}]}] * 2
    found = patch(engine(*PODS, *pods, several), flow("web/chat", "ai/db-0"))
    assert found is not None and found.edit is None and found.new is not None
    assert set(found.new.isolates) == {"ai/db-1"}


def test_the_pod_selector_is_always_there() -> None:
    policy = netpol("ai/p", policyTypes=["Ingress"])
    del policy["spec"]["podSelector"]
    found = patch(engine(*PODS, policy), flow("web/chat", "ai/rag"))
    assert found is not None and found.edit is not None
    assert found.edit.changes[0].object["spec"]["podSelector"] == {}


def test_the_edited_object_is_fit_to_be_applied() -> None:
    raw = netpol("ai/p", ingress=[])
    raw["metadata"] |= {
        "uid": "u",
        "resourceVersion": "7",
        "managedFields": [{}],
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        "labels": {"keep": "me"},
    }
    raw["status"] = {}
    found = patch(engine(*PODS, raw), flow("web/chat", "ai/rag"))
    assert found is not None and found.edit is not None
    edited = found.edit.changes[0].object
    assert set(edited) == {"apiVersion", "kind", "metadata", "spec"}
    assert edited["metadata"] == {"name": "p", "namespace": "ai", "labels": {"keep": "me"}}
    assert raw["spec"]["ingress"] == []  # the snapshot stays as it was


def test_several_flows_get_one_set_of_changes() -> None:
    judge = engine(*PODS, netpol("ai/p", ingress=[]))
    option = patch_all(
        judge, [flow("web/chat", "ai/llama-0"), flow("web/chat", "ai/llama-1"), flow("ai/rag", "ai/llama-0")]
    )
    assert option is not None
    changed = after(judge, option)
    assert verdict(changed, "web/chat", "ai/llama-1") == "allow"
    assert verdict(changed, "ai/rag", "ai/llama-0") == "allow"
    assert ("ai/rag", "ai/llama-1") in option.also_admits


def test_the_snapshot_of_the_helper_has_no_nulls() -> None:
    assert snapshot(netpol("ai/p", ingress=None)).objects[0].raw["spec"] == {"podSelector": {}}
