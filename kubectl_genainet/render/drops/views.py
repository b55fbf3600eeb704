"""How drops are shown: a table that refreshes in place on a terminal, JSON or YAML as they are known, Markdown."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from rich.console import RenderableType
from rich.text import Text

from kubectl_genainet.model.finding import Severity, counted
from kubectl_genainet.model.results.drops import DropRow, DropSummary
from kubectl_genainet.render.document.markdown import markdown
from kubectl_genainet.render.drops.document import drops_document
from kubectl_genainet.render.drops.table import COLUMNS, DETAILS, account, alike, details
from kubectl_genainet.render.live import LiveView
from kubectl_genainet.render.paragraphs import hanging
from kubectl_genainet.render.screen.frame import Frame, frame
from kubectl_genainet.render.table import table

REFRESH_S = 1.0


class DropsView(LiveView, ABC):
    """What a renderer of drops does. `source` gives the rows as they are now."""

    source: Callable[[], list[DropRow]] = staticmethod(list)

    def counts(self) -> tuple[str, ...]:
        if self.screen.on:  # the table says so
            return ()
        lost = sum(row.packets for row in self.source() if row.severity is not Severity.INFO)
        return (f"{counted(lost, 'packet')} dropped",)

    @abstractmethod
    def finish(self, rows: list[DropRow], summary: DropSummary) -> None: ...


class TableView(DropsView):
    """The table, by count, refreshed in place on a terminal; at the end the causes, then the table."""

    in_place = True
    wide = False

    every_s = REFRESH_S

    def frame(self) -> Frame:
        rows = [(str(row.id), row, partial(details, row)) for row in self.source()]
        return frame(COLUMNS, rows, self.state(), kept=("PACKETS", "WHAT", "REASON"))

    def drawn(self) -> list[RenderableType]:
        rows = self.source()
        room = max(3, self.console.height - 4)
        shown: list[RenderableType] = [table(COLUMNS, rows[:room], wide=self.wide)] if rows else []
        if len(rows) > room:
            shown.append(Text(f"… and {len(rows) - room} more", style="dim"))
        return [*shown, self.state()]

    def finish(self, rows: list[DropRow], summary: DropSummary) -> None:
        self.screen.stop()
        for row, more in alike(rows)[:DETAILS]:
            self.console.print(details(row, self.console.width, more))
            self.console.print(Text())
        if rows:
            self.console.print(table(COLUMNS, rows, wide=self.wide))
            self.console.print(Text())
        self.console.print(*hanging(Text(account(summary), style="dim"), self.console.width), sep="\n")


class WideView(TableView):
    wide = True


class JsonView(DropsView):
    """A row as it is known, again when it has grown (the last of an id holds), then the summary. See docs/drops.md.

    A row must have been there at two looks: one node tells of a retransmission a moment before another tells of the drop
    behind it, and only one of the two is a row then.
    """

    PERIOD_S = 2.0
    as_known = True

    def __init__(self, target: str, *, live: bool) -> None:
        super().__init__(target, live=live)
        self._written: dict[int, DropRow] = {}
        self._there: set[int] = set()  # ids at the last look
        self._looked = time.monotonic()

    def refresh(self) -> None:
        if time.monotonic() - self._looked >= self.PERIOD_S:
            rows = self.source()
            self._emit([row for row in rows if row.id in self._there])
            self._there = {row.id for row in rows}
            self._looked = time.monotonic()

    def _emit(self, rows: list[DropRow]) -> None:
        for row in rows:
            if self._written.get(row.id) != row:
                self._written[row.id] = row
                self.write(row)

    def finish(self, rows: list[DropRow], summary: DropSummary) -> None:
        self._emit(rows)
        self.write(summary)


class MarkdownView(DropsView):
    """The document, at the end."""

    def finish(self, rows: list[DropRow], summary: DropSummary) -> None:
        print("\n".join(markdown(drops_document(rows, summary))))


VIEWS: dict[str, Callable[..., DropsView]] = {
    "table": TableView,
    "wide": WideView,
    "markdown": MarkdownView,
    "json": JsonView,
}
