"""A document: what was found, as cards with their evidence; when it happened; tables; what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kubectl_genainet.model.finding import Evidence, Finding, Remedy, Severity, counted
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.diagnosis import Activity
from kubectl_genainet.model.results.path import PacketPath, Party
from kubectl_genainet.render.table import EMPTY, Column
from kubectl_genainet.render.text import duration
from kubectl_genainet.trace.shown.groups import FAILED

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PathBox:
    """A box of the way: client, Service, rule, backend, end."""

    kind: str
    name: str
    detail: str = ""
    css: str = ""


@dataclass(frozen=True, slots=True)
class HopRow:
    place: str
    device: str
    point: str
    after: str
    to: str


@dataclass(frozen=True, slots=True)
class Card:
    """Something that was found: what, whom it hits, how it is known, and what to do."""

    title: str
    severity: Severity
    check: str
    who: str = ""
    evidence: tuple[Evidence, ...] = ()
    also: tuple[str, ...] = ()
    way: tuple[PathBox, ...] = ()
    hops: tuple[HopRow, ...] = ()
    failed_at: dict[int, int] | None = None  # second of the watch -> how many
    remedy: Remedy | None = None


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table: titles, and rows of cells."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Document:
    """`counts` are (number, what is counted) below the headline; `nothing` is said where there is no card."""

    title: str
    headline: str
    counts: tuple[tuple[str, str], ...] = ()
    cards: tuple[Card, ...] = ()
    nothing: str = "Nothing wrong was found."
    timeline: Activity | None = None
    seconds: float = 0.0
    tables: tuple[TextTable, ...] = ()
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def text_table(title: str, columns: Sequence[Column[T]], rows: Iterable[T]) -> TextTable:
    """The rows by columns that are declared elsewhere; columns without anything in them are left out."""
    kept = list(rows)
    telling = [c for c in columns if any(c.cell(row) not in EMPTY for row in kept)]
    return TextTable(title, tuple(c.title for c in telling), tuple(tuple(c.cell(row) for c in telling) for row in kept))


def number_of(count: int, noun: str) -> tuple[str, str]:
    """A count and its noun, for the counts of a document."""
    number, _, text = counted(count, noun).partition(" ")
    return number, text


def card_of(finding: Finding) -> Card:
    """A finding as a card."""
    about = str(finding.object) if finding.object is not None else ""
    return Card(finding.title, finding.severity, finding.check, about, finding.evidence, remedy=finding.remedy)


def way(path: PacketPath) -> Iterator[PathBox]:
    """The picture of a path: client → Service → rule → backend, and where it ended."""
    client, service = path.flow.client, path.flow.service
    yield PathBox("client", client.pod or client.ip, _on(client))
    if service is not None:
        yield PathBox("Service", f"{service.namespace}/{service.name}", address_text(service.ip, service.port))
    if path.nat is not None:
        chains = " → ".join(c for c in (path.nat.service_chain, path.nat.endpoint_chain) if c)
        yield PathBox("rule", chains or path.nat.mode, path.nat.certainty.value)
    if path.backend is not None:
        yield PathBox("backend", path.backend.pod or path.backend.ip, _on(path.backend))
    drop = path.drop
    if drop is not None:
        where = drop.pod or f"node {drop.node}"
        hook = f" in {drop.hook}" if drop.hook else ""
        yield PathBox(path.verdict.value, f"{drop.reason}{hook}", f"on {where}", "end-bad")
    else:
        css = "end-bad" if path.verdict in FAILED else "end-good"
        yield PathBox("verdict", path.verdict.value, path.findings[0].title if path.findings else "", css)


def _on(party: Party) -> str:
    return f"on {party.node}" if party.node else address_text(party.ip, party.port)


def hops(path: PacketPath) -> Iterator[HopRow]:
    """Where its first packet was seen, with the time since the place before."""
    before: int | None = None
    for hop in path.hops:
        after = "" if before is None or hop.t_error_ns is None else f"+{duration(hop.t_ns - before)}"
        yield HopRow(hop.pod or hop.node, hop.device, hop.point, after, hop.dst)
        before = hop.t_ns if hop.t_error_ns is not None else None
