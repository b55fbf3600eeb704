"""Random rulesets in a network namespace, real packets through them: what the kernel did beside what the evaluator says."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Evaluation, Hook, Packet, Ruleset, RulesetVerdict, dumps_of, evaluate, parse_ruleset
from kubectl_genainet.proxy.evaluator.ir import Act
from kubectl_genainet.proxy.iptables.read import BASE_CHAINS
from tests.rules_sets import ipsets_text
from tests.rules_texts import iptables_text, nft_text
from tests.rules_wire import NODE_IPS, Flow, Wire

SIZES = {Protocol.TCP: 40, Protocol.UDP: 32, Protocol.ICMP: 32}  # of what `Wire.send` sends, in bytes
PATIENCE_S = 10.0  # for the kernel to free rules
ATTEMPTS = 8  # to load a text without the rules that are refused
EMPTY = "".join(
    "".join((f"*{table}\n", *(f":{chain} ACCEPT [0:0]\n" for chain in chains), "COMMIT\n"))
    for table, chains in BASE_CHAINS.items()
)
_LINE = re.compile(r"(?:/dev/stdin:|line |line: )(\d+)")
VARIANTS = ("iptables-nft", "iptables-legacy", "nft")


@dataclass(frozen=True)
class Difference:
    """A flow that did something else than was said, with the rules that it met: as they were loaded."""

    variant: str
    text: str
    as_json: bool
    flow: Flow
    did: str
    said: tuple[str, ...]


@dataclass
class Count:
    flows: int = 0
    unknown: int = 0
    decided_with_less: int = 0  # flows with a verdict although their devices were not given
    refused: int = 0  # rulesets that the kernel's tools did not take
    reasons: list[str] = field(default_factory=list)  # why a verdict is UNKNOWN, or a ruleset was refused


def said(evaluation: Evaluation, flow: Flow) -> set[str]:
    """What an evaluation allows a flow to do, in the words of `Wire.send`."""
    if evaluation.verdict is RulesetVerdict.UNKNOWN:
        return {"UNKNOWN"}
    ways = set()
    for outcome in evaluation.outcomes:
        if outcome.verdict in (RulesetVerdict.DROP, RulesetVerdict.REJECT):
            ways.add(outcome.verdict.value)
        else:
            backend = outcome.backend
            ip, port = (backend.ip, backend.port) if backend is not None else (flow.dst, flow.dport)
            at = f"{ip}:{flow.dport if flow.protocol is Protocol.ICMP else port}"
            ways.add("NODE" if ip in (*NODE_IPS, "127.0.0.1") else at + (" masq" if outcome.masquerade else ""))
    return ways


def packet_of(flow: Flow) -> Packet:
    return Packet(
        src=flow.src,
        sport=flow.sport,
        dst=flow.dst,
        dport=flow.dport,
        protocol=flow.protocol,
        in_device=None if flow.local else "cli0",
        out_device=flow.out_device,
        bridged=False,
        transparent_socket=False,
        uid=0 if flow.local else None,
        gid=0 if flow.local else None,
        icmp=(flow.dport, 0) if flow.protocol is Protocol.ICMP else None,
        dscp=0,
        ttl=64,
        length=SIZES[flow.protocol],
    )


def silent(ruleset: Ruleset, flow: Flow, ways: set[str]) -> set[str]:
    """DROP where a refusal may be no news to its client: the reset or the ICMP error meets rules that may drop it, too.

    It belongs to the refused connection (nf_ct_attach), so any of the rules at OUTPUT and POSTROUTING may be meant.
    """
    if RulesetVerdict.REJECT.value not in ways:
        return set()
    waiting = [chain for hook in (Hook.OUTPUT, Hook.POST_ROUTING) for chain in ruleset.chains_at(4, hook)]
    refuses = flow.local or any(chain.policy == "DROP" for chain in waiting)
    seen = set()
    while waiting and not refuses:
        chain = waiting.pop()
        seen.add(chain)
        actions = [action for rule in chain.rules for action in rule.actions]
        refuses = any(action.kind in (Act.DROP, Act.REJECT, Act.LOOKUP, Act.SPLIT) for action in actions)
        targets = {chain.table.chains[action.chain] for action in actions if action.chain in chain.table.chains}
        waiting += targets - seen
    return {RulesetVerdict.DROP.value} if refuses else set()


def differences(wire: Wire, seed: int, rulesets: int, flows: int, count: Count) -> Iterator[Difference]:
    """Loads random rulesets, one after the other, and yields every flow that was judged wrongly."""
    chance = random.Random(seed)
    for number in range(rulesets):
        variant = VARIANTS[number % 3]
        sets = "" if variant == "nft" else make_sets(wire, ipsets_text(chance))
        text = nft_text(chance) if variant == "nft" else iptables_text(chance)
        as_json = chance.random() < 0.5 and "dormant" not in text  # nft 1.0.6 garbles its JSON there
        try:
            text = _without_refused(wire, variant, text)
        except RuntimeError as error:
            count.refused += 1
            count.reasons.append(str(error))
            continue
        ruleset = loaded(wire, variant, text, sets, as_json=as_json)
        for flow, did, ways in judged(wire, ruleset, wire.random_flows(chance, flows), count):
            yield Difference(variant, text, as_json, flow, did, tuple(sorted(ways)))


def with_less_known(packet: Packet) -> Packet:
    """The packet as people give one: without the devices and what else only the node knows of it.

    Questions about it exclude each other, and what is certain all the same is what the packet did.
    """
    return msgspec.structs.replace(
        packet, in_device=None, out_device=None, bridged=None, uid=None, gid=None, sport=None
    )


def judged(wire: Wire, ruleset: Ruleset, flows: list[Flow], count: Count) -> Iterator[tuple[Flow, str, set[str]]]:
    """Sends flows through what is loaded: those that did something else than was said, twice, with both.

    Each is judged twice, too: with all that is known of it, and with less.
    """
    did = wire.send(flows)
    for flow in flows:
        count.flows += 1
        evaluation = evaluate(ruleset, packet_of(flow))
        if evaluation.verdict is RulesetVerdict.UNKNOWN:
            count.unknown += 1
            count.reasons += evaluation.unknown
        blind = evaluate(ruleset, with_less_known(packet_of(flow)))
        count.decided_with_less += blind.verdict is not RulesetVerdict.UNKNOWN
        right = all(fits(ruleset, flow, did[flow.sport], one) for one in (evaluation, blind))
        if not right and (again := differs(wire, ruleset, flow)) is not None:
            yield flow, *again


def fits(ruleset: Ruleset, flow: Flow, did: str, evaluation: Evaluation) -> bool:
    """Whether a flow did one of the things that were said of it, or nothing was."""
    ways = said(evaluation, flow)
    return ways == {"UNKNOWN"} or allowed(did, ways | silent(ruleset, flow, ways))


def differs(wire: Wire, ruleset: Ruleset, flow: Flow) -> tuple[str, set[str]] | None:
    """What such a flow does and what is said, where it is not the same."""
    again = replace(flow, sport=wire.port())
    seen = wire.send([again])[again.sport]
    for packet in (packet_of(again), with_less_known(packet_of(again))):
        evaluation = evaluate(ruleset, packet)
        if not fits(ruleset, again, seen, evaluation):
            return seen, said(evaluation, again)
    return None


def allowed(did: str, ways: set[str]) -> bool:
    """Whether a flow did one of the things that were said: a port of a range may be any of it."""
    any_port = re.sub(r":\d+", ":None", did)
    return did in ways or any_port in ways


def smallest(wire: Wire, difference: Difference) -> str:
    """The text of a difference without all rules that it does not need."""
    sets = wire.inside(wire.node, "ipset", "list")
    lines = difference.text.splitlines()
    for number in reversed(range(len(lines))):
        line = lines[number].strip()
        if not line.startswith("-A ") and (difference.variant != "nft" or line.endswith("{") or line in ("", "}")):
            continue
        fewer = [*lines[:number], *lines[number + 1 :]]
        try:
            text = "".join(f"{one}\n" for one in fewer)
            ruleset = loaded(wire, difference.variant, text, sets, as_json=difference.as_json)
        except RuntimeError:
            continue
        if all(differs(wire, ruleset, difference.flow) is not None for _ in range(3)):
            lines = fewer
    return "".join(f"{line}\n" for line in lines)


def _without_refused(wire: Wire, variant: str, text: str) -> str:
    """The text without the rules that the kernel's tools refuse by their line. Raises RuntimeError if none is left."""
    for _ in range(ATTEMPTS):
        try:
            load(wire, variant, text)
            return text
        except RuntimeError as error:
            refused = {int(line) for line in _LINE.findall(str(error))}
            if not refused:
                raise
            text = "".join(f"{line}\n" for n, line in enumerate(text.splitlines(), 1) if n not in refused)
    load(wire, variant, text)
    return text


