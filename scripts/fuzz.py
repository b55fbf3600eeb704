"""`python scripts/fuzz.py SECONDS [NAME ...]`: gives every parser and decoder damaged inputs of up to 64 KB, in turn.

Nothing but a GenainetError may come out, and no input may take more than a second or 200 MB. Prints how many inputs each was
given; ends with 1 and the input, in base64, where something was found."""

from __future__ import annotations

import base64
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kubectl_genainet.errors import GenainetError
from scripts.fuzz_targets import TARGETS, Target

MOST_S = 1.0
MOST_MEMORY = 200 << 20
HANGS_S = 20  # then the input is interrupted
ADDRESS_SPACE = 4 << 30  # of this process: a parser that wants more is stopped before the machine is
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


@dataclass(frozen=True)
class Failure:
    target: str
    data: bytes
    what: str


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


class Hangs(BaseException):
    """Not an Exception: a parser that catches all of these is interrupted too."""


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(parse: Callable[[bytes], object], data: bytes) -> str:
    """What is wrong with how the parser takes the input; "" where nothing is."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    begun = time.process_time()
    try:
        with interrupted_after(HANGS_S):
            parse(data)
    except GenainetError:
        pass
    except Hangs:
        return f"takes more than {HANGS_S} s"
    except Exception:
        return traceback.format_exc(limit=-4)
    took = time.process_time() - begun
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - memory
    if took > MOST_S:
        return f"takes {took:.1f} s"
    return f"takes {grown >> 20} MB" if grown > MOST_MEMORY else ""


def fuzz(target: Target, seconds: float, rng: random.Random) -> tuple[int, Failure | None]:
    """(inputs, the first failure) within the time."""
    end, count = time.monotonic() + seconds, 0
    for data in mutations(target.seeds, rng, target.most):
        if wrong := attempt(target.parse, data):
            return count, Failure(target.name, data, wrong)
        count += 1
        if time.monotonic() >= end:
            break
    return count, None


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    chosen = [target for target in TARGETS if len(sys.argv) < 3 or target.name in sys.argv[2:]]
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"{len(chosen)} parsers, {seconds:g} s, seed {seed}", flush=True)
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        for target in chosen:
            target.prepare(Path(folder))
            count, failure = fuzz(target, seconds / len(chosen), random.Random(f"{seed} {target.name}"))
            print(f"{count:>9,} inputs of {target.name}", flush=True)
            if failure is not None:
                failures.append(failure)
                print(
                    f"          {failure.what}\n          {base64.b64encode(failure.data[:3000]).decode()}", flush=True
                )
    print(f"found in: {', '.join(f.target for f in failures)}" if failures else "nothing found")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
