"""`python scripts/fuzz_dns.py SECONDS`: the properties of tests/unit/dns/test_dns_decode.py with new examples, in turn, until the
time is over. Prints how many examples each was given; a failure is hypothesis's own report, with the smallest example."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

ROUND = "10"  # seconds' worth of examples in a turn


def properties() -> ModuleType:
    os.environ["GENAINET_FUZZ_SECONDS"] = ROUND
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.unit.dns import test_dns_decode

    return test_dns_decode


def counted(test: Callable[[], None], counts: Counter[str]) -> Callable[[], None]:
    handle: Any = test.hypothesis  # type: ignore[attr-defined]
    inner = handle.inner_test

    @functools.wraps(inner)
    def counting(*arguments: object, **more: object) -> None:
        counts[test.__name__] += 1
        inner(*arguments, **more)

    handle.inner_test = counting
    return test


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300.0
    counts: Counter[str] = Counter()
    tests = [counted(test, counts) for test in vars(properties()).values() if hasattr(test, "hypothesis")]
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        for test in tests:
            test()
    for name, count in counts.items():
        print(f"{count:>9,} examples of {name}")
    print(f"{counts.total():>9,} examples in {time.monotonic() - start:.0f} s; nothing found")


if __name__ == "__main__":
    main()
