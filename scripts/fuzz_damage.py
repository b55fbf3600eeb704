"""Damage to the bytes of an input, as scripts/fuzz.py makes it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

Mutate = Callable[[list[bytes], random.Random, int], Iterator[bytes]]
# What breaks parsers: brackets and quotes without end, numbers that are none, characters of other scripts, control codes.
TOKENS = [
    *(
        b"(",
        b")",
        b"[",
        b"]",
        b"{",
        b"}",
        b'"',
        b"'",
        b"\\",
        b"\0",
        b"\n",
        b"\t",
        b" ",
        b",",
        b":",
        b"/",
        b"-",
        b"!",
        b"*",
        b"%",
    ),
    *(
        b"&a ",
        b"*a ",
        b"<<: ",
        b"- ",
        b": ",
        b"0",
        b"-1",
        b"65536",
        b"1e999",
        b"NaN",
        b"9" * 30,
        b"0x",
        b"null",
        b"{}",
        b"[]",
    ),
    *(
        "²".encode(),
        "٣".encode(),
        b"\xff",
        b"\xfe\xff",
        "\u202e".encode(),
        b"\x1b[2J",
        b"fe80::1%x",
        b"::/129",
        b"0.0.0.0/99",
    ),
]


def mutations(seeds: list[bytes], rng: random.Random, most: int) -> Iterator[bytes]:
    """Every seed, then damaged ones without end."""
    yield from (seed[:most] for seed in seeds)
    yield from (token * (most // len(token)) for token in TOKENS)
    while True:
        data = bytearray(rng.choice(seeds))
        if len(data) > 8192 and rng.random() < 0.8:  # a part is damaged as well as the whole, and many times faster
            start = rng.randrange(len(data) - 4096)
            data = data[start : start + rng.randrange(1, 4096)]
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            _damage(data, seeds, rng)
        yield bytes(data[:most])


def _damage(data: bytearray, seeds: list[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 2, 8, 64)))
    match rng.randrange(7):
        case 0:
            data[at:at] = rng.choice(TOKENS) * rng.choice((1, 1, 2, 30, 1000))
        case 1:
            del data[at:end]
        case 2:
            data[at:end] = rng.choice(TOKENS)
        case 3:
            data[at:at] = data[at:end] * rng.choice((1, 3, 50))
        case 4:
            other = rng.choice(seeds)
            begin = rng.randrange(len(other) + 1)
            data[at:end] = other[begin : begin + rng.choice((4, 40, 400))]
        case 5 if data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        case _:
            lines = data.split(b"\n")
            rng.shuffle(lines)
            data[:] = b"\n".join(lines)
