"""Felt things folded to causes: one cause a key, symptoms under the cause that explains them, the worst first."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache

from kubectl_genainet.diagnose.felt import LOOKUPS, LOOKUPS_FAIL, PASSED, Felt
from kubectl_genainet.model.diagnoses import DIAGNOSES, Suspect, suspects_of
from kubectl_genainet.model.finding import Evidence, Remedy, Severity
from kubectl_genainet.model.results.diagnosis import Cause, Symptom
from kubectl_genainet.model.results.path import PacketPath

# What differs where the same is said of another pod, rule or node: addresses, hashes, the endings of pods' names.
_PARTICULAR = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\b[0-9A-F]{8,}\b|-[a-z0-9]{6,10}-[a-z0-9]{5}\b"
    r"|(?<=device )[\w.-]+|(?<=seen on )[\w.-]+|\b\d+\b"
)
# What differs in the titles of two pods or nodes with one fault, besides their names: not a port, which makes another fault.
_MEASURED = re.compile(r"-[a-z0-9]{6,10}-[a-z0-9]{5}\b|\b\d+ bytes\b")
MAX_CAUSES = 500
MAX_EVIDENCE = 8
# Units of what users feel, most telling first.
_UNITS = ("connections", PASSED, "queries", LOOKUPS, "packets", "findings")


@dataclass(slots=True)
class Gathered:
    """All that was felt with one key."""

    key: tuple[str, ...]
    check: str
    title: str
    severity: Severity
    pairs: set[tuple[str, str]] = field(default_factory=set)
    called: set[tuple[str, str]] = field(default_factory=set)
    # By Service ("namespace/name"): its backends that were hit, so that a Service is not named beside them.
    behind: dict[str, set[str]] = field(default_factory=dict)
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
        return _telling_unit(self.counts)

    def add(self, felt: Felt, at_s: float | None) -> None:
        if _is_symptom(self.check) and not _is_symptom(felt.check):
            self.check, self.title = felt.check, felt.title  # the more telling name
        if not felt.dns and self.title.startswith(LOOKUPS_FAIL) and felt.check == self.check:
            self.title = felt.title  # lookups are not all that it hit
        if felt.severity.rank > self.severity.rank:
            self.severity = felt.severity
            if felt.check == self.check:
                self.title = felt.title  # the worst is what it is named by
        self.pairs |= felt.pairs
        self.called |= felt.called
        for _, service in felt.called:
            self.behind.setdefault(service, set()).update(server for _, server in felt.pairs if server != service)
        self.places.add(felt.place)
        self.counts[felt.unit] += felt.count
        for evidence in felt.evidence:
            if len(self.evidence) < MAX_EVIDENCE:
                self.evidence.setdefault(_shape(evidence), evidence)
        self.remedy = self.remedy or felt.remedy
        self.dns = self.dns or felt.dns
        self.example = self.example or felt.path
        if at_s is not None:
            if felt.unit == "connections":
                self.timeline[int(at_s)] += felt.count
            self.first_s = at_s if self.first_s is None else min(self.first_s, at_s)
            self.last_s = at_s if self.last_s is None else max(self.last_s, at_s)

    def _title_anywhere(self) -> str:
        title = self.title
        for place in self.places:
            title = title.replace(place.removeprefix("node "), "*")
        return _MEASURED.sub("*", title)

    def is_same_as(self, other: Gathered) -> bool:
        """Whether both say the same, of two pods or nodes, one of them perhaps in more words."""
        if self.check != other.check or self.title in self.places:  # a place that its finding did not name
            return False
        mine, others = self._title_anywhere(), other._title_anywhere()
        return mine.startswith(others) or others.startswith(mine)


class Gathering:
    """Takes in what was felt as it comes. `forgotten` counts what found no room."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, ...], Gathered] = {}
        self.forgotten = 0

    def add(self, felt: Felt, at_s: float | None = None) -> None:
        """Takes in one; `at_s` is the second of the watch at which it was seen, where that is known."""
        gathered = self._by_key.get(felt.key)
        if gathered is None:
            if len(self._by_key) >= MAX_CAUSES:
                self.forgotten += 1
                return
            gathered = self._by_key[felt.key] = Gathered(felt.key, felt.check, felt.title, felt.severity)
        gathered.add(felt, at_s)

    def causes(self) -> tuple[Cause, ...]:
        """Each cause once, its consequences folded in, the worst and most felt first."""
        for gathered in self._by_key.values():
            gathered.folded = []
        kept: list[Gathered] = []
        # Causes come before what follows from them, which finds them then.
        for gathered in sorted(self._by_key.values(), key=lambda g: (_depth(g), *_rank(g))):
            owner = _owner(kept, gathered)
            if owner is None:
                kept.append(gathered)
            else:
                owner.folded.append(gathered)
        kept.sort(key=lambda root: (_is_no_fault(root), *_rank(root)))
        return tuple(_cause(g) for g in kept)


