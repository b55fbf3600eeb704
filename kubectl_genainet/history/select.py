"""Which records of a recording somebody asks for: those of a verb's probes, and of some addresses only."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import cache, lru_cache

import msgspec

from kubectl_genainet.history.blocks import address_key
from kubectl_genainet.model.events import (
    CheckConnectionResult,
    ClusterChanged,
    DnsConnection,
    DnsDropped,
    DnsMessageSeen,
    DnsTransaction,
    DropSampled,
    Event,
    FlowCounters,
    Http2Streams,
    HttpHead,
    IcmpError,
    IcmpSampled,
    LostEvents,
    PacketDropped,
    PacketSeen,
    Progress,
    Sampled,
    Sightings,
    Tally,
    TcpRetransmit,
)
from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.fabric import FabricReport
from kubectl_genainet.model.history import (
    Bucket,
    ConnectionKept,
    ConnectionSums,
    ConnectionTimes,
    DnsSums,
    Gap,
    NodeChange,
    ObjectChanged,
    RulesetChange,
)
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.wire.sightings import PACKET, address

_ENDS = slice(16, 52)  # and their ports


class RecordPart(Enum):
    """What of a recording is asked for: what a verb reads. The state (namespaces, rules, objects) and gaps are always given."""

    TRACE = "trace"
    DROPS = "drops"
    DNS = "dns"
    TOTALS = "totals"  # buckets
    CHANGES = "changes"


_STATE = (NodeReport, FabricReport, RulesetDump, RulesetChange, NetnsRules, ClusterChanged, ObjectChanged)
_FOR_ALL = (Gap, LostEvents, NodeChange, Progress, Sampled)
_PROBES = {
    "packet": RecordPart.TRACE,
    "connections": RecordPart.TRACE,
    "http": RecordPart.TRACE,
    "drops": RecordPart.DROPS,
    "dns": RecordPart.DNS,
}


def is_state(event: Event) -> bool:
    """Whether later records are understood by it."""
    return isinstance(event, _STATE)


def structure_of(report: NodeReport) -> NodeReport:
    """The report without what changes all the time: what is left is worth recording, and reading, when it changes."""
    namespaces = tuple(msgspec.structs.replace(netns, conntrack_count=None) for netns in report.namespaces)
    return msgspec.structs.replace(report, t_ns=0, namespaces=namespaces, containers=(), kube_proxy=None, fabric=None)


_PARTS: tuple[tuple[RecordPart, tuple[type, ...]], ...] = (
    (RecordPart.DROPS, (DropSampled, IcmpSampled, Tally)),
    (RecordPart.DNS, (DnsTransaction, DnsMessageSeen, DnsDropped, DnsConnection)),
    (
        RecordPart.TRACE,
        (
            Sightings,
            PacketSeen,
            PacketDropped,
            IcmpError,
            TcpRetransmit,
            FlowCounters,
            HttpHead,
            Http2Streams,
            Sampled,
            ConnectionKept,
            RuleHit,
            CheckConnectionResult,
        ),
    ),
    (RecordPart.TOTALS, (Bucket,)),
    (RecordPart.CHANGES, (NodeChange,)),
)


def part_of(event: Event) -> RecordPart | None:
    """The part that a record belongs to; None for what belongs to all."""
    return _PROBES.get(event.probe) if isinstance(event, LostEvents) else _part_of(type(event))


@cache
def _part_of(kind: type) -> RecordPart | None:
    """Some kinds of another part are also one of those further down."""
    return next((part for part, kinds in _PARTS if issubclass(kind, kinds)), None)


@lru_cache(maxsize=65536)
def packed(ip: str) -> bytes:
    """An address's 16 bytes, IPv4 as ::ffff:a.b.c.d; zeros for what is none."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return bytes(16)
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


def flows_of(event: Event) -> Iterator[FiveTuple]:
    """The tuples that a record other than Sightings and Bucket names."""
    match event:
        case DnsTransaction() | ConnectionKept():
            yield from event.flows
        case IcmpError():
            yield event.quoted
        case PacketSeen() | PacketDropped():
            yield event.flow
            for other in (event.tunnel, event.asked):
                if other is not None:
                    yield other
        case _:
            flow = getattr(event, "flow", None)
            if isinstance(flow, FiveTuple):
                yield flow


def addresses_of(event: Event) -> Iterator[bytes]:
    """The packed addresses that a record names, but for those of its node's state."""
    match event:
        case Sightings():
            for offset in range(0, len(event.data), PACKET.size):
                yield event.data[offset + 16 : offset + 32]
                yield event.data[offset + 32 : offset + 48]
        case Bucket():
            rows: tuple[ConnectionSums | ConnectionTimes | DnsSums, ...] = (
                *event.connections,
                *event.times,
                *event.dns,
            )
            for client, server in ((row.client, row.server) for row in rows):
                yield packed(client)
                yield packed(server)
            for backend in {row.backend for row in event.connections} | {row.backend for row in event.times}:
                if backend:
                    yield packed(backend)
            for drops in event.drops:
                yield packed(drops.src)
                yield packed(drops.dst)
        case _:
            for flow in flows_of(event):
                yield packed(flow.src)
                yield packed(flow.dst)


