"""IPVS virtual servers, from `ipvsadm -Ln` and `ipvsadm -Sn` text."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.packet import address_text, split_endpoint
from kubectl_genainet.model.units import whole_number
from kubectl_genainet.proxy.evaluator.packet.protocols import PORTS
from kubectl_genainet.proxy.evaluator.packet.state import address_number
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.unread import Affects, Unread


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
    def identity(self) -> tuple[str, str, int, int | None]:
        return self.protocol, self.vip, self.port, self.fwmark

    @property
    def key(self) -> tuple[str, int, int]:
        return self.protocol, address_number(self.vip), self.port

    def probabilities(self) -> list[tuple[RealServer, float | None]]:
        """The servers that get new connections, and how likely each is; None where state or a hash decides.

        Round robin is even over many connections, weighted round robin follows the weights; weight 0 gets nothing
        (ip_vs_rr.c, ip_vs_wrr.c). Least-connection schedulers depend on the connections of the moment.
        """
        servers = [server for server in self.real_servers if server.weight > 0]
        if not servers:
            return []
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


_COUNTERS = "a list of counters: schedulers and weights are not in it, so backends have no shares; save `ipvsadm -Sn`"
_FORWARD = {"-m": "Masq", "-g": "Route", "-i": "Tunnel"}
_PROTOCOLS = {"-t": "TCP", "-u": "UDP", "--sctp-service": "SCTP", "-f": "FWM"}


def parse_ipvs(text: str) -> tuple[tuple[VirtualServer, ...], list[Unread]]:
    """The virtual servers of an ipvsadm text, in order, and what of it is not read.

    Lists of counters (--stats, --rate) have no scheduler and no weights: backends are then even, without shares.
    """
    servers: list[VirtualServer] = []
    real: list[list[RealServer]] = []
    unread: list[Unread] = []
    counters = False
    for line in text.splitlines():
        tokens = line.split()
        if not tokens or line.startswith("#"):
            continue
        try:
            if tokens[0] == "Prot":
                counters = "Scheduler" not in tokens
                if counters:
                    unread.append(Unread("ipvs", _COUNTERS, scope=Affects.NOTHING))
            elif tokens[0] in ("TCP", "UDP", "SCTP", "FWM"):
                servers.append(_server(tokens[0], tokens[1], "", []) if counters else _listed(tokens))
                real.append([])
            elif tokens[0] == "->" and ":" in tokens[1]:
                if not tokens[1].startswith("RemoteAddress"):
                    real[-1].append(_counted_real(tokens) if counters else _listed_real(tokens))
            elif tokens[0] in ("-A", "--add-service"):
                servers.append(_saved(tokens))
                real.append([])
            elif tokens[0] in ("-a", "--add-server"):
                _add_saved(servers, real, tokens)
            elif not line.startswith("IP Virtual Server"):
                unread.append(Unread("ipvs", f"a line that is not read: {line.strip()[:80]}"))
        except (ValueError, IndexError):
            unread.append(Unread("ipvs", f"a line that is not read: {line.strip()[:80]}"))
    virtual_servers = tuple(
        msgspec.structs.replace(s, real_servers=tuple(r)) for s, r in zip(servers, real, strict=True)
    )
    return virtual_servers, unread


def _add_saved(servers: list[VirtualServer], real: list[list[RealServer]], tokens: list[str]) -> None:
    owner = _saved(tokens)
    owners = [i for i, server in enumerate(servers) if server.identity == owner.identity]
    if not owners:
        raise ValueError("a real server without its virtual server")
    for i in owners:
        real[i].append(_saved_real(tokens))


def _counted_real(tokens: list[str]) -> RealServer:
    ip, port = split_endpoint(tokens[1])
    return RealServer(_address(ip), _port(port), "Masq", 1)


def _port(text: str) -> int:
    return number if (number := whole_number(text)) is not None else PORTS.get(text, 0)


def _server(protocol: str, address: str, scheduler: str, flags: list[str]) -> VirtualServer:
    timeout = None
    for option in ("persistent", "-p"):
        if option in flags:
            value = flags[flags.index(option) + 1 : flags.index(option) + 2]
            number = whole_number(value[0] if value else "")
            timeout = 360 if number is None else number  # ipvsadm's default, in seconds
    if protocol == "FWM":
        return VirtualServer("FWM", "", 0, scheduler, timeout, (), int(address))
    ip, port = split_endpoint(address)
    return VirtualServer(protocol, _address(ip), _port(port), scheduler, timeout, ())


def _address(text: str) -> str:
    """Raises ValueError for what is no address."""
    address_number(text)
    return canonical_ip(text)


def _listed(tokens: list[str]) -> VirtualServer:
    flags = tokens[2:]
    scheduler = next((w for w in flags if w != "IPv6"), "")
    return _server(tokens[0], tokens[1], scheduler, flags)


def _listed_real(tokens: list[str]) -> RealServer:
    ip, port = split_endpoint(tokens[1])
    forward, weight, active, inactive = (*tokens[2:6], *([""] * 4))[:4]
    return RealServer(
        _address(ip),
        _port(port),
        forward or "Masq",
        number if (number := whole_number(weight)) is not None else 1,
        whole_number(active),
        whole_number(inactive),
    )


def _saved(tokens: list[str]) -> VirtualServer:
    scheduler = tokens[tokens.index("-s") + 1] if "-s" in tokens else ""
    return _server(_PROTOCOLS.get(tokens[1], tokens[1]), tokens[2], scheduler, tokens[3:])


def _saved_real(tokens: list[str]) -> RealServer:
    ip, port = split_endpoint(tokens[tokens.index("-r") + 1])
    forward = next((_FORWARD[w] for w in tokens if w in _FORWARD), "Masq")
    if tokens[-1] == "-w":
        raise ValueError("a weight that is cut off")
    weight = tokens[tokens.index("-w") + 1] if "-w" in tokens else "1"
    return RealServer(_address(ip), _port(port), forward, int(weight))
