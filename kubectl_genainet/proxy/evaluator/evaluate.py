"""What a node's rules do with a packet: the walk through them, remembered and summed up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy.evaluator.conditions import SYN
from kubectl_genainet.proxy.evaluator.model import Evaluation, Packet, RulesetVerdict
from kubectl_genainet.proxy.evaluator.packet.state import ALL_BITS, Env, State, address_number
from kubectl_genainet.proxy.evaluator.remember import Asked, WatchedState
from kubectl_genainet.proxy.evaluator.rule_ref import Hook
from kubectl_genainet.proxy.evaluator.summary import summary, told_once
from kubectl_genainet.proxy.evaluator.walk import Walk
from kubectl_genainet.proxy.ruleset import Ruleset
from kubectl_genainet.proxy.unread import Affects

MOST_ANSWERS = 2  # that are told of those that change nothing


def evaluate(
    ruleset: Ruleset, packet: Packet, *, entry: Hook | None = None, node_ips: Sequence[str] | None = None
) -> Evaluation:
    """What the node does with a packet that enters it (or leaves a process of it, where `entry` is OUTPUT).

    Without `entry`, a packet from one of the node's own addresses is taken for its own. `node_ips` overrides the
    ruleset's. Raises ValueError where `packet` has no proper addresses.
    """
    env = ruleset.env if node_ips is None else ruleset.env_for(node_ips)
    state = WatchedState()
    asked = state.asked = Asked()
    _fill(state, packet, env, mark_known=True)
    src, sport = state.src, state.sport
    if entry is None:
        entry = Hook.OUTPUT if src is not None and env.is_local(src, state.family) else Hook.PRE_ROUTING
    key = (
        entry,
        id(env),
        state.dst,
        state.dport,
        state.proto,
        state.mark,
        packet.ct_state,
        state.iif,
        state.oif_routed,
        state.bridged,
        state.phys_in,
        state.uid,
        state.gid,
        state.icmp,
        state.tos,
        state.ttl,
        state.length,
        state.transparent,
        state.family,
    )
    known = ruleset.memory.recall(key, src, sport)
    if known is None:
        asked.touched = False
        ends = Walk(ruleset, state, asked=asked).run(entry)
        known = _as_far_as_read(ruleset, summary(ends, state.family))
        if ruleset.ties(state.family):
            known = _either_order(ruleset, known, packet, env, entry)
        ruleset.memory.keep(key, asked, known, len(ends))
    return known


def walk_of(ruleset: Ruleset, packet: Packet, *, node_ips: Sequence[str] | None = None) -> Evaluation:
    """As `evaluate`, with every base chain that the packet enters among the rules of its ways (index ENTERED).

    Ways that differ by the answer to a question alone, and end alike, are one.
    """
    env = ruleset.env if node_ips is None else ruleset.env_for(node_ips)
    state = _fill(State(), packet, env, mark_known=True)
    own = state.src is not None and env.is_local(state.src, state.family)
    entry = Hook.OUTPUT if own else Hook.PRE_ROUTING
    ends = Walk(ruleset, state, visits=True).run(entry)
    ways, presumed = told_once(ends, state.family)
    outcome = summary(ends, state.family)
    outcome = replace(outcome, tell=lambda: ways, assumed=(*outcome.assumed, *_all_the_same(presumed)))
    outcome = _as_far_as_read(ruleset, outcome)
    return _either_order(ruleset, outcome, packet, env, entry) if ruleset.ties(state.family) else outcome


def _all_the_same(answers: Sequence[str]) -> tuple[str, ...]:
    """Answers that change nothing but the chains that are met, in one line."""
    if not answers:
        return ()
    told = ", ".join(answer.removeprefix("whether ") for answer in answers[:MOST_ANSWERS])
    more = f" and {len(answers) - MOST_ANSWERS} more such answers" if len(answers) > MOST_ANSWERS else ""
    return (f"{told}{more}; otherwise other chains may be met, and the end is the same",)


def evaluate_hook(ruleset: Ruleset, packet: Packet, hook: Hook | str, *, strict: bool = False) -> Evaluation:
    """What the filtering chains of one hook do with a packet as it is there, after NAT.

    The packet's mark is not known unless given, so a rule that asks for it is followed both ways:
    `Evaluation.dropping_rules` has every rule that may have dropped it. `strict` takes nothing for granted: a limit may be
    reached. Raises ValueError for no netfilter hook.
    """
    named = hook if isinstance(hook, Hook) else Hook.named(hook)
    if named is None:
        raise ValueError(f"{hook!r} is no netfilter hook")
    state = _fill(State(), packet, ruleset.env, mark_known=packet.mark is not None)
    state.strict = strict
    return _as_far_as_read(ruleset, summary(Walk(ruleset, state, only=named).run(named), state.family))


def _as_far_as_read(ruleset: Ruleset, evaluation: Evaluation) -> Evaluation:
    """Nothing is certain of a ruleset of which a part is missing: any rule may stand there."""
    if not ruleset.unread:
        return evaluation
    missing = tuple(str(part) for part in ruleset.unread if part.anywhere)
    excerpts = tuple(str(part) for part in ruleset.unread if part.scope is Affects.EXCERPT)
    if excerpts:
        evaluation = replace(evaluation, assumed=(*excerpts, *evaluation.assumed))
    if not missing:
        return evaluation
    unknown = tuple(dict.fromkeys((*missing, *evaluation.unknown)))
    return replace(evaluation, verdict=RulesetVerdict.UNKNOWN, backends=(), unknown=unknown, masquerade=None)


def _either_order(ruleset: Ruleset, known: Evaluation, packet: Packet, env: Env, entry: Hook) -> Evaluation:
    """Chains of one priority in both iptables variants: which runs first is not in the dumps. Both orders are tried."""
    state = _fill(State(), packet, env, mark_known=True)
    other = summary(Walk(ruleset, state, reverse_ties=True).run(entry), state.family)
    same = (other.verdict, set(other.backends)) == (known.verdict, set(known.backends))
    if same and other.masquerade == known.masquerade:
        return known
    reason = (
        "whether the chains of iptables-legacy run before those of nf_tables at the same priority "
        "(the one registered last runs first)"
    )
    unknown = tuple(dict.fromkeys((*known.unknown, reason)))
    masquerade = known.masquerade if known.masquerade == other.masquerade else None
    return replace(known, verdict=RulesetVerdict.UNKNOWN, backends=(), unknown=unknown, masquerade=masquerade)


def _fill(state: State, packet: Packet, env: Env, *, mark_known: bool) -> State:
    state.env, state.family = env, 6 if ":" in packet.dst else 4
    state.src = address_number(packet.src) if packet.src else None
    state.dst = state.orig_dst = address_number(packet.dst)
    portless = packet.protocol in (Protocol.ICMP, Protocol.ICMPV6)
    state.sport = 0 if portless else packet.sport
    state.dport = state.orig_dport = 0 if portless else packet.dport
    state.proto = packet.protocol.number
    state.mark, state.known = packet.mark or 0, ALL_BITS if mark_known else 0
    first = packet.ct_state.upper() in ("NEW", "UNTRACKED")
    state.ct, state.ct_later = packet.ct_state.upper(), ""
    state.connmark, state.connmark_known = 0, ALL_BITS if state.ct == "NEW" and mark_known else 0
    state.tcp_flags = SYN if first and packet.protocol is Protocol.TCP else None
    state.iif, state.oif, state.oif_routed = packet.in_device, packet.out_device, packet.out_device
    state.bridged, state.phys_in, state.phys_out = packet.bridged, packet.bridge_port, None
    if packet.bridge_port:
        state.bridged = True
    state.icmp, state.uid, state.gid = packet.icmp, packet.uid, packet.gid
    state.transparent, state.handed_to = packet.transparent_socket, None
    state.tos = None if packet.dscp is None else packet.dscp << 2
    state.ttl, state.length = packet.ttl, packet.length
    state.dnat = state.masquerade = state.accepted = state.own = state.looped = False
    state.scheduled = state.redirected = state.from_wire = state.strict = False
    state.orig_src, state.by_node, state.nat_done, state.added = None, False, 0, ()
    state.probability, state.path, state.doubts, state.assumed = 1.0, None, (), ()
    return state
