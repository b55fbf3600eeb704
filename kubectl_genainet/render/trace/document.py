"""A trace as a document: a card for each group that failed or is otherwise wrong, then the backends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_genainet.model.finding import Severity, counted, listed
from kubectl_genainet.model.results.diagnosis import Activity
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.model.results.trace import TraceSummary
from kubectl_genainet.render.document.model import Card, Document, card_of, hops, text_table, way
from kubectl_genainet.render.text import moment
from kubectl_genainet.render.trace.summary import BACKEND_COLUMNS, TOTALS_COLUMNS, account
from kubectl_genainet.trace.shown.groups import Group, service_name


def document(
    groups: Sequence[Group], total: int, summary: TraceSummary, timeline: Activity | None = None, seconds: float = 0.0
) -> Document:
    failed = sum(group.count for group in groups if group.failed)
    cards = [_card(group, total) for group in groups if group.wrong]
    told_in_groups = {finding.check for group in groups for finding in group.example.findings}
    cards += [card_of(finding) for finding in summary.findings if finding.check not in told_in_groups]
    return Document(
        title=f"Trace of {summary.target}",
        headline=f"{summary.target}: {failed} of {counted(total, 'connection')} failed",
        counts=((str(failed), "failed"), (str(total), "connections"), (str(len(summary.nodes)), "nodes")),
        cards=tuple(cards),
        nothing="All connections that were seen arrived." if total else "No new connection was seen.",
        timeline=timeline,
        seconds=seconds,
        tables=(
            text_table("Backends", BACKEND_COLUMNS, summary.backends),
            text_table("All TCP connections, counted in the kernel", TOTALS_COLUMNS, summary.totals or ()),
        ),
        notes=(account(summary),),
    )


def _card(group: Group, total: int) -> Card:
    path, drop = group.example, group.example.drop
    title = next(_titles(group), f"{group.verdict.value} connections")
    severity = Severity.ERROR if group.failed else _worst(path)
    evidence = tuple(item for finding in path.findings for item in finding.evidence)
    remedies = [drop.remedy if drop is not None else None, *(finding.remedy for finding in path.findings)]
    return Card(
        title,
        severity,
        drop.check
        if drop is not None and drop.check
        else path.findings[0].check
        if path.findings
        else group.verdict.value,
        _who(group, total),
        (*(drop.evidence if drop is not None else ()), *evidence),
        way=tuple(way(path)),
        hops=tuple(hops(path)),
        remedy=next((remedy for remedy in remedies if remedy is not None), None),
    )


def _worst(path: PacketPath) -> Severity:
    return max((finding.severity for finding in path.findings), key=lambda s: s.rank, default=Severity.WARNING)


def _titles(group: Group) -> Iterator[str]:
    drop = group.example.drop
    if drop is not None:
        yield drop.explanation or f"{drop.reason} on {drop.pod or drop.node}"
    yield from (finding.title for finding in group.example.findings)


def _who(group: Group, total: int) -> str:
    ends = " → ".join(
        part for part in (", ".join(group.clients), service_name(group.service), group.backend or "no backend") if part
    )
    when = f"; {moment(group.first)} to {moment(group.last)}" if group.first else ""
    elsewhere = dict.fromkeys(name for finding in group.example.findings for name in group.elsewhere(finding))
    same = f"; the same in {listed(tuple(elsewhere))}" if elsewhere else ""
    return f"{ends}; {group.count} of {counted(total, 'connection')} {group.verdict.value}{when}{same}"
