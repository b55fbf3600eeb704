"""A recording as rows of a table: one for each record of a block, and one for each block, which says what time it covers.

From the rows that a query gives back, blocks are made again, and read as a node's own segments are (history/read.py): state, gaps
and choice are the same code. A row holds its record as a line of the wire.
"""

from __future__ import annotations

import contextlib
import struct
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from typing import Protocol as Interface

import msgspec
from msgspec import Meta

from kubectl_genainet import wire
from kubectl_genainet.errors import DECODE_ERRORS, GenainetError
from kubectl_genainet.history.blocks import Block, BlockError, Flag, Span, encode_block, scan
from kubectl_genainet.history.ranges import NodeRange, node_range
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.history.select import Selection, addresses_of, flows_of, is_state, part_of
from kubectl_genainet.history.store import segments
from kubectl_genainet.model.events import Event, Sightings
from kubectl_genainet.model.history import Bucket, ConnectionKept
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.wire.sightings import PACKET, address, five_tuple

COVER, STATE, ALL = "cover", "state", "all"  # parts that every question reads; ALL is what belongs to no verb
OBJECTS = "objects"  # in place of a node: the recorder of the cluster's objects
NO_ADDRESS = ""  # of a record that names none: it is read whatever addresses are asked for
Time = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]
Count = Annotated[int, Meta(ge=0, lt=1 << 32)]
_ENDS = slice(16, 53)  # of a sighting: addresses, ports, protocol


class Cover(msgspec.Struct, frozen=True, array_like=True):
    """The header of a block (history/blocks.py). `boot_id` is hexadecimal."""

    wall_from: Time
    wall_until: Time
    mono_from: Time
    mono_until: Time
    earliest_ns: Time
    session: int
    number: Count
    boot_id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    flags: Annotated[int, Meta(ge=0, lt=1 << 16)]

    @classmethod
    def of(cls, block: Block) -> Cover:
        span = block.covers
        times = (span.wall_from, span.wall_until, span.mono_from, span.mono_until)
        kept = int(block.flags & ~Flag.INDEXED)
        return cls(*times, block.earliest_ns, block.session, block.number, block.boot_id.hex(), kept)

    def block(self, records: list[Event]) -> bytes:
        return encode_block(
            records,
            Span(self.wall_from, self.wall_until, self.mono_from, self.mono_until),
            earliest_ns=self.earliest_ns,
            session=self.session,
            number=self.number,
            boot_id=bytes.fromhex(self.boot_id),
            flags=Flag(self.flags),
        )


@dataclass(frozen=True, slots=True)
class RecordRow:
    """`flow` is the tuple of a record that has one, from client to server where that is known; `outcome` what a connection was
    kept for ("reset", "slow", …). `body` is a Cover, or the record as a line of the wire."""

    node: str
    at_ns: int
    part: str
    session: int
    number: int
    body: str
    service: str = ""
    client: str = ""
    outcome: str = ""
    addresses: tuple[str, ...] = ()
    flow: FiveTuple | None = None
    kind: str = ""
    flags: int = 0
    position: int = 0  # of the record in its block


def attributes_of(row: RecordRow) -> dict[str, str | int]:
    """The log record's attributes, named by OpenTelemetry's conventions where it has a name; docs/clickhouse.md lists them."""
    values: dict[str, str | int] = {
        "genainet.part": row.part,
        "genainet.session": row.session,
        "genainet.block": row.number,
        "genainet.record": row.position,
        "genainet.service": row.service,
        "genainet.client": row.client,
        "genainet.addresses": " ".join(row.addresses),
        "error.type": row.outcome,
    }
    if row.part == COVER:
        values["genainet.flags"] = row.flags
    if row.flow is not None:
        values |= {
            "source.address": row.flow.src,
            "source.port": row.flow.sport,
            "destination.address": row.flow.dst,
            "destination.port": row.flow.dport,
            "network.transport": row.flow.protocol.value.lower(),
        }
    return {name: value for name, value in values.items() if value != ""}


class RowNames(Interface):
    """Who is who, for rows to be selected by."""

    def service(self, flow: FiveTuple) -> str:
        """ "namespace/name" of the Service that the flow's destination is an address or a backend of; "" for none."""

    def client(self, flow: FiveTuple) -> str:
        """ "namespace/workload" of the flow's source; "" for none."""


