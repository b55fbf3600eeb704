"""`dns`: who waits for name lookup, for which names, at which hop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kubectl_genainet.context.context import Context
from kubectl_genainet.dns.exchanges import DnsCorrelator
from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.dns.targets import DnsScope, dns_scope
from kubectl_genainet.errors import ExitStatus, InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged, Event
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.target import Target
from kubectl_genainet.run.session import Watching, perform
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.target import HeldTarget
from kubectl_genainet.run.view import DnsView, MakeView
from kubectl_genainet.wire import FilterEntry, TraceRequest

MAX_EVENTS = 10_000_000


@dataclass(frozen=True, slots=True)
class DnsOptions:
    """`as_server`: the target is asked, not asking. `redact`: names are hashed, all but their public suffix. `cpu_percent` of one
    core may be spent on each node."""

    as_server: bool = False
    redact: bool = False
    timeout_s: float = 30.0
    node: str = ""
    record: str = ""
    cpu_percent: float = 5.0


@dataclass(frozen=True, slots=True)
class Redaction:
    """The key of this run's hashes ("" where nothing is hashed now), and what they make of the search domains."""

    key: str = ""
    renamed: dict[str, str] = field(default_factory=dict)
    on: bool = False


def dns(source: Source, target: Target | None, options: DnsOptions, make_view: MakeView[DnsView]) -> ExitStatus:
    """Tells the view what was asked, and what became of it: of a target's clients, without one of the whole cluster.

    FOUND for a time-out, a failing or slow server, or a habit that costs queries. Raises GenainetError for a target that
    does not exist and a source without packets.
    """
    run, watching = dns_run(source, target, options, make_view)
    return perform(run, source, watching)


def dns_run(
    source: Source,
    target: Target | None,
    options: DnsOptions,
    make_view: MakeView[DnsView],
    context: Context | None = None,
) -> tuple[DnsRun, Watching]:
    """The run, and how it watches. `context` may be shared with other runs over the same records."""
    redaction = _redaction(source, wanted=options.redact)
    name = str(target) if target else "the cluster"
    snapshot, namespace = source.snapshot(whole=bool(options.record)), source.default_namespace

    def scope_now(now: ClusterSnapshot) -> DnsScope:
        return dns_scope(target, now, namespace, as_server=options.as_server)

    scope = scope_now(snapshot)
    view = make_view(name, live=source.live)
    for warning in scope.warnings:
        view.warn(warning)
    run = DnsRun(snapshot, HeldTarget(name, scope_now, snapshot, view.warn), view, redaction, context)
    hide = {"redact": redaction.key, "search": " ".join(redaction.renamed)} if redaction.key else {}
    request = TraceRequest(
        filters=scope.filters,
        probes=("dns",),
        timeout_s=options.timeout_s,
        max_events=MAX_EVENTS,
        cpu_percent=options.cpu_percent,
        options={"side": scope.side, **hide},
    )
    watching = Watching(
        "dns",
        lambda _: request,
        options.timeout_s,
        {
            "target": str(target or ""),
            "timeout": options.timeout_s,
            "server": options.as_server,
            "search": redaction.renamed,
        },
        node=options.node,
        record=options.record,
        redacted=bool(redaction.key),
    )
    return run, watching


def _redaction(source: Source, *, wanted: bool) -> Redaction:
    header = source.recorded_header
    if header is not None:
        if wanted and not header.redacted:
            raise InputError(
                "--redact hides names as they are recorded: a bundle recorded without it has them in clear"
            )
        return Redaction(renamed=header.renamed_domains, on=header.redacted)
    if not wanted:
        return Redaction()
    from kubectl_genainet.agent.dns.redact import Redactor, new_key
    from kubectl_genainet.dns.resolv import search_domains

    key = new_key()
    redactor = Redactor(key)
    return Redaction(key, {domain: redactor.name(domain) for domain in search_domains(source.snapshot())}, on=True)


class DnsRun:
    """Records in, exchanges to the view, an exit status out."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        scope: HeldTarget[DnsScope],
        view: DnsView,
        redaction: Redaction,
        context: Context | None = None,
    ) -> None:
        self.scope, self.view = scope, view
        self.correlator = DnsCorrelator(snapshot, context=context)
        identity = self.correlator.identity
        self.summary = DnsSummaryBuilder(scope.name, identity, redaction.renamed, redacted=redaction.on)
        view.source = self.summary

    @property
    def filters(self) -> tuple[FilterEntry, ...]:
        return self.scope.current.filters

    def take(self, event: Event) -> None:
        self.summary.event(event)
        if isinstance(event, ClusterChanged):
            self.scope.update(event.snapshot)
        self.view.event(event)
        self._show(self.correlator.feed(event))

    def _show(self, exchanges: Iterator[DnsExchange]) -> None:
        for exchange in exchanges:
            if self.scope.current.concerns(exchange):
                self.summary.exchange(exchange)
                self.view.exchange(exchange)

    def finish(self, *, live: bool) -> ExitStatus:
        self._show(self.correlator.finish())
        joined = self.correlator.exchanges
        summary = self.summary.build(malformed=joined.malformed, unmatched=joined.unmatched)
        self.view.finish(summary)
        if any(f.severity is not Severity.INFO for f in summary.findings) or summary.queries.timeouts:
            return ExitStatus.FOUND
        if summary.queries.queries or summary.upstream.queries:
            return ExitStatus.OK
        return ExitStatus.TIMED_OUT if live else ExitStatus.OK
