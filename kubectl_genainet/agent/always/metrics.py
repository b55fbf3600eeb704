"""Records of an always-on session in, Prometheus metrics out. No I/O: `agent.always` feeds it and serves what it says."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from prometheus_client import Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from kubectl_genainet import __version__
from kubectl_genainet.agent.always.owners import Owners
from kubectl_genainet.agent.always.series import OTHER, Catalogue
from kubectl_genainet.model.events import (
    DnsEnd,
    DnsTransaction,
    DropCount,
    EstablishedCount,
    Event,
    IcmpCount,
    LostEvents,
    PacketDropped,
    Point,
    Progress,
    ResetCount,
    RetransmitCount,
)
from kubectl_genainet.model.identities import UNKNOWN
from kubectl_genainet.model.node import NodeReport
from kubectl_genainet.model.packet import is_multicast
from kubectl_genainet.model.reasons import function_of, is_background

MAX_LABEL_SETS = 500  # of each metric
MAX_HOOKS = 4096
# From a cache's answer to what a resolver waits for (5 s, resolv.conf(5)), and one retry more.
DNS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

disable_created_metrics()  # type: ignore[no-untyped-call]


# What resolvers answer (RFC 1035, RFC 2136). A response has 12 bits for it, and anybody can answer with any: the rest is one.
_RCODES = frozenset({"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "NOTAUTH"})


def _rcode(event: DnsTransaction) -> str:
    if event.answer is None:
        return UNKNOWN
    return event.answer.rcode if event.answer.rcode in _RCODES else OTHER


class Metrics:
    """Feed it every record of the session. `scrape` is the exposition."""

    def __init__(
        self, owners: Owners, *, limit: int = MAX_LABEL_SETS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.owners = owners
        self._hooks: OrderedDict[tuple[object, ...], str] = OrderedDict()
        catalogue = Catalogue(limit, clock)
        self.registry = catalogue.registry
        self._add_those_of_workloads(catalogue)
        self._add_those_of_name_lookup(catalogue)
        self._add_those_of_the_node()

    def _add_those_of_workloads(self, catalogue: Catalogue) -> None:
        whose, fold = ("namespace", "workload"), ("namespace", "workload")
        self._drops = catalogue.counter(
            "genainet_drops",
            "Packets that the kernel dropped; a GSO packet is one.",
            "reason",
            *whose,
            "hook",
            fold=fold,
        )
        self._dropped_bytes = catalogue.counter(
            "genainet_dropped_bytes",
            "Bytes of the packets in genainet_drops_total.",
            "reason",
            *whose,
            "hook",
            fold=fold,
        )
        self._icmp = catalogue.counter(
            "genainet_icmp_errors",
            "ICMP errors received about a flow of the workload.",
            *whose,
            "family",
            "type",
            "code",
            fold=fold,
        )
        self._resets = catalogue.counter(
            "genainet_tcp_resets", "TCP resets sent or received by the workload.", *whose, "direction", fold=fold
        )
        self._retransmits = catalogue.counter(
            "genainet_tcp_retransmits", "Segments that the workload's TCP sent again.", *whose, "state", fold=fold
        )
        self._connections = catalogue.counter(
            "genainet_connections",
            "TCP connections accepted on this node, by the Service and its backend.",
            "service",
            "backend",
            fold=("backend",),
        )

    def _add_those_of_name_lookup(self, catalogue: Catalogue) -> None:
        whose, fold = ("namespace", "workload"), ("namespace", "workload")
        self._dns = catalogue.histogram(
            "genainet_dns_duration_seconds",
            "Time from a DNS query over UDP leaving the workload to its response arriving there.",
            DNS_BUCKETS,
            *whose,
            "rcode",
            fold=fold,
        )
        self._dns_failures = catalogue.counter(
            "genainet_dns_failures",
            "DNS queries over UDP that were sent again (repeated) or got no response (expired).",
            *whose,
            "reason",
            fold=fold,
        )

    def _add_those_of_the_node(self) -> None:
        self._background = self._counter(
            "genainet_background_frees",
            "Packets freed with nothing lost (closed connections, multicast); not in drops.",
        )
        self._lost = self._counter(
            "genainet_events_lost",
            "Events of a probe that did not reach the metrics, by the place where they were lost.",
            "probe",
            "where",
        )
        self._missing = self._gauge(
            "genainet_feature_missing", "1 for what this kernel lacks; the detail says what is not seen.", "detail"
        )
        self._conntrack = self._gauge("genainet_conntrack_entries", "Entries in the node's connection tracking table.")
        self._conntrack_max = self._gauge("genainet_conntrack_limit", "Entries that the node's table has room for.")
        self._taken_at = self._gauge(
            "genainet_identities_timestamp_seconds", "When the names of addresses were taken; 0 where there are none."
        )
        self._taken_at.set_function(lambda: self.owners.identities.taken_at)
        self._info = self._gauge("genainet_agent_info", "The agent's version.", "version")
        self._info.labels(__version__).set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def feed(self, event: Event) -> None:
        """Takes in one record."""
        match event:
            case DropCount():
                self._drop(event)
            case PacketDropped():
                self._remember_hook(event)
            case IcmpCount(reason=""):  # one that was dropped is a drop as well, and counted there
                kind = (str(event.family), str(event.type), str(event.code))
                self._icmp.add((*self._whose(event.netns, event), *kind), event.packets)
            case ResetCount():
                direction = "sent" if event.sent else "received"
                self._resets.add((*self._whose(event.netns, event), direction), event.packets)
            case RetransmitCount():
                self._retransmits.add((*self._whose(event.netns, event), event.state or UNKNOWN), event.packets)
            case EstablishedCount():
                labels = (self.owners.service(event.flow), self.owners.backend(event.flow))
                self._connections.add(labels, event.packets)
            case DnsTransaction():
                self._dns_exchange(event)
            case LostEvents():
                self._lost.labels(event.probe, event.where).inc(event.count)
            case Progress(stage="missing"):
                self._missing.labels(event.detail).set(1)
            case NodeReport():
                self._node(event)
            case _:
                pass

    def _whose(self, netns: int, event: DropCount | IcmpCount | ResetCount | RetransmitCount) -> tuple[str, str]:
        owner = self.owners.concerned(netns, event.flow)
        return owner.namespace, owner.workload

    def is_background(self, event: DropCount) -> bool:
        """Whether nothing was lost by the drop, as `drops` has it."""
        multicast = is_multicast(event.flow.dst)
        return is_background(event.reason, function_of(event.location), opening=event.opening, multicast=multicast)

    def _drop(self, event: DropCount) -> None:
        if self.is_background(event):
            self._background.inc(event.packets)
            return
        labels = (event.reason or UNKNOWN, *self._whose(event.netns, event), self.hook_of(event))
        self._drops.add(labels, event.packets)
        self._dropped_bytes.add(labels, event.bytes)

    def _remember_hook(self, event: PacketDropped) -> None:
        """The counts of the kernel have no stack; the samples, which come before, have one."""
        for key in _hook_keys(event):
            self._hooks[key] = event.hook or "none"
            self._hooks.move_to_end(key)
        while len(self._hooks) > MAX_HOOKS:
            self._hooks.popitem(last=False)

    def hook_of(self, event: DropCount) -> str:
        """The netfilter hook by a sample of the same drop; "none" outside of netfilter, "unknown" without a sample."""
        return next((self._hooks[key] for key in _hook_keys(event) if key in self._hooks), UNKNOWN)

    def _dns_exchange(self, event: DnsTransaction) -> None:
        if not event.query or event.query[0].point is not Point.TX:
            return  # not sent on this node: the client's node counts it
        owner = self.owners.concerned(event.query[0].netns, event.flows[0])
        whose = (owner.namespace, owner.workload)
        if event.end is DnsEnd.ANSWERED and event.response:
            seconds = (event.response[-1].t_ns - event.query[0].t_ns) / 1e9
            self._dns.observe((*whose, _rcode(event)), seconds)
        elif event.end in (DnsEnd.REPEATED, DnsEnd.EXPIRED):
            self._dns_failures.add((*whose, event.end.value), 1)

    def _node(self, report: NodeReport) -> None:
        self.owners.reload()
        self.owners.learn(report)
        for netns in report.namespaces:
            if netns.host and netns.conntrack_count is not None and netns.conntrack_max is not None:
                self._conntrack.set(netns.conntrack_count)
                self._conntrack_max.set(netns.conntrack_max)

    def scrape(self, accept: str = "") -> tuple[bytes, str]:
        """(body, content type) in the format that the scraper prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


def _hook_keys(event: DropCount | PacketDropped) -> Iterator[tuple[object, ...]]:
    """What a sample and a count have in common: with the client's port, which most drops share, and without it."""
    flow = event.flow
    place = (event.netns, event.reason, function_of(event.location))
    yield (*place, flow)
    yield (*place, flow.src, flow.dst, flow.protocol)
