"""What the verbs that watch packets share: the agents' records or a bundle's, the cluster's changes in between, the
recording, the end by time, by Ctrl-C or because all is seen."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType, TracebackType
from typing import Any, Protocol, Self, TypeVar

import click

from kubectl_genainet.bundle import Bundle, BundleWriter, new_header
from kubectl_genainet.commands.agents import agents
from kubectl_genainet.commands.options import Source, parse_seconds
from kubectl_genainet.commands.source import Follower, follow
from kubectl_genainet.context.context import Context
from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import AgentFailed, ClusterChanged, Event, Progress
from kubectl_genainet.model.target import not_found
from kubectl_genainet.render.live import LiveView
from kubectl_genainet.stream import Streams
from kubectl_genainet.wire import FilterEntry, TraceRequest

F = TypeVar("F", bound=Callable[..., Any])

REFRESH_S = 2.0  # how often the API's objects are looked at for endpoints that came and went
LOAD_S = 40.0  # how long the agents may take to load their probes: compiling them is slow on a busy node
GRACE_S = 10.0  # and to say goodbye
GOODBYE_S = 5.0  # and to send their accounts at the end


class Correlator(Protocol):
    """What joins records, as far as all do it."""

    @property
    def context(self) -> Context: ...


class Reader(Protocol):
    """What a verb does with the records. `filters` are followed as they change with the cluster's objects."""

    @property
    def view(self) -> LiveView: ...

    @property
    def correlator(self) -> Correlator: ...

    @property
    def filters(self) -> tuple[FilterEntry, ...]: ...

    def take(self, event: Event) -> None:
        """One record, live or replayed: the same way."""

    def finish(self, *, live: bool) -> int:
        """Has the view show what is left and the summary. Returns the exit status."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What a live run is asked for. `timeout_s` counts on the agents; `record` is the file of a bundle."""

    source: Source
    command: str
    arguments: dict[str, Any]
    timeout_s: float
    node: str | None = None
    nodes: frozenset[str] = frozenset()  # those that host an end of what is watched; empty: any may
    record: str | None = None
    redacted: bool = False


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    try:
        value = parse_seconds(text)
    except InputError as error:
        raise click.BadParameter(f"{error.message}: {error.hint}") from None
    if not 0 < value <= 3600:
        raise click.BadParameter(f"{text!r} is not a time of up to 1h, like 30s or 2m")
    return value


def watch_options(timeout: str = "30s") -> Callable[[F], F]:
    """Adds --node, --timeout (passed in seconds) and --record."""

    def decorate(function: F) -> F:
        record = click.Path(dir_okay=False, writable=True)
        options = (
            click.option("--record", type=record, help="Write a bundle that --from can replay."),
            click.option("--timeout", default=timeout, show_default=True, callback=_seconds, help="How long to watch."),
            click.option("--node", help="Only what this node sees."),
        )
        decorated: Any = function
        for option in options:
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def check_recorded_by(bundle: Bundle, command: str) -> None:
    """Raises GenainetError for a bundle of another command: without its probe's events, "nothing was seen" would be untrue."""
    recorded = bundle.header.command
    if recorded not in ("", command):
        raise GenainetError(
            f"the bundle was recorded by `{recorded}`: it has none of the events that `{command}` reads",
            hint=f"kubectl genainet {recorded} --from FILE",
        )


def replay(reader: Reader, bundle: Bundle, command: str) -> int:
    """Feeds the reader what `command` recorded. Returns the exit status. Raises GenainetError for another's bundle."""
    check_recorded_by(bundle, command)
    with reader.view:
        reader.view.replaying(bundle.header)
        _say_what_is_not_judged(reader)
        for event in bundle.events:
            reader.take(event)
        return reader.finish(live=False)


def watch_live(
    reader: Reader,
    snapshot: ClusterSnapshot,
    watch: Watch,
    request: Callable[[str], TraceRequest],
    enough: Callable[[Event], float | None] = lambda _: None,
) -> int:
    """Feeds the reader what the agents see. Returns the exit status.

    `request` is asked for each node's; `enough` may say, at a record, for how many seconds more to watch. Ctrl-C ends the
    run as its time does. Raises GenainetError for an agent or a file that is not there, and where every agent failed."""
    run = LiveRun(reader, snapshot, watch)
    with reader.view:
        _say_what_is_not_judged(reader)
        run.run(request, enough)
        status = reader.finish(live=True)
    run.check()
    return status


def _say_what_is_not_judged(reader: Reader) -> None:
    if why := reader.correlator.context.not_judged:
        reader.view.warn(f"not evaluated; what these policies could change is unknown: {why}")


