"""Conditions on a packet's state, for iptables and nftables alike. Each returns True, False or None (not known)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from kubectl_genainet.proxy.evaluator.packet.state import ALL_BITS, Condition, State, address_of
from kubectl_genainet.proxy.evaluator.sets import SetLookup

SYN = 0x02

Getter = Callable[[State], Any]  # a field's value; None: not known


class FieldQuestion(NamedTuple):
    """What a condition asks that may be unknown: whether `field` is within the bounds (`inverted`: outside of them).

    Two questions about one field exclude or imply each other where their bounds do.
    """

    field: str
    low: Any
    high: Any
    inverted: bool = False


_QUESTIONS: WeakKeyDictionary[Condition, FieldQuestion] = WeakKeyDictionary()


def asking(condition: Condition, question: FieldQuestion) -> Condition:
    _QUESTIONS[condition] = question
    return condition


def question_of(condition: Condition) -> FieldQuestion | None:
    return _QUESTIONS.get(condition)


def always_unknown(state: State) -> None:
    return None


def always(state: State) -> bool:
    return True


def never(state: State) -> bool:
    return False


def negate(condition: Condition) -> Condition:
    def negated(s: State) -> bool | None:
        result = condition(s)
        return None if result is None else not result

    question = question_of(condition)
    return asking(negated, question._replace(inverted=not question.inverted)) if question else negated


def assuming(what: str, answer: bool) -> Condition:
    """A condition that is taken for granted, and said so: a limit that has room, a field that packets seldom set. Where
    nothing may be taken for granted, it is an open question."""

    def condition(s: State) -> bool | None:
        if s.strict:
            return None
        s.assume(what)
        return answer

    return condition


def any_of(options: list[Condition]) -> Condition:
    if len(options) == 1:
        return options[0]

    def condition(s: State) -> bool | None:
        results = [option(s) for option in options]
        return True if True in results else None if None in results else False

    return condition


@cache
def protocol_is(number: int) -> Condition:
    return lambda s: s.proto == number


@cache
def family_is(family: int) -> Condition:
    return lambda s: s.family == family


def _is_prefix(mask: int, width: int) -> bool:
    gap = ~mask & ((1 << width) - 1)
    return gap & (gap + 1) == 0


def source_in(net: int, mask: int, family: int) -> Condition:
    def condition(s: State) -> bool | None:
        if s.src is None and s.by_node and s.family == family:
            return _one_of_the_nodes(s, lambda ip: ip & mask == net)
        return False if s.family != family else None if s.src is None else s.src & mask == net

    width = 32 if family == 4 else 128
    if not _is_prefix(mask, width):
        return condition
    return asking(condition, FieldQuestion(f"source{family}", net, net | ~mask & ((1 << width) - 1)))


def _one_of_the_nodes(s: State, holds: Callable[[int], bool]) -> bool | None:
    """What holds of all of the node's addresses, or of none; None where it holds of some."""
    answers = {holds(ip) for ip in s.env.local or ()}
    return answers.pop() if len(answers) == 1 else None


def destination_in(net: int, mask: int, family: int) -> Condition:
    return lambda s: s.dst & mask == net and s.family == family


@lru_cache(maxsize=4096)
def dport_between(low: int, high: int) -> Condition:
    def condition(s: State) -> bool | None:
        return None if s.dport is None else low <= s.dport <= high

    return asking(condition, FieldQuestion("dport", low, high))


@lru_cache(maxsize=4096)
def sport_between(low: int, high: int) -> Condition:
    def condition(s: State) -> bool | None:
        return None if s.sport is None else low <= s.sport <= high

    return asking(condition, FieldQuestion("sport", low, high))


@lru_cache(maxsize=256)
def icmp_is(kind: int, low: int, high: int) -> Condition:
    """The ICMP type, and a code from `low` to `high`."""

    def condition(s: State) -> bool | None:
        return None if s.icmp is None else s.icmp[0] == kind and low <= s.icmp[1] <= high

    return condition


@lru_cache(maxsize=1024)
def mark_is(value: int, mask: int) -> Condition:
    """The bits of `mask` are those of `value`. Bits that are not known leave it open, unless a known one differs."""

    def condition(s: State) -> bool | None:
        if (s.mark ^ value) & mask & s.known:
            return False
        return True if mask & ~s.known & ALL_BITS == 0 else None

    return condition


@lru_cache(maxsize=256)
def connmark_is(value: int, mask: int) -> Condition:
    """As `mark_is` for the connection's mark. A packet without a connection matches neither it nor its negation."""

    def condition(s: State) -> bool | None:
        if not s.traced or (s.connmark ^ value) & mask & s.connmark_known:
            return False
        return True if mask & ~s.connmark_known & ALL_BITS == 0 else None

    return condition


@lru_cache(maxsize=256)
def ct_state_in(states: frozenset[str]) -> Condition:
    """Conntrack states, DNAT and SNAT (translated) among them. NEW, RELATED, ESTABLISHED, INVALID, UNTRACKED."""
    dnat, snat = "DNAT" in states, "SNAT" in states
    return lambda s: s.ct in states or (dnat and is_translated(s)) or (snat and source_changed(s))


def source_changed(s: State) -> bool | None:
    """IPS_SRC_NAT: set where the translation changes something, which masquerading one's own packets may not."""
    if not s.masquerade or (s.src is not None and s.orig_src is not None):
        return s.masquerade and s.src != s.orig_src
    return True if s.orig_src is None or s.env.is_local(s.orig_src, s.family) is False else None


def is_translated(s: State) -> bool:
    """IPS_DST_NAT: set where the translation changes something."""
    return s.dnat and (s.dst, s.dport) != (s.orig_dst, s.orig_dport)


