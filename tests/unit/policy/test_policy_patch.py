"""Patches: the smallest change, tried before it is offered, with all that it admits besides."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.policy import Option, PolicyEngine, PolicyFlow, patch, patch_all
from tests.unit.policy.policy_cluster import admin, end, engine, labels, namespace, netpol, pod, snapshot, verdict

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


def after(judge: PolicyEngine, option: Option | None) -> PolicyEngine:
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


def test_a_new_policy_that_would_isolate_others_is_not_offered() -> None:
    """The pod has no label of its own: a policy for it would isolate the whole namespace."""
    bare = pod("ai/bare", "10.1.0.9", labels={})
    only_bare = {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}
    judge = engine(*PODS, bare, netpol("ai/p", podSelector=only_bare, ingress=[]))
    found = patch(judge, flow("ai/rag", "ai/bare"))
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


def test_there_is_no_patch_for_what_passes_is_unknown_or_is_denied_by_others() -> None:
    calico: dict[str, Any] = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "g"},
        "spec": {"order": 1, "ingress": [{"action": "Deny"}]},
    }
    assert patch(engine(*PODS), flow("ai/rag", "ai/llama-0")) is None
    assert patch(engine(*PODS, calico), flow("ai/rag", "ai/llama-0")) is None
    unknown = engine(*PODS, pod("ai/new"), netpol("ai/p", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]))
    assert patch(unknown, flow("ai/new", "ai/rag")) is None
    assert patch(engine(*PODS, netpol("ai/p", policyTypes=["Egress"])), flow("ai/rag", "example.com")) is None


def test_a_new_network_policy_admits_what_cilium_isolates() -> None:
    cilium = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "c", "namespace": "ai"},
        "spec": {"endpointSelector": {}, "ingress": [{}]},
    }
    judge = engine(*PODS, cilium)
    found = patch(judge, flow("web/chat", "ai/rag"))
    assert found is not None and found.new is not None and found.edit is None
    assert verdict(after(judge, found.new), "web/chat", "ai/rag") == "allow"


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
