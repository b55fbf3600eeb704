"""An option is tried before it is offered: applied to the compiled policies, and the flows that it changes are judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.model import Direction, PolicyEndpoint, PolicyFlow, PolicyVerdict
from kubectl_genainet.policy.party import PartyKind
from kubectl_genainet.policy.reach.classes import NOBODY
from kubectl_genainet.policy.reach.rows import Rows, bits
from kubectl_genainet.policy.rules import Policy


class Change(msgspec.Struct, frozen=True):
    """One object to apply: an existing policy with `what` changed, or a new policy."""

    ref: ObjectRef
    is_new: bool
    what: str
    object: dict[str, Any]


class Option(msgspec.Struct, frozen=True):
    """Objects that together admit the flow. `also_admits` are the other flows (source, destination) on its port.

    `isolates` are pods that were open and are not any more: the rest of what they receive or send stops.
    """

    changes: tuple[Change, ...]
    also_admits: tuple[tuple[str, str], ...]
    isolates: tuple[str, ...] = ()


def tried(
    engine: PolicyEngine, flow: PolicyFlow, changes: Sequence[Change], *, at_most: int | None = None
) -> Option | None:
    """The option of these changes, if they admit the flow and stop no other on its port; None otherwise, and where they
    admit more than `at_most` other flows between pods."""
    try:
        changed = engine.with_changes([KubeObject(c.object) for c in changes])
    except InputError:
        return None
    if changed is None or changed.engine.explain(flow).verdict is not PolicyVerdict.ALLOW:
        return None
    effect = _Effect(engine, changed.engine, changed.removed, changed.added, flow)
    gained = effect.gained(at_most)
    if gained is None:
        return None
    own = (str(flow.source), str(flow.destination))
    pairs = dict.fromkeys(p for p in (*gained, *effect.outside()) if p != own)
    return Option(tuple(changes), tuple(pairs), effect.isolated())


class _Effect:
    """What changed policies do to flows on one port, beside the policies before."""

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
        self.rows: Rows = engine.rows
        self.classes = engine.rows.classes
        self._subjects = {d: self._selected((*removed, *added), d) for d in Direction}
        self._isolated = {d: self._newly_isolated(d) for d in Direction}
        self._new_rows: dict[tuple[int, Direction], tuple[int, int]] = {}

    def _selected(self, policies: Sequence[Policy], direction: Direction) -> int:
        found = 0
        for policy in policies:
            if policy.applies(direction):
                sure, unsure = self.classes.peer(policy.subject, NOBODY)
                found |= sure | unsure
        return found & self.classes.pods

    def isolated(self) -> tuple[str, ...]:
        """The pods that a changed policy isolates and none did."""
        newly = self._isolated[Direction.EGRESS] | self._isolated[Direction.INGRESS]
        return tuple("/".join(pod) for i in bits(newly) for pod in self.classes.classes[i].pods)

    def _newly_isolated(self, direction: Direction) -> int:
        isolating = [p for p in self.added if p.isolates(direction)]
        return self._selected(isolating, direction) & ~self.rows.isolated(direction) if isolating else 0

    def gained(self, at_most: int | None) -> list[tuple[str, str]] | None:
        """The pairs of pods between which flows pass or may pass that did not.

        None where one is stopped, other than by isolating a pod that was open, and where there are more than `at_most`
        besides the flow itself.
        """
        pairs: set[tuple[int, int]] = set()
        for direction in Direction:
            for (before, after), alike in self._groups(direction).items():
                if not self._compare(alike, before, after, direction, pairs):
                    return None
        classes = self.classes.classes
        if at_most is not None:
            size = sum(len(classes[a].pods) * (len(classes[b].pods) - (a == b)) for a, b in pairs)
            if size - 1 > at_most:
                return None
        gained: list[tuple[str, str]] = []
        for source, destination in sorted(pairs):
            pods = classes[source].pods, classes[destination].pods
            gained += [("/".join(a), "/".join(b)) for a in pods[0] for b in pods[1] if a != b]
        return gained

    def _groups(self, direction: Direction) -> dict[tuple[tuple[int, int], tuple[int, int]], int]:
        """The changed classes of a direction by their rows before and after."""
        groups: dict[tuple[tuple[int, int], tuple[int, int]], int] = {}
        for index in bits(self._subjects[direction]):
            rows = self._row(index, direction), self._new_row(index, direction)
            groups[rows] = groups.get(rows, 0) | 1 << index
        return groups

    def _compare(
        self,
        alike: int,
        before: tuple[int, int],
        after: tuple[int, int],
        direction: Direction,
        gained: set[tuple[int, int]],
    ) -> bool:
        """Notes the pairs that classes with the same rows gain in one direction; False where one is stopped."""
        egress = direction is Direction.EGRESS
        back = Direction.INGRESS if egress else Direction.EGRESS
        changed = self._subjects[back]
        row, protocol, port = self.rows.row, self.flow.protocol, self.flow.port
        for other in bits((before[0] ^ after[0]) | (before[1] ^ after[1])):
            bit = 1 << other
            old = row(other, back, protocol, port)
            new = self._new_row(other, back) if changed & bit else old
            for index in bits((old[0] | new[0]) & alike):
                own = 1 << index
                was, now = _verdict(before, bit, old, own), _verdict(after, bit, new, own)
                if was is PolicyVerdict.ALLOW and now is not PolicyVerdict.ALLOW:
                    if not (self._isolated[direction] & own or self._isolated[back] & bit):
                        return False
                elif now is not was and (now is PolicyVerdict.ALLOW or was is PolicyVerdict.DENY):
                    gained.add((index, other) if egress else (other, index))
        return True

    def _row(self, index: int, direction: Direction) -> tuple[int, int]:
        return self.rows.row(index, direction, self.flow.protocol, self.flow.port)

    def _new_row(self, index: int, direction: Direction) -> tuple[int, int]:
        if not self._subjects[direction] >> index & 1:
            return self._row(index, direction)
        key = (index, direction)
        if key not in self._new_rows:
            self._new_rows[key] = self.rows.row_with(
                index, direction, self.flow.protocol, self.flow.port, removed=self.removed, added=self.added
            )
        return self._new_rows[key]

    def outside(self) -> Iterator[tuple[str, str]]:
        """What else is admitted from or to the address or name of the flow, where one end is not a pod."""
        flow = self.flow
        source, destination = self.before.ends(flow)
        for party, end, is_source in ((source, flow.source, True), (destination, flow.destination, False)):
            if end.name and party.kind is PartyKind.POD:
                continue
            subjects = self._subjects[Direction.INGRESS if is_source else Direction.EGRESS]
            for index in bits(subjects):
                pods = self.classes.classes[index].pods
                # The node that runs a pod is told from others, and pods of a class may run on different nodes.
                alike = [pods] if party.kind is PartyKind.OUTSIDE else [(pod,) for pod in pods]
                for group in alike:
                    one = replace_end(flow, PolicyEndpoint(*group[0]), is_source)
                    if (
                        self.after.explain(one).verdict is not PolicyVerdict.DENY
                        and self.before.explain(one).verdict is PolicyVerdict.DENY
                    ):
                        flows = [replace_end(flow, PolicyEndpoint(*pod), is_source) for pod in group]
                        yield from ((str(f.source), str(f.destination)) for f in flows)


def _verdict(one: tuple[int, int], to: int, other: tuple[int, int], of: int) -> PolicyVerdict:
    """The verdict between two classes from a row of each, with the bit of the other class."""
    if not (one[0] & to and other[0] & of):
        return PolicyVerdict.DENY
    return PolicyVerdict.UNKNOWN if one[1] & to or other[1] & of else PolicyVerdict.ALLOW


def replace_end(flow: PolicyFlow, pod: PolicyEndpoint, keep_source: bool) -> PolicyFlow:
    """The flow with `pod` at one end and the other end kept."""
    if keep_source:
        return PolicyFlow(flow.source, pod, flow.protocol, flow.port)
    return PolicyFlow(pod, flow.destination, flow.protocol, flow.port)
