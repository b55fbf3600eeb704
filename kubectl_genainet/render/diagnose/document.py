"""A diagnosis as a document."""

from __future__ import annotations

from kubectl_genainet.model.results.diagnosis import Cause, Conclusion
from kubectl_genainet.render.diagnose.words import STATE_WORDS, also_felt, headline, the_same_in, who
from kubectl_genainet.render.document.model import Card, Document, TextTable, hops, way


def document(conclusion: Conclusion) -> Document:
    lost = "?" if conclusion.lost is None else str(conclusion.lost)
    counts = (
        (len(conclusion.causes), "cause" if len(conclusion.causes) == 1 else "causes"),
        (conclusion.connections, "connections"),
        ("?" if conclusion.queries is None else conclusion.queries, "DNS queries"),
        (len(conclusion.nodes), "nodes"),
        (lost, "events lost"),
    )
    checked = tuple((item.what, STATE_WORDS[item.state], item.why) for item in conclusion.checked)
    callers = tuple((name, str(number)) for name, number in conclusion.callers.items())
    return Document(
        title=f"Diagnosis of {conclusion.target}",
        headline=headline(conclusion),
        counts=tuple((str(number), what) for number, what in counts),
        cards=tuple(map(_card, conclusion.causes)),
        nothing="No cause was found.",
        timeline=conclusion.timeline,
        seconds=conclusion.seconds,
        tables=(
            TextTable("What was checked", ("what", "result", "why"), checked),
            TextTable("Who calls it", ("caller", "connections seen"), callers),
        ),
        notes=conclusion.notes,
        commands=conclusion.next,
    )


def _card(cause: Cause) -> Card:
    path = cause.example
    return Card(
        cause.title,
        cause.severity,
        cause.check,
        who(cause),
        cause.evidence,
        (*((the_same_in(cause),) if cause.elsewhere else ()), *map(also_felt, cause.symptoms)),
        tuple(way(path)) if path is not None else (),
        tuple(hops(path)) if path is not None else (),
        cause.timeline,
        cause.remedy,
    )
