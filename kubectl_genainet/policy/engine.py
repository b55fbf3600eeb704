"""The policy engine: compiles a snapshot's policies once and judges flows by them."""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.compile import compile_policies, isolating_unselected
from kubectl_genainet.policy.decide import Selected
from kubectl_genainet.policy.enforcers import Deviation, Enforcer, Trait, as_configured, enforcer_of
from kubectl_genainet.policy.exemptions import exemption
from kubectl_genainet.policy.explain import explain_direction
from kubectl_genainet.policy.identity import IdentityPeer
from kubectl_genainet.policy.left_out.served import doubtful
from kubectl_genainet.policy.matching.cidr import address_of
from kubectl_genainet.policy.matching.party import Parties, PartyKind, PolicyParty
from kubectl_genainet.policy.matching.peers import PodsPeer
from kubectl_genainet.policy.model import (
    NOT_IN_FORCE,
    Direction,
    DirectionResult,
    Explanation,
    NotEvaluated,
    PolicyEndpoint,
    PolicyFamily,
    PolicyFlow,
    PolicyVerdict,
    Reason,
    RuleAction,
    both,
)
from kubectl_genainet.policy.reach.classes import Edges, PodClasses
from kubectl_genainet.policy.reach.matrix import Matrix, matrix_of
from kubectl_genainet.policy.reach.rows import MatrixRows, Plan
from kubectl_genainet.policy.rules import PROTOCOLS, Policy


