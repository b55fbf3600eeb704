"""Two clocks at one moment, though something else runs between two readings."""

from __future__ import annotations

from kubectl_genainet.agent import clock


def test_pair_that_was_read_most_quickly_counts() -> None:
    """A pause of 30 ms comes between the first readings, one of 1 ms between those of the last."""
    monotonic = iter([t * 500_000 for t in (0, 60, 80, 100, 120, 140, 160, 162, 180, 200)])
    wall = iter([10**18 + t for t in (29_000_000, 45_000_000, 65_000_000, 80_500_000, 95_000_000)])
    assert clock.now(lambda: next(wall), lambda: next(monotonic)) == (10**18 + 80_500_000, 80_500_000)


def test_two_readings_in_one_go_are_enough() -> None:
    monotonic = iter([1_000, 1_200])
    assert clock.now(lambda: 7, lambda: next(monotonic)) == (7, 1_100)
