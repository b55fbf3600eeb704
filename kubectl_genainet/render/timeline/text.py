"""A timeline for a terminal: a row of bars for each series, what changed below them, and what came just before each onset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from kubectl_genainet.model.results.timeline import (
    EarlierChange,
    Hole,
    Onset,
    Series,
    SeriesName,
    Timeline,
    TimelineChange,
)
from kubectl_genainet.render.document.markdown import markdown_text
from kubectl_genainet.render.live import record_writer
from kubectl_genainet.render.text import CERTAINTY_STYLE, duration, make_console, moment, printable

BARS = " ▁▂▃▄▅▆▇█"
UNKNOWN = "·"
MARK = "▲"
NOT_A_CAUSE = "What came before is not thereby a cause."
_LABEL, _PEAK = 9, 22  # columns before and behind the bars
_EDGES = (
    0.1  # of the buckets may be unknown in what is called known: the first and the last reach beyond the time asked for
)
_MOST_CHANGES = 8  # listed where nothing began
_MOST_SUSPECTS = 6


def headline(timeline: Timeline) -> str:
    """The result in one line."""
    if not timeline.method:
        return f"{timeline.target}: {_when(timeline)}"
    if not timeline.onsets:
        felt = [s.name.value for s in timeline.series if s.name is not SeriesName.LATENCY and any(s.values)]
        what = f"nothing became worse and stayed so (felt: {', '.join(felt)})" if felt else "nothing became worse"
        known = [value is not None for s in timeline.series if s.name is not SeriesName.LATENCY for value in s.values]
        if not any(known):
            return f"{timeline.target}: nothing is known of {_when(timeline)}"
        as_far = " as far as is known" if known.count(False) > len(known) * _EDGES else ""
        return f"{timeline.target}: {what}{as_far}, {_when(timeline)}"
    worst = ", ".join(name.value for name in timeline.onsets[0].series)
    more = f", and {len(timeline.onsets) - 1} more" if len(timeline.onsets) > 1 else ""
    return f"{timeline.target}: {worst} began at {moment(timeline.onsets[0].time)}{more}"


def _when(timeline: Timeline) -> str:
    return f"{_day(timeline)}{moment(timeline.since)} to {moment(timeline.until)}"


def _day(timeline: Timeline) -> str:
    days = {timeline.since[:10], timeline.until[:10]}
    return f"{timeline.since[:10]} " if len(days) == 1 else f"{timeline.since[:10]} to {timeline.until[:10]}, "


def amount(series: Series, value: float | None) -> str:
    if value is None:
        return "unknown"
    if series.name is SeriesName.LATENCY:
        return duration(value * 1e9)
    noun = series.unit.removesuffix("s") if value == 1 and series.unit != "queries" else series.unit
    return f"{value:g} {'query' if value == 1 and series.unit == 'queries' else noun}"


def peak(series: Series) -> str:
    known = [value for value in series.values if value is not None]
    return f"max {amount(series, max(known))}" if known else "not known"


def hole_text(hole: Hole) -> str:
    """Of which time something is missing, from whom, and why."""
    of = f"node {hole.node}" if hole.node else "the cluster's objects"
    return f"{hole.from_s:g} s to {hole.until_s:g} s, {of}: {hole.why}"


def columns(values: Sequence[float | None], width: int) -> list[float | None]:
    """The values in so many columns, each the highest of its part; None where nothing of it is known."""
    width = min(width, len(values))
    result: list[float | None] = []
    for number in range(width):
        begin, end = number * len(values) // width, (number + 1) * len(values) // width
        known = [value for value in values[begin:end] if value is not None]
        result.append(max(known) if known else None)
    return result


def bars(values: Sequence[float | None]) -> str:
    highest = max((value for value in values if value is not None), default=0.0)
    return "".join(UNKNOWN if value is None else BARS[_height(value, highest)] for value in values)


def _height(value: float, highest: float) -> int:
    """What is there at all shows."""
    return 0 if not value or not highest else max(1, round(value / highest * (len(BARS) - 1)))


def subject(change: TimelineChange) -> str:
    """What changed, and how."""
    about = f"{change.object} " if change.object is not None else f"node {change.node} " if change.node else ""
    return f"{about}{change.what}"


def describe(change: TimelineChange) -> str:
    return f"{change.kind.value}: {subject(change)}"


def before_text(suspect: EarlierChange) -> str:
    return f"{suspect.before_s:.0f} s before" if suspect.before_s > 0 else "as it began"


def rise_text(timeline: Timeline, onset: Onset) -> str:
    """What rose, from what to what, and how long it lasted."""
    series = next(each for each in timeline.series if each.name is onset.series[0])
    also = f" (also {', '.join(name.value for name in onset.series[1:])})" if len(onset.series) > 1 else ""
    ended = "to the end" if onset.until_s >= timeline.seconds else f"for {lasting(onset.until_s - onset.at_s)}"
    before, after = amount(series, _rounded(onset.before)), amount(series, _rounded(onset.after))
    if series.name is not SeriesName.LATENCY:
        before, after = before.partition(" ")[0], f"{after} in {timeline.bucket_s} s"
    return f"{onset.series[0].value}{also}: {before} → {after}, {ended}"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def lasting(seconds: float) -> str:
    """40 s, 6 min 30 s, 2 h 5 min."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    large, small, units = (
        (whole // 3600, whole % 3600 // 60, "h min") if whole >= 3600 else (whole // 60, whole % 60, "min s")
    )
    unit, remainder = units.split()
    return f"{large} {unit} {small} {remainder}" if small else f"{large} {unit}"


