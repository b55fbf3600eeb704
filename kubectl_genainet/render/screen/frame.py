"""What a live view shows at one moment, for a screen with keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import RenderableType
from rich.text import Text

from kubectl_genainet.render.table import Column
from kubectl_genainet.render.text import printable

GAP = 2  # blanks between two columns
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_UNITS = {"ns": 1.0, "µs": 1e3, "ms": 1e6, "s": 1e9}


@dataclass(frozen=True, slots=True)
class FrameRow:
    """`key` stays the same from one frame to the next. `detail` makes what Enter shows, for a width."""

    key: str
    cells: tuple[str, ...]
    styles: tuple[str, ...]
    detail: Callable[[int], RenderableType]

    def has(self, words: str) -> bool:
        """Whether each of the words is in a cell."""
        text = " ".join(self.cells).lower()
        return all(word in text for word in words.lower().split())


@dataclass(frozen=True, slots=True)
class Frame:
    """The columns' titles and the rows, in the view's own order; `spare` says how soon a column is left out."""

    titles: tuple[str, ...]
    right: tuple[bool, ...]
    spare: tuple[int, ...]
    rows: tuple[FrameRow, ...]
    state: Text

    def sorted_by(self, column: int | None) -> tuple[FrameRow, ...]:
        """By a column: numbers and times the largest first, text from A to Z; None: in the view's own order."""
        if column is None:
            return self.rows
        return tuple(sorted(self.rows, key=lambda row: _order(row.cells[column])))

    def fitting(self, width: int) -> list[int]:
        """The columns that fit; those that are left out are spare. All that are not, where even they do not."""
        widths = [
            max(map(cell_len, (title, *(row.cells[number] for row in self.rows))))
            for number, title in enumerate(self.titles)
        ]
        kept = list(range(len(self.titles)))
        for rank in sorted({spare for spare in self.spare if spare}, reverse=True):
            if sum(widths[number] + GAP for number in kept) <= width:
                break
            kept = [number for number in kept if self.spare[number] < rank]
        return kept


def frame(
    columns: Sequence[Column[Any]],
    rows: Sequence[tuple[str, Any, Callable[[int], RenderableType]]],
    state: Text,
    *,
    kept: Sequence[str] = (),
) -> Frame:
    """The frame of (key, what the columns read, detail). `kept` are the titles that stay however narrow the terminal is:
    what went wrong, and why; of the others the last goes first, after those that are spare. Without any, all stay."""
    shown = [column for column in columns if not column.wide]
    ranks = [0 if column.title in kept or not kept else place for place, column in enumerate(shown, start=1)]
    return Frame(
        tuple(column.title for column in shown),
        tuple(column.right for column in shown),
        tuple(len(shown) + c.spare if c.spare else rank for c, rank in zip(shown, ranks, strict=True)),
        tuple(
            FrameRow(
                key,
                tuple(printable(column.cell(value)) for column in shown),
                tuple(column.style(value) if column.style else "" for column in shown),
                detail,
            )
            for key, value, detail in rows
        ),
        state,
    )


def _order(cell: str) -> tuple[int, float, str]:
    number = _NUMBER.match(cell)
    if number is None or ":" in cell:
        return (1, 0.0, cell)
    unit = cell[number.end() :].strip()
    return (0, -float(number.group()) * _UNITS.get(unit, 1.0), cell)