def make_sets(wire: Wire, text: str) -> str:
    """Makes these the node's only ipsets, and no rule asks for any. What is listed then."""
    load(wire, "nft", "")
    wire.inside(wire.node, "ipset", "flush")  # a list holds its sets
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:  # the kernel frees the rules that are gone, and what they hold, a while later
            wire.inside(wire.node, "ipset", "destroy")
            break
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    wire.inside(wire.node, "ipset", "restore", "-exist", text=text)
    return wire.inside(wire.node, "ipset", "list")


def load(wire: Wire, variant: str, text: str) -> None:
    """Makes a text the node's only rules. Raises RuntimeError if it is refused."""
    if wire.legacy:
        wire.inside(wire.node, "iptables-legacy-restore", text=EMPTY)
    wire.legacy = variant == "iptables-legacy"
    wire.inside(wire.node, "nft", "-f", "-", text=f"flush ruleset; {text}" if variant == "nft" else "flush ruleset")
    if variant != "nft":
        wire.inside(wire.node, f"{variant}-restore", text=text)


def loaded(wire: Wire, variant: str, text: str, sets: str, *, as_json: bool = False) -> Ruleset:
    """Loads a text; what the kernel then has, dumped and read. Raises RuntimeError if it is refused."""
    load(wire, variant, text)
    if variant == "nft":
        dumps = [wire.inside(wire.node, "nft", *(("-j",) if as_json else ()), "list", "ruleset")]
    else:
        dumps = [wire.inside(wire.node, f"{variant}-save"), sets]
    return parse_ruleset([dump for text in dumps if text for dump in dumps_of(text)], node_ips=NODE_IPS)
