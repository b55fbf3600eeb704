"""A packet on its way through a node's rules, and the node around them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from kubectl_genainet.proxy.evaluator.ir import RulePath

S = TypeVar("S", bound="State")
ALL_BITS = 0xFFFFFFFF


@lru_cache(maxsize=65536)
def address_number(text: str) -> int:
    """An address as a number; IPv6 numbers never collide with IPv4 ones in use. Raises ValueError."""
    return int(ipaddress.ip_address(text)) if ":" in text else ipv4_number(text)


def ipv4_number(text: str) -> int:
    """`int(IPv4Address(text))`, several times faster: a ruleset has an address in every second line."""
    a, b, c, d = map(int, text.split("."))
    if not (0 <= a < 256 and 0 <= b < 256 and 0 <= c < 256 and 0 <= d < 256):
        raise ValueError(f"{text!r} is no IPv4 address")
    return a << 24 | b << 16 | c << 8 | d


def address_of(number: int, family: int) -> str:
    if family == 4:
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return str(ipaddress.IPv6Address(number))


class State:
    """A packet on its way. Numbers throughout; None is "not known". `known` has the bits of `mark` that are known."""

    __slots__ = (
        "accepted",
        "added",
        "assumed",
        "bridged",
        "by_node",
        "connmark",
        "connmark_known",
        "ct",
        "ct_later",
        "dnat",
        "doubts",
        "dport",
        "dst",
        "env",
        "family",
        "from_wire",
        "gid",
        "handed_to",
        "icmp",
        "iif",
        "known",
        "length",
        "looped",
        "mark",
        "masquerade",
        "nat_done",
        "oif",
        "oif_routed",
        "orig_dport",
        "orig_dst",
        "orig_src",
        "own",
        "path",
        "phys_in",
        "phys_out",
        "probability",
        "proto",
        "redirected",
        "scheduled",
        "sport",
        "src",
        "strict",
        "tcp_flags",
        "tos",
        "transparent",
        "ttl",
        "uid",
    )

    env: Env
    family: int  # 4 or 6
    src: int | None
    dst: int
    sport: int | None
    dport: int | None
    proto: int
    mark: int
    known: int
    connmark: int
    connmark_known: int
    ct: str  # "INVALID" in chains that come before connection tracking
    ct_later: str  # what `ct` becomes once conntrack has seen the packet; "" from then on
    iif: str | None  # "" where there is none
    oif: str | None
    oif_routed: str | None  # the device that it leaves by, once it is routed
    phys_in: str | None  # ports of a bridge
    phys_out: str | None
    uid: int | None  # of the socket that sent it; -1: none
    gid: int | None
    tcp_flags: int | None
    tos: int | None  # the byte of DSCP and ECN
    ttl: int | None  # IPv6: the hop limit
    length: int | None  # in bytes, from the IP header on
    icmp: tuple[int, int] | None
    orig_dst: int
    orig_src: int | None  # before the source was translated; of no use until then
    orig_dport: int | None
    dnat: bool
    masquerade: bool  # its source was translated: `src` is the new one, None where it is any address of the node
    by_node: bool  # masqueraded: the new source is one of the node's addresses
    nat_done: int  # status bits of the directions that NAT has decided about
    accepted: bool
    bridged: bool | None
    own: bool  # made on the node
    from_wire: bool  # it came in by a device that is not the loopback device, whichever that is
    handed_to: tuple[int, int | None] | None  # the socket that TPROXY gave it to; its destination stays
    transparent: bool | None  # whether a program listens for what TPROXY gives it
    looped: bool  # came back in through the loopback device
    redirected: bool  # to a port of the node itself
    scheduled: bool  # IPVS has sent it to a real server
    strict: bool  # nothing is taken for granted: what became of the packet is known
    added: tuple[tuple[str, object], ...]  # (set, key) that rules on this way have added to sets
    assumed: tuple[str, ...]  # what was taken for granted on this way, in words
    probability: float | None
    path: RulePath | None
    doubts: tuple[tuple[str, bool], ...]

    def copy(self) -> State:
        return self.copy_to(object.__new__(State))

    def copy_to(self, new: S) -> S:
        """Fills `new` with all that this packet has."""
        new.env, new.family, new.src, new.dst = self.env, self.family, self.src, self.dst
        new.sport, new.dport, new.proto, new.mark = self.sport, self.dport, self.proto, self.mark
        new.known, new.connmark, new.ct, new.iif, new.oif = self.known, self.connmark, self.ct, self.iif, self.oif
        new.orig_dst, new.orig_dport, new.dnat = self.orig_dst, self.orig_dport, self.dnat
        new.masquerade, new.accepted, new.probability = self.masquerade, self.accepted, self.probability
        new.path, new.doubts, new.own, new.looped = self.path, self.doubts, self.own, self.looped
        new.bridged, new.icmp, new.assumed, new.scheduled = self.bridged, self.icmp, self.assumed, self.scheduled
        new.connmark_known, new.ct_later, new.oif_routed = self.connmark_known, self.ct_later, self.oif_routed
        new.phys_in, new.phys_out, new.uid, new.gid = self.phys_in, self.phys_out, self.uid, self.gid
        new.tcp_flags, new.tos, new.redirected = self.tcp_flags, self.tos, self.redirected
        new.ttl, new.length = self.ttl, self.length
        new.orig_src, new.nat_done, new.added = self.orig_src, self.nat_done, self.added
        new.by_node, new.from_wire, new.strict = self.by_node, self.from_wire, self.strict
        new.handed_to, new.transparent = self.handed_to, self.transparent
        return new

    @property
    def traced(self) -> bool:
        """Whether conntrack has an entry for the packet."""
        return self.ct not in ("UNTRACKED", "INVALID")

    def translate_source(self, src: int | None) -> None:
        """SNAT: `src` is the new source, None where it is not known which of the node's addresses it is."""
        self.orig_src, self.src, self.masquerade = self.src, src, True

    def assume(self, what: str) -> None:
        if what not in self.assumed:
            self.assumed = (*self.assumed, what)


Condition = Callable[[State], bool | None]


@dataclass(frozen=True, slots=True)
class Env:
    """The node around the rules. `local` None: the node's addresses are not known."""

    local: frozenset[int] | None
    always_local: frozenset[int] = frozenset()

    def is_local(self, number: int, family: int) -> bool | None:
        if number in self.always_local:
            return True
        if (family == 4 and number >> 24 == 127) or (family == 6 and number == 1):
            return True
        return None if self.local is None else number in self.local
