"""The smallest change that admits a flow, as an edit of an existing policy and as a new one.

Every option is tried before it is returned: it admits the flow, it stops nothing that passed on its port, and what else it
admits is listed. One that isolates pods which were open is offered only where there is no other, and says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import product
from typing import Any

import msgspec

from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.model import (
    Direction,
    DirectionResult,
    Effect,
    Explanation,
    PolicyFamily,
    PolicyFlow,
    PolicyResult,
    PolicyVerdict,
)
from kubectl_genainet.policy.patches import calico, cilium
from kubectl_genainet.policy.patches.added import AddedLabel, labels_to_add, used_in, with_labels
from kubectl_genainet.policy.patches.labels import PodLabels, lasting_labels
from kubectl_genainet.policy.patches.narrowest import narrowest
from kubectl_genainet.policy.patches.origin import keeper_of
from kubectl_genainet.policy.patches.proposal import (
    MOST_RULES,
    ProposalContext,
    allow_rule,
    cleaned,
    network_policy_rule,
    new_admin_policy,
    new_network_policy,
)
from kubectl_genainet.policy.patches.trial import PatchOption, PolicyChange, Trial, tried
from kubectl_genainet.policy.reach.classes import NOBODY
from kubectl_genainet.policy.rules import DEFAULT_TIER, PROTOCOLS

__all__ = ["Patch", "PatchOption", "Patcher", "PolicyChange", "patch", "patch_all"]

_MOST_EDITED = 4  # policies tried as the one to edit


class Patch(msgspec.Struct, frozen=True):
    """What would admit a flow; at least one of the two is there."""

    flow: PolicyFlow
    edit: PatchOption | None
    new: PatchOption | None

    @property
    def smallest(self) -> PatchOption:
        """The option that needs no label added and admits less besides the flow. Where both admit the same, the edit, unless
        a release undoes it."""
        if self.edit is None or self.new is None:
            option = self.edit or self.new
            assert option is not None
            return option
        edit, new = ((bool(o.labels), len(o.also_admits), o.kept) for o in (self.edit, self.new))
        return self.edit if edit <= new else self.new


def patch(engine: PolicyEngine, flow: PolicyFlow) -> Patch | None:
    """The patch for a denied flow. None where the flow isn't denied for certain, or no policy can be made to admit it
    (a deny rule of Cilium, a destination known by domain name only where Cilium does not enforce)."""
    return Patcher(engine).patch(flow)


def patch_all(engine: PolicyEngine, flows: Sequence[PolicyFlow]) -> PatchOption | None:
    """One set of changes that admits all flows, made by patching one flow after the other. None where one can't be."""
    labels = PodLabels(engine)
    ends = [end for flow in flows for end in engine.ends(flow)]
    if added := labels_to_add(engine, labels, ends):
        engine = with_labels(engine, added)
        labels = PodLabels(engine, [(a.key, a.value) for a in added])
    current = engine
    changes: dict[ObjectRef, PolicyChange] = {}
    also: dict[tuple[str, str], None] = {}
    isolates: dict[str, None] = {}
    for flow in flows:
        if current.explain(flow).verdict is PolicyVerdict.ALLOW:
            continue
        patched = Patcher(current, labels).patch(flow)
        changed = current.with_changes([KubeObject(c.object) for c in patched.smallest.changes]) if patched else None
        if patched is None or changed is None:
            return None
        changes |= {c.ref: c for c in patched.smallest.changes}
        also |= dict.fromkeys(patched.smallest.also_admits)
        isolates |= dict.fromkeys(patched.smallest.isolates)
        current = changed.engine
    asked = {(str(f.source), str(f.destination)) for f in flows}
    needed = used_in(added, [change.object for change in changes.values()])
    together = PatchOption(tuple(changes.values()), tuple(p for p in also if p not in asked), tuple(isolates), needed)
    return _with_origins(engine, together)


