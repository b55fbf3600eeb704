"""A run over packets: the agents' records or a bundle's, the cluster's changes in between, the recording, the end by
time, by Ctrl-C or because everything was seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Protocol

import msgspec

from kubectl_genainet.bundle import Bundle, BundleWriter, new_header
from kubectl_genainet.context.context import Context
from kubectl_genainet.context.unread import unread_kinds
from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.model.events import AgentFailed, ClusterChanged, Event, PacketSeen, Progress
from kubectl_genainet.model.finding import Finding, listed
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.target import not_found
from kubectl_genainet.priority import giving_way
from kubectl_genainet.run.agents import GOODBYE_S, LAST_S, LOAD_S, PREPARING, Agents, read_rulesets
from kubectl_genainet.run.as_used import PLUGIN, AsUsed
from kubectl_genainet.run.interrupts import Interrupts
from kubectl_genainet.run.sources.base import Follower, Source
from kubectl_genainet.run.view import View
from kubectl_genainet.run.watch import RulesTold, seen_twice
from kubectl_genainet.shell import sh
from kubectl_genainet.stream import Streams
from kubectl_genainet.wire import MAX_TIMEOUT_S, Filters, TraceRequest

REFRESH_S = 2.0  # how often the API's objects are looked at for endpoints that came and went
REFRESH_SHARE = 0.2  # of the time, at most, is spent on that: a change in 50,000 pods takes a second to take in
SETTLE_S = 600.0  # agents that watch wait so long, at most, for those that still compile their probes
POLL_S = 0.05
WIND_UP_S = 2.5  # before a run's answer is due, for the agents' last records and what is made of them, at least
WIND_UP_SHARE = 0.5  # of the time that the agents took to start: where that is slow, the end is as well
LEAST_WATCH_S = 8.0  # a run whose answer is due watches at least so long, however long its agents took to start
EVENTS_PER_SECOND = 7_400  # of all nodes, that a client takes in on a sixth of a core: it may be the workload's
LEAST_EVENTS = 500  # of a node
MANY_NODES = 50  # beyond, a node describes itself with its first packet: rules of 5,000 Services are megabytes a node


class Correlator(Protocol):
    """What joins records, as far as all do it."""

    @property
    def context(self) -> Context: ...


class Run(Protocol):
    """What a verb makes of the records. `filters` are followed as they change with the cluster's objects and rules."""

    @property
    def view(self) -> View: ...

    @property
    def correlator(self) -> Correlator: ...

    @property
    def filters(self) -> Filters: ...

    def take(self, event: Event) -> None:
        """One record, live or replayed: the same way."""

    def finish(self, *, live: bool) -> ExitStatus:
        """Tells the view what is left, and the summary."""


@dataclass(frozen=True, slots=True)
class Watching:
    """How a live run watches.

    `request` makes each node's request. `timeout_s` counts once all agents do. `node`: only what this node sees; `nodes`: those
    that host an end of what is watched (empty: any may). `enough` may say, at a record, for how many seconds more to watch.
    `record` is the file of a bundle, `arguments` what its header says of the run. `due` is when the answer is (by
    time.monotonic(); 0: whenever it is there): where the agents took long to start, the run watches for a shorter time.
    `differs` is what the run would say that the nodes' rules say otherwise than the API: they are read again before.
    """

    command: str
    request: Callable[[str], TraceRequest]
    timeout_s: float
    arguments: dict[str, Any]
    node: str = ""
    nodes: frozenset[str] = frozenset()
    enough: Callable[[Event], float | None] = lambda _: None
    record: str = ""
    redacted: bool = False
    due: float = 0.0
    differs: Callable[[], Iterable[Finding]] = tuple


def perform(run: Run, source: Source, watching: Watching) -> ExitStatus:
    """Feeds the run what the source recorded, or what its agents see. Ctrl-C ends a live run as its time does.

    Raises GenainetError for a bundle of another command, for an agent or a file that is not there, and where every agent
    failed.
    """
    filters = run.filters
    bundle = source.recording if isinstance(filters, dict) else source.replayed(watching.command, filters)
    if bundle is None:
        return _watch(run, source, watching)
    is_written = not watching.record or _write_again(source, watching.record, run.view)
    status = _replay(run, source, bundle, watching.command)
    return status if is_written else ExitStatus.FAILED


def _write_again(source: Source, file: str, view: View) -> bool:
    """Writes all that a recording has as a bundle; whether it is whole."""
    bundle = source.recording
    assert bundle is not None
    with BundleWriter(file, bundle.header, bundle.snapshot) as writer:
        for event in bundle.events:
            writer.write(event)
    if writer.problem:
        view.warn(writer.problem)
    return not writer.problem


def check_recorded_by(source: Source, bundle: Bundle, command: str) -> None:
    """Raises GenainetError for a bundle of another command: without its probe's events, "nothing was seen" would be untrue.

    The hint is the command that reads `source`.
    """
    recorded = bundle.header.command
    if recorded not in ("", command):
        raise GenainetError(
            f"the bundle was recorded by `{recorded}`: it has none of the events that `{command}` reads",
            hint=AsUsed(source.options).command(f"{PLUGIN}{sh(recorded)}"),
        )


