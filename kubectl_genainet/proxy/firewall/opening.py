"""What of a Service's traffic a node's firewall refuses, and the changes that let it through, tried on a copy."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import msgspec

from kubectl_genainet.model.finding import counted
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.proxy.authors import author_of, is_kube_proxys
from kubectl_genainet.proxy.enforcers import policy_behind
from kubectl_genainet.proxy.evaluator.evaluate import evaluate
from kubectl_genainet.proxy.evaluator.model import Packet, RulesetVerdict, WalkOutcome
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.firewall.changes import FirewallChange, Opening, apply, change_for
from kubectl_genainet.proxy.ruleset import Ruleset, parse_ruleset

MAX_CHANGES = 16
_REFUSALS = (RulesetVerdict.DROP, RulesetVerdict.REJECT)


class ServicePacket(msgspec.Struct, frozen=True):
    """A first packet to a Service, and whose it is: "pod", "node" or "outside"."""

    client: str
    packet: Packet

    @property
    def at(self) -> str:
        return address_text(self.packet.dst, self.packet.dport)


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rule that refuses a part of the connections of one kind of client to one address."""

    client: str
    address: str
    verdict: str
    table: str
    chain: str
    index: int  # 0: the chain's policy
    rule: str
    author: str = ""
    replies: bool = False  # it is the replies that are refused


class HostFirewall(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="host-firewall"):
    """Whether a node's firewall lets a Service through. `verdict`: "passes", "refused", "other" (what refuses is no
    firewall of the host), "unknown". `trial` is what came of the changes on a copy of the rules."""

    service: str
    verdict: str
    refusals: tuple[Refusal, ...] = ()
    changes: tuple[FirewallChange, ...] = ()
    trial: str = ""
    node: str = ""
    unknown: tuple[str, ...] = ()


def host_firewall(
    dumps: Sequence[RulesetDump],
    node_ips: Sequence[str] | None,
    packets: Sequence[ServicePacket],
    pod_nets: Sequence[str] = (),
    *,
    service: str = "",
    node: str = "",
) -> HostFirewall:
    """What refuses the packets, and the smallest changes after which all of them pass on a copy of the rules."""
    before = parse_ruleset(dumps, node_ips=node_ips)
    refusals = tuple(dict.fromkeys(r for p in packets for r in _refusals(before, p)))
    unknown = _unknown(before, packets)
    changes: list[FirewallChange] = []
    others = False
    copy = before
    while (found := _first(copy, packets)) is not None:
        of_host, outcome, opening = found
        others |= not of_host
        change = change_for(copy, outcome, _widened(opening, pod_nets)) if of_host else None
        if change is None or change in changes or len(changes) >= MAX_CHANGES:
            break
        changes.append(change)
        copy = parse_ruleset(dumps, node_ips=node_ips)
        for one in changes:
            apply(copy, one)
    passes = _first(copy, packets) is None and not _unknown(copy, packets)
    verdict = "other" if others else "refused" if refusals else "unknown" if unknown else "passes"
    if not passes:
        changes = []
    trial = _trial(before, copy, packets) if changes else ""
    return HostFirewall(service, verdict, refusals, tuple(changes), trial, node, unknown)


def _unknown(ruleset: Ruleset, packets: Sequence[ServicePacket]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(u for p in packets for u in evaluate(ruleset, p.packet).unknown))


def _refused(ruleset: Ruleset, packet: Packet) -> list[WalkOutcome]:
    """The ways that are refused for certain: none where an open question decides."""
    evaluation = evaluate(ruleset, packet)
    return [o for o in evaluation.tell_parts() if o.verdict in _REFUSALS and o.final_rule is not None]


def _replies(ruleset: Ruleset, asked: ServicePacket) -> list[WalkOutcome]:
    """Ways on which replies are refused, of connections that are let through."""
    found = []
    for outcome in evaluate(ruleset, asked.packet).tell_parts():
        if outcome.verdict in _REFUSALS or not asked.packet.src:
            continue
        at, port = (
            (outcome.backend.ip, outcome.backend.port) if outcome.backend else (asked.packet.dst, asked.packet.dport)
        )
        reply = Packet(
            src=at,
            sport=port,
            dst=asked.packet.src,
            dport=40000,
            protocol=asked.packet.protocol,
            ct_state="ESTABLISHED",
        )
        found += _refused(ruleset, reply)
    return found


def _refusals(ruleset: Ruleset, asked: ServicePacket) -> list[Refusal]:
    found = [_told(asked, outcome, replies=False) for outcome in _refused(ruleset, asked.packet)]
    return found + [_told(asked, outcome, replies=True) for outcome in _replies(ruleset, asked)]


def _told(asked: ServicePacket, outcome: WalkOutcome, *, replies: bool) -> Refusal:
    rule = outcome.final_rule
    assert rule is not None
    verdict = outcome.verdict.value
    author = author_of(rule)
    return Refusal(asked.client, asked.at, verdict, rule.table, rule.chain, rule.index, rule.text, author, replies)


def _first(ruleset: Ruleset, packets: Sequence[ServicePacket]) -> tuple[bool, WalkOutcome, Opening] | None:
    """The first way that is refused: whether the host's firewall does it, and what would have to be let through."""
    for asked in packets:
        for outcome in _refused(ruleset, asked.packet):
            backend = outcome.backend
            ip, port = (backend.ip, backend.port) if backend else (asked.packet.dst, asked.packet.dport)
            opening = Opening(6 if ":" in ip else 4, asked.packet.protocol.value.lower(), ip, port)
            return _is_of_host(ruleset, outcome.final_rule), outcome, opening
        for outcome in _replies(ruleset, asked):
            opening = Opening(6 if ":" in asked.packet.dst else 4, "", "", None, replies=True)
            return _is_of_host(ruleset, outcome.final_rule), outcome, opening
    return None


def _is_of_host(ruleset: Ruleset, rule: RuleRef | None) -> bool:
    """Not kube-proxy's (no endpoints, source ranges) and not a policy's: those are not for a firewall to undo."""
    if rule is None or rule.table == "ipvs" or is_kube_proxys(rule):
        return False
    return policy_behind(rule, ruleset) is None


def _widened(opening: Opening, pod_nets: Sequence[str]) -> Opening:
    """A pod's address is gone with the pod: the network of the node's pods stays."""
    if opening.replies:
        return opening
    address = ipaddress.ip_address(opening.net)
    net = next((net for net in pod_nets if address in ipaddress.ip_network(net, strict=False)), opening.net)
    return msgspec.structs.replace(opening, net=net)


def _trial(before: Ruleset, after: Ruleset, packets: Sequence[ServicePacket]) -> str:
    """What the changed copy does, and whether another port of the same addresses is treated as before."""
    same = 0
    for asked in packets:
        other = msgspec.structs.replace(asked.packet, dport=(asked.packet.dport or 1) ^ 0x4001)
        same += evaluate(before, other).verdict is evaluate(after, other).verdict
    rest = "another port is treated as before" if same == len(packets) else "another port is treated otherwise"
    return f"tried on a copy of the rules: {counted(len(packets), 'kind')} of packets, and the replies, pass; {rest}"
