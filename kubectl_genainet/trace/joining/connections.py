"""Joins the sightings of packets to connections, across devices, network namespaces, nodes and NAT.

What joins is the tuple on each side of a translation. The sides belong together where one sk_buff came into a namespace
with one tuple and left it with the other; where that was not seen, by what NAT leaves alone: the sequence number of the
SYN, of datagrams the sender with the same payload. Other nodes, which need not share the kernel, see a tuple that is
known by then, or come to be known: connections that turn out to be one are put together.
"""

from __future__ import annotations

from collections.abc import Callable

from kubectl_genainet.context.clocks import Clocks
from kubectl_genainet.context.ends import KnownServers
from kubectl_genainet.model.events import (
    FlowCounters,
    Http2Streams,
    HttpHead,
    IcmpError,
    PacketDropped,
    PacketSeen,
    PacketSighting,
    Point,
    TcpRetransmit,
)
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.reasons import HARMLESS_REASONS
from kubectl_genainet.trace.joining.connection import (
    Connection,
    Dropped,
    FirstPacketKey,
    PacketDirection,
    Resent,
    first_packet_key,
    place_of,
)
from kubectl_genainet.trace.joining.crossings import Crossings
from kubectl_genainet.trace.joining.index import ConnectionIndex

_REPETITION_NS = 500_000_000  # half of TCP's first retransmission timeout for a SYN (RFC 6298: 1 s)
_SAME_SEQUENCE = 2**27  # bytes from the SYN within which a sequence number is taken for the same connection's
_PORTLESS = (Protocol.ICMP, Protocol.ICMPV6)


