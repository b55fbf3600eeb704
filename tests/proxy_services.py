"""Services of every kind, the flows that try all their addresses, and what an evaluation must say of what came."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Evaluation, Packet, RulesetVerdict
from tests.proxy_traffic import CALLER, CALLER6, Traffic

NAMESPACE = "proxy-rules"
NODE = "proxy-rules-node"


def _port(name: str, port: int, target: int, protocol: str = "TCP", node_port: int = 0) -> dict[str, Any]:
    service_port = {"name": name, "port": port, "targetPort": target, "protocol": protocol}
    return {**service_port, "nodePort": node_port} if node_port else service_port


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
        [27, 128],
        [],
    ),
    (
        "node-port-local-none",
        {"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [_port("http", 80, 8080, node_port=30083)]},
        [129],
        [],
    ),
    ("external", {"ports": [LLAMA], "externalIPs": ["203.0.113.10"]}, [30, 31], []),
    ("external-empty", {"ports": [LLAMA], "externalIPs": ["203.0.113.11"]}, [], []),
    (
        "balancer",
        {"type": "LoadBalancer", "ports": [_port("http", 80, 8080, "TCP", 30084)]},
        [32, 133],
        ["203.0.113.20"],
    ),
    (
        "balancer-ranges",
        {
            "type": "LoadBalancer",
            "loadBalancerSourceRanges": ["192.0.2.10/32", "10.244.0.0/16"],
            "ports": [_port("http", 80, 8080, node_port=30085)],
        },
        [34],
        ["203.0.113.21"],
    ),
    (
        "balancer-local",
        {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [_port("http", 80, 8080, node_port=30086)]},
        [35, 136],
        ["203.0.113.22"],
    ),
    (
        "balancer-local-none",
        {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [_port("http", 80, 8080, node_port=30087)]},
        [137],
        ["203.0.113.23"],
    ),
    (
        "balancer-empty",
        {"type": "LoadBalancer", "ports": [_port("http", 80, 8080, "TCP", 30088)]},
        [],
        ["203.0.113.24"],
    ),
    (
        "balancer-affinity",
        {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP",
            "ports": [_port("http", 80, 8080, node_port=30089)],
        },
        [38, 39],
        ["203.0.113.25"],
    ),
    ("dual", {"ipFamilyPolicy": "RequireDualStack", "ports": [LLAMA]}, [40, 41], []),
    (
        "dual-node-port",
        {"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "ports": [_port("http", 80, 8080, node_port=30090)]},
        [42],
        [],
    ),
    ("dual-empty", {"ipFamilyPolicy": "RequireDualStack", "ports": [LLAMA]}, [], []),
]


def endpoint_slices(name: str, spec: dict[str, Any], suffixes: list[int]) -> Iterator[dict[str, Any]]:
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
                yield {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "name": f"{name}-{number}{on_node:d}",
                        "namespace": NAMESPACE,
                        "labels": {"kubernetes.io/service-name": name},
                    },
                    "addressType": "IPv6" if ":" in ips[0] else "IPv4",
                    "ports": ports,
                    "endpoints": [{"addresses": [ip], "conditions": {"ready": True}, "nodeName": node} for ip in ips],
                }


def endpoints() -> list[tuple[str, int, str]]:
    """(ip, port, protocol) of all endpoints."""
    return [
        (address, port["port"], port["protocol"])
        for name, spec, suffixes, _ in SERVICES
        for item in endpoint_slices(name, spec, suffixes)
        for endpoint in item["endpoints"]
        for address in endpoint["addresses"]
        for port in item["ports"]
    ]


def all_flows(services: Mapping[str, dict[str, Any]], node_ip: str, node_ip6: str) -> list[dict[str, Any]]:
    """Every address of every Service, from outside, from a pod, from an endpoint of its own and from the node."""
    flows = []
    for name, spec, suffixes, balancer in SERVICES:
        service = services[name]
        ips = [ip for ip in service["spec"].get("clusterIPs", []) if ip != "None"]
        targets = [(ip, p["port"], p["protocol"]) for ip in ips for p in service["spec"]["ports"]]
        others = [*spec.get("externalIPs", []), *balancer]
        targets += [(ip, p["port"], p["protocol"]) for ip in others for p in service["spec"]["ports"]]
        for port in service["spec"]["ports"]:
            if port.get("nodePort"):
                node_ips = [node_ip, "192.0.2.1"] + ([node_ip6] if len(ips) > 1 else [])
                targets += [(ip, port["nodePort"], port["protocol"]) for ip in node_ips]
        if ips:
            targets.append((ips[0], 7, "TCP"))  # a port that the Service does not have
        for dst, dport, protocol in targets:
            v6 = ":" in dst
            sources = [("client", ip) for ip in (["2001:db8::10"] if v6 else ["192.0.2.10", "192.0.2.11"])]
            sources.append(("node", node_ip6 if v6 else node_ip))
            sources.append(("client", CALLER6 if v6 else CALLER))
            if len(suffixes) == 1:
                sources.append(("pods", ("fd44::{}" if v6 else "10.244.1.{}").format(suffixes[0])))
            for origin, src in dict.fromkeys(sources):
                flows.append({"from": origin, "src": src, "dst": dst, "dport": dport, "protocol": protocol, "of": name})
    return flows


def from_another_node(flow: dict[str, Any]) -> bool:
    """Endpoints from .100 on are pods of another node: their way to themselves does not lead over this one."""
    return flow["from"] == "pods" and ":" not in flow["src"] and int(flow["src"].rpartition(".")[2]) >= 100


def packet_of(flow: dict[str, Any]) -> Packet:
    return Packet(
        src=flow["src"], dst=flow["dst"], dport=flow["dport"], protocol=Protocol(flow["protocol"]), bridged=False
    )


def disagreement(flow: dict[str, Any], said: Evaluation, came: dict[str, Any]) -> str:
    """What is wrong with the evaluation, by what the real packet did; empty if nothing."""
    if said.verdict is RulesetVerdict.UNKNOWN:
        return f"unknown: {said.unknown}"
    if came["end"] == "answer":
        backends = {b.address: b for b in said.backends}
        if came["backend"] not in backends:
            return f"said {said.verdict.value} {sorted(backends)}"
        masqueraded = came["seen_as"] != flow["src"]
        if backends[came["backend"]].masquerade is not masqueraded:
            return f"said masquerade {backends[came['backend']].masquerade}"
        return ""
    if said.verdict is RulesetVerdict.DNAT:
        return f"said DNAT to {[b.address for b in said.backends]}"
    if came["end"] == "forbidden":
        return "" if said.verdict in (RulesetVerdict.REJECT, RulesetVerdict.DROP) else f"said {said.verdict.value}"
    # No answer. A REJECT comes back as "refused"; SCTP's raw socket is not told of it.
    if said.verdict is RulesetVerdict.REJECT and came["end"] != "refused" and flow["protocol"] != "SCTP":
        return "said REJECT"
    if said.verdict is RulesetVerdict.DROP and came["end"] != "timeout":
        return "said DROP"
    return ""


def sent(traffic: Traffic, flows: Sequence[dict[str, Any]], said: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """What came of the flows. One that timed out against what is said of it is sent once more: on a busy machine an answer may be
    late, and a packet that a rule drops is dropped again."""
    came = traffic.send(flows)
    late = [
        number
        for number, (flow, evaluation) in enumerate(zip(flows, said, strict=True))
        if came[number]["end"] == "timeout" and disagreement(flow, evaluation, came[number])
    ]
    for number, result in zip(late, traffic.send([flows[number] for number in late]), strict=True):
        came[number] = result
    return came


def write_dump(
    folder: Path,
    stem: str,
    texts: Mapping[str, str],
    node_ips: Sequence[str],
    flows: Sequence[dict[str, Any]],
    came: Sequence[dict[str, Any]],
) -> None:
    """The rules and what the packets did, for tests/unit/proxy/test_proxy_dumps.py."""
    for end, text in texts.items():
        (folder / f"{stem}.{end}").write_text(text)
    seen = [{**flow, "came": result} for flow, result in zip(flows, came, strict=True)]
    lines = ",\n ".join(json.dumps(entry) for entry in seen)
    (folder / f"{stem}.flows.json").write_text(
        f'{{"node_ips": {json.dumps(list(node_ips))},\n"flows": [\n {lines}\n]}}\n'
    )
