"""The charts of a page, as rectangles of an SVG: what happened when, and how long replies took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kubectl_genainet.model.results.diagnosis import Activity, HeatMap
from kubectl_genainet.render.text import duration

WIDTH, LABEL = 640, 90  # of a chart, and of the words at its left, in the units of its viewBox
LETTER = 7  # a wide font's mean width, at the size of a label
ROW, CELL = 34, 14  # heights: of a series, of a row of a heat map
MOST_COLUMNS = 120  # seconds are drawn together beyond that
SHADES = 5
BAD = frozenset({"failed connections", "dropped packets", "DNS queries without an answer"})


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    title: str
    css: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    x: float
    y: float
    text: str
    css: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """`label` says in words what is drawn, for who can't see it."""

    title: str
    label: str
    height: float
    bars: tuple[Bar, ...]
    labels: tuple[Label, ...]
    css: str = "timeline"
    width: float = WIDTH


def charts(timeline: Activity) -> Iterator[Chart]:
    if timeline.series:
        yield _series(timeline)
    for heat in timeline.heat:
        yield _heat(heat, timeline.seconds)


def failures(counts: Mapping[int, int], seconds: float) -> Chart:
    """When connections failed."""
    last = max([int(seconds), *counts])
    most = max(counts.values(), default=1)
    label = f"{sum(counts.values())} failed connections over {last} seconds, at most {most} in one"
    bars = tuple(_bars(counts, last + 1, ROW - 6, 0, "bad", 0))
    axis = (Label(0, ROW + 10, "0 s"), Label(WIDTH, ROW + 10, f"{last} s", "end"))
    return Chart("When connections failed", label, ROW + 14, bars, axis)


def _columns(seconds: int) -> tuple[int, int]:
    """(seconds in a column, how many columns)."""
    each = max(1, math.ceil(seconds / MOST_COLUMNS))
    return each, math.ceil(seconds / each)


def _bars(
    counts: Mapping[int, int], seconds: int, height: float, y: float, css: str, left: float = LABEL
) -> Iterator[Bar]:
    each, number = _columns(seconds)
    drawn: Counter[int] = Counter()
    for second, count in counts.items():
        drawn[second // each] += count
    step, most = (WIDTH - left) / number, max(drawn.values(), default=1)
    for column, count in sorted(drawn.items()):
        tall = round(max(1.0, height * count / most), 1)
        when = f"second {column * each}" if each == 1 else f"seconds {column * each} to {column * each + each - 1}"
        x = round(left + column * step, 1)
        yield Bar(x, round(y + height - tall + 4, 1), round(max(1.0, step * 0.85), 1), tall, f"{when}: {count}", css)


def _series(timeline: Activity) -> Chart:
    bars: list[Bar] = []
    labels: list[Label] = []
    names = [f"{series.name}: {sum(series.counts.values())}" for series in timeline.series]
    left = max(map(len, names)) * LETTER + 8.0
    for row, (name, series) in enumerate(zip(names, timeline.series, strict=True)):
        y = row * ROW
        bars += _bars(series.counts, timeline.seconds, ROW - 8, y, "bad" if series.name in BAD else "", left)
        labels.append(Label(0, y + ROW - 6, name))
    height = len(timeline.series) * ROW
    labels += [
        Label(left, height + 12, "0 s"),
        Label(WIDTH, height + 12, f"{timeline.seconds} s", "end"),
    ]
    label = ", ".join(f"{sum(series.counts.values())} {series.name}" for series in timeline.series)
    return Chart(
        "What happened when", f"By the second, of {timeline.seconds}: {label}", height + 16, tuple(bars), tuple(labels)
    )


def _heat(heat: HeatMap, seconds: int) -> Chart:
    each, number = _columns(seconds)
    drawn: Counter[tuple[int, int]] = Counter()
    for cell in heat.cells:
        drawn[cell.second // each, cell.upto_ns] += cell.count
    bounds = _bounds(heat)
    step, most = (WIDTH - LABEL) / number, max(drawn.values(), default=1)
    bars = tuple(
        Bar(
            round(LABEL + column * step, 1),
            (len(bounds) - 1 - bounds.index(upto_ns)) * CELL,
            round(max(1.0, step * 0.95), 1),
            CELL - 1,
            f"second {column * each}: {count} took up to {duration(upto_ns)}",
            f"shade-{_shade(count, most)}",
        )
        for (column, upto_ns), count in sorted(drawn.items())
    )
    height = len(bounds) * CELL
    labels = [
        Label(LABEL - 6, (len(bounds) - 1 - row) * CELL + CELL - 3, f"≤ {_round(upto_ns)}", "end")
        for row, upto_ns in enumerate(bounds)
    ]
    labels += [Label(LABEL, height + 13, "0 s"), Label(WIDTH, height + 13, f"{seconds} s", "end")]
    total = sum(drawn.values())
    slowest = max((upto_ns for _, upto_ns in drawn), default=0)
    label = f"{heat.name}: {total} measured, the slowest took up to {duration(slowest)}; darker is more, at most {most}"
    return Chart(f"How long it took: {heat.name}", label, height + 17, bars, tuple(labels), "heat")


def _bounds(heat: HeatMap) -> list[int]:
    """All rows between the fastest and the slowest: a gap is seen as one."""
    present = [cell.upto_ns for cell in heat.cells]
    bounds, upto_ns = [], min(present, default=1)
    while upto_ns <= max(present, default=0):
        bounds.append(upto_ns)
        upto_ns *= 2
    return bounds


def _shade(count: int, most: int) -> int:
    return (
        min(SHADES, 1 + int(SHADES * math.log1p(count - 1) / max(math.log1p(most - 1), 1e-9))) if most > 1 else SHADES
    )


def _round(ns: int) -> str:
    return f"{ns / 1e9:.3g} s" if ns >= 1_000_000_000 else f"{ns / 1e6:.3g} ms"