class Connections:
    """All connections of a trace. `absorbed` is told of each that turned out to be another's part, `let_go` of each that found no
    room any more before a path was told of it."""

    def __init__(
        self,
        servers: set[tuple[str, int]],
        clocks: Clocks,
        ends: KnownServers,
        absorbed: Callable[[Connection, Connection], None] = lambda _, __: None,
        let_go: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        self._clocks = clocks
        self.servers = servers  # (address, port) of the Service and its backends; port 0: any
        self.ends = ends
        self.index = ConnectionIndex(let_go)
        self.crossings = Crossings()
        self._absorbed = absorbed

    def _is_server(self, ip: str, port: int) -> bool:
        return (ip, port) in self.servers

    def _towards_server(self, flow: FiveTuple) -> bool:
        """Whether the packet goes to the traced end, where that is a port. Where it is a whole address, or both ends or
        neither, the API's objects and the ports tell which end serves."""
        towards, back = self._is_server(flow.dst, flow.dport), self._is_server(flow.src, flow.sport)
        return towards if towards != back else not self.ends.orient(flow).reply

    def _concerns(self, flow: FiveTuple) -> bool:
        ends = ((flow.dst, flow.dport), (flow.src, flow.sport))
        return any(self._is_server(*end) or self._is_server(end[0], 0) for end in ends)

    def _opens(self, event: PacketSighting) -> bool:
        """Whether this may be a first packet: a SYN; of others, any that is not seen to go back."""
        if event.tcp is not None:
            return event.tcp.syn and not event.tcp.is_ack
        return event.flow.protocol not in _PORTLESS or not self.index.has(event.flow.reversed)

    def _connection_of_first(self, event: PacketSighting) -> Connection | None:
        """The connection that this first packet opens; None for what is no first packet."""
        if not self._opens(event):
            return None
        key = first_packet_key(event)
        known = self.index.of_tuple(event.flow)
        if event.tcp is None:
            if known is not None and known.direction(event.flow) is PacketDirection.REPLY:
                return None
            if known is None and not self._towards_server(event.flow):
                return None
        elif known is not None and known.key != key:
            known = None  # the port is used again
        crossed = self.crossings.connection_of(event)
        if known is not None and crossed is not None and known is not crossed:
            return self._merge(crossed, known)
        connection = known or crossed
        if connection is None:
            connection = self._of_key(key, event)
        return connection or self._new(key, event)

    def _of_key(self, key: FirstPacketKey, event: PacketSighting) -> Connection | None:
        """The connection that the packet with this key belongs to; several may happen to have the same. Of datagrams, whose
        payloads may all be equal, the sender must be the same."""
        sender = (event.flow.src, event.flow.sport)
        candidates = self.index.with_key(key) if event.tcp is not None else self.index.from_sender(key, sender)
        return next((connection for connection in candidates if self._related(connection, event)), None)

    def _related(self, connection: Connection, event: PacketSighting) -> bool:
        """A packet of this connection shares an end, or its sk_buff, with a sighting of it, and passes no place with two
        tuples. A flow of datagrams whose path was told is over: its port may be used again, for another address."""
        flow = event.flow
        if flow in connection.tuples or not connection.tuples:
            return True
        seen = [s for attempt in connection.attempts for s in attempt]
        if isinstance(event, PacketSeen) and any(place_of(s) == place_of(event) for s in seen):
            return False
        if event.tcp is None:
            return not connection.reported
        if any(s.skb == event.skb and self._clocks.same(s.node, event.node) for s in seen):
            return True
        return any(
            (t.src, t.sport) == (flow.src, flow.sport)
            or (t.dst, t.dport) == (flow.dst, flow.dport)
            or t.sport == flow.sport
            for t in connection.tuples
        )

    def _new(self, key: FirstPacketKey, event: PacketSighting, *, mid_stream: bool = False) -> Connection:
        connection = Connection(key, event.flow.protocol, mid_stream)
        self.index.add(connection)
        return connection

    def _merge(self, into: Connection, other: Connection) -> Connection:
        """Two sides of a translation that were taken for two connections."""
        self.index.remove(other)
        other.part_of = into
        into.absorb(other)
        for attempt in other.attempts:
            for seen in attempt:
                self._add_sighting(into, seen)
        for flow in other.tuples:
            self.index.learn(into, flow)
        self._absorbed(into, other)
        return into

    def packet(self, event: PacketSeen) -> Connection | None:
        """Takes in a sighting; returns the connection it belongs to, if any."""
        connection = self._connection_of_first(event)
        if connection is not None:
            self.index.learn(connection, event.flow)
            if event.asked is not None:  # the answer comes back with the tuple that the socket has
                self.index.learn(connection, event.asked)
            self._add_sighting(connection, event)
        else:
            connection = self._of_later(event)
            if connection is None:
                return None
            self._later_packet(connection, event)
        self.crossings.remember(event, connection)
        connection.heard(event)
        return connection

    def _of_later(self, event: PacketSeen) -> Connection | None:
        """The connection of a packet that opens none: by its tuple, by its sk_buff, or one that is older than the trace."""
        known = self.index.of_tuple(event.flow) or self._answered(event)
        if event.tcp is None or event.tcp.syn:
            return known
        if known is not None and known.earlier is not None and self._is_of_earlier(known, event):
            return known.earlier
        crossed = self.crossings.connection_of(event) if known is None or known.mid_stream else None
        if known is not None and crossed is not None and known is not crossed and crossed.mid_stream:
            return self._merge(crossed, known)
        if known is None and crossed is not None:
            back = crossed.direction_of(event) is PacketDirection.REPLY
            self.index.learn(crossed, event.flow.reversed if back else event.flow)
        return known or crossed or self._join_mid_stream(event)

    def _is_of_earlier(self, connection: Connection, event: PacketSeen) -> bool:
        """Whether a packet is of the connection that had the tuple before: its node tells of it late. It passed before this one's
        SYN, and its numbers lie before that's."""
        if event.tcp is None or event.t_ns >= self._began(connection, event.node):
            return False
        number = event.tcp.seq if connection.direction(event.flow) is PacketDirection.REQUEST else event.tcp.ack
        return (number - connection.key[1]) % 2**32 >= 2**31

    def _began(self, connection: Connection, node: str) -> int:
        """When the connection's SYN was seen first, on the node's clock; 0 where that is not known."""
        if connection.mid_stream:
            return 0
        seen = (s.t_ns for attempt in connection.attempts for s in attempt if self._clocks.same(s.node, node))
        return min(seen, default=0)

    def _answered(self, event: PacketSighting) -> Connection | None:
        """The connection whose SYN a packet with an unknown tuple answers, by the client's end and the SYN's sequence number."""
        tcp = event.tcp
        if tcp is None or not tcp.is_ack or not (tcp.syn or tcp.rst):
            return None
        known = self.index.of_client((event.flow.dst, event.flow.dport))
        if known is None or known.mid_stream or (tcp.ack - known.key[1]) % 2**32 != 1:
            return None
        self.index.learn(known, event.flow.reversed)
        return known

    def _add_sighting(self, connection: Connection, event: PacketSeen) -> None:
        """Adds to the attempt that this packet is; a repeated first packet is another attempt. One that passes a place again
        goes in a circle."""
        if any(self._circles(seen, event) for attempt in connection.attempts for seen in attempt):
            connection.passed_again[place_of(event)] += 1
            return
        for attempt in connection.attempts:
            if all(self._same_packet(seen, event) for seen in attempt):
                attempt.append(event)
                return
        connection.attempts.append([event])

    def _same_packet(self, a: PacketSeen, b: PacketSeen) -> bool:
        """Whether two sightings of a connection's first packet are of one packet: it passes a place once, and keeps its
        IP id; without one (IPv6), where the clocks can be compared, repetitions are at least a second apart."""
        if place_of(a) == place_of(b) and a.flow == b.flow:
            return False
        if a.ip_id or b.ip_id:
            return a.ip_id == b.ip_id
        return not self._clocks.same(a.node, b.node) or abs(a.t_ns - b.t_ns) < _REPETITION_NS

    def _circles(self, a: PacketSeen, b: PacketSeen) -> bool:
        """Whether both are the same packet at the same place: a router lowers its TTL. Where that is not known, TCP sends no SYN
        again so soon; of datagrams, which may follow each other at once, the IP id tells."""
        if place_of(a) != place_of(b) or a.flow != b.flow or abs(a.t_ns - b.t_ns) >= _REPETITION_NS:
            return False
        if a.ttl and a.ttl == b.ttl:
            return False
        return a.ip_id == b.ip_id if a.tcp is not None else bool(a.ip_id) and a.ip_id == b.ip_id

    def _join_mid_stream(self, event: PacketSeen) -> Connection | None:
        """A connection older than the trace: the first data that passes, in either direction, stands for it."""
        tcp = event.tcp
        if tcp is None or tcp.rst or tcp.fin or tcp.syn or not event.payload or not self._concerns(event.flow):
            return None
        request = event.flow if self._towards_server(event.flow) else event.flow.reversed
        moved = self._moved(request, event)
        if moved is not None:
            return moved
        key = first_packet_key(event)
        connection = self._of_key(key, event) or self._new(key, event, mid_stream=True)
        self.index.learn(connection, request)
        return connection

    def _moved(self, request: FiveTuple, event: PacketSeen) -> Connection | None:
        """The connection whose translation was made anew, to another end: its client's socket goes on, to the sequence
        number, with a tuple that was not seen before and no SYN."""
        known = self.index.of_client((request.src, request.sport))
        tcp = event.tcp
        if known is None or known.mid_stream or known.ended or request != event.flow or tcp is None:
            return None
        same_client = [t for t in known.tuples if (t.src, t.sport) == (request.src, request.sport)]
        if (
            len({(t.dst, t.dport) for t in same_client}) < 2
            or not 0 < (tcp.seq - known.key[1]) % 2**32 < _SAME_SEQUENCE
        ):
            return None
        self.index.learn(known, request)
        known.moved.setdefault(request, event)
        return known

    def _later_packet(self, connection: Connection, event: PacketSeen) -> None:
        direction = connection.direction(event.flow)
        if connection.mid_stream and direction is PacketDirection.REQUEST and self._stands_for(connection, event):
            self._add_sighting(connection, event)
        tcp = event.tcp
        if tcp is not None and tcp.rst:
            connection.resets.append((event, direction))
        elif tcp is not None and tcp.fin:
            connection.fins.append((event, direction))
        elif direction is PacketDirection.REPLY and (tcp is None or tcp.syn):
            connection.answer.append(event)
        if event.payload and not (tcp is not None and tcp.syn):
            connection.data(event, direction)

    def _stands_for(self, connection: Connection, event: PacketSeen) -> bool:
        """Whether this is the packet by which a connection older than the trace is shown."""
        if not any(connection.attempts):
            return True
        return any(
            first_packet_key(seen) == first_packet_key(event) for attempt in connection.attempts for seen in attempt
        )

    def dropped(self, event: PacketDropped) -> Connection | None:
        """Takes in a drop. Harmless ones, and those of packets of no known connection that open none, are ignored."""
        if event.reason in HARMLESS_REASONS:
            return None
        opening = self._connection_of_first(event)
        connection = opening or self.index.of_tuple(event.flow) or self._answered(event)
        if connection is None:
            return None
        if opening is not None:
            self.index.learn(connection, event.flow)
        direction = PacketDirection.REQUEST if opening is not None else connection.direction(event.flow)
        connection.drops.append(Dropped(event, direction, opening is not None))
        connection.heard(event)
        return connection

    def icmp(self, event: IcmpError) -> Connection | None:
        """An ICMP error about a connection; one that its socket had queued and freed had arrived, and was no drop."""
        if event.point is Point.DROP and event.reason in HARMLESS_REASONS:
            return None
        connection = self.index.of_tuple(event.quoted)
        if connection is not None:
            connection.icmp.append(event)
            connection.heard(event)
        return connection

    def retransmit(self, event: TcpRetransmit) -> Connection | None:
        connection = self.index.of_tuple(event.flow)
        if connection is not None:
            connection.resent(Resent(event.node, event.t_ns, connection.direction(event.flow), event.segments))
        return connection

    def head(self, event: HttpHead) -> None:
        """Takes in the head of an HTTP message."""
        connection = self.index.of_tuple(event.flow)
        if connection is not None:
            connection.said(event)

    def streams(self, event: Http2Streams) -> None:
        """Takes in what a node counted of an HTTP/2 connection's streams."""
        connection = self._of_its_time(event)
        if connection is not None:
            connection.streams[event.node, event.flow] = event

    def counters(self, event: FlowCounters) -> Connection | None:
        """Takes in what a place counted of a connection's packets."""
        connection = self._of_its_time(event)
        if connection is not None:
            connection.counted(event)
        return connection

    def _of_its_time(self, event: FlowCounters | Http2Streams) -> Connection | None:
        """The connection that something was counted of; what was counted before its SYN is of the one that had the tuple
        before."""
        connection = self.index.of_tuple(event.flow)
        if connection is not None and event.t_ns < self._began(connection, event.node):
            return connection.earlier
        return connection
