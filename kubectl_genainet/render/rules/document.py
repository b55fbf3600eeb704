"""What `rules` found, as a document."""

from __future__ import annotations

from kubectl_genainet.model.finding import counted
from kubectl_genainet.proxy.report import RulesReport
from kubectl_genainet.render.document.model import Document, card_of, number_of, text_table
from kubectl_genainet.render.rules import table as of_rules


def rules_document(report: RulesReport, target: str) -> Document:
    """`target`: what was asked for; "": all Services."""
    name, nodes = target or "all Services", len(report.nodes)
    return Document(
        title=f"Rules of {name}",
        headline=f"{name}: {counted(len(report.findings), 'finding')} on {counted(nodes, 'node')}",
        counts=(
            number_of(len(report.findings), "finding"),
            (str(len(report.rows)), "addresses"),
            number_of(nodes, "node"),
        ),
        cards=tuple(map(card_of, report.findings)),
        nothing=_nothing(report, target),
        tables=(text_table("What is programmed", of_rules.COLUMNS, report.rows),) if report.rows else (),
        notes=tuple(f"not checked: {item.what}: {item.reason}" for item in report.not_checked),
    )


def _nothing(report: RulesReport, target: str) -> str:
    """What is said where there is no finding."""
    if not report.rows:
        return of_rules.nothing_programmed(report, target)
    if not report.compared:
        return "The rules were not compared with anything: there was no API to read."
    return "The rules are what the API says" + (", where they were compared." if report.not_checked else ".")
