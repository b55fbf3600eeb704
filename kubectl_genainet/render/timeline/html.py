"""A timeline as a page: the series as lanes over one axis, changes and onsets marked on it, and what is behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_genainet import __version__
from kubectl_genainet.model.results.timeline import Onset, Series, Timeline
from kubectl_genainet.render.page import asset, environment, source_hash
from kubectl_genainet.render.text import moment
from kubectl_genainet.render.timeline.text import (
    NOT_A_CAUSE,
    amount,
    before_text,
    columns,
    describe,
    headline,
    hole_text,
    peak,
    rise_text,
    subject,
)

# The picture, in the units of its viewBox: a lane of bars for each series, with its name before it and its peak behind.
WIDTH, BEFORE, BEHIND = 1000, 84, 150
_LANE, _BAR, _TOP = 46, 34, 22
_COLUMNS = 240


@dataclass(frozen=True, slots=True)
class LaneBar:
    x: float
    y: float
    width: float
    height: float
    known: bool
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    name: str
    what: str
    peak: str
    baseline: float
    bars: tuple[LaneBar, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A change or an onset on the axis."""

    x: float
    title: str
    touches: bool = True


@dataclass(frozen=True, slots=True)
class OnsetCard:
    """An onset, ready to be told."""

    onset: Onset
    time: str
    rise: str
    suspects: tuple[tuple[str, str, str, str], ...]  # when, what, where, certainty


def html(timeline: Timeline, made: str = "") -> str:
    """The page; `made` is when it was made, RFC 3339. Styles are inline, named by hash in its policy."""
    style = asset("report.css")
    return (
        environment()
        .get_template("timeline.html.j2")
        .render(
            timeline=timeline,
            headline=headline(timeline),
            sections=sections(timeline),
            since=_whole(timeline.since),
            until=_whole(timeline.until),
            made=made,
            version=__version__,
            style=style,
            style_hash=source_hash(style),
        )
    )


def sections(timeline: Timeline) -> str:
    """The picture and what is behind it, as escaped HTML for a page whose style is report.css."""
    lanes = tuple(_lane(timeline, number, series) for number, series in enumerate(timeline.series))
    return (
        environment()
        .get_template("timeline_sections.html.j2")
        .render(
            timeline=timeline,
            headline=headline(timeline),
            lanes=lanes,
            changes=[
                Mark(_x(timeline, c.at_s), f"{moment(c.time)} {describe(c)}", bool(c.touches)) for c in timeline.changes
            ],
            onsets=[Mark(_x(timeline, o.at_s), moment(o.time)) for o in timeline.onsets],
            cards=[_card(timeline, onset) for onset in timeline.onsets],
            listed=[(moment(c.time), c.kind.value, subject(c), c.touches or "elsewhere") for c in timeline.changes],
            begin=moment(timeline.since),
            end=moment(timeline.until),
            width=WIDTH,
            before=BEFORE,
            right=WIDTH - BEHIND,
            top=_TOP,
            bottom=_TOP + _LANE * len(lanes),
            missing=[*map(hole_text, timeline.holes), *timeline.notes],
            not_a_cause=NOT_A_CAUSE,
        )
    )


def _whole(time: str) -> str:
    """An RFC 3339 time in UTC to the second."""
    return f"{time[:19]}Z"


def _x(timeline: Timeline, at_s: float) -> float:
    share = max(0.0, min(1.0, at_s / max(timeline.seconds, 1e-9)))
    return round(BEFORE + share * (WIDTH - BEFORE - BEHIND), 1)


def _lane(timeline: Timeline, number: int, series: Series) -> Lane:
    known = [value for value in series.values if value is not None]
    baseline = _TOP + _LANE * number + _BAR + 6
    return Lane(
        series.name.value,
        series.what,
        peak(series),
        baseline,
        tuple(_bars(timeline, series, baseline, max(known, default=0.0))),
    )


def _bars(timeline: Timeline, series: Series, baseline: float, highest: float) -> Iterator[LaneBar]:
    values = columns(series.values, _COLUMNS)
    step = (WIDTH - BEFORE - BEHIND) / len(values)
    for number, value in enumerate(values):
        x, at_s = round(BEFORE + number * step, 2), number / len(values) * timeline.seconds
        title = f"{at_s:.0f} s: {amount(series, value)}"
        if value is None:
            yield LaneBar(x, baseline - 4, round(step, 2), 4, False, title)
        elif value and highest:
            height = round(max(2.0, _BAR * value / highest), 1)
            yield LaneBar(x, baseline - height, round(step * 0.9, 2), height, True, title)


def _card(timeline: Timeline, onset: Onset) -> OnsetCard:
    suspects = tuple(
        (before_text(s), describe(s.change), s.change.touches or "elsewhere", s.change.certainty.value)
        for s in onset.suspects
    )
    return OnsetCard(onset, moment(onset.time), rise_text(timeline, onset), suspects)
