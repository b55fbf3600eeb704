"""What `rules` found, as a document."""

from __future__ import annotations

from kubectl_genainet.model.finding import counted
from kubectl_genainet.proxy.report import RulesReport
from kubectl_genainet.render.document.model import Document, card_of, number_of, text_table
from kubectl_genainet.render.rules import table as of_rules


def rules_document(report: RulesReport, target: str) -> Document:
    nodes = len({row.node for row in report.rows})
    return Document(
        title=f"Rules of {target}",
        headline=f"{target}: {counted(len(report.findings), 'finding')} on {counted(nodes, 'node')}",
        counts=(
            number_of(len(report.findings), "finding"),
            (str(len(report.rows)), "addresses"),
            number_of(nodes, "node"),
        ),
        cards=tuple(map(card_of, report.findings)),
        nothing="The rules are what the API says." if report.rows else "No rule was read.",
        tables=(text_table("What is programmed", of_rules.COLUMNS, report.rows),),
        notes=tuple(f"not checked: {item.what}: {item.reason}" for item in report.not_checked),
    )
