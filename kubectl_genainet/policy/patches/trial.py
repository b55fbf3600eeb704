"""An option is tried before it is offered: applied to the compiled policies, and the flows that it changes are judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import Direction, PolicyEndpoint, PolicyFlow, PolicyVerdict
from kubectl_genainet.policy.patches.added import AddedLabel
from kubectl_genainet.policy.reach.classes import NOBODY
from kubectl_genainet.policy.reach.rows import MatrixRows, bits, looks_at_own
from kubectl_genainet.policy.rules import Policy


class PolicyChange(msgspec.Struct, frozen=True):
    """One object to apply: an existing policy with `what` changed, or a new policy.

    `file` is where an existing one was read, `keeper` what writes it again (origin.py); each may be empty.
    """

    ref: ObjectRef
    is_new: bool
    what: str
    object: dict[str, Any]
    file: str = ""
    keeper: str = ""


class PatchOption(msgspec.Struct, frozen=True):
    """Objects that together admit the flow. `also_admits` are the other flows (source, destination) on its port.

    `isolates` are pods that were open and are not any more: the rest of what they receive or send stops. `labels` have to be
    added to pods first, since all of theirs change with a release.
    """

    changes: tuple[PolicyChange, ...]
    also_admits: tuple[tuple[str, str], ...]
    isolates: tuple[str, ...] = ()
    labels: tuple[AddedLabel, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether something undoes a part of it with its next release."""
        return any(change.keeper for change in self.changes)


@dataclass(frozen=True, slots=True)
class Trial:
    """Changes that admit a flow, and what they do besides. The pairs are listed only for the option that is chosen."""

    changes: tuple[PolicyChange, ...]
    admits: int
    isolates: tuple[str, ...]
    _effect: _Effect
    _products: list[_Product]
    _outside: tuple[tuple[str, str], ...]

    def option(self) -> PatchOption:
        own = self._effect.own_pair
        pairs = dict.fromkeys((*self._effect.listed(self._products), *self._outside))
        pairs.pop(own, None)
        return PatchOption(self.changes, tuple(pairs), self.isolates)


def tried(
    engine: PolicyEngine, flow: PolicyFlow, changes: Sequence[PolicyChange], *, at_most: int | None = None
) -> Trial | None:
    """The trial of these changes, if they admit the flow and stop no other on its port; None otherwise, and where they
    admit more than `at_most` other flows."""
    try:
        changed = engine.with_changes([KubeObject(c.object) for c in changes])
    except InputError:
        return None
    if changed is None or changed.engine.explain(flow).verdict is not PolicyVerdict.ALLOW:
        return None
    effect = _Effect(engine, changed.engine, changed.removed, changed.added, flow)
    own = 1 if effect.between_pods else 0
    products = effect.gained(None if at_most is None else at_most + own)
    if products is None:
        return None
    admits = effect.count(products) - own
    outside = tuple(p for p in effect.outside() if p != effect.own_pair)
    return Trial(tuple(changes), admits + len(outside), effect.isolated(), effect, products, outside)


class _Product(NamedTuple):
    """Every pair of a source and a destination out of two sets of classes."""

    sources: int
    destinations: int


ClassRow = tuple[int, int]  # the classes that may be allowed, and those that may be denied


