"""Takes the records of the node's always-on session and writes them, block by block, to the node's disk.

Of connections whole: those in trouble, and examples chosen by the hash that all nodes share. Of all others the totals, exact
where the kernel counts them. A block is written at least every FLUSH_S seconds, so that no more is lost when the machine
stops; what is lost, damaged or could not be written shows as a hole between blocks (history/read.py).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from kubectl_genainet.agent import clock
from kubectl_genainet.agent.dns.redact import Redactor, new_key
from kubectl_genainet.agent.record.buckets import Buckets
from kubectl_genainet.agent.record.changes import changes
from kubectl_genainet.agent.record.lives import Lives
from kubectl_genainet.agent.record.options import RecordOptions
from kubectl_genainet.history.blocks import NO_FLAGS, Flag, Span
from kubectl_genainet.history.journal import Journal
from kubectl_genainet.history.rules import difference, sizes, without_counters
from kubectl_genainet.history.select import index_of, is_state, structure_of
from kubectl_genainet.history.store import RecordingLimits, SegmentWriter
from kubectl_genainet.model.dns import GOOD_RCODES, DnsMessage
from kubectl_genainet.model.events import (
    Bye,
    ConnectionCounts,
    DnsDropped,
    DnsEnd,
    DnsMessageSeen,
    DnsTransaction,
    DropCount,
    DropSampled,
    EstablishedCount,
    Event,
    FlowCounters,
    Hello,
    IcmpCount,
    IcmpError,
    IcmpSampled,
    LostEvents,
    PacketDropped,
    Progress,
    ResetCount,
    RetransmitCount,
    Sampled,
    Sightings,
    Tally,
    TcpRetransmit,
)
from kubectl_genainet.model.history import BUCKET_S, LEFT_OUT, ChangeOf, Gap, NodeChange
from kubectl_genainet.model.node import STATISTICS, NodeReport, RulesetDump
from kubectl_genainet.model.packet import ALL_KEPT

FLUSH_S = 5.0
SECOND_NS = 10**9
BUCKET_NS = BUCKET_S * SECOND_NS
STEP_NS = 200_000_000  # a clock that moves so far at once was set
REPORT_S = 60.0  # a report whose structure is the same is written so often: for its counters
EXAMPLES_PER_S = 20  # connections that are kept whole, whatever becomes of them
EXCHANGES = 250  # DNS exchanges without trouble, of a block, that are kept whole
SLOW_EXCHANGE_NS = 250_000_000
DROP_ROWS = 2_000  # of a block; beyond, drops are counted without their sources
MAX_PENDING = 8 << 20  # bytes of sightings: a block is written then


class Recorder:
    """Of one session. `take` gets decoded records, from any thread; `sighting` packets as the kernel wrote them, and
    `tick` the time, from one. `wall` and `mono` are the node's clocks in ns."""

    def __init__(
        self,
        node: str,
        options: RecordOptions,
        hello: Hello,
        *,
        wall: Callable[[], int] = time.time_ns,
        mono: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Raises OSError where the folder can't be made."""
        self.node, self.hello = node, hello
        self._wall, self._mono = wall, mono
        self._writer = SegmentWriter(Path(options.folder), RecordingLimits(options.size, options.age_s))
        self._redactor = None if options.dns_names else Redactor(new_key())
        self._journal = Journal(self._writer, uuid.UUID(hello.boot_id).bytes)
        self._lock = threading.RLock()
        self._lives = Lives(node, self._put, self._sighted)
        self._buckets = Buckets(node, self._lives.times)
        self._sighted_data: list[bytes] = []
        self._pending: list[Event] = []
        self._earliest_ns: int | None = None
        self._folded: dict[tuple[object, ...], Event] = {}  # counters: of a block the last, or the sum of a second
        self._exchanges = self._exchanges_left = 0
        self._report: NodeReport | None = None
        self._structure: NodeReport | None = None
        self._reported_ns = self._changes_since_ns = 0
        self._dumps: dict[str, RulesetDump] = {}
        self._state_before: list[Event] = [hello]  # as it was when the last block ended
        now, self._mono_from = clock.now(wall, mono)
        self._wall_from, self._ahead = now, now - self._mono_from
        self._bucket_from = now
        self._shares_at, self._begun, self._kernel_share = self._mono_from, 0, ALL_KEPT

    def sighting(self, data: bytes) -> None:
        with self._lock:
            self._lives.sighting(data)
        if len(self._sighted_data) * len(data) > MAX_PENDING:
            self.flush()

    def _sighted(self, data: bytes) -> None:
        t_ns = int.from_bytes(data[:8], "little")
        if self._earliest_ns is None or t_ns < self._earliest_ns:
            self._earliest_ns = t_ns
        self._sighted_data.append(data)

    def take(self, event: Event, *, of_drops: bool = False) -> None:
        """One decoded record; `of_drops`: by the drops probe."""
        if isinstance(event, DnsTransaction | DnsDropped | DnsMessageSeen):
            event = self._without_names(event)
        with self._lock:
            if isinstance(event, DropCount):
                self._close_bucket_before(event.t_ns + self._ahead)
            self._buckets.take(event, self._ahead)
            match event:
                case PacketDropped() if of_drops and not isinstance(event, DnsDropped):
                    self._put(DropSampled(**_fields(event)))
                case IcmpError() if of_drops:
                    self._put(IcmpSampled(**_fields(event)))
                case DnsTransaction():
                    self._exchange(event)
                case IcmpError() | TcpRetransmit() | PacketDropped() | FlowCounters():
                    self._lives.take(event)
                case DropCount() | IcmpCount() | ResetCount() | RetransmitCount() | EstablishedCount():
                    self._fold(event)
                case Sampled():
                    self._kernel_share = event.share
                    self._say_share(event.t_ns)
                case NodeReport():
                    self._node(event)
                case RulesetDump():
                    self._rules(without_counters(event))
                case Progress(stage="attached"):
                    self._attached(event.t_ns)
                case Progress() if event.stage != "missing":
                    pass
                case Hello() | Bye() | Sightings():
                    pass  # its own, or in the buckets
                case _:
                    self._put(event)

    def counted(self, counts: ConnectionCounts) -> None:
        """What the kernel counted between two ends since it was asked last."""
        with self._lock:
            self._close_bucket_before(counts.t_ns + self._ahead)
            self._buckets.counted(counts)

    def _attached(self, mono: int) -> None:
        """From now on the node is watched: nothing is known of the time that loading the probes took."""
        if self._journal.empty:
            self._mono_from, self._wall_from = mono, mono + self._ahead
            self._bucket_from = self._wall_from

    def _put(self, event: Event) -> None:
        if isinstance(event, FlowCounters):
            self._folded[event.flow, event.netns, event.ifindex, event.device, event.point, event.began_ns] = event
            return
        t_ns = getattr(event, "t_ns", 0)
        if t_ns and not is_state(event) and (self._earliest_ns is None or t_ns < self._earliest_ns):
            self._earliest_ns = t_ns
        self._pending.append(event)

    def _fold(self, event: Tally) -> None:
        """Counts about the same become one, of each second: counted later, what was before a change would be after it."""
        fields = _fields(event)
        summed = {name for name in ("packets", "bytes", "in_vain") if name in fields}
        if len(self._folded) > DROP_ROWS:
            flow = event.flow
            fields["flow"] = msgspec.structs.replace(flow, src="", sport=0)
        key: tuple[object, ...] = (
            type(event),
            event.t_ns // SECOND_NS,
            *(v for name, v in sorted(fields.items()) if name not in summed and name != "t_ns"),
        )
        before = self._folded.get(key)
        if before is not None:
            fields |= {name: fields[name] + getattr(before, name) for name in summed}
        self._folded[key] = cast(Event, type(event)(**fields))

    def _exchange(self, event: DnsTransaction) -> None:
        # No such name is an answer too: were it kept and others not, its share would grow with the load.
        answered = event.end is DnsEnd.ANSWERED and event.answer is not None and event.answer.rcode in GOOD_RCODES
        quick = answered and event.response and event.response[-1].t_ns - event.query[0].t_ns < SLOW_EXCHANGE_NS
        if quick and self._exchanges >= EXCHANGES:
            self._exchanges_left += 1
            return
        self._exchanges += bool(quick)
        self._put(event)

    def _without_names(self, event: Event) -> Event:
        if self._redactor is None:
            return event
        hidden: dict[str, DnsMessage] = {}
        for name in ("asked", "answer", "message"):
            message = getattr(event, name, None)
            if isinstance(message, DnsMessage):
                hidden[name] = self._redactor.message(message)
        return msgspec.structs.replace(event, **hidden)

    def _node(self, report: NodeReport) -> None:
        now = self._wall()
        if self._report is not None:
            changed = changes(self._report, report, self._changes_since_ns, now)
            self._pending += changed
        self._report, self._changes_since_ns = report, now
        shape = structure_of(report)
        if shape != self._structure or now - self._reported_ns >= REPORT_S * 1e9:
            self._structure, self._reported_ns = shape, now
            self._pending.append(report)

    def _rules(self, dump: RulesetDump) -> None:
        before = self._dumps.get(dump.source)
        self._dumps[dump.source] = dump
        change = difference(before, dump) if before is not None else None
        self._pending.append(change if change is not None else dump)
        if before is not None and before.text != dump.text and dump.source not in STATISTICS:
            old, new = sizes(before, dump)
            now = self._wall()
            self._pending.append(
                NodeChange(
                    node=self.node,
                    at_ns=now,
                    since_ns=now,
                    what=ChangeOf.RULES,
                    subject=dump.source,
                    before=old,
                    after=new,
                )
            )

    def _say_share(self, t_ns: int) -> None:
        self._buckets.followed = min(self._buckets.followed, self._kernel_share)
        self._put(Sampled(node=self.node, t_ns=t_ns, kept=min(self._kernel_share, self._lives.share)))

    def _set_share(self, now_ns: int) -> None:
        """How many examples are kept, by how many connections there were; halved and doubled, so that of two nodes the one with
        fewer keeps a part of what the other keeps."""
        seconds = max((now_ns - self._shares_at) / 1e9, 1e-3)
        per_s = (self._lives.begun - self._begun) / seconds
        self._shares_at, self._begun = now_ns, self._lives.begun
        share = self._lives.share
        kept_per_s = per_s * min(1.0, share / max(self._kernel_share, 1))
        if kept_per_s > EXAMPLES_PER_S and share > 1:
            while kept_per_s > EXAMPLES_PER_S and share > 1:
                share, kept_per_s = share // 2, kept_per_s / 2
        elif kept_per_s < EXAMPLES_PER_S / 4 and share < ALL_KEPT:
            share = min(ALL_KEPT, 2 * share)
        if share != self._lives.share:
            self._lives.share = share
            self._say_share(now_ns)

    def tick(self) -> None:
        """Once a second."""
        with self._lock:
            wall, mono = clock.now(self._wall, self._mono)
            self._lives.look(mono)
            if mono - self._shares_at >= BUCKET_NS:
                self._set_share(mono)
            if abs(wall - mono - self._ahead) > STEP_NS:
                self._clock_was_set(wall - mono - self._ahead)
            elif wall // BUCKET_NS != self._bucket_from // BUCKET_NS:
                self._close_bucket(wall)
            if mono - self._mono_from >= FLUSH_S * 1e9 - 5e8:
                self.flush()

    def _close_bucket_before(self, wall: int) -> None:
        """What is read from the kernel's tables after the end of a bucket is not of it: counted earlier than it happened, an
        effect would stand before its cause."""
        if wall // BUCKET_NS > self._bucket_from // BUCKET_NS:
            self._close_bucket(wall)

    def _close_bucket(self, wall: int) -> None:
        begin = self._bucket_from
        self._bucket_from = wall // BUCKET_NS * BUCKET_NS if wall > begin else wall
        self._pending.append(self._buckets.close(begin, self._bucket_from if wall > begin else begin))
        self._buckets.followed = min(self._kernel_share, ALL_KEPT)

    def _clock_was_set(self, step_ns: int) -> None:
        """What was seen until now is by the old clock; what follows is by the new one, in a segment of its own."""
        mono = self._mono()
        until = self._ahead + mono
        self._pending.append(self._buckets.close(self._bucket_from, until))
        if step_ns < 0:
            why = f"the node's clock was set back by {-step_ns / 1e9:.1f} s: these times are recorded twice"
            self._pending.append(Gap(node=self.node, since_ns=until + step_ns, until_ns=until, why=why, partial=True))
        self._write(until, mono)
        self._writer.end_segment()
        self._ahead += step_ns
        self._wall_from = self._bucket_from = self._ahead + mono

    def flush(self) -> None:
        """Writes what there is."""
        with self._lock:
            wall, mono = clock.now(self._wall, self._mono)
            self._ahead = wall - mono if abs(wall - mono - self._ahead) <= STEP_NS else self._ahead
            self._write(self._ahead + mono, mono)

    def _write(self, until: int, mono: int) -> None:
        whole = self._journal.begin(until)
        records = self._records(whole)
        covers = Span(self._wall_from, max(until, self._wall_from), self._mono_from, mono)
        flags = Flag.STATE if any(map(is_state, records)) else NO_FLAGS
        flags |= Flag.WHOLE_STATE if whole else NO_FLAGS
        earliest_ns = self._earliest_ns + self._ahead if self._earliest_ns is not None else None
        self._journal.write(records, covers, flags, earliest_ns=earliest_ns, addresses=index_of(records))
        self._wall_from, self._mono_from = covers.wall_until, mono
        self._earliest_ns = None

    def _records(self, whole: bool) -> list[Event]:
        """What the next block holds, taken out of what waits."""
        records, self._pending = self._pending, []
        if whole:
            records = [*self._state_before, *records]
        records += self._folded.values()
        self._folded = {}
        if self._sighted_data:
            records.append(Sightings(node=self.node, data=b"".join(self._sighted_data)))
            self._sighted_data = []
        if self._exchanges_left:
            records.append(LostEvents(node=self.node, probe="dns", count=self._exchanges_left, where=LEFT_OUT))
        self._exchanges = self._exchanges_left = 0
        self._state_before = self._state()
        return records

    def _state(self) -> list[Event]:
        """What is known by now, for the block that follows."""
        share = Sampled(node=self.node, t_ns=self._mono_from, kept=min(self._kernel_share, self._lives.share))
        known: list[Event] = [self.hello]
        if share.share < ALL_KEPT:
            known.append(share)
        if self._report is not None:
            known.append(self._report)
        return [*known, *self._dumps.values()]

    def close(self, watched_until: int | None = None) -> None:
        """Writes the last block: of the time until `watched_until`, monotonic, or until now."""
        with self._lock:
            mono = self._mono() if watched_until is None else watched_until
            until = self._ahead + mono
            self._pending.append(self._buckets.close(self._bucket_from, max(until, self._bucket_from)))
            self._write(until, mono)
            self._writer.close()


def _fields(event: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}
