"""Rules that a release of the enforcer may take otherwise than the API says.

Such a rule becomes two: what it matches in either case, and what it matches by the API, which is not known to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.dialects.cilium.names import NamePeer
from kubectl_genainet.policy.dialects.kubernetes import compile_network_policy
from kubectl_genainet.policy.enforcers.base import Doubt
from kubectl_genainet.policy.identity import NAMESPACE_LABELS, POD_NAMESPACE, IdentityPeer, LabelTerm
from kubectl_genainet.policy.matching.peers import AllOfPeer, AnyOfPeer, BlockPeer, NotPeer, Peer
from kubectl_genainet.policy.matching.selectors import Operator
from kubectl_genainet.policy.model import Direction, Term
from kubectl_genainet.policy.rules import NamedPortTerm, NoPorts, NumberedPorts, Policy, PolicyRule, Ports, Premise

_EVERY_PORT = (0, 65535)
_DEEP = "**."
_LAST_PRIORITY = 99
_DEFAULT_DENY = "enableDefaultDeny"


class Hedges:
    """What is in doubt, with the names of ports that pods of the snapshot give several numbers."""

    def __init__(self, doubts: Sequence[tuple[Doubt, str]], snapshot: ClusterSnapshot) -> None:
        self._doubts = tuple(pair for pair in doubts if pair[0] is not Doubt.SCTP)
        numbers: dict[tuple[str, str], set[int]] = {}
        for pod in snapshot.pods if any(doubt is Doubt.SHARED_NAMES for doubt, _ in doubts) else ():
            for port in pod.ports:
                numbers.setdefault((port.name, port.protocol), set()).add(port.container_port)
        joined = any(doubt is Doubt.SHARED_EXCEPTS for doubt, _ in doubts)
        self._excepts = _excepts_by_namespace(snapshot) if joined else {}
        self._shared = frozenset(name for name, of_name in numbers.items() if name[0] and len(of_name) > 1)

    def applied(self, policy: Policy) -> Policy:
        if not self._doubts:
            return policy
        return msgspec.structs.replace(
            policy,
            egress=tuple(split for rule in policy.egress for split in self._split(policy, rule, Direction.EGRESS)),
            ingress=tuple(split for rule in policy.ingress for split in self._split(policy, rule, Direction.INGRESS)),
        )

    def of_cilium(self, obj: KubeObject, policies: Iterable[Policy]) -> Iterator[Policy]:
        """What an object of Cilium's stands for, with what isolates where enableDefaultDeny may not be known."""
        compiled = tuple(policies)
        yield from map(self.applied, compiled)
        why = next((reason for doubt, reason in self._doubts if doubt is Doubt.DEFAULT_DENY), "")
        off = _not_isolating(obj) if why else frozenset()
        for policy in compiled if off else ():
            yield msgspec.structs.replace(
                policy,
                egress=(),
                ingress=(),
                isolates_egress="egress" in off,
                isolates_ingress="ingress" in off,
                not_evaluated=(),
                premises=(Premise(_DEFAULT_DENY, why),),
            )

    def of_administrators(self, policy: Policy, obj: KubeObject) -> Policy:
        """An administrators' policy, in doubt as a whole where its priority is."""
        why = next((reason for doubt, reason in self._doubts if doubt is Doubt.LATE_PRIORITIES), "")
        if not why or obj.kind != "AdminNetworkPolicy" or obj.raw["spec"]["priority"] <= _LAST_PRIORITY:
            return policy
        return msgspec.structs.replace(policy, premises=(*policy.premises, Premise("spec.priority", why)))

    def _split(self, policy: Policy, rule: PolicyRule, direction: Direction) -> tuple[PolicyRule, ...]:
        certain, notes = rule, rule.not_evaluated
        for doubt, why in self._doubts:
            less = self._less(policy, certain, doubt, direction)
            if less is not certain:
                certain, notes = less, (*notes, (rule.field, why))
        return (rule,) if certain is rule else (certain, msgspec.structs.replace(rule, not_evaluated=notes))

    def _less(self, policy: Policy, rule: PolicyRule, doubt: Doubt, direction: Direction) -> PolicyRule:
        match doubt:
            case Doubt.END_PORT:
                return _with_ports(rule, _first_alone)
            case Doubt.SHARED_NAMES if direction is Direction.EGRESS:
                return _with_ports(rule, self._not_shared)
            case Doubt.DEEP_NAMES:
                return _of_one_label(rule)
            case Doubt.SIDECAR_PORTS:
                return _with_ports(rule, _without_sidecars)
            case Doubt.JOINED_EXCEPTS:
                return _outside_excepts(rule)
            case Doubt.NAMESPACE_LABELS:
                return _in_namespace(rule, policy.ref.namespace)
            case Doubt.NAMES:
                return _with_ports(rule, _unnamed)
            case Doubt.SHARED_EXCEPTS:
                return _outside_shared(rule, self._excepts.get((policy.ref.namespace, direction), ()))
            case _:
                return rule

    def _not_shared(self, term: Ports) -> Ports:
        if not isinstance(term, NamedPortTerm):
            return term
        protocols = (term.protocol,) if term.protocol else ("TCP", "UDP", "SCTP")
        shared = any((term.name, protocol) in self._shared for protocol in protocols)
        return NoPorts(term.field, f"the name {term.name} stands for several numbers") if shared else term


