"""Options of iptables' conntrack match as conditions. Source: net/netfilter/xt_conntrack.c."""

from __future__ import annotations

from kubectl_genainet.proxy.evaluator import conditions
from kubectl_genainet.proxy.evaluator.ir import Rule
from kubectl_genainet.proxy.evaluator.packet.protocols import PROTOCOLS
from kubectl_genainet.proxy.evaluator.packet.state import Condition, State
from kubectl_genainet.proxy.iptables.reader import Reader, RuleContext, network, ports


def unless_traced(r: Reader, condition: Condition) -> Condition:
    """Without a connection neither the condition nor its negation matches (connmark_mt, conntrack_mt)."""
    inverted, r.negated = r.negated, False
    positive = conditions.negate(condition) if inverted else condition
    return lambda s: positive(s) if s.traced else False


def state(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    return conditions.ct_state_in(frozenset(r.next().upper().split(",")))


_STATUS = {"EXPECTED": 1, "SEEN_REPLY": 2, "ASSURED": 4, "CONFIRMED": 8, "SNAT": 16, "DNAT": 32, "NONE": 0}


def status(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    bits = sum(_STATUS[name] for name in r.next().upper().split(","))
    return unless_traced(r, conditions.ct_status_has(bits))


def original_destination(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    net, mask, _ = network(r.next())
    return unless_traced(r, lambda s: s.orig_dst & mask == net)


def original_source(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    net, mask, _ = network(r.next())

    def condition(s: State) -> bool | None:
        source = conditions.get_original_source(s)
        return None if source is None else source & mask == net

    return unless_traced(r, condition)


def reply_source(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    """Replies come from where the packet is sent to after DNAT."""
    return unless_traced(r, conditions.destination_in(*network(r.next())))


def reply_destination(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    """Replies go to where the packet comes from after SNAT."""
    return unless_traced(r, conditions.source_in(*network(r.next())))


def original_dport(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    low, high = ports(r.next())
    return unless_traced(r, lambda s: None if s.orig_dport is None else low <= s.orig_dport <= high)


def protocol(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    name = r.next().lower()
    return unless_traced(r, conditions.protocol_is(PROTOCOLS[name] if name in PROTOCOLS else int(name)))


def direction(c: RuleContext, r: Reader, rule: Rule) -> Condition:
    original = r.next().upper() == "ORIGINAL"
    return unless_traced(r, lambda s: original if s.ct == "NEW" else None)
