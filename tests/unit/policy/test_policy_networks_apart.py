"""Objects that are no policies and keep pods apart all the same are named, and their verdicts are UNKNOWN."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.model.cluster import LeftOut
from tests.unit.policy.policy_cluster import Raw, ask, engine, labels, namespace, pod

PODS = (
    namespace("ai", team="x"),
    namespace("web"),
    pod("ai/rag", "10.1.0.2"),
    pod("ai/llama", "10.1.0.3"),
    pod("web/chat", "10.2.0.2"),
)


def other(api_version: str, kind: str, name: str, **spec: Any) -> Raw:
    where, _, short = name.rpartition("/")
    metadata = {"name": short, **({"namespace": where} if where else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def own_network(role: str) -> Raw:
    return other("k8s.ovn.org/v1", "UserDefinedNetwork", "ai/net", topology="Layer2", layer2={"role": role})


SHARED = other(
    "k8s.ovn.org/v1",
    "ClusterUserDefinedNetwork",
    "net",
    namespaceSelector=labels(team="x"),
    network={"topology": "Layer3", "layer3": {"role": "Primary"}},
)
SUBNET = {"cidrBlock": "10.1.0.0/16"}
INTENTIONS = other("consul.hashicorp.com/v1alpha1", "ServiceIntentions", "ai/llama", destination={"name": "llama"})
TEAM_X = {"namespaces": labels(team="x")}
AWS_POLICY = other("networking.k8s.aws/v1alpha1", "ClusterNetworkPolicy", "p", subject=TEAM_X, egress=[{}])
REGISTRY_ONLY = {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}


@pytest.mark.parametrize(
    ("obj", "source", "target", "expected"),
    [
        (own_network("Primary"), "web/chat", "ai/llama", "unknown"),
        (own_network("Primary"), "ai/llama", "web/chat", "unknown"),
        (own_network("Primary"), "ai/rag", "ai/llama", "allow"),
        (own_network("Primary"), "ai/rag", "203.0.113.1", "allow"),
        (own_network("Secondary"), "web/chat", "ai/llama", "allow"),
        (SHARED, "web/chat", "ai/llama", "unknown"),
        (SHARED, "ai/rag", "ai/llama", "allow"),
        (other("kubeovn.io/v1", "Subnet", "s", **SUBNET), "web/chat", "ai/llama", "allow"),
        (other("kubeovn.io/v1", "Subnet", "s", **SUBNET, private=True), "web/chat", "ai/llama", "unknown"),
        (other("kubeovn.io/v1", "Subnet", "s", **SUBNET, private=True), "ai/rag", "ai/llama", "allow"),
        (other("kubeovn.io/v1", "Subnet", "s", **SUBNET, vpc="tenant"), "web/chat", "ai/llama", "unknown"),
        (other("kubeovn.io/v1", "Subnet", "s", **SUBNET, acls=[{"action": "drop"}]), "ai/rag", "ai/llama", "unknown"),
        (INTENTIONS, "web/chat", "ai/llama", "unknown"),
        (
            other("policy.linkerd.io/v1alpha1", "EgressNetwork", "ai/e", trafficPolicy="Deny"),
            "ai/rag",
            "203.0.113.1",
            "unknown",
        ),
        (
            other("policy.linkerd.io/v1alpha1", "EgressNetwork", "ai/e", trafficPolicy="Allow"),
            "ai/rag",
            "203.0.113.1",
            "allow",
        ),
        (other("networking.istio.io/v1", "Sidecar", "ai/default", **REGISTRY_ONLY), "ai/rag", "203.0.113.1", "unknown"),
        (other("networking.istio.io/v1", "Sidecar", "ai/default", **REGISTRY_ONLY), "ai/rag", "ai/llama", "allow"),
        (other("networking.istio.io/v1", "Sidecar", "ai/default", egress=[]), "ai/rag", "203.0.113.1", "allow"),
        (
            other("security.istio.io/v1", "AuthorizationPolicy", "ai/p", action="AUDIT", rules=[{}]),
            "ai/rag",
            "ai/llama",
            "allow",
        ),
        (other("example.org/v1", "SecurityGroup", "ai/p", podSelector={}), "ai/rag", "ai/llama", "unknown"),
        (other("example.org/v1", "ZoneNetworkPolicies", "ai/p"), "ai/rag", "ai/llama", "unknown"),
        (
            other(
                "networking.k8s.aws/v1alpha1",
                "ClusterNetworkPolicy",
                "p",
                subject={"namespaces": labels(team="x")},
                egress=[{}],
            ),
            "web/chat",
            "203.0.113.1",
            "allow",
        ),
    ],
)
def test_they_concern_the_traffic_that_they_can_stop(obj: Raw, source: str, target: str, expected: str) -> None:
    answer = ask(engine(*PODS, obj), source, target)
    assert answer.verdict.value == expected
    if expected == "unknown":
        assert any(obj["kind"] in note.policy for note in answer.not_evaluated)


@pytest.mark.parametrize("kind", ["ServiceIntentions", "FQDNNetworkPolicy", "EgressFirewall"])
def test_a_kind_that_could_not_be_read_is_not_absent(kind: str) -> None:
    e = engine(*PODS, left_out=(LeftOut(kind, "forbidden"),))
    target = "ai/llama" if kind == "ServiceIntentions" else "203.0.113.1"
    answer = ask(e, "ai/rag", target)
    assert answer.verdict.value == "unknown"
    assert "could not be read: forbidden" in answer.not_evaluated[0].reason
