"""A cluster of two nodes in a few objects, and the records that agents would send of packets in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kubectl_genainet.context.targets import resolve
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import (
    Event,
    Hello,
    PacketDropped,
    PacketSeen,
    Point,
    Progress,
    TcpFlags,
    Tick,
)
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import Device, NetNs, NodeReport
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.trace.paths import PathCorrelator
from kubectl_genainet.wire import PROTOCOL

SECOND = 1_000_000_000
CLIENT, SERVICE, BACKEND = "10.244.1.2", "10.96.0.10", "10.244.2.3"
CLIENT6, SERVICE6, BACKEND6 = "fd00:10:244:1::2", "fd00:10:96::a", "fd00:10:244:2::3"
NODES = {"node-1": "172.18.0.2", "node-2": "172.18.0.3"}
SYN, SYN_ACK, ACK, FIN, RST = 2, 18, 16, 17, 20
HOST = {"node-1": 11, "node-2": 21}
POD = {"node-1": 12, "node-2": 22}


def obj(kind: str, name: str, api: str = "v1", namespace: str = "default", **rest: Any) -> KubeObject:
    metadata = {"name": name, "uid": f"uid-{name}", "labels": rest.pop("labels", {})}
    if kind != "Node":
        metadata["namespace"] = namespace
    return KubeObject({"apiVersion": api, "kind": kind, "metadata": metadata, **rest})


def pod(name: str, node: str, *ips: str) -> KubeObject:
    status = {"phase": "Running", "podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}
    return obj("Pod", name, labels={"app": name}, spec={"nodeName": node, "containers": []}, status=status)


def slice_of(name: str, *ips: str) -> KubeObject:
    endpoints = [{"addresses": [ip], "conditions": {"ready": True}, "nodeName": "node-2"} for ip in ips]
    return obj(
        "EndpointSlice",
        name,
        "discovery.k8s.io/v1",
        labels={"kubernetes.io/service-name": "llm"},
        addressType="IPv6" if ":" in ips[0] else "IPv4",
        endpoints=endpoints,
        ports=[{"name": "http", "port": 8080, "protocol": "TCP"}],
    )


SNAPSHOT = ClusterSnapshot(
    (
        *(obj("Node", n, status={"addresses": [{"type": "InternalIP", "address": ip}]}) for n, ip in NODES.items()),
        pod("chat", "node-1", CLIENT, CLIENT6),
        pod("llm-0", "node-2", BACKEND, BACKEND6),
        obj(
            "Service",
            "llm",
            spec={
                "clusterIP": SERVICE,
                "clusterIPs": [SERVICE, SERVICE6],
                "selector": {"app": "llm-0"},
                "type": "ClusterIP",
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            },
        ),
        slice_of("llm-4", BACKEND),
        slice_of("llm-6", BACKEND6),
    )
)


@dataclass
class World:
    """The cluster's nodes with clocks of their own: `skew` is what a node's monotonic clock is ahead of the true time."""

    skew: dict[str, int] = field(default_factory=dict)
    boot: dict[str, str] = field(default_factory=dict)
    attached: dict[str, int] = field(default_factory=dict)  # true time
    family: int = 4

    def __post_init__(self) -> None:
        servers = resolve(parse_target("svc/llm"), SNAPSHOT, "default").servers
        self.correlator = PathCorrelator(SNAPSHOT, set(servers))

    def at(self, node: str, t: int) -> int:
        """A true time on the node's clock."""
        return t + self.skew.get(node, 0)

    def begin(self) -> list[Event]:
        """What each agent says first."""
        events: list[Event] = []
        for node in NODES:
            begun = self.attached.get(node, 0)
            events += [
                Hello(
                    node=node,
                    protocol=PROTOCOL,
                    version="0",
                    kernel="6",
                    boot_id=self.boot.get(node, "one"),
                    t_ns=self.at(node, 0),
                    realtime_ns=SECOND * 10**9,
                    tier="tracepoint",
                ),
                NodeReport(node=node, t_ns=self.at(node, 0), namespaces=self.namespaces(node)),
                Progress(node=node, stage="attached", t_ns=self.at(node, begun)),
            ]
        return events

    @staticmethod
    def namespaces(node: str) -> tuple[NetNs, ...]:
        ips = (CLIENT, CLIENT6) if node == "node-1" else (BACKEND, BACKEND6)
        return (
            NetNs(
                inode=HOST[node],
                host=True,
                devices=(Device(name="eth0", ifindex=2, mtu=1500, addresses=(NODES[node],)),),
            ),
            NetNs(inode=POD[node], host=False, devices=(Device(name="eth0", ifindex=2, mtu=1500, addresses=ips),)),
        )

    def ends(self, port: int) -> tuple[FiveTuple, FiveTuple]:
        """The tuple before and after the translation."""
        client, service, backend = (CLIENT, SERVICE, BACKEND) if self.family == 4 else (CLIENT6, SERVICE6, BACKEND6)
        before = FiveTuple(client, port, service, 80, Protocol.TCP)
        return before, FiveTuple(client, port, backend, 8080, Protocol.TCP)

    def seen(
        self, node: str, space: int, device: str, point: Point, flow: FiveTuple, t: int, flags: int, **rest: Any
    ) -> PacketSeen:
        values = {"seq": 1000, "ack": 0, "payload": 0, "ip_id": 7 if self.family == 4 else 0, "skb": 1} | rest
        tcp = TcpFlags(values.pop("seq"), values.pop("ack"), flags)
        return PacketSeen(
            node=node,
            t_ns=self.at(node, t),
            netns=space,
            ifindex={"eth0": 2, "veth": 3}[device],
            device=device,
            point=point,
            flow=flow,
            length=60 + values["payload"],
            tcp=tcp,
            **values,
        )

    def request(self, port: int, t: int, flags: int = SYN, **rest: Any) -> list[PacketSeen]:
        """A packet of the client at all six places, 10 µs apart."""
        before, after = self.ends(port)
        places = [
            ("node-1", POD["node-1"], "eth0", Point.TX, before),
            ("node-1", HOST["node-1"], "veth", Point.RX, before),
            ("node-1", HOST["node-1"], "eth0", Point.TX, after),
            ("node-2", HOST["node-2"], "eth0", Point.RX, after),
            ("node-2", HOST["node-2"], "veth", Point.TX, after),
            ("node-2", POD["node-2"], "eth0", Point.RX, after),
        ]
        return [self.seen(*place, t + 10_000 * i, flags, **rest) for i, place in enumerate(places)]

    def reply(self, port: int, t: int, flags: int = SYN_ACK, **rest: Any) -> list[PacketSeen]:
        """A packet of the backend at all six places, 10 µs apart."""
        before, after = (flow.reversed for flow in self.ends(port))
        places = [
            ("node-2", POD["node-2"], "eth0", Point.TX, after),
            ("node-2", HOST["node-2"], "veth", Point.RX, after),
            ("node-2", HOST["node-2"], "eth0", Point.TX, after),
            ("node-1", HOST["node-1"], "eth0", Point.RX, after),
            ("node-1", HOST["node-1"], "veth", Point.TX, before),
            ("node-1", POD["node-1"], "eth0", Point.RX, before),
        ]
        values = {"seq": 9000, "ack": 1001} | rest
        return [self.seen(*place, t + 10_000 * i, flags, **values) for i, place in enumerate(places)]

    def dropped(self, seen: PacketSeen, reason: str, hook: str = "", location: str = "f") -> PacketDropped:
        """The end of a packet where it was last seen."""
        return PacketDropped(
            node=seen.node,
            t_ns=seen.t_ns + 1000,
            netns=seen.netns,
            ifindex=seen.ifindex,
            device=seen.device,
            skb=seen.skb,
            flow=seen.flow,
            length=seen.length,
            payload=seen.payload,
            ip_id=seen.ip_id,
            tcp=seen.tcp,
            reason=reason,
            hook=hook,
            location=location,
        )

    def handshake(self, port: int, t: int, **rest: Any) -> list[PacketSeen]:
        return [*self.request(port, t, **rest), *self.reply(port, t + 100_000)]

    def ticks(self, t: int, *nodes: str) -> list[Tick]:
        return [Tick(node=node, t_ns=self.at(node, t)) for node in nodes or NODES]

    def feed(self, events: Iterable[Event]) -> list[PacketPath]:
        return [path for event in events for path in self.correlator.feed(event)]

    def finish(self) -> list[PacketPath]:
        return list(self.correlator.finish())

    def tell(self, *batches: Iterable[Event]) -> list[PacketPath]:
        """All paths of a trace that saw these records and ended ten seconds later."""
        events = [event for batch in batches for event in batch]
        latest = max((e.t_ns - self.skew.get(e.node, 0) for e in events if isinstance(e, PacketSeen)), default=0)
        return self.feed([*self.begin(), *events, *self.ticks(latest + 10 * SECOND)]) + self.finish()


def hop_names(path: PacketPath) -> list[tuple[str, str, str]]:
    return [(h.node, h.device, h.point) for h in path.hops]


def whole_way() -> list[tuple[str, str, str]]:
    return [
        ("node-1", "eth0", "tx"),
        ("node-1", "veth", "rx"),
        ("node-1", "eth0", "tx"),
        ("node-2", "eth0", "rx"),
        ("node-2", "veth", "tx"),
        ("node-2", "eth0", "rx"),
    ]


def shuffled_by_node(events: Iterable[PacketSeen]) -> Iterator[PacketSeen]:
    """As two streams may arrive: all of the second node's before the first's."""
    listed = list(events)
    yield from (e for e in listed if e.node == "node-2")
    yield from (e for e in listed if e.node == "node-1")
