"""Policies that are not evaluated, each as one named value with the reason.

Such are policies of other projects, policies that their API or their agent refuses, and kinds that could not be read. None
of them ends the judgement of the others: each becomes a policy that may do what its kind can do to the pods that it may
select. A verdict that this could change is UNKNOWN; every other verdict stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.left_out.other_kinds import (
    HARMLESS,
    OTHER_KINDS,
    PLACES,
    EnforcementPoint,
    looks_like_a_policy,
    named_as_policies_are,
)
from kubectl_genainet.policy.left_out.scopes import EVERYBODY, PolicyScope, scope_of
from kubectl_genainet.policy.left_out.served import KUBECTL_REFUSES, Doubtful, RefusedBy, doubtful, unsent_because
from kubectl_genainet.policy.matching.node_peers import OutsidePeer
from kubectl_genainet.policy.model import Direction, PolicyFamily, RuleAction
from kubectl_genainet.policy.rules import DEFAULT_TIER, NETWORK_POLICY_ORDER, Policy, PolicyRule

_SIDES = tuple(direction.value for direction in Direction)
# Fields of a spec that hold no rule of either direction.
_OF_BOTH = frozenset(
    {
        "podSelector",
        "endpointSelector",
        "namespaceSelector",
        "serviceAccountSelector",
        "selector",
        "subject",
        "appliedTo",
        "priority",
        "order",
        "tier",
        "description",
        "labels",
        "enableDefaultDeny",
    }
)
_PLACES_OF_OTHERS = {kind: other.place for (_, kind), other in OTHER_KINDS.items()}


class Unevaluated(msgspec.Struct, frozen=True):
    """One policy that is not evaluated. `source` is the file that it came from; empty for the API."""

    ref: ObjectRef
    reason: str
    field: str = ""
    source: str = ""
    refused_by: RefusedBy = RefusedBy.NOBODY
    hint: str = ""

    def __str__(self) -> str:
        where = ": ".join(p for p in (self.source, str(self.ref), self.field) if p)
        unsaid = self.refused_by is RefusedBy.NOBODY or KUBECTL_REFUSES in self.reason
        return f"{where}: {self.reason}" + ("" if unsaid else f" (refused by its {self.refused_by.value})")


class StandIn(msgspec.Struct, frozen=True):
    """What takes the place of an unevaluated policy, and why it does. `kinds` are those that it may be of, as (group, kind): none
    where no enforcer of policies needs to read it."""

    policy: Policy
    what: Unevaluated
    kinds: tuple[tuple[str, str], ...] = ()


def stand_in_for(obj: KubeObject, error: InputError, by: RefusedBy) -> StandIn:
    """The stand-in for a policy that its compiler found not valid."""
    what = Unevaluated(obj.ref, error.problem, error.field, obj.source, by, error.hint)
    reason = f"{error.problem}: its {by.value} refuses the policy"
    place = PLACES.get(obj.group, PLACES[""])
    policy = _policy(obj, place, scope_of(obj) or EVERYBODY, error.field, reason)
    return StandIn(policy, what, ((obj.group, obj.kind),))


def stand_in_for_doubtful(doubtful: Doubtful) -> StandIn:
    """The stand-in for a policy that may not be in force as it is written, where its rules can't be read either."""
    place = PLACES.get(doubtful.meant.group, PLACES[""])
    scope = scope_of(doubtful.meant) or EVERYBODY
    policy = _policy(doubtful.written, place, scope, doubtful.field, doubtful.problem)
    return StandIn(policy, unevaluated(doubtful), ((doubtful.meant.group, doubtful.meant.kind),))


def unevaluated(doubtful: Doubtful) -> Unevaluated:
    return Unevaluated(doubtful.written.ref, doubtful.problem, doubtful.field, doubtful.written.source, doubtful.by)


