"""The real kube-proxy's rules: every evaluation agrees with what real packets do, and every chain name is computed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject, without_nulls
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.proxy import (
    Ruleset,
    RulesetVerdict,
    attribute_nat,
    compare,
    evaluate,
    names,
    parse_ruleset,
    service_rules,
)
from tests.cluster.harness.binaries import RELEASES
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.kubeproxy import KubeProxy, endpoint_slice
from tests.cluster.harness.services import KUBELET, install_services
from tests.proxy_services import (
    NAMESPACE,
    NODE,
    SERVICES,
    all_flows,
    disagreement,
    endpoints,
    from_another_node,
    packet_of,
    sent,
    write_dump,
)
from tests.proxy_traffic import Traffic, inside

pytestmark = pytest.mark.cluster


class Node:
    """The node with kube-proxy, its Services as the API has them, and traffic around it."""

    def __init__(self, plane: ControlPlane, proxy: KubeProxy) -> None:
        self.plane, self.proxy = plane, proxy
        listed = plane.api().get(f"/api/v1/namespaces/{NAMESPACE}/services")["items"]
        self.services = {s["metadata"]["name"]: s for s in listed}
        self.traffic = Traffic(proxy.netns.name, endpoints())

    def dumps(self) -> list[RulesetDump]:
        return list(read_rulesets(NODE, str(self.proxy.netns.path)))

    def ruleset(self) -> Ruleset:
        return parse_ruleset(self.dumps(), node_ips=self.traffic.node_ips())

    def snapshot(self) -> ClusterSnapshot:
        api = self.plane.api()
        objects = []
        for path, version, kind in (
            ("/api/v1/services", "v1", "Service"),
            ("/apis/discovery.k8s.io/v1/endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
            ("/api/v1/nodes", "v1", "Node"),
        ):
            for item in api.get(path)["items"]:
                objects.append(KubeObject(without_nulls({**item, "apiVersion": version, "kind": kind})))
        return ClusterSnapshot(tuple(objects))


# In nftables mode endpoint chains up to 1.35, a map of endpoints since 1.36, a plain dnat where there is one since 1.37.
PROXIES = [(mode, release) for mode in ("iptables", "nftables") for release in RELEASES]


@pytest.fixture(scope="module")
def services(control_plane: ControlPlane) -> Iterator[None]:
    api = control_plane.api()
    install_services(api)
    yield
    api.delete(f"/api/v1/namespaces/{NAMESPACE}")


@pytest.fixture(scope="module", params=PROXIES, ids=" ".join)
def node(request: pytest.FixtureRequest, control_plane: ControlPlane, services: None) -> Iterator[Node]:
    mode, release = request.param
    with KubeProxy(control_plane, NODE, {"mode": mode}, release) as proxy:
        proxy.wait_for_rules("dual-node-port:http" if mode == "iptables" else "dual-node-port/tcp/http")
        empty = f"{NAMESPACE}/dual-empty:http"
        proxy.wait_for_rules(f"{empty} has no endpoints" if mode == "iptables" else empty, ipv6=True)
        inside(proxy.netns.name, "iptables-restore", "--noflush", stdin=KUBELET)
        found = Node(control_plane, proxy)
        try:
            yield found
        finally:
            found.traffic.stop()


def test_every_evaluation_agrees_with_real_packets(node: Node) -> None:
    ruleset = node.ruleset()
    flows = [f for f in all_flows(node.services, node.proxy.ip, node.proxy.ip6) if not from_another_node(f)]
    said = [evaluate(ruleset, packet_of(flow)) for flow in flows]
    came = sent(node.traffic, flows, said)
    wrong = []
    for flow, evaluation, result in zip(flows, said, came, strict=True):
        problem = disagreement(flow, evaluation, result)
        if problem:
            wrong.append(f"{flow}: {result['end']}, {problem}")
    if folder := os.environ.get("GENAINET_WRITE_DUMPS"):
        files = {"iptables-nft": "iptables.txt", "ip6tables-nft": "ip6tables.txt", "nft": "nft.json"}
        texts = {files[dump.source]: dump.text for dump in node.dumps() if dump.source in files}
        stem = f"kube-proxy-{node.proxy.release}-{node.proxy.mode}"
        write_dump(Path(folder), stem, texts, node.traffic.node_ips(), flows, came)
    assert wrong == []
    ends = {result["end"] for result in came}
    verdicts = {evaluation.verdict for evaluation in said}
    assert ends >= {"answer", "refused", "timeout"}
    assert verdicts >= {RulesetVerdict.DNAT, RulesetVerdict.REJECT, RulesetVerdict.DROP}
    assert len(flows) > 200


def test_every_backend_that_is_said_is_reached_in_time(node: Node) -> None:
    ruleset = node.ruleset()
    cluster_ip = node.services["cluster-three"]["spec"]["clusterIP"]
    flow = {"from": "client", "src": "192.0.2.11", "dst": cluster_ip, "dport": 80, "protocol": "TCP"}
    said = evaluate(ruleset, packet_of(flow))
    came = node.traffic.send([flow] * 60)
    assert {r.get("backend") for r in came} == {b.address for b in said.backends}
    assert [round(b.probability or 0, 3) for b in said.backends] == [0.333, 0.333, 0.333]


def iptables_chains(name: str, spec: dict[str, Any], suffixes: list[int], balancer: list[str]) -> Iterator[str]:
    """The chains of a Service since 1.24: KUBE-EXT- for what comes from outside, KUBE-SVL- for endpoints of the node."""
    for port in spec["ports"]:
        protocol = port.get("protocol", "TCP")
        service_port = names.service_port_name(NAMESPACE, name, port.get("name", ""))
        outside = spec.get("type") in ("NodePort", "LoadBalancer") or "externalIPs" in spec
        local = spec.get("externalTrafficPolicy") == "Local"
        yield names.iptables_service_chain(service_port, protocol)
        if outside:
            yield names.iptables_service_chain(service_port, protocol, "KUBE-EXT-")
        if local and any(suffix < 100 for suffix in suffixes):
            yield names.iptables_service_chain(service_port, protocol, "KUBE-SVL-")
        if balancer and "loadBalancerSourceRanges" in spec:
            yield names.iptables_service_chain(service_port, protocol, "KUBE-FW-")
        for suffix in suffixes:
            yield names.iptables_endpoint_chain(service_port, protocol, f"10.244.1.{suffix}:{port['targetPort']}")


def nftables_chains(name: str, spec: dict[str, Any], suffixes: list[int], balancer: list[str]) -> Iterator[str]:
    for port in spec["ports"]:
        yield names.nftables_service_chain(NAMESPACE, name, port.get("name", ""), port.get("protocol", "TCP"))


def test_chain_names_are_those_that_kube_proxy_writes(node: Node) -> None:
    rules = node.proxy.rules()
    with_endpoints = [s for s in SERVICES if s[2] and s[1].get("clusterIP") != "None"]
    if node.proxy.mode == "nftables":
        written = set(re.findall(r"^\tchain (service-\S+)", rules, re.M))
        computed = {chain for service in with_endpoints for chain in nftables_chains(*service)}
    else:
        written = set(re.findall(r"^:(KUBE-(?:SVC|SVL|EXT|SEP|FW)-\S+)", rules, re.M))
        computed = {chain for service in with_endpoints for chain in iptables_chains(*service)}
    assert computed - written == set()
    others = [
        c for c in written - computed if re.search(rf"(-A {re.escape(c)} .*{NAMESPACE}|^service-\S+{NAMESPACE})", rules)
    ]
    assert others == []


def test_an_observed_translation_leads_to_its_chains(node: Node) -> None:
    ruleset = node.ruleset()
    service = node.services["two-ports"]
    dst = service["spec"]["clusterIP"]
    flow = {"from": "client", "src": "192.0.2.10", "dst": dst, "dport": 9090, "protocol": "TCP"}
    backend = node.traffic.send([flow])[0]["backend"]
    before = FiveTuple("192.0.2.10", 40000, dst, 9090, Protocol.TCP)
    ip, port = backend.split(":")
    after = FiveTuple("192.0.2.10", 40000, ip, int(port), Protocol.TCP)
    found = attribute_nat(ruleset, before, after)
    assert found is not None
    service_port = f"{NAMESPACE}/two-ports:metrics"
    assert (found.mode, found.service) == (node.proxy.mode, service_port)
    if node.proxy.mode == "iptables":
        assert found.service_chain == names.iptables_service_chain(service_port, "TCP")
        assert found.endpoint_chain == names.iptables_endpoint_chain(service_port, "TCP", backend)
    else:
        assert found.service_chain == names.nftables_service_chain(NAMESPACE, "two-ports", "metrics", "TCP")
    reply = attribute_nat(ruleset, after.reversed, before.reversed)
    assert reply is not None
    assert reply.endpoint_chain == found.endpoint_chain
    nowhere = FiveTuple("192.0.2.10", 40000, "10.244.1.99", int(port), Protocol.TCP)
    assert attribute_nat(ruleset, before, nowhere) is None


def test_rules_in_step_give_no_findings_and_a_frozen_proxy_does(node: Node) -> None:
    snapshot = node.snapshot()
    ours = [s for s in snapshot.services if s.metadata.namespace == NAMESPACE]
    assert compare(snapshot, {NODE: node.ruleset()}, services=ours) == []
    rules = {r.service: r for r in service_rules(node.ruleset())}
    assert {b.address for b in rules[f"{NAMESPACE}/cluster-three:http"].backends} == {
        "10.244.1.11:8080",
        "10.244.1.12:8080",
        "10.244.1.113:8080",
    }
    old = node.ruleset()
    api = node.plane.api()
    try:
        port = {"name": "http", "port": 8080, "protocol": "TCP"}
        api.apply([endpoint_slice("cluster-one", ["10.244.1.77"], [port], namespace=NAMESPACE, node=NODE, suffix="01")])
        api.delete(f"/api/v1/namespaces/{NAMESPACE}/services/udp")
        found = {f.check: f for f in compare(node.snapshot(), {NODE: old})}
        assert "10.244.1.10:8080" in found["stale-endpoint-rules"].title
        assert "10.244.1.77:8080" in found["missing-endpoint-rules"].title
        assert f"{NAMESPACE}/udp:dns" in found["rules-without-service"].title
        node.proxy.wait_for_rules("10.244.1.77")  # a port follows in another form in each version
        now = compare(node.snapshot(), {NODE: node.ruleset()}, services=ours[:1])
        assert now == []
    finally:
        install_services(api, {"cluster-one", "udp"})
