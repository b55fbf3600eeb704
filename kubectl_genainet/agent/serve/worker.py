"""One session: a process that loads the probes, streams records to standard output, and takes them away with it.

Standard input: a Job as one JSON line, then one line for each change of the filters; its end is the session's end.
The server starts it; killing it is always safe, since nothing in the kernel outlives its file descriptors.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.dns.tcp import TcpTap
from kubectl_genainet.agent.exact.tracing import ExactTracer
from kubectl_genainet.agent.http.tap import HttpTap
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.podrules import PodRules
from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.agent.node.tunnels import Tunnels, tunnels_of
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.agent.record.outbox import RecordingOutbox
from kubectl_genainet.agent.record.recorder import Recorder
from kubectl_genainet.agent.serve import audit
from kubectl_genainet.agent.serve.check_connections import open_connections
from kubectl_genainet.agent.serve.job import ALIVE_S, FLUSH, Job, hello
from kubectl_genainet.agent.serve.outbox import Outbox
from kubectl_genainet.agent.serve.sampler import RecordBudget, Sampler
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.rules import without_counters
from kubectl_genainet.model.events import AgentFailed, Bye, Event, Hello, LostEvents, Progress, Sampled, Sightings, Tick
from kubectl_genainet.priority import give_way
from kubectl_genainet.wire import FilterEntry, Filters

POLL_S = 0.02
SIGHTINGS = 500  # in one record
ACCOUNT_S = 1.0
EXACT_S = 0.2
SWEEP_S = 0.5
LAST_WORDS_S = 19.0  # for a client that is slow to take what is queued; the probes are detached before
EXACT_START_S = 10.0  # a node with many rules takes seconds to list them
EXACT_END_S = 15.0  # taking it back runs a few commands
UNREADABLE = 100  # texts at most about what can't be read
RULESETS_S = 15.0
NODE_SHARE = 8  # looking at the namespaces, and at the rules, may take one part in so many of the budget
DRAIN_SHARE = 4  # reading the tables may take one part in so many of the budget
# These change without the rules changing.


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
            else Outbox(sink, job.budget.outbox_bytes)
        )
        self.inventory = Inventory(job.node, job.host_netns)
        self.stop = threading.Event()
        self.reason = "stopped"
        self.filters, self.own_filters = job.request.filters, job.request.own_filters
        self.filters_changed = threading.Event()
        self.flush_wanted = threading.Event()
        self.namespaces: set[int] = set()
        self.tunnels = Tunnels()
        self.rulesets: dict[str, int] = {}  # hash of what was reported, by source
        self.probes: list[LoadedProbe] = []
        self.taps: dict[str, TcpTap | HttpTap] = {}  # by the name under which they are accounted for
        self.pod_rules: PodRules | None = None
        self.sampler: Sampler | None = None
        self.record_budget: RecordBudget | None = None
        self.exact: threading.Thread | None = None
        self.exact_runs = threading.Event()  # or can't run
        self.reported: dict[tuple[str, str], int] = {}
        self.from_user_space = 0  # events that no kernel program has counted
        self.emitted = self.lost = self.received = 0
        self.sightings: list[bytes] = []  # that wait to be sent together
        self.unreadable: set[str] = set()  # what was said to be
        threading.Thread(target=self._listen, args=(commands,), daemon=True).start()

    def _listen(self, commands: BinaryIO) -> None:
        for line in commands:
            if line.strip() == FLUSH:
                self.flush_wanted.set()
                continue
            try:
                changed: Filters = msgspec.json.decode(line, type=Filters)
                if isinstance(changed, dict):
                    self.own_filters = {**self.own_filters, **changed}
                else:
                    self.filters = changed
                self.filters_changed.set()
            except msgspec.DecodeError:  # the server has checked it: can't happen, and must not end the session
                continue
        self.end("client went away")

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
        message, hint = _said(error)
        self.outbox.put(AgentFailed(node=self.node, message=message, hint=hint), always=True)
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
                self.outbox.put(Progress(node=self.node, stage="loading"), always=True)

        thread = threading.Thread(target=say, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _load(self) -> None:
        request, cache = self.job.request, Path(self.job.cache)
        if not self.job.greeted:
            self.outbox.put(self.greeting, always=True)
        if self._not_recording:
            detail = f"nothing is recorded: {self._not_recording}"
            self.outbox.put(Progress(node=self.node, stage="missing", detail=detail), always=True)
        self.outbox.put(Progress(node=self.node, stage="loading", detail=", ".join(request.probes)))
        self.namespaces = self.inventory.own_inodes()
        for number, name in enumerate(request.probes, 1):
            compiling = partial(self._compiling, f"{name} ({number} of {len(request.probes)})")
            probe = LoadedProbe(PROBES[name], self.node, cache, request.options, self.job.budget, compiling)
            self.probes.append(probe)
            probe.on_event(*self._takers(name))
            probe.configure(self._filters(name), self._own())
        if "dns" in request.probes and self.job.dns_over_tcp:
            self._open_tap("dns", lambda: TcpTap(self.node, self.inventory.host_netns, request.options))
        if request.http:
            self._open_tap("http", lambda: HttpTap(self.node, self.inventory.host_netns))
        # The namespaces and rules come before the first packet, so that no reader has to wait for them.
        self._report_node()
        self._configure()
        if request.rulesets:
            self._rulesets()
            self.pod_rules = PodRules(
                self.node, self.inventory, lambda event: self.outbox.put(event, always=True), self._rulesets
            )
        if request.exact:
            self.exact = self._thread(self._exact)
            self.exact_runs.wait(EXACT_START_S)
        packets = next((p for p in self.probes if p.probe.name == "packet"), None)
        if packets is not None:
            self.sampler = Sampler(packets, self.probes, request.cpu_percent, request.events_per_second)
        queries = next((p for p in self.probes if p.probe.name == "dns"), None)
        if queries is not None:
            self.record_budget = RecordBudget(queries, request.cpu_percent)
        for probe in self.probes:
            probe.attach()
        for text in dict.fromkeys(text for probe in self.probes for text in probe.missing):
            self.outbox.put(Progress(node=self.node, stage="missing", detail=text), always=True)
        self.outbox.put(Progress(node=self.node, stage="attached", t_ns=time.monotonic_ns()), always=True)

    def _compiling(self, which: str) -> None:
        detail = f"compiling the probe {which} for this kernel, which is done once"
        self.outbox.put(Progress(node=self.node, stage="compiling", detail=detail), always=True)

    def _open_tap(self, name: str, make: Callable[[], TcpTap | HttpTap]) -> None:
        try:
            self.taps[name] = make()
            self.taps[name].configure(self._filters(name))
        except GenainetError as error:
            self.outbox.put(Progress(node=self.node, stage="missing", detail=error.message), always=True)

    def _report_node(self, *, fresh: bool = True) -> None:
        """Reports the namespaces, and says once of each thing that it can't be read."""
        report = self.inventory.report(fresh=fresh)
        self.outbox.put(report, always=True)
        tunnels = tunnels_of(report, shared=self.inventory.shared)
        if tunnels != self.tunnels:
            self.tunnels = tunnels
            self.filters_changed.set()
        for text in report.unreadable:
            if text not in self.unreadable and len(self.unreadable) < UNREADABLE:
                self.unreadable.add(text)
                detail = f"unreadable: {text}"
                self.outbox.put(Progress(node=self.node, stage="missing", detail=detail), always=True)

    def _filters(self, name: str) -> tuple[FilterEntry, ...]:
        """What a probe, or a tap, follows."""
        return self.own_filters.get(name, self.filters)

    def _own(self) -> set[int] | None:
        """The namespaces that the kernel filters by; None where all are this node's."""
        return self.namespaces if self.inventory.shared else None

    def _rulesets(self) -> None:
        """Reports the rules that differ from those reported before."""
        for dump in read_rulesets(self.node, self.inventory.host_netns):
            said = hash((dump.source, without_counters(dump).text, dump.error))
            if self.rulesets.get(dump.source) != said:
                self.rulesets[dump.source] = said
                self.outbox.put(dump, always=True)

    def _watch_rulesets(self) -> None:
        """Rules change while a session runs; reading them takes a small part of the time."""
        pause = RULESETS_S
        while not self.stop.wait(pause):
            began = _spent_s()
            self._rulesets()
            pause = max(RULESETS_S, self._rest(NODE_SHARE, _spent_s() - began))

    def _event(self, event: Event) -> None:
        self._send_sightings()  # what was seen before it comes before it
        self.received += 1
        if self.pod_rules is not None:
            self.pod_rules.see(event)
        if not self.outbox.put(event):
            self.lost += 1

    def _undecoded(self, data: bytes) -> None:
        self.sightings.append(data)
        if len(self.sightings) >= SIGHTINGS:
            self._send_sightings()

    def _takers(self, name: str) -> tuple[Callable[[Event], None], Callable[[bytes], None]]:
        """Who gets a probe's events: where a session records, nobody else reads the packets."""
        recorder = self.recorder
        if recorder is None or name != "packet":
            return self._event, self._undecoded

        def followed(event: Event) -> None:
            self.received += 1
            if self.pod_rules is not None:
                self.pod_rules.see(event)
            recorder.take(event)

        def sighted(data: bytes) -> None:
            self.received += 1
            recorder.sighting(data)

        return followed, sighted

    def _record(self) -> None:
        """Lets the recorder write what is due, or what somebody waits for."""
        if self.recorder is None:
            return
        self.recorder.tick()
        if self.flush_wanted.is_set():
            self.flush_wanted.clear()
            self.recorder.flush()
            self.outbox.put(Progress(node=self.node, stage="recorded"), always=True)

    def _send_sightings(self) -> None:
        count = len(self.sightings)
        if not count:
            return
        self.received += count
        if not self.outbox.put(Sightings(node=self.node, data=b"".join(self.sightings)), count=count):
            self.lost += count
        self.sightings.clear()

    def _stream(self) -> None:
        request = self.job.request
        now = time.monotonic()
        deadline, accounts_at, drain_at = now + request.timeout_s, now, now + 0.5
        sweep_at, counted_until = now + SWEEP_S, 0
        drained: dict[bytes, int] = {}
        if request.rulesets:
            self._thread(self._watch_rulesets)
        if request.check is not None:
            arguments = (request.check, self.inventory, self.outbox.put, self.stop)
            self._thread(lambda: open_connections(*arguments))
        self._thread(self._watch_namespaces)
        while not self.stop.wait(POLL_S):
            seen_until = time.monotonic_ns()
            self._consume()
            now = time.monotonic()
            if self.filters_changed.is_set():
                self.filters_changed.clear()
                self._configure()
            if self.sampler is not None:
                self.sampler.kernel.end()
            if now >= drain_at:
                began = time.thread_time()
                self._drain(drained)
                counted_until = seen_until
                drain_at = time.monotonic() + max(1.0, self._rest(DRAIN_SHARE, time.thread_time() - began))
            if now >= accounts_at:
                self._tick(seen_until, counted_until)
                accounts_at = now + ACCOUNT_S
                self._record()
                if self.sampler is not None:
                    self.sampler.kernel.begin()
            if self.flush_wanted.is_set():
                self._record()
            if now >= sweep_at:
                began = time.thread_time()
                self._sweep()
                sweep_at = now + max(SWEEP_S, self._rest(DRAIN_SHARE, time.thread_time() - began))
            if now >= deadline:
                self.end("timeout")
            if self.received >= request.max_events or self.outbox.bytes >= request.max_bytes:
                self.end("limit")
            if self.outbox.broken.is_set():
                self.end("client went away")
        ended = time.monotonic_ns()
        for probe in self.probes:
            probe.detach()
        self._consume()
        self._drain(drained)
        if self.exact is not None:
            self.exact.join(EXACT_END_S)  # it undoes what it changed on the node
        self._sweep(final=True)
        if self.recorder is not None:
            self.recorder.close()
        if self.reason == "timeout":  # counters of the namespaces as they are at the end
            self._report_node()
        self.outbox.put(Progress(node=self.node, stage="detached", t_ns=ended), always=True)

    def _exact(self) -> None:
        """Reports the rules that the kernel names, until the session ends; what it changed is undone then."""
        lost = 0
        try:
            while not self.stop.is_set():
                filters = self.filters
                places = {"netns": self.inventory.host_netns, "session": self.job.session}
                with ExactTracer(self.node, filters, **places) as tracer:
                    for what in tracer.removed:
                        audit.removed(what, "")
                    self.exact_runs.set()
                    while not self.stop.is_set() and self.filters is filters:
                        for hit in tracer.hits(EXACT_S):
                            self.outbox.put(hit)
                    lost += tracer.lost
                    self._lost("exact", "netlink socket", lost)
        except Exception as error:
            if not self.job.request.probes:  # nothing else was asked for
                raise
            detail = f"exact rules: {_said(error)[0]}"
            self.outbox.put(Progress(node=self.node, stage="missing", detail=detail), always=True)
        finally:
            self.exact_runs.set()

    def _rest(self, share: int, took_s: float) -> float:
        """How long to pause after something that took so long and may take one part in `share` of the budget."""
        return took_s * share * 100 / self.job.request.cpu_percent

    def _sample(self) -> None:
        for kept in self.sampler.look(self.received) if self.sampler is not None else ():
            self.outbox.put(Sampled(node=self.node, t_ns=time.monotonic_ns(), kept=kept), always=True)

    def _tick(self, seen_until: int, counted_until: int) -> None:
        """Says what was lost, left out and spent until then."""
        self._report_losses()
        tick = Tick(node=self.node, t_ns=seen_until, counted_ns=counted_until)
        if self.record_budget is not None:
            self.record_budget.look(self.received)
        if self.sampler is not None:
            self._sample()
            spent = self.sampler.kernel.spent_s
            tick = Tick(
                node=self.node,
                t_ns=seen_until,
                counted_ns=counted_until,
                cpu_ns=int(self.sampler.own_s * 1e9),
                kernel_ns=int(spent * 1e9) if spent is not None else None,
                budget=self.sampler.budget * 100,
            )
        self.outbox.put(tick, always=True)

    def _consume(self) -> None:
        for probe in self.probes:
            probe.consume()
        self._send_sightings()
        for tap in self.taps.values():
            for event in tap.poll():
                self._from_user_space(event)

    def _from_user_space(self, event: Event) -> None:
        self.from_user_space += 1
        self._event(event)

    def _sweep(self, *, final: bool = False) -> None:
        for probe in self.probes:
            for event in probe.sweep(time.monotonic_ns(), final=final):
                self._from_user_space(event)

    def _configure(self) -> None:
        for name, tap in self.taps.items():
            tap.configure(self._filters(name))
        for probe in self.probes:
            probe.configure(self._filters(probe.probe.name), self._own(), self.tunnels)

    def _watch_namespaces(self) -> None:
        """Pods come and go, tables fill: the namespaces are reported anew, and followed where the kernel is shared.

        In a thread of its own: on a busy node it takes long, and no packet waits for it.
        """
        pause = self.job.namespaces_s
        while not self.stop.wait(pause):
            began = _spent_s()
            try:
                own = self.inventory.own_inodes()
                if own != self.namespaces:
                    self.namespaces = own
                    self.filters_changed.set()
                self._report_node(fresh=False)
            except OSError:
                raise GenainetError("the node's network namespace is gone") from None
            pause = max(self.job.namespaces_s, self._rest(NODE_SHARE, _spent_s() - began))

    def _drain(self, drained: dict[bytes, int]) -> None:
        for probe in self.probes:
            for event in probe.drain(drained, time.monotonic_ns()):
                self.outbox.put(event, always=True)

    def _report_losses(self) -> None:
        """Reports what was lost since the last time, by probe and place."""
        self.emitted = self.from_user_space
        for probe in self.probes:
            totals = probe.accounts()
            self.emitted += totals["emitted"]
            lost = {where: totals[where] for where in ("ring buffer", "event budget", "flow table")}
            lost["kernel recursion"] = sum(s.missed for s in probe.statistics().values())
            for where, total in lost.items():
                self._lost(probe.probe.name, where, total)
        for name, tap in self.taps.items():
            self._lost(name, "tcp reader", tap.lost)
        self._lost("all", "slow client", self.outbox.dropped)

    def _lost(self, probe: str, where: str, total: int) -> None:
        new = total - self.reported.get((probe, where), 0)
        if new > 0:
            self.reported[probe, where] = total
            self.outbox.put(LostEvents(node=self.node, probe=probe, count=new, where=where), always=True)

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
        lost = self.lost + sum(n for (_, where), n in self.reported.items() if where in ("ring buffer", "event budget"))
        self.outbox.put(
            Bye(node=self.node, emitted=self.emitted, sent=self.received - self.lost, lost=lost, reason=self.reason),
            always=True,
        )
        self.outbox.close(LAST_WORDS_S)


