"""What a matching rule does to the packet and to its way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Union

from kubectl_genainet.proxy.evaluator.ir import Act, Action, Chain, Rule, RulePath
from kubectl_genainet.proxy.evaluator.model import RulesetVerdict
from kubectl_genainet.proxy.evaluator.nat import destinations, redirected_to
from kubectl_genainet.proxy.evaluator.packet.header import get_tos
from kubectl_genainet.proxy.evaluator.packet.state import ALL_BITS, State
from kubectl_genainet.proxy.evaluator.rule_ref import Hook

if TYPE_CHECKING:
    from kubectl_genainet.proxy.evaluator.walk import Walk

CONNTRACK = -200  # the priority at which connection tracking sees a packet (NF_IP_PRI_CONNTRACK)
Frames = Union[tuple[Sequence[Rule], int, "Frames"], None]  # noqa: UP007 - it names itself
Here = tuple[Sequence[Rule], int, Frames]


def perform(
    walk: Walk, state: State, rule: Rule, hook: Hook, chain_index: int, chain: Chain, here: Here
) -> Here | bool | None:
    """Does what a matching rule says: where to go on, how the base chain ended, or None for the next rule."""
    before = state.path
    state.path = (rule, before)
    for number, written in enumerate(rule.actions):
        action = _looked_up(walk, state, written)
        if action is None:
            break
        match action.kind:
            case Act.CONDITION:
                if not walk.presume_condition(state, action, hook, chain_index, here):
                    break
            case Act.MARK | Act.CONNMARK:
                if not _mark(state, action):
                    break
            case Act.TPROXY:
                if not _hand_over(walk, state, rule, action, hook, chain_index, here, before):
                    return None if action.detail == "nft" else final(walk, state, _DROP, hook)
                if action.detail != "nft":
                    return final(walk, state, _ACCEPT, hook)
            case Act.SPLIT:
                for way, choice in _ways(state, action):
                    if choice.kind in (Act.MARK, Act.CONNMARK):  # and on with the same rule
                        way.path = before
                        rules, position, parent = here
                        remaining = (rule.rest(number, choice), *rules[position:])
                        walk.pending.append((way, hook, chain_index, (remaining, 0, parent)))
                    else:
                        walk.put_off(way, choice, hook, chain_index, chain, here)
                return False
            case Act.NOTRACK | Act.TOS | Act.TTL | Act.ADD | Act.CONTINUE:
                _change(state, action)
            case _:
                return step(walk, state, action, hook, chain, here)
    else:
        return None
    state.path = before  # an action asks for what is not there: the rule does not match after all
    return None


def _looked_up(walk: Walk, state: State, action: Action) -> Action | None:
    """What the action is for this packet: a map's element, one of several destinations. None: no such element
    (nft_lookup_eval)."""
    if action.lookup is not None:
        element = action.lookup(state)
        if walk.asked.touched:
            walk.asked.note(action.lookup, state, element)
        if element is None:
            return None
        action = element
        if action.element is not None:
            state.path = (action.element, state.path)
    if action.kind is Act.DNAT:
        ask = partial(destinations, action=action)
        places = ask(state)
        if walk.asked.touched:
            walk.asked.note(ask, state, places)
        if len(places) > 1:
            choices = [(None, Action(Act.DNAT, address=ip, port=port)) for ip, port in places]
            return Action(Act.SPLIT, choices=tuple(choices))
    return action


def _ways(state: State, split: Action) -> Iterator[tuple[State, Action]]:
    """The ways of a random pick, the last choice first, each with its share of the packets."""
    for share, choice in reversed(split.choices):
        way = state.copy()
        way.probability = None if state.probability is None or share is None else state.probability * share
        yield way, choice


def _change(state: State, action: Action) -> None:
    """What an action changes of the packet, whatever the packet is."""
    match action.kind:
        case Act.NOTRACK if state.ct_later:  # a packet that has been tracked already stays so
            state.ct, state.ct_later = "UNTRACKED", ""
        case Act.TOS:
            state.tos = get_tos(state) & action.keep ^ action.flip
        case Act.TTL:
            state.ttl = _new_ttl(state.ttl, action)
        case Act.ADD:
            state.added = (*state.added, (action.detail, tuple(get(state) for get in action.keys)))
        case _:
            pass


_ACCEPT, _DROP = Action(Act.ACCEPT), Action(Act.DROP)


def _hand_over(
    walk: Walk,
    state: State,
    rule: Rule,
    action: Action,
    hook: Hook,
    chain_index: int,
    here: Here,
    before: RulePath | None,
) -> bool:
    """Gives the packet to the socket that listens for it, with the rule's mark. False: there is none on this way.

    Without one iptables drops the packet (tproxy_tg4, net/netfilter/xt_TPROXY.c), and nft goes on with the next rule
    (nft_tproxy_eval_v4). A packet that has its socket is lost where it is forwarded after all (ip_forward).
    """
    port = state.dport if action.port is None else action.port
    asks = Action(
        Act.CONDITION, condition=lambda s: s.transparent, detail=f"whether a transparent socket listens on port {port}"
    )
    otherwise = here
    if action.detail != "nft":
        drop = Rule(rule.chain, rule.index, rule.raw)
        drop.final = _DROP
        otherwise = ((drop,), 0, None)
    state.path = before  # which the other way has too, with the rule after it
    takes = walk.presume_condition(state, asks, hook, chain_index, otherwise)
    state.path = before if not takes and action.detail == "nft" else (rule, before)
    if takes:
        address = redirected_to(state) if action.address is None else action.address
        state.handed_to, state.redirected = (address, port), True
        _mark(state, replace(action, kind=Act.MARK, detail=""))
        if state.env.is_local(state.dst, state.family) is not True:
            state.assume("an ip rule brings what TPROXY marks to the node's own sockets")
    return takes


def _new_ttl(ttl: int | None, action: Action) -> int | None:
    """`flip` is what it is set to, or what is added to it (ttl_tg, net/netfilter/xt_HL.c)."""
    if action.detail == "set":
        return action.flip
    return None if ttl is None else min(max(ttl + action.flip, 0), 255)


def _mark(state: State, action: Action) -> bool:
    """Writes the packet's or the connection's mark. False: there is no connection, and nft ends the rule there."""
    if not state.traced and (action.kind is Act.CONNMARK or action.source == "connmark"):
        return action.detail != "nft" or action.kind is Act.CONNMARK
    if action.source == "unknown":
        if action.kind is Act.MARK:
            state.known = 0
        else:
            state.connmark_known = 0
        return True
    from_connection = action.source == "connmark"
    bits, known = (state.connmark, state.connmark_known) if from_connection else (state.mark, state.known)
    used = action.source_mask if action.source else 0
    if action.kind is Act.MARK:
        state.mark = (state.mark & action.keep) ^ action.flip ^ (bits & used)
        state.known = (state.known | ~action.keep & ALL_BITS) & (known | ~used & ALL_BITS)
    else:
        state.connmark = (state.connmark & action.keep) ^ action.flip ^ (bits & used)
        state.connmark_known = (state.connmark_known | ~action.keep & ALL_BITS) & (known | ~used & ALL_BITS)
    return True


def step(walk: Walk, state: State, action: Action, hook: Hook, chain: Chain, here: Here) -> Here | bool:
    """A jump, a return, or what ends the base chain."""
    kind = action.kind
    if kind is Act.JUMP or kind is Act.GOTO:
        target = chain.table.chains.get(action.chain)
        if target is None:
            walk.end(state, RulesetVerdict.UNKNOWN, f"chain {action.chain} is not in the dump")
            return False
        return target.candidates(state), 0, here if kind is Act.JUMP else here[2]
    if kind is Act.RETURN:
        return (), 0, here[2]
    return final(walk, state, action, hook)


def final(walk: Walk, state: State, action: Action, hook: Hook) -> bool:
    """A verdict that ends the base chain. True: the packet goes on to the next one."""
    match action.kind:
        case Act.ACCEPT:
            state.accepted = True
            return True
        case Act.DNAT if action.detail == "NETMAP" and hook not in (Hook.PRE_ROUTING, Hook.OUTPUT):
            state.translate_source(None)
            return True
        case Act.DNAT:
            state.dst, state.dport = destinations(state, action)[0]
            state.dnat, state.redirected = True, action.detail == "REDIRECT"
            return True
        case Act.SNAT:
            state.translate_source(action.address)
            state.by_node = action.detail == "MASQUERADE"
            return True
        case Act.DROP:
            walk.end(state, RulesetVerdict.DROP)
        case Act.REJECT:
            walk.end(state, RulesetVerdict.REJECT)
        case Act.QUEUE:
            walk.end(state, RulesetVerdict.UNKNOWN, f"a program decides ({action.detail})")
        case _:
            walk.end(state, RulesetVerdict.UNKNOWN, action.detail)
    return False
