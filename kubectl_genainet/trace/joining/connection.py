"""A connection, or a datagram's flow, as it was seen: everything that its path and its fate are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from kubectl_genainet.model.events import (
    FlowCounters,
    Http2Streams,
    HttpHead,
    IcmpError,
    PacketDropped,
    PacketSeen,
    PacketSighting,
    Point,
)
from kubectl_genainet.model.packet import FiveTuple, Protocol

FirstPacketKey = tuple[str, int, int]  # of a first packet: what NAT leaves alone
Place = tuple[str, int, int, Point]  # node, netns, ifindex, point
AddressPort = tuple[str, int]  # address and port

MAX_LISTED = 1000  # of a connection's drops, retransmits and heads; more are counted only
_NUMBERS = 2**32  # of TCP's sequence


class PacketDirection(Enum):
    REQUEST = "request"  # from the client
    REPLY = "reply"


def place_of(event: PacketSeen | FlowCounters) -> Place:
    return (event.node, event.netns, event.ifindex, event.point)


def first_packet_key(event: PacketSighting) -> FirstPacketKey:
    if event.tcp is not None:  # a SYN with data (TCP Fast Open) is sent again without
        return ("tcp", event.tcp.seq, 0 if event.tcp.syn else event.payload)
    return (event.flow.protocol.value, event.sig, event.payload)


@dataclass(slots=True)
class Dropped:
    """A drop that belongs to a connection, and which packet it was."""

    event: PacketDropped
    direction: PacketDirection
    first_packet: bool


@dataclass(frozen=True, slots=True)
class Resent:
    """A retransmission: `segments` that the sender's TCP sent again at once."""

    node: str
    t_ns: int
    direction: PacketDirection
    segments: int


@dataclass(slots=True)
class Counted:
    """What one place has counted of one direction. `grown_ns` is when data last advanced there, on the node's clock.

    A flow may leave the node's table and come back: `before` is what had been counted until it did so last.
    """

    direction: PacketDirection
    latest: FlowCounters
    grown_ns: int
    began_ns: int
    before: FlowCounters | None = None

    def add(self, event: FlowCounters) -> None:
        since = event.last_ns or (event.t_ns if event.bytes > self.latest.bytes else 0)
        if event.began_ns != self.began_ns:
            self.began_ns, self.before = event.began_ns, self.latest
        if self.before is None:
            self.latest = event
            self.grown_ns = max(self.grown_ns, since)
        else:
            packets, size = self.before.packets + event.packets, self.before.bytes + event.bytes
            self.latest = msgspec.structs.replace(self.before, t_ns=event.t_ns, packets=packets, bytes=size)


