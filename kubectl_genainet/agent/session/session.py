"""A session from its job to its last record. Killing it is always safe: nothing in the kernel outlives its file descriptors."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from kubectl_genainet.agent import audit
from kubectl_genainet.agent.bpf.joined import attach_all
from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.dns.tcp import TcpTap
from kubectl_genainet.agent.exact.reports import ExactReports
from kubectl_genainet.agent.http.tap import HttpTap
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.podrules import PodRules
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.agent.record.outbox import RecordingOutbox
from kubectl_genainet.agent.record.recorder import Recorder
from kubectl_genainet.agent.session.budgets import Budgets
from kubectl_genainet.agent.session.check_connections import open_connections
from kubectl_genainet.agent.session.delivery import Delivery
from kubectl_genainet.agent.session.job import ALIVE_S, END, FLUSH, Job, hello
from kubectl_genainet.agent.session.ledger import Ledger
from kubectl_genainet.agent.session.node_reports import NodeReports
from kubectl_genainet.agent.session.outbox import Outbox
from kubectl_genainet.agent.session.totals import Counted
from kubectl_genainet.errors import DECODE_ERRORS, GenainetError
from kubectl_genainet.model.events import AgentFailed, Event, Hello, Progress, Sampled, Tick
from kubectl_genainet.wire import FilterEntry, Filters

POLL_S = 0.05  # each look wakes a core up, whatever it finds; the ring buffer has room for a burst of as long
ACCOUNT_S = 1.0
SWEEP_S = 0.5
EXACT_LOOK_S = 0.2  # while exact tracing begins: a node with many rules takes many seconds to list them
EXACT_END_S = 15.0  # undoing it runs a few commands
LAST_WORDS_S = 19.0  # for a client that is slow to take what is queued; the probes are detached before
DRAIN_SHARE = 4  # reading the tables may take one part in so many of it


class Session:
    """Runs one job to its end."""

    def __init__(self, job: Job, commands: BinaryIO, sink: int) -> None:
        self.job = job
        self.node = job.node
        self.greeting = hello(job.node, job.request.probes)
        self.recorder, self._not_recording = _recorder_of(job, self.greeting)
        self.outbox = (
            RecordingOutbox(sink, job.budget.outbox_bytes, self.recorder)
            if self.recorder is not None
            else Outbox(sink, job.budget.outbox_bytes, node_when_seen=job.request.node_when_seen)
        )
        self.stop = threading.Event()
        self.reason = "stopped"
        self.filters, self.own_filters = job.request.filters, job.request.own_filters
        self.filters_changed = threading.Event()
        self.flush_wanted = threading.Event()
        self.inventory = Inventory(job.node, job.host_netns)
        self.node_reports = NodeReports(self.inventory, self._must_arrive, self.filters_changed, self._pause_after)
        self.ledger = Ledger(job.node, self._must_arrive)
        self.delivery = Delivery(job.node, self.outbox, self.ledger, self.recorder)
        self.probes: list[LoadedProbe] = []
        self.taps: dict[str, TcpTap | HttpTap] = {}  # by the name under which they are accounted for
        self.counted = Counted(self._must_arrive, self.recorder)
        self.budgets = Budgets(job.request, ())
        self.exact: threading.Thread | None = None
        threading.Thread(target=self._listen, args=(commands,), daemon=True).start()

    def _listen(self, commands: BinaryIO) -> None:
        for line in commands:
            if line.strip() == FLUSH:
                self.flush_wanted.set()
                continue
            if line.strip() == END:
                self.end("agent stopped")
                continue
            try:
                changed: Filters = msgspec.json.decode(line, type=Filters)
                if isinstance(changed, dict):
                    self.own_filters = {**self.own_filters, **changed}
                else:
                    self.filters = changed
                self.filters_changed.set()
            except DECODE_ERRORS:  # the server has checked it: can't happen, and must not end the session
                continue
        self.end("client went away")

    def _must_arrive(self, event: Event) -> None:
        """Queues a record that a slow client does not cost."""
        self.outbox.put(event, always=True)

    def _missing(self, detail: str) -> None:
        self._must_arrive(Progress(node=self.node, stage="missing", detail=detail))

    def end(self, reason: str) -> None:
        if not self.stop.is_set():
            self.reason = reason
            self.stop.set()

    def run(self) -> None:
        try:
            with self._alive():
                self._load()
            self._stream()
        except Exception as error:
            self._failed(error)
        finally:
            self._finish()

    def _failed(self, error: Exception) -> None:
        """Ends the session and says so: a node that does not watch is not one on which nothing was seen."""
        message, hint = _explained(error)
        self._must_arrive(AgentFailed(node=self.node, message=message, hint=hint))
        self.reason = "failed"
        self.stop.set()

    def _thread(self, action: Callable[[], object]) -> threading.Thread:
        """Runs `action` beside the stream; what it can't go on with ends the session."""

        def run() -> None:
            try:
                action()
            except Exception as error:
                self._failed(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """Says now and then that the probes are being loaded: on a busy node that takes longer than a client waits."""
        done = threading.Event()

        def say() -> None:
            while not done.wait(ALIVE_S):
                self._must_arrive(Progress(node=self.node, stage="loading"))

        thread = threading.Thread(target=say, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _load(self) -> None:
        """Loads the probes, reports the node, and attaches: the namespaces and rules come before the first packet, so that no
        reader has to wait for them."""
        request = self.job.request
        if not self.job.greeted:
            self._must_arrive(self.greeting)
        if self._not_recording:
            self._missing(f"nothing is recorded: {self._not_recording}")
        self.outbox.put(Progress(node=self.node, stage="loading", detail=", ".join(request.probes)))
        self.node_reports.read_namespaces()
        self._load_probes()
        self.node_reports.report_node()
        self._configure()
        if request.rulesets:
            self.node_reports.report_rulesets()
            self.delivery.pod_rules = PodRules(
                self.node, self.inventory, self._must_arrive, self.node_reports.report_rulesets
            )
        if request.exact:
            self._start_exact()
        self.budgets = Budgets(request, self.probes)
        attach_all(self.probes)
        for message in dict.fromkeys(message for probe in self.probes for message in probe.missing):
            self._missing(message)
        self._must_arrive(Progress(node=self.node, stage="attached", t_ns=time.monotonic_ns()))

    def _load_probes(self) -> None:
        request = self.job.request
        for number, name in enumerate(request.probes, 1):
            compiling = partial(self._compiling, f"{name} ({number} of {len(request.probes)})")
            probe = LoadedProbe(
                PROBES[name],
                self.node,
                Path(self.job.cache),
                request.options,
                self.job.budget,
                compiling,
                self.probes,
            )
            self.probes.append(probe)
            probe.on_event(*self.delivery.takers(name))
            probe.configure(self._filters(name), self.node_reports.filtered_namespaces())
        if "dns" in request.probes and self.job.dns_over_tcp:
            self._open_tap("dns", lambda: TcpTap(self.node, self.inventory.host_netns, request.options))
        if request.http:
            self._open_tap("http", lambda: HttpTap(self.node, self.inventory.host_netns))

    def _compiling(self, which: str) -> None:
        detail = f"compiling the probe {which} for this kernel, which is done once"
        self._must_arrive(Progress(node=self.node, stage="compiling", detail=detail))

    def _open_tap(self, name: str, make: Callable[[], TcpTap | HttpTap]) -> None:
        try:
            self.taps[name] = make()
            self.taps[name].configure(self._filters(name))
        except GenainetError as error:
            self._missing(error.message)

    def _filters(self, name: str) -> tuple[FilterEntry, ...]:
        """What a probe, or a tap, follows."""
        return self.own_filters.get(name, self.filters)

    def _record(self) -> None:
        """Lets the recorder write what is due, or what somebody waits for."""
        if self.recorder is None:
            return
        self.recorder.tick()
        if self.flush_wanted.is_set():
            self.flush_wanted.clear()
            self.recorder.flush()
            self._must_arrive(Progress(node=self.node, stage="recorded"))

    def _stream(self) -> None:
        """Passes on what is seen until the session's end."""
        self._start_threads()
        now = time.monotonic()
        deadline, accounts_at, drain_at, sweep_at = now + self.job.request.timeout_s, now, now + 0.5, now + SWEEP_S
        counted_until = 0
        while not self.stop.wait(POLL_S):
            seen_until = time.monotonic_ns()
            self._consume()
            now = time.monotonic()
            if self.filters_changed.is_set():
                self.filters_changed.clear()
                self._configure()
            self.budgets.measured_programs()
            if now >= drain_at:
                drain_at = self._do_and_pause(self._drain, 1.0)
                counted_until = seen_until
            if now >= accounts_at:
                self._tick(seen_until, counted_until)
                accounts_at = now + ACCOUNT_S
                self._record()
                self.budgets.measure_programs()
            if self.flush_wanted.is_set():
                self._record()
            if now >= sweep_at:
                sweep_at = self._do_and_pause(self._sweep, SWEEP_S)
            self._end_if_due(now >= deadline)
        self._wind_up()

    def _start_threads(self) -> None:
        request = self.job.request
        if request.rulesets:
            self._thread(lambda: self.node_reports.watch_rulesets(self.stop))
        if request.check is not None:
            arguments = (request.check, self.inventory, self.outbox.put, self.stop)
            self._thread(lambda: open_connections(*arguments))
        self._thread(lambda: self.node_reports.watch_namespaces(self.stop, self.job.namespaces_s))

    def _do_and_pause(self, action: Callable[[], None], at_least_s: float) -> float:
        """Reads tables of the kernel. Returns when to do so again (time.monotonic), by what the programs leave of the budget."""
        began = time.thread_time()
        action()
        took_s = time.thread_time() - began
        return time.monotonic() + max(at_least_s, took_s * DRAIN_SHARE * 100 / self.budgets.left_percent)

    def _end_if_due(self, overdue: bool) -> None:
        request = self.job.request
        if overdue:
            self.end("timeout")
        if self.ledger.received >= request.max_events or self.outbox.bytes >= request.max_bytes:
            self.end("limit")
        if self.outbox.broken.is_set():
            self.end("client went away")

    def _wind_up(self) -> None:
        """Detaches the probes, and passes on what they still hold."""
        ended = time.monotonic_ns()
        for probe in self.probes:
            probe.detach()
        self._consume()
        self._drain()
        if self.exact is not None:
            self.exact.join(EXACT_END_S)  # it undoes what it changed on the node
        self._sweep(final=True)
        if self.recorder is not None:
            self.recorder.close(ended)
        if not self.outbox.broken.is_set():  # rules and counters of the namespaces as they are at the end
            if self.delivery.pod_rules is not None:
                self.delivery.pod_rules.finish()
            self.node_reports.report_node()
        self._must_arrive(Progress(node=self.node, stage="detached", t_ns=ended))

    def _start_exact(self) -> None:
        reports = ExactReports(
            lambda: self.filters,
            self.outbox.put,
            lambda leftover: audit.removed(leftover, ""),
            lambda total: self.ledger.lost("exact", "netlink socket", total),
        )

        def run() -> None:
            try:
                reports.run(self.node, self.inventory.host_netns, self.job.session, self.stop)
            except Exception as error:
                if not self.job.request.probes:  # nothing else was asked for
                    raise
                self._missing(f"exact rules: {_explained(error)[0]}")

        self.exact = self._thread(run)
        while not (reports.runs.wait(EXACT_LOOK_S) or self.stop.is_set()):
            pass  # nothing is seen before

    def _pause_after(self, share: int, took_s: float) -> float:
        """How long to pause after something that took so long and may take one part in `share` of the budget."""
        return took_s * share * 100 / self.job.request.cpu_percent

    def _tick(self, seen_until: int, counted_until: int) -> None:
        """Says what was lost, left out and spent until then."""
        self._report_losses()
        tick = Tick(node=self.node, t_ns=seen_until, counted_ns=counted_until)
        for kept in self.budgets.look():
            self._must_arrive(Sampled(node=self.node, t_ns=time.monotonic_ns(), kept=kept))
        self._must_arrive(self.budgets.added_to(tick))

    def _consume(self) -> None:
        for probe in self.probes:
            with self.budgets.reading(probe.probe.name):
                probe.consume()
                self.delivery.send_sightings()
        for tap in self.taps.values():
            for event in tap.poll():
                self.delivery.send_from_user_space(event)

    def _sweep(self, *, final: bool = False) -> None:
        for probe in self.probes:
            for event in probe.sweep(time.monotonic_ns(), final=final):
                self.delivery.send_from_user_space(event)

    def _configure(self) -> None:
        namespaces = self.node_reports.namespaces
        for name, tap in self.taps.items():
            tap.configure(self._filters(name))
        for probe in self.probes:
            probe.configure(
                self._filters(probe.probe.name), self.node_reports.filtered_namespaces(), self.node_reports.tunnels
            )
        self.node_reports.applied(namespaces)

    def _drain(self) -> None:
        for probe in self.probes:
            for event in probe.drain(time.monotonic_ns()):
                self.counted.take(event)

    def _report_losses(self) -> None:
        self.ledger.losses_of_probes(self.probes)
        self.ledger.losses_of_taps(self.taps)
        self.ledger.lost("connections", "totals", self.counted.totals.lost)
        self.ledger.lost("all", "slow client", self.outbox.dropped)

    def _finish(self) -> None:
        """The last record, whatever happened before it."""
        try:
            if self.probes:
                self._report_losses()
            for probe in self.probes:
                probe.close()
            for tap in self.taps.values():
                tap.close()
        except Exception as error:
            self._failed(error)
        self.outbox.close(LAST_WORDS_S, self.ledger.bye(self.reason))


def _recorder_of(job: Job, greeting: Hello) -> tuple[Recorder | None, str]:
    """The job's recorder, if it has one; why there is none where it should have."""
    if job.record is None:
        return None, ""
    try:
        return Recorder(job.node, job.record, greeting), ""
    except OSError as error:
        return None, f"{job.record.folder}: {error.strerror}"


def _explained(error: Exception) -> tuple[str, str]:
    """(message, hint): in its own words for an error that is meant to be read."""
    if isinstance(error, GenainetError):
        return error.message, error.hint
    traceback.print_exception(error)  # into the agent's log
    return f"the agent can't go on: {type(error).__name__}: {error}"[:500], "Its log says where."
