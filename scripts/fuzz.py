"""`python scripts/fuzz.py SECONDS [--seed N] [NAME ...]`: gives every parser and decoder damaged inputs of up to 64 KB, in turn.

Nothing but a GenainetError may come out, and no input may take more than a second or 200 MB. Prints how many inputs each was
given; ends with 1 and the input, in base64, where something was found."""

from __future__ import annotations

import argparse
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


@dataclass(frozen=True)
class Failure:
    target: str
    data: bytes
    what: str


class Hangs(BaseException):
    """Not an Exception: a parser that catches all of these is interrupted too."""


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


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
    for data in target.mutate(target.seeds, rng, target.most):
        if wrong := attempt(target.parse, data):
            return count, Failure(target.name, data, wrong)
        count += 1
        if time.monotonic() >= end:
            break
    return count, None


def main() -> int:
    options = _options()
    seconds, seed = options.seconds, options.seed
    chosen = [target for target in TARGETS if not options.names or target.name in options.names]
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float, nargs="?", default=600.0, help="for all of them together")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(target.name for target in TARGETS)])
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="the same inputs again"
    )
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    sys.exit(main())
