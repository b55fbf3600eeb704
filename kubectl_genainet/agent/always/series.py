"""Metrics with a bounded number of label sets: what does not fit is counted under "other", and how much that was."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection

from prometheus_client import CollectorRegistry, Counter, Histogram

OTHER = "other"
IDLE_S = 3600.0  # a label set that did not change for so long gives way to a new one


class LabelSets:
    """The label sets that a metric has.

    A set that is exported keeps its series, so that no counter goes back; a new one that finds no room has the labels of
    `fold` replaced by "other", and all of its labels once those sets are too many as well. A metric has at most
    2 x `limit` + 1 sets.
    """

    def __init__(
        self,
        metric: Counter | Histogram,
        labels: tuple[str, ...],
        folded: Counter,
        *,
        limit: int,
        fold: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.metric, self.limit = metric, limit
        self._folds = [label in fold for label in labels]
        self._folded = folded.labels(str(metric._name))
        self._clock = clock
        self._used: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._rest: set[tuple[str, ...]] = set()

    def add(self, values: tuple[str, ...], amount: float) -> None:
        """Adds to the counter of the label set."""
        child = self.metric.labels(*self._room_for(values, amount))
        assert isinstance(child, Counter)
        child.inc(amount)

    def observe(self, values: tuple[str, ...], value: float) -> None:
        """Observes a value in the histogram of the label set."""
        child = self.metric.labels(*self._room_for(values, 1))
        assert isinstance(child, Histogram)
        child.observe(value)

    def _room_for(self, values: tuple[str, ...], amount: float) -> tuple[str, ...]:
        now = self._clock()
        if values not in self._used and len(self._used) >= self.limit:
            oldest = next(iter(self._used))
            if now - self._used[oldest] < IDLE_S:
                self._folded.inc(amount)
                return self._rest_of(values)
            del self._used[oldest]
            self.metric.remove(*oldest)
        self._used[values] = now
        self._used.move_to_end(values)
        return values

    def _rest_of(self, values: tuple[str, ...]) -> tuple[str, ...]:
        folded = tuple(OTHER if folds else value for folds, value in zip(self._folds, values, strict=True))
        if folded not in self._rest and len(self._rest) >= self.limit:
            return (OTHER,) * len(values)
        self._rest.add(folded)
        return folded


class Catalogue:
    """Makes metrics in one registry; those by workload are bounded."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        self.limit, self._clock = limit, clock
        self.folded = Counter(
            "genainet_folded",
            'What was counted under the label value "other" because a metric had too many label sets.',
            ["metric"],
            registry=self.registry,
        )

    def counter(self, name: str, text: str, *labels: str, fold: Collection[str]) -> LabelSets:
        metric = Counter(name, text, labels, registry=self.registry)
        return LabelSets(metric, labels, self.folded, limit=self.limit, fold=fold, clock=self._clock)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str, fold: Collection[str]
    ) -> LabelSets:
        metric = Histogram(name, text, labels, registry=self.registry, buckets=buckets)
        return LabelSets(metric, labels, self.folded, limit=self.limit, fold=fold, clock=self._clock)
