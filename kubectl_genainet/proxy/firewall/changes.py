"""One change of a host's firewall: the command that makes it, and the same made on a copy of the rules.

Where each program has its users' rules: ufw(8) (ufw-user-*), firewalld's zones and policies (filter_IN_ZONE_allow,
filter_FORWARD_POLICIES_pre), Docker's DOCKER-USER; in other rules right before the one that refuses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from kubectl_genainet.proxy.evaluator.ir import Chain, Table
from kubectl_genainet.proxy.evaluator.model import WalkOutcome
from kubectl_genainet.proxy.evaluator.rule_ref import Hook, RuleRef
from kubectl_genainet.proxy.nftables.language.grammar import tokens_of
from kubectl_genainet.proxy.nftables.language.words import parse_rule
from kubectl_genainet.proxy.nftables.read import NftTable
from kubectl_genainet.proxy.ruleset import Ruleset
from kubectl_genainet.shell import command, sh

_ZONE = re.compile(r"^(?:filter_)?IN_(\w+?)(?:_(?:pre|log|deny|allow|post))?$")


class Opening(msgspec.Struct, frozen=True):
    """What is to be let through, as it is at the hook that refuses it. `net`: an address or a network; "": any."""

    family: int
    protocol: str  # "tcp"
    net: str
    port: int | None
    replies: bool = False  # packets of connections that are let through already

    def iptables(self) -> str:
        if self.replies:
            return "-m conntrack --ctstate RELATED,ESTABLISHED"
        net = f"-d {sh(self.net)} " if self.net else ""
        port = f" -m {self.protocol} --dport {self.port}" if self.port is not None else ""
        return f"{net}-p {self.protocol}{port}"

    def nft(self) -> str:
        if self.replies:
            return "ct state established,related"
        net = f"{'ip6' if self.family == 6 else 'ip'} daddr {sh(self.net)} " if self.net else ""
        return net + (
            f"{self.protocol} dport {self.port}" if self.port is not None else f"meta l4proto {self.protocol}"
        )


class FirewallChange(msgspec.Struct, frozen=True):
    """A change: who owns the place ("ufw", "firewalld", "Docker", "iptables", "nft"), the commands, and what they add.

    `position` is the index that the new rule gets in `chain` of `table`, from 0; -1: at its end.
    """

    firewall: str
    commands: tuple[str, ...]
    table: str
    family: int  # of the table; 0: both
    source: str
    chain: str
    position: int
    rule: str


def change_for(ruleset: Ruleset, outcome: WalkOutcome, opening: Opening) -> FirewallChange | None:
    """The change for one refusal; None where the rule's place is not found."""
    rule = outcome.final_rule
    chain = _chain_of(ruleset, rule, opening.family) if rule is not None else None
    if rule is None or chain is None:
        return None
    base = _base_chain(ruleset, outcome, opening.family) or chain
    for place in (_ufw, _firewalld, _docker):
        position = place(chain, base, outcome, opening)
        if position is not None:
            return position
    return _by_hand(chain, rule, opening)


def apply(ruleset: Ruleset, change: FirewallChange) -> None:
    """Makes the change in a ruleset of which no packet has met a rule yet."""
    for table in ruleset.tables:
        if (table.title, table.family, table.source) == (change.table, change.family, change.source):
            raw = table.chains[change.chain].raw
            new: object = f"-A {change.chain} {change.rule}"
            if isinstance(table, NftTable):
                expressions, _ = parse_rule(tokens_of(change.rule))
                new = {"expr": expressions, "text": change.rule}
            raw.insert(len(raw) if change.position < 0 else change.position, new)


def without(ruleset: Ruleset, refusals: Sequence[RuleRef], family: int) -> None:
    """Takes the rules that refuse out of a ruleset of which no packet has met a rule yet."""
    for rule in sorted(refusals, key=lambda rule: -rule.index):  # the last first: the indices before it stay
        chain = ruleset.chain(rule.table, rule.chain, family)
        if chain is not None and rule.index == 0:
            chain.policy = "ACCEPT"
        elif chain is not None and rule.index <= len(chain.raw):
            del chain.raw[rule.index - 1]


def _chain_of(ruleset: Ruleset, rule: RuleRef, family: int) -> Chain | None:
    for table in ruleset.tables:
        chain = table.chains.get(rule.chain)
        if chain is None or table.title != rule.table or table.family not in (0, family):
            continue
        if rule.index == 0 or (rule.index <= len(chain.rules) and chain.rules[rule.index - 1].ref.text == rule.text):
            return chain
    return None


def _base_chain(ruleset: Ruleset, outcome: WalkOutcome, family: int) -> Chain | None:
    """The base chain in which the way ended."""
    for rule in reversed(outcome.rules):
        chain = _chain_of(ruleset, rule, family)
        if chain is not None and chain.hook is not None:
            return chain
    return None


