"""One node's records of a range, made of its blocks: as its agent would have sent them, had it been watched then.

Where a node's records have a hole, its watch ends and begins anew, so that nothing is concluded from its silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kubectl_genainet import __version__, wire
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.blocks import Block, BlockError, Flag
from kubectl_genainet.history.objects import CHANGES_NS
from kubectl_genainet.history.ranges import NodeRange
from kubectl_genainet.history.rules import RulesetHistory
from kubectl_genainet.model.events import (
    AgentFailed,
    Bye,
    ConnectionCounts,
    Event,
    FlowCounters,
    Hello,
    LostEvents,
    Progress,
    Sampled,
    Sightings,
    Tally,
    Tick,
)
from kubectl_genainet.model.history import (
    COUNTED,
    ENDS,
    Bucket,
    ConnectionEnds,
    ConnectionKept,
    Gap,
    NodeChange,
    RulesetChange,
    ends_of,
)
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump
from kubectl_genainet.wire.sightings import PACKET

PROBES = ("packet", "connections", "drops", "dns")
_TIMES = frozenset(
    {"t_ns", "first_ns", "second_ns", "last_ns", "silence_at_ns", "first_asked_ns", "closed_ns", "counted_ns"}
)

_LAST = (1 << 63) - 1  # what a node says of its clock may be anything

Timed = tuple[int, Event]  # wall-clock time


@dataclass(slots=True)
class NodeRecords:
    """Takes a node's blocks in their order. `events` are those that are made by now and were not taken out: those of a block
    may be earlier than those of a block before."""

    node: str
    since_ns: int
    until_ns: int
    boot_id: bytes = b""
    ahead: int = 0
    hello: Hello | None = None
    covered_ns: int = 0
    attached: bool = False
    reported_ns: int = -1
    events: list[Timed] = field(default_factory=list)
    rules: RulesetHistory = field(default_factory=RulesetHistory)
    sums: dict[ConnectionEnds, list[int]] = field(default_factory=dict)
    received: int = 0
    lost: int = 0

    def blocks(self, node_range: NodeRange) -> Iterator[None]:
        """Makes the events, block by block. Raises GenainetError where they are not the node's."""
        blocks = [b for b in node_range.blocks if Flag.END not in b.flags]
        if blocks:
            self.boot_id, self.ahead = blocks[-1].boot_id, blocks[-1].covers.ahead
        for block in blocks:
            self._block(block)
            yield

    def end(self, node_range: NodeRange) -> None:
        """After the blocks: what is known of the range as a whole."""
        for block in node_range.blocks:
            if Flag.END in block.flags:
                self._gaps(block)
        if not node_range.complete:
            why = "the node's answer was cut short"
            self._gap(Gap(node=self.node, since_ns=self.covered_ns or self.since_ns, until_ns=self.until_ns, why=why))
        self._goodbye()

    def take_out(self) -> list[Timed]:
        made, self.events = self.events, []
        return made

    def _wall(self, t_ns: int) -> int:
        return t_ns + self.ahead

    def _records(self, block: Block) -> list[Event] | None:
        """None, and a gap, where this version can't read them, or where they are not the node's."""
        try:
            records = block.records()
            for record in records:
                wire.check_is_of(record, self.node)
        except (BlockError, GenainetError) as error:
            span = block.covers
            self._gap(Gap(node=self.node, since_ns=span.wall_from, until_ns=span.wall_until, why=str(error)))
            return None
        return records

    def _block(self, block: Block) -> None:
        records = self._records(block)
        if records is None:
            return
        shift = 0 if block.boot_id == self.boot_id else block.covers.ahead - self.ahead
        begin = block.covers.wall_from if shift or not block.covers.mono_from else self._wall(block.covers.mono_from)
        end = block.covers.wall_until if shift or not block.covers.mono_until else self._wall(block.covers.mono_until)
        hello = next((r for r in records if isinstance(r, Hello)), None)
        if hello is not None:
            self.hello = hello
        if block.number:  # not the state at the start of the range
            self._cover(begin, end)
        for record in records:
            moved = _shifted(record, shift) if shift else record
            self._record(moved, begin, end)

    def _cover(self, begin: int, end: int) -> None:
        """Begins the node's watch where there was a hole."""
        if not self.attached or begin > self.covered_ns + CHANGES_NS:
            if self.attached:
                self._add(
                    self.covered_ns, Progress(node=self.node, stage="detached", t_ns=self.covered_ns - self.ahead)
                )
            t_ns = max(begin, self.since_ns) - self.ahead
            self._add(self._wall(t_ns), self._greeting(t_ns))
            self._add(self._wall(t_ns), Progress(node=self.node, stage="attached", t_ns=t_ns))
            self.attached = True
        self.covered_ns = max(self.covered_ns, end)

    def _greeting(self, t_ns: int) -> Hello:
        recorded = self.hello
        return Hello(
            node=self.node,
            protocol=wire.PROTOCOL,
            version=recorded.version if recorded is not None else __version__,
            kernel=recorded.kernel if recorded is not None else "",
            boot_id=recorded.boot_id if recorded is not None else self.boot_id.hex(),
            t_ns=t_ns,
            realtime_ns=t_ns + self.ahead,
            tier=recorded.tier if recorded is not None else "tracepoint",
            probes=recorded.probes if recorded is not None else PROBES,
        )

    def _add(self, at_ns: int, event: Event) -> None:
        self.events.append((at_ns, event))

    def _see(self, at_ns: int, event: Event) -> None:
        """Blocks reach beyond the range: what happened outside of it is none of its business, as in a live run."""
        if self.since_ns <= at_ns <= self.until_ns:
            self.received += is_one_event(event)
            self._add(at_ns, event)

    def _record(self, record: Event, begin: int, end: int) -> None:
        match record:
            case Hello() | Bye():
                return
            case Sightings():
                for packet in wire.expand(record):
                    self._see(self._wall(getattr(packet, "t_ns", 0)), packet)
            case RulesetDump() if record == self.rules.latest.get((record.node, record.source)):
                pass  # told before
            case RulesetDump() | RulesetChange():
                dump = self.rules.take(record)
                if dump is not None:
                    self._state(self._wall(dump.t_ns), dump)
                else:
                    why = f"its rules ({record.source}) can't be put together: an earlier record of them is damaged"
                    at_ns = max(begin, self.since_ns)  # its block may begin before the range
                    self._gap(Gap(node=self.node, since_ns=at_ns, until_ns=at_ns, why=why, partial=True))
            case Bucket():
                if self.since_ns <= (record.since_ns + record.until_ns) // 2 <= self.until_ns:
                    self._add(record.until_ns, record)
                    self._count(record)
            case NodeReport():
                if record.t_ns != self.reported_ns:  # a segment begins with what is known by then
                    self.reported_ns = record.t_ns
                    self._state(self._wall(record.t_ns), record)
            case NetnsRules() | Sampled():
                self._state(self._wall(record.t_ns), record)
            case Tick():
                if self._wall(record.t_ns) <= self.until_ns:
                    self._add(self._wall(record.t_ns), record)
            case Gap():
                self._gap(record)
            case LostEvents():
                self.lost += record.count
                self._add(min(end, self.until_ns), record)
            case NodeChange():
                if self.since_ns <= record.at_ns <= self.until_ns:
                    self._add(record.at_ns, record)
            case _:
                t_ns = getattr(record, "t_ns", 0)
                self._see(self._wall(t_ns) if t_ns else min(end, self.until_ns), record)

    def _state(self, at_ns: int, event: Event) -> None:
        """What holds until the next of its kind counts from before the range on."""
        if at_ns <= self.until_ns:
            self._add(at_ns, event)

    def _gap(self, gap: Gap) -> None:
        since, until = max(gap.since_ns, self.since_ns), min(gap.until_ns, self.until_ns)
        if since <= until:
            self._add(since, msgspec.structs.replace(gap, since_ns=since, until_ns=until))

    def _gaps(self, block: Block) -> None:
        for record in self._records(block) or ():
            if isinstance(record, Gap):
                self._gap(record)
            elif isinstance(record, NodeReport):  # the last, which has its counters
                self._state(self._wall(record.t_ns), record)

    def _count(self, bucket: Bucket) -> None:
        """The kernel's totals as a trace has them: since its start."""
        for change in bucket.connections:
            ends = ends_of(change)
            sums = self.sums.setdefault(ends, [0] * len(COUNTED))
            for number, name in enumerate(COUNTED):
                sums[number] += getattr(change, name)
            fields: dict[str, Any] = dict(zip((*ENDS, *COUNTED), (*ends, *sums), strict=True))
            self._add(bucket.until_ns, ConnectionCounts(node=self.node, t_ns=bucket.until_ns - self.ahead, **fields))

    def _goodbye(self) -> None:
        if not self.attached:  # nothing of the range is recorded
            self._add(self.since_ns, AgentFailed(node=self.node, message="it recorded nothing of this time"))
            return
        ended_ns = min(self.covered_ns, self.until_ns)
        self._add(ended_ns, Progress(node=self.node, stage="detached", t_ns=ended_ns - self.ahead))
        self._add(
            self.until_ns + 1,
            Bye(
                node=self.node, emitted=self.received + self.lost, sent=self.received, lost=self.lost, reason="timeout"
            ),
        )


def is_one_event(event: Event) -> bool:
    """Whether a live agent would count it among its events: totals and what a recorder says of itself are none."""
    return not isinstance(event, FlowCounters | Tally | Sampled | ConnectionKept)


def _shifted(event: Event, shift_ns: int) -> Event:
    """A record with its monotonic times moved: those of an earlier boot go on the clock of the last one."""
    if isinstance(event, Sightings):
        data = bytearray(event.data)
        for offset in range(0, len(data), PACKET.size):
            t_ns = int.from_bytes(data[offset : offset + 8], "little") + shift_ns
            data[offset : offset + 8] = min(max(t_ns, 0), _LAST).to_bytes(8, "little")
        return Sightings(node=event.node, data=bytes(data))
    moved = _moved(msgspec.to_builtins(event), shift_ns)
    try:
        result: Event = msgspec.convert(moved, type(event))
    except msgspec.ValidationError as error:
        raise GenainetError(f"a record's time is none: {error}") from None
    return result


def _moved(value: Any, shift_ns: int) -> Any:
    if isinstance(value, dict):
        return {
            key: min(item + shift_ns, _LAST)
            if key in _TIMES and isinstance(item, int) and item
            else _moved(item, shift_ns)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_moved(item, shift_ns) for item in value]
    return value
