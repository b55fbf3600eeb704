"""How DNS is shown: tables that refresh in place, one line a query (wide), JSON or YAML as it is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.model.finding import Finding
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.dns import ClientStats, Counts, DnsSummary, NameStats, ServerStats
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import Party
from kubectl_genainet.render.document.markdown import markdown
from kubectl_genainet.render.live import LiveView, record_writer, write_json
from kubectl_genainet.render.paragraphs import hanging
from kubectl_genainet.render.screen.frame import Frame, frame
from kubectl_genainet.render.table import Column, table
from kubectl_genainet.render.text import SEVERITY_STYLE, duration, printable
from kubectl_genainet.render.trace.parts import certainty

NAMES_SHOWN = 15
_ALWAYS = frozenset({"QUERIES", "P50", "P99", "MAX", "TIMEOUTS"})
REFRESH_S = 0.5

R = TypeVar("R", ClientStats, NameStats, ServerStats)


def _bad(number: Callable[[Counts], int]) -> Callable[[Any], str]:
    return lambda row: "bold red" if number(row.counts) else ""


def _count_columns(_: type[R]) -> tuple[Column[R], ...]:
    return (
        Column("QUERIES", lambda r: str(r.counts.queries), right=True),
        Column("P50", lambda r: _time(r.counts.latency.p50), right=True),
        Column("P99", lambda r: _time(r.counts.latency.p99), right=True),
        Column("MAX", lambda r: _time(r.counts.latency.max), right=True, spare=1),
        Column("TIMEOUTS", lambda r: str(r.counts.timeouts), right=True, style=_bad(lambda c: c.timeouts)),
        Column("RETRIES", lambda r: str(r.counts.retries), right=True, spare=1),
        Column("NXDOMAIN", lambda r: str(r.counts.rcodes.get("NXDOMAIN", 0)), right=True),
        Column(
            "SERVFAIL",
            lambda r: str(r.counts.rcodes.get("SERVFAIL", 0)),
            right=True,
            style=_bad(lambda c: c.rcodes.get("SERVFAIL", 0)),
        ),
        Column("TRUNCATED", lambda r: str(r.counts.truncated), right=True, spare=1),
        Column("TCP", lambda r: str(r.counts.tcp_retries), right=True, spare=1),
    )


def _time(ns: int | None) -> str:
    return "-" if ns is None else duration(ns)


CLIENT_COLUMNS: tuple[Column[ClientStats], ...] = (
    Column("CLIENT", lambda c: c.client),
    *_count_columns(ClientStats),
    Column("WASTED", lambda c: f"{c.wasted / c.counts.queries:.0%}" if c.counts.queries else "-", right=True),
)
NAME_COLUMNS: tuple[Column[NameStats], ...] = (
    Column("NAME", lambda n: n.name.rstrip(".") or "."),
    Column("TYPE", lambda n: n.type),
    Column("CLIENT", lambda n: n.client),
    *_count_columns(NameStats),
)
SERVER_COLUMNS: tuple[Column[ServerStats], ...] = (
    Column("SERVER", lambda s: s.server),
    Column("NODE", lambda s: s.node or "?"),
    *_count_columns(ServerStats),
    Column("WAY P50", lambda s: _time(s.way.p50), right=True),
    Column("SERVER P50", lambda s: _time(s.server_time.p50), right=True),
    Column("UPSTREAM P50", lambda s: _time(s.upstream_time.p50), right=True),
)


def _party(party: Party | None) -> str:
    return "-" if party is None else party.pod or address_text(party.ip, party.port)


WIDE_COLUMNS: tuple[tuple[Column[DnsExchange], int], ...] = (
    (Column("TIME", lambda e: e.time or "-"), 27),
    (Column("CLIENT", lambda e: e.client.pod or e.client.ip), 28),
    (Column("SERVER", lambda e: _party(e.server or e.asked)), 26),
    (Column("TYPE", lambda e: e.type or "?"), 5),
    (Column("OUTCOME", lambda e: e.outcome.value), 9),
    (Column("RCODE", lambda e: e.rcode or "-"), 9),
    (Column("LATENCY", lambda e: _time(e.latency_ns)), 10),
    (Column("TO NAT", lambda e: _time(e.split.to_nat)), 9),
    (Column("TO SERVER", lambda e: _time(e.split.to_server)), 9),
    (Column("IN SERVER", lambda e: _time(e.split.server)), 9),
    (Column("UPSTREAM", lambda e: _time(e.split.upstream)), 9),
    (Column("BACK", lambda e: _time(e.split.to_client)), 9),
    (Column("NAME", lambda e: (e.name or "?").rstrip(".")), 0),
)


class DnsView(LiveView, ABC):
    """What a renderer of exchanges does."""

    def __init__(self, target: str, *, live: bool, by_server: bool) -> None:
        super().__init__(target, live=live)
        self.by_server = by_server
        self.source: DnsSummaryBuilder | None = None  # what to draw from while it runs

    @abstractmethod
    def exchange(self, exchange: DnsExchange) -> None: ...

    @abstractmethod
    def finish(self, summary: DnsSummary) -> None: ...

    def _nothing_seen(self, summary: DnsSummary) -> None:
        if not summary.queries.queries and not summary.upstream.queries:
            self.warn(f"no DNS query of {self.target} was seen; encrypted DNS (DoT, DoH) can't be")


class JsonView(DnsView):
    """One object a line, as it is known; then the summary."""

    write: Callable[[object], None] = staticmethod(write_json)

    def exchange(self, exchange: DnsExchange) -> None:
        self.write(exchange)

    def finish(self, summary: DnsSummary) -> None:
        self._nothing_seen(summary)
        self.write(summary)


class WideView(DnsView):
    """One line a query, then the tables."""

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
        return [*shown, self.state(f"{sum(statistics.all.outcomes.values())} queries")]

    def frame(self) -> Frame:
        if self.source is None:
            return super().frame()
        statistics = self.source.statistics
        names, servers, clients = statistics.names(), statistics.servers(), statistics.clients()
        state = self.state(f"{sum(statistics.all.outcomes.values())} queries")
        if self.by_server:
            behind = Group(*tables(clients, names, (), by_server=False))
            return frame(SERVER_COLUMNS, [(s.server, s, lambda _: behind) for s in servers], state)
        return frame(CLIENT_COLUMNS, [(c.client, c, partial(_names_of, c.client, names)) for c in clients], state)

    def finish(self, summary: DnsSummary) -> None:
        self.screen.stop()
        self._nothing_seen(summary)
        self.console.print(report(summary, self.console.width, by_server=self.by_server))


def _names_of(client: str, names: tuple[NameStats, ...], width: int) -> RenderableType:
    """What a client asks for."""
    return table(NAME_COLUMNS, [name for name in names if name.client == client], always=_ALWAYS)


def tables(
    clients: tuple[ClientStats, ...], names: tuple[NameStats, ...], servers: tuple[ServerStats, ...], *, by_server: bool
) -> list[RenderableType]:
    """Clients (or servers) first, then the names that went worst, then the others."""
    by_client: list[RenderableType] = [table(CLIENT_COLUMNS, clients, always=_ALWAYS), Text("")]
    of_servers: list[RenderableType] = [table(SERVER_COLUMNS, servers, always=_ALWAYS), Text("")]
    of_names: list[RenderableType] = [table(NAME_COLUMNS, names[:NAMES_SHOWN], always=_ALWAYS), Text("")]
    if len(names) > NAMES_SHOWN:
        of_names.insert(1, Text(f"… and {len(names) - NAMES_SHOWN} more names (all with -o json)", style="dim"))
    return of_servers + by_client + of_names if by_server else by_client + of_names + of_servers


def report(summary: DnsSummary, width: int, *, by_server: bool) -> RenderableType:
    """The tables, the findings and the account of what was seen and lost."""
    shown = tables(summary.clients, summary.names, summary.servers, by_server=by_server) if summary.clients else []
    for finding in summary.findings:
        shown += _finding(finding, width)
    return Group(*shown, *hanging(Text(account(summary), style="dim"), width))


def _finding(finding: Finding, width: int) -> list[RenderableType]:
    title = Text("! ", style=SEVERITY_STYLE[finding.severity]).append(printable(finding.title))
    lines: list[RenderableType] = list(hanging(title, width, hang=2))
    for item in finding.evidence:
        statement = Text(printable(item.statement) + " ").append_text(certainty(item.certainty))
        lines += hanging(statement, width, indent=2, hang=2)
    if finding.remedy is not None:
        lines += hanging(Text(f"→ {printable(finding.remedy.text)}", style="cyan"), width, indent=2, hang=2)
        lines += [Text(f"    {printable(line)}", overflow="fold") for line in finding.remedy.yaml.splitlines()]
    return [*lines, Text("")]


def account(summary: DnsSummary) -> str:
    queries, events = summary.queries, summary.events
    missing = queries.rcodes.get("NXDOMAIN", 0)
    others = ", ".join(f"{n} {rcode}" for rcode, n in sorted(queries.rcodes.items()) if rcode != "NXDOMAIN")
    text = (
        f"{queries.queries} queries: {queries.answered} answered{f' ({missing} NXDOMAIN)' if missing else ''}, "
        f"{queries.failed} failed{f' ({others})' if others else ''}, "
        f"{queries.timeouts} timed out, {queries.open} still open"
    )
    if summary.upstream.queries:
        text += f"; {summary.upstream.queries} upstream"
    if summary.malformed or summary.unmatched:
        text += f"; {summary.malformed} messages malformed, {summary.unmatched} responses without a query"
    if summary.not_grouped:
        text += f"; {summary.not_grouped} queries without a row of their own (too many names)"
    if summary.unlisted:
        text += f"; {summary.unlisted} more rows of names not listed"
    emitted = events.get("emitted")
    text += f"; {emitted} records, {events.get('lost')} lost" if emitted is not None else "; records not accounted for"
    if summary.silent_nodes:
        text += f"; broke off: {', '.join(summary.silent_nodes)}"
    if summary.redacted:
        text += "; names are hashed"
    return printable(f"{text}; nodes: {', '.join(summary.nodes) or 'none'}")


class MarkdownView(DnsView):
    """The document, at the end."""

    def exchange(self, exchange: DnsExchange) -> None:
        pass

    def finish(self, summary: DnsSummary) -> None:
        from kubectl_genainet.render.document.tables import dns_document

        self._nothing_seen(summary)
        print("\n".join(markdown(dns_document(summary))))


VIEWS: dict[str, Callable[..., DnsView]] = {
    "table": TableView,
    "wide": WideView,
    "markdown": MarkdownView,
}


def make_dns_view(output: str, target: str, *, live: bool, by_server: bool) -> DnsView:
    write = record_writer(output)
    if write is not None:
        view = JsonView(target, live=live, by_server=by_server)
        view.write = write
        return view
    return VIEWS[output](target, live=live, by_server=by_server)
