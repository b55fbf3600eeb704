"""Connections that conntrack holds against what the API says: entries that outlived their endpoint, or their rules.

The kernel asks an entry before any rule. A UDP client that keeps one port keeps its entry alive, and its packets go
where the entry says, whatever kube-proxy has programmed since: an error. A TCP connection is its own entry: what it
sends goes astray until it ends, and the client's next connection meets the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.diagnoses.kube_proxy import STALE_CONNECTION
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, Remedy, Severity
from kubectl_genainet.model.kube import Service
from kubectl_genainet.model.packet import Protocol, address_text
from kubectl_genainet.proxy.hits import ConntrackEntry
from kubectl_genainet.proxy.names import service_port_name
from kubectl_genainet.shell import sh


def stale_connections(
    snapshot: ClusterSnapshot,
    node: str,
    connections: Iterable[ConntrackEntry],
    services: Sequence[Service] | None = None,
) -> Iterator[Finding]:
    """Entries to a Service's address that go to no endpoint of it, or that are not translated at all."""
    refs = None if services is None else {s.ref for s in services}
    stale: dict[tuple[str, str, bool], list[ConntrackEntry]] = {}
    has_slices = bool(snapshot.of("EndpointSlice", "discovery.k8s.io"))
    for entry in connections:
        if entry.has_ended:
            continue
        original = entry.original
        service = snapshot.service_at(original.dst, original.dport, original.protocol.value)
        if service is None or (refs is not None and service.service.ref not in refs):
            continue
        endpoints = {(b.ip, b.port) for b in snapshot.backends(service.service, service.port) if b.ready or b.serving}
        to = (entry.translated.dst, entry.translated.dport)
        # Without endpoints packets are refused: only an entry that still translates is then stale.
        if (to not in endpoints and has_slices) if entry.has_dnat else endpoints:
            name = service_port_name(
                service.service.metadata.namespace, service.service.metadata.name, service.port.name
            )
            key = (name, address_text(*to) if entry.has_dnat else "", entry.has_dnat)
            stale.setdefault(key, []).append(entry)
    for (name, to_text, translated), entries in stale.items():
        yield _finding(snapshot, node, name, to_text if translated else "", entries)


def _finding(snapshot: ClusterSnapshot, node: str, name: str, to: str, entries: list[ConntrackEntry]) -> Finding:
    first = entries[0].original
    where = (
        f"go to {to}, which is no endpoint of it," if to else "are not translated: they leave for the Service's address"
    )
    service = snapshot.service_at(first.dst, first.dport, first.protocol.value)
    sources = ", ".join(address_text(e.original.src, e.original.sport) for e in entries[:3])
    target = address_text(first.dst, first.dport)
    on_node = f"node {node}: " if node else ""
    is_tcp = first.protocol is Protocol.TCP
    return STALE_CONNECTION.finding(
        f"{on_node}{len(entries)} of {name}'s connections ({sources} to {target}) {where} by an entry of conntrack",
        (
            Evidence(f"conntrack holds {first} -> {to or target}", Certainty.OBSERVED, node=node),
            Evidence("an entry of conntrack is asked before the rules", Certainty.DERIVED),
        ),
        service.service.ref if service is not None else None,
        severity=Severity.INFO if is_tcp else None,
        remedy=Remedy(
            "Only connections that are already open are affected: a client that still uses one has to connect again."
            if is_tcp
            else "Delete the entries on the node: the next packet meets the rules. Clients that keep sending from one "
            "port keep such an entry alive.",
            command=f"conntrack -D -p {first.protocol.value.lower()} --orig-dst {sh(first.dst)} --orig-port-dst {first.dport}",
        ),
    )