def _owner(roots: list[Gathered], other: Gathered) -> Gathered | None:
    """The root that explains it: rather one of a kind that it is known to follow from than the worst."""
    owners = [root for root in roots if _explains_or_folded(root, other)]
    diagnosis = DIAGNOSES.get(other.check)
    follows: frozenset[str] = diagnosis.follows if diagnosis is not None else frozenset()
    known = (
        root
        for root in owners
        if any(member.check in follows and _explains(member, other) for member in (root, *root.folded))
    )
    return min(known, key=_rank, default=min(owners, key=_rank, default=None))


def _explains_or_folded(root: Gathered, other: Gathered) -> bool:
    """Whether the root explains it, or something that follows from the root does."""
    return any(_explains(cause, other) for cause in (root, *root.folded))


def _explains(root: Gathered, other: Gathered) -> bool:
    """Whether `other` is only another sight of the root's fault."""
    if root.severity is Severity.INFO and other.severity is not Severity.INFO:
        return False  # what is no fault has no faults that follow
    if _lets_pass(root.check) and root.check != other.check:
        return False  # it loses and delays nothing
    if _is_symptom(other.check) and not _is_symptom(root.check):
        of_one_kind = root.dns == other.dns or Suspect.CONNTRACK in suspects_of(root.check)
        return of_one_kind and (_share_a_flow(root, other) or bool(root.places & other.places))
    followed = DIAGNOSES.get(other.check)
    if followed is not None and root.check in followed.follows:
        return _share_a_flow(root, other) or (not other.pairs and bool(root.places & other.places))
    if followed is not None and followed.downstream and root.severity is Severity.ERROR and _calls(other, root):
        return True
    named = ("policies", "rule")  # what decided is known, and is another for each
    if root.check == other.check and root.key[0] not in named and other.key[0] not in named:
        return _share_a_flow(root, other) or bool(root.places & other.places)
    return False


def _calls(other: Gathered, root: Gathered) -> bool:
    """Whether a server of the one is a client that the root hit."""
    return bool({server for _, server in other.pairs} & {client for client, _ in root.pairs if client != "?"})


def _is_symptom(check: str) -> bool:
    """Whether it shows that packets were lost or refused, and not why."""
    diagnosis = DIAGNOSES.get(check)
    return diagnosis is not None and diagnosis.symptom


def _lets_pass(check: str) -> bool:
    """Whether what is wrong is that packets pass."""
    diagnosis = DIAGNOSES.get(check)
    return diagnosis is not None and diagnosis.lets_pass


def _share_a_flow(a: Gathered, b: Gathered) -> bool:
    """Whether both hit the same client, and the same server or Service; "?" is any."""
    return any(
        (client == other_client or "?" in (client, other_client)) and (server == other or "?" in (server, other))
        for client, server in a.pairs | a.called
        for other_client, other in b.pairs | b.called
        if (client, server) != ("?", "?")
    )


