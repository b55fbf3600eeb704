"""One flow's walk through a node's rules, chain by chain, as a tree: what it met, and what decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from kubectl_genainet.model.packet import address_text
from kubectl_genainet.proxy.authors import author_of
from kubectl_genainet.proxy.batch import FlowRequest
from kubectl_genainet.proxy.evaluator.evaluate import walk_of
from kubectl_genainet.proxy.evaluator.model import (
    REFUSALS,
    Evaluation,
    RulesetVerdict,
    WalkOutcome,
    masquerades,
    translates,
)
from kubectl_genainet.proxy.evaluator.rule_ref import ENTERED, RuleRef
from kubectl_genainet.proxy.ruleset import Ruleset


class WalkRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rule that the packet matched, and those of the chain that it jumps to. `index` 0 is the chain's policy.

    `packets` and `bytes` are the rule's own counters, where the dump has them. `decides`: what it decides of this way
    ("translates", "masquerades", "drops", "rejects", "accepts"); empty where it only leads on.
    """

    table: str
    chain: str
    index: int
    text: str
    comment: str = ""
    packets: int | None = None
    bytes: int | None = None
    author: str = ""  # the program that writes such rules
    decides: str = ""
    rules: tuple[WalkRule, ...] = ()


class WalkChain(msgspec.Struct, frozen=True, omit_defaults=True):
    """A base chain that the packet entered. No rules: none matched, and its policy let the packet on."""

    hook: str
    priority: int
    table: str
    chain: str
    rules: tuple[WalkRule, ...] = ()


class WalkWay(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the ways that connections of the flow may go. `alike` is how many more end the same way, elsewhere.

    `share` null: a hash or a state decides. `presumed` are answers to open questions that this way goes by.
    """

    verdict: str
    share: float | None
    to: str
    masquerade: bool
    chains: tuple[WalkChain, ...]
    alike: int = 0
    presumed: tuple[str, ...] = ()
    reason: str = ""  # why the verdict is UNKNOWN


class FlowWalk(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="walk"):
    """A flow's walk on one node: the verdict of all ways, what is not known, what was taken for granted, and the ways."""

    flow: str
    verdict: str
    ways: tuple[WalkWay, ...]
    node: str = ""
    unknown: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


def flow_walk(
    ruleset: Ruleset, request: FlowRequest, *, node_ips: Sequence[str] | None = None, node: str = ""
) -> FlowWalk:
    """The walk of one flow. Of ways that end alike (the endpoints of a Service) the likeliest stands for all."""
    own = request.node_ips if request.node_ips is not None else node_ips
    packet = request.packet
    evaluation = walk_of(ruleset, packet, node_ips=own)
    source = address_text(packet.src, packet.sport) if packet.src else "any source"
    return FlowWalk(
        flow=f"{source} to {address_text(packet.dst, packet.dport)} {packet.protocol.value}",
        verdict=evaluation.verdict.value,
        ways=tuple(_ways(evaluation)),
        node=node,
        unknown=evaluation.unknown,
        assumed=evaluation.assumed,
    )


def _ways(evaluation: Evaluation) -> Iterable[WalkWay]:
    grouped: dict[tuple[object, ...], list[WalkOutcome]] = {}
    for outcome in evaluation.outcomes:
        key = (outcome.verdict, outcome.final_rule, outcome.masquerade, outcome.presumed, outcome.reason)
        grouped.setdefault(key, []).append(outcome)
    for outcomes in grouped.values():
        first = max(outcomes, key=lambda outcome: outcome.probability or 0)
        backend = first.backend
        yield WalkWay(
            verdict=first.verdict.value,
            share=first.probability,
            to=backend.address if backend is not None else "",
            masquerade=first.masquerade,
            chains=_chains(first),
            alike=len(outcomes) - 1,
            presumed=first.presumed,
            reason=first.reason,
        )


class _Node:
    """A rule of the tree while it grows."""

    def __init__(self, rule: RuleRef, decides: str) -> None:
        self.rule, self.decides = rule, decides
        self.below: list[_Node] = []

    def frozen(self) -> WalkRule:
        rule = self.rule
        return WalkRule(
            rule.table,
            rule.chain,
            rule.index,
            rule.text,
            rule.comment,
            rule.packets,
            rule.bytes,
            author_of(rule),
            self.decides,
            tuple(node.frozen() for node in self.below),
        )


def _chains(outcome: WalkOutcome) -> tuple[WalkChain, ...]:
    """The rules that a way passed, each below the rule that jumped to its chain."""
    chains: list[tuple[RuleRef, list[_Node]]] = []
    open_chains: list[tuple[str, list[_Node]]] = []
    for number, rule in enumerate(outcome.rules):
        if rule.index == ENTERED or not chains:
            nodes: list[_Node] = []
            chains.append((rule, nodes))
            open_chains = [(rule.chain, nodes)]
            if rule.index == ENTERED:
                continue
        while len(open_chains) > 1 and open_chains[-1][0] != rule.chain and rule.chain in [c for c, _ in open_chains]:
            open_chains.pop()
        if open_chains[-1][0] != rule.chain and open_chains[-1][1]:  # a jump to a chain that is not open yet
            open_chains.append((rule.chain, open_chains[-1][1][-1].below))
        open_chains[-1][1].append(_Node(rule, _decides(outcome, rule, number)))
    return tuple(_chain(visit, nodes) for visit, nodes in chains)


def _chain(visit: RuleRef, nodes: list[_Node]) -> WalkChain:
    hook, _, priority = visit.text.partition(" ") if visit.index == ENTERED else ("", "", "0")
    return WalkChain(hook, int(priority), visit.table, visit.chain, tuple(node.frozen() for node in nodes))


def _decides(outcome: WalkOutcome, rule: RuleRef, number: int) -> str:
    last = number == len(outcome.rules) - 1
    if last and outcome.verdict in REFUSALS:
        return "drops" if outcome.verdict is RulesetVerdict.DROP else "rejects"
    if outcome.backend is not None and translates(rule):
        return "translates"
    if outcome.masquerade and masquerades(rule):
        return "masquerades"
    accepts = rule.target == "ACCEPT" if rule.target else rule.bare_text.split()[-1:] == ["accept"]
    return "accepts" if accepts else ""
