"""Where a translation sends a packet: one destination, or those that a range leaves open.

Source: net/netfilter/nf_nat_core.c (get_unique_tuple, find_best_ips_proto, nf_nat_l4proto_unique_tuple),
include/linux/jhash.h. An address of a range is chosen by a hash of the client's and the asked address, without a seed:
where both are known, so is the choice.
"""

from __future__ import annotations

from kubectl_genainet.proxy.evaluator.ir import Action
from kubectl_genainet.proxy.evaluator.packet.state import ALL_BITS, State, address_number

MAX_CHOICES = 64  # addresses of a range that are told apart where the client is not known
_JHASH_INITVAL = 0xDEADBEEF


def destinations(state: State, action: Action) -> list[tuple[int, int | None]]:
    """The (address, port) that the packet may get; several where the client's address is not known."""
    port = _port(state, action)
    if action.detail == "NETMAP":
        return [((state.dst & action.keep) | action.flip, port)]
    if action.address is None:
        return [(state.dst, port)]
    if action.address < 0:
        return [(redirected_to(state), port)]
    if action.last_address is None or action.last_address == action.address:
        return [(action.address, port)]
    chosen = _chosen(state, action.address, action.last_address, persistent=action.persistent)
    if chosen is not None:
        return [(chosen, port)]
    last = min(action.last_address, action.address + MAX_CHOICES - 1)
    return [(address, port) for address in range(action.address, last + 1)]


def _port(state: State, action: Action) -> int | None:
    if action.port is None:
        return state.dport
    if action.last_port is None or action.last_port == action.port:
        return action.port
    if action.random_port or state.dport is None:
        return None
    return state.dport if action.port <= state.dport <= action.last_port else action.port


def redirected_to(state: State) -> int:
    """REDIRECT sends to the node itself; which of its addresses depends on the device, so any of them stands for it."""
    loopback = address_number("127.0.0.1" if state.family == 4 else "::1")
    if state.own:
        return loopback
    return min((a for a in state.env.local or () if (a < 1 << 32) == (state.family == 4)), default=loopback)


def _chosen(state: State, low: int, high: int, *, persistent: bool) -> int | None:
    if state.src is None:
        return None
    word_count = 1 if state.family == 4 else 4
    src, dst = _words(state.src, word_count), _words(state.dst, word_count)
    lows, highs = _big(low, word_count), _big(high, word_count)
    mixed = _jhash2([*src, *[0] * (4 - word_count)], 0 if persistent else dst[-1])
    picked: list[int] = []
    full = False
    for i in range(word_count):
        first, span = (0, ALL_BITS) if full else (lows[i], (highs[i] - lows[i] + 1) & ALL_BITS)
        value = (first + (mixed * span >> 32)) & ALL_BITS
        picked.append(value)
        full = full or value != highs[i]
        if not persistent:
            mixed ^= dst[i]
    return sum(value << 32 * (word_count - 1 - i) for i, value in enumerate(picked))


def _big(number: int, word_count: int) -> list[int]:
    return [number >> 32 * (word_count - 1 - i) & ALL_BITS for i in range(word_count)]


def _words(number: int, word_count: int) -> list[int]:
    """An address as a little-endian machine reads its 32-bit words (all that Kubernetes runs on, but s390x)."""
    return [int.from_bytes(word.to_bytes(4, "big"), "little") for word in _big(number, word_count)]


def _rotate(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & ALL_BITS


def _jhash2(key: list[int], initval: int) -> int:
    """jhash2 of four words: one round of the mix, then the last word with the final mix."""
    a = b = c = (_JHASH_INITVAL + (len(key) << 2) + initval) & ALL_BITS
    while len(key) > 3:
        a, b, c = (a + key[0]) & ALL_BITS, (b + key[1]) & ALL_BITS, (c + key[2]) & ALL_BITS
        a, b, c = _mix(a, b, c)
        key = key[3:]
    tail = [*key, 0, 0][:3]
    return _final((a + tail[0]) & ALL_BITS, (b + tail[1]) & ALL_BITS, (c + tail[2]) & ALL_BITS) if key else c


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for by_a, by_b, by_c in ((4, 6, 8), (16, 19, 4)):
        a = (a - c & ALL_BITS) ^ _rotate(c, by_a)
        c = c + b & ALL_BITS
        b = (b - a & ALL_BITS) ^ _rotate(a, by_b)
        a = a + c & ALL_BITS
        c = (c - b & ALL_BITS) ^ _rotate(b, by_c)
        b = b + a & ALL_BITS
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _rotate(b, 14) & ALL_BITS
    a = (a ^ c) - _rotate(c, 11) & ALL_BITS
    b = (b ^ a) - _rotate(a, 25) & ALL_BITS
    c = (c ^ b) - _rotate(b, 16) & ALL_BITS
    a = (a ^ c) - _rotate(c, 4) & ALL_BITS
    b = (b ^ a) - _rotate(a, 14) & ALL_BITS
    return (c ^ b) - _rotate(b, 24) & ALL_BITS
