"""The moments at which something felt became worse, by a named method of a library: PELT with a cost of squared deviations.

Source: Killick, Fearnhead, Eckley, "Optimal detection of changepoints with a linear computational cost" (2012), as ruptures
implements it (KernelCPD with the linear kernel, in C). docs/adr/0119-when-it-began.md says why this one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kubectl_genainet.model.results.timeline import Series, SeriesName

METHOD = "PELT (ruptures, squared deviations)"
LEAST_BUCKETS = 6  # a time of fewer has no before and after
TOGETHER = 3  # buckets: series that rise so near each other rose together
_RISE = 3.0  # in units of the noise before a rise counts
# Below these a change is nothing that anybody feels: a failure, a lost query, a drop in each bucket; a tenth of a second.
_LEAST_RISE = {
    SeriesName.FAILURES: 0.5,
    SeriesName.LATENCY: 0.05,
    SeriesName.DNS: 0.5,
    SeriesName.STALLS: 0.5,
    SeriesName.DROPS: 0.5,
}
# And what a rise has to amount to over all its buckets: two single failures an hour begin nothing.
_LEAST_IN_ALL = {name: 0.1 if name is SeriesName.LATENCY else 3.0 for name in SeriesName}


@dataclass(frozen=True, slots=True)
class Rise:
    """From bucket `begin` up to bucket `end` a series is worse than before, by `strength` times its noise."""

    series: SeriesName
    begin: int
    end: int
    before: float
    after: float
    strength: float


@dataclass(frozen=True, slots=True)
class Episode:
    """Rises that belong together, the strongest first."""

    rises: tuple[Rise, ...]

    @property
    def begin(self) -> int:
        return min(rise.begin for rise in self.rises)

    @property
    def end(self) -> int:
        return max(rise.end for rise in self.rises)


def episodes(series: Sequence[Series]) -> list[Episode]:
    """In order of time. Raises ModuleNotFoundError where ruptures is not installed."""
    rises = sorted((rise for values in series for rise in _rises(values)), key=lambda rise: rise.begin)
    groups: list[list[Rise]] = []
    for rise in rises:
        if groups and rise.begin <= max(groups[-1][0].begin + TOGETHER, _end(groups[-1])):
            groups[-1].append(rise)
        else:
            groups.append([rise])
    return [Episode(tuple(sorted(group, key=lambda rise: -rise.strength))) for group in groups]


def _end(group: Sequence[Rise]) -> int:
    return max(rise.end for rise in group) - 1


def _rises(series: Series) -> Iterator[Rise]:
    """Where the mean goes up to stay above what it was, until it is down again."""
    known = [number for number, value in enumerate(series.values) if value is not None]
    values = [series.values[number] or 0.0 for number in known]
    if len(values) < LEAST_BUCKETS or max(values) < _LEAST_RISE[series.name]:
        return
    bounds = [0, *_change_points(values)]
    means = [_mean(values[a:b]) for a, b in itertools.pairwise(bounds)]
    noise = max(_noise(values), _LEAST_RISE[series.name] / _RISE)
    number = 1
    while number < len(means):
        calm = means[number - 1]
        if means[number] - calm < max(_RISE * noise, _LEAST_RISE[series.name]):
            number += 1
            continue
        first = number
        while number < len(means) and means[number] - calm >= _RISE * noise / 2:
            number += 1
        after = _mean(values[bounds[first] : bounds[number]])
        if (after - calm) * (bounds[number] - bounds[first]) < _LEAST_IN_ALL[series.name]:
            continue
        begin = _first_above(values, bounds[first], bounds[first + 1], calm + noise)
        yield Rise(series.name, known[begin], known[bounds[number] - 1] + 1, calm, after, (after - calm) / noise)


def _first_above(values: Sequence[float], begin: int, end: int, level: float) -> int:
    """The least squares may put the change a bucket early: the rise begins with the first value that is higher."""
    return next((number for number in range(begin, end) if values[number] > level), begin)


def _change_points(values: Sequence[float]) -> list[int]:
    """The ends of the parts that PELT finds, the last included. Values are taken by their logarithm, so that one bucket of
    thousands does not hide a rise from none to some; the penalty is that of the Bayesian information criterion."""
    import numpy
    import ruptures

    signal = numpy.log1p(numpy.array(values, dtype=float) / max(_scale(values), 1e-9)).reshape(-1, 1)
    steps = numpy.abs(numpy.diff(signal[:, 0]))
    # Of differences of normal noise; where most buckets are alike it is none, and a tenth stands for it.
    sigma = max(float(numpy.median(steps)) / 0.954, 0.1)
    penalty = 3.0 * sigma**2 * math.log(len(values))
    points = ruptures.KernelCPD(kernel="linear", min_size=1).fit(signal).predict(pen=penalty)
    return [int(point) for point in points]


def _scale(values: Sequence[float]) -> float:
    """What counts as some: the median of what is not none."""
    some = sorted(value for value in values if value > 0)
    return some[len(some) // 2] if some else 1.0


def _noise(values: Sequence[float]) -> float:
    """How much neighbours differ where nothing happens: the median, as of normal noise."""
    steps = sorted(abs(b - a) for a, b in itertools.pairwise(values))
    return steps[len(steps) // 2] / 0.954 if steps else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