class TextView:
    """Fits the terminal; in a pipe lines stay whole, and the bars are as wide as at 100 columns."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console()

    def show(self, timeline: Timeline) -> None:
        console = self.console
        self._line(headline(timeline), style="bold")
        width = max(10, min(console.width, 200 if console.is_terminal else 100) - _LABEL - _PEAK)
        buckets = max((len(series.values) for series in timeline.series), default=1)
        shown = min(width, buckets)
        for series in timeline.series:
            self._series(series, shown)
        self._marks(timeline, shown)
        self._axis(timeline, shown)
        for number, onset in enumerate(timeline.onsets, 1):
            self._onset(timeline, number, onset)
        if not timeline.onsets:
            self._changes(timeline.changes)
        for hole in timeline.holes[:3]:
            self._line(f"? {hole_text(hole)}", style="yellow", hang=2)
        if len(timeline.holes) > 3:
            self._line(f"? {len(timeline.holes) - 3} more times of which something is missing", style="yellow")
        for note in timeline.notes:
            self._line(f"· {note}", style="dim", hang=2)
        if timeline.onsets:
            self._line(f"Found by {timeline.method}, to {timeline.bucket_s} s. {NOT_A_CAUSE}", style="dim")

    def _series(self, series: Series, width: int) -> None:
        row = Text(f"{series.name.value:<{_LABEL}}")
        row.append(bars(columns(series.values, width)), style="red" if any(series.values) else "dim")
        row.append(f"  {peak(series)}", style="dim")
        self.console.print(row, no_wrap=True, crop=True)

    def _marks(self, timeline: Timeline, width: int) -> None:
        marks = [" "] * width
        for change in timeline.changes:
            marks[_column(change.at_s, timeline, width)] = "◆" if change.touches else "◇"
        for onset in timeline.onsets:
            marks[_column(onset.at_s, timeline, width)] = MARK
        row = Text(f"{'changes':<{_LABEL}}")
        row.append("".join(marks), style="cyan")
        of_target = sum(bool(change.touches) for change in timeline.changes)
        row.append(f"  ◆ {of_target}  ◇ {len(timeline.changes) - of_target} elsewhere", style="dim")
        self.console.print(row, no_wrap=True, crop=True)

    def _axis(self, timeline: Timeline, width: int) -> None:
        begin, end = moment(timeline.since), moment(timeline.until)
        between = " " * max(1, width - len(begin) - len(end))
        self.console.print(Text(f"{'':<{_LABEL}}{begin}{between}{end}", style="dim"), no_wrap=True, crop=True)

    def _onset(self, timeline: Timeline, number: int, onset: Onset) -> None:
        self.console.print()
        self._line(f"{MARK} {number}. {moment(onset.time)} {rise_text(timeline, onset)}", style="bold red", hang=5)
        if not onset.suspects:
            self._line("nothing changed in the ten minutes before, as far as it is recorded", indent=5)
        for suspect in onset.suspects[:_MOST_SUSPECTS]:
            self._suspect(suspect)
        if len(onset.suspects) > _MOST_SUSPECTS:
            self._line(f"{len(onset.suspects) - _MOST_SUSPECTS} more: -o json", indent=5, style="dim")

    def _suspect(self, suspect: EarlierChange) -> None:
        change = suspect.change
        text = Text(f"{before_text(suspect)}: {printable(describe(change))} ")
        text.append(
            f"({change.touches}) " if change.touches else "(elsewhere) ", style="bold" if change.touches else "dim"
        )
        text.append(f"[{change.certainty.value}]", style=CERTAINTY_STYLE[change.certainty])
        lines = text.wrap(self.console, max(20, self.console.width - 9))
        for position, line in enumerate(lines):
            line.rstrip()
            self.console.print(Padding(line, (0, 0, 0, 5 if position == 0 else 9), expand=False))

    def _changes(self, changes: Sequence[TimelineChange]) -> None:
        if changes:
            self.console.print()
        for change in sorted(changes, key=lambda change: not change.touches)[:_MOST_CHANGES]:
            where = f" ({change.touches})" if change.touches else " (elsewhere)"
            self._line(f"{moment(change.time)} {describe(change)}{where}", hang=10)
        if len(changes) > _MOST_CHANGES:
            self._line(f"{len(changes) - _MOST_CHANGES} more changes: -o json", style="dim")

    def _line(self, text: str, *, style: str = "", indent: int = 0, hang: int = 0) -> None:
        content = Text(printable(text), style=style)
        for number, line in enumerate(content.wrap(self.console, max(20, self.console.width - indent - hang))):
            line.rstrip()
            self.console.print(Padding(line, (0, 0, 0, indent + (hang if number else 0)), expand=False))


def _column(at_s: float, timeline: Timeline, width: int) -> int:
    return max(0, min(width - 1, int(at_s / max(timeline.seconds, 1e-9) * width)))


class MarkdownView:
    """For a ticket or a chat."""

    def show(self, timeline: Timeline) -> None:
        print("\n".join(self._lines(timeline)))

    def _lines(self, timeline: Timeline) -> Iterator[str]:
        yield f"# {markdown_text(headline(timeline))}"
        yield from ("", markdown_text(f"{_when(timeline)}, {timeline.bucket_s} s a bucket"), "", "```")
        for series in timeline.series:
            yield f"{series.name.value:<{_LABEL}}{bars(columns(series.values, 60))}  {peak(series)}"
        yield "```"
        for number, onset in enumerate(timeline.onsets, 1):
            yield from ("", f"## {number}. {moment(onset.time)} {markdown_text(rise_text(timeline, onset))}", "")
            for suspect in onset.suspects:
                change = suspect.change
                where = change.touches or "elsewhere"
                sentence = f"{before_text(suspect)}: {describe(change)} ({where})"
                yield f"- {markdown_text(sentence)} *[{change.certainty.value}]*"
        if timeline.onsets:
            yield from ("", f"Found by {markdown_text(timeline.method)}, to {timeline.bucket_s} s. {NOT_A_CAUSE}")
        missing = [*map(hole_text, timeline.holes), *timeline.notes]
        if missing:
            yield from ("", "What is missing:", "", *(f"- {markdown_text(text)}" for text in missing))


class DataView:
    def __init__(self, write: Callable[[object], None]) -> None:
        self._write = write

    def show(self, timeline: Timeline) -> None:
        self._write(timeline)


def make_view(output: str) -> TextView | MarkdownView | DataView:
    write = record_writer(output)
    if write is not None:
        return DataView(write)
    return MarkdownView() if output == "markdown" else TextView()