class Nobody:
    def service(self, flow: FiveTuple) -> str:
        return ""

    def client(self, flow: FiveTuple) -> str:
        return ""


def rows_of(node: str, block: Block, names: RowNames) -> Iterator[RecordRow]:
    """A block's rows. Raises BlockError for records of a newer version."""
    records = block.records()  # first: a row that says what time is covered, without its records, would be believed
    yield _cover_row(node, block)
    for position, record in enumerate(records):
        for service, part in _apart(record, names):
            yield _row(node, part, service, block, names, position)


def _cover_row(node: str, block: Block) -> RecordRow:
    cover = Cover.of(block)
    body = msgspec.json.encode(cover).decode()
    return RecordRow(node, cover.wall_from, COVER, cover.session, cover.number, body, flags=cover.flags, kind="block")


def _apart(record: Event, names: RowNames) -> Iterator[tuple[str | None, Event]]:
    """A record of many connections, by connection or Service: (the Service where that is known by now, its part)."""
    match record:
        case Sightings():
            by_ends: dict[tuple[bytes, ...], list[bytes]] = defaultdict(list)
            for offset in range(0, len(record.data), PACKET.size):
                sighting = record.data[offset : offset + PACKET.size]
                ends = sighting[_ENDS]
                sides = sorted((ends[:16] + ends[32:34], ends[16:32] + ends[34:36]))
                by_ends[*sides, ends[36:]].append(sighting)
            for sightings in by_ends.values():
                yield None, Sightings(node=record.node, data=b"".join(sightings))
        case Bucket():
            yield from _buckets_apart(record, names)
        case _:
            yield None, record


def _buckets_apart(bucket: Bucket, names: RowNames) -> Iterator[tuple[str, Bucket]]:
    """Totals by Service. Losses are of the whole node, so they are in the part without a Service."""

    def service(client: str, server: str, port: int, protocol: Protocol = Protocol.TCP) -> str:
        return names.service(FiveTuple(client, 0, server, port, protocol))

    parts: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for sums in bucket.connections:
        parts[service(sums.client, sums.server, sums.port)]["connections"].append(sums)
    for times in bucket.times:
        parts[service(times.client, times.server, times.port)]["times"].append(times)
    for drops in bucket.drops:
        parts[service(drops.src, drops.dst, drops.dport, drops.protocol)]["drops"].append(drops)
    parts[""]["dns"] = list(bucket.dns)
    for name, fields in parts.items():
        own = {field: tuple(fields.get(field, ())) for field in ("connections", "times", "drops", "dns")}
        yield name, msgspec.structs.replace(bucket, **own, lost=0 if name else bucket.lost)


def _row(node: str, record: Event, service: str | None, block: Block, names: RowNames, position: int) -> RecordRow:
    part = part_of(record)
    where = STATE if is_state(record) else ALL if part is None else part.value
    flow = None if where == STATE or isinstance(record, Bucket) else _flow_of(record)
    client = ""
    if flow is not None:
        service = names.service(flow)
        if not service and (service := names.service(_turned(flow))):
            flow = _turned(flow)
        client = names.client(flow)
    t_ns, at_ns = _time_of(record), getattr(record, "at_ns", 0) or getattr(record, "since_ns", 0)
    tag = type(record).__struct_config__.tag
    begin = block.covers.wall_from  # a row lies in the time that its block covers, whenever its record was made
    return RecordRow(
        node,
        max(begin, min(at_ns or (t_ns + block.covers.ahead if t_ns else begin), block.covers.wall_until - 1)),
        where,
        block.session,
        block.number,
        wire.encode(record).decode().rstrip("\n"),
        service=service or "",
        client=client,
        outcome=record.why if isinstance(record, ConnectionKept) else "",
        addresses=() if where == STATE else _addresses(record),
        flow=flow,
        kind=tag if isinstance(tag, str) else "",
        position=position,
    )


def _flow_of(record: Event) -> FiveTuple | None:
    if isinstance(record, Sightings):
        ends = record.data[_ENDS]
        sport, dport = (int.from_bytes(ends[offset : offset + 2], "little") for offset in (32, 34))
        return five_tuple(ends[:16], ends[16:32], sport, dport, ends[36])
    return next(flows_of(record), None)


