"""Fields of a packet's own headers that few rules ask for, and headers by bit offsets (u32, nft's raw payloads).

What a flow does not give and its first packets seldom set is taken for granted, and said; else None: not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kubectl_genainet.proxy.evaluator.packet.protocols import PROTOCOLS
from kubectl_genainet.proxy.evaluator.packet.state import State

NAMES_OF_ZERO = ("cosmos", "default")  # of a route's realm and a device's group, in iproute2
_WITH_PORTS = {PROTOCOLS[name] for name in ("tcp", "udp", "sctp", "udplite", "dccp")}
_WORD = 0xFFFFFFFF
MOST_SHIFTED = 31  # bits; the kernel takes no more (nft_bitwise_init_shift, net/netfilter/nft_bitwise.c)
_MOST_READ = 512  # bits; what nft's registers hold


def get_tos(s: State) -> int:
    """The byte of DSCP and ECN."""
    if s.tos is None:
        s.assume("the packet's DSCP is 0")
        return 0
    return s.tos


def get_dscp(s: State) -> int:
    return get_tos(s) >> 2


def get_ecn(s: State) -> int:
    if s.tos is None:
        s.assume("the packet is not ECN-capable")
        return 0
    return s.tos & 3


def get_ttl(s: State) -> int | None:
    return s.ttl


def get_length(s: State) -> int | None:
    """Of the whole packet, from the IP header on."""
    return s.length


def get_udp_length(s: State) -> int | None:
    return None if s.length is None else s.length - (header_words(s) * 4 if s.family == 4 else 40)


def get_ip6_length(s: State) -> int | None:
    return None if s.length is None else s.length - 40


def header_words(s: State) -> int:
    s.assume("the packet has no IP options")
    return 5


class Bits(NamedTuple):
    """`width` bits of which those in `known` are known, as `value` has them."""

    value: int
    known: int
    width: int


def network_bits(s: State, offset: int, width: int) -> Bits:
    """Bits from the start of the IPv4 or IPv6 header on; those of the transport header follow, without IP options."""
    return _cut(_network(s), offset, width)


def transport_bits(s: State, offset: int, width: int) -> Bits:
    return _cut(_transport(s), offset, width)


def _cut(fields: Iterator[tuple[int, int | None]], offset: int, width: int) -> Bits:
    """The bits from `offset` on of fields that follow one another, each (width, value)."""
    value = known = bit = 0
    for size, field in fields:
        start, end = max(bit, offset), min(bit + size, offset + width)
        if start < end and field is not None:
            part = field >> bit + size - end & (1 << end - start) - 1
            shift = offset + width - end
            value |= part << shift
            known |= (1 << end - start) - 1 << shift
        bit += size
        if bit >= offset + width:
            break
    return Bits(value, known, width)


def _network(s: State) -> Iterator[tuple[int, int | None]]:
    if s.family == 6:
        yield from ((4, 6), (8, s.tos), (20, None), (16, get_ip6_length(s)), (8, s.proto), (8, s.ttl))
        yield from ((128, s.src), (128, s.dst))
    else:
        yield from ((4, 4), (4, header_words(s)), (8, s.tos), (16, s.length), (16, None))
        yield from ((1, 0), (1, None), (14, no_fragment(s)), (8, s.ttl), (8, s.proto), (16, None))
        yield from ((32, s.src), (32, s.dst))
    yield from _transport(s)


def no_fragment(s: State) -> int:
    s.assume("the packet is no fragment")
    return 0


def _transport(s: State) -> Iterator[tuple[int, int | None]]:
    if s.proto in _WITH_PORTS:
        yield from ((16, s.sport), (16, s.dport))
    elif s.proto == PROTOCOLS["icmp"] and s.icmp is not None:
        yield from ((8, s.icmp[0]), (8, s.icmp[1]))


Read = Callable[[State], Bits]


def raw_payload(base: str, offset: int, width: int) -> Read | None:
    """nft's `@nh,OFFSET,WIDTH` and `@th,…`; None for another header, and for a width that nft does not have."""
    reader = {"nh": network_bits, "th": transport_bits}.get(base)
    return None if reader is None or not 0 < width <= _MOST_READ else lambda s: reader(s, offset, width)


def u32_test(text: str) -> Callable[[State], bool | None]:
    """xt_u32's tests, joined by &&: "6&0xFF=1", "0>>22&0x3C@0>>16=80:443,8080". Raises ValueError, IndexError."""
    tests = [_u32_one(part) for part in text.replace(" ", "").split("&&")]

    def condition(s: State) -> bool | None:
        answers = [test(s) for test in tests]
        return False if False in answers else None if None in answers else True

    return condition


def _u32_one(text: str) -> Callable[[State], bool | None]:
    location, _, ranges = text.partition("=")
    wanted = [tuple(int(bound, 0) for bound in part.split(":")) for part in ranges.split(",")]
    steps = _u32_steps(location)
    if any(operator in ("<<", ">>") and not 0 <= number <= MOST_SHIFTED for operator, number in steps):
        raise ValueError(f"{location} shifts by more than {MOST_SHIFTED} bits")

    def condition(s: State) -> bool | None:
        value, known, start = 0, 0, 0
        for operator, number in steps:
            match operator:
                case "&":
                    value, known = value & number, known | ~number & _WORD
                case "<<":
                    value, known = value << number & _WORD, (known << number | (1 << number) - 1) & _WORD
                case ">>":
                    value, known = value >> number, known >> number | ~(_WORD >> number) & _WORD
                case _:
                    if operator == "@" and known != _WORD:
                        return None
                    start += value if operator == "@" else 0
                    value, known, _ = network_bits(s, (start + number) * 8, 32)
        if known == _WORD:
            return any(bounds[0] <= value <= bounds[-1] for bounds in wanted)
        unset = ~known & _WORD
        return False if all(value | unset < bounds[0] or value > bounds[-1] for bounds in wanted) else None

    return condition


def _u32_steps(location: str) -> list[tuple[str, int]]:
    """(operator, number): "" reads at a place, "@" at one from the value on."""
    steps: list[tuple[str, int]] = []
    operator, number = "", ""
    pos = 0
    while pos <= len(location):
        mark = location[pos : pos + 2] if location[pos : pos + 2] in ("<<", ">>") else location[pos : pos + 1]
        if mark in ("<<", ">>", "&", "@", ""):
            steps.append((operator, int(number, 0)))
            operator, number = mark, ""
            pos += len(mark) or 1
        else:
            number += mark
            pos += 1
    return steps
