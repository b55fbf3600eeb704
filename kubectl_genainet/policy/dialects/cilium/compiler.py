"""Compiles CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: layers 3 and 4, entities, names, deny rules.

Source: Cilium, pkg/policy/utils (RulesToPolicyEntries) and pkg/policy (rule.go, repository.go). All of a pod's policies are
united, NetworkPolicies too; deny rules go before all allow rules. A direction isolates when it has a rule, unless
enableDefaultDeny says otherwise. Layer 7 is not evaluated: a rule that has it may or may not pass a connection's requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.dialects.cilium.blocks import groups_of
from kubectl_genainet.policy.dialects.cilium.checks import check_rule, dns_rules, not_in_deny_rules
from kubectl_genainet.policy.dialects.cilium.names import Lookups, name_pattern
from kubectl_genainet.policy.dialects.cilium.netpol import as_enforced
from kubectl_genainet.policy.dialects.cilium.options import identities_of, options_of
from kubectl_genainet.policy.dialects.cilium.rules import RuleReader
from kubectl_genainet.policy.dialects.cilium.selectors import subject_peer
from kubectl_genainet.policy.dialects.cilium.shapes import RawCiliumPolicy, RawCiliumRule, RawCiliumSpec, RawFqdn
from kubectl_genainet.policy.enforcers.base import Trait
from kubectl_genainet.policy.identity import IdentityPeer
from kubectl_genainet.policy.matching.peers import AnyPeer, Peer, PodsPeer
from kubectl_genainet.policy.model import Direction, PolicyFamily, RuleAction
from kubectl_genainet.policy.rules import DEFAULT_TIER, NETWORK_POLICY_ORDER, HostPolicy, Policy, PolicyRule, Refused
from kubectl_genainet.policy.where import Where, unknown_fields

# Before and among NetworkPolicies, in the default tier.
_DENY_ORDER = (0, 0.0)
_ALLOW_ORDER = (1, NETWORK_POLICY_ORDER)
_OF_NODES = "it is about nodes, and policies of nodes are not evaluated"
_INIT_KEYS = frozenset({("reserved", "init")})


class CiliumCompiler:
    """Compiles Cilium's policies of one snapshot.

    `enforces` says whether Cilium enforces the cluster's policies at all; `host_policies` gathers those that select nodes,
    `refused` those that are not in force.
    """

    def __init__(self, snapshot: ClusterSnapshot, *, enforces: bool) -> None:
        self.enforces = enforces
        self.options = options_of(snapshot)
        self.identities = identities_of(snapshot, self.options)
        self.host_policies: list[HostPolicy] = []
        self.refused: list[Refused] = []
        self.lookups = Lookups()
        self.reader = RuleReader(snapshot, self.options, self.identities, self.lookups, groups_of(snapshot))

    def as_enforced(self, policy: Policy, without: frozenset[Trait] = frozenset()) -> Policy:
        """A NetworkPolicy as it applies in this cluster; compiled with the rules of both directions under Cilium."""
        return as_enforced(policy, self.reader, self.identities, without) if self.enforces else policy

    def compile(self, obj: KubeObject) -> tuple[Policy, ...]:
        """The policies that an object stands for: for each spec one that allows and, if need be, one that denies. None
        where it selects nodes. Raises InputError for what is refused."""
        return tuple(self._compile(obj))

    def _compile(self, obj: KubeObject) -> Iterator[Policy]:
        raw = obj.decode(RawCiliumPolicy)
        specs = [("spec", raw.spec)] if raw.spec else []
        specs += [(f"specs[{i}]", spec) for i, spec in enumerate(raw.specs or ())]
        if not specs and raw.specs is None:
            raise Where(obj).error("a policy needs spec or specs")
        for field, spec in specs:
            where = Where(obj, field)
            if (spec.endpoint_selector is None) == (spec.node_selector is None):
                raise where.error("exactly one of endpointSelector and nodeSelector is needed")
            if not (spec.ingress or spec.ingress_deny or spec.egress or spec.egress_deny):
                problem = "at least one of ingress, ingressDeny, egress and egressDeny needs a rule"
                raise where.error(f"{problem}: the agent refuses the policy")
            if spec.node_selector is not None and obj.namespace:
                raise where.at("nodeSelector").error("nodeSelector is for CiliumClusterwideNetworkPolicy only")
        unread = [note for field, spec in specs for note in self._unread_options(spec, Where(obj, field))]
        for field, spec in specs:
            if spec.node_selector is not None:
                if self.options.host_firewall or not self.options.read:
                    self.host_policies.append(HostPolicy(obj.ref, _OF_NODES))
            else:
                yield from self._compile_spec(obj, spec, Where(obj, field), unread)

    def _compile_spec(
        self, obj: KubeObject, spec: RawCiliumSpec, where: Where, unread: list[tuple[str, str]]
    ) -> Iterator[Policy]:
        assert spec.endpoint_selector is not None
        subject = subject_peer(spec.endpoint_selector, self.identities, where.at("endpointSelector"))
        raw = obj.raw["spec"] if where.field == "spec" else obj.raw["specs"][int(where.field[6:-1])]
        unsure = [(one.field, one.why(obj.kind)) for one in unknown_fields(raw, RawCiliumSpec, where.field)]
        unsure += unread
        for side, rules in (("ingressDeny", spec.ingress_deny), ("egressDeny", spec.egress_deny)):
            unsure += not_in_deny_rules(rules, where.at(side))
        isolates = _isolates(spec)
        admitting = Policy(
            ref=obj.ref,
            family=PolicyFamily.CILIUM,
            tier=DEFAULT_TIER.name,
            subject=subject,
            order=(*_ALLOW_ORDER, obj.name, obj.namespace),
            egress=self._rules(spec.egress, where.at("egress"), Direction.EGRESS, RuleAction.ALLOW, subject),
            ingress=self._rules(spec.ingress, where.at("ingress"), Direction.INGRESS, RuleAction.ALLOW, subject),
            isolates_egress=isolates[Direction.EGRESS],
            isolates_ingress=isolates[Direction.INGRESS],
            not_evaluated=tuple(unsure),
        )
        egress_deny = self._rules(spec.egress_deny, where.at("egressDeny"), Direction.EGRESS, RuleAction.DENY, subject)
        ingress_deny = self._rules(
            spec.ingress_deny, where.at("ingressDeny"), Direction.INGRESS, RuleAction.DENY, subject
        )
        self._note_lookups(spec, subject, obj.namespace)
        if egress_deny or ingress_deny:
            yield msgspec.structs.replace(
                admitting,
                order=(*_DENY_ORDER, obj.name, obj.namespace),
                egress=egress_deny,
                ingress=ingress_deny,
                isolates_egress=False,
                isolates_ingress=False,
            )
        yield admitting

    def _rules(
        self,
        rules: tuple[RawCiliumRule, ...],
        where: Where,
        direction: Direction,
        action: RuleAction,
        subject: IdentityPeer,
    ) -> tuple[PolicyRule, ...]:
        init = any((t.source, t.key) in _INIT_KEYS for t in subject.terms)
        compiled = []
        for i, raw in enumerate(rules):
            check_rule(raw, where.item(i), direction, action)
            compiled.append(self.reader.rule(i, raw, where.item(i), direction, action, init=init))
        return tuple(compiled)

    def _unread_options(self, spec: RawCiliumSpec, where: Where) -> Iterator[tuple[str, str]]:
        """fromNodes and toNodes: refused unless the agent has node labels, which is an option."""
        for side, rules in (
            ("ingress", spec.ingress),
            ("ingressDeny", spec.ingress_deny),
            ("egress", spec.egress),
            ("egressDeny", spec.egress_deny),
        ):
            for i, rule in enumerate(rules):
                name = "fromNodes" if rule.from_nodes else "toNodes" if rule.to_nodes else ""
                if not name or self.options.enable_node_selector_labels:
                    continue
                option_field = where.at(side).item(i).at(name)
                option = "enable-node-selector-labels"
                if self.options.read:
                    raise option_field.error(
                        f"{name} needs the agent's option {option}, which is off: the agent refuses the policy"
                    )
                why = (
                    f"unless the agent's option {option} is on (off by default; it was not read), the policy is refused"
                )
                yield option_field.field, why

    def _note_lookups(self, spec: RawCiliumSpec, subject: IdentityPeer, namespace: str) -> None:
        for rule in spec.egress:
            for ports in rule.to_ports or ():
                for dns in dns_rules(ports):
                    fqdn = RawFqdn(str(dns.get("matchName", "")), str(dns.get("matchPattern", "")))
                    self.lookups.add(subject, namespace, name_pattern(fqdn))

    def refuse(self, obj: KubeObject, error: InputError) -> None:
        """Notes an object that its agent does not take."""
        sides = {"ingress": Direction.INGRESS, "egress": Direction.EGRESS}
        specs = [s for s in (obj.raw.get("spec"), *_listed(obj.raw.get("specs"))) if isinstance(s, dict)]
        keys = {key.removesuffix("Deny") for spec in specs for key in spec if spec[key]}
        directions = frozenset(d for side, d in sides.items() if side in keys) or frozenset(Direction)
        subject = self._subject_of(obj, specs)
        self.refused.append(Refused(obj.ref, subject, directions, error.field, error.problem, obj.source))

    def _subject_of(self, obj: KubeObject, specs: list[dict[str, Any]]) -> Peer:
        every: Peer = PodsPeer(namespace=obj.namespace) if obj.namespace else AnyPeer()
        try:
            raw = obj.decode(RawCiliumPolicy)
            selector = raw.spec.endpoint_selector if raw.spec and len(specs) == 1 else None
            return subject_peer(selector, self.identities, Where(obj, "spec.endpointSelector")) if selector else every
        except InputError:
            return every


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _isolates(spec: RawCiliumSpec) -> dict[Direction, bool]:
    """Only rules isolate: enableDefaultDeny without a rule of that direction does nothing."""
    has_egress, has_ingress = bool(spec.egress or spec.egress_deny), bool(spec.ingress or spec.ingress_deny)
    default = spec.enable_default_deny
    return {
        Direction.EGRESS: has_egress and default.egress is not False,
        Direction.INGRESS: has_ingress and default.ingress is not False,
    }
