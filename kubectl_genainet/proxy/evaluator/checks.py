"""Checks on a packet's state, for iptables and nftables alike. Each returns True, False or None (not known)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from kubectl_genainet.proxy.evaluator.ir import ALL_BITS, Check, SetLookup, State

PROTOCOLS = {
    "tcp": 6,
    "udp": 17,
    "sctp": 132,
    "icmp": 1,
    "icmpv6": 58,
    "ipv6-icmp": 58,
    "esp": 50,
    "ah": 51,
    "gre": 47,
    "udplite": 136,
    "dccp": 33,
    "comp": 108,
    "ipip": 4,
    "ipencap": 4,
    "ospf": 89,
    "vrrp": 112,
    "igmp": 2,
    "all": 0,
}

Getter = Callable[[State], Any]  # a field's value; None: not known


def always_unknown(state: State) -> None:
    return None


def never(state: State) -> bool:
    return False


def negate(check: Check) -> Check:
    def negated(s: State) -> bool | None:
        result = check(s)
        return None if result is None else not result

    return negated


@cache
def protocol_is(number: int) -> Check:
    return lambda s: s.proto == number


@cache
def family_is(family: int) -> Check:
    return lambda s: s.family == family


def source_in(net: int, mask: int, family: int) -> Check:
    def check(s: State) -> bool | None:
        return None if s.src is None else s.src & mask == net and s.family == family

    return check


def destination_in(net: int, mask: int, family: int) -> Check:
    return lambda s: s.dst & mask == net and s.family == family


@lru_cache(maxsize=4096)
def dport_between(low: int, high: int) -> Check:
    def check(s: State) -> bool | None:
        return None if s.dport is None else low <= s.dport <= high

    return check


@lru_cache(maxsize=4096)
def sport_between(low: int, high: int) -> Check:
    def check(s: State) -> bool | None:
        return None if s.sport is None else low <= s.sport <= high

    return check


@lru_cache(maxsize=256)
def icmp_is(kind: int, low: int, high: int) -> Check:
    """The ICMP type, and a code from `low` to `high`."""

    def check(s: State) -> bool | None:
        return None if s.icmp is None else s.icmp[0] == kind and low <= s.icmp[1] <= high

    return check


@lru_cache(maxsize=1024)
def mark_is(value: int, mask: int) -> Check:
    """The bits of `mask` are those of `value`. Bits that are not known leave it open, unless a known one differs."""

    def check(s: State) -> bool | None:
        if (s.mark ^ value) & mask & s.known:
            return False
        return True if mask & ~s.known & ALL_BITS == 0 else None

    return check


@lru_cache(maxsize=256)
def connmark_is(value: int, mask: int) -> Check:
    def check(s: State) -> bool | None:
        return s.connmark & mask == value if s.ct == "NEW" else None

    return check


@lru_cache(maxsize=256)
def ct_state_in(states: frozenset[str]) -> Check:
    """Conntrack states, DNAT and SNAT (translated) among them. NEW, RELATED, ESTABLISHED, INVALID, UNTRACKED."""
    translated = "DNAT" in states
    return lambda s: s.ct in states or (translated and s.dnat)


@cache
def source_type_is(kind: str) -> Check:
    """addrtype and fib: LOCAL can be told from the node's addresses, the rest only in part."""
    return lambda s: None if s.src is None else _type_is(s, s.src, kind)


@cache
def destination_type_is(kind: str) -> Check:
    return lambda s: _type_is(s, s.dst, kind)


def _type_is(s: State, address: int, kind: str) -> bool | None:
    local = s.env.is_local(address, s.family)
    if kind == "LOCAL":
        return local
    if kind == "UNICAST":
        return None if local is None else not (local or _is_multicast(address, s.family))
    if kind == "MULTICAST":
        return _is_multicast(address, s.family)
    return False if local else None  # BROADCAST and the rest depend on the routing table


def _is_multicast(address: int, family: int) -> bool:
    return address >> 28 == 0xE if family == 4 else address >> 120 == 0xFF


def device_is(name: str, *, out: bool, wildcard: str) -> Check:
    """`-i eth0`, `-o cali+`: `wildcard` is the character that makes the name a prefix ("+" or "*")."""
    prefix = name[:-1] if name.endswith(wildcard) else None

    def check(s: State) -> bool | None:
        device = s.oif if out else s.iif
        if device is None:
            return None
        return device.startswith(prefix) if prefix is not None else device == name

    return check


def in_set(getters: tuple[Getter, ...], members: SetLookup) -> Check:
    def check(s: State) -> bool | None:
        key = tuple(get(s) for get in getters)
        return None if None in key else members.get(key) is not None

    return check


def get_source(s: State) -> int | None:
    return s.src


def get_destination(s: State) -> int:
    return s.dst


def get_sport(s: State) -> int | None:
    return s.sport


def get_dport(s: State) -> int | None:
    return s.dport


def get_protocol(s: State) -> int:
    return s.proto


def get_mark(s: State) -> int | None:
    return s.mark if s.known == ALL_BITS else None


def get_in_device(s: State) -> str | None:
    return s.iif


def get_out_device(s: State) -> str | None:
    return s.oif


def get_connmark(s: State) -> int | None:
    return s.connmark if s.ct == "NEW" else None
