"""DNS as `dns` measured it, in the terms of doctor's checks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from kubectl_genainet.bundle import Bundle
from kubectl_genainet.correlate.dns import DnsCorrelator, client_name
from kubectl_genainet.correlate.dns_stats import ClientStats
from kubectl_genainet.correlate.dns_summary import DnsSummaryBuilder
from kubectl_genainet.doctor.inputs import DnsStats
from kubectl_genainet.model.events import DnsDropped, DnsMessageSeen, DnsTransaction
from kubectl_genainet.model.exchange import DnsExchange, Outcome
from kubectl_genainet.model.packet import address_text

_MEASURED = (DnsTransaction, DnsMessageSeen, DnsDropped)


def dns_measured(bundle: Bundle) -> tuple[DnsStats, ...]:
    """One record a client workload; none where the bundle holds no DNS.

    Left out are what DNS servers ask upstream, and queries that were still waiting when the recording ended.
    """
    if not any(isinstance(event, _MEASURED) for event in bundle.events):
        return ()
    correlator = DnsCorrelator(bundle.snapshot)
    renamed: Mapping[str, str] = bundle.header.arguments.get("search") or {}
    builder = DnsSummaryBuilder("", correlator.identity, renamed, redacted=bundle.header.redacted)
    seen = _Servers()

    def take(exchange: DnsExchange) -> None:
        if not exchange.upstream and exchange.client.pod is not None:
            builder.exchange(exchange)
            seen.add(exchange)

    for event in bundle.events:
        builder.event(event)
        for exchange in correlator.feed(event):
            take(exchange)
    for exchange in correlator.finish():
        take(exchange)
    return tuple(seen.stats(client) for client in builder.statistics.clients())


class _Servers:
    """Whom each client asked, on which nodes it ran, and who did not answer."""

    def __init__(self) -> None:
        self._asked: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._nodes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._silent: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, exchange: DnsExchange) -> None:
        client = client_name(exchange.client)
        self._asked[client][address_text(exchange.asked.ip, exchange.asked.port)] += 1
        self._nodes[client][exchange.client.node or ""] += 1
        if exchange.outcome is Outcome.TIMEOUT:
            server = exchange.server or exchange.asked
            self._silent[client][server.pod or address_text(server.ip, server.port)] += 1

    def stats(self, found: ClientStats) -> DnsStats:
        counts = found.counts
        nxdomain = counts.rcodes.get("NXDOMAIN", 0)
        return DnsStats(
            client=found.client, name="", server=self._asked[found.client].most_common(1)[0][0],
            queries=counts.queries - counts.open,
            timeouts=counts.timeouts, nxdomain=nxdomain, servfail=counts.failed - nxdomain, stalled=counts.retries,
            races=counts.races, searched=found.wasted, p50_ns=counts.latency.p50, p99_ns=counts.latency.p99,
            node=self._nodes[found.client].most_common(1)[0][0],
            silent=tuple(name for name, _ in self._silent[found.client].most_common(3)),
        )  # fmt: skip
