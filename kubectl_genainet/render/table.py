"""Tables from columns that are declared once and serve every renderer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

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
        out.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        out.add_row(*(Text(printable(c.cell(row)), style=c.style(row) if c.style else "") for c in shown))
    return out