def _recorder_of(job: Job, greeting: Hello) -> tuple[Recorder | None, str]:
    """The job's recorder, if it has one; why there is none where it should have."""
    if job.record is None:
        return None, ""
    try:
        return Recorder(job.node, job.record, greeting), ""
    except OSError as error:
        return None, f"{job.record.folder}: {error.strerror}"


def _spent_s() -> float:
    """CPU time of this thread and of the commands that the process has run. Not the time that passes: on a busy node it is much
    longer, and a report that is needed would be put off when most depends on it."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.thread_time() + children.ru_utime + children.ru_stime


def _said(error: Exception) -> tuple[str, str]:
    """(message, hint): in its own words for an error that is meant to be read."""
    if isinstance(error, GenainetError):
        return error.message, error.hint
    traceback.print_exception(error)  # into the agent's log
    return f"the agent can't go on: {type(error).__name__}: {error}"[:500], "Its log says where."


def main() -> None:
    """Entry point of the worker process."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the session ends with the server, however that ends
    if os.getppid() == 1:
        return
    give_way()
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    session = Session(job, sys.stdin.buffer, sys.stdout.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: session.end("stopped"))
    session.run()
    os._exit(0)  # a reader that is gone must not keep the outbox's thread, and so the process, alive


if __name__ == "__main__":
    main()