def unevaluated_policies(snapshot: ClusterSnapshot, evaluated: frozenset[tuple[str, str]]) -> Iterator[StandIn]:
    """A stand-in for every policy of a kind that is not evaluated, and for every policy kind that could not be read.

    `evaluated` are the kinds (group, kind) that have a compiler.
    """
    for (kind, group), objects in snapshot.by_group.items():
        key = (group, kind)
        other = OTHER_KINDS.get(key)
        if key in evaluated or key in HARMLESS or (other is None and not named_as_policies_are(*key)):
            continue
        for obj in objects:
            scope = scope_of(obj) if other is not None or looks_like_a_policy(obj) else None
            if scope is not None and doubtful(obj) is None:
                yield _other(obj, other.place if other is not None else PLACES[""], scope)
    for left_out in snapshot.left_out:
        place = PLACES.get(left_out.kind) or _PLACES_OF_OTHERS.get(left_out.kind)
        if place is None and "networkpolicy" in left_out.kind.lower():
            place = PLACES[""]
        if place is not None:
            ref = ObjectRef(left_out.kind, "*")
            reason = f"{left_out.kind} objects could not be read: {left_out.reason}"
            directions = place.directions or tuple(Direction)
            policy = _stand_in(ref, place, EVERYBODY, directions, "", reason, 0)
            every = (key for key in (*evaluated, *OTHER_KINDS) if key[1] == left_out.kind)
            yield StandIn(policy, Unevaluated(ref, reason), tuple(every))


def _other(obj: KubeObject, place: EnforcementPoint, scope: PolicyScope) -> StandIn:
    field, reason, by = "", f"{obj.kind} ({obj.group or 'v1'}) is not evaluated", RefusedBy.NOBODY
    if unsent := unsent_because(obj):
        field, reason = unsent
        by = RefusedBy.CLIENT
    what = Unevaluated(obj.ref, reason, field, obj.source, by)
    return StandIn(_policy(obj, place, scope, field, reason), what, ((obj.group, obj.kind),))


def _policy(obj: KubeObject, place: EnforcementPoint, scope: PolicyScope, field: str, reason: str) -> Policy:
    spec = obj.raw.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    directions = place.directions or _directions(obj, spec)
    order = spec.get("priority", spec.get("order"))
    rank = order if isinstance(order, int | float) and not isinstance(order, bool) else None
    return _stand_in(obj.ref, place, scope, directions, field, reason, rank)


def _stand_in(
    ref: ObjectRef,
    place: EnforcementPoint,
    scope: PolicyScope,
    directions: tuple[Direction, ...],
    field: str,
    reason: str,
    rank: float | None,
) -> Policy:
    actions = ((RuleAction.ALLOW, place.admits), (RuleAction.DENY, place.denies))
    peers = (OutsidePeer(),) if place.outside_only else scope.peers
    taken = (action for action, can in actions if can)
    rules = tuple(PolicyRule(i, action, "", peers=peers, own=scope.own) for i, action in enumerate(taken, start=1))
    order: tuple[float | int | str, ...] = (-1 if rank is None else rank, ref.name)
    if place.tier is DEFAULT_TIER:
        if place.by_order and rank is not None:
            order = (1, rank, ref.name, ref.namespace)
        elif place.denies:
            order = (0, 0.0, ref.name, ref.namespace)
        else:
            order = (1, NETWORK_POLICY_ORDER, f"knp.default.{ref.name}", ref.namespace)
    return Policy(
        ref=ref,
        family=PolicyFamily.OTHER,
        tier=place.tier.name,
        subject=scope.subject,
        order=order,
        egress=rules if Direction.EGRESS in directions else (),
        ingress=rules if Direction.INGRESS in directions else (),
        isolates_egress=place.isolates and Direction.EGRESS in directions,
        isolates_ingress=place.isolates and Direction.INGRESS in directions,
        not_evaluated=((field, reason),),
    )


def _directions(obj: KubeObject, spec: dict[str, Any]) -> tuple[Direction, ...]:
    """The directions that the policy may be about: its types, else the sides that it has rules for, else both."""
    types = spec.get("policyTypes", spec.get("types"))
    named = {d for d in Direction if isinstance(types, list) and d.value.capitalize() in types}
    if isinstance(types, list) and len(named) == len(types) and named:
        return tuple(d for d in Direction if d in named)
    sides = {d for d in Direction for key in spec if str(key).lower().startswith(d.value)}
    elsewhere = [key for key in spec if key not in _OF_BOTH and not str(key).lower().startswith(_SIDES)]
    if isinstance(types, list) or not sides or elsewhere:
        return tuple(Direction)
    if obj.group in ("networking.k8s.io", "extensions"):
        sides.add(Direction.INGRESS)  # a NetworkPolicy without policyTypes is about Ingress in any case
    return tuple(d for d in Direction if d in sides)