def _replay(run: Run, source: Source, bundle: Bundle, command: str) -> ExitStatus:
    if not isinstance(run.filters, dict):  # else it is several commands' run, which looks for itself
        check_recorded_by(source, bundle, command)
    with run.view:
        run.view.replaying(bundle.header)
        _warn_of_unread(run)
        failed = bool(source.failed_nodes)
        for event in bundle.events:
            run.take(event)
            failed = failed or isinstance(event, AgentFailed)
        return run.finish(live=False).with_failures(failed)


def _watch(run: Run, source: Source, watching: Watching) -> ExitStatus:
    session = LiveSession(run, source, watching)
    with run.view:
        _warn_of_unread(run)
        session.watch()
        status = session.result()
    session.check()
    if session.interrupted and (status is ExitStatus.TIMED_OUT or not session.has_watched):
        return ExitStatus.INTERRUPTED
    return ExitStatus.FAILED if session.problem else status.with_failures(bool(session.failed))


def _warn_of_unread(run: Run) -> None:
    context = run.correlator.context
    if unread := unread_kinds(context.identity.snapshot):
        run.view.warn(unread)
    if why := context.not_judged:
        run.view.warn(f"not evaluated; what these policies could change is unknown: {why}")


class LiveSession:
    """The agents of a source, one trace each, until the time is over."""

    def __init__(self, run: Run, source: Source, watching: Watching) -> None:
        self.run, self.source, self.watching = run, source, watching
        self.failed: list[AgentFailed] = []  # nodes whose agent could not go on
        self.problem = ""  # of the recording
        self._begun = time.monotonic()
        self.interrupted = False
        self._attached: set[str] = set()
        self._settled: set[str] = set()  # nodes that watch, and those that never will
        self._interrupts = Interrupts()
        self._nodes = 0
        self._rules = RulesTold()

    def watch(self) -> None:
        agents = self._chosen(self.source.agents())
        self._nodes = len(agents.dials)
        with self._writer() as writer, self._interrupts, giving_way(), ExitStack() as opened:
            requests = {node: self._request(node) for node in agents.dials}
            streams = opened.enter_context(closing(Streams(agents.dials, requests, agents.token)))
            follower: Follower | None = None
            try:
                follower = opened.enter_context(closing(self.source.follow(self.source.snapshot(), self.run.view.warn)))
                for event in self._records(streams, follower):
                    self._take(event, writer)
            except KeyboardInterrupt:
                self.interrupted = True
                missed = listed(sorted(agents.dials.keys() - self._attached))
                self.run.view.warn(f"stopped before the probes were loaded on {missed}" if missed else "stopped")
            try:
                for event in self._last_records(streams):
                    self._take(event, writer)
                for failure in streams.overdue():
                    self._take(failure, writer)
            except KeyboardInterrupt:
                self.run.view.warn("stopped at once: the agents' accounts are missing")
            streams.close()
            if follower is not None:
                self._read_rules_again(agents, follower, writer)
        if writer is not None and writer.problem:
            self.problem = writer.problem
            self.run.view.warn(self.problem)
        elif self.watching.record:
            self.run.view.note(f"recorded in {self.watching.record}")

    def result(self) -> ExitStatus:
        """What the run has found. Ctrl-C meanwhile waits for it; a second one does not."""
        status = None
        try:
            with self._interrupts, self._interrupts.held():
                status = self.run.finish(live=True)
        except KeyboardInterrupt:
            if status is None:
                raise
        return status

    @property
    def has_watched(self) -> bool:
        """Whether any agent has loaded its probes."""
        return bool(self._attached)

    def check(self) -> None:
        """Raises GenainetError where every agent failed: the command itself has."""
        if self.failed and len({event.node for event in self.failed}) == self._nodes:
            raise GenainetError(self.failed[0].message, self.failed[0].hint)

    def _chosen(self, agents: Agents) -> Agents:
        dials = agents.dials
        if self.watching.node:
            if self.watching.node not in dials:
                raise not_found("node with an agent", self.watching.node, dials)
            dials = {self.watching.node: dials[self.watching.node]}
        elif self.watching.nodes & dials.keys():
            dials = {node: dial for node, dial in dials.items() if node in self.watching.nodes}
        return Agents(dials, agents.token)

    def _request(self, node: str) -> TraceRequest:
        """What the node's agent is asked for. It is told when to end; its own limit is longer, since a path is whole where all of
        its nodes watch at the same time: the first that watches waits for the last."""
        return msgspec.structs.replace(
            self.watching.request(node),
            events_per_second=max(LEAST_EVENTS, EVENTS_PER_SECOND // max(1, self._nodes)),
            node_when_seen=self._nodes > MANY_NODES,
            timeout_s=min(self.watching.timeout_s + SETTLE_S, MAX_TIMEOUT_S),
        )

    def _writer(self) -> AbstractContextManager[BundleWriter | None]:
        watching = self.watching
        if not watching.record:
            return nullcontext()
        created = datetime.now(UTC).isoformat()
        header = new_header(watching.command, watching.arguments, created, redacted=watching.redacted)
        return BundleWriter(watching.record, header, self.source.snapshot(whole=True))

    def _take(self, event: Event, writer: BundleWriter | None) -> None:
        with self._interrupts.held():  # half a record would spoil a bundle, and what is made of the records
            if writer is not None:
                writer.write(event)
            self._rules.learn(event)
            if isinstance(event, AgentFailed) and self.interrupted and event.node not in self._attached:
                return  # it was still loading its probes, and was told to stop
            if isinstance(event, AgentFailed):
                self.failed.append(event)
                self.source.failed_nodes.add(event.node)
            self.run.take(event)

    def _records(self, streams: Streams, follower: Follower) -> Iterator[Event]:
        """The agents' records, and the cluster's changes in between."""
        refresh_at = time.monotonic() + REFRESH_S
        deadline = time.monotonic() + LOAD_S + self.watching.timeout_s
        while not streams.done and time.monotonic() < deadline:
            for event in self._polled(streams):
                if isinstance(event, PacketSeen):  # most records are
                    yield event
                    continue
                before: Filters = self.run.filters if isinstance(event, RulesetDump) else ()
                yield event
                if isinstance(event, RulesetDump):
                    self._follow(streams, before)
                deadline = self._deadline(event, deadline)
            self.run.view.refresh()
            if (begun := time.monotonic()) >= refresh_at:
                yield from self._changes(streams, follower)
                took = time.monotonic() - begun
                refresh_at = begun + took + max(REFRESH_S, took / REFRESH_SHARE - took)

    def _polled(self, streams: Streams) -> Iterator[Event]:
        """The next records, those that came together, if there are any soon. Ctrl-C waits until they are taken in: what was
        polled is in no queue."""
        with self._interrupts.held():
            event = streams.poll(POLL_S)
            while event is not None:
                if isinstance(event, Progress) and event.stage == "attached":
                    self._attached.add(event.node)
                yield event
                event = streams.poll_line()

    def _deadline(self, event: Event, deadline: float) -> float:
        """When to end (time.monotonic()), after this record."""
        if isinstance(event, Progress | AgentFailed) and len(self._settled) < self._nodes:
            if isinstance(event, AgentFailed) or event.stage == "attached":
                self._settled.add(event.node)
                deadline = self._end() if len(self._settled) == self._nodes else deadline
            elif event.stage in PREPARING:  # it is at work, however slow: the agent itself has a limit
                deadline = max(deadline, time.monotonic() + LOAD_S + self.watching.timeout_s)
        more = self.watching.enough(event)
        return deadline if more is None else min(deadline, time.monotonic() + more)

    def _end(self) -> float:
        """When to end (time.monotonic()), now that all agents watch or have failed."""
        now, watching = time.monotonic(), self.watching
        wind_up_s = max(WIND_UP_S, WIND_UP_SHARE * (now - self._begun))
        left_s = max(LEAST_WATCH_S, watching.due - wind_up_s - now)
        if not watching.due or left_s >= watching.timeout_s:
            return now + watching.timeout_s
        self.run.view.shortened(left_s)
        return now + left_s

    def _changes(self, streams: Streams, follower: Follower) -> Iterator[Event]:
        before = self.run.filters
        for change in self._changed(follower):
            yield change
            self._follow(streams, before)

    def _changed(self, follower: Follower) -> Iterator[Event]:
        """The cluster's objects, where they are others by now."""
        try:
            now = follower.newer()
        except GenainetError as error:
            self.run.view.warn(f"the cluster's objects can't be read any more: {error.message}")
            return
        if now is not None:
            yield ClusterChanged.of(now)

    def _follow(self, streams: Streams, before: Filters) -> None:
        """Has the agents follow what the run looks at now."""
        if self.run.filters != before:
            for problem in streams.set_filters(self.run.filters):
                self.run.view.warn(problem.message)

    def _last_records(self, streams: Streams) -> Iterator[Event]:
        """Ends the traces: what the agents still have, and their accounts."""
        streams.finish()
        begun = heard = time.monotonic()
        while not streams.done and (now := time.monotonic()) < begun + LAST_S and now < heard + GOODBYE_S:
            for event in self._polled(streams):
                heard = time.monotonic()
                yield event

    def _read_rules_again(self, agents: Agents, follower: Follower, writer: BundleWriter | None) -> None:
        """Takes in the API's objects and the nodes' rules once more where they differ, before the run says so."""
        warn = self.run.view.warn

        def again() -> None:
            answers = read_rulesets(agents, warn, self.source.failed_nodes)
            for event in chain(self._changed(follower), self._rules.completed(answers)):
                self._take(event, writer)

        try:
            seen_twice(None, again, lambda _: self.watching.differs(), read_at=self._rules.read_at)
        except GenainetError as error:
            warn(f"rules that differ from the API could not be read again: {error.message}")
        except KeyboardInterrupt:
            self.interrupted = True
            warn("stopped before rules that differ from the API were read again")