def _shape(evidence: Evidence) -> str:
    """Two statements of the same shape say the same of two pods, rules or nodes: one of them is enough."""
    statement = evidence.statement.replace(evidence.node, "*") if evidence.node else evidence.statement
    return _PARTICULAR.sub("*", statement)


def _is_no_fault(root: Gathered) -> bool:
    return all(member.severity is Severity.INFO for member in (root, *root.folded))


def _depth(gathered: Gathered) -> int:
    """How many kinds it may follow from, one from another; what only shows that packets were lost may follow from any."""
    return len(DIAGNOSES) if _is_symptom(gathered.check) else _depth_of(gathered.check)


@cache
def _depth_of(check: str) -> int:
    diagnosis = DIAGNOSES.get(check)
    return (
        max((1 + _depth_of(cause) for cause in diagnosis.follows - {check}), default=0) if diagnosis is not None else 0
    )


def _rank(gathered: Gathered) -> tuple[bool, int, int, str]:
    felt = gathered.counts["connections"] + gathered.counts["queries"] or gathered.counts["packets"]
    return (_is_symptom(gathered.check), -gathered.severity.rank, -felt, gathered.title)


def _cause(gathered: Gathered) -> Cause:
    everything = (gathered, *gathered.folded)
    by_shape: dict[str, Evidence] = {}
    for member in everything:
        for shape, statement in member.evidence.items():
            by_shape.setdefault(shape, statement)
    evidence = list(by_shape.values())
    pairs: set[tuple[str, str]] = set().union(*(member.pairs for member in everything))
    elsewhere = [folded for folded in gathered.folded if folded.is_same_as(gathered)]
    symptoms = sorted((folded for folded in gathered.folded if folded not in elsewhere), key=_rank)
    counts = sum((member.counts for member in elsewhere), gathered.counts)
    unit = _telling_unit(counts)
    timeline = sum((member.timeline for member in elsewhere), gathered.timeline)
    times = [member for member in everything if member.first_s is not None]
    return Cause(
        check=gathered.check,
        title=gathered.title,
        severity=gathered.severity,
        clients=tuple(sorted({client for client, _ in pairs if client != "?"})),
        backends=_backends(everything),
        nodes=tuple(sorted({e.node for e in evidence if e.node})),
        count=counts[unit],
        unit=unit,
        first_s=min((g.first_s for g in times if g.first_s is not None), default=None),
        last_s=max((g.last_s for g in times if g.last_s is not None), default=None),
        evidence=tuple(evidence[:MAX_EVIDENCE]),
        remedy=next((member.remedy for member in everything if member.remedy), None) or _usual_remedy(gathered.check),
        elsewhere=tuple(sorted(set().union(*(member.places for member in elsewhere)) - gathered.places)),
        symptoms=tuple(
            Symptom(member.check, member.title, member.counts[member.unit], member.unit) for member in symptoms
        ),
        timeline=dict(sorted(timeline.items())),
        example=next((member.example for member in everything if member.example), None),
    )


def _backends(everything: tuple[Gathered, ...]) -> tuple[str, ...]:
    """Whom packets were for, each by one name: a Service stands for its backends only where none of them is known."""
    servers = {server for gathered in everything for _, server in gathered.pairs if server != "?"}
    behind: dict[str, set[str]] = defaultdict(set)
    for gathered in everything:
        for service, backends in gathered.behind.items():
            behind[service] |= backends
    return tuple(sorted(server for server in servers if not behind[server] & servers))


def _telling_unit(counts: Counter[str]) -> str:
    return next((unit for unit in _UNITS if counts[unit]), "findings")


def _usual_remedy(check: str) -> Remedy | None:
    """What to do about a fault of that kind, where nothing was found that is to be done about this one."""
    diagnosis = DIAGNOSES.get(check)
    return Remedy(diagnosis.todo) if diagnosis is not None and not diagnosis.todo.startswith("Nothing") else None
