"""What `dns` found, as a document."""

from __future__ import annotations

from kubectl_genainet.model.finding import counted
from kubectl_genainet.model.results.diagnosis import Activity
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.render.dns import table as of_dns
from kubectl_genainet.render.document.model import Document, card_of, number_of, text_table

NAMES = 100  # of a table


def dns_document(summary: DnsSummary, timeline: Activity | None = None, seconds: float = 0.0) -> Document:
    queries = summary.queries
    return Document(
        title=f"DNS of {summary.target}",
        headline=f"{summary.target}: {counted(len(summary.findings), 'finding')}; {queries.queries} queries, "
        f"{queries.timeouts} without an answer, {queries.failed} failed",
        counts=(
            number_of(len(summary.findings), "finding"),
            (str(queries.queries), "queries"),
            (str(queries.timeouts), "without an answer"),
            (str(len(summary.nodes)), "nodes"),
        ),
        cards=tuple(map(card_of, summary.findings)),
        nothing="All queries were answered in time." if queries.queries else "No query was seen.",
        timeline=timeline,
        seconds=seconds,
        tables=(
            text_table("Clients", of_dns.CLIENT_COLUMNS, summary.clients),
            text_table("Names", of_dns.NAME_COLUMNS, summary.names[:NAMES]),
            text_table("Servers", of_dns.SERVER_COLUMNS, summary.servers),
        ),
        notes=(of_dns.account(summary),),
    )