class Patcher:
    """Makes patches for the flows of one engine."""

    def __init__(self, engine: PolicyEngine, labels: PodLabels | None = None) -> None:
        self._engine = engine
        self._labels = labels or PodLabels(engine)
        self._alike: dict[object, tuple[PolicyFlow, Patch | None]] = {}
        self._of_replicas: dict[object, Patch] = {}
        self._labelled: dict[frozenset[AddedLabel], Patcher] = {}

    def patch(self, flow: PolicyFlow) -> Patch | None:
        """The patch for a denied flow, or None. Flows between alike pods have the same one."""
        key = self._classes(flow)
        if key is None:
            return self._patch(flow, self._engine.explain(flow))
        if key not in self._alike:
            self._alike[key] = flow, self._as_for_replicas(flow)
        first, known = self._alike[key]
        return known if known is None or first == flow else _for_flow(known, first, flow)

    def _as_for_replicas(self, flow: PolicyFlow) -> Patch | None:
        """The patch of a flow between other replicas of the same workloads, where the same policies stop it and it does for
        this one too."""
        explanation = self._engine.explain(flow)
        stopped_by = tuple((p.ref, p.effect, p.rule) for d in Direction for p in explanation.direction(d).policies)
        key = (*map(_lasting, self._engine.ends(flow)), flow.protocol, flow.port, explanation.verdict, stopped_by)
        patch = self._of_replicas.get(key)
        again = self._tried_again(patch, flow) if patch is not None else None
        if again is None and (again := self._patch(flow, explanation)) is not None:
            self._of_replicas[key] = again
        return again

    def _tried_again(self, patch: Patch, flow: PolicyFlow) -> Patch | None:
        """A patch of another flow, tried for this one; None where one of its options does not do or isolates other pods."""
        options: list[PatchOption | None] = []
        for option in (patch.edit, patch.new):
            trial = tried(self._engine, flow, option.changes) if option is not None else None
            made = trial.option() if trial is not None else None
            if option is not None and (made is None or made.isolates != option.isolates):
                return None
            options.append(made)
        return Patch(flow, *options)

    def _classes(self, flow: PolicyFlow) -> object:
        of_pod = self._engine.rows.classes.of_pod
        ends = [of_pod.get((end.namespace, end.name)) for end in (flow.source, flow.destination)]
        known = None not in ends and flow.source != flow.destination and not (flow.source.ip or flow.destination.ip)
        return (*ends, flow.protocol, flow.port) if known else None

    def _patch(self, flow: PolicyFlow, explanation: Explanation) -> Patch | None:
        if explanation.verdict is not PolicyVerdict.DENY or flow.protocol not in PROTOCOLS:
            return None
        source, destination = self._engine.ends(flow)
        if added := labels_to_add(self._engine, self._labels, (source, destination)):
            return self._with_labels(flow, added)
        isolating = [{p.ref for p in explanation.direction(d).policies if p.isolates} for d in Direction]
        edits: list[list[PolicyChange]] = []
        news: list[list[PolicyChange]] = []
        for direction in Direction:
            result = explanation.direction(direction)
            if result.verdict is not PolicyVerdict.DENY:
                continue
            own, peer = (source, destination) if direction is Direction.EGRESS else (destination, source)
            context = ProposalContext(self._engine, self._labels, flow, direction, own, peer)
            proposals = _Proposals(context, result)
            edits.append(list(proposals.edits(set.intersection(*isolating))))
            news.append(list(proposals.new()))
        candidates = [self._best(flow, edits), self._best(flow, news)]
        if any(option is not None and not option.isolates for option in candidates):
            candidates = [o if o is not None and not o.isolates else None for o in candidates]
        edit, new = candidates
        return Patch(flow, edit, new) if edit or new else None

    def _with_labels(self, flow: PolicyFlow, added: frozenset[AddedLabel]) -> Patch | None:
        """The patch of a flow between pods that get labels which last; an option that selects by none of them needs none."""
        patcher = self._labelled.get(added)
        if patcher is None:
            engine = with_labels(self._engine, added)
            patcher = Patcher(engine, PodLabels(engine, [(label.key, label.value) for label in added]))
            self._labelled[added] = patcher
        patch = patcher.patch(flow)
        if patch is None:
            return None
        edit, new = (self._as_needed(flow, option, added) for option in (patch.edit, patch.new))
        return Patch(flow, edit, new) if edit or new else None

    def _as_needed(
        self, flow: PolicyFlow, option: PatchOption | None, added: frozenset[AddedLabel]
    ) -> PatchOption | None:
        if option is None:
            return None
        used = used_in(added, [change.object for change in option.changes])
        if used:
            return msgspec.structs.replace(option, labels=used)
        trial = tried(self._engine, flow, option.changes)
        return trial.option() if trial is not None else None

    def _best(self, flow: PolicyFlow, proposals: Sequence[Sequence[PolicyChange]]) -> PatchOption | None:
        """Of all ways to choose one change a direction, the one that isolates and admits least besides the flow, then
        the shortest."""
        best: tuple[tuple[int, int, int, int], Trial] | None = None
        for chosen in product(*proposals):
            at_most = best[1].admits if best and not best[1].isolates else None
            trial = tried(self._engine, flow, _merged(chosen), at_most=at_most)
            if trial is not None:
                size = sum(len(msgspec.json.encode(c.object)) for c in trial.changes)
                breadth = sum(_breadth(self._engine, c.ref) for c in trial.changes)
                rank = (len(trial.isolates), trial.admits, breadth, size)
                if best is None or rank < best[0]:
                    best = (rank, trial)
        return _with_origins(self._engine, best[1].option()) if best else None


