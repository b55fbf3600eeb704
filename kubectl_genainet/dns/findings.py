"""What is wrong with name lookup, said once for each client or server, with the numbers behind it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from kubectl_genainet.dns.ends import asker_name
from kubectl_genainet.dns.stats import DnsStatistics
from kubectl_genainet.model.diagnoses.dns import (
    DNS_CONNTRACK_RACE,
    DNS_DROPPED,
    DNS_NDOTS_WASTE,
    DNS_NXDOMAIN_STORM,
    DNS_POLICY,
    DNS_SERVER_FAILURE,
    DNS_SLOW_NETWORK,
    DNS_SLOW_SERVER,
    DNS_SLOW_UPSTREAM,
    DNS_TIMEOUT,
)
from kubectl_genainet.model.diagnoses.rules import OF_NO_ENFORCER
from kubectl_genainet.model.dns import ResolvConf
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, Remedy, listed
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.dns import Lookup, ServerStats
from kubectl_genainet.model.results.exchange import DnsExchange, QueryOutcome
from kubectl_genainet.model.results.path import Drop

SLOW_NS = 200_000_000  # a median from which a server, or what is behind it, is called slow
STORM_LEAST = 40  # NXDOMAIN responses to one client for names that do not exist …
STORM_SHARE = 0.5  # … and so much of its queries
WASTE_LEAST = 20
WASTE_SHARE = 0.4
MAX_KEPT = 2000  # exchanges without an answer that are kept for their evidence

_ADMIT_DNS_YAML = """egress:
  - to:
      - namespaceSelector:
          matchLabels: {kubernetes.io/metadata.name: kube-system}
        podSelector:
          matchLabels: {k8s-app: kube-dns}
    ports:
      - {protocol: UDP, port: 53}
      - {protocol: TCP, port: 53}
"""
ADMIT_DNS = Remedy("Admit DNS to the cluster's DNS pods.", yaml=_ADMIT_DNS_YAML)


class Failures:
    """Keeps what the findings need of exchanges that went wrong."""

    def __init__(self) -> None:
        self._timeouts: dict[tuple[str, str, str, str], list[DnsExchange]] = defaultdict(list)
        self._count: Counter[tuple[str, str, str, str]] = Counter()
        self._rcodes: Counter[tuple[str, str]] = Counter()
        self.kept = 0

    def add(self, exchange: DnsExchange) -> None:
        if exchange.outcome is QueryOutcome.FAILED and exchange.rcode not in ("NXDOMAIN", None):
            server = exchange.server or exchange.asked
            self._rcodes[server.pod or address_text(server.ip, server.port), exchange.rcode or "?"] += 1
        if exchange.outcome is not QueryOutcome.TIMEOUT:
            return
        key = (asker_name(exchange), *_reason(exchange))
        self._count[key] += 1
        if self.kept < MAX_KEPT and len(self._timeouts[key]) < 20:
            self._timeouts[key].append(exchange)
            self.kept += 1

    def findings(self) -> Iterator[Finding]:
        for key, exchanges in self._timeouts.items():
            if exchanges:
                yield _timeout(key, self._count[key], exchanges)
        for (server, rcode), count in self._rcodes.items():
            yield DNS_SERVER_FAILURE.finding(
                f"{server} answered {count} queries with {rcode}",
                (Evidence(f"{count} responses with {rcode}", Certainty.OBSERVED),),
            )


def _reason(exchange: DnsExchange) -> tuple[str, str, str]:
    """What tells one cause of time-outs from another: the drop's place and rule, else the place that saw it last."""
    drop = exchange.drop
    if exchange.race:  # also where the drop was seen: no rule is behind it
        return ("race", "", "race")
    if drop is not None and drop.policies and drop.check not in OF_NO_ENFORCER:
        return (" ".join(drop.policies), "", "drop")
    if drop is not None:
        server = exchange.server or exchange.asked
        return (f"{drop.reason} {drop.hook or ''} {drop.rule or ''} {drop.node}", server.pod or server.ip, "drop")
    server = exchange.server or exchange.asked
    return (exchange.last_seen.split(",")[0], server.pod or server.ip, "silence")


def _timeout(key: tuple[str, str, str, str], count: int, exchanges: Sequence[DnsExchange]) -> Finding:
    client, _, server, kind = key
    first = exchanges[0]
    names = listed(tuple(dict.fromkeys(e.name or "?" for e in exchanges)))
    statement = f"{count} queries without an answer, for {names}"
    evidence = [Evidence(statement, Certainty.OBSERVED, node=first.client.node or "")]
    if first.last_seen:
        evidence.append(Evidence(first.last_seen, Certainty.OBSERVED))
    if kind == "race":
        return _raced(client, first.drop, evidence)
    if kind == "silence":
        return DNS_TIMEOUT.finding(
            f"queries of {client} to {server} get no answer",
            tuple(evidence),
        )
    assert first.drop is not None
    return _dropped(client, server, first.drop, evidence)


def _raced(client: str, drop: Drop | None, evidence: list[Evidence]) -> Finding:
    if drop is not None:
        where = f"{drop.hook or drop.location} on node {drop.node}"
        evidence.append(Evidence(f"{drop.reason} in {where}", Certainty.OBSERVED, node=drop.node or ""))
    evidence.append(
        Evidence(
            "its pair (A and AAAA, same socket, same moment) was answered, and the node's count of failed conntrack "
            "insertions has grown",
            Certainty.OBSERVED,
        )
    )
    return DNS_CONNTRACK_RACE.finding(
        f"{client} loses one of A and AAAA to the conntrack race",
        tuple(evidence),
        remedy=Remedy(
            "Put single-request-reopen into the pods' dnsConfig.options, or run NodeLocal DNSCache, whose address is "
            "not translated.",
            yaml="dnsConfig:\n  options:\n    - name: single-request-reopen\n",
        ),
    )


