"""IPVS virtual servers, from `ipvsadm -Ln` and `ipvsadm -Sn` text."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.packet import address_text, split_endpoint
from kubectl_genainet.proxy.evaluator.ir import address_number
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef


class RealServer(msgspec.Struct, frozen=True):
    """A backend of a virtual server. `forward` is ipvsadm's word (Masq, Route, Tunnel); counts are connections."""

    ip: str
    port: int
    forward: str
    weight: int
    active: int | None = None
    inactive: int | None = None


class VirtualServer(msgspec.Struct, frozen=True):
    """An IPVS service: an address and port, or a firewall mark (`vip` is then empty and `fwmark` set)."""

    protocol: str
    vip: str
    port: int
    scheduler: str
    persistent_timeout: int | None
    real_servers: tuple[RealServer, ...]
    fwmark: int | None = None

    @property
    def title(self) -> str:
        where = f"FWM {self.fwmark}" if self.fwmark is not None else address_text(self.vip, self.port)
        return f"{self.protocol} {where}" if self.fwmark is None else where

    @property
    def key(self) -> tuple[str, int, int]:
        return self.protocol, address_number(self.vip), self.port

    def probabilities(self) -> list[tuple[RealServer, float | None]]:
        """The servers that get new connections, and how likely each is; None where state or a hash decides.

        Round robin is even over many connections, weighted round robin follows the weights; weight 0 gets nothing
        (ip_vs_rr.c, ip_vs_wrr.c). Least-connection schedulers depend on the connections of the moment.
        """
        servers = [server for server in self.real_servers if server.weight > 0]
        if self.scheduler == "rr" or len(servers) == 1:
            return [(server, 1 / len(servers)) for server in servers]
        if self.scheduler == "wrr":
            total = sum(server.weight for server in servers)
            return [(server, server.weight / total) for server in servers]
        return [(server, None) for server in servers]

    def ref(self, server: RealServer | None = None) -> RuleRef:
        if server is None:
            return RuleRef("ipvs", self.title, 0, f"{self.title} {self.scheduler}")
        text = f"-> {address_text(server.ip, server.port)} {server.forward} {server.weight}"
        return RuleRef("ipvs", self.title, self.real_servers.index(server) + 1, text)


_NAMED_PORTS = {"domain": 53, "http": 80, "https": 443, "ssh": 22}  # listings made without -n
_FORWARD = {"-m": "Masq", "-g": "Route", "-i": "Tunnel"}
_PROTOCOLS = {"-t": "TCP", "-u": "UDP", "--sctp-service": "SCTP", "-f": "FWM"}


def parse_ipvs(text: str) -> tuple[VirtualServer, ...]:
    """The virtual servers of an ipvsadm text, in order. Lines that are neither are skipped."""
    servers: list[VirtualServer] = []
    real: list[list[RealServer]] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2:
            continue
        if words[0] in ("TCP", "UDP", "SCTP", "FWM"):
            servers.append(_listed(words))
            real.append([])
        elif words[0] == "->" and real and ":" in words[1] and not words[1].startswith("RemoteAddress"):
            real[-1].append(_listed_real(words))
        elif words[0] in ("-A", "--add-service"):
            servers.append(_saved(words))
            real.append([])
        elif words[0] in ("-a", "--add-server"):
            owner = _saved(words)
            for i, server in enumerate(servers):
                if (server.protocol, server.vip, server.port, server.fwmark) == (
                    owner.protocol,
                    owner.vip,
                    owner.port,
                    owner.fwmark,
                ):
                    real[i].append(_saved_real(words))
    return tuple(msgspec.structs.replace(s, real_servers=tuple(r)) for s, r in zip(servers, real, strict=True))


def _port(text: str) -> int:
    return int(text) if text.isdigit() else _NAMED_PORTS.get(text, 0)


def _server(protocol: str, address: str, scheduler: str, flags: list[str]) -> VirtualServer:
    timeout = None
    for option in ("persistent", "-p"):
        if option in flags:
            value = flags[flags.index(option) + 1 : flags.index(option) + 2]
            timeout = int(value[0]) if value and value[0].isdigit() else 360  # ipvsadm's default, in seconds
    if protocol == "FWM":
        return VirtualServer("FWM", "", 0, scheduler, timeout, (), int(address))
    ip, port = split_endpoint(address)
    return VirtualServer(protocol, canonical_ip(ip), _port(port), scheduler, timeout, ())


def _listed(words: list[str]) -> VirtualServer:
    flags = words[2:]
    scheduler = next((w for w in flags if w != "IPv6"), "")
    return _server(words[0], words[1], scheduler, flags)


def _listed_real(words: list[str]) -> RealServer:
    ip, port = split_endpoint(words[1])
    forward, weight, active, inactive = (*words[2:6], *([""] * 4))[:4]
    return RealServer(
        canonical_ip(ip),
        _port(port),
        forward or "Masq",
        int(weight) if weight.isdigit() else 1,
        int(active) if active.isdigit() else None,
        int(inactive) if inactive.isdigit() else None,
    )


def _saved(words: list[str]) -> VirtualServer:
    scheduler = words[words.index("-s") + 1] if "-s" in words else ""
    return _server(_PROTOCOLS.get(words[1], words[1]), words[2], scheduler, words[3:])


def _saved_real(words: list[str]) -> RealServer:
    ip, port = split_endpoint(words[words.index("-r") + 1])
    forward = next((_FORWARD[w] for w in words if w in _FORWARD), "Masq")
    weight = words[words.index("-w") + 1] if "-w" in words else "1"
    return RealServer(canonical_ip(ip), _port(port), forward, int(weight))
