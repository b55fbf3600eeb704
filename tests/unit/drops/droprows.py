"""What the tests of rows share: a small cluster, its flows, and the rows of events in it."""

from __future__ import annotations

from typing import Any

import msgspec

from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.drops.rows import Rows
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import (
    DropCount,
    Event,
    IcmpCount,
    PacketDropped,
    TcpFlags,
)
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import Device, NetNs, NodeReport, RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.drops import DropRow
from tests.unit.died import died

UI, LLAMA, VIP, NODE = "10.244.1.2", "10.244.2.3", "10.96.0.65", "172.18.0.2"


HOST, UI_NS, LLAMA_NS = 1, 2, 3


def error_that_died(flow: FiveTuple, packets: int) -> IcmpCount:
    """What path MTU discovery needs ("fragmentation needed") about the flow, dropped by a rule."""
    return IcmpCount(
        node="node-1",
        t_ns=10,
        netns=HOST,
        flow=flow,
        packets=packets,
        family=4,
        type=3,
        code=4,
        reason="NETFILTER_DROP",
    )


def pod(name: str, ip: str, node: str, port: int = 8080) -> dict[str, Any]:
    ports = [{"containerPort": port, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "x", "ports": ports}]},
        "status": {"podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running"},
    }


def objects(*, admits: bool = True) -> list[dict[str, Any]]:
    peer = [{"podSelector": {"matchLabels": {"app": "chatbot-ui" if admits else "nobody"}}}]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}},
        pod("chatbot-ui", UI, "node-1", 3000),
        pod("my-llama", LLAMA, "node-1"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "my-llama-svc", "namespace": "default"},
            "spec": {
                "clusterIP": VIP,
                "clusterIPs": [VIP],
                "type": "ClusterIP",
                "selector": {"app": "my-llama"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {"name": "s", "namespace": "default", "labels": {"kubernetes.io/service-name": "my-llama-svc"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [LLAMA], "conditions": {"ready": True}, "nodeName": "node-1"}],
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "llama-in", "namespace": "default"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "my-llama"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": peer, "ports": [{"protocol": "TCP", "port": 8080}]}],
            },
        },
    ]


def snapshot(*, admits: bool = True) -> ClusterSnapshot:
    return ClusterSnapshot(tuple(KubeObject(o) for o in objects(admits=admits)))


def report(t_ns: int = 1, **counters: int) -> NodeReport:
    def space(inode: int, ip: str, *, host: bool = False, **more: Any) -> NetNs:
        device = Device(name="eth0", ifindex=2, mtu=1500, addresses=(ip,))
        return NetNs(inode=inode, host=host, devices=(device,), **more)

    conntrack = {k: v for k, v in counters.items() if k.startswith("conntrack_")}
    return NodeReport(
        node="node-1",
        t_ns=t_ns,
        namespaces=(
            space(HOST, NODE, host=True, counters=conntrack, conntrack_count=10, conntrack_max=100),
            space(UI_NS, UI),
            space(LLAMA_NS, LLAMA, counters={"ListenOverflows": counters["listen"]} if "listen" in counters else {}),
        ),
    )


def tcp(src: str, sport: int, dst: str, dport: int) -> FiveTuple:
    return FiveTuple(src, sport, dst, dport, Protocol.TCP)


REQUEST = tcp(UI, 40000, LLAMA, 8080)


def dropped(
    flow: FiveTuple = REQUEST,
    *,
    reason: str = "NETFILTER_DROP",
    netns: int = HOST,
    packets: int = 5,
    location: str = "nft_do_chain",
    opening: bool = True,
    answering: bool = False,
) -> DropCount:
    return DropCount(
        node="node-1",
        t_ns=10,
        netns=netns,
        flow=flow,
        packets=packets,
        reason=reason,
        location=location,
        bytes=60 * packets,
        opening=opening,
        answering=answering,
    )


def sample(flow: FiveTuple = REQUEST, *, hook: str = "FORWARD") -> PacketDropped:
    return died(flow, t_ns=9, netns=HOST, hook=hook)


def rows(*events: Event, admits: bool = True, **options: Any) -> list[DropRow]:
    correlator = DropCorrelator(snapshot(admits=admits), **options)
    for event in (report(), *events):
        correlator.feed(event)
    built = Rows(correlator)
    built.is_final = True
    return built.build()


def rules(*lines: str) -> RulesetDump:
    text = "\n".join(
        ("*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", *lines, "COMMIT", "")
    )
    return RulesetDump(node="node-1", t_ns=1, source="iptables-nft", text=text)


def sampled(reason: str, **rest: Any) -> list[Event]:
    """A count and its sample, of one packet."""
    values: dict[str, Any] = {"flow": REQUEST, "netns": HOST, "location": "f", "hook": "", "flags": 2} | rest
    tcp = None if values["flow"].protocol is not Protocol.TCP else TcpFlags(1, 0, values["flags"])
    packet = msgspec.structs.replace(
        sample(values["flow"], hook=values["hook"]),
        reason=reason,
        netns=values["netns"],
        location=values["location"],
        tcp=tcp,
    )
    count = dropped(
        values["flow"],
        reason=reason,
        netns=values["netns"],
        location=values["location"],
        opening=values["flags"] == 2,
        answering=values["flags"] == 18,
        packets=1,
    )
    return [packet, count]