def _dropped(client: str, server: str, drop: Drop, evidence: list[Evidence]) -> Finding:
    where = drop.pod or (f"node {drop.node}" if drop.node else "?")
    evidence.append(Evidence(f"{drop.reason} in {drop.location} on {where}", Certainty.OBSERVED, node=drop.node or ""))
    if drop.explanation:
        evidence.append(Evidence(drop.explanation, drop.certainty))
    if drop.rule:
        evidence.append(Evidence(drop.rule, drop.certainty))
    evidence += drop.evidence[:6]
    if drop.policies and drop.check not in OF_NO_ENFORCER:
        policies = ", ".join(drop.policies)
        return DNS_POLICY.finding(
            f"a NetworkPolicy keeps {client} from DNS: isolated by {policies}, and no rule admits the query",
            tuple(evidence),
            remedy=ADMIT_DNS,
        )
    hook = f" in {drop.hook}" if drop.hook else ""
    return DNS_DROPPED.finding(
        f"queries of {client} to {server} are dropped on {where}: {drop.reason}{hook}",
        tuple(evidence),
    )


def slow_servers(servers: Sequence[ServerStats]) -> Iterator[Finding]:
    """Servers whose answers take long, told apart: the server itself, or what it asks."""
    for server in servers:
        upstream, own, way = server.upstream_time, server.server_time, server.way
        if upstream.p50 is not None and upstream.p50 >= SLOW_NS:
            yield DNS_SLOW_UPSTREAM.finding(
                f"{server.server} waits for its upstream: the names outside the cluster are slow",
                (
                    Evidence(
                        f"its queries upstream took {_ms(upstream.p50)} in the median ({upstream.count} measured)",
                        Certainty.OBSERVED,
                        node=server.node or "",
                    ),
                    *(
                        ()
                        if way.p50 is None
                        else (Evidence(f"the way between the clients and it took {_ms(way.p50)}", Certainty.OBSERVED),)
                    ),
                ),
            )
        elif own.p50 is not None and own.p50 >= SLOW_NS:
            yield DNS_SLOW_SERVER.finding(
                f"{server.server} answers slowly",
                (
                    Evidence(
                        f"{_ms(own.p50)} in the median from query in to response out",
                        Certainty.OBSERVED,
                        node=server.node or "",
                    ),
                ),
            )
        elif way.p50 is not None and way.p50 >= SLOW_NS:
            yield DNS_SLOW_NETWORK.finding(
                f"the way to {server.server} is slow, not the server",
                (Evidence(f"{_ms(way.p50)} in the median pass outside of it", Certainty.OBSERVED),),
            )


def habits(statistics: DnsStatistics) -> Iterator[Finding]:
    """Names that do not exist, asked again and again; names that go through search domains first."""
    lookups = statistics.lookups()
    for client in statistics.clients():
        if client.client in statistics.forwarders:
            continue  # its clients' habits, which are theirs to change
        own = [item for item in lookups if item.client == client.client]
        conf = statistics.resolv_conf(client.client)
        missing = client.counts.rcodes.get("NXDOMAIN", 0) - client.wasted
        if missing >= STORM_LEAST and missing >= STORM_SHARE * client.counts.queries:
            yield _storm(client.client, missing, client.counts.queries, [i for i in own if not i.resolved_as])
        if client.wasted >= WASTE_LEAST and client.wasted >= WASTE_SHARE * client.counts.queries:
            yield _waste(client.client, client.wasted, client.counts.queries, [i for i in own if i.wasted], conf)


def _storm(client: str, missing: int, queries: int, lookups: Sequence[Lookup]) -> Finding:
    names = ", ".join(i.base for i in lookups[:5])
    return DNS_NXDOMAIN_STORM.finding(
        f"{client} asks again and again for names that do not exist: {names}",
        (
            Evidence(
                f"{missing} of {queries} queries ended in NXDOMAIN, and no candidate of these names resolved",
                Certainty.OBSERVED,
            ),
        ),
        remedy=Remedy("Correct the name in the client's configuration, or have it remember the failure."),
    )


def _waste(client: str, wasted: int, queries: int, lookups: Sequence[Lookup], conf: ResolvConf | None) -> Finding:
    worst = lookups[0]
    dots = worst.base.count(".")
    certainty = conf.certainty if conf is not None else Certainty.UNKNOWN
    external = worst.resolved_as == worst.base
    lines = f'"{conf.search_line}", "{conf.options_line}"' if conf is not None else "not known"
    how = "as the nodes read it" if certainty is Certainty.OBSERVED else "as kubelet writes it for the pod's spec"
    per = worst.wasted / worst.lookups if worst.lookups else 0
    evidence = (
        Evidence(
            f"{wasted} of {queries} queries ({wasted / queries:.0%}) only tried search domains", Certainty.OBSERVED
        ),
        Evidence(
            f"{worst.base}: {worst.wasted} wasted queries, {per:.0f} a lookup; resolved as {worst.resolved_as}.",
            Certainty.OBSERVED,
        ),
        Evidence(f"resolv.conf: {lines} ({how})", certainty),
    )
    if external and dots:
        text = f'Write "{worst.base}." with the dot at its end, or set ndots to {dots} or less for these pods.'
        yaml = 'dnsConfig:\n  options:\n    - {name: ndots, value: "1"}\n'
    else:
        text, yaml = f'Write "{worst.resolved_as}." with the dot at its end.', ""
    return DNS_NDOTS_WASTE.finding(
        f"{wasted / queries:.0%} of the queries of {client} are wasted on search domains (ndots)",
        evidence,
        remedy=Remedy(text, yaml=yaml),
    )


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.1f} ms"
