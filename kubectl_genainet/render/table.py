"""Tables from columns that are declared once and serve every renderer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.text import Text

from kubectl_genainet.render.text import printable

T = TypeVar("T")

EMPTY = {"0", "0%", "-", "?", ""}
GAPS = (3, 2)  # blanks between columns: as kubectl has them, and where room is short
LAST_COLUMN = 24  # the last column wraps at words where it has at least so much room
INDENT = 4


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column: its title, how to get the cell's text, whether only `-o wide` shows it, and how soon it is left out
    where the table is wider than the terminal (`spare`: the highest first, 0 never)."""

    title: str
    cell: Callable[[T], str]
    wide: bool = False
    right: bool = False
    style: Callable[[T], str] | None = None
    spare: int = 0


class FittedTable(Generic[T]):
    """A kubectl-like table: no borders, upper-case titles, cells escaped and never folded.

    Where it does not fit: numbers that are nothing in all rows are left out (not those titled in `always`), then `spare`
    columns, then the last column wraps at words; where that does not help either, each row is a paragraph of cells.
    """

    def __init__(
        self,
        columns: Sequence[Column[T]],
        rows: Iterable[T],
        *,
        wide: bool = False,
        always: frozenset[str] = frozenset(),
    ) -> None:
        self._columns = [c for c in columns if wide or not c.wide]
        self._rows, self._always = list(rows), always

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(40, options.max_width), options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines(options.max_width)

    def fits(self, width: int) -> bool:
        """Whether the rows are lines at that width, and not paragraphs."""
        kept = self._choices()[-1]
        return not self._rows or sum(self._widths(kept)) + GAPS[1] * (len(kept) - 1) <= width

    def lines(self, width: int) -> Iterator[Text]:
        telling, *fewer = self._choices()
        for columns, gap in ((self._columns, 3), (telling, 3), (telling, 2), *((kept, 2) for kept in fewer)):
            widths = self._widths(columns)
            if sum(widths) + gap * (len(widths) - 1) <= width:
                yield from self._aligned(columns, widths, gap, 0)
                return
        kept = [telling, *fewer][-1]
        widths = self._widths(kept)
        room = width - sum(widths[:-1]) - GAPS[1] * (len(widths) - 1)
        if room >= LAST_COLUMN and not kept[-1].right:
            yield from self._aligned(kept, widths, GAPS[1], room)
        else:
            yield from self._paragraphs(telling, width)

    def _choices(self) -> list[list[Column[T]]]:
        """Fewer and fewer columns: those that say something, then without the spare ones, step by step."""
        telling = [c for c in self._columns if not c.right or c.title in self._always or self._says_something(c)]
        ranks = sorted({c.spare for c in telling if c.spare}, reverse=True)
        return [telling, *([c for c in telling if c.spare < rank] for rank in ranks)]

    def _says_something(self, column: Column[T]) -> bool:
        return any(column.cell(row) not in EMPTY for row in self._rows)

    def _widths(self, columns: Sequence[Column[T]]) -> list[int]:
        return [max(map(cell_len, (c.title, *(printable(c.cell(r)) for r in self._rows)))) for c in columns]

    def _aligned(self, columns: Sequence[Column[T]], widths: list[int], gap: int, room: int) -> Iterator[Text]:
        """`room` is the width at which the last column wraps; 0: it does not."""
        yield _joined([Text(c.title, style="bold") for c in columns], columns, widths, gap)
        for row in self._rows:
            cells = [Text(printable(c.cell(row)), style=c.style(row) if c.style else "") for c in columns]
            further_lines: list[Text] = []
            if room:
                cells[-1], *further_lines = _wrapped(cells[-1], room) or [Text()]
            yield _joined(cells, columns, widths, gap)
            for part in further_lines:
                yield Text(" " * (sum(widths[:-1]) + gap * (len(widths) - 1)), no_wrap=True).append_text(part)

    def _paragraphs(self, columns: Sequence[Column[T]], width: int) -> Iterator[Text]:
        for row in self._rows:
            cells = []
            for number, column in enumerate(columns):
                text = Text(printable(column.cell(row)), style=column.style(row) if column.style else "")
                if not number:
                    cells.append(text)
                elif column.cell(row) not in EMPTY:
                    cells.append(Text.assemble((f"{column.title.lower()} ", "dim"), text))
            yield from _flowing(cells, width)


class WhereItFits:
    """A table where it fits, and what says the same in less width where it does not."""

    def __init__(self, shown: FittedTable[Any], otherwise: RenderableType) -> None:
        self._shown, self._otherwise = shown, otherwise

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._shown if self._shown.fits(options.max_width) else self._otherwise


def _joined(cells: list[Text], columns: Sequence[Column[T]], widths: list[int], gap: int) -> Text:
    line = Text(no_wrap=True, overflow="ignore")
    for number, (cell, column, width) in enumerate(zip(cells, columns, widths, strict=True)):
        blanks = " " * (width - cell_len(cell.plain))
        last = number == len(cells) - 1
        line.append(blanks if column.right else "").append_text(cell)
        line.append("" if column.right or last else blanks).append("" if last else " " * gap)
    line.rstrip()
    return line


def _wrapped(text: Text, width: int) -> list[Text]:
    return list(text.wrap(Console(width=width), width)) if text.plain else []


def _flowing(cells: list[Text], width: int) -> Iterator[Text]:
    """Cells side by side, a new line where the next one does not fit; further lines are indented."""
    line = Text(overflow="fold")
    for cell in cells:
        used = cell_len(line.plain)
        if used and used + 2 + cell_len(cell.plain) > width:
            yield from _whole_words(line, width)
            line = Text(" " * INDENT, overflow="fold")
        elif used:
            line.append("  ")
        line.append_text(cell)
    yield from _whole_words(line, width)


def _whole_words(line: Text, width: int) -> Iterator[Text]:
    """The line, or what a word that does not fit beside its title leaves of it: no blanks stand at an end."""
    if cell_len(line.plain) <= width:
        yield line
        return
    for part in line.wrap(Console(width=width), width):
        part.rstrip()
        yield part


def table(
    columns: Sequence[Column[T]], rows: Iterable[T], *, wide: bool = False, always: frozenset[str] = frozenset()
) -> FittedTable[T]:
    """The rows as a table that fits where it is printed."""
    return FittedTable(columns, rows, wide=wide, always=always)
