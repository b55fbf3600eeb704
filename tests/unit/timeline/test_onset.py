"""The moment at which something began, from noise, steps and holes."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_genainet.model.results.timeline import Series, SeriesName
from kubectl_genainet.timeline.onset import episodes


def series(values: Sequence[float | None], name: SeriesName = SeriesName.FAILURES) -> Series:
    return Series(name=name, unit="connections", what="", values=tuple(values))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(20, 180), st.integers(6, 40), st.integers(5, 500), st.integers(0, 1000))
def test_a_step_out_of_noise_is_found_where_it_is(begin: int, length: int, height: int, seed: int) -> None:
    noise = random.Random(seed)
    values: list[float | None] = [float(noise.random() < 0.02) for _ in range(240)]
    values[begin - 1] = values[begin + length] = 0.0  # a single failure beside the step would be a part of it
    for number in range(begin, begin + length):
        values[number] = height + noise.uniform(0, height / 5)
    found = [e for e in episodes([series(values)]) if e.end - e.begin >= 5]
    assert [(e.begin, e.end) for e in found] == [(begin, begin + length)]


def test_noise_alone_begins_nothing() -> None:
    for seed in range(20):
        noise = random.Random(seed)
        latency = series([0.02 + noise.uniform(0, 0.01) for _ in range(360)], SeriesName.LATENCY)
        assert episodes([latency]) == []


def test_what_was_bad_from_the_first_bucket_on_has_no_begin_here() -> None:
    assert episodes([series([9.0] * 60)]) == []


def test_unknown_buckets_are_no_zeros() -> None:
    values: list[float | None] = [5.0] * 20 + [None] * 20 + [5.0] * 20
    assert episodes([series(values)]) == []


def test_series_that_rise_together_are_one_moment() -> None:
    failures = series([0.0] * 30 + [8.0] * 30)
    dns = series([0.0] * 31 + [4.0] * 29, SeriesName.DNS)
    (one,) = episodes([failures, dns])
    assert one.begin == 30 and {rise.series for rise in one.rises} == {SeriesName.FAILURES, SeriesName.DNS}
