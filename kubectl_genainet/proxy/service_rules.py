"""A Service port as a node's rules have it: addresses, chains, backends; the same for every mode."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kubectl_genainet.model.packet import address_text


class RuleBackend(msgspec.Struct, frozen=True):
    """An endpoint as the rules have it. `connections` is the counter of its DNAT rule, where there is one.

    `probability` is over new connections; None where a scheduler decides by state.
    """

    ip: str
    port: int | None
    chain: str
    probability: float | None = None
    connections: int | None = None

    @property
    def address(self) -> str:
        return address_text(self.ip, self.port)


class RuleAddress(msgspec.Struct, frozen=True):
    """An address of a Service port that the rules take.

    `via`: clusterIP, externalIP, loadBalancer, nodePort, external (one of the two before), ipvs (any).
    `ip` is empty for a node port; `node_ips` are then the node's addresses that alone take it (empty: all of them). `verdict` is
    DNAT, or what happens instead: REJECT, DROP. `chain` is where the rules send the packet (for IPVS: the scheduler).
    """

    ip: str
    port: int
    via: str
    verdict: str
    chain: str = ""
    packets: int | None = None
    backends: tuple[RuleBackend, ...] = ()
    unread: str = ""  # why the endpoints are not all known
    node_ips: tuple[str, ...] = ()

    def uncounted(self) -> RuleAddress:
        """The same without its counters."""
        backends = tuple(msgspec.structs.replace(backend, connections=None) for backend in self.backends)
        return msgspec.structs.replace(self, packets=None, backends=backends)

    @property
    def address(self) -> str:
        """As "IP:PORT"; a node port as "*:PORT", or with each address that takes it."""
        ips = (self.ip,) if self.ip else self.node_ips or ("*",)
        return ", ".join(address_text(ip, self.port) for ip in ips)


class ServiceRules(msgspec.Struct, frozen=True):
    """All rules of one Service port on one node, of one mode. `service` is "" where the rules don't name it (IPVS)."""

    service: str  # "ns/name:port"
    protocol: str  # "TCP"
    mode: str  # "iptables", "nftables", "ipvs"
    source: str  # the dump it is from
    addresses: tuple[RuleAddress, ...]

    @property
    def backends(self) -> tuple[RuleBackend, ...]:
        """The endpoints over all addresses, each once."""
        by_address: dict[tuple[str, int | None], RuleBackend] = {}
        for address in self.addresses:
            for backend in address.backends:
                by_address.setdefault((backend.ip, backend.port), backend)
        return tuple(by_address.values())

    @property
    def unread(self) -> str:
        """Why the endpoints are not all known; empty where they are."""
        return next((address.unread for address in self.addresses if address.unread), "")

    @property
    def connections(self) -> int | None:
        """New connections that the rules have translated since they were written; None without counters."""
        counts = [b.connections for b in self.backends]
        return None if not counts or None in counts else sum(c for c in counts if c is not None)


RuleEntry = tuple[str, str, RuleAddress]  # Service port, protocol, address


def grouped(entries: Iterable[RuleEntry], mode: str, source: str) -> list[ServiceRules]:
    """The addresses of each Service port and protocol together."""
    by_port: dict[tuple[str, str], list[RuleAddress]] = {}
    for service, protocol, address in entries:
        by_port.setdefault((service, protocol.upper()), []).append(address)
    return [ServiceRules(s, p, mode, source, tuple(addresses)) for (s, p), addresses in by_port.items()]
