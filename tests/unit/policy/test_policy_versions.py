"""Which policies are in force hangs on versions: of the API that they are written for, and of the enforcer that reads them."""

from __future__ import annotations

import pytest

from kubectl_genainet.policy import Direction
from kubectl_genainet.policy.enforcers import Trait
from kubectl_genainet.policy.left_out.served import RefusedBy
from kubectl_genainet.policy.patches.patch import Patcher
from tests.unit.policy.policy_cluster import (
    Raw,
    admin,
    ask,
    daemon_set,
    engine,
    labels,
    namespace,
    netpol,
    pod,
    verdict,
)

PODS = (
    namespace("ai"),
    namespace("web"),
    pod("ai/rag", "10.1.0.2"),
    pod("ai/llama", "10.1.0.3"),
    pod("web/chat", "10.2.0.2"),
)
KUBERNETES = "networking.k8s.io/v1"
CLOSED = {"podSelector": labels(app="llama"), "policyTypes": ["Ingress"]}
FROM_ALL = [{"action": "Deny", "from": [{"namespaces": {}}]}]
SUBJECT: Raw = {"subject": {"namespaces": {}}}
ADMIN = {**SUBJECT, "tier": "Admin", "priority": 1, "ingress": FROM_ALL}


def policy(api_version: str, kind: str, name: str, **spec: object) -> Raw:
    where, _, short = name.rpartition("/")
    metadata = {"name": short, **({"namespace": where} if where else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    ("written", "by", "current"),
    [
        (policy("extensions/v1beta1", "NetworkPolicy", "ai/p", **CLOSED), RefusedBy.API, KUBERNETES),
        (policy("networking.k8s.io/v1beta1", "NetworkPolicy", "ai/p", **CLOSED), RefusedBy.API, KUBERNETES),
        (policy("networking.k8s.io/v2", "NetworkPolicy", "ai/p", **CLOSED), RefusedBy.API, KUBERNETES),
        (policy("v1", "NetworkPolicy", "ai/p", **CLOSED), RefusedBy.API, KUBERNETES),
        (policy("networking.k8s.io/v1", "networkPolicies", "ai/p", **CLOSED), RefusedBy.CLIENT, KUBERNETES),
        (
            policy(
                "policy.networking.k8s.io/v1alpha1",
                "ClusterNetworkPolicy",
                "p",
                **SUBJECT,
                tier="Admin",
                priority=1,
                ingress=FROM_ALL,
            ),
            RefusedBy.API,
            "policy.networking.k8s.io/v1alpha2",
        ),
        (
            policy(
                "policy.networking.k8s.io/v1beta1", "AdminNetworkPolicy", "p", **SUBJECT, priority=1, ingress=FROM_ALL
            ),
            RefusedBy.NOBODY,
            "v1alpha1",
        ),
        (
            policy("cilium.io/v1", "CiliumNetworkPolicy", "ai/p", endpointSelector={}, ingress=[{}]),
            RefusedBy.API,
            "cilium.io/v2",
        ),
        (
            policy("projectcalico.org/v3", "globalnetworkpolicy", "web/p", selector="all()"),
            RefusedBy.CLIENT,
            "projectcalico.org/v3",
        ),
    ],
    ids=lambda value: f"{value['apiVersion']} {value['kind']}" if isinstance(value, dict) else "",
)
def test_a_policy_that_no_server_takes_as_written_is_named_and_never_counts_as_none(
    written: Raw, by: RefusedBy, current: str
) -> None:
    e = engine(*PODS, written)
    answer = ask(e, "ai/rag", "ai/llama")
    assert answer.verdict.value == "unknown"
    (one,) = e.unevaluated
    assert (one.ref.kind, one.refused_by) == (written["kind"], by)
    assert current in one.reason
    assert verdict(e, "ai/llama", "203.0.113.1") == "allow"  # it says nothing of egress


def test_what_it_can_not_change_stays_as_it_is_and_the_patch_uses_the_current_version() -> None:
    old = policy("extensions/v1beta1", "NetworkPolicy", "ai/old", **CLOSED)
    e = engine(*PODS, old, netpol("ai/closed", policyTypes=["Ingress"]))
    answer = ask(e, "ai/rag", "ai/llama")
    assert answer.verdict.value == "deny"
    patch = Patcher(e).patch(answer.flow)
    assert patch is not None
    options = [option for option in (patch.edit, patch.new) if option is not None]
    assert {change.object["apiVersion"] for option in options for change in option.changes} == {KUBERNETES}


def calico(version: str) -> Raw:
    return daemon_set(f"registry.example/calico/node:{version}", "calico-node")


def antrea(settings: str) -> tuple[Raw, Raw]:
    metadata = {"name": "antrea-config", "namespace": "kube-system"}
    data = {"antrea-controller.conf": settings}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    return daemon_set("antrea/antrea-agent-ubuntu:v2.2.0", "antrea-agent"), config


def knp(image: str, *arguments: str) -> Raw:
    return daemon_set(f"registry.example/kube-network-policies:{image}", "c", *arguments)


ANP = admin("AdminNetworkPolicy", "p", **SUBJECT, priority=1, ingress=FROM_ALL)
BANP = admin("BaselineAdminNetworkPolicy", "default", **SUBJECT, ingress=FROM_ALL)
CNP = admin("ClusterNetworkPolicy", "p", **SUBJECT, tier="Admin", priority=1, ingress=FROM_ALL)
TIER = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "Tier",
    "metadata": {"name": "kube-admin"},
    "spec": {"order": 1000},
}


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ((calico("v3.28.2"), ANP), "allow"),
        ((calico("v3.29.0"), ANP), "deny"),
        ((calico("v3.29.0"), BANP), "allow"),
        ((calico("v3.31.5"), BANP), "deny"),
        ((calico("v3.31.5"), CNP), "allow"),
        ((calico("v3.32.0"), ANP), "allow"),
        ((calico("v3.32.0"), CNP), "deny"),
        ((calico("patched"), CNP), "unknown"),
        ((calico("patched"), TIER, CNP), "deny"),
        ((daemon_set("antrea/antrea-agent-ubuntu:v2.2.0", "antrea-agent"), ANP), "unknown"),
        ((*antrea("featureGates:\n#  AdminNetworkPolicy: true\n"), ANP), "allow"),
        ((*antrea("featureGates:\n  AdminNetworkPolicy: true\n"), ANP), "deny"),
        ((*antrea("featureGates:\n  AdminNetworkPolicy: true\n"), CNP), "allow"),
        ((knp("v0.8.0", "/bin/netpol"), ANP), "allow"),
        ((knp("v0.8.0", "/bin/netpol", "--admin-network-policy=true"), ANP), "deny"),
        ((knp("v0.8.0", "/bin/netpol", "-admin-network-policy=true"), BANP), "allow"),
        ((knp("v1.1.1"), CNP), "allow"),
        ((knp("v1.1.1-npa-v1alpha2"), CNP), "deny"),
        ((daemon_set("docker.io/kindest/kindnetd:v20250214-acbabc1a"), ANP), "allow"),
        ((daemon_set("ghcr.io/ovn-kubernetes/ovn-kube-ubuntu:v1.1"), CNP), "unknown"),
        ((daemon_set("docker.io/kubeovn/kube-ovn:v1.14"), ANP), "unknown"),
    ],
)
def test_an_enforcer_reads_the_administrators_kinds_in_some_versions_only(
    objects: tuple[Raw, ...], expected: str
) -> None:
    e = engine(*PODS, *objects)
    answer = ask(e, "web/chat", "ai/llama")
    assert answer.verdict.value == expected
    if expected == "allow":
        assert [d.trait for d in e.deviations(answer, Direction.INGRESS)] == [Trait.UNREAD]


def test_a_baseline_policy_of_another_name_than_default_is_refused() -> None:
    e = engine(*PODS, admin("BaselineAdminNetworkPolicy", "base", **SUBJECT, ingress=FROM_ALL))
    assert ask(e, "web/chat", "ai/llama").verdict.value == "unknown"
    assert [(one.field, one.refused_by) for one in e.unevaluated] == [("metadata.name", RefusedBy.API)]
