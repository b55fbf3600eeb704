"""IPVS on a packet's way: which virtual server takes it, where, and to which real servers it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy.evaluator.ir import Chain
from kubectl_genainet.proxy.evaluator.model import RulesetVerdict
from kubectl_genainet.proxy.evaluator.packet.state import ALL_BITS, State, address_number
from kubectl_genainet.proxy.evaluator.rule_ref import Hook
from kubectl_genainet.proxy.ipvs.read import VirtualServer
from kubectl_genainet.proxy.ruleset import effective_priority

if TYPE_CHECKING:
    from kubectl_genainet.proxy.evaluator.walk import Walk

_LOCAL_OUT = -98  # the priority of ip_vs_local_request4, net/netfilter/ipvs/ip_vs_core.c


def schedules_before(walk: Walk, state: State, hook: Hook, chain: Chain) -> bool:
    """Whether IPVS takes what the node itself sends at LOCAL_OUT, before this chain."""
    return (
        hook is Hook.OUTPUT
        and state.own
        and bool(walk.ruleset.virtual_servers)
        and walk.only is None
        and effective_priority(chain) > _LOCAL_OUT
    )


def schedule(walk: Walk, state: State, hook: Hook) -> bool:
    """IPVS takes a packet to a virtual server at LOCAL_IN and LOCAL_OUT (ip_vs_core.c) and sends it on.

    What is masqueraded passes LOCAL_OUT again, as what is routed and tunnelled does, which keeps its destination
    (ip_vs_xmit.c); a real server on the node itself gets it at once.
    """
    server = None if state.scheduled else _virtual_server(walk, state)
    if server is None:
        return not (state.scheduled or state.dnat) and _is_left_out(walk, state)
    choices = server.probabilities()
    if not choices:
        state.path = (server.ref(), state.path)
        walk.end(state, RulesetVerdict.REJECT)
        return True
    for real, share in reversed(choices):
        way = state.copy()
        way.path, way.scheduled = (server.ref(real), state.path), True
        if real.forward == "Masq":
            way.dst, way.dport, way.dnat = address_number(real.ip), real.port or state.dport, True
        way.probability = None if share is None or state.probability is None else share * state.probability
        if hook is Hook.INPUT and way.env.is_local(address_number(real.ip), way.family):
            walk.end(way, RulesetVerdict.DNAT if way.dnat else RulesetVerdict.ACCEPT)
            continue
        way.iif, way.oif = ("" if state.own else state.iif), state.oif_routed if not state.own else None
        walk.pending.append((way, Hook.OUTPUT, 0, None))
    return True


def _is_left_out(walk: Walk, state: State) -> bool:
    """Whether the packet's virtual server is known to be missing in the list: a set of kube-proxy has it."""
    if (Protocol.from_number(state.proto).value, state.dst, state.dport) in walk.ruleset.servers_left_out:
        walk.end(state, RulesetVerdict.UNKNOWN, "its virtual server is not in the list, but in a set of kube-proxy")
        return True
    return False


def assume_whole_list(walk: Walk, state: State) -> None:
    """Says that a packet goes on without a virtual server because none is listed, where the list may be cut."""
    if not (walk.ruleset.lists_all_servers or state.dnat or state.scheduled) and _virtual_server(walk, state) is None:
        state.assume("the list of virtual servers is whole: ipvsadm marks no end")


def _virtual_server(walk: Walk, state: State) -> VirtualServer | None:
    if not walk.ruleset.virtual_servers or state.dnat:
        return None
    by_mark = walk.ruleset.ipvs_by_mark.get(state.mark) if state.known == ALL_BITS else None
    name = Protocol.from_number(state.proto).value
    return by_mark or (
        walk.ruleset.ipvs_by_key.get((name, state.dst, state.dport)) if state.dport is not None else None
    )
