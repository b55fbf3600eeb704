"""What the kernel counts and no tracepoint shows, as rows: full queues of listening sockets, the connection table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.drops.groups import EventGroup, GroupKind
from kubectl_genainet.model.diagnoses import Diagnosis
from kubectl_genainet.model.diagnoses.rules import (
    CONNTRACK_FULL,
    CONNTRACK_INSERT_FAILED,
    CONNTRACK_RACE,
    SNAT_PORTS_EXHAUSTED,
)
from kubectl_genainet.model.diagnoses.sockets import LISTEN_OVERFLOW, SYN_QUEUE_FULL
from kubectl_genainet.model.finding import Certainty, Evidence, Severity
from kubectl_genainet.model.node import NetNs
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.drops import DropOutcome, DropRow
from kubectl_genainet.model.results.path import Drop, Party

ExplainDrop = Callable[[EventGroup], Drop]
Beside = Callable[[EventGroup, list[EventGroup]], Iterable[Evidence]]


@dataclass(frozen=True, slots=True)
class QueueCounter:
    """A counter of /proc/net/netstat that grows when a listening socket's queue has no room."""

    name: str
    diagnosis: Diagnosis
    title: str


QUEUES = (
    QueueCounter(
        "ListenOverflows",
        LISTEN_OVERFLOW,
        "the listen queue of {place} is full: its application does not accept connections",
    ),
    QueueCounter(
        "TCPReqQFullDrop",
        SYN_QUEUE_FULL,
        "the queue of half-open connections of {place} is full, and SYNs are dropped silently "
        "(net.ipv4.tcp_max_syn_backlog, somaxconn, the application's listen(); net.ipv4.tcp_syncookies is 0)",
    ),
)
_FULL = "the connection tracking table of node {node} is full: new connections are dropped"
_FAILED = {
    SNAT_PORTS_EXHAUSTED: "the source NAT of node {node} found no free port for new connections",
    CONNTRACK_RACE: "two packets of one connection raced for its entry in the connection table of node {node}, and one "
    "was dropped: typical of A and AAAA queries from one socket",
    CONNTRACK_INSERT_FAILED: "entries could not be made in the connection table of node {node}: two packets of one "
    "connection raced for it (typical of A and AAAA queries from one socket), or a source NAT found no free port",
}


class CounterRows:
    """Rows of counters that have grown since the run began; a counter keeps its number."""

    def __init__(self, correlator: DropCorrelator) -> None:
        self._correlator = correlator
        self._ids: dict[tuple[str, int, str], int] = {}

    def rows(self, explain: ExplainDrop, beside: Beside) -> Iterator[DropRow]:
        for (node, inode), netns in list(self._correlator.identity.namespaces.items()):
            if netns.host:
                yield from self._conntrack(node, inode, netns, explain)
            yield from self._queues(node, inode, netns, beside)

    def _queues(self, node: str, inode: int, netns: NetNs, beside: Beside) -> Iterator[DropRow]:
        identity = self._correlator.identity
        ip = next(iter(netns.addresses), "")
        if not ip or not self._correlator.concerns(FiveTuple("", 0, ip, 0, Protocol.TCP)):
            return
        for queue in QUEUES:
            grown = identity.grown(node, inode, queue.name)
            if grown <= 0:
                continue
            evidence = [Evidence(f"TcpExt {queue.name} grew by {grown}", Certainty.OBSERVED, node=node, value=grown)]
            for group in self._correlator.groups:
                if group.kind is GroupKind.RETRANSMIT and self._leads_to(group, ip) and group.states["SYN_SENT"]:
                    evidence += beside(group, [group])
            yield self._row(
                (node, inode, queue.name),
                grown,
                identity.party(ip, None),
                queue.diagnosis,
                title=queue.title.format(place=identity.place(node, inode)),
                evidence=tuple(evidence[:6]),
            )

    def _leads_to(self, group: EventGroup, ip: str) -> bool:
        """Whether the group's server is the address, or a Service with it as an endpoint."""
        request, snapshot = group.request, self._correlator.identity.snapshot
        service = snapshot.service_at(request.dst, request.dport, request.protocol.value)
        return request.dst == ip or (
            service is not None and any(b.ip == ip for b in snapshot.backends(service.service, service.port))
        )

    def _conntrack(self, node: str, inode: int, netns: NetNs, explain: ExplainDrop) -> Iterator[DropRow]:
        grown = {
            name: self._correlator.identity.grown(node, inode, f"conntrack_{name}")
            for name in ("drop", "insert_failed")
        }
        grown["drop"] -= grown["insert_failed"]  # it counts these too (nf_ct_resolve_clash, nf_conntrack_core.c)
        fill = f"nf_conntrack_count {netns.conntrack_count} of nf_conntrack_max {netns.conntrack_max}"
        for counter, number in grown.items():
            if number <= 0:
                continue
            diagnosis, title = (CONNTRACK_FULL, _FULL) if counter == "drop" else self._failed(node, explain)
            stated = Evidence(f"conntrack -S: {counter} grew by {number}", Certainty.OBSERVED, node=node, value=number)
            yield self._row(
                (node, inode, counter),
                number,
                None,
                diagnosis,
                title=title.format(node=node),
                evidence=(stated, Evidence(fill, Certainty.OBSERVED, node=node)),
            )

    def _failed(self, node: str, explain: ExplainDrop) -> tuple[Diagnosis, str]:
        """What the node's failed insertions were, by the packets that were dropped meanwhile."""
        dropped = (g for g in self._correlator.groups if g.kind is GroupKind.DROP and g.node == node)
        checks = {explain(group).check for group in dropped if group.reason == "NETFILTER_DROP"}
        named = [diagnosis for diagnosis in _FAILED if diagnosis.name in checks]
        diagnosis = named[0] if len(named) == 1 else CONNTRACK_INSERT_FAILED
        return diagnosis, _FAILED[diagnosis]

    def _row(
        self,
        key: tuple[str, int, str],
        count: int,
        server: Party | None,
        diagnosis: Diagnosis,
        *,
        title: str,
        evidence: tuple[Evidence, ...],
    ) -> DropRow:
        node, inode, _ = key
        pod = self._correlator.identity.pod_in(node, inode)
        raced = diagnosis in (CONNTRACK_RACE, CONNTRACK_INSERT_FAILED)
        return DropRow(
            id=self._ids.setdefault(key, -len(self._ids) - 1),
            outcome=DropOutcome.DROPPED,
            check=diagnosis.name,
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
