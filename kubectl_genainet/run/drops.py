"""`drops`: what is being dropped, where and why."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.context.account import Account
from kubectl_genainet.context.context import Context
from kubectl_genainet.context.scope import Scope, scope_of
from kubectl_genainet.context.translations import Translations
from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.drops.rows import Rows
from kubectl_genainet.drops.summary import summary_of
from kubectl_genainet.errors import ExitStatus, InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged, Event, Progress
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.results.drops import DropRow
from kubectl_genainet.model.target import Target
from kubectl_genainet.run.as_used import AsUsed
from kubectl_genainet.run.session import Watching, perform
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.target import HeldTarget
from kubectl_genainet.run.view import DropsView, MakeView
from kubectl_genainet.wire import FilterEntry, TraceRequest


@dataclass(frozen=True, slots=True)
class DropsOptions:
    """`everything`: also frees that lost nothing."""

    everything: bool = False
    timeout_s: float = 30.0
    node: str = ""
    record: str = ""


def drops(source: Source, target: Target | None, options: DropsOptions, make_view: MakeView[DropsView]) -> ExitStatus:
    """Tells the view what is dropped: of a target; without one of the source's namespace, or of all. FOUND where something
    is wrong. Raises GenainetError for a target that does not exist and a source without packets."""
    run, watching = drops_run(source, target, options, make_view)
    return perform(run, source, watching)


def drops_run(
    source: Source,
    target: Target | None,
    options: DropsOptions,
    make_view: MakeView[DropsView],
    context: Context | None = None,
) -> tuple[DropsRun, Watching]:
    """The run, and how it watches. `context` may be shared with other runs over the same records."""
    if target is not None and source.all_namespaces:
        raise InputError("a TARGET and -A exclude each other")
    namespace = source.scope_namespace
    name = str(target) if target else f"namespace {namespace}" if namespace else "all"
    snapshot = source.snapshot(whole=bool(options.record))
    scope = scope_of(target, namespace, snapshot)
    view = make_view(name, live=source.live)
    held = HeldTarget(name, lambda now: scope_of(target, namespace, now), snapshot, view.warn)
    run = DropsRun(snapshot, held, view, everything=options.everything, source=source, context=context)
    for warning in scope.warnings:
        view.warn(warning)
    request = TraceRequest(
        filters=_filters(scope),
        probes=("drops",),
        timeout_s=options.timeout_s,
        options={"everything": "true"} if options.everything else {},
    )
    arguments = {"target": name, "timeout": options.timeout_s, "all": options.everything}
    watching = Watching(
        "drops", lambda _: request, options.timeout_s, arguments, node=options.node, record=options.record
    )
    return run, watching


def _filters(scope: Scope) -> tuple[FilterEntry, ...]:
    """The scope's own, and all ports of its pods: a pod's own rules may redirect to any (a sidecar)."""
    return (*scope.filters, *(FilterEntry(ip, protocol="TCP") for ip in sorted(scope.pods)))


class DropsRun:
    """Records in, rows to the view, an exit status out."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        scope: HeldTarget[Scope],
        view: DropsView,
        *,
        everything: bool,
        source: Source,
        context: Context | None = None,
    ) -> None:
        self.scope, self.view = scope, view
        self.correlator = DropCorrelator(
            snapshot,
            lambda flow: self._followed.concerns(flow),
            everything=everything,
            context=context,
            pods=lambda: self.scope.current.pods,
        )
        self.account = Account()
        self.rows = Rows(self.correlator)
        self._attached = False
        self._settled_for: Event | None = None
        self._translations = Translations(self.correlator.context)
        self._followed = scope.current
        self._as_used = AsUsed(source.options)
        view.source = self._rows_as_used

    def _rows_as_used(self) -> list[DropRow]:
        return list(map(self._as_used.row, self.rows.build()))

    @property
    def filters(self) -> tuple[FilterEntry, ...]:
        return _filters(self._followed)

    def before(self, event: Event) -> None:
        """To be called before anybody else takes a record, where the context is shared: what was dropped until now is judged
        by the objects as they are."""
        if isinstance(event, ClusterChanged) and event is not self._settled_for:
            self._settled_for = event
            self.rows.settle()

    def take(self, event: Event) -> None:
        self.before(event)
        self.account.event(event)
        if isinstance(event, ClusterChanged):
            self.scope.update(event.snapshot)
            self._followed = self._translations.added_to(self.scope.current)
        self._attached = self._attached or (isinstance(event, Progress) and event.stage == "attached")
        self.view.event(event)
        self.correlator.feed(event)
        if isinstance(event, RulesetDump):
            self._translations.learn(event, self.scope.current.filters)
            self._followed = self._translations.added_to(self.scope.current)

    def finish(self, *, live: bool) -> ExitStatus:
        self.rows.is_final = True
        rows = self._rows_as_used()
        summary = summary_of(self.scope.name, rows, self.correlator, self.account)
        self.view.finish(rows, summary)
        if live and not self._attached:
            return ExitStatus.TIMED_OUT
        wrong = any(f.severity.rank >= Severity.WARNING.rank for f in summary.findings)
        return ExitStatus.FOUND if wrong else ExitStatus.OK
