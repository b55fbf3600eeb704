"""How DNS is shown: tables that refresh in place, one line a query (wide), JSON or YAML as it is known, Markdown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from rich.console import Group, RenderableType
from rich.text import Text

from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.model.finding import counted
from kubectl_genainet.model.results.dns import DnsSummary, NameStats
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.render.dns.document import dns_document
from kubectl_genainet.render.dns.table import (
    _ALWAYS,
    CLIENT_COLUMNS,
    NAME_COLUMNS,
    SERVER_COLUMNS,
    WIDE_COLUMNS,
    report,
    tables,
)
from kubectl_genainet.render.document.markdown import markdown
from kubectl_genainet.render.live import LiveView
from kubectl_genainet.render.screen.frame import Frame, frame
from kubectl_genainet.render.table import table
from kubectl_genainet.render.text import printable

REFRESH_S = 0.5


class DnsView(LiveView, ABC):
    """What a renderer of exchanges does."""

    def __init__(self, target: str, *, live: bool, by_server: bool) -> None:
        super().__init__(target, live=live)
        self.by_server = by_server
        self.source: DnsSummaryBuilder | None = None  # what to draw from while it runs

    def counts(self) -> tuple[str, ...]:
        return () if self.source is None else (counted(sum(self.source.statistics.all.outcomes.values()), "query"),)

    @abstractmethod
    def exchange(self, exchange: DnsExchange) -> None: ...

    @abstractmethod
    def finish(self, summary: DnsSummary) -> None: ...

    def _nothing_seen(self, summary: DnsSummary) -> None:
        if summary.nodes and not summary.queries.queries and not summary.upstream.queries:
            self.warn(f"no DNS query of {self.target} was seen; encrypted DNS (DoT, DoH) can't be")


class JsonView(DnsView):
    """One object a line, as it is known; then the summary."""

    as_known = True

    def exchange(self, exchange: DnsExchange) -> None:
        self.write(exchange)

    def finish(self, summary: DnsSummary) -> None:
        self._nothing_seen(summary)
        self.write(summary)


class WideView(DnsView):
    """One line a query, then the tables."""

    as_known = True

    def __init__(self, target: str, *, live: bool, by_server: bool) -> None:
        super().__init__(target, live=live, by_server=by_server)
        self._started = False

    def exchange(self, exchange: DnsExchange) -> None:
        if not self._started:
            self._started = True
            self._line([column.title for column, _ in WIDE_COLUMNS])
        self._line([column.cell(exchange) for column, _ in WIDE_COLUMNS])

    def _line(self, cells: list[str]) -> None:
        text = "  ".join(printable(c).ljust(w) for c, (_, w) in zip(cells, WIDE_COLUMNS, strict=True)).rstrip()
        self.console.print(Text(text, no_wrap=True), soft_wrap=True)

    def finish(self, summary: DnsSummary) -> None:
        self._nothing_seen(summary)
        self.console.print(report(summary, self.console.width, by_server=self.by_server))


class TableView(DnsView):
    """The tables: refreshed in place in a terminal, else printed at the end."""

    in_place = True

    def exchange(self, exchange: DnsExchange) -> None:
        pass

    every_s = REFRESH_S

    def drawn(self) -> list[RenderableType]:
        if self.source is None:
            return [self.state()]
        statistics = self.source.statistics
        shown = tables(statistics.clients(), statistics.names(), statistics.servers(), by_server=self.by_server)
        return [*shown, self.state()]

    def frame(self) -> Frame:
        if self.source is None:
            return super().frame()
        statistics = self.source.statistics
        names, servers, clients = statistics.names(), statistics.servers(), statistics.clients()
        state = self.state()
        if self.by_server:
            behind = Group(*tables(clients, names, (), by_server=False))
            rows_of_servers = [(s.server, s, lambda _: behind) for s in servers]
            return frame(SERVER_COLUMNS, rows_of_servers, state, kept=("SERVER", "TIMEOUTS"))
        rows = [(c.client, c, partial(_names_of, c.client, names)) for c in clients]
        return frame(CLIENT_COLUMNS, rows, state, kept=("CLIENT", "TIMEOUTS"))

    def finish(self, summary: DnsSummary) -> None:
        self.screen.stop()
        self._nothing_seen(summary)
        self.console.print(report(summary, self.console.width, by_server=self.by_server))


def _names_of(client: str, names: tuple[NameStats, ...], width: int) -> RenderableType:
    """What a client asks for."""
    return table(NAME_COLUMNS, [name for name in names if name.client == client], always=_ALWAYS)


class MarkdownView(DnsView):
    """The document, at the end."""

    def exchange(self, exchange: DnsExchange) -> None:
        pass

    def finish(self, summary: DnsSummary) -> None:
        self._nothing_seen(summary)
        print("\n".join(markdown(dns_document(summary))))


VIEWS: dict[str, Callable[..., DnsView]] = {
    "table": TableView,
    "wide": WideView,
    "markdown": MarkdownView,
    "json": JsonView,
}
