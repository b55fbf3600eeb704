"""The smallest change that admits a flow, as an edit of an existing policy and as a new one.

Every option is applied to a copy of the snapshot and judged again before it is returned: it admits the flow, it stops
nothing that passed, and what else it admits is listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.model import (
    Direction,
    Effect,
    Explanation,
    Family,
    PolicyEndpoint,
    PolicyFlow,
    PolicyResult,
    Verdict,
)
from kubectl_genainet.policy.party import Party, PartyKind
from kubectl_genainet.policy.patches.proposal import (
    allow_rule,
    cleaned,
    network_policy_rule,
    new_admin_policy,
    new_network_policy,
)
from kubectl_genainet.policy.peers import Peer
from kubectl_genainet.policy.reach.classes import NOBODY, Edges, PodClasses
from kubectl_genainet.policy.reach.matrix import matrix_of
from kubectl_genainet.policy.reach.rows import Rows, bits
from kubectl_genainet.policy.rules import PROTOCOLS

_MOST_EDITED = 4  # policies tried as the one to edit


class Change(msgspec.Struct, frozen=True):
    """One object to apply: an existing policy with `what` changed, or a new policy."""

    ref: ObjectRef
    is_new: bool
    what: str
    object: dict[str, Any]


class Option(msgspec.Struct, frozen=True):
    """Objects that together admit the flow. `also_admits` are the other flows (source, destination) on its port."""

    changes: tuple[Change, ...]
    also_admits: tuple[tuple[str, str], ...]


class Patch(msgspec.Struct, frozen=True):
    """What would admit a flow; at least one of the two is there."""

    flow: PolicyFlow
    edit: Option | None
    new: Option | None

    @property
    def smallest(self) -> Option:
        """The option that admits less besides the flow; the edit, where both admit the same."""
        if self.edit is None or self.new is None:
            option = self.edit or self.new
            assert option is not None
            return option
        return self.edit if len(self.edit.also_admits) <= len(self.new.also_admits) else self.new


def patch(engine: PolicyEngine, flow: PolicyFlow) -> Patch | None:
    """The patch for a denied flow. None where the flow isn't denied for certain, or no policy can be made to admit it
    (a deny rule of Cilium or Calico, a destination known by domain name only)."""
    explanation = engine.explain(flow)
    if explanation.verdict is not Verdict.DENY or flow.protocol not in PROTOCOLS:
        return None
    source, destination = engine.ends(flow)
    edits: list[list[Change]] = []
    news: list[list[Change]] = []
    for direction in Direction:
        if explanation.direction(direction).verdict is not Verdict.DENY:
            continue
        own, peer = (source, destination) if direction is Direction.EGRESS else (destination, source)
        proposals = _Proposals(engine, explanation, direction, own, peer)
        edits.append(list(proposals.edits()))
        news.append(list(proposals.new()))
    edit, new = _best(engine, flow, edits), _best(engine, flow, news)
    return Patch(flow, edit, new) if edit or new else None


def patch_all(engine: PolicyEngine, flows: Sequence[PolicyFlow]) -> Option | None:
    """One set of changes that admits all flows, made by patching one flow after the other. None where one can't be."""
    current = engine
    changes: dict[ObjectRef, Change] = {}
    also: dict[tuple[str, str], None] = {}
    for flow in flows:
        if current.explain(flow).verdict is Verdict.ALLOW:
            continue
        found = patch(current, flow)
        changed = _with(current, found.smallest.changes) if found else None
        if found is None or changed is None:
            return None
        changes |= {c.ref: c for c in found.smallest.changes}
        also |= dict.fromkeys(found.smallest.also_admits)
        current = changed
    asked = {(str(f.source), str(f.destination)) for f in flows}
    return Option(tuple(changes.values()), tuple(p for p in also if p not in asked))


