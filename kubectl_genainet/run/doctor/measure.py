"""DNS as it is measured, in the terms of doctor's checks: from a bundle, or live for a bounded time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from kubectl_genainet.bundle import Bundle
from kubectl_genainet.dns.ends import asker_name
from kubectl_genainet.dns.exchanges import DnsCorrelator
from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.dns.targets import dns_scope
from kubectl_genainet.doctor.inputs import DnsMeasurement, DnsStats
from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import (
    DnsDropped,
    DnsMessageSeen,
    DnsTransaction,
    Event,
    Progress,
)
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.dns import ClientStats
from kubectl_genainet.model.results.exchange import DnsExchange, QueryOutcome
from kubectl_genainet.run.collect import Quiet
from kubectl_genainet.run.session import LiveSession, Watching
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.view import Reporter, View
from kubectl_genainet.wire import FilterEntry, TraceRequest

_MEASURED = (DnsTransaction, DnsMessageSeen, DnsDropped)
MAX_EVENTS = 1_000_000


def recorded_dns(bundle: Bundle) -> DnsMeasurement:
    """What a bundle holds; nothing where it holds no DNS."""
    if not any(isinstance(event, (*_MEASURED, Progress)) for event in bundle.events):
        return DnsMeasurement()
    renamed = bundle.header.renamed_domains
    meter = _Meter(bundle.snapshot, Quiet(), renamed, redacted=bundle.header.redacted)
    for event in bundle.events:
        meter.take(event)
    return meter.measurement()


def measure_dns(source: Source, seconds: float, reporter: Reporter) -> DnsMeasurement:
    """Watches the DNS of the whole cluster for `seconds` with all agents, through the same stream as `dns`.

    An agent that fails is warned of; where all fail, `absent` says why. Ctrl-C ends the watching, not the examination.
    """
    snapshot = source.snapshot(whole=True)
    scope = dns_scope(None, snapshot, "", as_server=False)
    meter = _Meter(snapshot, _Reported(reporter), filters=scope.filters)
    request = TraceRequest(
        filters=scope.filters, probes=("dns",), timeout_s=seconds, max_events=MAX_EVENTS, options={"side": scope.side}
    )
    session = LiveSession(meter, source, Watching("doctor", lambda _: request, seconds, {}))
    try:
        session.watch()
        session.check()
    except GenainetError as error:
        reporter.warn(f"DNS is not measured: {error.message}")
        return DnsMeasurement(absent=f"DNS could not be measured: {error.message}")
    measured = meter.measurement()
    if measured.clients:
        return measured
    absent = f"no DNS query of a pod was seen within {seconds:g} s (--measure sets the time)"
    return DnsMeasurement(seconds=measured.seconds, absent=absent)


class _Reported(Quiet):
    """What limits the measurement goes where doctor's own warnings go."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter

    def warn(self, text: str) -> None:
        self._reporter.warn(text)

    def note(self, text: str) -> None:
        self._reporter.say(text)


class _Meter:
    """Records in, one DnsStats a client workload out.

    Left out are what DNS servers ask upstream, and queries that were still waiting at the end.
    """

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        view: View,
        renamed: Mapping[str, str] | None = None,
        *,
        redacted: bool = False,
        filters: tuple[FilterEntry, ...] = (),
    ) -> None:
        self.view, self.filters = view, filters
        self.correlator = DnsCorrelator(snapshot)
        self._builder = DnsSummaryBuilder("", self.correlator.identity, renamed or {}, redacted=redacted)
        self._servers = _Servers()
        self._any = False
        self._began: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def take(self, event: Event) -> None:
        self.view.event(event)
        self._any |= isinstance(event, _MEASURED)
        self._time(event)
        self._builder.event(event)
        for exchange in self.correlator.feed(event):
            self._exchange(exchange)

    def _time(self, event: Event) -> None:
        """The probes' first and last moment on each node, in its own clock."""
        match event:
            case Progress(stage="attached"):
                self._began[event.node] = event.t_ns
            case Progress(stage="detached") | DnsTransaction() | DnsMessageSeen():
                self._ended[event.node] = max(event.t_ns, self._ended.get(event.node, 0))
            case _:
                pass

    def _exchange(self, exchange: DnsExchange) -> None:
        if not exchange.upstream and exchange.client.pod is not None:
            self._builder.exchange(exchange)
            self._servers.add(exchange)

    def finish(self, *, live: bool) -> ExitStatus:
        """As every run has it: what was measured is judged by the checks."""
        return ExitStatus.OK

    def measurement(self) -> DnsMeasurement:
        """What was taken in, once."""
        for exchange in self.correlator.finish():
            self._exchange(exchange)
        times = [(self._ended[node] - began) / 1e9 for node, began in self._began.items() if node in self._ended]
        if not self._any:
            return DnsMeasurement(seconds=max(times, default=None))
        clients = tuple(self._servers.stats(client) for client in self._builder.statistics.clients())
        return DnsMeasurement(clients, max(times, default=None))


class _Servers:
    """Whom each client asked, on which nodes it ran, and who did not answer."""

    def __init__(self) -> None:
        self._asked: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._nodes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._silent: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, exchange: DnsExchange) -> None:
        client = asker_name(exchange)
        self._asked[client][address_text(exchange.asked.ip, exchange.asked.port)] += 1
        self._nodes[client][exchange.client.node or ""] += 1
        if exchange.outcome is QueryOutcome.TIMEOUT:
            server = exchange.server or exchange.asked
            self._silent[client][server.pod or address_text(server.ip, server.port)] += 1

    def stats(self, client_stats: ClientStats) -> DnsStats:
        counts = client_stats.counts
        nxdomain = counts.rcodes.get("NXDOMAIN", 0)
        return DnsStats(
            client=client_stats.client,
            name="",
            server=self._asked[client_stats.client].most_common(1)[0][0],
            queries=counts.queries - counts.open,
            timeouts=counts.timeouts,
            nxdomain=nxdomain,
            servfail=counts.failed - nxdomain,
            stalled=counts.retries,
            races=counts.races,
            searched=client_stats.wasted,
            p50_ns=counts.latency.p50,
            p99_ns=counts.latency.p99,
            node=self._nodes[client_stats.client].most_common(1)[0][0],
            silent=tuple(name for name, _ in self._silent[client_stats.client].most_common(3)),
        )
