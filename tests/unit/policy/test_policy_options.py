"""What an enforcer's options and its API do to policies: some are not in force, some act like a policy."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy import Direction, PolicyEngine, PolicyFlow, Reason
from kubectl_genainet.policy.enforcers import Trait, named_enforcer
from kubectl_genainet.policy.flows.arrival import explain_arriving
from tests.unit.policy.policy_cluster import (
    Raw,
    admin,
    ask,
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
    namespace("emb"),
    namespace("web"),
    node("n1", "192.168.7.1"),
    node("n2", "192.168.7.2"),
    pod("web/ui", "10.8.0.2", node="n1"),
    pod("emb/model", "10.8.0.3", node="n2"),
)
CLOSED = netpol("emb/closed", policyTypes=["Ingress"])
DENY = admin(
    "AdminNetworkPolicy",
    "no-web",
    priority=4,
    subject={"namespaces": labels(**{"kubernetes.io/metadata.name": "emb"})},
    ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}],
)
CILIUM_POLICY: Raw = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "own", "namespace": "emb"},
    "spec": {"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}]},
}
CALICO_POLICY: Raw = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "GlobalNetworkPolicy",
    "metadata": {"name": "closed"},
    "spec": {"selector": "all()", "types": ["Ingress"]},
}


def config(**options: str) -> Raw:
    data = {"cluster-name": "default", **{k.replace("_", "-"): v for k, v in options.items()}}
    metadata = {"name": "cilium-config", "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def agent(*containers: Raw, name: str = "agent") -> Raw:
    template = {"metadata": {"labels": {"x": name}}, "spec": {"containers": list(containers)}}
    metadata = {"name": name, "namespace": "kube-system"}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": {"template": template}}


@pytest.mark.parametrize("options", [{"enable_policy": "never"}, {"policy_audit_mode": "true"}])
def test_an_agent_may_be_told_to_enforce_nothing(options: dict[str, str]) -> None:
    e = engine(*PODS, CLOSED, config(**options))
    answer = ask(e, "web/ui", "emb/model")
    assert (answer.verdict.value, answer.ingress.reason) == ("allow", Reason.INERT)
    assert next(iter(options)).replace("_", "-") in e.enforcer.stopped


@pytest.mark.parametrize(
    ("option", "policy"),
    [("enable_k8s_networkpolicy", CLOSED), ("enable_cilium_network_policy", CILIUM_POLICY)],
)
def test_an_option_may_switch_a_kind_off(option: str, policy: Raw) -> None:
    assert verdict(engine(*PODS, policy, config()), "web/ui", "emb/model") == "deny"
    e = engine(*PODS, policy, config(**{option: "false"}))
    answer = ask(e, "web/ui", "emb/model")
    assert answer.verdict.value == "allow"
    assert any("is off" in note.reason for note in answer.not_evaluated)


def strict_cni() -> Raw:
    mode = {"name": "NETWORK_POLICY_ENFORCING_MODE", "value": "strict"}
    image = "602.dkr.ecr.eu-west-1.example/amazon"
    return agent(
        {"name": "aws-node", "image": f"{image}-k8s-cni:v1.19", "env": [mode]},
        {"name": "np", "image": f"{image}/aws-network-policy-agent:v1.2", "args": ["--enable-network-policy=true"]},
    )


@pytest.mark.parametrize("option", [config(enable_policy="always"), strict_cni()], ids=["cilium", "vpc-cni"])
def test_pods_without_a_policy_may_be_isolated(option: Raw) -> None:
    e = engine(*PODS, option)
    answer = ask(e, "web/ui", "emb/model")
    assert answer.verdict.value == "deny"
    assert [d.trait for d in e.deviations(answer, Direction.INGRESS)] == [Trait.ALL_ISOLATED]
    assert e.isolating(("emb", "model"), Direction.INGRESS) == ()  # an option is no policy
    both_open = [netpol(f"{ns}/open", ingress=[{}], egress=[{}]) for ns in ("emb", "web")]
    assert verdict(engine(*PODS, option, *both_open), "203.0.113.1", "emb/model") in ("allow", "unknown")


@pytest.mark.parametrize(
    ("enforcer", "policy", "expected"),
    [
        ("calico", DENY, "unknown"),  # it hangs on Calico's version
        ("cilium", DENY, "allow"),
        ("vpc-cni", DENY, "unknown"),
        ("calico", CILIUM_POLICY, "allow"),
        ("cilium", CILIUM_POLICY, "deny"),
        ("cilium", CALICO_POLICY, "allow"),
        ("ovn", CALICO_POLICY, "allow"),
        ("unknown", CALICO_POLICY, "deny"),
    ],
)
def test_policies_that_the_enforcer_does_not_read_are_not_in_force(enforcer: str, policy: Raw, expected: str) -> None:
    e = PolicyEngine(snapshot(*PODS, policy), named_enforcer(enforcer))
    answer = ask(e, "web/ui", "emb/model")
    assert answer.verdict.value == expected
    if expected == "allow":
        assert [d.trait for d in e.deviations(answer, Direction.INGRESS)] == [Trait.UNREAD]
        assert [str(one.ref) for one in e.unevaluated]


def test_a_cluster_network_policy_under_cilium_hangs_on_an_option() -> None:
    policy = {**admin("ClusterNetworkPolicy", "c", tier="Admin", **DENY["spec"])}
    policy["spec"] = {**policy["spec"], "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}
    option = "enable-k8s-cluster-network-policy"
    for objects, expected in (
        ((config(),), "allow"),
        ((config(**{option: "true"}),), "deny"),
        ((), "unknown"),
    ):
        e = PolicyEngine(snapshot(*PODS, policy, *objects), named_enforcer("cilium"))
        assert verdict(e, "web/ui", "emb/model") == expected


def test_objects_alone_do_not_show_that_other_kinds_are_not_read() -> None:
    e = engine(*PODS, CALICO_POLICY, {**CILIUM_POLICY, "kind": "CiliumIdentity", "spec": {}})
    assert not e.enforcer.certain
    assert verdict(e, "web/ui", "emb/model") == "deny"


def test_felix_may_close_the_way_to_the_own_node() -> None:
    felix = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": {"defaultEndpointToHostAction": "Drop"},
    }
    e = engine(*PODS, felix)
    answer = ask(e, "web/ui", "192.168.7.1", 10250)
    assert answer.verdict.value == "deny"
    assert [d.trait for d in e.deviations(answer, Direction.EGRESS)] == [Trait.NODE_CLOSED]
    assert verdict(e, "web/ui", "192.168.7.2", 10250) == "allow"


def test_a_namespace_stands_for_the_nodes_under_ovn() -> None:
    key = "policy-group.network.openshift.io/host-network"
    rule = {"from": [{"namespaceSelector": {"matchLabels": {key: ""}}}]}
    objects = (*PODS, netpol("emb/in", ingress=[rule]))
    e = PolicyEngine(snapshot(*objects), named_enforcer("ovn"))
    answer = ask(e, "192.168.7.1", "emb/model")
    assert answer.verdict.value == "allow"
    assert [d.trait for d in e.deviations(answer, Direction.INGRESS)] == [Trait.HOST_GROUP]
    assert verdict(engine(*objects), "192.168.7.1", "emb/model") == "deny"


def test_the_vpc_cni_judges_egress_with_the_services_port() -> None:
    def owned(raw: Raw) -> dict[str, Any]:
        return {**raw, "metadata": {**raw["metadata"], "ownerReferences": [{"kind": "ReplicaSet", "name": "r"}]}}

    out = netpol("web/out", policyTypes=["Egress"], egress=[{"ports": [{"port": 9000}]}])
    flow = PolicyFlow(end("web/ui"), end("emb/model"), "TCP", 9000)
    for port, expected in ((80, "unknown"), (9000, "allow")):
        front = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "model", "namespace": "emb"},
            "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": port, "targetPort": 9000}]},
        }
        e = PolicyEngine(snapshot(*map(owned, PODS), out, front), named_enforcer("vpc-cni"))
        assert explain_arriving(e, flow, "emb/model").verdict.value == expected


@pytest.mark.parametrize(
    ("kind", "spec", "into", "outside"),
    [
        (("k8s.ovn.org/v1", "EgressFirewall"), {"egress": [{"type": "Deny"}]}, "allow", "unknown"),
        (("vpcresources.k8s.aws/v1beta1", "SecurityGroupPolicy"), {"podSelector": {}}, "unknown", "unknown"),
        (
            ("crd.antrea.io/v1beta1", "NetworkPolicy"),
            {"appliedTo": [{"podSelector": labels(app="other")}], "egress": [{"action": "Drop"}]},
            "allow",
            "allow",
        ),
    ],
)
def test_a_kind_that_is_not_evaluated_opens_only_what_it_can_change(
    kind: tuple[str, str], spec: Raw, into: str, outside: str
) -> None:
    policy = {"apiVersion": kind[0], "kind": kind[1], "metadata": {"name": "x", "namespace": "web"}, "spec": spec}
    e = engine(*PODS, policy)
    assert (verdict(e, "web/ui", "emb/model"), verdict(e, "web/ui", "203.0.113.1")) == (into, outside)
    assert verdict(engine(*PODS, policy, CLOSED), "web/ui", "emb/model") == "deny"


def test_in_strict_mode_a_policy_of_one_direction_opens_the_other() -> None:
    """aws-network-policy-agent issue 319."""
    owner = {"kind": "ReplicaSet", "name": "r", "apiVersion": "apps/v1", "uid": "1", "controller": True}
    owned = [{**p, "metadata": {**p["metadata"], "ownerReferences": [owner]}} for p in PODS if p["kind"] == "Pod"]
    others = [p for p in PODS if p["kind"] != "Pod"]
    egress = netpol("emb/out", policyTypes=["Egress"], egress=[{}])
    e = engine(*others, *owned, strict_cni(), egress)
    assert verdict(e, "203.0.113.9", "emb/model") == "allow"
    assert verdict(e, "203.0.113.9", "web/ui") == "deny"
    changed = engine(*others, *owned, strict_cni()).with_changes([KubeObject(egress)])
    assert changed is not None
    assert verdict(changed.engine, "203.0.113.9", "emb/model") == "allow"
