"""Peers that are no pods: the node that runs the pod, and everything outside the pods' network."""

from __future__ import annotations

import msgspec

from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.matching.peers import YES, Match, no
from kubectl_genainet.policy.model import Term


class OwnNodePeer(msgspec.Struct, frozen=True):
    """The node that runs the policy's own pod."""

    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        runs = party.runs(own) if party.kind is PartyKind.HOST else False
        if runs is None:
            return Match(None, why=f"{own.text} has no node yet")
        return YES if runs else no(Term.NODE, f"the node that runs {own.text}", party.text, self.field)


class OutsidePeer(msgspec.Struct, frozen=True):
    """Everything but pods that have a network of their own."""

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if party.kind is not PartyKind.POD:
            return YES
        return no(Term.POD, "no pod", party.text, "")


class OnNodesPeer(msgspec.Struct, frozen=True):
    """Pods that run on some nodes."""

    nodes: frozenset[str]
    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if not party.node:
            return Match(None, why=f"{party.text} has no node yet")
        if party.node in self.nodes:
            return YES
        return no(Term.NODE, f"a pod on {', '.join(sorted(self.nodes))}", party.text, self.field)


class ElsewherePeer(msgspec.Struct, frozen=True):
    """Everything but the pods of the own pod's node, and that node."""

    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if party.kind is not PartyKind.OUTSIDE and party.node and party.node == own.node:
            return no(Term.NODE, "traffic that crosses an interface of the node", party.text, self.field)
        return YES
