"""Options of iptables' conntrack match as checks. Source: net/netfilter/xt_conntrack.c."""

from __future__ import annotations

from kubectl_genainet.proxy.evaluator import checks
from kubectl_genainet.proxy.evaluator.checks import PROTOCOLS
from kubectl_genainet.proxy.evaluator.ir import Rule
from kubectl_genainet.proxy.evaluator.packet.state import Check, State
from kubectl_genainet.proxy.iptables.reader import Node, Reader, network, ports


def unless_traced(r: Reader, check: Check) -> Check:
    """Without a connection neither the check nor its negation matches (connmark_mt, conntrack_mt)."""
    inverted, r.negated = r.negated, False
    positive = checks.negate(check) if inverted else check
    return lambda s: positive(s) if s.traced else False


def state(c: Node, r: Reader, rule: Rule) -> Check:
    return checks.ct_state_in(frozenset(r.next().upper().split(",")))


_STATUS = {"EXPECTED": 1, "SEEN_REPLY": 2, "ASSURED": 4, "CONFIRMED": 8, "SNAT": 16, "DNAT": 32, "NONE": 0}


def status(c: Node, r: Reader, rule: Rule) -> Check:
    bits = sum(_STATUS[name] for name in r.next().upper().split(","))
    return unless_traced(r, checks.ct_status_has(bits))


def original_destination(c: Node, r: Reader, rule: Rule) -> Check:
    net, mask, _ = network(r.next())
    return unless_traced(r, lambda s: s.orig_dst & mask == net)


def original_source(c: Node, r: Reader, rule: Rule) -> Check:
    net, mask, _ = network(r.next())

    def check(s: State) -> bool | None:
        source = checks.get_original_source(s)
        return None if source is None else source & mask == net

    return unless_traced(r, check)


def reply_source(c: Node, r: Reader, rule: Rule) -> Check:
    """Replies come from where the packet is sent to after DNAT."""
    return unless_traced(r, checks.destination_in(*network(r.next())))


def reply_destination(c: Node, r: Reader, rule: Rule) -> Check:
    """Replies go to where the packet comes from after SNAT."""
    return unless_traced(r, checks.source_in(*network(r.next())))


def original_dport(c: Node, r: Reader, rule: Rule) -> Check:
    low, high = ports(r.next())
    return unless_traced(r, lambda s: None if s.orig_dport is None else low <= s.orig_dport <= high)


def protocol(c: Node, r: Reader, rule: Rule) -> Check:
    name = r.next().lower()
    return unless_traced(r, checks.protocol_is(PROTOCOLS[name] if name in PROTOCOLS else int(name)))


def direction(c: Node, r: Reader, rule: Rule) -> Check:
    original = r.next().upper() == "ORIGINAL"
    return unless_traced(r, lambda s: original if s.ct == "NEW" else None)
