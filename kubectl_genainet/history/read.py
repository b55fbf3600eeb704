"""A time range of a recording: its blocks, the state that they build on, and what is missing.

What is missing is never passed over: a time within the range that no readable block covers is a Gap that says why.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kubectl_genainet.history.blocks import NO_FLAGS, Block, BlockError, Damage, Flag, Span, encode_block, scan
from kubectl_genainet.history.rules import RulesetHistory
from kubectl_genainet.history.select import Selection, structure_of
from kubectl_genainet.history.store import Segment, segments
from kubectl_genainet.model.events import ClusterChanged, Event, Hello, Sampled, Tick
from kubectl_genainet.model.history import Gap, ObjectChanged, RulesetChange
from kubectl_genainet.model.node import NodeReport, RulesetDump

_EMPTY_NS = 60_000_000_000
SHORT = 1 << 20  # bytes of an answer that are kept until it is known that nothing has to be read again
UNCOVERED_NS = 20_000_000  # less than that between two blocks is the time that writing takes
NOT_RUN = "the recorder did not run"
NOT_RECORDED = "the recorder began later, or older records were removed"
NOT_WRITTEN = "not written yet, or the recorder does not run"
NOT_WRITABLE = "the recorder could not write to the node's disk: it was full, or failed"
FORWARD = "the node's clock was set forward"
MISSING = "records are missing"
DAMAGED = "records on the node's disk are damaged"
STATE_DAMAGED = "what was recorded of the node's namespaces and rules shortly before is damaged or missing"
NEWER = "the records were written by a newer version"


@dataclass(slots=True)
class _State:
    """What the records of a range build on, as it was at the start of the range."""

    rules: RulesetHistory = field(default_factory=RulesetHistory)
    report: NodeReport | None = None
    cluster: ClusterChanged | None = None
    objects: list[Event] = field(default_factory=list)  # changes since `cluster`
    others: dict[type, Event] = field(default_factory=dict)  # the last of those that hold until the next
    damaged: bool = False

    def take(self, event: Event) -> None:
        match event:
            case RulesetDump() | RulesetChange():
                self.rules.take(event)
            case NodeReport():
                self.report = event
            case ClusterChanged():
                self.cluster, self.objects = event, []
            case ObjectChanged():
                self.objects.append(event)
            case Hello() | Sampled():
                self.others[type(event)] = event
            case _:
                pass

    def records(self) -> list[Event]:
        known: list[Event] = [r for r in (self.cluster, *self.objects, self.report) if r is not None]
        return [*self.others.values(), *known, *self.rules.latest.values()]


@dataclass(slots=True)
class _Coverage:
    """Which part of the range was covered, and what was not. Blocks come in the order of writing; they are put in that of the
    wall clock at the end, which may have been set back meanwhile."""

    node: str
    since_ns: int
    until_ns: int
    gaps: list[Gap] = field(default_factory=list)
    damage: bool = False  # since the last block
    is_cut: bool = False  # what comes last is no block: it is being written, was never whole, or is damaged
    # When each begins, its place, and whether something damaged came before it.
    _blocks: list[tuple[int, int, Block, bool]] = field(default_factory=list)
    _last: Block | None = None

    def block(self, block: Block) -> None:
        before, begin = self._last, block.covers.wall_from
        missing = before is not None and before.session == block.session and block.number != before.number + 1
        if self.damage and missing and before is not None and begin <= before.covers.wall_until:
            self._gap(begin, begin, DAMAGED, partial=True)  # the clock was set back over it
        self._blocks.append((begin, len(self._blocks), block, self.damage))
        self._last, self.damage = block, False

    def lacks_before(self, block: Block) -> bool:
        """Whether what was written just before the block is not there: it was damaged, or has gone. In a table a minute of
        blocks may be one, so that it is not the number alone that tells."""
        before = self._last
        if self.damage or before is None or before.session != block.session:
            return Flag.FIRST not in block.flags
        return block.number > before.number + 1 and block.covers.wall_from > before.covers.wall_until + UNCOVERED_NS

    def _gap(self, since_ns: int, until_ns: int, why: str, *, partial: bool = False) -> None:
        since, until = max(since_ns, self.since_ns), min(until_ns, self.until_ns)
        if since < until or (partial and since <= until):
            self.gaps.append(Gap(node=self.node, since_ns=since, until_ns=until, why=why, partial=partial))

    def end(self) -> list[Gap]:
        covered, before = self.since_ns, None
        for begin, _, block, damage in sorted(self._blocks):
            if begin > covered + (0 if damage else UNCOVERED_NS):
                self._gap(covered, begin, DAMAGED if damage else _why(before, block))
            covered = max(covered, block.covers.wall_until)
            before = block
        if covered + (0 if self.damage or self.is_cut else UNCOVERED_NS) < self.until_ns:
            why = DAMAGED if self.damage else NOT_RECORDED if before is None else NOT_WRITTEN
            self._gap(covered, self.until_ns, why)
        return self.gaps


def _why(before: Block | None, block: Block) -> str:
    """Why nothing is known of the time between two blocks."""
    if Flag.UNWRITTEN in block.flags:
        return NOT_WRITABLE
    if before is None:
        return NOT_RECORDED
    if before.session != block.session:
        return NOT_RUN
    return FORWARD if block.number == before.number + 1 else MISSING


class RangeReader:
    """What of the recording in `folder` lies between two wall-clock times, as blocks: first the state at its start, last one
    with the flag END and the gaps."""

    def __init__(self, folder: Path, node: str, since_ns: int, until_ns: int, wanted: Selection | None = None) -> None:
        self.folder, self.node, self.since_ns, self.until_ns = folder, node, since_ns, until_ns
        self.wanted = wanted or Selection()
        self._everything = self.wanted.everything
        self._learning = self._twice = False  # the other ends of connections; whether all must be read once more
        self._begin()

    def _begin(self) -> None:
        """Nothing is read yet."""
        self._coverage = _Coverage(self.node, self.since_ns, self.until_ns)
        self._gaps: list[Gap] = []
        self._state = _State()
        self._in_range = False  # a block of the range was met
        self._empty: tuple[Block, Block, list[Event]] | None = None
        self._structure: NodeReport | None = None  # of the last report that was sent
        self._last_report: NodeReport | None = None  # that was not sent: it tells new counters only

    def blocks(self) -> Generator[bytes]:
        """Raises OSError where the folder can't be read."""
        kept = list(self._segments())
        if self.wanted.addresses is not None:
            answer = self._learn_ends(kept)
            if answer is not None:
                yield from answer
                return
            self._begin()
        yield from self._answer(kept)

    def _learn_ends(self, kept: list[Segment]) -> list[bytes] | None:
        """Has `wanted` learn the other ends of the wanted connections. Returns the answer where there are none, as on most of
        a fleet's nodes, and it is short: nothing has to be read twice."""
        answer: list[bytes] = []
        size = 0
        self._learning = True
        for block in self._answer(kept):
            size += len(block)
            if size > SHORT:
                self._twice = True
            if not self._twice:
                answer.append(block)
        self._learning = False
        return None if self._twice else answer

    def _answer(self, kept: list[Segment]) -> Generator[bytes]:
        sent_state = False
        for path in kept:
            for block in self._inside(path):
                if not sent_state:
                    sent_state = True
                    yield from self._state_block(block)
                yield from self._chosen(block)
        yield from self._pending()
        gaps = [*self._coverage.end(), *self._gaps]
        if self._state.damaged:
            begin = self.since_ns
            gaps.append(Gap(node=self.node, since_ns=begin, until_ns=begin, why=STATE_DAMAGED, partial=True))
        covers = Span(self.since_ns, self.until_ns, 0, 0)
        last = [self._last_report] if self._last_report is not None else []
        yield encode_block([*gaps, *last], covers, session=0, number=0, boot_id=bytes(16), flags=Flag.END)

    def _segments(self) -> Iterator[Segment]:
        """Those that may hold something of the range. A segment ends where the next begins, unless a clock was set back."""
        listed = segments(self.folder)
        before: Segment | None = None  # it tells why there is a hole
        for number, segment in enumerate(listed):
            following = listed[number + 1] if number + 1 < len(listed) else None
            if following is not None and segment.since_ns < following.since_ns <= self.since_ns:
                before = segment
                continue
            if before is not None:
                yield before
                before = None
            yield segment

    def _inside(self, segment: Segment) -> Iterator[Block]:
        """The blocks of the range; those before it give the state."""
        try:
            data = segment.path.read_bytes()
        except FileNotFoundError:  # removed meanwhile, as the oldest
            return
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._coverage.damage = True  # the disk can't give it back; the others are read
            return
        for part in scan(data):
            if isinstance(part, Damage):
                # What is being written now is cut too: it is missing at the end, and nowhere else.
                is_last = part.cut and not self._is_old(segment)
                self._coverage.damage = self._coverage.damage or not is_last
                self._coverage.is_cut = is_last
                continue
            span = part.covers
            if part.earliest_ns >= self.until_ns and span.wall_from >= self.until_ns:
                self._coverage.block(part)
                continue
            if span.wall_until <= self.since_ns and span.wall_from < self.since_ns:
                self._learn_state(part)
                self._coverage.block(part)
                continue
            if not self._in_range:
                self._in_range = True
                if span.wall_from <= self.since_ns:  # a hole within the range is told itself
                    self._check_state(part)
            self._coverage.block(part)
            yield part

    def _check_state(self, block: Block) -> None:
        """Notes whether what the block builds on is known."""
        if Flag.WHOLE_STATE in block.flags:
            self._state.damaged = False
        elif self._coverage.lacks_before(block):
            self._state.damaged = True

    def _learn_state(self, block: Block) -> None:
        if Flag.WHOLE_STATE in block.flags:
            self._state = _State()
        self._check_state(block)
        if Flag.STATE in block.flags:
            for event in self._records(block):
                self._state.take(event)

    def _is_old(self, segment: Segment) -> bool:
        return segment != segments(self.folder)[-1]

    def _records(self, block: Block) -> list[Event]:
        try:
            return block.records()
        except BlockError:
            span = block.covers
            since, until = max(span.wall_from, self.since_ns), min(span.wall_until, self.until_ns)
            gap = Gap(node=self.node, since_ns=since, until_ns=max(since, until), why=NEWER)
            if gap not in self._gaps:
                self._gaps.append(gap)
            return []

    def _may_have(self, block: Block) -> bool:
        keys = self.wanted.keys
        return keys is None or Flag.STATE in block.flags or block.has_any(keys)

    def _state_block(self, first: Block) -> Iterator[bytes]:
        records = self._state.records()
        if self._state.report is not None:
            self._structure = structure_of(self._state.report)
        if records:
            ahead = first.covers.ahead
            covers = Span(self.since_ns, self.since_ns, self.since_ns - ahead, self.since_ns - ahead)
            flags = Flag.STATE | Flag.WHOLE_STATE
            yield encode_block(records, covers, session=first.session, number=0, boot_id=first.boot_id, flags=flags)

    def _chosen(self, block: Block) -> Iterable[bytes]:
        if self._everything:
            return (block.data,)
        if not self._may_have(block):
            return self._nothing(block, [])
        records = self._records(block)
        if self._learning:
            self.wanted.learn(records)
            self._twice = self._twice or self.wanted.has_learnt
            if self._twice:
                return ()
        chosen = [event for event in map(self._choose, records) if event is not None]
        if all(isinstance(event, Tick) for event in chosen):
            return self._nothing(block, chosen[-1:])
        return (*self._pending(), _with(block, chosen, block.covers, block.flags & ~Flag.INDEXED))

    def _choose(self, event: Event) -> Event | None:
        """What is wanted of a record. Of reports in a row that differ in their counters only: the first, and at the end the
        last."""
        if not isinstance(event, NodeReport):
            return self.wanted.choose(event)
        structure = structure_of(event)
        if structure == self._structure:
            self._last_report = event
            return None
        self._structure, self._last_report = structure, None
        return event

    def _nothing(self, block: Block, ticks: list[Event]) -> Iterable[bytes]:
        """Blocks in which nothing is wanted become one, as long as they follow each other. Returns the one before that."""
        pending = self._empty
        if pending is not None:
            first, before, _ = pending
            if (
                before.session == block.session
                and before.number + 1 == block.number
                and block.covers.wall_until - first.covers.wall_from < _EMPTY_NS
            ):
                self._empty = (first, block, ticks or pending[2])
                return ()
        ended = tuple(self._pending())
        self._empty = (block, block, ticks)
        return ended

    def _pending(self) -> Iterator[bytes]:
        if self._empty is None:
            return
        first, last, ticks = self._empty
        self._empty = None
        begin, end = first.covers, last.covers
        covers = Span(begin.wall_from, end.wall_until, begin.mono_from, end.mono_until)
        yield _with(last, ticks, covers, NO_FLAGS)


def _with(block: Block, records: list[Event], covers: Span, flags: Flag) -> bytes:
    """A block with other records."""
    return encode_block(
        records,
        covers,
        earliest_ns=min(block.earliest_ns, covers.wall_from),
        session=block.session,
        number=block.number,
        boot_id=block.boot_id,
        flags=flags,
    )