def _turned(flow: FiveTuple) -> FiveTuple:
    return FiveTuple(flow.dst, flow.dport, flow.src, flow.sport, flow.protocol)


def _time_of(record: Event) -> int:
    if isinstance(record, Sightings):
        return int.from_bytes(record.data[:8], "little")
    return int(getattr(record, "t_ns", 0))


def _addresses(record: Event) -> tuple[str, ...]:
    return tuple(sorted({address(packed) for packed in addresses_of(record) if any(packed)}))


class Rebuilt:
    """Segments made again of rows: feed it what a query gives back, in any order."""

    def __init__(self) -> None:
        # by node, session and the number of the last block: the number of the first, and what they cover
        self._covers: dict[str, dict[tuple[int, int], tuple[int, Cover]]] = defaultdict(dict)
        # by node, session and block: the records by their place and text, so that one that was sent twice is there once
        self._records: dict[str, dict[int, dict[int, dict[tuple[int, int, str], Event]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(dict))
        )

    @property
    def nodes(self) -> list[str]:
        return sorted(self._covers)

    @property
    def records(self) -> Iterator[Event]:
        """All of them, in no order."""
        for sessions in self._records.values():
            for blocks in sessions.values():
                for placed in blocks.values():
                    yield from placed.values()

    def cover(self, node: str, body: str, first: int | None = None) -> None:
        """The header of a block; with `first`, of all blocks from that number on as one.

        Raises GenainetError for what is no cover.
        """
        try:
            cover = msgspec.json.decode(body, type=Cover)
        except DECODE_ERRORS as error:
            raise GenainetError(f"a row is no block's header: {error}") from None
        self._covers[node][cover.session, cover.number] = (cover.number if first is None else first, cover)

    def record(self, node: str, session: int, number: int, position: int, at_ns: int, body: str) -> None:
        """Raises GenainetError for a record that this version can't read."""
        self._records[node][session][number][position, at_ns, body] = wire.decode(body.encode(errors="replace"))

    def range(self, node: str, since_ns: int, until_ns: int, wanted: Selection) -> NodeRange:
        """What the node itself would have given for the range. Raises GenainetError for rows that no block can hold."""
        covers = sorted(self._covers[node].values(), key=lambda placed: (placed[1].wall_from, placed[0]))
        with TemporaryDirectory(prefix="genainet-") as folder:
            began = covers[0][1].wall_from if covers else 0
            segment = Path(folder) / f"{1:020d}-{max(began, 0):020d}.seg"
            with segment.open("wb") as file:
                for first, cover in covers:
                    records = list(self._records_of(node, cover.session, first, cover.number))
                    try:
                        file.write(cover.block(records))
                    except (OverflowError, struct.error) as error:
                        raise GenainetError(f"the rows of node {node} hold numbers that are none: {error}") from None
            return node_range(node, RangeReader(Path(folder), node, since_ns, until_ns, wanted).blocks())

    def _records_of(self, node: str, session: int, first: int, last: int) -> Iterator[Event]:
        """The records of these blocks, in the order in which they were written."""
        by_number = self._records[node][session]
        numbers = sorted(by_number)  # a row may say that it stands for any number of blocks
        for number in numbers[bisect_left(numbers, first) : bisect_right(numbers, last)]:
            placed = by_number[number]
            yield from (placed[place] for place in sorted(placed))


def rows_of_folder(
    folder: Path, node: str, names: RowNames, since_ns: int = 0, until_ns: int = 1 << 62
) -> Iterator[RecordRow]:
    """The rows of all segments in a folder; what is damaged has none, and is a gap by what follows it. Of a block beyond the
    range there is its header, and what holds until later: its other records are not asked for."""
    for block in blocks_of_folder(folder):
        if Flag.STATE in block.flags or (block.covers.wall_until >= since_ns and block.covers.wall_from <= until_ns):
            with contextlib.suppress(BlockError):
                yield from rows_of(node, block, names)
        else:
            yield _cover_row(node, block)


def blocks_of_folder(folder: Path) -> Iterator[Block]:
    for segment in segments(folder):
        for part in scan(segment.path.read_bytes()):
            if isinstance(part, Block):
                yield part