class PolicyEngine:
    """Judges flows by the policies of a snapshot.

    A policy that is not valid or not of a kind that is evaluated does not end this: it is one of `unevaluated`.
    `enforcer` is by default the one that the objects show.
    """

    def __init__(self, snapshot: ClusterSnapshot, enforcer: Enforcer | None = None) -> None:
        self._snapshot = snapshot
        self._applied: tuple[KubeObject, ...] = ()
        self._before: Changed | None = None  # the engine that objects were applied to, with what they changed
        self.parties = Parties(snapshot)
        self.enforcer = as_configured(enforcer or enforcer_of(snapshot), snapshot)
        self._compiled = compiled = compile_policies(snapshot, self.enforcer)
        self.tiers = compiled.tiers
        self._base, self._gone, self._added = tuple(compiled.policies), frozenset[int](), tuple[Policy, ...]()
        self.host_policies = tuple(compiled.host_policies)
        self.unevaluated = tuple(compiled.unevaluated)
        self.refused = tuple(compiled.refused)
        self.identities, self.lookups = compiled.identities, compiled.lookups
        self._by_namespace: dict[str, list[Policy]] = defaultdict(list)
        for policy in self.policies:
            self._by_namespace[_namespace_of(policy)].append(policy)
        self._plans: dict[tuple[str, str, Direction], Plan] = {}
        self._variants: dict[tuple[frozenset[Trait], str], PolicyEngine] = {}

    @cached_property
    def policies(self) -> tuple[Policy, ...]:
        """Every policy, those applied by `with_changes` last."""
        kept = tuple(p for p in self._base if id(p) not in self._gone) if self._gone else self._base
        return (*kept, *self._added) if self._added else kept

    @cached_property
    def edges(self) -> Edges:
        return Edges(self.policies)

    @cached_property
    def rows(self) -> MatrixRows:
        """The classes of pods and the sets that their policies admit; made when first needed."""
        before = self._before
        if before is not None and not self.enforcer.inert and before.engine.edges.hold(before.added):
            return before.engine.rows.changed(before.removed, before.added)
        in_force = () if self.enforcer.inert else self.policies
        return MatrixRows(PodClasses(self.parties, self.edges), in_force, self.in_tiers)

    def with_changes(self, objects: Sequence[KubeObject]) -> Changed | None:
        """The engine with objects applied; None for a kind that can't be compiled alone. Raises InputError for one that is
        not valid. Everything else is shared: only the objects are compiled."""
        added: list[Policy] = []
        for obj in objects:
            compiler = self._compiled.compilers.get((obj.group, obj.kind))
            if compiler is None:
                return None
            added += compiler(obj)
        refs = {p.ref: p.family for p in added}
        removed = [p for ref, family in refs.items() for p in self._by_ref.get(ref, ()) if p.family is family]
        if self.enforcer.isolates_unselected:
            isolating = [policy for policy in self.policies if policy.ref == self.enforcer.isolates_all]
            removed += isolating
            added += [isolating_unselected(policy, (*self.policies, *added)) for policy in isolating]
        gone = frozenset(id(p) for p in removed)
        changed = copy.copy(self)
        changed._base, changed._gone, changed._added = self.policies, gone, tuple(added)
        changed._by_namespace = self._by_namespace.copy()
        for namespace in {_namespace_of(p) for p in (*removed, *added)}:
            here = [p for p in self._by_namespace.get(namespace, ()) if id(p) not in gone]
            changed._by_namespace[namespace] = here + [p for p in added if _namespace_of(p) == namespace]
        changed._before = Changed(self, tuple(removed), tuple(added))
        changed._plans = {}
        changed._variants = {}
        changed._applied = (*self._applied, *objects)
        for made in ("policies", "rows", "edges", "snapshot", "_by_ref", "_objects", "policy_names"):
            changed.__dict__.pop(made, None)
        return Changed(changed, tuple(removed), tuple(added))

    @cached_property
    def snapshot(self) -> ClusterSnapshot:
        """The objects, with those applied by `with_changes`."""
        if not self._applied:
            return self._snapshot
        objects = {(o.group, o.ref): o for o in (*self._snapshot.objects, *self._applied)}
        return replace(self._snapshot, objects=tuple(objects.values()))

    @cached_property
    def _by_ref(self) -> dict[ObjectRef, list[Policy]]:
        by_ref: dict[ObjectRef, list[Policy]] = defaultdict(list)
        if self._before is not None:
            by_ref |= self._before.engine._by_ref
            for policy in self._before.removed:
                by_ref[policy.ref] = [p for p in by_ref[policy.ref] if p is not policy]
        for policy in self.policies if self._before is None else self._added:
            by_ref[policy.ref] = [*by_ref[policy.ref], policy]
        return by_ref

    def policy_named(self, ref: ObjectRef) -> Policy | None:
        """A policy by its object's name."""
        return next(iter(self._by_ref.get(ref, ())), None)

    @cached_property
    def _objects(self) -> dict[ObjectRef, list[KubeObject]]:
        objects: dict[ObjectRef, list[KubeObject]] = defaultdict(list)
        if self._before is not None:
            objects |= self._before.engine._objects
        new = self._snapshot.objects if self._before is None else self._applied[len(self._before.engine._applied) :]
        for obj in (o for o in new if "Policy" in o.kind):
            objects[obj.ref] = [*(o for o in objects[obj.ref] if o.group != obj.group), obj]
        return objects

    def policy_object(self, ref: ObjectRef, groups: Collection[str]) -> KubeObject | None:
        """The object of a policy, of one of some API groups."""
        return next((o for o in self._objects.get(ref, ()) if o.group in groups), None)

    @cached_property
    def policy_names(self) -> frozenset[str]:
        """The names of all policies, of whatever kind."""
        return frozenset(ref.name for ref in self._objects)

    def matrix(self, protocol: str, port: int) -> Matrix:
        """Who may reach whom on a port."""
        matrix = matrix_of(self.rows, protocol, port)
        return matrix.doubted if protocol == "SCTP" and self.enforcer.why_no_sctp else matrix

    def explain(self, flow: PolicyFlow, *, hairpin: bool = False) -> Explanation:
        """The verdict of a flow and the reasons. Raises InputError for an endpoint that does not exist.

        With `hairpin` a pod's flow to itself is judged as one between two pods.
        """
        source, destination = self.ends(flow)
        egress = self._direction(flow, Direction.EGRESS, source, destination, hairpin)
        ingress = self._direction(flow, Direction.INGRESS, destination, source, hairpin)
        return Explanation(flow, both(egress.verdict, ingress.verdict), egress, ingress)

    def direction_of(
        self, flow: PolicyFlow, direction: Direction, own: PolicyParty, peer: PolicyParty
    ) -> DirectionResult:
        """What the policies of `own` say of a flow with a party that may be no object of the cluster.

        Of `flow` the protocol and the port count.
        """
        return self._direction(flow, direction, own, peer)

    def without(self, traits: frozenset[Trait], namespace: str) -> PolicyEngine:
        """An engine for the pods of one namespace, as if the enforcer kept to the API in some respects."""
        key = (traits, namespace)
        variant = self._variants.get(key)
        if variant is None:
            changed = copy.copy(self)
            changed._plans = {}
            exempt = self.enforcer.to_own_node_exempt or Trait.OWN_NODE in traits
            changed.enforcer = msgspec.structs.replace(self.enforcer, to_own_node_exempt=exempt)
            policies = list(self._less(traits, namespace))
            changed._by_namespace = defaultdict(list, {"": policies})
            variant = self._variants[key] = changed
        return variant

    def _less(self, traits: frozenset[Trait], namespace: str) -> Iterator[Policy]:
        """The policies that may select pods of a namespace, with some traits of the enforcer undone."""
        undone = {policy.ref for trait, policy in self._compiled.made if trait in traits}
        for policy in (*self._by_namespace[""], *self._by_namespace[namespace]):
            network_policy = policy.family is PolicyFamily.NETWORK_POLICY and policy.ref.kind == "NetworkPolicy"
            if policy.ref not in undone and not network_policy:
                yield self._compiled.narrowed.get(id(policy), policy) if Trait.BASELINE in traits else policy
        for obj in self.snapshot.of("NetworkPolicy", "networking.k8s.io"):
            if obj.namespace == namespace and doubtful(obj) is None:
                with contextlib.suppress(InputError):  # refused: its stand-in is among the others
                    yield self._compiled.network_policy(obj, traits)
        if Trait.UNREAD in traits:
            yield from self._compiled.unread

    def deviations(self, explanation: Explanation, direction: Direction) -> tuple[Deviation, ...]:
        """The documented deviations of the enforcer that decide a direction: by the API alone its verdict is another.

        One, where it decides alone; else all that can have a part in it.
        """
        flow, result = explanation.flow, explanation.direction(direction)
        source, destination = self.ends(flow)
        own, peer = (source, destination) if direction is Direction.EGRESS else (destination, source)
        own_node = peer.kind is PartyKind.HOST and peer.runs(own) is True
        fitting = [d for d in self.enforcer.deviations if d.fits(direction, peer.kind, own_node, own.owned)]
        if not fitting or own.kind is not PartyKind.POD:
            return ()

        def verdict(traits: frozenset[Trait]) -> PolicyVerdict:
            return self.without(traits, own.namespace).direction_of(flow, direction, own, peer).verdict

        by_the_api = verdict(self.enforcer.traits)
        if by_the_api is result.verdict:
            return ()
        alone = [d for d in fitting if verdict(frozenset((d.trait,))) is by_the_api]
        return tuple(alone[:1] or fitting)

    def verdict(self, flow: PolicyFlow) -> PolicyVerdict:
        """The verdict alone, as `explain` gives it, at the speed of a look-up where both ends are pods."""
        source, destination = flow.source, flow.destination
        by_sets = flow.protocol in PROTOCOLS and not (flow.protocol == "SCTP" and self.enforcer.why_no_sctp)
        if by_sets and source.name and destination.name and not (source.ip or destination.ip):
            classes = self.rows.classes
            from_class = classes.of_pod.get((source.namespace, source.name))
            to_class = classes.of_pod.get((destination.namespace, destination.name))
            if from_class is not None and to_class is not None and self._between(classes, from_class, to_class, flow):
                may_allow, may_deny = self.rows.may(from_class, to_class, flow.protocol, flow.port)
                if may_allow:
                    return PolicyVerdict.UNKNOWN if may_deny else PolicyVerdict.ALLOW
                return PolicyVerdict.DENY
        return self.explain(flow).verdict

    @staticmethod
    def _between(classes: PodClasses, source: int, destination: int, flow: PolicyFlow) -> bool:
        """Whether the classes' sets tell all: not for a pod to itself, for hosts, or where IP families differ."""
        if source == destination and flow.source == flow.destination:
            return False
        return classes.plain[source] is not None and classes.plain[source] == classes.plain[destination]

    def isolating(self, pod: PolicyEndpoint | tuple[str, str], direction: Direction) -> tuple[ObjectRef, ...]:
        """The policies that isolate a pod (an endpoint, or namespace and name) in a direction, as they are consulted.

        What an option of the enforcer amounts to is no policy. Raises InputError for a pod that isn't there.
        """
        endpoint = PolicyEndpoint(*pod) if isinstance(pod, tuple) else pod
        plan = self.plan(self.parties.of(endpoint), direction)
        made = self.by_option
        return tuple(
            s.policy.ref
            for _, tier in plan
            for s in tier
            if s.certain and s.policy.isolates(direction) and s.policy.ref not in made
        )

    @property
    def by_option(self) -> frozenset[ObjectRef]:
        """The objects that set an option of the enforcer which acts like a policy."""
        return frozenset(policy.ref for _, policy in self._compiled.made)

    def plan(self, own: PolicyParty, direction: Direction) -> Plan:
        """The tiers, and in each the policies that select a pod, in the order in which they are consulted."""
        if own.kind is not PartyKind.POD:
            return ()
        key = (own.namespace, own.name, direction)
        plan = self._plans.get(key)
        if plan is None:
            selected = []
            for policy in (*self._by_namespace[""], *self._by_namespace[own.namespace]):
                if policy.applies(direction):
                    value = policy.subject.match(own, own).value
                    if value is not False:
                        selected.append(Selected(policy, value is True and not policy.not_evaluated))
            plan = self._plans[key] = self.in_tiers(selected)
        return plan

    def in_tiers(self, selected: Sequence[Selected]) -> Plan:
        by_tier: dict[str, list[Selected]] = defaultdict(list)
        for policy in selected:
            by_tier[policy.policy.tier].append(policy)
        return tuple(
            (tier, tuple(sorted(by_tier[tier.name], key=lambda s: s.policy.order)))
            for tier in self.tiers
            if tier.name in by_tier
        )

    def ends(self, flow: PolicyFlow) -> tuple[PolicyParty, PolicyParty]:
        """The parties of a flow, both with an address of the family that the flow uses."""
        address = address_of(flow.destination.ip) or address_of(flow.source.ip)
        if address is None and flow.destination.name:
            first = self.parties.of(flow.destination).address
            address = first
        version = address.version if address else 0
        return self.parties.of(flow.source, version), self.parties.of(flow.destination, version)

    def _direction(
        self, flow: PolicyFlow, direction: Direction, own: PolicyParty, peer: PolicyParty, hairpin: bool = False
    ) -> DirectionResult:
        early = exemption(self.enforcer, self.host_policies, own, peer, hairpin=hairpin)
        if early is not None:
            return early
        result = self._judged(flow, direction, own, peer)
        refused = tuple(
            NotEvaluated(str(r.ref), r.field, f"{NOT_IN_FORCE}: {r.why}")
            for r in self.refused
            if direction in r.directions and r.subject.match(own, own).value is not False
        )
        if refused:
            result = msgspec.structs.replace(result, not_evaluated=(*result.not_evaluated, *refused))
        if flow.protocol == "SCTP" and self.enforcer.why_no_sctp and result.verdict is PolicyVerdict.ALLOW:
            return _unknown(result, NotEvaluated(self.enforcer.title, "", self.enforcer.why_no_sctp))
        return result

    def _judged(self, flow: PolicyFlow, direction: Direction, own: PolicyParty, peer: PolicyParty) -> DirectionResult:
        plan = self.plan(own, direction)
        own_node = peer.runs(own) if peer.kind is PartyKind.HOST else False
        if own_node and direction is Direction.INGRESS:
            return self._from_own_node(flow, own, peer, plan)
        if own_node and self.enforcer.to_own_node_exempt:
            return self._to_own_node(flow, own, peer, plan)
        result = explain_direction(flow, direction, own, peer, plan)
        if flow.protocol not in PROTOCOLS and plan:
            why = f"they say nothing about {flow.protocol}, only about TCP, UDP and SCTP"
            return _unknown(result, NotEvaluated("policies", "", why))
        if own_node is None and result.verdict is not PolicyVerdict.ALLOW:
            why = "it has no node yet; the node that will run it may always talk with it"
            note = NotEvaluated(f"Pod {own.text}", "spec.nodeName", why)
            return msgspec.structs.replace(result, not_evaluated=(*result.not_evaluated, note))
        return result

    def _from_own_node(self, flow: PolicyFlow, own: PolicyParty, peer: PolicyParty, plan: Plan) -> DirectionResult:
        """A flow from the node that runs the pod. It passes, whatever isolates the pod; Cilium's deny rules go before that
        (option allow-localhost adds an allow of last resort)."""
        denying = [
            policy
            for _, chosen in plan
            for policy in chosen
            if policy.policy.family is PolicyFamily.CILIUM
            and any(r.action is RuleAction.DENY for r in policy.policy.ingress)
        ]
        result = explain_direction(flow, Direction.INGRESS, own, peer, self.in_tiers(denying))
        if result.reason is not Reason.DEFAULT:
            return result
        closed = self.enforcer.own_node_closed
        by_option = all(chosen.policy.ref in self.by_option for _, policies in plan for chosen in policies)
        if closed is not None and plan and by_option:
            isolated = explain_direction(flow, Direction.INGRESS, own, peer, plan)
            return isolated if closed.certain else _unknown(isolated, NotEvaluated("policies", "", closed.why))
        return DirectionResult(PolicyVerdict.ALLOW, Reason.OWN_NODE)

    def _to_own_node(self, flow: PolicyFlow, own: PolicyParty, peer: PolicyParty, plan: Plan) -> DirectionResult:
        """A flow to the node that runs the pod: "traffic to and from the node where a Pod is running is always allowed"
        is said of NetworkPolicy only (Kubernetes documentation, "Network Policies"), so the other kinds are judged."""
        others = [s for _, chosen in plan for s in chosen if s.policy.family is not PolicyFamily.NETWORK_POLICY]
        result = explain_direction(flow, Direction.EGRESS, own, peer, self.in_tiers(others))
        return DirectionResult(PolicyVerdict.ALLOW, Reason.OWN_NODE) if result.reason is Reason.DEFAULT else result


class Changed(NamedTuple):
    """An engine after a change or before one, and the compiled policies that differ."""

    engine: PolicyEngine
    removed: tuple[Policy, ...]
    added: tuple[Policy, ...]


def _namespace_of(policy: Policy) -> str:
    """The only namespace whose pods a policy can select, "" for any."""
    subject = policy.subject
    return subject.namespace if isinstance(subject, PodsPeer | IdentityPeer) else ""


def _unknown(result: DirectionResult, note: NotEvaluated) -> DirectionResult:
    notes = (*result.not_evaluated, note)
    return DirectionResult(PolicyVerdict.UNKNOWN, Reason.NOT_EVALUATED, result.isolated_by, (), result.policies, notes)
