"""`dns`: who waits for name lookup, for which names, at which hop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from kubectl_genainet.bundle import Bundle, read_bundle
from kubectl_genainet.commands.live import Watch, replay, watch_live, watch_options
from kubectl_genainet.commands.options import FOUND, OK, TIMED_OUT, Source, output_option, source_options
from kubectl_genainet.commands.source import default_namespace, load_snapshot
from kubectl_genainet.dns.exchanges import DnsCorrelator
from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.dns.targets import DnsScope, dns_scope
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged, Event
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.target import Target, parse_target
from kubectl_genainet.render.dns import DnsView, make_dns_view
from kubectl_genainet.wire import FilterEntry, TraceRequest

MAX_EVENTS = 10_000_000


@click.command("dns")
@click.argument("target", required=False)
@click.option("--server", is_flag=True, help="TARGET is a DNS server: show who asks it, and what it asks upstream.")
@click.option(
    "--redact", is_flag=True, help="Hash the names asked for, all but their public suffix; also with --record."
)
@watch_options("30s")
@output_option("table", "wide", "json", "yaml")
@source_options()
def command(source: Source, target: str | None, timeout: float, output: str, **options: Any) -> int:
    """Show who waits for DNS, for which names, at which hop.

    TARGET are the clients: svc/NAME, pod/NAME, deploy/NAME or IP; by default all of the cluster. Queries over UDP and TCP
    are followed from the client's pod through kube-proxy's NAT to the server and on to its upstream.

    \b
    Examples:
      kubectl genainet dns
      kubectl genainet dns deploy/rag-app -n prod --timeout 1m
      kubectl genainet dns svc/kube-dns -n kube-system --server
      kubectl genainet dns -o json | jq 'select(.outcome == "timeout") | .last_seen'
      kubectl genainet dns --redact --record dns.gnb
      kubectl genainet dns --from dns.gnb -o wide
      kubectl genainet dns --lab

    Exit status: 0 all was answered in time, 1 a time-out, a failing or slow server, or a habit that costs queries was
    found, 2 the command failed, 124 no query was seen in time.
    """
    wanted = parse_target(target) if target else None
    bundle = read_bundle(source.bundle) if source.bundle else None
    if bundle is not None and options["redact"] and not bundle.header.redacted:
        raise click.UsageError(
            "--redact hides names as they are recorded: a bundle recorded without it has them in clear"
        )
    snapshot = bundle.snapshot if bundle else load_snapshot(source)
    namespace = default_namespace(source)
    scope = dns_scope(wanted, snapshot, namespace, as_server=options["server"])
    redaction = _redaction(snapshot, bundle, wanted=options["redact"])
    view = make_dns_view(output, str(wanted or "the cluster"), live=bundle is None, by_server=options["server"])
    for warning in scope.warnings:
        view.warn(warning)
    run = DnsRun(snapshot, wanted, namespace, scope, view, redaction)
    if bundle is not None:
        return replay(run, bundle, "dns")
    hide = {"redact": redaction.key, "search": " ".join(redaction.renamed)} if redaction.key else {}
    request = TraceRequest(
        filters=scope.filters,
        probes=("dns",),
        timeout_s=timeout,
        max_events=MAX_EVENTS,
        options={"side": scope.side, **hide},
    )
    arguments = {
        "target": str(wanted or ""),
        "timeout": timeout,
        "server": options["server"],
        "search": redaction.renamed,
    }
    watch = Watch(
        source, "dns", arguments, timeout, node=options["node"], record=options["record"], redacted=bool(redaction.key)
    )
    return watch_live(run, snapshot, watch, lambda _: request)


class Redaction:
    """The key of this run's hashes ("" without), and what they make of the search domains."""

    def __init__(self, key: str = "", renamed: dict[str, str] | None = None, *, on: bool = False) -> None:
        self.key, self.renamed, self.on = key, renamed or {}, on or bool(key)


def _redaction(snapshot: ClusterSnapshot, bundle: Bundle | None, *, wanted: bool) -> Redaction:
    if bundle is not None:
        return Redaction(renamed=bundle.header.arguments.get("search", {}), on=bundle.header.redacted)
    if not wanted:
        return Redaction()
    from kubectl_genainet.agent.dns.redact import Redactor, new_key
    from kubectl_genainet.dns.resolv import search_domains

    key = new_key()
    redactor = Redactor(key)
    return Redaction(key, {domain: redactor.name(domain) for domain in search_domains(snapshot)})


class DnsRun:
    """One run of the command: records in, exchanges to the view, an exit status out."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        target: Target | None,
        namespace: str,
        scope: DnsScope,
        view: DnsView,
        redaction: Redaction,
    ) -> None:
        self.target, self.namespace, self.scope, self.view = target, namespace, scope, view
        self.correlator = DnsCorrelator(snapshot)
        name = str(target) if target else "the cluster"
        self.summary = DnsSummaryBuilder(name, self.correlator.identity, redaction.renamed, redacted=redaction.on)
        view.source = self.summary

    @property
    def filters(self) -> tuple[FilterEntry, ...]:
        return self.scope.filters

    def take(self, event: Event) -> None:
        """One record, live or replayed: the same way."""
        self.summary.event(event)
        if isinstance(event, ClusterChanged):
            self.scope = dns_scope(self.target, event.snapshot, self.namespace, as_server=self.scope.as_server)
        self.view.event(event)
        self._show(self.correlator.feed(event))

    def _show(self, exchanges: Iterator[DnsExchange]) -> None:
        for exchange in exchanges:
            if self.scope.concerns(exchange):
                self.summary.exchange(exchange)
                self.view.exchange(exchange)

    def finish(self, *, live: bool) -> int:
        self._show(self.correlator.finish())
        joined = self.correlator.exchanges
        summary = self.summary.build(malformed=joined.malformed, unmatched=joined.unmatched)
        self.view.finish(summary)
        if any(f.severity is not Severity.INFO for f in summary.findings) or summary.queries.timeouts:
            return FOUND
        if summary.queries.queries or summary.upstream.queries:
            return OK
        return TIMED_OUT if live else OK
