"""`diagnose`: paths, drops and DNS of a target watched together by one set of probes, and one ranked conclusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from kubectl_genainet.bundle import Bundle
from kubectl_genainet.context.context import Context
from kubectl_genainet.diagnose.watchtime import WatchTime
from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.history.select import RecordPart, part_of
from kubectl_genainet.model.events import AgentFailed, Event
from kubectl_genainet.model.finding import Finding, Severity
from kubectl_genainet.model.history import Gap
from kubectl_genainet.model.results.diagnosis import Conclusion
from kubectl_genainet.model.target import Target
from kubectl_genainet.run.as_used import AsUsed
from kubectl_genainet.run.diagnose.conclude import DiagnosedTarget, conclude, of_target
from kubectl_genainet.run.diagnose.watching import Collected, DnsPart, DropsPart, PathPart
from kubectl_genainet.run.dns import DnsOptions, DnsRun, dns_run
from kubectl_genainet.run.drops import DropsOptions, DropsRun, drops_run
from kubectl_genainet.run.session import Watching, check_recorded_by, perform
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.recorded import HISTORY
from kubectl_genainet.run.target import HeldTarget
from kubectl_genainet.run.trace import TraceOptions, TraceRun, trace_run
from kubectl_genainet.run.view import DiagnoseView, MakeView
from kubectl_genainet.wire import FilterEntry, TraceRequest

WatchedRun = tuple[TraceRun | DropsRun | DnsRun, Watching]
PROBES = {RecordPart.TRACE: ("packet", "connections"), RecordPart.DROPS: ("drops",), RecordPart.DNS: ("dns",)}


@dataclass(frozen=True, slots=True)
class DiagnoseOptions:
    """`from_pod` ("pod/NAME"): only what this client does. `record` is the file of a bundle, which every command can replay.
    `due`: as Watching has it."""

    from_pod: str = ""
    watch_s: float = 15.0
    node: str = ""
    record: str = ""
    due: float = 0.0


def diagnose(
    source: Source, target: Target | None, options: DiagnoseOptions, make_view: MakeView[DiagnoseView]
) -> ExitStatus:
    """Watches the target (without one, the source's namespace, or all), and tells the view what is to be concluded.

    Raises GenainetError for a target that does not exist, and where no agent could be asked.
    """
    run = DiagnoseRun(source, target, options, make_view)
    return perform(run, source, run.watching)


def status_of(conclusion: Conclusion) -> ExitStatus:
    """FOUND where there is a cause; TIMED_OUT where nothing at all was seen."""
    if any(cause.severity is not Severity.INFO for cause in conclusion.causes):
        return ExitStatus.FOUND
    if not conclusion.connections and not conclusion.queries:
        return ExitStatus.TIMED_OUT
    return ExitStatus.OK


class DiagnoseRun:
    """Records in, one conclusion out. Its parts are the runs of the other commands, over one context."""

    def __init__(
        self, source: Source, target: Target | None, options: DiagnoseOptions, make_view: MakeView[DiagnoseView]
    ) -> None:
        self.source, self.target = source, target
        snapshot = source.snapshot(whole=True)
        namespace = source.scope_namespace
        name = str(target) if target is not None else f"namespace {namespace}" if namespace else "the cluster"
        held = HeldTarget(name, lambda now: of_target(now, target, source), snapshot, lambda _: None)
        self.view = make_view(name, live=source.live)
        self.context = Context(snapshot)
        self.collected = Collected()
        self._asked = DiagnosedTarget(name, target, held, source.endpoints_just_changed())
        self._watch = WatchTime()
        self._drift: tuple[Finding, ...] | None = None  # as of the last record
        self._parts: dict[RecordPart, WatchedRun] = {}
        self._begin(options)
        self.watching = Watching(
            "diagnose",
            self._request,
            options.watch_s,
            {"target": str(target or ""), "timeout": options.watch_s},
            node=options.node,
            record=options.record,
            due=options.due,
            differs=self._differs,
        )

    def _begin(self, options: DiagnoseOptions) -> None:
        source, target, collected, view = self.source, self.target, self.collected, self.view
        seconds, node = options.watch_s, options.node
        followed = TraceOptions(options.from_pod, timeout_s=seconds, node=node)
        counted, asked = DropsOptions(timeout_s=seconds, node=node), DnsOptions(timeout_s=seconds, node=node)
        begin: dict[RecordPart, Callable[[], WatchedRun]] = {
            RecordPart.TRACE: lambda: trace_run(
                source, target, followed, lambda _, live: PathPart(collected, view), self.context
            ),
            RecordPart.DROPS: lambda: drops_run(
                source, None, counted, lambda _, live: DropsPart(collected, view), self.context
            ),
            RecordPart.DNS: lambda: dns_run(
                source, None, asked, lambda _, live: DnsPart(collected, view), self.context
            ),
        }
        for part in PROBES:
            try:
                if source.recording is not None:
                    _check_has(source, source.recording, part)
                self._parts[part] = begin[part]()
            except GenainetError as error:
                if part is RecordPart.TRACE and source.live:
                    raise
                collected.failures[part.value] = error.message
        if not self._parts:
            raise GenainetError(next(iter(collected.failures.values())))
        for command, why in collected.failures.items():
            view.warn(f"{command} sees nothing: {why}")

    @property
    def correlator(self) -> DiagnoseRun:
        return self

    @property
    def filters(self) -> dict[str, tuple[FilterEntry, ...]]:
        return {probe: run.filters for part, (run, _) in self._parts.items() for probe in PROBES[part]}

    def _request(self, node: str) -> TraceRequest:
        requests = [watching.request(node) for _, watching in self._parts.values()]
        return msgspec.structs.replace(
            requests[0],
            own_filters=self.filters,
            probes=tuple(probe for request in requests for probe in request.probes),
            cpu_percent=sum(request.cpu_percent for request in requests),  # of one session in place of several
            max_events=max(request.max_events for request in requests),
            options={name: value for request in requests for name, value in request.options.items()},
        )

    def _differs(self) -> tuple[Finding, ...]:
        if self._drift is None:
            self._drift = self._asked.drift(self.context, self._watch)
        return self._drift

    def take(self, event: Event) -> None:
        self._drift = None
        self.view.event(event)
        self._watch.learn(event)
        self._asked.before(event, self.context.identity.snapshot)
        if isinstance(event, Gap):
            self.collected.gaps.append(event)
        elif isinstance(event, AgentFailed):
            self.collected.failed_nodes.add(event.node)
        for run, _ in self._parts.values():
            if isinstance(run, DropsRun):
                run.before(event)
        of = part_of(event)
        for part, (run, _) in self._parts.items():
            if of is None or of is part:
                run.take(event)
        self._asked.learn(event)

    def finish(self, *, live: bool) -> ExitStatus:
        for run, _ in self._parts.values():
            run.finish(live=live)
        conclusion = conclude(self._asked, self.collected, self.context, self._watch, self._differs())
        if not self.source.live:  # what is over can't be watched again
            conclusion = msgspec.structs.replace(conclusion, next=())
        if self.source.length_s is not None:
            conclusion = msgspec.structs.replace(conclusion, seconds=round(self.source.length_s, 1))
        conclusion = AsUsed(self.source.options).conclusion(conclusion)
        self.view.finish(conclusion)
        return status_of(conclusion)


def _check_has(source: Source, bundle: Bundle, part: RecordPart) -> None:
    """Raises GenainetError for a bundle without the records of that part."""
    if bundle.header.command not in ("diagnose", HISTORY):
        check_recorded_by(source, bundle, part.value)
