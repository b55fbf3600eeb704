"""How DNS is shown: tables that refresh in place, one line a query (wide), JSON or YAML as it is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rich.console import Group, RenderableType
from rich.text import Text

from kubectl_genainet.model.finding import Finding, counted
from kubectl_genainet.model.history import LEFT_OUT
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.dns import ClientStats, DnsSummary, NameStats, QueryCounts, ServerStats
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import Party
from kubectl_genainet.render.agents import busiest
from kubectl_genainet.render.paragraphs import hanging
from kubectl_genainet.render.table import Column, table
from kubectl_genainet.render.text import SEVERITY_STYLE, duration, moment, printable
from kubectl_genainet.render.trace.parts import certainty

NAMES_SHOWN = 15


_ALWAYS = frozenset({"QUERIES", "P50", "P99", "MAX", "TIMEOUTS"})


R = TypeVar("R", ClientStats, NameStats, ServerStats)


def _bad(number: Callable[[QueryCounts], int]) -> Callable[[Any], str]:
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
        Column("LAST", lambda r: moment(r.counts.last) or "-", spare=2),
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


def tables(
    clients: tuple[ClientStats, ...], names: tuple[NameStats, ...], servers: tuple[ServerStats, ...], *, by_server: bool
) -> list[RenderableType]:
    """Clients (or servers) first, then the names that went worst, then the others."""
    by_client: list[RenderableType] = [table(CLIENT_COLUMNS, clients, always=_ALWAYS), Text("")]
    of_servers: list[RenderableType] = [table(SERVER_COLUMNS, servers, always=_ALWAYS), Text("")]
    of_names: list[RenderableType] = [table(NAME_COLUMNS, names[:NAMES_SHOWN], always=_ALWAYS), Text("")]
    if len(names) > NAMES_SHOWN:
        of_names.insert(
            1, Text(f"… and {counted(len(names) - NAMES_SHOWN, 'more name')} (all with -o json)", style="dim")
        )
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
    if left_out := sum(losses.count for losses in summary.lost if losses.where == LEFT_OUT):
        text += (
            f"; {left_out} more were answered quickly and are not among these: the recorder kept them as totals only"
        )
    if summary.agents:
        text += f"; {busiest(summary.agents)}"
    if summary.silent_nodes:
        text += f"; broke off: {', '.join(summary.silent_nodes)}"
    if summary.redacted:
        text += "; names are hashed"
    return printable(f"{text}; nodes: {', '.join(summary.nodes) or 'none'}")
