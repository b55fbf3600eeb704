"""Peers that are no pods: the node that runs the pod, and everything outside the pods' network."""

from __future__ import annotations

import msgspec

from kubectl_genainet.policy.matching.party import Party, PartyKind
from kubectl_genainet.policy.matching.peers import YES, Match, no
from kubectl_genainet.policy.model import Term


class OwnNodePeer(msgspec.Struct, frozen=True):
    """The node that runs the policy's own pod."""

    field: str

    def match(self, party: Party, own: Party) -> Match:
        runs = party.runs(own) if party.kind is PartyKind.HOST else False
        if runs is None:
            return Match(None, why=f"{own.text} has no node yet")
        return YES if runs else no(Term.NODE, f"the node that runs {own.text}", party.text, self.field)


class OutsidePeer(msgspec.Struct, frozen=True):
    """Everything but pods that have a network of their own."""

    def match(self, party: Party, own: Party) -> Match:
        if party.kind is not PartyKind.POD:
            return YES
        return no(Term.POD, "no pod", party.text, "")
