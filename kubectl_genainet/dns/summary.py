"""The end of a watch on DNS: every query accounted for, the tables, the findings, what was lost."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from kubectl_genainet.context.account import Account
from kubectl_genainet.context.identity import Identity
from kubectl_genainet.dns.ends import client_name
from kubectl_genainet.dns.findings import Failures, habits, slow_servers
from kubectl_genainet.dns.resolv import assumed_resolv_conf
from kubectl_genainet.dns.stats import DnsStatistics
from kubectl_genainet.model.diagnoses.dns import DNS_TCP_BLOCKED
from kubectl_genainet.model.dns import ResolvConf, parse_resolv_conf
from kubectl_genainet.model.events import DnsDropped, Event, PacketSeen
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, counted
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import Party

CONNECT_NS = 1_500_000_000  # a SYN without an answer for so long has failed; TCP repeats it after 1 s (RFC 6298)
MAX_CONNECTIONS = 10_000
MAX_LISTED = 1000


class ResolvConfs:
    """The resolv.conf of clients. `renamed` has what a redaction made of search domains."""

    def __init__(self, identity: Identity, renamed: Mapping[str, str]) -> None:
        self._identity, self._renamed = identity, renamed
        self._known: dict[tuple[str, str], ResolvConf | None] = {}

    def of(self, client: Party) -> ResolvConf | None:
        """As its node read it, else as its spec says; None for what is no pod."""
        if client.pod is None or client.namespace is None:
            return None
        key = (client.namespace, client.pod)
        if key not in self._known:
            self._known[key] = self._find(*key)
        return self._known[key]

    def _find(self, namespace: str, name: str) -> ResolvConf | None:
        pod = self._identity.snapshot.pod(namespace, name)
        if pod is None:
            return None
        text = self._identity.resolv_conf(pod)
        conf = parse_resolv_conf(text) if text else assumed_resolv_conf(pod, self._identity.snapshot)
        if conf is None or not self._renamed:
            return conf
        return ResolvConf(
            tuple(self._renamed.get(d, d) for d in conf.search), conf.ndots, conf.nameservers, conf.certainty
        )


class _Connections:
    """TCP connections to DNS ports that got no answer."""

    def __init__(self) -> None:
        self._open: OrderedDict[FiveTuple, int] = OrderedDict()
        self._refused: set[FiveTuple] = set()
        self._drops: dict[FiveTuple, DnsDropped] = {}
        self._now = 0

    def event(self, event: Event) -> None:
        match event:
            case PacketSeen() if event.tcp is not None and event.flow.protocol is Protocol.TCP:
                self._now = max(self._now, event.t_ns)
                if event.tcp.syn and not event.tcp.is_ack:
                    if len(self._open) < MAX_CONNECTIONS:
                        self._open.setdefault(event.flow, event.t_ns)
                elif event.tcp.syn:
                    self._open.pop(event.flow.reversed, None)
                elif event.tcp.rst and event.flow.reversed in self._open:
                    self._refused.add(event.flow.reversed)
            case DnsDropped() if event.tcp is not None and event.tcp.syn and len(self._drops) < MAX_CONNECTIONS:
                self._drops.setdefault(event.flow, event)
            case _:
                self._now = max(self._now, getattr(event, "t_ns", 0))

    def failed(self, identity: Identity) -> Iterator[Finding]:
        """One finding a client."""
        clients: dict[str, list[FiveTuple]] = {}
        for flow, since in self._open.items():
            if flow in self._refused or self._now - since > CONNECT_NS:
                clients.setdefault(client_name(identity.party(flow.src, flow.sport)), []).append(flow)
        for client, flows in clients.items():
            refused = sum(f in self._refused for f in flows)
            tried = f"{counted(len(flows), 'TCP connection')} to {flows[0].destination} without an answer"
            evidence = [Evidence(f"{tried}, {refused} of them refused", Certainty.OBSERVED)]
            drop = next((d for f, d in self._drops.items() if f.src == flows[0].src), None)
            if drop is not None:
                hook = f" in {drop.hook}" if drop.hook else ""
                evidence.append(
                    Evidence(f"the kernel dropped them: {drop.reason}{hook}", Certainty.OBSERVED, node=drop.node)
                )
            yield DNS_TCP_BLOCKED.finding(
                f"{client} can't reach DNS over TCP, which truncated answers need",
                tuple(evidence),
            )


class DnsSummaryBuilder:
    """Collects exchanges and records as they come."""

    def __init__(self, target: str, identity: Identity, renamed: Mapping[str, str], *, redacted: bool = False) -> None:
        self.target, self.redacted = target, redacted
        self.statistics = DnsStatistics()
        self._identity = identity
        self._confs = ResolvConfs(identity, renamed)
        self._failures = Failures()
        self._connections = _Connections()
        self._account = Account()

    def event(self, event: Event) -> None:
        self._connections.event(event)
        self._account.event(event)

    def exchange(self, exchange: DnsExchange) -> None:
        self.statistics.add(exchange, self._confs.of(exchange.client))
        self._failures.add(exchange)

    def findings(self) -> tuple[Finding, ...]:
        results = [
            *self._failures.findings(),
            *self._connections.failed(self._identity),
            *slow_servers(self.statistics.servers()),
            *habits(self.statistics),
        ]
        return tuple(sorted(results, key=lambda f: -f.severity.rank))

    def build(self, *, malformed: int, unmatched: int) -> DnsSummary:
        statistics, account = self.statistics, self._account
        names, lookups = statistics.names(), statistics.lookups()
        return DnsSummary(
            target=self.target,
            queries=statistics.all.counts(),
            upstream=statistics.upstream.counts(),
            malformed=malformed,
            unmatched=unmatched,
            not_grouped=statistics.not_grouped,
            unlisted=sum(max(len(rows) - MAX_LISTED, 0) for rows in (names, lookups)),
            clients=statistics.clients(),
            names=names[:MAX_LISTED],
            servers=statistics.servers(),
            lookups=tuple(lookups[:MAX_LISTED]),
            findings=self.findings(),
            events=account.events,
            nodes=account.nodes,
            silent_nodes=account.silent_nodes,
            lost=account.lost,
            redacted=self.redacted,
            agents=account.costs,
        )
