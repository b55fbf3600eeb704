"""Two nodes with a client and a DNS server, and what their probes report of a query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubectl_genainet.dns.exchanges import DnsCorrelator
from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.dns import DnsMessage, Question
from kubectl_genainet.model.events import (
    Bye,
    DnsEnd,
    DnsPlace,
    DnsTransaction,
    Event,
    Hello,
    Point,
    Tick,
)
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import Device, NetNs, NodeReport
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.model.results.exchange import DnsExchange

MS = 1_000_000


CLIENT, SERVER, SERVICE, UPSTREAM, NODE_IP = "10.244.1.5", "10.244.2.2", "10.96.0.10", "203.0.113.53", "172.18.0.3"


NS = {"client": 11, "node-1": 12, "node-2": 21, "server": 22}


def pod(name: str, ip: str, node: str, namespace: str = "default", **spec: object) -> KubeObject:
    return KubeObject(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "uid": name},
            "spec": {"nodeName": node, **spec},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        }
    )


SNAPSHOT = ClusterSnapshot(
    (
        pod("app", CLIENT, "node-1"),
        pod("dns", SERVER, "node-2", "kube-system"),
        KubeObject(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "kube-dns", "namespace": "kube-system"},
                "spec": {"clusterIP": SERVICE, "clusterIPs": [SERVICE], "ports": [{"port": 53, "protocol": "UDP"}]},
            }
        ),
        KubeObject(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "addressType": "IPv4",
                "metadata": {
                    "name": "kube-dns-1",
                    "namespace": "kube-system",
                    "labels": {"kubernetes.io/service-name": "kube-dns"},
                },
                "ports": [{"port": 53, "protocol": "UDP"}],
                "endpoints": [{"addresses": [SERVER]}],
            }
        ),
        KubeObject(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": "node-2"},
                "status": {"addresses": [{"type": "InternalIP", "address": NODE_IP}]},
            }
        ),
    )
)


def report(node: str, failed: int = 0) -> NodeReport:
    name, ip = ("client", CLIENT) if node == "node-1" else ("server", SERVER)
    devices = (Device(name="eth0", ifindex=2, mtu=1500, addresses=(ip,)),)
    return NodeReport(
        node=node,
        t_ns=1,
        namespaces=(
            NetNs(inode=NS[node], host=True, counters={"conntrack_insert_failed": failed}),
            NetNs(inode=NS[name], host=False, devices=devices),
        ),
    )


def hello(node: str, boot: str = "one") -> Hello:
    return Hello(
        node=node,
        protocol=1,
        version="",
        kernel="",
        boot_id=boot,
        t_ns=0,
        realtime_ns=0,
        tier="tracepoint",
        probes=("dns",),
    )


def flow(src: str = CLIENT, sport: int = 4000, dst: str = SERVICE, protocol: Protocol = Protocol.UDP) -> FiveTuple:
    return FiveTuple(src, sport, dst, 53, protocol)


def message(kind: str = "A", *, qr: bool = False, name: str = "qdrant.example.", **more: object) -> DnsMessage:
    return DnsMessage(qr=qr, length=40, captured=40, questions=(Question(name, kind),), **more)  # type: ignore[arg-type]


def place(t: float, where: str, point: Point, ifindex: int = 2, index: int = 0) -> DnsPlace:
    return DnsPlace(int(t * MS), NS[where], ifindex, point, index)


def at_client(
    number: int,
    start: float,
    end: DnsEnd,
    kind: str = "A",
    *,
    response: float | None = None,
    nat: bool = True,
    sport: int = 4000,
    **answer: Any,
) -> DnsTransaction:
    """As the client's node sees a query: out of the pod, and (after NAT) out of the node."""
    query = [place(start, "client", Point.TX)]
    flows = [flow(sport=sport)]
    if nat:
        flows.append(flow(sport=sport, dst=SERVER))
        query.append(place(start + 0.1, "node-1", Point.TX, 3, 1))
    back = (place(response, "client", Point.RX),) if response is not None else ()
    return DnsTransaction(
        node="node-1",
        t_ns=int((response or start) * MS),
        id=number,
        end=end,
        flows=tuple(flows),
        query=tuple(query),
        response=back,
        asked=message(kind),
        answer=message(kind, qr=True, **answer) if back else None,
    )


def at_server(
    number: int, start: float, end: DnsEnd, kind: str = "A", *, response: float | None = None
) -> DnsTransaction:
    back = (place(response, "server", Point.TX),) if response is not None else ()
    return DnsTransaction(
        node="node-2",
        t_ns=int((response or start) * MS),
        id=number,
        end=end,
        flows=(flow(dst=SERVER),),
        query=(place(start, "server", Point.RX),),
        response=back,
        asked=message(kind),
        answer=message(kind, qr=True) if back else None,
    )


def run(*events: Event, boots: tuple[str, str] = ("one", "one")) -> tuple[list[DnsExchange], DnsSummary]:
    correlator = DnsCorrelator(SNAPSHOT)
    builder = DnsSummaryBuilder("test", correlator.identity, {})
    out: list[DnsExchange] = []

    def feed(all_events: Iterable[Event]) -> None:
        for event in all_events:
            builder.event(event)
            out.extend(correlator.feed(event))

    start: list[Event] = [hello("node-1", boots[0]), hello("node-2", boots[1]), report("node-1"), report("node-2")]
    last = max((getattr(e, "t_ns", 0) for e in events), default=0)
    ends: list[Event] = [Tick(node=n, t_ns=last + 9_000 * MS) for n in ("node-1", "node-2")]
    byes: list[Event] = [Bye(node=n, emitted=1, sent=1, lost=0, reason="timeout") for n in ("node-1", "node-2")]
    feed([*start, *events, *ends, *byes])
    out.extend(correlator.finish())
    for exchange in out:
        builder.exchange(exchange)
    return sorted(out, key=lambda e: e.t_ns), builder.build(malformed=0, unmatched=correlator.exchanges.unmatched)
