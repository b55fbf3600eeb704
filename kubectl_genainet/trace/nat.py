"""Which rule translated a connection's packets, or that no rule did."""

from __future__ import annotations

from kubectl_genainet.context.rulesets import Rulesets
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.results.path import BY_ENTRY, Nat
from kubectl_genainet.proxy import NatAttribution, Packet, Ruleset, attribute_nat, evaluate
from kubectl_genainet.trace.exact import ExactHits
from kubectl_genainet.trace.hops import Translation


def nat_of(translation: Translation, rulesets: Rulesets, exact: ExactHits, *, opens: bool) -> Nat:
    """The translation with the rule that does it: named by the kernel, or by the node's rules as they are or were. `opens`: the
    packet makes its connection's entry, so that none can have been there before."""
    node, before, after = translation.node, translation.before, translation.after
    ruleset, _ = rulesets.of(node)
    observed = exact.translation(ruleset, node, before) if ruleset is not None else None
    attributed = observed or _attributed(ruleset, before, after)
    for earlier in rulesets.earlier(node) if attributed is None else ():
        attributed = attributed or attribute_nat(earlier, before, after)
    by_entry = attributed is None and not opens and ruleset is not None and _lead_elsewhere(ruleset, before)
    certainty = Certainty.OBSERVED if observed else Certainty.DERIVED if attributed or by_entry else Certainty.UNKNOWN
    return Nat(
        mode=attributed.mode if attributed else BY_ENTRY if by_entry else "unknown",
        service_chain=attributed.service_chain if attributed else None,
        endpoint_chain=attributed.endpoint_chain if attributed else None,
        certainty=certainty,
        hop=translation.hop,
        before=before.destination,
        after=after.destination,
        masqueraded=translation.masqueraded,
    )


def _attributed(ruleset: Ruleset | None, before: FiveTuple, after: FiveTuple) -> NatAttribution | None:
    return attribute_nat(ruleset, before, after) if ruleset is not None else None


def _lead_elsewhere(ruleset: Ruleset, before: FiveTuple) -> bool:
    """Whether the rules are known to translate such a packet, all of their ways to other ends than it was seen to go."""
    outcome = evaluate(ruleset, Packet.of(before))
    return bool(outcome.backends) and not outcome.unknown
