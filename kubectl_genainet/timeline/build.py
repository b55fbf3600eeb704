"""One timeline of series and changes: onsets, and the changes that came just before each."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.model.history import BUCKET_S, Gap
from kubectl_genainet.model.results.timeline import (
    EarlierChange,
    Hole,
    Onset,
    Series,
    SeriesName,
    Timeline,
    TimelineChange,
)
from kubectl_genainet.model.units import rfc3339
from kubectl_genainet.timeline.changes import Noted
from kubectl_genainet.timeline.circle import Circle
from kubectl_genainet.timeline.onset import LEAST_BUCKETS, METHOD, Episode, episodes
from kubectl_genainet.timeline.series import Buckets

BEFORE_S = 600.0  # a change that came earlier than that before an onset is not named beside it
MAX_SUSPECTS = 12
MAX_CHANGES = 1000
MAX_HOLES = 100
NOT_INSTALLED = "when it began was not looked for: pipx install --force '.[history]'"


def timeline(
    target: str,
    grid: Buckets,
    series: Sequence[Series],
    noted: Sequence[Noted],
    circle: Circle,
    gaps: Sequence[Gap] = (),
    notes: Sequence[str] = (),
) -> Timeline:
    inside = sorted((n for n in noted if grid.since_ns <= n.at_ns < grid.until_ns), key=lambda n: n.at_ns)
    all_notes = list(notes)
    begun = _episodes(grid, series, all_notes)
    if len(inside) > MAX_CHANGES:
        all_notes.append(f"{len(inside) - MAX_CHANGES} changes found no room: the first {MAX_CHANGES} are listed")
    if len(gaps) > MAX_HOLES:
        all_notes.append(f"{len(gaps) - MAX_HOLES} more gaps found no room: the first {MAX_HOLES} are listed")
    return Timeline(
        target=target,
        since=rfc3339(grid.since_ns),
        until=rfc3339(grid.until_ns),
        bucket_s=BUCKET_S,
        seconds=round((grid.until_ns - grid.since_ns) / 1e9, 1),
        series=tuple(series),
        onsets=tuple(_onset(grid, episode, inside, circle) for episode in begun or ()),
        changes=tuple(_change(grid, change, circle, frozenset()) for change in inside[:MAX_CHANGES]),
        method=METHOD if begun is not None else "",
        holes=tuple(_hole(grid, gap) for gap in gaps[:MAX_HOLES]),
        notes=tuple(all_notes),
    )


def _episodes(grid: Buckets, series: Sequence[Series], notes: list[str]) -> list[Episode] | None:
    """None where they can't be looked for; `notes` is all_notes why."""
    if grid.buckets < LEAST_BUCKETS:
        notes.append(f"{grid.buckets * BUCKET_S} s are too short to tell when something began")
        return None
    try:
        return episodes(series)
    except ModuleNotFoundError:
        notes.append(NOT_INSTALLED)
        return None


def _onset(grid: Buckets, episode: Episode, noted: Sequence[Noted], circle: Circle) -> Onset:
    begin_s = episode.begin * BUCKET_S
    rose = frozenset(rise.series for rise in episode.rises)
    strongest = episode.rises[0]
    return Onset(
        at_s=float(begin_s),
        time=rfc3339(grid.since_ns + begin_s * 1_000_000_000),
        until_s=float(episode.end * BUCKET_S),
        series=tuple(dict.fromkeys(rise.series for rise in episode.rises)),
        before=round(strongest.before, 6),
        after=round(strongest.after, 6),
        suspects=tuple(_suspects(grid, begin_s, rose, noted, circle)),
    )


def _suspects(
    grid: Buckets, begin_s: int, rose: frozenset[SeriesName], noted: Sequence[Noted], circle: Circle
) -> list[EarlierChange]:
    """What came just before: what touches the target first, the nearest first."""
    ranked = []
    for change in noted:
        before_s = begin_s - _at_s(grid, change)
        if -BUCKET_S < before_s <= BEFORE_S:
            nearness, _ = circle.touch(change, rose)
            ranked.append((nearness, abs(before_s), change))
    ranked.sort(key=lambda entry: entry[:2])
    return [
        EarlierChange(change=_change(grid, change, circle, rose), before_s=round(begin_s - _at_s(grid, change), 1))
        for _, _, change in ranked[:MAX_SUSPECTS]
    ]


def _at_s(grid: Buckets, noted: Noted) -> float:
    return (noted.at_ns - grid.since_ns) / 1e9


def _change(grid: Buckets, noted: Noted, circle: Circle, rose: frozenset[SeriesName]) -> TimelineChange:
    _, touches = circle.touch(noted, rose)
    what = f"{noted.what} ({noted.times} times)" if noted.times > 1 else noted.what
    return TimelineChange(
        at_s=round(_at_s(grid, noted), 3),
        time=rfc3339(noted.at_ns),
        kind=noted.kind,
        what=what,
        object=noted.object,
        node=noted.node,
        touches=touches,
        fields=noted.fields,
    )


def _hole(grid: Buckets, gap: Gap) -> Hole:
    def inside(at_ns: int) -> float:
        return round(max(0, min(at_ns, grid.until_ns) - grid.since_ns) / 1e9, 1)

    return Hole(from_s=inside(gap.since_ns), until_s=inside(gap.until_ns), node=gap.node, why=gap.why)
