"""The API server is known by its Service, its Endpoints or its EndpointSlice, whichever of them was read."""

from __future__ import annotations

import pytest

from kubectl_genainet.policy import Explanation, PolicyEngine, patch
from kubectl_genainet.policy.enforcers import EnforcerName, named_enforcer
from kubectl_genainet.policy.flows.arrival import explain_arriving
from kubectl_genainet.policy.flows.targets import flows_between
from kubectl_genainet.run.policies.explain import end_of
from tests.unit.policy.policy_cluster import Raw, namespace, netpol, node, pod, snapshot

META = {"name": "kubernetes", "namespace": "default"}
HTTPS = {"name": "https", "protocol": "TCP"}
SERVICE: Raw = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": META,
    "spec": {
        "clusterIP": "10.96.0.1",
        "clusterIPs": ["10.96.0.1"],
        "ports": [{**HTTPS, "port": 443, "targetPort": 6443}],
    },
}
ENDPOINTS: Raw = {
    "apiVersion": "v1",
    "kind": "Endpoints",
    "metadata": META,
    "subsets": [{"addresses": [{"ip": "192.168.0.10"}], "ports": [{**HTTPS, "port": 6443}]}],
}
SLICE: Raw = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {**META, "labels": {"kubernetes.io/service-name": "kubernetes"}},
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["192.168.0.10"]}],
    "ports": [{**HTTPS, "port": 6443}],
}
KNOWN = {
    "Endpoints": [ENDPOINTS],
    "EndpointSlice": [SLICE],
    "Service": [SERVICE],
    "Service and Endpoints": [SERVICE, ENDPOINTS],
    "all": [SERVICE, ENDPOINTS, SLICE],
}
PODS = (namespace("ai"), node("cp", "192.168.0.10"), node("n1", "192.168.0.11"), pod("ai/rag", "10.0.0.3", node="n1"))


def cilium(*egress: Raw) -> Raw:
    metadata = {"name": "out", "namespace": "ai"}
    spec = {"endpointSelector": {}, "egress": list(egress) or [{}]}
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}


def judged(enforcer: str, target: str, *objects: Raw) -> tuple[PolicyEngine, Explanation]:
    read = snapshot(*PODS, *objects)
    (sent,) = flows_between(read, end_of("pod/rag"), end_of(target), namespace="ai", protocol="")
    engine = PolicyEngine(read, named_enforcer(enforcer))
    return engine, explain_arriving(engine, sent.flow, sent.service, sent.entry)


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("target", ["kubernetes.default.svc:443", "192.168.0.10:6443"])
def test_the_entity_is_understood_and_proposed(known: str, target: str) -> None:
    if known == "Service" and target.startswith("192"):
        return  # nothing says that this is an API server: below
    entity = {"toEntities": ["kube-apiserver"], "toPorts": [{"ports": [{"port": "6443", "protocol": "TCP"}]}]}
    _, admitted = judged("cilium", target, *KNOWN[known], cilium(entity))
    assert admitted.verdict.value == "allow"
    engine, denied = judged("cilium", target, *KNOWN[known], cilium())
    assert denied.verdict.value == "deny"
    answer = patch(engine, denied.flow)
    assert answer is not None and answer.edit is not None and answer.new is not None
    for option in (answer.edit, answer.new):
        assert option.changes[0].object["spec"]["egress"][-1] == entity
        after = engine.with_changes(snapshot(option.changes[0].object).objects)
        assert after is not None and after.engine.explain(denied.flow).verdict.value == "allow"


def test_an_address_that_may_be_the_api_servers_is_unknown() -> None:
    _, answer = judged("cilium", "192.168.0.10:6443", SERVICE, cilium({"toEntities": ["kube-apiserver"]}))
    assert answer.verdict.value == "unknown"


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ({"toEntities": ["remote-node"]}, "unknown"),
        ({"toEntities": ["world"]}, "unknown"),
        ({"toEntities": ["all"]}, "allow"),
        ({"toEntities": ["host"]}, "deny"),
        ({"toCIDR": ["10.96.0.1/32"]}, "unknown"),
        ({"toEndpoints": [{}]}, "deny"),
    ],
)
def test_an_api_server_at_an_unread_address_may_be_a_node_or_outside(rule: Raw, verdict: str) -> None:
    _, answer = judged("cilium", "kubernetes.default.svc:443", SERVICE, cilium(rule))
    assert (answer.verdict.value, answer.flow.port) == (verdict, 6443)


def test_without_cilium_a_block_for_the_service_address_says_nothing_of_the_api_server() -> None:
    block = netpol("ai/out", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "10.96.0.1/32"}}]}])
    _, answer = judged("unknown", "kubernetes.default.svc:443", SERVICE, block)
    assert answer.verdict.value == "unknown"
    closed = netpol("ai/out", policyTypes=["Egress"])
    assert judged("unknown", "kubernetes.default.svc:443", SERVICE, closed)[1].verdict.value == "deny"


@pytest.mark.parametrize("enforcer", EnforcerName)
def test_a_closed_pod_reaches_no_api_server_whoever_enforces(enforcer: EnforcerName) -> None:
    closed = netpol("ai/out", policyTypes=["Egress"])
    _, answer = judged(enforcer.value, "kubernetes.default.svc:443", SERVICE, closed)
    inert = enforcer is EnforcerName.NONE
    unowned = enforcer is EnforcerName.VPC_CNI  # it may not reach pods without an owner
    assert answer.verdict.value == ("allow" if inert else "unknown" if unowned else "deny")
