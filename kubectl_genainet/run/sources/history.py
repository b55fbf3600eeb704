"""The past of a cluster or a lab: what its nodes' recorders, and the recorder of its objects, kept of a range of time."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from kubectl_genainet.bundle import Bundle, Header, new_header
from kubectl_genainet.context.account import gap_text
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.merge import merged
from kubectl_genainet.history.objects import BEFORE_NS, NONE_RECORDED, ObjectsRange, objects_range
from kubectl_genainet.history.ranges import NodeRange, node_range
from kubectl_genainet.history.select import RecordPart, Selection, flows_of, part_of
from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.events import ClusterChanged, Event
from kubectl_genainet.model.finding import listed
from kubectl_genainet.model.history import Gap
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.model.units import rfc3339
from kubectl_genainet.policy import POLICY_KINDS
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.recorded import HISTORY, RecordedSource, for_verb, unknown_objects, warn_of_events
from kubectl_genainet.run.sources.recorders import RecorderAnswer, ask_recorders
from kubectl_genainet.wire import MAX_HISTORY_ADDRESSES, FilterEntry, HistoryRequest

ALL = ("::", "0.0.0.0", "")
MOST_NAMED = 8  # nodes without a recorder, each with a gap of its own


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Wall-clock times in ns since 1970. `options` name it on the command line, for commands that are suggested."""

    since_ns: int
    until_ns: int
    options: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        return f"{rfc3339(self.since_ns)[:19]}Z to {rfc3339(self.until_ns)[:19]}Z"


class HistorySource(RecordedSource):
    """A range of the past of `now`, the source that would be asked about the present."""

    no_recorder = "no recorder runs there now"  # why nothing is known of a node

    def __init__(self, now: Source, when: TimeRange, *, warn: Warn = lambda _: None) -> None:
        super().__init__(namespace=now.namespace, all_namespaces=now.all_namespaces)
        self.now, self.when, self._warn = now, when, warn
        self._lock = threading.RLock()
        self._objects: ObjectsRange | None = None
        self._replays: dict[tuple[str, frozenset[str]], Bundle] = {}
        self._failures: dict[str, GenainetError] = {}  # of nodes, which are not asked again

    def within(self, when: TimeRange) -> HistorySource:
        """The same past, another time."""
        return HistorySource(self.now, when, warn=self._warn)

    @property
    def default_namespace(self) -> str:
        return self.now.default_namespace

    def _read(self) -> ClusterSnapshot:
        """The objects as they were at the range's begin; as they are now where none were recorded, with a warning. Policies of
        now would be blamed for what those of then did: they are not known then."""
        objects = self._recorded_objects()
        if objects.snapshot is not None:
            return objects.snapshot
        now = self.now.snapshot(whole=True)  # a table has none: nothing is said then of what its names are
        remedy = " (`kubectl genainet deploy --record` runs their recorder)" if objects.why == NONE_RECORDED else ""
        self._warn(f"{unknown_objects(objects.why, 'are now')}{remedy}")
        return _of_now(now, objects.why)

    def _recorded_objects(self) -> ObjectsRange:
        with self._lock:
            if self._objects is None:
                self._objects = self._ask_objects()
            return self._objects

    def _ask_objects(self) -> ObjectsRange:
        nothing = ObjectsRange(None, (), ())
        recorder = self.now.objects_recorder()
        if recorder is None:
            return nothing
        request = HistoryRequest(since_ns=max(0, self.when.since_ns - BEFORE_NS), until_ns=self.when.until_ns)
        for name, answer in ask_recorders(recorder.dials, request, recorder.token).items():
            if isinstance(answer, GenainetError):
                return replace(nothing, why=f"their recorder can't be asked ({answer.message})")
            return objects_range(_range(name, answer), self.when.since_ns, self.when.until_ns)
        return nothing

    def endpoints_just_changed(self) -> Mapping[str, int]:
        return self._recorded_objects().just_changed

    def unknown_at_begin(self) -> tuple[str, ...]:
        objects, begin = self._recorded_objects(), self.when.since_ns
        if objects.snapshot is None:  # which was said when it was read
            return ()
        return tuple(gap_text(gap) for gap in objects.gaps if gap.since_ns <= begin <= gap.until_ns)

    def _load(self) -> Bundle:
        return self._bundle_of(tuple(RecordPart), ())

    def replayed(self, verb: str, filters: tuple[FilterEntry, ...]) -> Bundle:
        """The nodes are asked for what the verb reads, of the addresses that it follows."""
        with self._lock:
            if self._bundle is not None:
                return for_verb(self._bundle, verb)
            addresses = frozenset(entry.ip for entry in filters)
            if addresses.intersection(ALL) or len(addresses) > MAX_HISTORY_ADDRESSES:
                addresses = frozenset()
            key = (verb, addresses)
            if key not in self._replays:
                self._replays[key] = for_verb(self._bundle_of((RecordPart(verb), RecordPart.TOTALS), addresses), verb)
            return self._replays[key]

    def _bundle_of(self, parts: Iterable[RecordPart], addresses: Iterable[str]) -> Bundle:
        with self._lock:
            request = HistoryRequest(
                since_ns=self.when.since_ns,
                until_ns=self.when.until_ns,
                parts=tuple(part.value for part in parts),
                addresses=tuple(sorted(addresses)),
            )
            events = self._merged(request)
            elsewhere = _elsewhere(events, request)
            if elsewhere and len(request.addresses) + len(elsewhere) <= MAX_HISTORY_ADDRESSES:
                del events  # both at once would take twice the memory
                events = self._merged(
                    msgspec.structs.replace(request, addresses=tuple(sorted({*request.addresses, *elsewhere})))
                )
            return Bundle(self._whole_header(), self.snapshot(), events)

    def _whole_header(self) -> Header:
        """With what a bundle's reader can't see in its records."""
        objects = self._recorded_objects()
        return msgspec.structs.replace(
            self.recorded_header,
            just_changed=dict(objects.just_changed),
            unknown_at_begin=list(self.unknown_at_begin()),
            objects_unknown=objects.why if objects.snapshot is None else "",
        )

    def _merged(self, request: HistoryRequest) -> Iterable[Event]:
        objects, ranges = self._recorded_objects(), self._ask_nodes(request)
        gone = sorted(nodes_of(objects) - ranges.keys())
        whose = gone if len(gone) <= MOST_NAMED else [*gone[: MOST_NAMED - 1], listed(gone[MOST_NAMED - 1 :])]
        why = f"it was in the cluster then, and {self.no_recorder}"
        gaps = [Gap(node=node, since_ns=request.since_ns, until_ns=request.until_ns, why=why) for node in whose]
        return merged(ranges, replace(objects, gaps=(*objects.gaps, *gaps)), request.since_ns, request.until_ns)

    @property
    def length_s(self) -> float:
        return (self.when.until_ns - self.when.since_ns) / 1e9

    @property
    def recorded_header(self) -> Header:
        arguments = {"since": rfc3339(self.when.since_ns), "until": rfc3339(self.when.until_ns)}
        return new_header(HISTORY, arguments, arguments["since"])

    def _ask_nodes(self, request: HistoryRequest) -> Mapping[str, NodeRange | GenainetError]:
        """Raises GenainetError where no node recorded anything."""
        agents = self.now.recorders()
        dials = {node: dial for node, dial in agents.dials.items() if node not in self._failures}
        ranges: dict[str, NodeRange | GenainetError] = {**self._failures}
        for node, answer in ask_recorders(dials, request, agents.token).items():
            if isinstance(answer, GenainetError):
                ranges[node] = self._failures[node] = answer
                self.failed_nodes.add(node)
                continue
            if answer.late or not answer.complete:
                self.failed_nodes.add(node)
            if answer.late:
                self._failures[node] = GenainetError(f"the agent on node {node} is too slow to be asked again")
            try:
                ranges[node] = _range(node, answer)
            except GenainetError as error:
                ranges[node] = error
        failures = [answer for answer in ranges.values() if isinstance(answer, GenainetError)]
        if failures and len(failures) == len(ranges):
            raise failures[0]
        return ranges

    def rulesets(self, warn: Warn, *, conntrack: bool = False) -> Mapping[str, Sequence[RulesetDump]]:
        state = self._state()
        warn_of_events(state, warn)
        return self._rulesets_at_begin(state)

    def node_reports(self, warn: Warn) -> Mapping[str, NodeReport]:
        """As they were at the range's end: counters and queues tell what happened until then."""
        return {event.node: event for event in self._state().events if isinstance(event, NodeReport)}

    def _state(self) -> Bundle:
        """What the nodes were like, without what they saw."""
        with self._lock:
            if self._bundle is not None:
                return self._bundle
            key = ("state", frozenset[str]())
            if key not in self._replays:
                self._replays[key] = self._bundle_of((RecordPart.CHANGES,), ())
            return self._replays[key]

    @property
    def options(self) -> tuple[tuple[str, ...], ...]:
        return (*self.now.options, *(tuple(map(shlex.quote, option)) for option in self.when.options))

    def __str__(self) -> str:
        return f"what was recorded of {self.now} from {self.when}"


