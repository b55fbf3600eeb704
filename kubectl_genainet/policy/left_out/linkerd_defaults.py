"""What Linkerd's proxy refuses by default, as policies that may deny: it also admits what Servers and authorizations say, which
are not evaluated. Source: Linkerd, "Authorization Policy" (default policies).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.policy.left_out.unevaluated import StandIn, Unevaluated
from kubectl_genainet.policy.matching.mesh import linkerd_defaults
from kubectl_genainet.policy.matching.node_peers import OutsidePeer
from kubectl_genainet.policy.matching.party import PolicyParty
from kubectl_genainet.policy.matching.peers import YES, Match, Peer, no
from kubectl_genainet.policy.model import PolicyFamily, RuleAction, Term
from kubectl_genainet.policy.rules import OTHER_TIER, Policy, PolicyRule

_OPTION = "default-inbound-policy"
_REFUSES = {
    "deny": "everybody",
    "all-authenticated": "clients without a proxy of the mesh",
    "cluster-authenticated": "clients without a proxy of the mesh",
    "cluster-unauthenticated": "clients outside the cluster",
}


class _DefaultPeer(msgspec.Struct, frozen=True):
    """Pods whose proxy of Linkerd's has this default; "" stands for clients without a proxy."""

    default: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if (party.linkerd == self.default) if self.default else not party.linkerd:
            return YES
        wanted = f"a pod with {_OPTION} {self.default}" if self.default else "a client without a proxy of the mesh"
        return no(Term.POD, wanted, party.text, "")


def linkerd_refusals(snapshot: ClusterSnapshot) -> Iterator[StandIn]:
    """A policy for each default that refuses somebody."""
    for default in sorted(linkerd_defaults(snapshot) & _REFUSES.keys()):
        ref = ObjectRef(_OPTION, default)
        why = f"by default Linkerd's proxy refuses {_REFUSES[default]}, unless its authorizations admit them"
        rule = PolicyRule(1, RuleAction.DENY, "", peers=_refused(default), not_evaluated=(("", why),))
        order = (-1, default)
        policy = Policy(ref, PolicyFamily.OTHER, OTHER_TIER.name, _DefaultPeer(default), order, ingress=(rule,))
        yield StandIn(policy, Unevaluated(ref, why))


def _refused(default: str) -> tuple[Peer, ...] | None:
    if default == "deny":
        return None
    return (OutsidePeer(),) if default == "cluster-unauthenticated" else (_DefaultPeer(""),)
