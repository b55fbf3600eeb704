"""What to follow: the DNS ports of the cluster, and whose messages."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.context.targets import resolve
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import Party
from kubectl_genainet.model.target import Target
from kubectl_genainet.wire import FilterEntry

DNS_PORT = 53
EVERYBODY = "::"  # as an address in a filter of the dns probe


def dns_ports(snapshot: ClusterSnapshot) -> tuple[int, ...]:
    """53, and the ports on which the pods behind a Service's port 53 listen (OpenShift's listen on 5353)."""
    ports = {DNS_PORT}
    for service in snapshot.services:
        for port in service.spec.ports:
            if port.port == DNS_PORT:
                ports |= {backend.port for backend in snapshot.backends(service, port) if backend.port}
    return tuple(sorted(ports))


def dns_servers(snapshot: ClusterSnapshot) -> frozenset[str]:
    """Addresses of the pods behind a Service's port 53."""
    return frozenset(
        backend.ip
        for service in snapshot.services
        for port in service.spec.ports
        if port.port == DNS_PORT
        for backend in snapshot.backends(service, port)
    )


@dataclass(frozen=True, slots=True)
class DnsScope:
    """`filters` go to the kernel; `ends` are the target's addresses (empty: all); `as_server`: it is asked, not asking."""

    filters: tuple[FilterEntry, ...]
    ends: frozenset[str]
    as_server: bool
    warnings: tuple[str, ...] = ()

    @property
    def side(self) -> str:
        """Which end of a message the filters name, for the probe."""
        return "any" if self.as_server or not self.ends else "client"

    def concerns(self, exchange: DnsExchange) -> bool:
        """Whether the exchange is the target's; queries upstream are a server's own."""
        if not self.ends:
            return True
        parties: tuple[Party | None, ...] = (exchange.client,)
        if self.as_server:
            parties = (exchange.asked, exchange.server, exchange.client if exchange.upstream else None)
        return any(p is not None and p.ip in self.ends for p in parties)


def dns_scope(target: Target | None, snapshot: ClusterSnapshot, namespace: str, *, as_server: bool) -> DnsScope:
    """The scope of a target, None for the whole cluster. Raises InputError, with near matches, for what does not exist."""
    ports = dns_ports(snapshot)
    if target is None:
        return DnsScope(_entries([EVERYBODY], ports), frozenset(), as_server)
    resolved = resolve(target, snapshot, namespace)
    ends = frozenset(ip for ip, _ in resolved.servers)
    # What the cluster's servers ask upstream belongs to their clients' time.
    followed = ends | dns_servers(snapshot) if not as_server else ends
    return DnsScope(_entries(sorted(followed), ports), ends, as_server, resolved.warnings if as_server else ())


def _entries(addresses: list[str], ports: tuple[int, ...]) -> tuple[FilterEntry, ...]:
    return tuple(FilterEntry(ip, port, protocol) for ip in addresses for port in ports for protocol in ("UDP", "TCP"))
