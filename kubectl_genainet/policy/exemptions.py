"""Flows that pass, or hang on something else, before any policy of pods is consulted."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.policy.enforcers import Enforcer
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.model import DirectionResult, NotEvaluated, PolicyVerdict, Reason
from kubectl_genainet.policy.rules import HostPolicy


def exemption(
    enforcer: Enforcer, host_policies: Sequence[HostPolicy], own: PolicyParty, peer: PolicyParty, *, hairpin: bool
) -> DirectionResult | None:
    """The result where no policy of pods is consulted, or None. With `hairpin` a pod's flow to itself is judged."""
    if (own.same_pod(peer) and not hairpin) or _loopback(own) or _loopback(peer):
        return DirectionResult(PolicyVerdict.ALLOW, Reason.LOOPBACK)
    if own.kind is PartyKind.OUTSIDE:
        return DirectionResult(PolicyVerdict.ALLOW, Reason.OUTSIDE)
    if enforcer.inert:
        return DirectionResult(PolicyVerdict.ALLOW, Reason.INERT)
    if own.kind is PartyKind.POD:
        return None
    notes = tuple(
        NotEvaluated(str(policy.ref), "", policy.why) for policy in host_policies if policy.concerns(own, peer)
    )
    if notes:
        return DirectionResult(PolicyVerdict.UNKNOWN, Reason.NOT_EVALUATED, not_evaluated=notes)
    return DirectionResult(PolicyVerdict.ALLOW, Reason.HOST_NETWORK if own.name else Reason.OUTSIDE)


def _loopback(party: PolicyParty) -> bool:
    address = party.address
    if address is None or party.kind is PartyKind.POD:
        return False
    return address.value >> 24 == 127 if address.version == 4 else address.value == 1
