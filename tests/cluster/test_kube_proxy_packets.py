"""The real kube-proxy's rules: every evaluation agrees with what real packets do, and every chain name is computed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxy_traffic import CALLER, CALLER6, Traffic, inside

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject, without_nulls
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.proxy import (
    Evaluation,
    Packet,
    Ruleset,
    Verdict,
    attribute_nat,
    compare,
    evaluate,
    names,
    parse_ruleset,
    service_rules,
)  # fmt: skip

pytest.importorskip("harness.kubeproxy", reason="needs the control-plane harness")
from harness.controlplane import ControlPlane
from harness.kubeproxy import KubeProxy, endpoint_slice

pytestmark = pytest.mark.cluster

NAMESPACE = "proxy-rules"
NODE = "proxy-rules-node"
KUBELET = """\
*nat
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m comment --comment "dropping marked packets" -m mark --mark 0x8000/0x8000 -j DROP
COMMIT
"""  # what the kubelet of this version adds beside kube-proxy


def _port(name: str, port: int, target: int, protocol: str = "TCP", node_port: int = 0) -> dict[str, Any]:
    found = {"name": name, "port": port, "targetPort": target, "protocol": protocol}
    return {**found, "nodePort": node_port} if node_port else found


# name, spec, endpoints of IPv4 (suffix of 10.244.1.x; those from 100 on are on another node), load balancer addresses
LLAMA = _port("http", 80, 8080)
SERVICES: list[tuple[str, dict[str, Any], list[int], list[str]]] = [
    ("cluster-one", {"ports": [LLAMA]}, [10], []),
    ("cluster-three", {"ports": [LLAMA]}, [11, 12, 113], []),
    ("unnamed-port", {"ports": [{"port": 80, "targetPort": 8080}]}, [14], []),
    ("two-ports", {"ports": [_port("http", 80, 8080), _port("metrics", 9090, 9090)]}, [15, 16], []),
    ("udp", {"ports": [_port("dns", 53, 5353, "UDP")]}, [17, 18], []),
    ("tcp-and-udp", {"ports": [_port("dns", 53, 5353, "UDP"), _port("dns-tcp", 53, 5354)]}, [19], []),
    ("sctp", {"ports": [_port("sigtran", 2905, 2905, "SCTP")]}, [20], []),
    ("empty", {"ports": [LLAMA]}, [], []),
    ("empty-udp", {"ports": [_port("dns", 53, 5353, "UDP")]}, [], []),
    ("affinity", {"ports": [LLAMA], "sessionAffinity": "ClientIP"}, [21, 22], []),
    ("headless", {"ports": [LLAMA], "clusterIP": "None"}, [23], []),
    ("node-port", {"type": "NodePort", "ports": [_port("http", 80, 8080, node_port=30080)]}, [24, 125], []),
    ("node-port-udp", {"type": "NodePort", "ports": [_port("dns", 53, 5353, "UDP", 30053)]}, [26], []),
    ("node-port-empty", {"type": "NodePort", "ports": [_port("http", 80, 8080, node_port=30081)]}, [], []),
    (
        "node-port-local",
        {"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [_port("http", 80, 8080, node_port=30082)]},
        [27, 128], [],
    ),
    (
        "node-port-local-none",
        {"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [_port("http", 80, 8080, node_port=30083)]},
        [129], [],
    ),
    ("external", {"ports": [LLAMA], "externalIPs": ["203.0.113.10"]}, [30, 31], []),
    ("external-empty", {"ports": [LLAMA], "externalIPs": ["203.0.113.11"]}, [], []),
    (
        "balancer", {"type": "LoadBalancer", "ports": [_port("http", 80, 8080, "TCP", 30084)]}, [32, 133],
        ["203.0.113.20"],
    ),
    (
        "balancer-ranges",
        {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.10/32", "10.244.0.0/16"],
         "ports": [_port("http", 80, 8080, node_port=30085)]},
        [34], ["203.0.113.21"],
    ),
    (
        "balancer-local",
        {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [_port("http", 80, 8080, node_port=30086)]},
        [35, 136], ["203.0.113.22"],
    ),
    (
        "balancer-local-none",
        {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [_port("http", 80, 8080, node_port=30087)]},
        [137], ["203.0.113.23"],
    ),
    (
        "balancer-empty", {"type": "LoadBalancer", "ports": [_port("http", 80, 8080, "TCP", 30088)]}, [],
        ["203.0.113.24"],
    ),
    (
        "balancer-affinity",
        {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
         "ports": [_port("http", 80, 8080, node_port=30089)]},
        [38, 39], ["203.0.113.25"],
    ),
    ("dual", {"ipFamilyPolicy": "RequireDualStack", "ports": [LLAMA]}, [40, 41], []),
    (
        "dual-node-port",
        {"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "ports": [_port("http", 80, 8080, node_port=30090)]},
        [42], [],
    ),
    ("dual-empty", {"ipFamilyPolicy": "RequireDualStack", "ports": [LLAMA]}, [], []),
]  # fmt: skip


def _slices(name: str, spec: dict[str, Any], suffixes: list[int]) -> Iterator[dict[str, Any]]:
    families = ["10.244.1.{}"] + (["fd44::{}"] if "ipFamilyPolicy" in spec else [])
    for number, pattern in enumerate(families):
        for on_node in (True, False):
            ips = [pattern.format(s) for s in suffixes if (s < 100) == on_node]
            ports = [
                {"name": p.get("name", ""), "port": p["targetPort"], "protocol": p.get("protocol", "TCP")}
                for p in spec["ports"]
            ]
            if ips:
                node = NODE if on_node else "elsewhere"
                yield endpoint_slice(name, ips, ports, namespace=NAMESPACE, node=node, suffix=f"{number}{on_node:d}")


class Node:
    """The node with kube-proxy, its Services as the API has them, and traffic around it."""

    def __init__(self, plane: ControlPlane, proxy: KubeProxy) -> None:
        self.plane, self.proxy = plane, proxy
        listed = plane.api().get(f"/api/v1/namespaces/{NAMESPACE}/services")["items"]
        self.services = {s["metadata"]["name"]: s for s in listed}
        endpoints = []
        for name, spec, suffixes, _ in SERVICES:
            for item in _slices(name, spec, suffixes):
                endpoints += [
                    (a, p["port"], p["protocol"])
                    for e in item["endpoints"]
                    for a in e["addresses"]
                    for p in item["ports"]
                ]
        self.traffic = Traffic(proxy.netns.name, endpoints)

    def ruleset(self) -> Ruleset:
        netns = self.proxy.netns.name
        dumps = [
            RulesetDump(node=NODE, t_ns=0, source=source, text=inside(netns, command, "-c"))
            for source, command in (("iptables-nft", "iptables-save"), ("ip6tables-nft", "ip6tables-save"))
        ]
        return parse_ruleset(dumps, node_ips=self.traffic.node_ips())

    def snapshot(self) -> ClusterSnapshot:
        api = self.plane.api()
        objects = []
        for path, version, kind in (
            ("/api/v1/services", "v1", "Service"),
            ("/apis/discovery.k8s.io/v1beta1/endpointslices", "discovery.k8s.io/v1beta1", "EndpointSlice"),
            ("/api/v1/nodes", "v1", "Node"),
        ):  # fmt: skip
            for item in api.get(path)["items"]:
                objects.append(KubeObject(without_nulls({**item, "apiVersion": version, "kind": kind})))
        return ClusterSnapshot(tuple(objects))


@pytest.fixture(scope="module")
def node(control_plane: ControlPlane) -> Iterator[Node]:
    api = control_plane.api()
    api.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
    for name, spec, suffixes, balancer in SERVICES:
        metadata = {"name": name, "namespace": NAMESPACE}
        api.apply([{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}])
        if balancer:
            status = {"status": {"loadBalancer": {"ingress": [{"ip": ip} for ip in balancer]}}}
            api.patch(f"/api/v1/namespaces/{NAMESPACE}/services/{name}/status", status)
        api.apply(list(_slices(name, spec, suffixes)))
    with KubeProxy(control_plane, NODE) as proxy:
        proxy.wait_for_rules("dual-node-port:http")
        proxy.wait_for_rules(f"{NAMESPACE}/dual-empty:http has no endpoints", ipv6=True)
        inside(proxy.netns.name, "iptables-restore", "--noflush", stdin=KUBELET)
        found = Node(control_plane, proxy)
        try:
            yield found
        finally:
            found.traffic.stop()
    api.delete(f"/api/v1/namespaces/{NAMESPACE}")


def _flows(node: Node) -> list[dict[str, Any]]:
    """Every address of every Service, from outside, from a pod, from an endpoint of its own and from the node."""
    found = []
    for name, spec, suffixes, balancer in SERVICES:
        service = node.services[name]
        ips = [ip for ip in service["spec"].get("clusterIPs", []) if ip != "None"]
        targets = [(ip, p["port"], p["protocol"]) for ip in ips for p in service["spec"]["ports"]]
        others = [*spec.get("externalIPs", []), *balancer]
        targets += [(ip, p["port"], p["protocol"]) for ip in others for p in service["spec"]["ports"]]
        for port in service["spec"]["ports"]:
            if port.get("nodePort"):
                node_ips = [node.proxy.ip, "192.0.2.1"] + ([node.proxy.ip6] if len(ips) > 1 else [])
                targets += [(ip, port["nodePort"], port["protocol"]) for ip in node_ips]
        if ips:
            targets.append((ips[0], 7, "TCP"))  # a port that the Service does not have
        for dst, dport, protocol in targets:
            v6 = ":" in dst
            sources = [("client", ip) for ip in (["2001:db8::10"] if v6 else ["192.0.2.10", "192.0.2.11"])]
            sources.append(("node", node.proxy.ip6 if v6 else node.proxy.ip))
            sources.append(("client", CALLER6 if v6 else CALLER))
            if len(suffixes) == 1:
                sources.append(("pods", ("fd44::{}" if v6 else "10.244.1.{}").format(suffixes[0])))
            for origin, src in dict.fromkeys(sources):
                found.append({"from": origin, "src": src, "dst": dst, "dport": dport, "protocol": protocol, "of": name})
    return found


def _packet(flow: dict[str, Any]) -> Packet:
    return Packet(
        src=flow["src"], dst=flow["dst"], dport=flow["dport"], protocol=Protocol(flow["protocol"]), bridged=False
    )


def _disagreement(flow: dict[str, Any], said: Evaluation, came: dict[str, Any]) -> str:
    """What is wrong with the evaluation, by what the real packet did; empty if nothing."""
    if said.verdict is Verdict.UNKNOWN:
        return f"unknown: {said.unknown}"
    if came["end"] == "answer":
        backends = {b.address: b for b in said.backends}
        if came["backend"] not in backends:
            return f"said {said.verdict.value} {sorted(backends)}"
        masqueraded = came["seen_as"] != flow["src"]
        if backends[came["backend"]].masquerade is not masqueraded:
            return f"said masquerade {backends[came['backend']].masquerade}"
        return ""
    if said.verdict is Verdict.DNAT:
        return f"said DNAT to {[b.address for b in said.backends]}"
    if came["end"] == "forbidden":
        return "" if said.verdict in (Verdict.REJECT, Verdict.DROP) else f"said {said.verdict.value}"
    # No answer. A REJECT comes back as "refused"; SCTP's raw socket is not told of it.
    if said.verdict is Verdict.REJECT and came["end"] != "refused" and flow["protocol"] != "SCTP":
        return "said REJECT"
    if said.verdict is Verdict.DROP and came["end"] != "timeout":
        return "said DROP"
    return ""


def _write_dump(folder: Path, node: Node, flows: list[dict[str, Any]], came: list[dict[str, Any]]) -> None:
    """The rules and what the packets did, for tests/unit/test_proxy_dumps.py."""
    (folder / "kube-proxy-1.20.iptables.txt").write_text(node.proxy.rules())
    (folder / "kube-proxy-1.20.ip6tables.txt").write_text(node.proxy.rules(ipv6=True))
    seen = [{**flow, "came": result} for flow, result in zip(flows, came, strict=True)]
    lines = ",\n ".join(json.dumps(entry) for entry in seen)
    (folder / "kube-proxy-1.20.flows.json").write_text(
        f'{{"node_ips": {json.dumps(node.traffic.node_ips())},\n"flows": [\n {lines}\n]}}\n'
    )


def test_every_evaluation_agrees_with_real_packets(node: Node) -> None:
    ruleset = node.ruleset()
    flows = _flows(node)
    came = node.traffic.send(flows)
    wrong = []
    for flow, result in zip(flows, came, strict=True):
        problem = _disagreement(flow, evaluate(ruleset, _packet(flow)), result)
        if problem:
            wrong.append(f"{flow}: {result['end']}, {problem}")
    assert wrong == []
    if folder := os.environ.get("GENAINET_WRITE_DUMPS"):
        _write_dump(Path(folder), node, flows, came)
    ends = {result["end"] for result in came}
    verdicts = {evaluate(ruleset, _packet(flow)).verdict for flow in flows}
    assert ends >= {"answer", "refused", "timeout"}
    assert verdicts >= {Verdict.DNAT, Verdict.REJECT, Verdict.DROP}
    assert len(flows) > 200


def test_every_backend_that_is_said_is_reached_in_time(node: Node) -> None:
    ruleset = node.ruleset()
    cluster_ip = node.services["cluster-three"]["spec"]["clusterIP"]
    flow = {"from": "client", "src": "192.0.2.11", "dst": cluster_ip, "dport": 80, "protocol": "TCP"}
    said = evaluate(ruleset, _packet(flow))
    came = node.traffic.send([flow] * 60)
    assert {r.get("backend") for r in came} == {b.address for b in said.backends}
    assert [round(b.probability or 0, 3) for b in said.backends] == [0.333, 0.333, 0.333]


def test_chain_names_are_those_that_kube_proxy_writes(node: Node) -> None:
    rules = node.proxy.rules()
    written = set(re.findall(r"^:(KUBE-(?:SVC|SEP|FW|XLB)-\S+)", rules, re.M))
    computed = set()
    for name, spec, suffixes, balancer in SERVICES:
        for port in spec["ports"]:
            protocol = port.get("protocol", "TCP")
            service_port = names.service_port_name(NAMESPACE, name, port.get("name", ""))
            if not suffixes or spec.get("clusterIP") == "None":
                continue
            computed.add(names.iptables_service_chain(service_port, protocol))
            if spec.get("externalTrafficPolicy") == "Local":
                computed.add(names.iptables_service_chain(service_port, protocol, "KUBE-XLB-"))
            if balancer:
                computed.add(names.iptables_service_chain(service_port, protocol, "KUBE-FW-"))
            for suffix in suffixes:
                endpoint = f"10.244.1.{suffix}:{port['targetPort']}"
                computed.add(names.iptables_endpoint_chain(service_port, protocol, endpoint))
    assert {c for c in written if c in computed} == computed
    others = [
        c for c in written - computed if NAMESPACE in next((x for x in rules.splitlines() if f"-A {c} " in x), "")
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
    assert (found.mode, found.service) == ("iptables", service_port)
    assert found.service_chain == names.iptables_service_chain(service_port, "TCP")
    assert found.endpoint_chain == names.iptables_endpoint_chain(service_port, "TCP", backend)
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
        "10.244.1.11:8080", "10.244.1.12:8080", "10.244.1.113:8080",
    }  # fmt: skip
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
        node.proxy.wait_for_rules("10.244.1.77:8080")
        now = compare(node.snapshot(), {NODE: node.ruleset()}, services=ours[:1])
        assert now == []
    finally:
        name, spec, suffixes, _ = SERVICES[0]
        api.apply(list(_slices(name, spec, suffixes)))
