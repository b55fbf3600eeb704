"""From a translation that was observed to the chain and the rule that did it."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.proxy.evaluator.evaluate import evaluate
from kubectl_genainet.proxy.evaluator.model import NatAttribution, Packet, translates
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.names import SERVICE_CHAINS, parse_nftables_chain, service_of
from kubectl_genainet.proxy.ruleset import Ruleset


def attribute_nat(
    ruleset: Ruleset, before: FiveTuple, after: FiveTuple, *, node_ips: Sequence[str] | None = None
) -> NatAttribution | None:
    """The rules that turn the tuple `before` into `after`; None where none of this node's rules does.

    A reply that gets its Service address back (only the source changes) is attributed to the rule that had
    translated the request.
    """
    if before.dst == after.dst and before.dport == after.dport:
        if before.src == after.src:
            return None
        before, after = after.reversed, before.reversed
    evaluation = evaluate(ruleset, Packet.of(before), node_ips=node_ips)
    wanted = (canonical_ip(after.dst), after.dport)
    for outcome in evaluation.outcomes:
        backend = outcome.backend
        if backend is not None and (canonical_ip(backend.ip), backend.port) == wanted:
            return attribution_of(outcome.rules, outcome.masquerade)
    return None


def attribution_of(rules: Sequence[RuleRef], masquerade: bool | None = None) -> NatAttribution | None:
    """What the rules that a packet passed, in order, say of its translation; None where none of them translates."""
    translating = next((i for i in reversed(range(len(rules))) if translates(rules[i])), None)
    if translating is None:
        return None
    rule, passed = rules[translating], tuple(rules[: translating + 1])
    if rule.table == "ipvs":
        return NatAttribution("ipvs", rule.chain, rule.text, None, passed, masquerade)
    nft = " " in rule.table
    chains = list(dict.fromkeys(r.chain for r in passed))
    services = [c for c in chains if _is_service_chain(c, nft)]
    return NatAttribution(
        "nftables" if nft else "iptables",
        services[-1] if services else None,
        None if services and services[-1] == rule.chain else rule.chain,
        service_of(reversed(passed)),
        passed,
        masquerade,
    )


def _is_service_chain(chain: str, nft: bool) -> bool:
    if not nft:
        return chain.startswith(SERVICE_CHAINS)
    parsed = parse_nftables_chain(chain)
    return parsed is not None and not parsed.endpoint
