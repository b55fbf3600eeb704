"""What DNS exchanges amount to: per client workload, per name, per server; the lookups that search domains wasted."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass, field
from typing import TypeVar

from kubectl_genainet.dns.ends import asker_name
from kubectl_genainet.dns.resolv import split_search
from kubectl_genainet.model.dns import ResolvConf
from kubectl_genainet.model.results.dns import ClientStats, Lookup, NameStats, QueryCounts, ServerStats
from kubectl_genainet.model.results.exchange import DnsExchange, QueryOutcome
from kubectl_genainet.model.results.measure import quantiles

K = TypeVar("K")

MAX_SAMPLES = 20_000  # per group and measure
MAX_GROUPS = 20_000
MAX_LOOKUPS = 100_000


@dataclass(slots=True)
class ExchangeTally:
    """Counts exchanges as they come."""

    outcomes: Counter[QueryOutcome] = field(default_factory=Counter)
    rcodes: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    truncated: int = 0
    tcp_retries: int = 0
    races: int = 0
    last: str = ""  # time of the newest query
    latencies: list[int] = field(default_factory=list)
    server_times: list[int] = field(default_factory=list)
    upstream_times: list[int] = field(default_factory=list)
    way_times: list[int] = field(default_factory=list)

    def add(self, exchange: DnsExchange) -> None:
        self.outcomes[exchange.outcome] += 1
        if exchange.outcome is QueryOutcome.FAILED or exchange.rcode == "NXDOMAIN":
            self.rcodes[exchange.rcode or "?"] += 1
        self.retries += exchange.retry
        self.truncated += exchange.truncated
        self.tcp_retries += exchange.after_truncation
        self.races += exchange.race
        self.last = max(self.last, exchange.time)
        split = exchange.split
        way = None if exchange.latency_ns is None or split.server is None else exchange.latency_ns - split.server
        for value, into in (
            (exchange.latency_ns, self.latencies),
            (split.server, self.server_times),
            (split.upstream, self.upstream_times),
            (way, self.way_times),
        ):
            if value is not None and len(into) < MAX_SAMPLES:
                into.append(value)

    def counts(self) -> QueryCounts:
        outcomes = self.outcomes
        return QueryCounts(
            queries=sum(outcomes.values()),
            answered=outcomes[QueryOutcome.ANSWERED],
            failed=outcomes[QueryOutcome.FAILED],
            timeouts=outcomes[QueryOutcome.TIMEOUT],
            open=outcomes[QueryOutcome.OPEN],
            retries=self.retries,
            truncated=self.truncated,
            tcp_retries=self.tcp_retries,
            races=self.races,
            rcodes=dict(self.rcodes),
            latency=quantiles(self.latencies),
            last=self.last,
        )


@dataclass(slots=True)
class _Candidates:
    """The names tried for one base name: how often each was answered and how often not found."""

    found: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    kinds: set[str] = field(default_factory=set)


def _row(groups: OrderedDict[K, ExchangeTally], key: K) -> ExchangeTally | None:
    """The group of a key, made if need be; None where there are too many."""
    row = groups.get(key)
    if row is None and len(groups) < MAX_GROUPS:
        row = groups[key] = ExchangeTally()
    return row


class DnsStatistics:
    """Collects exchanges of clients; what DNS servers ask upstream is counted apart, in `upstream`."""

    def __init__(self) -> None:
        self.all = ExchangeTally()
        self.upstream = ExchangeTally()
        self._clients: OrderedDict[str, ExchangeTally] = OrderedDict()
        self._names: OrderedDict[tuple[str, str, str], ExchangeTally] = OrderedDict()
        self._servers: OrderedDict[tuple[str, str | None], ExchangeTally] = OrderedDict()
        self._lookups: dict[tuple[str, str], _Candidates] = defaultdict(_Candidates)
        self._conf: dict[str, ResolvConf] = {}
        self.not_grouped = 0  # exchanges that lack a row of their own: there are too many others
        self.forwarders: set[str] = set()  # clients that ask on behalf of others

    def add(self, exchange: DnsExchange, conf: ResolvConf | None) -> None:
        client = asker_name(exchange)
        (self.upstream if exchange.upstream else self.all).add(exchange)
        if exchange.upstream:
            self.forwarders.add(client)
        name = exchange.name or "(not read)"
        party = exchange.server or exchange.asked
        server = party.pod or (f"node {party.node}" if party.node else party.ip)
        rows = (
            _row(self._clients, client),
            _row(self._names, (client, name, exchange.type or "?")),
            _row(self._servers, (server, party.node)),
        )
        for row in filter(None, rows):
            row.add(exchange)
        if conf is not None:
            self._conf[client] = conf
        whole = None not in rows
        if exchange.name and not exchange.upstream and exchange.outcome in (QueryOutcome.ANSWERED, QueryOutcome.FAILED):
            whole &= self._learn_lookup(client, exchange, conf)
        self.not_grouped += not whole

    def _learn_lookup(self, client: str, exchange: DnsExchange, conf: ResolvConf | None) -> bool:
        """False where there are too many others."""
        assert exchange.name is not None
        plain = exchange.name.rstrip(".").lower()
        split = split_search(plain, conf.search) if conf is not None else None
        base = split[0] if split else plain
        if (client, base) not in self._lookups and len(self._lookups) >= MAX_LOOKUPS:
            return False
        candidates = self._lookups[client, base]
        candidates.kinds.add(exchange.type or "?")
        if exchange.rcode == "NXDOMAIN":
            candidates.missing[plain] += 1
        elif exchange.outcome is QueryOutcome.ANSWERED:
            candidates.found[plain] += 1
        return True

    def lookups(self) -> list[Lookup]:
        """Names by what they cost: the most wasted queries first."""
        out = []
        for (client, base), candidates in self._lookups.items():
            absolute = self._lookups.get((client, base))
            answered = candidates.found or (absolute.found if absolute else Counter())
            resolved = max(answered, key=lambda n: answered[n]) if answered else self._found_elsewhere(client, base)
            missing = sum(n for name, n in candidates.missing.items() if name != resolved)
            wasted = missing if resolved else 0
            each = max(1, len(candidates.kinds))
            tried = max([*candidates.missing.values(), *answered.values()], default=0)
            out.append(
                Lookup(client, base, resolved, sum(answered.values()) + missing, wasted, max(1, round(tried / each)))
            )
        return sorted(out, key=lambda item: (-item.wasted, -item.queries))

    def _found_elsewhere(self, client: str, base: str) -> str:
        """A fully qualified cluster name counts under its own shorter base."""
        conf = self._conf.get(client)
        split = split_search(base, conf.search) if conf else None
        other = self._lookups.get((client, split[0])) if split else None
        return base if other is not None and other.found.get(base) else ""

    def clients(self) -> tuple[ClientStats, ...]:
        wasted: Counter[str] = Counter()
        for lookup in self.lookups():
            wasted[lookup.client] += lookup.wasted
        rows = []
        for client, group in self._clients.items():
            conf = self._conf.get(client)
            rows.append(
                ClientStats(
                    client, group.counts(), wasted[client], conf.ndots if conf else None, conf.search if conf else ()
                )
            )
        return tuple(sorted(rows, key=lambda r: (-r.counts.timeouts, -r.counts.failed, -r.counts.queries, r.client)))

    def names(self) -> tuple[NameStats, ...]:
        resolved = {(item.client, item.base): item.resolved_as for item in self.lookups()}
        rows = []
        for (client, name, kind), group in self._names.items():
            conf = self._conf.get(client)
            split = split_search(name, conf.search) if conf else None
            answer = resolved.get((client, split[0]), "") if split else ""
            is_wasted = bool(answer) and answer != name.rstrip(".").lower() and bool(group.rcodes["NXDOMAIN"])
            rows.append(NameStats(client, name, kind, group.counts(), is_wasted))
        return tuple(sorted(rows, key=lambda r: (-r.counts.timeouts, -(r.counts.latency.max or 0), -r.counts.queries)))

    def servers(self) -> tuple[ServerStats, ...]:
        rows = [
            ServerStats(
                server,
                node,
                group.counts(),
                quantiles(group.way_times),
                quantiles(group.server_times),
                quantiles(group.upstream_times),
            )
            for (server, node), group in self._servers.items()
        ]
        return tuple(sorted(rows, key=lambda r: (-r.counts.timeouts, -r.counts.queries, r.server)))

    def resolv_conf(self, client: str) -> ResolvConf | None:
        return self._conf.get(client)
