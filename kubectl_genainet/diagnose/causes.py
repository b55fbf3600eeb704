"""Felt things folded to causes: one cause a key, symptoms under the cause that explains them, the worst first."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from kubectl_genainet.diagnose.felt import Felt
from kubectl_genainet.model.diagnoses import DIAGNOSES, Suspect, suspects_of
from kubectl_genainet.model.finding import Evidence, Remedy, Severity
from kubectl_genainet.model.results.diagnosis import Cause, Symptom
from kubectl_genainet.model.results.path import PacketPath

# What differs where the same is said of another pod, rule or node: addresses, hashes, the endings of pods' names.
_PARTICULAR = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\b[0-9A-F]{8,}\b|-[a-z0-9]{6,10}-[a-z0-9]{5}\b|(?<=device )[\w.-]+|\b\d+\b"
)
MAX_CAUSES = 500
MAX_EVIDENCE = 8
# Units of what users feel, most telling first.
_UNITS = ("connections", "queries", "packets", "findings")


@dataclass(slots=True)
class Gathered:
    """All that was felt with one key."""

    key: tuple[str, ...]
    check: str
    title: str
    severity: Severity
    pairs: set[tuple[str, str]] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    evidence: dict[str, Evidence] = field(default_factory=dict)
    remedy: Remedy | None = None
    dns: bool = False
    first_s: float | None = None
    last_s: float | None = None
    folded: list[Gathered] = field(default_factory=list)
    timeline: Counter[int] = field(default_factory=Counter)
    example: PacketPath | None = None

    @property
    def unit(self) -> str:
        return next((unit for unit in _UNITS if self.counts[unit]), "findings")


class Gathering:
    """Takes in what was felt as it comes. `forgotten` counts what found no room."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, ...], Gathered] = {}
        self.forgotten = 0

    def add(self, felt: Felt, at_s: float | None = None) -> None:
        """Takes in one; `at_s` is the second of the watch at which it was seen, where that is known."""
        found = self._by_key.get(felt.key)
        if found is None:
            if len(self._by_key) >= MAX_CAUSES:
                self.forgotten += 1
                return
            found = self._by_key[felt.key] = Gathered(felt.key, felt.check, felt.title, felt.severity)
        if _is_symptom(found.check) and not _is_symptom(felt.check):
            found.check, found.title = felt.check, felt.title  # the more telling name
        if felt.severity.rank > found.severity.rank:
            found.severity = felt.severity
        found.pairs |= felt.pairs
        found.places.add(felt.place)
        found.counts[felt.unit] += felt.count
        for evidence in felt.evidence:
            if len(found.evidence) < MAX_EVIDENCE:
                found.evidence.setdefault(_shape(evidence), evidence)
        found.remedy = found.remedy or felt.remedy
        found.dns = found.dns or felt.dns
        found.example = found.example or felt.path
        if at_s is not None:
            if felt.unit == "connections":
                found.timeline[int(at_s)] += felt.count
            found.first_s = at_s if found.first_s is None else min(found.first_s, at_s)
            found.last_s = at_s if found.last_s is None else max(found.last_s, at_s)

    def causes(self) -> tuple[Cause, ...]:
        """Each cause once, its consequences folded in, the worst and most felt first."""
        everything = sorted(self._by_key.values(), key=_rank)
        for gathered in everything:
            gathered.folded = []
        kept: list[Gathered] = []
        for gathered in everything:  # roots come first, so a consequence finds the cause that it follows from
            owner = next((root for root in kept if _explains(root, gathered)), None)
            if owner is None:
                kept.append(gathered)
            else:
                owner.folded.append(gathered)
        return tuple(_cause(g) for g in kept)


def _explains(root: Gathered, other: Gathered) -> bool:
    """Whether `other` is only another sight of the root's fault."""
    if _is_symptom(other.check) and not _is_symptom(root.check):
        of_one_kind = root.dns == other.dns or Suspect.CONNTRACK in suspects_of(root.check)
        return of_one_kind and (_share_a_flow(root, other) or bool(root.places & other.places))
    followed = DIAGNOSES.get(other.check)
    if followed is not None and root.check in followed.follows:
        return _share_a_flow(root, other)
    named = ("policies", "rule")  # what decided is known, and is another for each
    if root.check == other.check and root.key[0] not in named and other.key[0] not in named:
        return _share_a_flow(root, other) or bool(root.places & other.places)
    return False


def _is_symptom(check: str) -> bool:
    """Whether it shows that packets were lost or refused, and not why."""
    diagnosis = DIAGNOSES.get(check)
    return diagnosis is not None and diagnosis.symptom


def _share_a_flow(a: Gathered, b: Gathered) -> bool:
    """Whether both hit the same client and server; "?" is any."""
    return any(
        (c == d or "?" in (c, d)) and (s == t or "?" in (s, t))
        for c, s in a.pairs
        for d, t in b.pairs
        if (c, s) != ("?", "?")
    )


def _shape(evidence: Evidence) -> str:
    """Two statements of the same shape say the same of two pods, rules or nodes: one of them is enough."""
    statement = evidence.statement.replace(evidence.node, "*") if evidence.node else evidence.statement
    return _PARTICULAR.sub("*", statement)


def _rank(gathered: Gathered) -> tuple[bool, int, int, str]:
    felt = gathered.counts["connections"] + gathered.counts["queries"] or gathered.counts["packets"]
    return (_is_symptom(gathered.check), -gathered.severity.rank, -felt, gathered.title)


def _cause(gathered: Gathered) -> Cause:
    unit = gathered.unit
    by_shape = dict(gathered.evidence)
    for folded in gathered.folded:
        by_shape = by_shape | {shape: one for shape, one in folded.evidence.items() if shape not in by_shape}
    evidence = list(by_shape.values())
    pairs = set(gathered.pairs).union(*(f.pairs for f in gathered.folded)) if gathered.folded else gathered.pairs
    symptoms = tuple(Symptom(f.check, f.title, f.counts[f.unit], f.unit) for f in sorted(gathered.folded, key=_rank))
    times = [g for g in (gathered, *gathered.folded) if g.first_s is not None]
    return Cause(
        check=gathered.check,
        title=gathered.title,
        severity=gathered.severity,
        clients=tuple(sorted({client for client, _ in pairs if client != "?"})),
        backends=tuple(sorted({server for _, server in pairs if server != "?"})),
        nodes=tuple(sorted({e.node for e in evidence if e.node})),
        count=gathered.counts[unit],
        unit=unit,
        first_s=min((g.first_s for g in times if g.first_s is not None), default=None),
        last_s=max((g.last_s for g in times if g.last_s is not None), default=None),
        evidence=tuple(evidence[:MAX_EVIDENCE]),
        remedy=gathered.remedy or next((f.remedy for f in gathered.folded if f.remedy), None),
        symptoms=symptoms,
        timeline=dict(sorted(gathered.timeline.items())),
        example=gathered.example or next((f.example for f in gathered.folded if f.example), None),
    )
