"""Packets on their way through a network namespace: what came in as one tuple leaves as another, but it is the same packet."""

from __future__ import annotations

from collections import OrderedDict

from kubectl_genainet.model.events import PacketSeen, PacketSighting, Point
from kubectl_genainet.trace.joining.connection import Connection, FirstPacketKey, first_packet_key

MAX_SKBS = 50_000  # whose last sighting is remembered
CROSSING_NS = 5_000_000_000  # how long a packet may be on its way through one namespace
SAME_SOFTIRQ_NS = 2_000_000  # and how long a CPU may take to forward it


class Crossings:
    """Which connection's packet came into a namespace last, by sk_buff and by CPU.

    The kernel forwards a packet in one go: from its receipt to the next device's queue no other is received on that CPU. So
    the CPU tells where the sk_buff does not, which is replaced where a tunnel's header does not fit in front of it.
    """

    def __init__(self) -> None:
        self._by_skb: OrderedDict[tuple[str, int, int], tuple[PacketSeen, Connection]] = OrderedDict()
        self._by_cpu: dict[tuple[str, int, int], tuple[PacketSeen, Connection]] = {}

    def connection_of(self, event: PacketSighting) -> Connection | None:
        """The connection whose packet came into this namespace, and now leaves it or dies."""
        if isinstance(event, PacketSeen) and event.point is not Point.TX:
            return None
        key = first_packet_key(event)
        entered = self._by_cpu.get((event.node, event.netns, event.cpu))
        if event.tcp is None and _is_same(entered, event, key, SAME_SOFTIRQ_NS):
            return _whole(entered)
        entered = self._by_skb.get((event.node, event.netns, event.skb))
        return _whole(entered) if _is_same(entered, event, key, CROSSING_NS) else None

    def remember(self, event: PacketSeen, connection: Connection) -> None:
        """A packet that came in may leave; once it has left, its sk_buff's address is free again."""
        by_skb, by_cpu = (event.node, event.netns, event.skb), (event.node, event.netns, event.cpu)
        if event.point is not Point.RX:
            self._by_skb.pop(by_skb, None)
            left = self._by_cpu.pop(by_cpu, None)
            if left is not None and left[1] is connection:
                self._by_skb.pop((event.node, event.netns, left[0].skb), None)
            return
        self._by_cpu[by_cpu] = self._by_skb[by_skb] = (event, connection)
        self._by_skb.move_to_end(by_skb)
        if len(self._by_skb) > MAX_SKBS:
            self._by_skb.popitem(last=False)


def _is_same(
    entered: tuple[PacketSeen, Connection] | None, event: PacketSighting, key: FirstPacketKey, within_ns: int
) -> bool:
    if entered is None:
        return False
    before = entered[0]
    same = before.flow.protocol is event.flow.protocol and first_packet_key(before) == key
    return same and 0 <= event.t_ns - before.t_ns < within_ns


def _whole(entered: tuple[PacketSeen, Connection] | None) -> Connection | None:
    """The connection, or the one that it turned out to be a part of."""
    connection = entered[1] if entered is not None else None
    while connection is not None and connection.part_of is not None:
        connection = connection.part_of
    return connection
