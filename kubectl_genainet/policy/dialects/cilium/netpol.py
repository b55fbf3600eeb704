"""NetworkPolicies as Cilium enforces them: compiled by the API, then selected by identity.

What differs from the API: blocks select neither pods nor nodes; labels outside an identity select nothing; the node that
runs a pod is not exempt from its egress; rules of a direction that policyTypes leaves out apply all the same.
Source: Cilium, pkg/k8s/network_policy.go.
"""

from __future__ import annotations

import msgspec

from kubectl_genainet.policy.dialects.cilium.rules import RuleReader
from kubectl_genainet.policy.enforcers.base import Trait
from kubectl_genainet.policy.identity import (
    NAMESPACE_LABELS,
    POD_NAMESPACE,
    IdentityPeer,
    IdentityScheme,
    LabelTerm,
)
from kubectl_genainet.policy.matching.peers import BlockPeer, Peer, PodsPeer
from kubectl_genainet.policy.matching.selectors import Operator, Selector
from kubectl_genainet.policy.model import Direction
from kubectl_genainet.policy.rules import NamedPortTerm, Policy, PolicyRule, Ports

Traits = frozenset[Trait]


def as_enforced(
    policy: Policy, reader: RuleReader, identities: IdentityScheme, without: Traits = frozenset()
) -> Policy:
    """A compiled NetworkPolicy with the rules of both directions, as the agent takes it; less the traits `without`."""
    return msgspec.structs.replace(
        policy,
        subject=_peer(policy.subject, reader, identities, without),
        egress=tuple(_rule(r, reader, identities, without) for r in policy.egress),
        ingress=tuple(_with_ranges(_rule(r, reader, identities, without), reader) for r in policy.ingress),
        isolates_egress=policy.isolates(Direction.EGRESS) or bool(policy.egress),
        isolates_ingress=policy.isolates(Direction.INGRESS) or bool(policy.ingress),
    )


def _rule(rule: PolicyRule, reader: RuleReader, identities: IdentityScheme, without: Traits) -> PolicyRule:
    peers = rule.peers and tuple(_peer(p, reader, identities, without) for p in rule.peers)
    if Trait.NAMED_PORTS in without:
        return msgspec.structs.replace(rule, peers=peers)
    ports = tuple(tuple(_port(p) for p in alternatives) for alternatives in rule.ports)
    return msgspec.structs.replace(rule, peers=peers, ports=ports)


def _with_ranges(rule: PolicyRule, reader: RuleReader) -> PolicyRule:
    """A rule for ingress whose named ports may stand for ranges, as rules of Cilium's own say."""
    named = [term for terms in rule.ports for term in terms if isinstance(term, NamedPortTerm)] if reader.ranges else []
    notes = tuple((term.field, why) for term in named if (why := reader.ranges.note(term.name)))
    if not notes:
        return rule
    ports = tuple(
        tuple(reader.ranges.widest(term) if isinstance(term, NamedPortTerm) else term for term in terms)
        for terms in rule.ports
    )
    return msgspec.structs.replace(rule, ports=ports, not_evaluated=(*rule.not_evaluated, *notes))


def _port(term: Ports) -> Ports:
    return msgspec.structs.replace(term, of_hosts=False, of_sidecars=False) if isinstance(term, NamedPortTerm) else term


def _peer(peer: Peer, reader: RuleReader, identities: IdentityScheme, without: Traits) -> Peer:
    if isinstance(peer, BlockPeer):
        return peer if Trait.BLOCKS in without else reader.as_block(peer)
    if not isinstance(peer, PodsPeer) or Trait.IDENTITIES in without:
        return peer
    pods = _terms(peer.pods, "")
    field = peer.pods_field or peer.namespaces_field
    if peer.namespace:
        own = LabelTerm("k8s", POD_NAMESPACE, Operator.IN, (peer.namespace,))
        return IdentityPeer((own, *pods), identities, field, peer.namespace)
    some = LabelTerm("k8s", POD_NAMESPACE, Operator.EXISTS)
    return IdentityPeer((some, *_terms(peer.namespaces, NAMESPACE_LABELS), *pods), identities, field)


def _terms(selector: Selector, prefix: str) -> tuple[LabelTerm, ...]:
    return tuple(LabelTerm("k8s", prefix + r.key, r.operator, r.values) for r in selector.requirements)