class Interrupts:
    """Ctrl-C while it is entered: a KeyboardInterrupt as ever, but not in the middle of what is `held`."""

    def __init__(self) -> None:
        self._ours = self._held = self._came = False

    def __enter__(self) -> Self:
        # A shell starts what runs in the background with SIGINT ignored: that stays so.
        expected = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._ours = expected and threading.current_thread() is threading.main_thread()
        if self._ours:
            signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _interrupted(self, _: int, __: FrameType | None) -> None:
        if not self._held or self._came:  # the second time at once: what is held may wait for a pipe that nobody reads
            self._came = False
            raise KeyboardInterrupt
        self._came = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Ctrl-C waits for the end of the block; a second one does not."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._came:
            self._came = False
            raise KeyboardInterrupt


class LiveRun:
    """Agents, one session each, until the time is over. `failed` are the nodes whose agent could not go on."""

    def __init__(self, reader: Reader, snapshot: ClusterSnapshot, watch: Watch) -> None:
        self.reader, self.snapshot, self.watch = reader, snapshot, watch
        self.failed: list[AgentFailed] = []
        self._interrupts = Interrupts()
        self._nodes = 0

    def run(self, request: Callable[[str], TraceRequest], enough: Callable[[Event], float | None]) -> None:
        dials, token = agents(self.watch.source)
        if self.watch.node:
            if self.watch.node not in dials:
                raise not_found("node with an agent", self.watch.node, dials)
            dials = {self.watch.node: dials[self.watch.node]}
        elif self.watch.nodes & dials.keys():
            dials = {node: dial for node, dial in dials.items() if node in self.watch.nodes}
        self._nodes = len(dials)
        with self._writer() as writer, self._interrupts:
            streams = Streams(dials, {node: request(node) for node in dials}, token)
            try:
                with closing(follow(self.watch.source, self.snapshot, self.reader.view.warn)) as follower:
                    for event in self._records(streams, follower, enough):
                        self._take(event, writer)
            except KeyboardInterrupt:
                self.reader.view.warn("stopped")
            try:
                for event in self._last_words(streams):
                    self._take(event, writer)
            except KeyboardInterrupt:
                self.reader.view.warn("stopped at once: the agents' accounts are missing")
            finally:
                streams.close()
        if self.watch.record:
            self.reader.view.note(f"recorded in {self.watch.record}")

    def _take(self, event: Event, writer: BundleWriter | None) -> None:
        with self._interrupts.held():  # half a record would spoil a bundle, and what is made of the records
            if writer is not None:
                writer.write(event)
            if isinstance(event, AgentFailed):
                self.failed.append(event)
            self.reader.take(event)

    @staticmethod
    def _last_words(streams: Streams) -> Iterator[Event]:
        """Ends the traces: what the agents still have, and their accounts."""
        streams.finish()
        deadline = time.monotonic() + GOODBYE_S
        while not streams.done and (left := deadline - time.monotonic()) > 0:
            event = streams.poll(left)
            if event is not None:
                yield event

    def check(self) -> None:
        """Raises GenainetError where every agent failed: the command itself has."""
        if self.failed and len({event.node for event in self.failed}) == self._nodes:
            raise GenainetError(self.failed[0].message, self.failed[0].hint)

    def _writer(self) -> AbstractContextManager[BundleWriter | None]:
        if not self.watch.record:
            return nullcontext()
        header = new_header(
            self.watch.command, self.watch.arguments, datetime.now(UTC).isoformat(), redacted=self.watch.redacted
        )
        return BundleWriter(self.watch.record, header, self.snapshot)

    def _records(
        self, streams: Streams, follower: Follower, enough: Callable[[Event], float | None]
    ) -> Iterator[Event]:
        """The agents' records, and the cluster's changes in between."""
        attached: set[str] = set()
        refresh_at = time.monotonic() + REFRESH_S
        deadline = time.monotonic() + LOAD_S + self.watch.timeout_s
        while not streams.done and time.monotonic() < deadline:
            event = streams.poll(0.1)
            if event is not None:
                yield event
                if isinstance(event, Progress) and event.stage == "attached":
                    attached.add(event.node)
                    if len(attached) == self._nodes:
                        deadline = time.monotonic() + self.watch.timeout_s + GRACE_S
                more = enough(event)
                if more is not None:
                    deadline = min(deadline, time.monotonic() + more)
            self.reader.view.refresh()
            if time.monotonic() >= refresh_at:
                yield from self._changes(streams, follower)
                refresh_at = time.monotonic() + REFRESH_S

    def _changes(self, streams: Streams, follower: Follower) -> Iterator[Event]:
        try:
            now = follower.newer()
        except GenainetError as error:
            self.reader.view.warn(f"the cluster's objects can't be read any more: {error.message}")
            return
        if now is None:
            return
        self.snapshot = now
        before = self.reader.filters
        yield ClusterChanged.of(now)
        if self.reader.filters != before:
            for problem in streams.set_filters(self.reader.filters):
                self.reader.view.warn(problem.message)