def _lasting(party: PolicyParty) -> object:
    """What replicas of one workload have in common, and a patch names them by."""
    labels = frozenset(lasting_labels(party).items())
    return party.kind, party.namespace, labels, party.service_account, party.owned, party.ports


def _for_flow(patch: Patch, first: PolicyFlow, flow: PolicyFlow) -> Patch:
    """The patch of a flow between pods that are like those of the first: the two flows change places in what it admits."""

    def option(of: PatchOption | None) -> PatchOption | None:
        if of is None:
            return None
        own, other = (str(first.source), str(first.destination)), (str(flow.source), str(flow.destination))
        also = tuple(own if pair == other else pair for pair in of.also_admits)
        return msgspec.structs.replace(of, also_admits=also)

    return Patch(flow, option(patch.edit), option(patch.new))


class _Proposals:
    """What could be changed so that one direction admits the flow; not yet tried."""

    def __init__(self, context: ProposalContext, result: DirectionResult) -> None:
        self.context, self.engine, self.direction = context, context.engine, context.direction
        self.denied_by = next((p for p in result.policies if p.effect is Effect.DENIES), None)
        self.isolating = [p for p in result.policies if p.isolates]
        peer = context.peer
        self._named = peer.address is not None or peer.kind is PartyKind.POD

    def edits(self, of_both_sides: Collection[ObjectRef]) -> Iterator[PolicyChange]:
        if self.denied_by is not None:
            yield from self._before_denying_rule(self.denied_by)
            return
        only_cilium = cilium.needed(self.context)
        if not self._named and not only_cilium:
            return
        families = (PolicyFamily.CILIUM,) if only_cilium else (PolicyFamily.NETWORK_POLICY, PolicyFamily.CILIUM)
        mine = [p for p in self.isolating if p.family in families]
        mine.sort(key=lambda p: (p.effect is not Effect.PORTS_NOT_MATCHED, _breadth(self.engine, p.ref)))
        alike: list[PolicyChange] = []
        for result in mine[:_MOST_EDITED]:
            obj = self._object(result)
            if obj is None:
                continue
            if result.family is PolicyFamily.CILIUM:
                raw = cilium.with_rules(self.context, obj)
                if raw is not None:
                    yield PolicyChange(obj.ref, False, f"a rule added to spec.{self.direction.value}", raw)
                continue
            if result.effect is Effect.PORTS_NOT_MATCHED and result.rule is not None:
                yield from self._port_added(obj, result.rule)
            alike.append(self._rule_added(obj))
        yield from narrowest(self.engine, alike, of_both_sides)
        if not mine and not only_cilium:
            yield from self._rule_at_the_end()

    def new(self) -> Iterator[PolicyChange]:
        if self.denied_by is not None:
            yield from self._before_denying_policy(self.denied_by)
        elif cilium.needed(self.context):
            yield _new(cilium.new_policy(self.context))
        elif self._named:
            ending = self._ending_tier()
            made = calico.new_policy(self.context, ending) if ending is not None else None
            yield _new(made or new_network_policy(self.context))

    def _rule_at_the_end(self) -> Iterator[PolicyChange]:
        """An Allow rule in a policy of Calico that isolates, where no other kind does."""
        for result in [p for p in self.isolating if p.family is PolicyFamily.CALICO][:_MOST_EDITED]:
            obj = self._object(result)
            if obj is None:
                continue
            number = len(obj.raw["spec"].get(self.direction.value) or ()) + 1
            raw = calico.before_denying_rule(self.context, obj, number)
            yield PolicyChange(result.ref, False, f"spec.{self.direction.value}[{number - 1}] added", raw)

    def _ending_tier(self) -> KubeObject | None:
        """A policy of the tier of Calico's own that ends in the drop; NetworkPolicies come after it."""
        ending = [p for p in self.isolating if p.family is PolicyFamily.CALICO and p.tier != DEFAULT_TIER.name]
        return self._object(ending[0]) if ending else None

    def _object(self, result: PolicyResult) -> KubeObject | None:
        return self.engine.policy_object(result.ref, _GROUPS[result.family])

    def _rule_added(self, obj: KubeObject) -> PolicyChange:
        raw = cleaned(obj)
        side = self.direction.value
        raw["spec"][side] = [*(raw["spec"].get(side) or []), network_policy_rule(self.context)]
        return PolicyChange(obj.ref, False, f"spec.{side}[{len(raw['spec'][side]) - 1}] added", raw)

    def _port_added(self, obj: KubeObject, number: int) -> Iterator[PolicyChange]:
        """The port, added to a rule that selects the peer already; not where the rule is open to addresses."""
        raw = cleaned(obj)
        side = self.direction.value
        rule = raw["spec"][side][number - 1]
        peers = rule.get(self.context.side, [])
        if not peers or any("ipBlock" in p for p in peers):
            return
        flow = self.context.flow
        rule["ports"] = [*rule["ports"], {"protocol": flow.protocol, "port": flow.port}]
        what = f"spec.{side}[{number - 1}].ports[{len(rule['ports']) - 1}] added"
        yield PolicyChange(obj.ref, False, what, raw)

    def _before_denying_rule(self, denying: PolicyResult) -> Iterator[PolicyChange]:
        obj = self._object(denying)
        if obj is None or denying.rule is None or not self._named:
            return
        side, number = self.direction.value, denying.rule
        what = f"spec.{side}[{number - 1}] put before the rule that denies"
        if denying.family is PolicyFamily.CALICO:
            yield PolicyChange(denying.ref, False, what, calico.before_denying_rule(self.context, obj, number))
        elif denying.family is PolicyFamily.ADMIN:
            raw = cleaned(obj)
            rules = raw["spec"][side]
            if len(rules) < MOST_RULES.get(obj.kind, 0):
                raw["spec"][side] = [*rules[: number - 1], allow_rule(self.context, obj.kind), *rules[number - 1 :]]
                yield PolicyChange(obj.ref, False, what, raw)

    def _before_denying_policy(self, denying: PolicyResult) -> Iterator[PolicyChange]:
        obj = self._object(denying)
        if obj is None or not self._named:
            return
        made: dict[str, Any] | None = None
        if denying.family is PolicyFamily.CALICO:
            yield _new(new_network_policy(self.context))  # consulted with order 1000
            made = calico.new_policy(self.context, obj)
        elif denying.family is PolicyFamily.ADMIN:
            made = new_admin_policy(self.context, obj)
        if made is not None:
            yield _new(made)


