"""What the kernel counts and no tracepoint shows, as rows: full queues of listening sockets, the connection table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from kubectl_genainet.drops.drops import DropCorrelator, EventGroup
from kubectl_genainet.model.finding import Certainty, Evidence, Severity
from kubectl_genainet.model.node import NetNs
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.drops import DropOutcome, DropRow
from kubectl_genainet.model.results.path import Drop, Party

Explain = Callable[[EventGroup], Drop]
Beside = Callable[[EventGroup, list[EventGroup]], Iterable[Evidence]]


@dataclass(frozen=True, slots=True)
class QueueCounter:
    """A counter of /proc/net/netstat that grows when a listening socket's queue has no room."""

    name: str
    check: str
    title: str


QUEUES = (
    QueueCounter(
        "ListenOverflows",
        "listen-overflow",
        "the listen queue of {place} is full: its application does not accept connections",
    ),
    QueueCounter(
        "TCPReqQFullDrop",
        "syn-queue-full",
        "the queue of half-open connections of {place} is full, and SYNs are dropped without a word "
        "(net.ipv4.tcp_max_syn_backlog, somaxconn, the application's listen(); net.ipv4.tcp_syncookies is 0)",
    ),
)
_FULL = "the connection tracking table of node {node} is full: new connections are dropped"
_FAILED = {
    "snat-ports-exhausted": "the source NAT of node {node} found no free port for new connections",
    "conntrack-race": "two packets of one connection raced for its entry in the connection table of node {node}, and one "
    "was dropped: typical of A and AAAA queries from one socket",
    "conntrack-insert-failed": "entries could not be made in the connection table of node {node}: two packets of one "
    "connection raced for it (typical of A and AAAA queries from one socket), or a source NAT found no free port",
}


class CounterRows:
    """Rows of counters that have grown since the run began; a counter keeps its number."""

    def __init__(self, correlator: DropCorrelator) -> None:
        self._of = correlator
        self._ids: dict[tuple[str, int, str], int] = {}

    def rows(self, explain: Explain, beside: Beside) -> Iterator[DropRow]:
        for (node, inode), netns in list(self._of.identity.namespaces.items()):
            if netns.host:
                yield from self._conntrack(node, inode, netns, explain)
            yield from self._queues(node, inode, netns, beside)

    def _queues(self, node: str, inode: int, netns: NetNs, beside: Beside) -> Iterator[DropRow]:
        identity = self._of.identity
        ip = next(iter(netns.addresses), "")
        if not ip or not self._of.concerns(FiveTuple("", 0, ip, 0, Protocol.TCP)):
            return
        for queue in QUEUES:
            grown = identity.grown(node, inode, queue.name)
            if grown <= 0:
                continue
            evidence = [Evidence(f"TcpExt {queue.name} grew by {grown}", Certainty.OBSERVED, node=node, value=grown)]
            for group in self._of.groups:
                if group.what == "retransmit" and self._leads_to(group, ip) and group.states["SYN_SENT"]:
                    evidence += beside(group, [group])
            yield self._row(
                (node, inode, queue.name),
                grown,
                identity.party(ip, None),
                check=queue.check,
                title=queue.title.format(place=identity.place(node, inode)),
                evidence=tuple(evidence[:6]),
            )

    def _leads_to(self, group: EventGroup, ip: str) -> bool:
        """Whether the group's server is the address, or a Service with it as an endpoint."""
        request, snapshot = group.request, self._of.identity.snapshot
        found = snapshot.service_at(request.dst, request.dport, request.protocol.value)
        return request.dst == ip or (
            found is not None and any(b.ip == ip for b in snapshot.backends(found.service, found.port))
        )

    def _conntrack(self, node: str, inode: int, netns: NetNs, explain: Explain) -> Iterator[DropRow]:
        grown = {name: self._of.identity.grown(node, inode, f"conntrack_{name}") for name in ("drop", "insert_failed")}
        grown["drop"] -= grown["insert_failed"]  # it counts these too (nf_ct_resolve_clash, nf_conntrack_core.c)
        fill = f"nf_conntrack_count {netns.conntrack_count} of nf_conntrack_max {netns.conntrack_max}"
        for counter, number in grown.items():
            if number <= 0:
                continue
            check, title = ("conntrack-full", _FULL) if counter == "drop" else self._failed(node, explain)
            stated = Evidence(f"conntrack -S: {counter} grew by {number}", Certainty.OBSERVED, node=node, value=number)
            yield self._row(
                (node, inode, counter),
                number,
                None,
                check=check,
                title=title.format(node=node),
                evidence=(stated, Evidence(fill, Certainty.OBSERVED, node=node)),
            )

    def _failed(self, node: str, explain: Explain) -> tuple[str, str]:
        """What the node's failed insertions were, by the packets that were dropped meanwhile."""
        dropped = [g for g in self._of.groups if g.what == "drop" and g.node == node and g.reason == "NETFILTER_DROP"]
        checks = {explain(group).check for group in dropped} & _FAILED.keys()
        check = checks.pop() if len(checks) == 1 else "conntrack-insert-failed"
        return check, _FAILED[check]

    def _row(
        self,
        key: tuple[str, int, str],
        count: int,
        server: Party | None,
        *,
        check: str,
        title: str,
        evidence: tuple[Evidence, ...],
    ) -> DropRow:
        node, inode, _ = key
        pod = self._of.identity.pod_in(node, inode)
        raced = check in ("conntrack-race", "conntrack-insert-failed")
        return DropRow(
            id=self._ids.setdefault(key, -len(self._ids) - 1),
            outcome=DropOutcome.DROPPED,
            check=check,
            severity=Severity.WARNING if raced else Severity.ERROR,
            packets=count,
            bytes=0,
            client=None,
            server=server,
            service=None,
            protocol=Protocol.TCP if server is not None else Protocol.UNKNOWN,
            direction="request",
            node=node,
            pod=f"{pod.metadata.namespace}/{pod.metadata.name}" if pod else None,
            title=title,
            evidence=evidence,
        )