def _not_isolating(obj: KubeObject) -> frozenset[str]:
    """The sides with rules that are not to isolate."""
    specs = [obj.raw.get("spec"), *(obj.raw.get("specs") or ())]
    return frozenset(
        side
        for spec in specs
        if isinstance(spec, dict) and isinstance(spec.get(_DEFAULT_DENY), dict)
        for side in ("egress", "ingress")
        if spec[_DEFAULT_DENY].get(side) is False and (spec.get(side) or spec.get(f"{side}Deny"))
    )


def _with_ports(rule: PolicyRule, change: Callable[[Ports], Ports]) -> PolicyRule:
    ports = tuple(tuple(map(change, alternatives)) for alternatives in rule.ports)
    return rule if ports == rule.ports else msgspec.structs.replace(rule, ports=ports)


def _first_alone(term: Ports) -> Ports:
    if not isinstance(term, NumberedPorts) or term.first == term.last or (term.first, term.last) == _EVERY_PORT:
        return term
    return msgspec.structs.replace(term, last=term.first)


def _without_sidecars(term: Ports) -> Ports:
    return msgspec.structs.replace(term, of_sidecars=False) if isinstance(term, NamedPortTerm) else term


def _unnamed(term: Ports) -> Ports:
    return NoPorts(term.field, "ports by their names are not known") if isinstance(term, NamedPortTerm) else term


def _in_namespace(rule: PolicyRule, namespace: str) -> PolicyRule:
    """The rule of a policy of a namespace with its peers by labels of namespaces in that namespace alone."""
    peers = rule.peers and tuple(
        _of_namespace(peer, namespace)
        if namespace and isinstance(peer, IdentityPeer) and _by_namespace_labels(peer)
        else peer
        for peer in rule.peers
    )
    return rule if peers == rule.peers else msgspec.structs.replace(rule, peers=peers)


def _of_namespace(peer: IdentityPeer, namespace: str) -> IdentityPeer:
    own = LabelTerm("k8s", POD_NAMESPACE, Operator.IN, (namespace,))
    return msgspec.structs.replace(peer, terms=(own, *peer.terms), unknown_too=False)


def _by_namespace_labels(peer: IdentityPeer) -> bool:
    """Whether a selector has labels of namespaces and does not say itself in which namespaces."""
    first, *others = peer.terms
    return any(term.key.startswith(NAMESPACE_LABELS) for term in others) and (
        (first.key, first.operator) == (POD_NAMESPACE, Operator.EXISTS)
        and all(term.key != POD_NAMESPACE for term in others)
    )


def _of_one_label(rule: PolicyRule) -> PolicyRule:
    peers = rule.peers and tuple(
        msgspec.structs.replace(peer, pattern="*." + peer.pattern.removeprefix(_DEEP))
        if isinstance(peer, NamePeer) and peer.pattern.startswith(_DEEP)
        else peer
        for peer in rule.peers
    )
    return rule if peers == rule.peers else msgspec.structs.replace(rule, peers=peers)


def _outside_excepts(rule: PolicyRule) -> PolicyRule:
    """The rule without the peers in an exception of some block of it."""
    peers = rule.peers or ()
    blocks = [peer for peer in peers if isinstance(peer, BlockPeer)]
    excepts = tuple(BlockPeer(block, (), peer.field) for peer in blocks for block in peer.excepts)
    if not excepts or len(peers) == 1:
        return rule
    outside = NotPeer(AnyOfPeer(excepts), Term.ADDRESS, "an address in no except of the rule", blocks[0].field)
    return msgspec.structs.replace(rule, peers=(AllOfPeer((AnyOfPeer(peers), outside)),))


def _outside_shared(rule: PolicyRule, excepts: Sequence[BlockPeer]) -> PolicyRule:
    """The rule without what lies in an exception, as far as it is a wider block that admits it."""
    if not excepts:
        return rule
    if rule.peers is None:
        return msgspec.structs.replace(rule, peers=(_outside(excepts),))
    peers = tuple(_narrowed(peer, excepts) for peer in rule.peers)
    return rule if peers == rule.peers else msgspec.structs.replace(rule, peers=peers)


def _narrowed(peer: Peer, excepts: Sequence[BlockPeer]) -> Peer:
    if not isinstance(peer, BlockPeer):
        return peer
    inner = [e for e in excepts if peer.block.includes(e.block) and e.block not in peer.excepts]
    return AllOfPeer((peer, _outside(inner))) if inner else peer


def _outside(excepts: Sequence[BlockPeer]) -> NotPeer:
    return NotPeer(
        AnyOfPeer(tuple(excepts)), Term.ADDRESS, "an address in no except of these policies", excepts[0].field
    )


def _excepts_by_namespace(snapshot: ClusterSnapshot) -> dict[tuple[str, Direction], tuple[BlockPeer, ...]]:
    """The exceptions in NetworkPolicies, of each namespace and direction."""
    by_place: dict[tuple[str, Direction], dict[BlockPeer, None]] = {}
    for obj in snapshot.of("NetworkPolicy", "networking.k8s.io"):
        try:
            policy = compile_network_policy(obj)
        except InputError:
            continue
        for direction in Direction:
            blocks = [
                peer for rule in policy.rules(direction) for peer in rule.peers or () if isinstance(peer, BlockPeer)
            ]
            found = {BlockPeer(e, (), block.field): None for block in blocks for e in block.excepts}
            by_place.setdefault((obj.namespace, direction), {}).update(found)
    return {place: tuple(found) for place, found in by_place.items()}