_GROUPS = {
    PolicyFamily.NETWORK_POLICY: ("networking.k8s.io",),
    PolicyFamily.ADMIN: ("policy.networking.k8s.io",),
    PolicyFamily.CILIUM: ("cilium.io",),
    PolicyFamily.CALICO: ("projectcalico.org", "crd.projectcalico.org"),
}


def _with_origins(engine: PolicyEngine, option: PatchOption) -> PatchOption:
    """With where each policy that is edited comes from."""
    groups = tuple(group for family in _GROUPS.values() for group in family)
    changes = []
    for change in option.changes:
        obj = None if change.is_new else engine.policy_object(change.ref, groups)
        if obj is not None:
            change = msgspec.structs.replace(change, file=obj.source, keeper=keeper_of(obj))
        changes.append(change)
    return msgspec.structs.replace(option, changes=tuple(changes))


def _new(raw: dict[str, Any]) -> PolicyChange:
    return PolicyChange(KubeObject(raw).ref, True, "new", raw)


def _merged(changes: Sequence[PolicyChange]) -> list[PolicyChange]:
    """One change an object: where a policy isolates both ends, its rules of both directions are edited at once."""
    merged: dict[ObjectRef, PolicyChange] = {}
    for change in changes:
        first = merged.get(change.ref)
        if first is None or change.is_new:
            merged[change.ref] = change
            continue
        side = "egress" if "spec.egress" in change.what else "ingress"
        spec = {**first.object["spec"], side: change.object["spec"][side]}
        merged[change.ref] = PolicyChange(
            change.ref, False, f"{first.what}; {change.what}", {**first.object, "spec": spec}
        )
    return list(merged.values())


def _breadth(engine: PolicyEngine, ref: ObjectRef) -> int:
    """How many classes of pods a policy selects: an exception in a policy for all pods holds for all."""
    policy = engine.policy_named(ref)
    return engine.rows.classes.peer(policy.subject, NOBODY)[0].bit_count() if policy else 0
