"""What a packet is to this tool: its addresses and ports, and what NAT leaves alone in it."""

from __future__ import annotations

import ipaddress
from collections.abc import Container
from enum import Enum
from functools import lru_cache

import msgspec


class Protocol(Enum):
    """Transport protocols that the probes parse; the value is the Kubernetes API's name where it has one."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"
    ICMP = "ICMP"
    ICMPV6 = "ICMPv6"
    UNKNOWN = "unknown"

    __hash__ = object.__hash__  # Enum's hashes the name, in Python: tuples are looked up at every packet

    @property
    def number(self) -> int:
        """The IANA protocol number (IPv4 protocol, IPv6 next header); 0 for UNKNOWN."""
        return _NUMBERS.get(self, 0)

    @classmethod
    def from_number(cls, number: int) -> Protocol:
        return _BY_NUMBER.get(number, cls.UNKNOWN)


_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132, Protocol.ICMP: 1, Protocol.ICMPV6: 58}
_BY_NUMBER = {number: protocol for protocol, number in _NUMBERS.items()}


AGENT = "genainet-agent"  # name of the agents' DaemonSet, and their pods' app.kubernetes.io/name
AGENT_PORT = 9912  # on the loopback of an agent's network namespace
OBSERVER = "127.71.78.84"  # the loopback address from which an agent asks its own node's programs


def is_observers(flow: FiveTuple) -> bool:
    """Whether the packet is of an agent's own questions, and says nothing of the node's traffic."""
    return OBSERVER in (flow.src, flow.dst)


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as a value, for callers that hand it on: print it from the value, never from what was sent.

    Raises ValueError for what is none, and for a zone ("fe80::1%eth0"): behind the % may stand anything.
    """
    address = ipaddress.ip_address(text)
    if "%" in text:
        raise ValueError(f"{text!r} has a zone")
    return address


ALL_KEPT = 1 << 16


def followed(flow: FiveTuple, kept: int, named: Container[int] = ()) -> bool:
    """Whether agents that follow `kept` of ALL_KEPT connections follow this one: they choose by the client's port, the one
    that is not among those `named` by a filter, else the higher (is_left_out_port, probes/packet.bpf.c)."""
    if kept >= ALL_KEPT or flow.protocol not in (Protocol.TCP, Protocol.UDP, Protocol.SCTP):
        return True
    to_server, from_server = flow.dport in named, flow.sport in named
    port = max(flow.sport, flow.dport)
    if to_server != from_server:
        port = flow.sport if to_server else flow.dport
    return port_rank(port) < kept


@lru_cache(maxsize=1 << 16)
def port_rank(port: int) -> int:
    """Where a client's port stands in the order in which agents choose: those that follow `kept` follow the ranks below it."""
    return _reversed_bits((port * 0x9E3779B1 & 0xFFFFFFFF) >> 16)


def _reversed_bits(number: int) -> int:
    """Of 16 bits."""
    for shift, mask in ((1, 0x5555), (2, 0x3333), (4, 0x0F0F), (8, 0x00FF)):
        number = (number & mask) << shift | (number >> shift & mask)
    return number


def address_text(ip: str, port: int | None) -> str:
    """ "10.0.0.1:80", "[2001:db8::1]:80", or the address alone where there is no port."""
    if port is None:
        return ip
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


class FiveTuple(msgspec.Struct, frozen=True, gc=False):
    """Addresses in canonical spelling (see `canonical_ip`), ports in host order (0 for ICMP)."""

    src: str
    sport: int
    dst: str
    dport: int
    protocol: Protocol

    @property
    def reversed(self) -> FiveTuple:
        return FiveTuple(self.dst, self.dport, self.src, self.sport, self.protocol)

    @property
    def source(self) -> str:
        return address_text(self.src, self.sport)

    @property
    def destination(self) -> str:
        return address_text(self.dst, self.dport)

    def __str__(self) -> str:
        return f"{self.protocol.value} {self.source} → {self.destination}"


@lru_cache(maxsize=65536)
def is_multicast(ip: str) -> bool:
    """Whether the address is a group's, or the limited broadcast (RFC 919)."""
    try:
        return ip == "255.255.255.255" or ipaddress.ip_address(ip).is_multicast
    except ValueError:
        return False


def split_endpoint(text: str) -> tuple[str, str]:
    """("10.0.0.1", "80") of "10.0.0.1:80", "[fd00::1]:80", "fd00::1" or ":80"."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        return address, port.removeprefix(":")
    if text.count(":") > 1:
        return text, ""
    address, _, port = text.partition(":")
    return address, port
