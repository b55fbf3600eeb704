"""What `drops` found, as a document."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.model.finding import Certainty, Evidence, Severity
from kubectl_genainet.model.results.diagnosis import Activity
from kubectl_genainet.model.results.drops import DropRow, DropSummary
from kubectl_genainet.render.document.model import Card, Document, text_table
from kubectl_genainet.render.drops import table as of_drops


def drops_document(
    rows: list[DropRow], summary: DropSummary, timeline: Activity | None = None, seconds: float = 0.0
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
        tables=(text_table("Flows", [c for c in of_drops.COLUMNS if c.title != "WHY"], rows),),
        notes=(of_drops.account(summary),),
    )


def _drop_card(row: DropRow, more: int) -> Card:
    ends = f"{of_drops.client(row)} → {of_drops.who(row.server)}" if row.client or row.server else row.node
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
    if (said := of_drops.agreement(row)) is not None:
        yield Evidence(said, Certainty.ASSUMED)
    yield from row.evidence
