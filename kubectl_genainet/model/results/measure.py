"""Measured times, summed up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec


class Quantiles(msgspec.Struct, frozen=True):
    """Of measured times in ns; None where nothing was measured."""

    count: int = 0
    p50: int | None = None
    p99: int | None = None
    max: int | None = None


def quantiles(samples: Sequence[int]) -> Quantiles:
    """Nearest-rank quantiles: each is a value that was measured."""
    if not samples:
        return Quantiles()
    ordered = sorted(samples)

    def rank(quantile: float) -> int:
        return ordered[math.ceil(len(ordered) * quantile) - 1]

    return Quantiles(len(ordered), rank(0.5), rank(0.99), ordered[-1])