@dataclass(slots=True)
class Messages:
    """HTTP messages that passed a node one way, counted once each: by status, requests as 0."""

    last: int  # sequence number
    counts: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Connection:
    """`tuples` are in the client's direction, in order of sight. Times are on the nodes' own clocks."""

    key: FirstPacketKey
    protocol: Protocol
    mid_stream: bool = False  # it was there before the probes were
    attempts: list[list[PacketSeen]] = field(default_factory=lambda: [[]])  # sightings of the first packet, by attempt
    tuples: dict[FiveTuple, None] = field(default_factory=dict)
    answer: list[PacketSeen] = field(default_factory=list)  # sightings of the SYN-ACK or of the first datagrams back
    request_data: dict[Place, int] = field(default_factory=dict)  # place -> time, first data
    reply_data: dict[Place, int] = field(default_factory=dict)
    first_reply: list[PacketSeen] = field(default_factory=list)  # sightings of the first data back
    drops: list[Dropped] = field(default_factory=list)
    resets: list[tuple[PacketSeen, PacketDirection]] = field(default_factory=list)
    fins: list[tuple[PacketSeen, PacketDirection]] = field(default_factory=list)
    icmp: list[IcmpError] = field(default_factory=list)
    again: list[Resent] = field(default_factory=list)
    counts: dict[tuple[Place, FiveTuple], Counted] = field(default_factory=dict)
    heads: dict[tuple[str, int, bool], HttpHead] = field(default_factory=dict)  # by node, sequence number, is response
    messages: dict[tuple[str, bool], Messages] = field(default_factory=dict)  # by node, is response
    streams: dict[tuple[str, FiveTuple], Http2Streams] = field(default_factory=dict)  # of HTTP/2, by node
    retransmits: int = 0
    passed_again: Counter[Place] = field(
        default_factory=Counter
    )  # how often the first packet came by a place once more
    moved: dict[FiveTuple, PacketSeen] = field(
        default_factory=dict
    )  # tuples that a new translation gave to later packets
    last: dict[str, int] = field(default_factory=dict)  # node -> its latest record here, on its clock
    unexplained: bool | None = None  # whether its drop had no explanation when it was first looked for
    untold: bool = False  # whether a rule rejected it by an ICMP error and none was seen, when that was looked for
    wakes: tuple[str, float] | None = None  # when it is looked at again at the latest: by this node's clock
    reported: bool = False
    over: bool = False  # it had ended when it was reported
    part_of: Connection | None = None  # the one that it turned out to be a part of
    earlier: Connection | None = None  # that had one of its tuples before it, and was not over when it began

    @property
    def first(self) -> list[PacketSeen]:
        """Sightings of the first packet in the attempt that was seen at most places; of several, the earliest.

        The probes of different nodes are attached at different moments: the earliest attempt may be half seen.
        """
        return max(self.attempts, key=len)

    @property
    def moments(self) -> Iterator[tuple[str, int]]:
        """When each node saw something of it, on its clock: the first packet, else what ended it, or its data."""
        moments: list[PacketSeen | PacketDropped] = [s for attempt in self.attempts for s in attempt]
        moments += [d.event for d in self.drops] if not moments else []
        yield from ((s.node, s.t_ns) for s in moments)
        if not moments:
            yield from ((place[0], t_ns) for place, t_ns in (*self.request_data.items(), *self.reply_data.items()))
            yield from ((counted.latest.node, counted.latest.first_ns) for counted in self.counts.values())

    @property
    def namespaces(self) -> set[tuple[str, int]]:
        """(node, namespace) of everywhere that something of it was seen."""
        sightings = [s for attempt in self.attempts for s in attempt]
        sightings += [*self.answer, *self.first_reply, *(s for s, _ in (*self.resets, *self.fins))]
        places = [*self.request_data, *self.reply_data, *(place for place, _ in self.counts)]
        dropped = {(drop.event.node, drop.event.netns) for drop in self.drops}
        return {(s.node, s.netns) for s in sightings} | {(place[0], place[1]) for place in places} | dropped

    @property
    def ended(self) -> bool:
        return bool(self.resets) or any(direction is not self.fins[0][1] for _, direction in self.fins)

    @property
    def closing(self) -> bool:
        """One side has ended it."""
        return bool(self.resets or self.fins)

    def heard(self, event: PacketSighting | IcmpError) -> None:
        """Notes when the node had the last to say of it."""
        self.last[event.node] = max(event.t_ns, self.last.get(event.node, 0))

    def direction(self, flow: FiveTuple) -> PacketDirection:
        return PacketDirection.REPLY if flow.reversed in self.tuples else PacketDirection.REQUEST

    def direction_of(self, event: PacketSighting) -> PacketDirection:
        """The direction of a packet whose tuple is not known yet: one of its ends may be."""
        ends = {(t.src, t.sport) for t in self.tuples}
        return PacketDirection.REPLY if (event.flow.dst, event.flow.dport) in ends else PacketDirection.REQUEST

    def data(self, event: PacketSeen, direction: PacketDirection) -> None:
        data = self.request_data if direction is PacketDirection.REQUEST else self.reply_data
        data.setdefault(place_of(event), event.t_ns)
        if direction is PacketDirection.REPLY and len(self.first_reply) < MAX_LISTED:
            self.first_reply.append(event)

    def resent(self, again: Resent) -> None:
        self.retransmits += again.segments
        if len(self.again) >= MAX_LISTED:
            self.again.pop(0)
        self.again.append(again)

    def counted(self, event: FlowCounters) -> None:
        key = (place_of(event), event.flow)
        known = self.counts.get(key)
        if known is None:
            grown_ns = event.last_ns or event.t_ns
            known = self.counts[key] = Counted(self.direction(event.flow), event, grown_ns, event.began_ns)
        else:
            known.add(event)
        self.last[event.node] = max(known.grown_ns, self.last.get(event.node, 0))

    def said(self, head: HttpHead) -> None:
        """Counts an HTTP message, which passes several devices of a node, and keeps its head as the node saw it first."""
        way = (head.node, bool(head.status))
        messages = self.messages.setdefault(way, Messages((head.seq - 1) % _NUMBERS))
        if not 0 < (head.seq - messages.last) % _NUMBERS < _NUMBERS // 2:
            return
        messages.last = head.seq
        messages.counts[head.status] += 1
        if len(self.heads) < MAX_LISTED:
            self.heads[head.node, head.seq, bool(head.status)] = head

    def absorb(self, other: Connection) -> None:
        """Takes over all that is known of another, but its tuples and the sightings of its first packet."""
        for name in ("answer", "first_reply", "drops", "resets", "fins", "icmp", "again"):
            getattr(self, name).extend(getattr(other, name))
        for places, more in ((self.request_data, other.request_data), (self.reply_data, other.reply_data)):
            for place, t_ns in more.items():
                places[place] = min(t_ns, places.get(place, t_ns))
        self.counts |= other.counts
        self.heads |= other.heads
        for way, messages in other.messages.items():
            known = self.messages.setdefault(way, messages)
            if known.counts.total() < messages.counts.total():
                self.messages[way] = messages
        self.streams |= other.streams
        self.passed_again.update(other.passed_again)
        self.moved |= other.moved
        self.retransmits += other.retransmits
        for node, t_ns in other.last.items():
            self.last[node] = max(t_ns, self.last.get(node, 0))

    def slim(self) -> None:
        """Lets go of what is not needed once the path has been told; the tuples still find late records."""
        self.over = self.ended
        self.attempts, self.answer, self.first_reply = [[]], [], []
        self.drops, self.resets, self.fins, self.icmp, self.again = [], [], [], [], []
        self.request_data, self.reply_data, self.counts = {}, {}, {}
        self.heads, self.messages, self.streams = {}, {}, {}
