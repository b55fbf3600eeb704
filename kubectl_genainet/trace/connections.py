"""Joins the sightings of packets to connections, across devices, network namespaces, nodes and NAT.

What joins is what NAT leaves alone: the TCP sequence number of the first SYN, for other protocols the hash of the first
payload bytes and its length. So it works the same where nodes do not share a kernel. A connection's further packets are
found by any of the tuples that its first packet had on its way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from kubectl_genainet.context.clocks import Clocks
from kubectl_genainet.model.events import (
    FlowCounters,
    IcmpError,
    PacketDropped,
    PacketSeen,
    Point,
    Seen,
    TcpRetransmit,
)
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.reasons import HARMLESS_REASONS

Key = tuple[str, int, int]  # of a first packet: what NAT leaves alone

MAX_CONNECTIONS = 200_000
_REPETITION_NS = 500_000_000  # half of TCP's first retransmission timeout for a SYN (RFC 6298: 1 s)


class Direction(Enum):
    REQUEST = "request"  # from the client
    REPLY = "reply"


@dataclass(slots=True)
class Dropped:
    """A drop that belongs to a connection, and which packet it was."""

    event: PacketDropped
    direction: Direction
    first_packet: bool


@dataclass(slots=True)
class Connection:
    """A connection, or a datagram's flow, as it was seen. `tuples` are in the client's direction, in order of sight."""

    key: Key
    protocol: Protocol
    mid_stream: bool = False  # it was there before the probes were
    number: int = 0  # among those with the same key
    attempts: list[list[PacketSeen]] = field(default_factory=lambda: [[]])  # sightings of the first packet, by attempt
    tuples: dict[FiveTuple, None] = field(default_factory=dict)
    answer: list[PacketSeen] = field(default_factory=list)  # sightings of the SYN-ACK or of the first datagram back
    request_data: dict[tuple[str, int, int, str], int] = field(default_factory=dict)  # place -> time, first data
    reply_data: dict[tuple[str, int, int, str], int] = field(default_factory=dict)
    drops: list[Dropped] = field(default_factory=list)
    resets: list[tuple[PacketSeen, Direction]] = field(default_factory=list)
    icmp: list[IcmpError] = field(default_factory=list)
    retransmits: int = 0
    ended: bool = False
    last: dict[str, int] = field(default_factory=dict)  # node -> its latest record here, on its clock
    reported: bool = False

    @property
    def first(self) -> list[PacketSeen]:
        """Sightings of the first packet in the attempt that was seen at most places; of several, the earliest.

        The probes of different nodes are attached at different moments: the earliest attempt may be half seen.
        """
        return max(self.attempts, key=len)

    def heard(self, event: Seen | IcmpError) -> None:
        """Notes when the node had the last to say of it."""
        self.last[event.node] = max(event.t_ns, self.last.get(event.node, 0))

    def direction(self, flow: FiveTuple) -> Direction:
        return Direction.REPLY if flow.reversed in self.tuples else Direction.REQUEST


def _place(event: PacketSeen) -> tuple[str, int, int, str]:
    return (event.node, event.netns, event.ifindex, event.point.value)


class Connections:
    """All connections of a trace. `forgotten` counts those that were dropped from memory for want of room."""

    def __init__(self, servers: set[tuple[str, int]], clocks: Clocks) -> None:
        self._clocks = clocks
        self.servers = servers  # (address, port) of the Service and its backends; port 0: any
        self.forgotten = 0
        self._by_key: dict[tuple[str, int, int, int], Connection] = {}
        self._by_tuple: dict[FiveTuple, Connection] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def _is_server(self, ip: str, port: int) -> bool:
        return (ip, port) in self.servers or (ip, 0) in self.servers

    def _towards_server(self, flow: FiveTuple) -> bool:
        """Whether the packet goes to the traced end; where both or neither end is traced, it is taken for a request."""
        return self._is_server(flow.dst, flow.dport) or not self._is_server(flow.src, flow.sport)

    def find(self, flow: FiveTuple) -> Connection | None:
        return self._by_tuple.get(flow) or self._by_tuple.get(flow.reversed)

    def _key(self, event: Seen) -> Key:
        if event.tcp is not None:
            return ("tcp", event.tcp.seq, event.payload)
        return (event.flow.protocol.value, event.sig, event.payload)

    def _opens(self, event: Seen) -> bool:
        """Whether this is a first packet: a SYN; of others, the first that is seen towards the server."""
        if event.tcp is not None:
            return event.tcp.syn and not event.tcp.is_ack
        return event.flow.protocol not in (Protocol.ICMP, Protocol.ICMPV6) or event.flow.reversed not in self._by_tuple

    def _connection_of_first(self, event: Seen) -> Connection | None:
        """The connection that this first packet opens; None for what is no first packet."""
        if not self._opens(event):
            return None
        known = self.find(event.flow)
        key = self._key(event)
        if event.tcp is None:
            if known is not None:
                return known if known.key == key and known.direction(event.flow) is Direction.REQUEST else None
            if not self._towards_server(event.flow):
                return None
        return self._of_key(key, event) or self._new(key, event)

    def _of_key(self, key: Key, event: Seen) -> Connection | None:
        """The connection that the packet with this key belongs to; several may happen to have the same."""
        number = 0
        while (found := self._by_key.get((*key, number))) is not None:
            if self._related(found, event):
                return found
            number += 1
        return None

    def _related(self, connection: Connection, event: Seen) -> bool:
        """A packet of this connection shares an end, or its sk_buff, with a sighting of it, and passes no place with two
        tuples. One node may change both ends at once (kube-proxy masquerades what comes from outside, to random ports);
        there it stays the same sk_buff."""
        flow = event.flow
        if flow in connection.tuples or not connection.tuples:
            return True
        seen = [s for attempt in connection.attempts for s in attempt]
        if isinstance(event, PacketSeen) and any(_place(s) == _place(event) for s in seen):
            return False
        if any(s.skb == event.skb and self._clocks.same(s.node, event.node) for s in seen):
            return True
        return any(
            (t.src, t.sport) == (flow.src, flow.sport)
            or (t.dst, t.dport) == (flow.dst, flow.dport)
            or t.sport == flow.sport
            for t in connection.tuples
        )

    def _new(self, key: Key, event: Seen, *, mid_stream: bool = False) -> Connection:
        if len(self._by_key) >= MAX_CONNECTIONS:
            self._forget()
        number = 0
        while (*key, number) in self._by_key:
            number += 1
        connection = Connection(key, event.flow.protocol, mid_stream, number)
        self._by_key[*key, number] = connection
        return connection

    def _forget(self) -> None:
        """Makes room: the oldest tenth of the reported connections goes."""
        old = [c for c in self._by_key.values() if c.reported][: MAX_CONNECTIONS // 10] or list(self._by_key.values())[
            :1
        ]
        for connection in old:
            del self._by_key[*connection.key, connection.number]
            for flow in connection.tuples:
                if self._by_tuple.get(flow) is connection:
                    del self._by_tuple[flow]
        self.forgotten += len(old)

    def _learn_tuple(self, connection: Connection, flow: FiveTuple) -> None:
        connection.tuples.setdefault(flow)
        self._by_tuple[flow] = connection

    def packet(self, event: PacketSeen) -> Connection | None:
        """Takes in a sighting; returns the connection it belongs to, if any."""
        connection = self._connection_of_first(event)
        if connection is not None:
            self._learn_tuple(connection, event.flow)
            self._add_sighting(connection, event)
        else:
            connection = self.find(event.flow) or self._join_mid_stream(event)
            if connection is None:
                return None
            self._later_packet(connection, event)
        connection.heard(event)
        return connection

    def _add_sighting(self, connection: Connection, event: PacketSeen) -> None:
        """Adds to the attempt that this packet is; a repeated first packet is another attempt."""
        for attempt in connection.attempts:
            if all(self._same_packet(seen, event) for seen in attempt):
                attempt.append(event)
                return
        connection.attempts.append([event])

    def _same_packet(self, a: PacketSeen, b: PacketSeen) -> bool:
        """Whether two sightings of a connection's first packet are of one packet: it passes a place once, and keeps its
        IP id; without one (IPv6), where the clocks can be compared, repetitions are at least a second apart."""
        if _place(a) == _place(b) and a.flow == b.flow:
            return False
        if a.ip_id or b.ip_id:
            return a.ip_id == b.ip_id
        return not self._clocks.same(a.node, b.node) or abs(a.t_ns - b.t_ns) < _REPETITION_NS

    def _join_mid_stream(self, event: PacketSeen) -> Connection | None:
        """A connection older than the trace: its first data packet towards the server stands for it."""
        if event.tcp is None or event.tcp.rst or event.tcp.fin or event.tcp.syn or not event.payload:
            return None
        if not self._is_server(event.flow.dst, event.flow.dport):
            return None
        key = self._key(event)
        connection = self._of_key(key, event) or self._new(key, event, mid_stream=True)
        self._learn_tuple(connection, event.flow)
        return connection

    def _later_packet(self, connection: Connection, event: PacketSeen) -> None:
        direction = connection.direction(event.flow)
        if connection.mid_stream and direction is Direction.REQUEST and self._key(event) == connection.key:
            self._add_sighting(connection, event)
        tcp = event.tcp
        if tcp is not None and tcp.rst:
            connection.resets.append((event, direction))
            connection.ended = True
        elif tcp is not None and tcp.fin:
            connection.ended = True
        elif direction is Direction.REPLY and (tcp is None or tcp.syn):
            connection.answer.append(event)
        if event.payload and not (tcp is not None and tcp.syn):
            data = connection.request_data if direction is Direction.REQUEST else connection.reply_data
            data.setdefault(_place(event), event.t_ns)

    def dropped(self, event: PacketDropped) -> Connection | None:
        """Takes in a drop. Harmless ones, and those of packets of no known connection that open none, are ignored."""
        if event.reason in HARMLESS_REASONS:
            return None
        opening = self._connection_of_first(event)
        connection = opening or self.find(event.flow)
        if connection is None:
            return None
        if opening is not None:
            self._learn_tuple(connection, event.flow)
        direction = Direction.REQUEST if opening is not None else connection.direction(event.flow)
        connection.drops.append(Dropped(event, direction, opening is not None))
        connection.heard(event)
        return connection

    def icmp(self, event: IcmpError) -> Connection | None:
        """An ICMP error about a connection; one that its socket had queued and freed had arrived, and was no drop."""
        if event.point is Point.DROP and event.reason in HARMLESS_REASONS:
            return None
        connection = self.find(event.quoted)
        if connection is not None:
            connection.icmp.append(event)
            connection.heard(event)
        return connection

    def retransmit(self, event: TcpRetransmit) -> Connection | None:
        connection = self.find(event.flow)
        if connection is not None:
            connection.retransmits += 1
        return connection

    def counters(self, event: FlowCounters) -> Connection | None:
        return self.find(event.flow)