def index_of(events: list[Event]) -> set[int] | None:
    """What a block's index says of its records; None where one of them is wanted whatever addresses are asked for."""
    if any(isinstance(event, _FOR_ALL) for event in events):
        return None
    return {address_key(address) for event in events for address in set(addresses_of(event))}


class Selection:
    """What is asked for: some parts (all: None), and of those the records that name one of the addresses (all: None).

    A connection is wanted as a whole: what carries the address and port of a wanted connection's other end is wanted too,
    under whatever tuple a translation gave it. `learn` is told all records before `choose` is asked.
    """

    def __init__(self, parts: Iterable[RecordPart] | None = None, addresses: Iterable[str] | None = None) -> None:
        self.parts = frozenset(parts) if parts is not None else None
        self.addresses = frozenset(map(packed, addresses)) if addresses is not None else None
        # As an index has them: these addresses and, once learnt, those of the wanted connections' other ends.
        self.keys = set(map(address_key, self.addresses)) if self.addresses is not None else None
        self._ends: set[bytes] = set()  # packed address and port

    @property
    def everything(self) -> bool:
        return self.parts is None and self.addresses is None

    def learn(self, events: Iterable[Event]) -> None:
        """Remembers the other ends of the wanted connections."""
        if self.addresses is None:
            return
        for event in events:
            if isinstance(event, Sightings):
                for offset in range(0, len(event.data), PACKET.size):
                    self._learn(event.data[offset : offset + PACKET.size][_ENDS])
            elif part_of(event) is RecordPart.TRACE:
                self.learn_flows(flows_of(event))

    def learn_flows(self, flows: Iterable[FiveTuple]) -> None:
        """The same, of connections."""
        for flow in flows:
            self._learn(_ends_of(flow))

    def _learn(self, ends: bytes) -> None:
        assert self.addresses is not None and self.keys is not None
        src, dst, ports = ends[:16], ends[16:32], ends[32:]
        if src in self.addresses and dst not in self.addresses:
            other = dst + ports[2:]
        elif dst in self.addresses and src not in self.addresses:
            other = src + ports[:2]
        else:
            return
        if other not in self._ends:
            self._ends.add(other)
            self.keys.add(address_key(other[:16]))

    @property
    def has_learnt(self) -> bool:
        """Whether any other end is known."""
        return bool(self._ends)

    @property
    def other_ends(self) -> frozenset[str]:
        """The addresses of the learnt ends: the clients of a Service, for example."""
        return frozenset(address(end[:16]) for end in self._ends)

    def elsewhere(self, flows: Iterable[FiveTuple]) -> set[str]:
        """Where the wanted connections went, of all that were seen, beside the addresses that are asked for: rules that are old,
        for example, send them to what is no endpoint any more."""
        others = set()
        for flow in flows:
            ends = _ends_of(flow)
            if ends[:16] + ends[32:34] in self._ends:
                others.add(flow.dst)
            elif ends[16:32] + ends[34:36] in self._ends:
                others.add(flow.src)
        return {ip for ip in others if packed(ip) not in (self.addresses or ())}

    def _wants(self, ends: bytes) -> bool:
        assert self.addresses is not None
        src, dst, ports = ends[:16], ends[16:32], ends[32:]
        if src in self.addresses or dst in self.addresses:
            return True
        return src + ports[:2] in self._ends or dst + ports[2:] in self._ends

    def choose(self, event: Event) -> Event | None:
        """The record, or what of it is wanted."""
        part = part_of(event)
        if self.parts is not None and part is not None and part not in self.parts:
            return None
        if self.addresses is None or part is None or part is RecordPart.CHANGES:
            return event
        match event:
            case Sightings():
                return self._sightings(event)
            case Bucket():
                return self._bucket(event)
            case Sampled() | LostEvents() | CheckConnectionResult() | RuleHit():
                return event
            case _:
                return event if any(self._wants(_ends_of(flow)) for flow in flows_of(event)) else None

    def _sightings(self, event: Sightings) -> Sightings | None:
        size = PACKET.size
        sightings = (event.data[offset : offset + size] for offset in range(0, len(event.data), size))
        data = b"".join(sighting for sighting in sightings if self._wants(sighting[_ENDS]))
        return Sightings(node=event.node, data=data) if data else None

    def _bucket(self, event: Bucket) -> Bucket | None:
        assert self.addresses is not None
        wanted = self.addresses
        own = msgspec.structs.replace(
            event,
            connections=tuple(
                c for c in event.connections if {packed(c.client), packed(c.server), packed(c.backend)} & wanted
            ),
            times=tuple(t for t in event.times if {packed(t.client), packed(t.server), packed(t.backend)} & wanted),
            drops=tuple(d for d in event.drops if {packed(d.src), packed(d.dst)} & wanted),
            dns=tuple(d for d in event.dns if {packed(d.client), packed(d.server)} & wanted),
        )
        return own if own.connections or own.times or own.drops or own.dns or own.lost else None


def _ends_of(flow: FiveTuple) -> bytes:
    return packed(flow.src) + packed(flow.dst) + flow.sport.to_bytes(2, "little") + flow.dport.to_bytes(2, "little")
