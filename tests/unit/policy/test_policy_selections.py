"""What tells a policy of a kind that is not known: that it selects pods in some field, at whatever depth."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policy.policy_cluster import Raw, engine, labels, namespace, pod, unevaluated, verdict

PODS = (namespace("ai"), pod("ai/rag", "10.1.0.2"), pod("web/chat", "10.2.0.1"))


def of(version: str, kind: str, **more: Any) -> Raw:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "p", "namespace": "ai"}, **more}


def unknown_kind(**spec: Any) -> Raw:
    return of("example.org/v1", "TrafficPolicy", spec=spec)


@pytest.mark.parametrize(
    "policy",
    [
        unknown_kind(rules=[{"podSelector": labels(app="rag")}]),
        unknown_kind(rules=[{"match": {"endpoints": {"matchLabels": {"app": "rag"}}}}]),
        unknown_kind(selector=labels(app="rag")),
        unknown_kind(selector={"app": "rag"}),
        unknown_kind(selector="app == 'rag'"),
        unknown_kind(selector={}),
        unknown_kind(appliedTo=[{"podSelector": {}}]),
        unknown_kind(applyTo={"namespaceSelector": {}}),
        unknown_kind(targetRef={"kind": "Deployment", "name": "rag"}),
        unknown_kind(targetRefs=[{"kind": "Gateway", "name": "g"}, {"kind": "Service", "name": "rag"}]),
        unknown_kind(workloadSelector={"labels": {"app": "rag"}}),
        unknown_kind(ingress=[{"from": [{"podSelector": {}}]}]),
        unknown_kind(egressGateway="g", rules=[{"podSelector": {}}]),
        unknown_kind(subject={"namespaces": {}}),
        of("example.org/v1", "TrafficPolicy", specs=[{"endpointSelector": {}}]),
        of("example.org/v1", "TrafficPolicy", spec=[{"podSelector": {}}]),
        of("example.org/v1", "PodFirewall", spec={"rules": [{"targets": {"podSelector": {}}}]}),
        unknown_kind(rules=[{"a": [{"b": {"c": [{"d": {"podSelector": {}}}]}}]}]),
    ],
)
def test_a_policy_that_selects_pods_in_any_field_is_named_and_makes_the_verdict_unknown(policy: Raw) -> None:
    assert str(unevaluated(*PODS, policy).ref) == f"{policy['kind']} ai/p"
    assert verdict(engine(*PODS, policy), "web/chat", "ai/rag") == "unknown"


def test_one_that_is_too_large_to_look_through_may_select_pods() -> None:
    value: Any = {"name": "x"}
    for _ in range(40):
        value = {"rule": value}
    assert unevaluated(*PODS, unknown_kind(rules=value)).ref.kind == "TrafficPolicy"
    assert unevaluated(*PODS, unknown_kind(rules=[{"n": i} for i in range(5000)])).ref.kind == "TrafficPolicy"


@pytest.mark.parametrize(
    "policy",
    [
        # Of pods, and not of their network.
        of("policy/v1", "PodDisruptionBudget", spec={"selector": labels(app="rag")}),
        of("policy/v1beta1", "PodSecurityPolicy", spec={"privileged": False}),
        of("kyverno.io/v1", "ClusterPolicy", spec={"rules": [{"match": {"any": [{"resources": {"selector": {}}}]}}]}),
        of("policies.kyverno.io/v1", "GeneratingPolicy", spec={"namespaceSelector": {}}),
        of("policy.cert-manager.io/v1alpha1", "CertificateRequestPolicy", spec={"selector": labels(a="b")}),
        of(
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicy",
            spec={"matchConstraints": {"namespaceSelector": {}, "objectSelector": {}}},
        ),
        of("policies.kubewarden.io/v1", "AdmissionPolicy", spec={"namespaceSelector": {}}),
        of("policy.sigstore.dev/v1beta1", "ClusterImagePolicy", spec={"match": [{"selector": labels(a="b")}]}),
        of("policy.karmada.io/v1alpha1", "PropagationPolicy", spec={"resourceSelectors": [{"kind": "Pod"}]}),
        of(
            "policy.open-cluster-management.io/v1",
            "ConfigurationPolicy",
            spec={"object-templates": [{"objectDefinition": {"kind": "NetworkPolicy", "spec": {"podSelector": {}}}}]},
        ),
        # Of devices and nodes: a GPU operator waits for pods before it drains a node.
        of("nvidia.com/v1", "ClusterPolicy", spec={"driver": {"upgradePolicy": {"drain": {"podSelector": "a=b"}}}}),
        of("mellanox.com/v1alpha1", "NicClusterPolicy", spec={"ofedDriver": {"upgradePolicy": {"podSelector": "a=b"}}}),
        of("sriovnetwork.openshift.io/v1", "SriovNetworkNodePolicy", spec={"nodeSelector": {"a": "b"}}),
        # Of what a gateway does with requests.
        of("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy", spec={"targetSelectors": [labels(a="b")]}),
        of(
            "gateway.networking.k8s.io/v1",
            "BackendTLSPolicy",
            spec={"targetRefs": [{"kind": "Service", "name": "rag"}]},
        ),
        of("networking.gke.io/v1", "HealthCheckPolicy", spec={"targetRef": {"kind": "Service", "name": "rag"}}),
        of("kuadrant.io/v1", "AuthPolicy", spec={"targetRef": {"kind": "HTTPRoute", "name": "r"}}),
        of("example.org/v1", "RoutePolicy", spec={"targetRefs": [{"kind": "Gateway", "name": "g"}]}),
        of(
            "policy.linkerd.io/v1alpha1", "AuthorizationPolicy", spec={"targetRef": {"kind": "Namespace", "name": "ai"}}
        ),
        # Of nothing that is selected.
        of("example.org/v1", "BackupPolicy", spec={"schedule": "0 3 * * *", "nodeSelector": labels(a="b")}),
        of("example.org/v1", "UpgradePolicy", spec={"drain": {"podSelector": ""}}),
        of("example.org/v1", "CertPolicy", spec={"subject": "CN=x"}),
        of(
            "example.org/v1",
            "ServerPolicy",
            spec={"template": {"spec": {"affinity": {"labelSelector": labels(a="b")}}}},
        ),
        of("example.org/v1", "Workload", spec={"podSelector": {}}),
    ],
    ids=lambda policy: f"{policy['apiVersion'].partition('/')[0]} {policy['kind']}",
)
def test_policies_of_other_things_change_nothing(policy: Raw) -> None:
    e = engine(*PODS, policy)
    assert e.unevaluated == ()
    assert verdict(e, "web/chat", "ai/rag") == "allow"
