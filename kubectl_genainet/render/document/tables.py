"""What `drops`, `dns` and `rules` found, as documents."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.model.finding import Certainty, Evidence, Severity, counted
from kubectl_genainet.model.results.diagnosis import Timeline
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.model.results.drops import DropRow, DropSummary
from kubectl_genainet.proxy.report import RulesReport
from kubectl_genainet.render import dns as of_dns
from kubectl_genainet.render import drops as of_drops
from kubectl_genainet.render import rules as of_rules
from kubectl_genainet.render.document.model import Card, Document, card_of, grid

NAMES = 100  # of a table


def drops_document(
    rows: list[DropRow], summary: DropSummary, timeline: Timeline | None = None, seconds: float = 0.0
) -> Document:
    wrong = [row for row in rows if row.severity is not Severity.INFO]
    packets = ", ".join(f"{number} {outcome}" for outcome, number in sorted(summary.packets.items()))
    return Document(
        title=f"Drops of {summary.target}",
        headline=f"{summary.target}: {packets or 'nothing was dropped'}",
        counts=(
            (str(sum(row.packets for row in wrong)), "packets of what is wrong"),
            (str(len(rows)), "kinds of flows"),
            (str(len(summary.nodes)), "nodes"),
        ),
        cards=tuple(_drop_card(row, more) for row, more in of_drops.alike(wrong)),
        nothing="Nothing that is wrong was dropped.",
        timeline=timeline,
        seconds=seconds,
        tables=(grid("Flows", [c for c in of_drops.COLUMNS if c.title != "WHY"], rows),),
        notes=(of_drops.account(summary),),
    )


def _drop_card(row: DropRow, more: int) -> Card:
    ends = f"{of_drops.who(row.client)} → {of_drops.who(row.server)}" if row.client or row.server else row.node
    others = f"; {more} more like it" if more else ""
    return Card(
        row.title,
        row.severity,
        row.check,
        f"{ends}; {row.outcome.value}, {row.packets}{others}; on {of_drops.where(row)}",
        tuple(_drop_evidence(row)),
        remedy=row.drop.remedy if row.drop is not None else None,
    )


def _drop_evidence(row: DropRow) -> Iterator[Evidence]:
    if row.drop is not None and row.drop.rule:
        yield Evidence(row.drop.rule, row.drop.rule_certainty or row.drop.certainty)
    if row.policy is not None:
        yield Evidence(of_drops.AGREEMENT[row.policy.agreement], Certainty.ASSUMED)
    yield from row.evidence


def dns_document(summary: DnsSummary, timeline: Timeline | None = None, seconds: float = 0.0) -> Document:
    queries = summary.queries
    return Document(
        title=f"DNS of {summary.target}",
        headline=f"{summary.target}: {counted(len(summary.findings), 'finding')}; {queries.queries} queries, "
        f"{queries.timeouts} without an answer, {queries.failed} failed",
        counts=(
            _number(len(summary.findings), "finding"),
            (str(queries.queries), "queries"),
            (str(queries.timeouts), "without an answer"),
            (str(len(summary.nodes)), "nodes"),
        ),
        cards=tuple(map(card_of, summary.findings)),
        nothing="All queries were answered in time." if queries.queries else "No query was seen.",
        timeline=timeline,
        seconds=seconds,
        tables=(
            grid("Clients", of_dns.CLIENT_COLUMNS, summary.clients),
            grid("Names", of_dns.NAME_COLUMNS, summary.names[:NAMES]),
            grid("Servers", of_dns.SERVER_COLUMNS, summary.servers),
        ),
        notes=(of_dns.account(summary),),
    )


def rules_document(report: RulesReport, target: str) -> Document:
    nodes = len({row.node for row in report.rows})
    return Document(
        title=f"Rules of {target}",
        headline=f"{target}: {counted(len(report.findings), 'finding')} on {counted(nodes, 'node')}",
        counts=(_number(len(report.findings), "finding"), (str(len(report.rows)), "addresses"), _number(nodes, "node")),
        cards=tuple(map(card_of, report.findings)),
        nothing="The rules are what the API says." if report.rows else "No rule was read.",
        tables=(grid("What is programmed", of_rules.COLUMNS, report.rows),),
        notes=tuple(f"not checked: {item.what}: {item.reason}" for item in report.not_checked),
    )


def _number(count: int, noun: str) -> tuple[str, str]:
    number, _, text = counted(count, noun).partition(" ")
    return number, text
