"""What several nodes recorded of one time, as one stream of events: as if their agents had been watched then.

The records of all nodes come in order of time. A short range is held in memory; of a long one the blocks are, deflated, and
its events are made of them as they are asked for.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter

import msgspec

from kubectl_genainet.collector import collector_paused
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.node_records import NodeRecords, Timed, is_one_event
from kubectl_genainet.history.objects import ObjectsRange
from kubectl_genainet.history.ranges import NodeRange
from kubectl_genainet.history.select import RecordPart, part_of
from kubectl_genainet.model.events import AgentFailed, Bye, ConnectionCounts, Event, LostEvents

HELD = 500_000  # events of a range that are held: about 250 MB
MAX_EVENTS = 30_000_000  # of a range, of all nodes: some 20 minutes of work


class RangeTooLargeError(GenainetError):
    """More is recorded of a range than anybody would wait for."""


class _NodeStream:
    """One node's events in order of time, made of its blocks each time that they are asked for. A block's events may be
    earlier than those of the blocks before it: how early is looked for first."""

    def __init__(self, node_range: NodeRange, since_ns: int, until_ns: int) -> None:
        """Raises GenainetError where the records are not the node's."""
        self._range, self._since_ns, self._until_ns = node_range, since_ns, until_ns
        records = self._records()
        earliest: list[float] = []
        self.count = 0
        for _ in records.blocks(node_range):
            made = records.take_out()
            earliest.append(min((at_ns for at_ns, _ in made), default=math.inf))
            self.count += len(made)
        records.end(node_range)
        self._last = sorted(records.take_out(), key=itemgetter(0))
        self._later: list[float] = [math.inf]  # the earliest time in any block after this one, from the last block on
        for at_ns in reversed(earliest[1:]):
            self._later.append(min(at_ns, self._later[-1]))
        self._later.reverse()

    def _records(self) -> NodeRecords:
        return NodeRecords(self._range.node, self._since_ns, self._until_ns)

    def __iter__(self) -> Iterator[Timed]:
        return heapq.merge(self._of_blocks(), self._last, key=itemgetter(0))

    def _of_blocks(self) -> Iterator[Timed]:
        records, waiting, number = self._records(), list[tuple[int, int, Event]](), 0
        for later_ns, _ in zip(self._later, records.blocks(self._range), strict=False):
            for at_ns, event in records.take_out():
                heapq.heappush(waiting, (at_ns, number, event))
                number += 1
            while waiting and waiting[0][0] <= later_ns:
                at_ns, _, event = heapq.heappop(waiting)
                yield at_ns, event


class LongRange:
    """The events of a range that has too many to hold them; each iteration makes them anew."""

    def __init__(self, sources: list[_NodeStream | list[Timed]]) -> None:
        self._sources = sources

    def __iter__(self) -> Iterator[Event]:
        return (event for _, event in heapq.merge(*self._sources, key=itemgetter(0)))


def merged(
    nodes: Mapping[str, NodeRange | GenainetError], objects: ObjectsRange, since_ns: int, until_ns: int
) -> Iterable[Event]:
    """The events of a range, of all nodes and in order of time, as often as they are asked for. A node that did not answer is
    an AgentFailed in it.

    Raises RangeTooLargeError for more than MAX_EVENTS.
    """
    changes = [(at_ns, event) for at_ns, event in objects.changes if at_ns <= until_ns]
    own: list[Timed] = [*changes, *((gap.since_ns, gap) for gap in objects.gaps)]
    ranges: dict[str, NodeRange] = {}
    for node, answer in sorted(nodes.items()):
        if isinstance(answer, NodeRange):
            ranges[node] = answer
        else:
            own.append(_failed(node, since_ns, answer))
    own.sort(key=itemgetter(0))
    with collector_paused():
        held = _short(ranges, own, since_ns, until_ns)
    return held if held is not None else _long(ranges, own, since_ns, until_ns)


def _short(ranges: Mapping[str, NodeRange], own: list[Timed], since_ns: int, until_ns: int) -> tuple[Event, ...] | None:
    """All events; None for more than HELD."""
    timed = list(own)
    for node, node_range in ranges.items():
        records, before = NodeRecords(node, since_ns, until_ns), len(timed)
        try:
            for _ in records.blocks(node_range):
                timed += records.take_out()
                if len(timed) > HELD:
                    return None
            records.end(node_range)
            timed += records.take_out()
        except GenainetError as error:  # the others are still told
            del timed[before:]
            timed.append(_failed(node, since_ns, error))
    timed.sort(key=itemgetter(0))
    return tuple(event for _, event in timed)


def _long(ranges: Mapping[str, NodeRange], own: list[Timed], since_ns: int, until_ns: int) -> LongRange:
    sources: list[_NodeStream | list[Timed]] = [own]
    count = 0
    for node, node_range in ranges.items():
        try:
            stream = _NodeStream(node_range, since_ns, until_ns)
        except GenainetError as error:
            sources.append([_failed(node, since_ns, error)])
            continue
        sources.append(stream)
        count += stream.count
        if count > MAX_EVENTS:
            raise RangeTooLargeError(
                f"more than {MAX_EVENTS:,} events were recorded of that time",
                hint="Ask for a shorter time (--for, --until), or for a target.",
            )
    return LongRange(sources)


def _failed(node: str, since_ns: int, error: GenainetError) -> Timed:
    return since_ns, AgentFailed(node=node, message=error.message, hint=error.hint)


class OfVerb:
    """Of the events of a range those that a verb's own recording would have, as often as they are asked for."""

    def __init__(self, events: Iterable[Event], own: RecordPart) -> None:
        self._events, self._own = events, own

    def __iter__(self) -> Iterator[Event]:
        return of_verb(self._events, self._own)


def of_verb(events: Iterable[Event], own: RecordPart) -> Iterator[Event]:
    """Of all events those that a verb's own recording would have."""
    lost: dict[str, int] = defaultdict(int)
    sent: dict[str, int] = defaultdict(int)
    for event in events:
        part = part_of(event)
        node = getattr(event, "node", "")
        if isinstance(event, Bye):
            own_sent, own_lost = sent[node], lost[node]
            yield msgspec.structs.replace(event, emitted=own_sent + own_lost, sent=own_sent, lost=own_lost)
            continue
        if part is not None and part is not own:
            continue
        if isinstance(event, ConnectionCounts) and own is not RecordPart.TRACE:
            continue
        if isinstance(event, LostEvents):
            lost[node] += event.count
        elif part is own and is_one_event(event):
            sent[node] += 1
        yield event
