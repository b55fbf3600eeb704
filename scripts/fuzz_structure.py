"""Damage within JSON: a value, a key or a whole record is exchanged, and the rest can still be read.

Damage of single bytes rarely gets past a decoder; what this makes reaches what works with the values.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

STRINGS = (
    "",
    " ",
    ".",
    "..",
    "/",
    "a/b/c",
    "-x",
    "--all",
    "@everyone",
    "#1",
    "²",
    "٣",
    "\u202ex",
    "\x1b]8;;http://x\x07y",
    "\x9b31m",
    "a\nb",
    "a\r\n::error::b",
    "<script>alert(1)</script>",
    "![x](http://y)",
    "http://x.example/y",
    "`id`$(id)'\"",
    "{{.x}}",
    "*",
    "(",
    "x" * 300,
    "0",
    "-1",
    "1e9",
    "9" * 30,
    "NaN",
    "true",
    "null",
    "10.0.0.1",
    "10.0.0.1/33",
    "fe80::1%eth0",
    "::ffff:10.0.0.1",
    "::",
    "0.0.0.0/0",
    "2026-01-01T00:00:00Z",
    "9999-99-99T99:99:99Z",
    "http",
    "TCP",
    "100m",
    "1Gi",
    "\x00",
    "\u2028",
)
NUMBERS = (0, 1, -1, 2, 255, 256, 65535, 65536, 2**31, 2**32, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1)
OTHERS: tuple[Any, ...] = (None, True, False, 0.5, -0.0, 1e300, 5e-324, [], {}, [None], {"": None}, [[]], [{}])
MOST_PLACES = 5_000  # a value of more is not copied within itself: fifteen such copies in a row would fill the memory
MOST_STRING = 65_536  # characters
Place = tuple[Any, Any]  # a list or mapping, and the index or key of a value in it


def structured(seeds: list[bytes], rng: random.Random, most: int) -> Iterator[bytes]:
    """Every seed, then ones of which some values are exchanged, without end. A seed is JSON, or lines of it."""
    yield from (seed[:most] for seed in seeds)
    while True:
        lines = rng.choice(seeds).split(b"\n")
        for _ in range(rng.choice((1, 1, 2, 5))):
            _damage_line(lines, rng)
        yield b"\n".join(lines)[:most]


def _damage_line(lines: list[bytes], rng: random.Random) -> None:
    number = rng.randrange(len(lines))
    match rng.randrange(12):
        case 0:
            lines.insert(rng.randrange(len(lines) + 1), lines[number])
        case 1 if len(lines) > 3:
            del lines[number]
        case 2:
            other = rng.randrange(len(lines))
            lines[number], lines[other] = lines[other], lines[number]
        case _:
            try:
                value = json.loads(lines[number])
            except ValueError:
                return
            for _ in range(rng.choice((1, 1, 3))):
                value = exchanged(value, rng)
            lines[number] = json.dumps(value).encode()


def exchanged(value: Any, rng: random.Random) -> Any:
    """The value with another in the place of one within it, most often one of the same kind."""
    places = list(_places(value))
    if not places:
        return _other(value, rng)
    container, key = rng.choice(places)
    small = len(places) <= MOST_PLACES
    match rng.randrange(10):
        case 0 if isinstance(container, dict) and rng.random() < 0.3:
            container[rng.choice(STRINGS)] = container.pop(key)
        case 1 if isinstance(container, list):
            del container[key]
        case 1 if rng.random() < 0.3:
            del container[key]
        case 2 if small:
            other, other_key = rng.choice(places)
            if type(container[key]) is type(other[other_key]):
                other[other_key] = copy.deepcopy(container[key])
        case 3 if small and isinstance(container, list):
            container.extend(copy.deepcopy(container[key]) for _ in range(rng.choice((1, 40))))
        case _:
            container[key] = _other(container[key], rng)
    return value


def _other(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.04:  # a typed decoder refuses the whole
        return copy.deepcopy(rng.choice((*OTHERS, rng.choice(STRINGS), rng.choice(NUMBERS))))  # later damage alters it
    if isinstance(value, str):
        return rng.choice(
            (rng.choice(STRINGS), value + rng.choice(STRINGS), value[: len(value) // 2], (value * 20)[:MOST_STRING])
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        return rng.choice((rng.choice(NUMBERS), value + 1, -value))
    return (
        rng.choice(([], {})) if rng.random() < 0.1 else type(value)() if isinstance(value, dict | list) else not value
    )


def _places(value: Any) -> Iterator[Place]:
    """Where the values within a value stand."""
    stack = [value] if isinstance(value, dict | list) else []
    while stack:
        container = stack.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            yield container, key
            if isinstance(container[key], dict | list):
                stack.append(container[key])
