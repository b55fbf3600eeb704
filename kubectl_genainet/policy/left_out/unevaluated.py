"""Policies that are not evaluated, each as one named value with the reason.

Such are policies of other projects, policies that their API or their agent refuses, and kinds that could not be read. None
of them ends the judgement of the others: each becomes a policy that may do what its kind can do to the pods that it may
select. A verdict that this could change is UNKNOWN; every other verdict stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
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
    Place,
    looks_like_a_policy,
    misspelt,
    old_api,
)
from kubectl_genainet.policy.matching.node_peers import OutsidePeer
from kubectl_genainet.policy.matching.peers import AnyOfPeer, AnyPeer, Peer, PodsPeer
from kubectl_genainet.policy.matching.selectors import Operator, RawSelector, Requirement, Selector, selector_of
from kubectl_genainet.policy.model import Action, Direction, Family
from kubectl_genainet.policy.rules import DEFAULT_TIER, NETWORK_POLICY_ORDER, Policy, Rule
from kubectl_genainet.policy.where import Where

MESH_ROOT = "istio-system"


class RefusedBy(Enum):
    """Who does not take a policy. An API refuses an object when it is applied, an agent one that was stored."""

    API = "API server"
    AGENT = "agent"
    CLIENT = "client"  # there is no such kind: it is never sent
    NOBODY = "nobody"  # it is in force, but of a kind that is not evaluated


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
        by = "" if self.refused_by is RefusedBy.NOBODY else f" (refused by its {self.refused_by.value})"
        return f"{where}: {self.reason}{by}"


class StandIn(msgspec.Struct, frozen=True):
    """What takes the place of an unevaluated policy, and why it does."""

    policy: Policy
    what: Unevaluated


def stand_in_for(obj: KubeObject, error: InputError, by: RefusedBy) -> StandIn:
    """The stand-in for a policy that its compiler found not valid."""
    what = Unevaluated(obj.ref, error.problem, error.field, obj.source, by, error.hint)
    reason = f"{error.problem}: its {by.value} refuses the policy"
    return StandIn(_policy(obj, PLACES.get(obj.group, PLACES[""]), error.field, reason), what)


def unevaluated_policies(snapshot: ClusterSnapshot, evaluated: frozenset[tuple[str, str]]) -> Iterator[StandIn]:
    """A stand-in for every policy of a kind that is not evaluated, and for every policy kind that could not be read.

    `evaluated` are the kinds (group, kind) that have a compiler.
    """
    for kind, objects in snapshot.by_kind.items():
        for obj in objects:
            key = (obj.group, kind)
            if key in evaluated or key in HARMLESS:
                continue
            other = OTHER_KINDS.get(key)
            if other is not None or looks_like_a_policy(obj):
                yield _other(obj, other.place if other is not None else None)
    for left_out in snapshot.left_out:
        place = PLACES.get(left_out.kind)
        if place is not None:
            ref = ObjectRef(left_out.kind, "*")
            reason = f"{left_out.kind} objects could not be read: {left_out.reason}"
            policy = _stand_in(ref, place, AnyPeer(), tuple(Direction), "", reason, 0)
            yield StandIn(policy, Unevaluated(ref, reason))


def _other(obj: KubeObject, place: Place | None) -> StandIn:
    for problem, field, by in ((old_api(obj), "apiVersion", RefusedBy.API), (misspelt(obj), "kind", RefusedBy.CLIENT)):
        if problem:
            what = Unevaluated(obj.ref, problem, field, obj.source, by)
            return StandIn(_policy(obj, PLACES["networking.k8s.io"], field, problem), what)
    reason = f"{obj.kind} ({obj.group or 'v1'}) is not evaluated"
    policy = _policy(obj, place or PLACES[""], "", reason)
    return StandIn(policy, Unevaluated(obj.ref, reason, source=obj.source))


def _policy(obj: KubeObject, place: Place, field: str, reason: str) -> Policy:
    spec = obj.raw.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    directions = place.directions or _directions(obj, spec)
    order = spec.get("priority", spec.get("order"))
    rank = order if isinstance(order, int | float) and not isinstance(order, bool) else None
    return _stand_in(obj.ref, place, _subject(obj, spec), directions, field, reason, rank)


def _stand_in(
    ref: ObjectRef,
    place: Place,
    subject: Peer,
    directions: tuple[Direction, ...],
    field: str,
    reason: str,
    rank: float | None,
) -> Policy:
    actions = ((Action.ALLOW, place.admits), (Action.DENY, place.denies))
    peers: tuple[Peer, ...] | None = (OutsidePeer(),) if place.outside_only else None
    rules = tuple(Rule(i, a, "", peers=peers) for i, a in enumerate((a for a, can in actions if can), start=1))
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
        family=Family.OTHER,
        tier=place.tier.name,
        subject=subject,
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
    if isinstance(types, list) or not sides:
        return tuple(Direction)
    if obj.group in ("networking.k8s.io", "extensions"):
        sides.add(Direction.INGRESS)  # a NetworkPolicy without policyTypes is about Ingress in any case
    return tuple(d for d in Direction if d in sides)


def _subject(obj: KubeObject, spec: dict[str, Any]) -> Peer:
    """The pods that the policy may select: by its podSelector where that can be read, else all within its reach."""
    if obj.group == "security.istio.io":
        selector = spec.get("selector")
        labels = selector.get("matchLabels") if isinstance(selector, dict) else None
        root = obj.namespace == MESH_ROOT
        return PodsPeer(_match_labels(labels), namespace="" if root else obj.namespace)
    applied = spec.get("appliedTo")
    if isinstance(applied, list) and applied:
        parts = tuple(_applied_to(obj, one) for one in applied)
        return parts[0] if len(parts) == 1 else AnyOfPeer(parts)
    return _pods(obj, spec)


def _applied_to(obj: KubeObject, part: Any) -> Peer:
    """One entry of Antrea's appliedTo; all within the policy's reach where it is of a form that is not read."""
    known = isinstance(part, dict) and set(part) <= {"podSelector", "namespaceSelector"}
    return _pods(obj, part if known else {})


def _pods(obj: KubeObject, part: dict[str, Any]) -> Peer:
    pods, namespaces = (_selector(obj, part.get(field)) for field in ("podSelector", "namespaceSelector"))
    # What has a subject is cluster-scoped, though a file's object of a kind that is not known was given a namespace.
    if obj.namespace and "subject" not in part:
        return PodsPeer(pods, namespace=obj.namespace)
    return PodsPeer(pods, namespaces) if pods.requirements or namespaces.requirements else AnyPeer()


def _selector(obj: KubeObject, raw: Any) -> Selector:
    """A selector; one that selects all where it can't be read."""
    if not isinstance(raw, dict):
        return Selector()
    try:
        return selector_of(msgspec.convert(raw, RawSelector), Where(obj).at("spec"))
    except (InputError, msgspec.ValidationError):
        return Selector()


def _match_labels(labels: Any) -> Selector:
    if not isinstance(labels, dict):
        return Selector()
    return Selector(tuple(Requirement(str(k), Operator.IN, (str(v),)) for k, v in labels.items()))
