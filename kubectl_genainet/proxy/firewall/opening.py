"""What of a Service's traffic a node's firewall refuses, and the changes that let it through, tried on a copy."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.finding import counted
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.proxy.authors import author_of, is_kube_proxys
from kubectl_genainet.proxy.enforcers import enforcers_in, policy_behind
from kubectl_genainet.proxy.evaluator.evaluate import evaluate
from kubectl_genainet.proxy.evaluator.model import REFUSALS, Packet, WalkOutcome
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.firewall.changes import FirewallChange, Opening, apply, change_for, without
from kubectl_genainet.proxy.ruleset import Ruleset, parse_ruleset

MAX_CHANGES = 16
MAX_CLIENTS = 200  # pods that are asked whether a policy admits them


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
    undone: list[RuleRef] = []
    copy = before
    while (refusal := _of_the_host(copy, packets)) is not None:
        outcome, opening = refusal
        change = change_for(copy, outcome, _widened(opening, pod_nets))
        if change is None or change in changes or len(changes) >= MAX_CHANGES:
            break
        undone += [_before(changes, outcome.final_rule)] if outcome.final_rule is not None else []
        changes.append(change)
        copy = parse_ruleset(dumps, node_ips=node_ips)
        for known_change in changes:
            apply(copy, known_change)
    is_refused = bool(changes) or _of_the_host(before, packets) is not None
    passes = _of_the_host(copy, packets) is None and not _unknown(copy, packets)
    verdict = "refused" if is_refused else "other" if refusals else "unknown" if unknown else "passes"
    if not passes:
        changes = []
    trial = _trial(before, copy, packets) if changes else ""
    if changes:
        clean = parse_ruleset(dumps, node_ips=node_ips)
        without(clean, undone, 6 if ":" in packets[0].packet.dst else 4)
        trial += _skipped(clean, copy, packets, changes)
    return HostFirewall(service, verdict, refusals, tuple(changes), trial, node, unknown)


def admitted(ruleset: Ruleset, snapshot: ClusterSnapshot, packet: Packet) -> Packet:
    """The packet, from a pod that no policy keeps from the destination, where there is such a one."""
    for candidate in islice(_from_pods(snapshot, packet), MAX_CLIENTS):
        refusals = [outcome.final_rule for outcome in _refused(ruleset, candidate)]
        if all(_is_of_host(ruleset, rule) for rule in refusals):
            return candidate
    return packet


def _from_pods(snapshot: ClusterSnapshot, packet: Packet) -> Iterator[Packet]:
    yield packet
    for pod in snapshot.pods:
        if not pod.spec.host_network and not pod.finished:
            for ip in pod.ips:
                if (":" in ip) is (":" in packet.dst):
                    yield msgspec.structs.replace(packet, src=canonical_ip(ip))


def _unknown(ruleset: Ruleset, packets: Sequence[ServicePacket]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(u for p in packets for u in evaluate(ruleset, p.packet).unknown))


def _refused(ruleset: Ruleset, packet: Packet) -> list[WalkOutcome]:
    """The ways that are refused for certain: none where an open question decides."""
    evaluation = evaluate(ruleset, packet)
    return [o for o in evaluation.tell_parts() if o.verdict in REFUSALS and o.final_rule is not None]


def _replies(ruleset: Ruleset, asked: ServicePacket) -> list[WalkOutcome]:
    """Ways on which replies are refused, of connections that are let through."""
    replies = []
    for outcome in evaluate(ruleset, asked.packet).tell_parts():
        if outcome.verdict in REFUSALS or not asked.packet.src:
            continue
        address, port = (
            (outcome.backend.ip, outcome.backend.port) if outcome.backend else (asked.packet.dst, asked.packet.dport)
        )
        reply = Packet(
            src=address,
            sport=port,
            dst=asked.packet.src,
            dport=40000,
            protocol=asked.packet.protocol,
            ct_state="ESTABLISHED",
        )
        replies += _refused(ruleset, reply)
    return replies


def _refusals(ruleset: Ruleset, asked: ServicePacket) -> list[Refusal]:
    refusals = [_told(asked, outcome, replies=False) for outcome in _refused(ruleset, asked.packet)]
    return refusals + [_told(asked, outcome, replies=True) for outcome in _replies(ruleset, asked)]


def _told(asked: ServicePacket, outcome: WalkOutcome, *, replies: bool) -> Refusal:
    rule = outcome.final_rule
    assert rule is not None
    verdict = outcome.verdict.value
    author = author_of(rule)
    return Refusal(asked.client, asked.at, verdict, rule.table, rule.chain, rule.index, rule.text, author, replies)


def _of_the_host(ruleset: Ruleset, packets: Sequence[ServicePacket]) -> tuple[WalkOutcome, Opening] | None:
    """The first way that the host's firewall refuses, and what would have to be let through.

    What policies refuse on the way is left alone: they may admit other clients of the same kind.
    """
    for asked in packets:
        for outcome in _refused(ruleset, asked.packet):
            if _is_of_host(ruleset, outcome.final_rule):
                backend = outcome.backend
                ip, port = (backend.ip, backend.port) if backend else (asked.packet.dst, asked.packet.dport)
                return outcome, Opening(6 if ":" in ip else 4, asked.packet.protocol.value.lower(), ip, port)
        for outcome in _replies(ruleset, asked):
            if _is_of_host(ruleset, outcome.final_rule):
                return outcome, Opening(6 if ":" in asked.packet.dst else 4, "", "", None, replies=True)
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


def _before(changes: Sequence[FirewallChange], rule: RuleRef) -> RuleRef:
    """The rule with the index that it has without these changes."""
    inserted = [c for c in changes if (c.table, c.chain) == (rule.table, rule.chain) and 0 <= c.position < rule.index]
    return msgspec.structs.replace(rule, index=rule.index - len(inserted))


def _skipped(
    clean: Ruleset, after: Ruleset, packets: Sequence[ServicePacket], changes: Sequence[FirewallChange]
) -> str:
    """A warning where a rule that accepts ends the walk before policies. `clean` is without the rules that refuse: there the
    packets meet the policies that stand behind them. Other pods of a network that is let through are not tried."""
    enforcers = {e for p in packets for e in _enforcers_met(clean, p.packet) - _enforcers_met(after, p.packet)}
    if enforcers:
        return f"; it skips the policies that rules of {' and '.join(sorted(enforcers))} enforce behind it, for every client"
    others = {e for change in changes if "/" in change.rule for e in enforcers_in(clean, change.table)}
    if others:
        return (
            f"; policies that rules of {' and '.join(sorted(others))} enforce in the same table may not judge other pods on "
            "this port any more"
        )
    return ""


def _enforcers_met(ruleset: Ruleset, packet: Packet) -> set[str]:
    met = (policy_behind(rule, ruleset) for outcome in evaluate(ruleset, packet).tell_parts() for rule in outcome.rules)
    return {behind.enforcer for behind in met if behind is not None}


def _trial(before: Ruleset, after: Ruleset, packets: Sequence[ServicePacket]) -> str:
    """What the changed copy does, and whether another port of the same addresses is treated as before."""
    same = 0
    for asked in packets:
        other = msgspec.structs.replace(asked.packet, dport=(asked.packet.dport or 1) ^ 0x4001)
        same += evaluate(before, other).verdict is evaluate(after, other).verdict
    other_port = "another port is treated as before" if same == len(packets) else "another port is treated otherwise"
    refused = sum(bool(_refused(after, asked.packet)) for asked in packets)
    passing = f"{counted(len(packets) - refused, 'kind')} of packets, and the replies, pass"
    if refused:  # by a policy, or by kube-proxy
        passing += f", {refused} more {'is' if refused == 1 else 'are'} refused by what is no firewall of the host"
    return f"tried on a copy of the rules: {passing}; {other_port}"