def _change(chain: Chain, position: int, rule: str, firewall: str, commands: Sequence[str]) -> FirewallChange:
    table = chain.table
    return FirewallChange(
        firewall, tuple(commands), table.title, table.family, table.source, chain.name, position, rule
    )


def _user_chain(table: Table, *names: str) -> Chain | None:
    return next((table.chains[name] for name in names if name in table.chains), None)


def _ufw(chain: Chain, base: Chain, outcome: WalkOutcome, opening: Opening) -> FirewallChange | None:
    way = {Hook.INPUT: "input", Hook.FORWARD: "forward", Hook.OUTPUT: "output"}.get(base.hook or Hook.INGRESS)
    prefix = "ufw6" if opening.family == 6 else "ufw"
    place = _user_chain(chain.table, f"{prefix}-user-{way}")
    if place is None or opening.replies or opening.port is None:
        return None
    verb = {"input": "allow", "forward": "route allow", "output": "allow out"}[str(way)]
    to = sh(opening.net or "any")
    line = f"ufw {verb} proto {opening.protocol} to {to} port {opening.port}"
    return _change(place, -1, f"{opening.iptables()} -j ACCEPT", "ufw", [line])


def _firewalld(chain: Chain, base: Chain, outcome: WalkOutcome, opening: Opening) -> FirewallChange | None:
    table = chain.table
    if opening.replies or opening.port is None:
        return None
    if base.hook is Hook.INPUT:
        zone = next((m.group(1) for r in reversed(outcome.rules) if (m := _ZONE.match(r.chain))), "")
        place = _user_chain(table, f"filter_IN_{zone}_allow", f"IN_{zone}_allow") if zone else None
        if place is None:
            return None
        port = f"{opening.port}/{opening.protocol}"
        commands = [f"firewall-cmd --permanent --zone={sh(zone)} --add-port={port}", "firewall-cmd --reload"]
        opening = msgspec.structs.replace(opening, net="")
    elif base.hook is Hook.FORWARD:
        place = _user_chain(table, "filter_FORWARD_POLICIES_pre", "FORWARD_POLICIES_pre")
        if place is None:
            return None
        family = "ipv6" if opening.family == 6 else "ipv4"
        rich = (
            f'rule family="{family}" destination address="{opening.net}" '
            f'port port="{opening.port}" protocol="{opening.protocol}" accept'
        )
        policy = "firewall-cmd --permanent --policy=services"
        commands = [
            "firewall-cmd --permanent --new-policy=services",
            f"{policy} --add-ingress-zone=ANY",
            f"{policy} --add-egress-zone=ANY",
            f"{policy} --add-rich-rule='{rich}'",
            "firewall-cmd --reload",
        ]
    else:
        return None
    return _change(place, 0, _accepting(table, opening), "firewalld", commands)


def _docker(chain: Chain, base: Chain, outcome: WalkOutcome, opening: Opening) -> FirewallChange | None:
    """Docker drops what it does not forward itself, and leaves DOCKER-USER to others."""
    place = _user_chain(chain.table, "DOCKER-USER")
    if place is None or base.hook is not Hook.FORWARD or not (chain is base or chain.name.startswith("DOCKER")):
        return None
    rule = _accepting(place.table, opening)
    return _change(place, 0, rule, "Docker", [_iptables_command(place, f"-I {sh(place.name)} {rule}")])


def _accepting(table: Table, opening: Opening) -> str:
    return f"{opening.nft()} accept" if isinstance(table, NftTable) else f"{opening.iptables()} -j ACCEPT"


def _iptables_command(chain: Chain, specification: str) -> str:
    name = "ip6tables" if chain.table.family == 6 else "iptables"
    name += "-legacy" if "legacy" in chain.table.source else ""
    table = "" if chain.table.name == "filter" else f"-t {sh(chain.table.name)} "
    return f"{name} {table}{specification}"


def _by_hand(chain: Chain, rule: RuleRef, opening: Opening) -> FirewallChange:
    """Right before the rule that refuses, or at the end of a chain that drops by its policy."""
    accepting = _accepting(chain.table, opening)
    position = rule.index - 1 if rule.index else -1
    if not isinstance(chain.table, NftTable):
        where = f"-I {sh(chain.name)} {rule.index}" if rule.index else f"-A {sh(chain.name)}"
        return _change(chain, position, accepting, "iptables", [_iptables_command(chain, f"{where} {accepting}")])
    place = command(*chain.table.title.split(" ", 1), chain.name)
    raw = chain.raw[position] if rule.index and position < len(chain.raw) else {}
    handle = raw.get("handle") if isinstance(raw, dict) else None
    if rule.index == 0:
        line = f"nft add rule {place} {accepting}"
    elif handle is not None:
        line = f"nft insert rule {place} handle {sh(handle)} {accepting}"
    else:
        position = 0
        line = f"nft insert rule {place} {accepting}"
    return _change(chain, position, accepting, "nft", [line])