class _Proposals:
    """What could be changed so that one direction admits the flow; not yet tried."""

    def __init__(
        self, engine: PolicyEngine, explanation: Explanation, direction: Direction, own: Party, peer: Party
    ) -> None:
        self.engine, self.flow, self.direction, self.own, self.peer = engine, explanation.flow, direction, own, peer
        result = explanation.direction(direction)
        self.denied_by = next((p for p in result.policies if p.effect is Effect.DENIES), None)
        self.isolating = [p for p in result.policies if p.isolates]

    def edits(self) -> Iterator[Change]:
        if self.peer.address is None and self.peer.kind is not PartyKind.POD:
            return
        if self.denied_by is not None:
            if self.denied_by.family is Family.ADMIN and self.denied_by.rule is not None:
                yield self._before_denying_rule(self.denied_by, self.denied_by.rule)
            return
        mine = [p for p in self.isolating if p.family is Family.NETWORK_POLICY]
        mine.sort(key=lambda p: (p.effect is not Effect.PORTS_NOT_MATCHED, self._selected(p)))
        for result in mine[:_MOST_EDITED]:
            obj = self._object(result.ref)
            if result.effect is Effect.PORTS_NOT_MATCHED and result.rule is not None:
                yield from self._port_added(obj, result.rule)
            yield self._rule_added(obj)

    def new(self) -> Iterator[Change]:
        if self.peer.address is None and self.peer.kind is not PartyKind.POD:
            return
        if self.denied_by is not None:
            if self.denied_by.family is Family.ADMIN:
                denying = self._object(self.denied_by.ref)
                made = new_admin_policy(self.engine, denying, self.flow, self.direction, self.own, self.peer)
                if made is not None:
                    yield _new(made)
            return
        yield _new(new_network_policy(self.engine, self.flow, self.direction, self.own, self.peer))

    def _object(self, ref: ObjectRef) -> KubeObject:
        return next(o for o in self.engine.snapshot.by_kind[ref.kind] if o.ref == ref and _is_kubernetes(o))

    def _selected(self, result: PolicyResult) -> int:
        """How many classes of pods a policy selects: the fewer, the less an added rule admits."""
        policy = next(p for p in self.engine.policies if p.ref == result.ref)
        return self.engine.rows.classes.peer(policy.subject, NOBODY)[0].bit_count()

    def _rule_added(self, obj: KubeObject) -> Change:
        raw = cleaned(obj)
        side = self.direction.value
        rule = network_policy_rule(self.engine, self.flow, self.direction, self.own, self.peer)
        raw["spec"][side] = [*raw["spec"].get(side, []), rule]
        return Change(obj.ref, False, f"spec.{side}[{len(raw['spec'][side]) - 1}] added", raw)

    def _port_added(self, obj: KubeObject, number: int) -> Iterator[Change]:
        """The port, added to a rule that selects the peer already; not where the rule is open to addresses."""
        raw = cleaned(obj)
        side = self.direction.value
        rule = raw["spec"][side][number - 1]
        peers = rule.get("from" if self.direction is Direction.INGRESS else "to", [])
        if not peers or any("ipBlock" in p for p in peers):
            return
        rule["ports"] = [*rule["ports"], {"protocol": self.flow.protocol, "port": self.flow.port}]
        what = f"spec.{side}[{number - 1}].ports[{len(rule['ports']) - 1}] added"
        yield Change(obj.ref, False, what, raw)

    def _before_denying_rule(self, denying: PolicyResult, number: int) -> Change:
        obj = self._object(denying.ref)
        raw = cleaned(obj)
        side = self.direction.value
        rule = allow_rule(self.engine, obj.kind, self.flow, self.direction, self.peer)
        raw["spec"][side] = [*raw["spec"][side][: number - 1], rule, *raw["spec"][side][number - 1 :]]
        return Change(obj.ref, False, f"spec.{side}[{number - 1}] put before the rule that denies", raw)


def _is_kubernetes(obj: KubeObject) -> bool:
    return obj.group in ("networking.k8s.io", "policy.networking.k8s.io")


def _new(raw: dict[str, Any]) -> Change:
    return Change(KubeObject(raw).ref, True, "new", raw)


def _best(engine: PolicyEngine, flow: PolicyFlow, proposals: Sequence[Sequence[Change]]) -> Option | None:
    """Of all ways to choose one change a direction, the one that admits least besides the flow, then the shortest."""
    best: tuple[tuple[int, int, int], Option] | None = None
    for chosen in product(*proposals):
        changes = _merged(chosen)
        option = _tried(engine, flow, changes)
        if option is not None:
            size = sum(len(msgspec.json.encode(c.object)) for c in changes)
            rank = (len(option.also_admits), sum(_breadth(engine, c) for c in changes), size)
            if best is None or rank < best[0]:
                best = (rank, option)
    return best[1] if best else None