# enum ip_conntrack_status, include/uapi/linux/netfilter/nf_conntrack_common.h
STATUS_BITS = {"expected": 1, "seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32, "dying": 512}


def get_ct_status(s: State) -> int | None:
    """The status bits of a connection's first packet; of later ones they are not known."""
    if s.ct not in ("NEW", "RELATED"):
        return None
    changed = source_changed(s)
    if changed is None:
        return None
    status = (32 if is_translated(s) else 0) | (16 if changed else 0)
    return status | s.nat_done | (8 if s.looped else 0) | (1 if s.ct == "RELATED" else 0)


def ct_status_has(bits: int) -> Condition:
    """Whether any of the bits is set. NAT bits of the first packet are known, others are 0."""

    def condition(s: State) -> bool | None:
        if not s.traced:
            return False
        status = get_ct_status(s)
        return None if status is None else status & bits != 0

    return condition


@cache
def source_type_is(kind: str) -> Condition:
    """addrtype and fib: LOCAL can be told from the node's addresses, the rest only in part."""

    def condition(s: State) -> bool | None:
        if s.src is None:
            return kind == "LOCAL" or None if s.masquerade else None
        return _type_is(s, s.src, kind)

    return asking(condition, FieldQuestion("source is local", 1, 1)) if kind == "LOCAL" else condition


@cache
def destination_type_is(kind: str) -> Condition:
    def condition(s: State) -> bool | None:
        return _type_is(s, s.dst, kind)

    return asking(condition, FieldQuestion("destination is local", 1, 1)) if kind == "LOCAL" else condition


def _type_is(s: State, address: int, kind: str) -> bool | None:
    local = s.env.is_local(address, s.family)
    if kind == "LOCAL":
        return local
    multicast = _is_multicast(address, s.family)
    if kind == "MULTICAST":
        return multicast
    if kind == "BROADCAST" and s.family == 4 and address == ALL_BITS:
        return True
    if kind == "UNICAST":
        return None if local is None else not (local or multicast or (s.family == 4 and address == ALL_BITS))
    if local or multicast:
        return False
    if kind in ("BROADCAST", "ANYCAST"):
        s.assume(f"{address_of(address, s.family)} is not a {kind.lower()} address")
        return False
    return address == 0 if kind == "UNSPEC" else None  # the rest depends on the routing table


def address_type(s: State, address: int | None) -> str | None:
    """The type of an address as nft names it, for maps: local, multicast, broadcast, unicast."""
    if address is None:
        return None
    for kind in ("LOCAL", "MULTICAST", "BROADCAST", "UNICAST"):
        answer = _type_is(s, address, kind)
        if answer:
            return kind.lower()
        if answer is None and kind == "LOCAL":
            return None
    return None


def _is_multicast(address: int, family: int) -> bool:
    return address >> 28 == 0xE if family == 4 else address >> 120 == 0xFF


def may_be_loopback(s: State, *, out: bool) -> bool:
    """Whether a device that is not known may be lo: what is for or from other machines passes another."""
    return s.env.is_local(s.dst, s.family) is not False if out else not s.from_wire


def device_is(name: str, *, out: bool, wildcard: str) -> Condition:
    """`-i eth0`, `-o cali+`: `wildcard` is the character that makes the name a prefix ("+" or "*")."""
    if name.endswith(wildcard) and not name.endswith("\\*"):
        low, high = name[:-1], name[:-1] + "\U0010ffff"
    else:
        low = high = name.replace("\\*", "*")

    def condition(s: State) -> bool | None:
        device = s.oif if out else s.iif
        if device is None:
            return False if low == high == "lo" and not may_be_loopback(s, out=out) else None
        return low <= device <= high

    return asking(condition, FieldQuestion("out device" if out else "in device", low, high))


def in_set(getters: tuple[Getter, ...], members: SetLookup) -> Condition:
    def condition(s: State) -> bool | None:
        key = tuple(get(s) for get in getters)
        if key == (None,) and s.by_node and getters[0] is get_source:
            return _one_of_the_nodes(s, lambda ip: members.has((ip,)) is True)
        return members.may_have(key) if None in key else members.has(key)

    return condition


def in_exceptions(getters: tuple[Getter, ...], members: SetLookup) -> Condition:
    return lambda s: members.has_exception(tuple(get(s) for get in getters))


def in_changing_set(name: str, getters: tuple[Getter, ...], members: SetLookup) -> Condition:
    """As `in_set`, for a set that rules on the packet's way may have added it to."""

    def condition(s: State) -> bool | None:
        key = tuple(get(s) for get in getters)
        if s.added and (name, key) in s.added:
            return True if None not in key else None
        return members.may_have(key) if None in key else members.has(key)

    return condition


def get_source(s: State) -> int | None:
    return s.src


def get_original_source(s: State) -> int | None:
    return s.orig_src if s.masquerade else s.src


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
    return s.connmark if s.connmark_known == ALL_BITS else None


def has_socket(s: State) -> bool | None:
    """A socket of the packet's connection, or one that listens on its very address (nf_sk_lookup_slow_v4)."""
    if s.ct not in ("NEW", "INVALID") or s.env.is_local(s.dst, s.family) is not False:
        return None
    s.assume("no socket is bound to an address that is not the node's")
    return False


def has_transparent_socket(s: State) -> bool | None:
    if s.ct not in ("NEW", "INVALID"):
        return None
    if s.transparent is None:
        s.assume("no transparent socket is bound to the packet's destination")
    return False


def get_packet_type(s: State) -> str:
    """As the kernel classes the packet: "unicast" to this machine, or multicast and broadcast by its destination."""
    if _is_multicast(s.dst, s.family):
        return "multicast"
    return "broadcast" if s.family == 4 and s.dst == ALL_BITS else "unicast"
