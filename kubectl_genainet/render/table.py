"""Tables from columns that are declared once and serve every renderer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kubectl_genainet.render.text import printable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column: its title, how to get the cell's text, and whether only `-o wide` shows it."""

    title: str
    cell: Callable[[T], str]
    wide: bool = False
    right: bool = False
    style: Callable[[T], str] | None = None


def table(columns: Sequence[Column[T]], rows: Iterable[T], *, wide: bool = False) -> Table:
    """A kubectl-like table: no borders, upper-case titles, cells escaped, long cells folded."""
    shown = [c for c in columns if wide or not c.wide]
    out = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in shown:
        # Numbers are not folded: where room is short, texts are.
        out.add_column(column.title, justify="right" if column.right else "left", overflow="fold", no_wrap=column.right)
    for row in rows:
        out.add_row(*(Text(printable(c.cell(row)), style=c.style(row) if c.style else "") for c in shown))
    return out


EMPTY = {"0", "0%", "-"}


class FittingTable(Generic[T]):
    """A table that leaves out numbers which are nothing in all rows, and some of the space between columns, where the
    terminal is too narrow for all. `always` are titles of columns that are never left out."""

    def __init__(self, columns: Sequence[Column[T]], rows: Sequence[T], always: frozenset[str]) -> None:
        self._columns, self._rows, self._always = columns, rows, always

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = table(self._columns, self._rows)
        if Measurement.get(console, options.update(max_width=10_000), whole).maximum <= options.max_width:
            yield whole
            return
        telling = [c for c in self._columns if not c.right or c.title in self._always or self._says_something(c)]
        fitted = table(telling, self._rows)
        fitted.padding = (0, 1, 0, 0)
        yield fitted

    def _says_something(self, column: Column[T]) -> bool:
        return any(column.cell(row) not in EMPTY for row in self._rows)
