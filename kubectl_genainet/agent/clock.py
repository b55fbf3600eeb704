"""The wall clock and the monotonic clock at one moment."""

from __future__ import annotations

import time
from collections.abc import Callable

ENOUGH_NS = 50_000  # so far apart the two readings may be
_TRIES = 5


def now(wall: Callable[[], int] = time.time_ns, mono: Callable[[], int] = time.monotonic_ns) -> tuple[int, int]:
    """(wall, monotonic) in ns. On a busy machine something else may run between two readings, for many milliseconds: the pair
    that was read most quickly counts."""
    best: tuple[int, int, int] | None = None
    for _ in range(_TRIES):
        before, real, after = mono(), wall(), mono()
        if best is None or after - before < best[0]:
            best = (after - before, real, (before + after) // 2)
        if best[0] <= ENOUGH_NS:
            break
    assert best is not None
    return best[1], best[2]