class _Effect:
    """What changed policies do to flows on one port, beside the policies before.

    Classes are compared in sets: those with the same rows before and after the change are judged at once.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        changed: PolicyEngine,
        removed: Sequence[Policy],
        added: Sequence[Policy],
        flow: PolicyFlow,
    ) -> None:
        self.before, self.after = engine, changed
        self.removed, self.added, self.flow = removed, added, flow
        self.own_pair = (str(flow.source), str(flow.destination))
        self.rows: MatrixRows = engine.rows
        self.classes = engine.rows.classes
        ends = [self.classes.of_pod.get((end.namespace, end.name)) for end in (flow.source, flow.destination)]
        self.between_pods = None not in ends
        self._subjects = {d: self._selected((*removed, *added), d) for d in Direction}
        self._isolated = {d: self._newly_isolated(d) for d in Direction}
        self._looks_at_own = {d: any(looks_at_own(p, d) for p in (*removed, *added)) for d in Direction}
        self._changed = {d: self._changed_groups(d) for d in Direction}

    def _selected(self, policies: Sequence[Policy], direction: Direction) -> int:
        selected = 0
        for policy in policies:
            if policy.applies(direction):
                sure, unsure = self.classes.peer(policy.subject, NOBODY)
                selected |= sure | unsure
        return selected & self.classes.pods

    def isolated(self) -> tuple[str, ...]:
        """The pods that a changed policy isolates and none did."""
        newly = self._isolated[Direction.EGRESS] | self._isolated[Direction.INGRESS]
        return tuple("/".join(pod) for i in bits(newly) for pod in self.classes.classes[i].pods)

    def _newly_isolated(self, direction: Direction) -> int:
        isolating = [p for p in self.added if p.isolates(direction)]
        return self._selected(isolating, direction) & ~self.rows.isolated(direction) if isolating else 0

    def _changed_groups(self, direction: Direction) -> dict[tuple[ClassRow, ClassRow], int]:
        """The classes that the changed policies select in a direction, by their rows before and after."""
        groups: dict[tuple[ClassRow, ClassRow], int] = {}
        for indices in self._treated_alike(direction).values():
            rows = self._row(indices[0], direction), self._new_row(indices[0], direction)
            groups[rows] = groups.get(rows, 0) | sum(1 << index for index in indices)
        return groups

    def _treated_alike(self, direction: Direction) -> dict[object, list[int]]:
        """The classes that the change selects, those together of which all policies say the same before and after it."""
        subjects = [self._selected((policy,), direction) for policy in (*self.removed, *self.added)]
        groups: dict[object, list[int]] = {}
        for index in bits(self._subjects[direction]):
            selected = tuple(subject >> index & 1 for subject in subjects)
            party = self.classes.classes[index].party
            ports = party.ports if direction is Direction.INGRESS else ()
            own = party.text if self._looks_at_own[direction] else ""
            key = self.rows.treated_alike(index, direction), selected, ports, own
            groups.setdefault(key, []).append(index)
        return groups

    def _row(self, index: int, direction: Direction) -> ClassRow:
        return self.rows.row(index, direction, self.flow.protocol, self.flow.port)

    def _new_row(self, index: int, direction: Direction) -> ClassRow:
        return self.rows.row_with(
            index, direction, self.flow.protocol, self.flow.port, removed=self.removed, added=self.added
        )

    def gained(self, at_most: int | None) -> list[_Product] | None:
        """The pairs between which flows pass or may pass that did not; no pair is in two products.

        None where one is stopped, other than by isolating a pod that was open, and where there are more than `at_most`.
        """
        products: list[_Product] = []
        for direction in Direction:
            for (before, after), alike in self._changed[direction].items():
                for (old, new), others in self._at_the_other_end(direction, _different(before, after)):
                    mine = alike & (old[0] | new[0])  # the other end lets nothing else pass, before or after
                    if direction is Direction.INGRESS:  # the first direction has judged pairs whose ends both change
                        mine &= ~_different(old, new)
                    if mine and not self._compare(direction, mine, (before, after), others, (old, new), products):
                        return None
            if at_most is not None and self.count(products) > at_most:
                return None
        return products

    def _at_the_other_end(self, direction: Direction, wanted: int) -> Iterator[tuple[tuple[ClassRow, ClassRow], int]]:
        """Those of the wanted classes that have the same rows in the other direction, with these rows."""
        back = Direction.INGRESS if direction is Direction.EGRESS else Direction.EGRESS
        unchanged = wanted & ~self._subjects[back]
        if unchanged.bit_count() <= _FEW:
            for index in bits(unchanged):
                row = self._row(index, back)
                yield (row, row), 1 << index
        else:
            for row, members in self.rows.alike(back, self.flow.protocol, self.flow.port).items():
                if members & unchanged:
                    yield (row, row), members & unchanged
        for rows, members in self._changed[back].items():
            if members & wanted:
                yield rows, members & wanted

    def _compare(
        self,
        direction: Direction,
        mine: int,
        rows: tuple[ClassRow, ClassRow],
        others: int,
        other_rows: tuple[ClassRow, ClassRow],
        gained: list[_Product],
    ) -> bool:
        """Notes the pairs that are gained between two sets of classes with the same rows; False where one is stopped."""
        back = Direction.INGRESS if direction is Direction.EGRESS else Direction.EGRESS
        for to, theirs in _parts(others, rows):
            for of, own_rows in _parts(mine, other_rows):
                was, now = _verdict(to[:2], of[:2]), _verdict(to[2:], of[2:])
                if was is PolicyVerdict.ALLOW and now is not PolicyVerdict.ALLOW:
                    open_ends = own_rows & ~self._isolated[direction], theirs & ~self._isolated[back]
                    if all(open_ends) and not self._one_pod(*open_ends):
                        return False
                elif now is not was and (now is PolicyVerdict.ALLOW or was is PolicyVerdict.DENY):
                    egress = direction is Direction.EGRESS
                    gained.append(_Product(own_rows, theirs) if egress else _Product(theirs, own_rows))
        return True

    def _one_pod(self, first: int, second: int) -> bool:
        """Whether both sets are the one class of the one pod: there is no pair."""
        return first == second and first.bit_count() == 1 and self.classes.size(first) == 1

    def count(self, products: Sequence[_Product]) -> int:
        """How many pairs of two different pods there are."""
        size = self.classes.size
        return sum(size(p.sources) * size(p.destinations) - size(p.sources & p.destinations) for p in products)

    def listed(self, products: Sequence[_Product]) -> Iterator[tuple[str, str]]:
        classes = self.classes.classes
        pairs = sorted((a, b) for p in products for a in bits(p.sources) for b in bits(p.destinations))
        for source, destination in pairs:
            pods = classes[source].pods, classes[destination].pods
            yield from (("/".join(a), "/".join(b)) for a in pods[0] for b in pods[1] if a != b)

    def outside(self) -> Iterator[tuple[str, str]]:
        """What else is admitted from or to the address or name of the flow, where one end is not a pod."""
        flow = self.flow
        source, destination = self.before.ends(flow)
        for party, end, is_source in ((source, flow.source, True), (destination, flow.destination, False)):
            if end.name and party.kind is PartyKind.POD:
                continue
            direction = Direction.INGRESS if is_source else Direction.EGRESS
            for group in self._pods_alike(direction, party.kind is PartyKind.HOST):
                flow_alike = replace_end(flow, PolicyEndpoint(*group[0]), is_source)
                if (
                    self.after.explain(flow_alike).verdict is not PolicyVerdict.DENY
                    and self.before.explain(flow_alike).verdict is PolicyVerdict.DENY
                ):
                    flows = [replace_end(flow, PolicyEndpoint(*pod), is_source) for pod in group]
                    yield from ((str(f.source), str(f.destination)) for f in flows)

    def _pods_alike(self, direction: Direction, by_node: bool) -> Iterator[list[tuple[str, str]]]:
        """The pods that the change selects, those together that are treated alike and have an address of one family.

        The node that runs a pod is told from others, and pods of a class may run on different nodes.
        """
        for indices in self._treated_alike(direction).values():
            by_family: dict[int | None, list[tuple[str, str]]] = {}
            for index in indices:
                by_family.setdefault(self.classes.plain[index], []).extend(self.classes.classes[index].pods)
            for pods in by_family.values():
                yield from ([pod] for pod in pods) if by_node else (pods,)


_FEW = 64  # up to so many classes are looked at one by one


def _different(before: ClassRow, after: ClassRow) -> int:
    return (before[0] ^ after[0]) | (before[1] ^ after[1])


_Flags = tuple[bool, bool, bool, bool]


def _parts(classes: int, rows: tuple[ClassRow, ClassRow]) -> list[tuple[_Flags, int]]:
    """The classes split by whether they are in each of four sets: of the row before, and of the row after."""
    if not classes & (classes - 1):
        before, after = rows
        return [
            (
                (
                    bool(before[0] & classes),
                    bool(before[1] & classes),
                    bool(after[0] & classes),
                    bool(after[1] & classes),
                ),
                classes,
            )
        ]
    before, after = rows
    parts: list[tuple[tuple[bool, ...], int]] = [((), classes)]
    for row in before if before is after else (*before, *after):
        split = []
        for flags, part in parts:
            inside = part & row
            if inside:
                split.append(((*flags, True), inside))
            if inside != part:
                split.append(((*flags, False), part ^ inside))
        parts = split
    if before is after:
        return [((f[0], f[1], f[0], f[1]), part) for f, part in parts]
    return [((f[0], f[1], f[2], f[3]), part) for f, part in parts]


def _verdict(row: tuple[bool, bool], other_row: tuple[bool, bool]) -> PolicyVerdict:
    """The verdict between two classes: of the row of each, whether the other may be allowed, and may be denied."""
    if not (row[0] and other_row[0]):
        return PolicyVerdict.DENY
    return PolicyVerdict.UNKNOWN if row[1] or other_row[1] else PolicyVerdict.ALLOW


def replace_end(flow: PolicyFlow, pod: PolicyEndpoint, keep_source: bool) -> PolicyFlow:
    """The flow with `pod` at one end and the other end kept."""
    if keep_source:
        return PolicyFlow(flow.source, pod, flow.protocol, flow.port)
    return PolicyFlow(pod, flow.destination, flow.protocol, flow.port)
