"""Joins the sightings of packets to connections, across devices, network namespaces, nodes and NAT.

What joins is the tuple on each side of a translation. The sides belong together where one sk_buff came into a namespace
with one tuple and left it with the other; where that was not seen, by what NAT leaves alone: the sequence number of the
SYN, of datagrams the sender with the same payload. Other nodes, which need not share the kernel, see a tuple that is
known by then, or come to be known: connections that turn out to be one are put together.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from kubectl_genainet.context.clocks import Clocks
from kubectl_genainet.context.ends import Ends
from kubectl_genainet.model.events import (
    FlowCounters,
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
from kubectl_genainet.trace.connection import (
    MAX_LISTED,
    Connection,
    Direction,
    Dropped,
    FirstPacketKey,
    Resent,
    place_of,
)

MAX_CONNECTIONS = 200_000
MAX_SKBS = 50_000  # whose last sighting is remembered
_REPETITION_NS = 500_000_000  # half of TCP's first retransmission timeout for a SYN (RFC 6298: 1 s)
_SAME_SEQUENCE = 2**27  # bytes from the SYN within which a sequence number is taken for the same connection's
_CROSSING_NS = 5_000_000_000  # how long a packet may be on its way through one namespace
_PORTLESS = (Protocol.ICMP, Protocol.ICMPV6)


class Connections:
    """All connections of a trace. `forgotten` counts those that were dropped from memory for want of room; `absorbed` is
    told of each that turned out to be another's part."""

    def __init__(
        self,
        servers: set[tuple[str, int]],
        clocks: Clocks,
        ends: Ends,
        absorbed: Callable[[Connection, Connection], None] = lambda _, __: None,
    ) -> None:
        self._clocks = clocks
        self.servers = servers  # (address, port) of the Service and its backends; port 0: any
        self.ends = ends
        self.forgotten = 0
        self._absorbed = absorbed
        self._by_key: dict[tuple[str, int, int, int], Connection] = {}
        self._by_tuple: dict[FiveTuple, Connection] = {}
        self._by_client: dict[tuple[str, int], Connection] = {}  # TCP's, by the client's end
        self._by_skb: OrderedDict[tuple[str, int, int], tuple[PacketSeen, Connection]] = OrderedDict()

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

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

    def find(self, flow: FiveTuple) -> Connection | None:
        return self._by_tuple.get(flow) or self._by_tuple.get(flow.reversed)

    def _key(self, event: PacketSighting) -> FirstPacketKey:
        if event.tcp is not None:
            return ("tcp", event.tcp.seq, event.payload)
        return (event.flow.protocol.value, event.sig, event.payload)

    def _opens(self, event: PacketSighting) -> bool:
        """Whether this may be a first packet: a SYN; of others, any that is not seen to go back."""
        if event.tcp is not None:
            return event.tcp.syn and not event.tcp.is_ack
        return event.flow.protocol not in _PORTLESS or event.flow.reversed not in self._by_tuple

    def _connection_of_first(self, event: PacketSighting) -> Connection | None:
        """The connection that this first packet opens; None for what is no first packet."""
        if not self._opens(event):
            return None
        key = self._key(event)
        known = self.find(event.flow)
        if event.tcp is None:
            if known is not None and known.direction(event.flow) is Direction.REPLY:
                return None
            if known is None and not self._towards_server(event.flow):
                return None
        elif known is not None and known.key != key:
            known = None  # the port is used again
        crossed = self._same_skb(event, key)
        if known is not None and crossed is not None and known is not crossed:
            return self._merge(crossed, known)
        found = known or crossed
        if found is None:
            found = self._of_key(key, event)
        return found or self._new(key, event)

    def _same_skb(self, event: PacketSighting, key: FirstPacketKey) -> Connection | None:
        """The connection whose packet came into this namespace as the same sk_buff, and now leaves it or dies."""
        at = self._by_skb.get((event.node, event.netns, event.skb))
        if at is None or (isinstance(event, PacketSeen) and event.point is not Point.TX):
            return None
        before, connection = at
        same = before.flow.protocol is event.flow.protocol and self._key(before) == key
        while connection.part_of is not None:
            connection = connection.part_of
        if not same or not 0 <= event.t_ns - before.t_ns < _CROSSING_NS:
            return None
        return connection

    def _remember_skb(self, event: PacketSeen, connection: Connection) -> None:
        """A packet that came into a namespace may leave it as another; once it has left, its address is free again."""
        key = (event.node, event.netns, event.skb)
        if event.point is not Point.RX:
            self._by_skb.pop(key, None)
            return
        self._by_skb[key] = (event, connection)
        self._by_skb.move_to_end(key)
        if len(self._by_skb) > MAX_SKBS:
            self._by_skb.popitem(last=False)

    def _of_key(self, key: FirstPacketKey, event: PacketSighting) -> Connection | None:
        """The connection that the packet with this key belongs to; several may happen to have the same."""
        number = 0
        while (found := self._by_key.get((*key, number))) is not None:
            if self._related(found, event):
                return found
            number += 1
        return None

    def _related(self, connection: Connection, event: PacketSighting) -> bool:
        """A packet of this connection shares an end, or its sk_buff, with a sighting of it, and passes no place with two
        tuples. Of datagrams, whose payloads may all be equal, the sender must be the same."""
        flow = event.flow
        if flow in connection.tuples or not connection.tuples:
            return True
        seen = [s for attempt in connection.attempts for s in attempt]
        if isinstance(event, PacketSeen) and any(place_of(s) == place_of(event) for s in seen):
            return False
        if event.tcp is None:
            return any((t.src, t.sport) == (flow.src, flow.sport) for t in connection.tuples)
        if any(s.skb == event.skb and self._clocks.same(s.node, event.node) for s in seen):
            return True
        return any(
            (t.src, t.sport) == (flow.src, flow.sport)
            or (t.dst, t.dport) == (flow.dst, flow.dport)
            or t.sport == flow.sport
            for t in connection.tuples
        )

    def _new(self, key: FirstPacketKey, event: PacketSighting, *, mid_stream: bool = False) -> Connection:
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
        old = [c for c in self._by_key.values() if c.reported][: MAX_CONNECTIONS // 10]
        for connection in old or list(self._by_key.values())[:1]:
            self._remove(connection)
            self.forgotten += 1

    def _remove(self, connection: Connection) -> None:
        self._by_key.pop((*connection.key, connection.number), None)
        for flow in connection.tuples:
            if self._by_tuple.get(flow) is connection:
                del self._by_tuple[flow]
            if self._by_client.get((flow.src, flow.sport)) is connection:
                del self._by_client[flow.src, flow.sport]

    def _merge(self, into: Connection, other: Connection) -> Connection:
        """Two sides of a translation that were taken for two connections."""
        self._remove(other)
        other.part_of = into
        into.absorb(other)
        for attempt in other.attempts:
            for seen in attempt:
                self._add_sighting(into, seen)
        for flow in other.tuples:
            self._learn_tuple(into, flow)
        self._absorbed(into, other)
        return into

    def _learn_tuple(self, connection: Connection, flow: FiveTuple) -> None:
        connection.tuples.setdefault(flow)
        self._by_tuple[flow] = connection
        if flow.protocol is Protocol.TCP:
            self._by_client[flow.src, flow.sport] = connection

    def packet(self, event: PacketSeen) -> Connection | None:
        """Takes in a sighting; returns the connection it belongs to, if any."""
        connection = self._connection_of_first(event)
        if connection is not None:
            self._learn_tuple(connection, event.flow)
            self._add_sighting(connection, event)
        else:
            connection = self._of_later(event)
            if connection is None:
                return None
            self._later_packet(connection, event)
        self._remember_skb(event, connection)
        connection.heard(event)
        return connection

    def _of_later(self, event: PacketSeen) -> Connection | None:
        """The connection of a packet that opens none: by its tuple, by its sk_buff, or one that is older than the trace."""
        known = self.find(event.flow)
        if event.tcp is None or event.tcp.syn:
            return known
        crossed = self._same_skb(event, self._key(event)) if known is None or known.mid_stream else None
        if known is not None and crossed is not None and known is not crossed and crossed.mid_stream:
            return self._merge(crossed, known)
        if known is None and crossed is not None:
            back = crossed.direction_of(event) is Direction.REPLY
            self._learn_tuple(crossed, event.flow.reversed if back else event.flow)
        return known or crossed or self._join_mid_stream(event)

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
        """Whether both are the same packet at the same place: TCP sends no SYN again so soon; of datagrams, which may follow
        each other at once, the IP id tells."""
        if place_of(a) != place_of(b) or a.flow != b.flow or abs(a.t_ns - b.t_ns) >= _REPETITION_NS:
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
        key = self._key(event)
        connection = self._of_key(key, event) or self._new(key, event, mid_stream=True)
        self._learn_tuple(connection, request)
        return connection

    def _moved(self, request: FiveTuple, event: PacketSeen) -> Connection | None:
        """The connection whose translation was made anew, to another end: its client's socket goes on, to the sequence
        number, with a tuple that was not seen before and no SYN."""
        known = self._by_client.get((request.src, request.sport))
        tcp = event.tcp
        if known is None or known.mid_stream or known.ended or request != event.flow or tcp is None:
            return None
        same_client = [t for t in known.tuples if (t.src, t.sport) == (request.src, request.sport)]
        if (
            len({(t.dst, t.dport) for t in same_client}) < 2
            or not 0 < (tcp.seq - known.key[1]) % 2**32 < _SAME_SEQUENCE
        ):
            return None
        self._learn_tuple(known, request)
        known.moved.setdefault(request, event)
        return known

    def _later_packet(self, connection: Connection, event: PacketSeen) -> None:
        direction = connection.direction(event.flow)
        if connection.mid_stream and direction is Direction.REQUEST and self._stands_for(connection, event):
            self._add_sighting(connection, event)
        tcp = event.tcp
        if tcp is not None and tcp.rst:
            connection.resets.append((event, direction))
        elif tcp is not None and tcp.fin:
            connection.fins.append((event, direction))
        elif direction is Direction.REPLY and (tcp is None or tcp.syn):
            connection.answer.append(event)
        if event.payload and not (tcp is not None and tcp.syn):
            connection.data(event, direction)

    def _stands_for(self, connection: Connection, event: PacketSeen) -> bool:
        """Whether this is the packet by which a connection older than the trace is shown."""
        if not any(connection.attempts):
            return True
        return any(self._key(seen) == self._key(event) for attempt in connection.attempts for seen in attempt)

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
            connection.resent(Resent(event.node, event.t_ns, connection.direction(event.flow), event.segments))
        return connection

    def head(self, event: HttpHead) -> None:
        """Takes in the head of an HTTP message."""
        connection = self.find(event.flow)
        if connection is not None and len(connection.heads) < MAX_LISTED:
            connection.heads.append(event)

    def counters(self, event: FlowCounters) -> Connection | None:
        """Takes in what a place counted of a connection's packets."""
        connection = self.find(event.flow)
        if connection is not None:
            connection.counted(event)
        return connection