def nodes_of(objects: ObjectsRange) -> set[str]:
    """The nodes that were in the cluster at the begin of the range, or at its end."""
    names = {node.metadata.name for node in objects.snapshot.nodes} if objects.snapshot is not None else set()
    last = next((event for _, event in reversed(objects.changes) if isinstance(event, ClusterChanged)), None)
    later = [raw["metadata"]["name"] for raw in last.objects if raw.get("kind") == "Node"] if last is not None else []
    return {*names, *later}


def _elsewhere(events: Iterable[Event], request: HistoryRequest) -> set[str]:
    """Addresses beside those that were asked for to which connections were translated: the nodes there did not know that
    these were wanted."""
    if not request.addresses:
        return set()
    wanted = Selection(addresses=request.addresses)
    flows = {flow for event in events if part_of(event) is RecordPart.TRACE for flow in flows_of(event)}
    wanted.learn_flows(flows)
    return wanted.elsewhere(flows)


def _of_now(snapshot: ClusterSnapshot, why: str) -> ClusterSnapshot:
    """Objects of now stand for names of then: that something was missing, or was otherwise, is not known by them."""
    kept = tuple(obj for obj in snapshot.objects if (obj.group, obj.kind) not in POLICY_KINDS)
    kinds = {"NetworkPolicy", "Service", "EndpointSlice"}
    kinds |= {obj.kind for obj in snapshot.objects if (obj.group, obj.kind) in POLICY_KINDS}
    unknown = tuple(LeftOut(kind, why) for kind in sorted(kinds))
    return replace(snapshot, objects=kept, left_out=(*snapshot.left_out, *unknown))


def _range(node: str, answer: RecorderAnswer) -> NodeRange:
    return node_range(node, answer.blocks, complete=answer.complete)
