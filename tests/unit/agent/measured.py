"""A node, its pods and what happens there, for the tests of what the agent counts."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from kubectl_genainet.agent.always.metrics import Metrics
from kubectl_genainet.model.dns import DnsMessage
from kubectl_genainet.model.events import (
    DnsEnd,
    DnsPlace,
    DnsTransaction,
    DropCount,
    PacketDropped,
    Point,
)
from kubectl_genainet.model.identities import Identities, Owner
from kubectl_genainet.model.node import Device, NetNs, NodeReport
from kubectl_genainet.model.packet import FiveTuple, Protocol
from tests.unit.died import died

FLOW = FiveTuple("10.0.0.1", 40000, "10.0.1.2", 8080, Protocol.TCP)
NODE: dict[str, Any] = {"node": "node-1", "t_ns": 5_000_000_000}
HOST, LLAMA, BYUID = 100, 101, 102


def report() -> NodeReport:
    def inside(inode: int, address: str, *uids: str, host: bool = False) -> NetNs:
        device = Device(name="eth0", ifindex=2, mtu=1500, addresses=(address,))
        return NetNs(
            inode=inode,
            host=host,
            devices=(device,),
            pod_uids=uids,
            conntrack_count=7 if host else None,
            conntrack_max=10,
        )

    return NodeReport(
        node="node-1",
        t_ns=1,
        namespaces=(inside(HOST, "192.0.2.1", host=True), inside(LLAMA, "10.0.1.2"), inside(BYUID, "10.0.1.9", "u-9")),
    )


def identities() -> Identities:
    return Identities(
        taken_at=1.0,
        addresses={"10.0.1.2": Owner("default", "my-llama"), "10.0.1.9": Owner("old", "whoever-had-it-before")},
        backends={"10.0.1.2 8080 TCP": ("default/my-llama-svc",), "10.0.1.2 9000 TCP": ("default/a", "default/b")},
    )


def values(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name by their label values, in the order of the labels' names."""
    body, content_type = metrics.scrape()
    assert content_type.startswith("text/plain")
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == name
    }


def drop(
    packets: int, *, flow: FiveTuple = FLOW, netns: int = HOST, reason: str = "NETFILTER_DROP", **more: Any
) -> DropCount:
    return DropCount(
        **NODE,
        netns=netns,
        flow=flow,
        packets=packets,
        bytes=60 * packets,
        reason=reason,
        location="nft_do_chain",
        **more,
    )


def sample(hook: str, *, flow: FiveTuple = FLOW) -> PacketDropped:
    return died(flow, **NODE, netns=HOST, hook=hook)


def exchange(end: DnsEnd, point: Point = Point.TX) -> DnsTransaction:
    query = (DnsPlace(1_000_000_000, LLAMA, 2, point, 0),)
    response = (DnsPlace(1_003_000_000, LLAMA, 2, Point.RX, 0),) if end is DnsEnd.ANSWERED else ()
    answer = DnsMessage(qr=True, length=40, captured=40, rcode="NXDOMAIN") if response else None
    return DnsTransaction(
        **NODE,
        id=1,
        end=end,
        flows=(FiveTuple("10.0.1.2", 999, "10.96.0.10", 53, Protocol.UDP),),
        query=query,
        response=response,
        answer=answer,
    )