def _merged(changes: Sequence[Change]) -> list[Change]:
    """One change an object: where a policy isolates both ends, its rules of both directions are edited at once."""
    merged: dict[ObjectRef, Change] = {}
    for change in changes:
        first = merged.get(change.ref)
        if first is None or change.is_new:
            merged[change.ref] = change
            continue
        side = "egress" if change.what.startswith("spec.egress") else "ingress"
        spec = {**first.object["spec"], side: change.object["spec"][side]}
        merged[change.ref] = Change(change.ref, False, f"{first.what}; {change.what}", {**first.object, "spec": spec})
    return list(merged.values())


def _breadth(engine: PolicyEngine, change: Change) -> int:
    """How many classes of pods the changed policy selects: an exception in a policy for all pods holds for all."""
    policy = next((p for p in engine.policies if p.ref == change.ref), None)
    return engine.rows.classes.peer(policy.subject, NOBODY)[0].bit_count() if policy else 0


def _tried(engine: PolicyEngine, flow: PolicyFlow, changes: Sequence[Change]) -> Option | None:
    """The option of these changes, if they admit the flow and stop nothing; None otherwise."""
    changed = _with(engine, changes)
    if changed is None or changed.explain(flow).verdict is not Verdict.ALLOW:
        return None
    classes = PodClasses(engine.parties, Edges((*engine.policies, *changed.policies)))
    before = Rows(classes, engine.policies, engine.in_tiers)
    after = Rows(classes, changed.policies, changed.in_tiers)
    if _isolates_more(before, after):
        return None
    old, new = matrix_of(before, flow.protocol, flow.port), matrix_of(after, flow.protocol, flow.port)
    pairs: list[tuple[str, str]] = []
    for i, one in enumerate(classes.classes):
        if old.allowed[i] & ~new.allowed[i]:
            return None
        gained = (new.allowed[i] & ~old.allowed[i]) | (new.unknown[i] & ~old.unknown[i] & ~old.allowed[i])
        for j in bits(gained):
            pairs += [("/".join(a), "/".join(b)) for a in one.pods for b in classes.classes[j].pods if a != b]
    refs = {c.ref for c in changes}
    subjects = [p.subject for p in changed.policies if p.ref in refs]
    pairs += _outside_pairs(engine, changed, flow, subjects)
    own = (str(flow.source), str(flow.destination))
    return Option(tuple(changes), tuple(dict.fromkeys(p for p in pairs if p != own)))


def _outside_pairs(
    engine: PolicyEngine, changed: PolicyEngine, flow: PolicyFlow, subjects: Sequence[Peer]
) -> Iterator[tuple[str, str]]:
    """What else is admitted from or to the address of the flow, where one end is not a pod."""
    for end, is_source in ((flow.source, True), (flow.destination, False)):
        if end.name and engine.ends(flow)[0 if is_source else 1].kind is PartyKind.POD:
            continue
        for pod in engine.snapshot.pods:
            party = engine.parties.of_pod(pod)
            if pod.finished or not any(s.match(party, party).value for s in subjects):
                continue
            other = PolicyEndpoint(pod.metadata.namespace, pod.metadata.name)
            one = replace_end(flow, other, is_source)
            if changed.explain(one).verdict is not Verdict.DENY and engine.explain(one).verdict is Verdict.DENY:
                yield (str(one.source), str(one.destination))


def replace_end(flow: PolicyFlow, pod: PolicyEndpoint, keep_source: bool) -> PolicyFlow:
    """The flow with `pod` at one end and the other end kept."""
    if keep_source:
        return PolicyFlow(flow.source, pod, flow.protocol, flow.port)
    return PolicyFlow(pod, flow.destination, flow.protocol, flow.port)


def _isolates_more(before: Rows, after: Rows) -> bool:
    """Whether a pod is isolated that wasn't: all its other flows would stop."""
    return any(after.isolated(direction) & ~before.isolated(direction) for direction in Direction)


def _with(engine: PolicyEngine, changes: Sequence[Change]) -> PolicyEngine | None:
    """An engine over the snapshot with the changes applied; None where the objects would not be valid."""
    objects = list(engine.snapshot.objects)
    for change in changes:
        made = KubeObject(change.object)
        objects = [o for o in objects if not (o.ref == made.ref and o.group == made.group)]
        objects.append(made)
    try:
        return PolicyEngine(replace(engine.snapshot, objects=tuple(objects)), engine.enforcer)
    except InputError:
        return None
