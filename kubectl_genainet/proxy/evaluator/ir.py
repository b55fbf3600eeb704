"""The one form that iptables and nftables rules are compiled to: conditions on a packet's state, then actions.

A condition answers True, False, or None where what it asks for is not known. Chains are compiled when they are first
walked: a node with 10,000 Services has 250,000 rules, and a packet meets a few dozen of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from heapq import merge
from typing import Any, Union

from kubectl_genainet.proxy.evaluator.packet.state import ALL_BITS, Condition, State
from kubectl_genainet.proxy.evaluator.rule_ref import Hook, RuleRef

Passed = Union["Rule", "Chain", RuleRef]
# Rules passed, newest first: ways that fork share what came before. A tuple of rules is a stretch, oldest first.
RulePath = tuple[Passed | tuple[Passed, ...], "RulePath | None"]


class Act(Enum):
    """What an action does."""

    CONTINUE = "continue"
    JUMP = "jump"
    GOTO = "goto"
    RETURN = "return"
    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    QUEUE = "queue"  # a program decides
    DNAT = "dnat"
    SNAT = "snat"  # masquerade included
    MARK = "mark"
    CONNMARK = "connmark"
    NOTRACK = "notrack"
    ADD = "add"  # the packet's key to a set
    TOS = "tos"  # the byte of DSCP and ECN
    TTL = "ttl"
    TPROXY = "tproxy"  # a socket of the node gets it, or (iptables) nobody
    CONDITION = "condition"  # a match that stands behind another action
    SPLIT = "split"  # a random pick
    LOOKUP = "lookup"  # a verdict map
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a rule. Which of the fields count depends on `kind`."""

    kind: Act
    chain: str = ""  # JUMP, GOTO
    detail: str = ""  # REJECT: with what; QUEUE: which; UNKNOWN: the target's name
    address: int | None = (
        None  # DNAT: new destination; None keeps it. SNAT: new source; None: not known. TPROXY: a socket's
    )
    port: int | None = None  # the lowest of a range
    last_address: int | None = None  # DNAT: the end of a range
    last_port: int | None = None
    persistent: bool = False
    random_port: bool = False
    keep: int = ALL_BITS  # MARK: mark = (mark & keep) ^ flip; CONNMARK and TOS alike
    flip: int = 0
    source: str = ""  # MARK, CONNMARK: "mark" or "connmark" XORs that one's bits of `source_mask` in, too
    source_mask: int = ALL_BITS
    condition: Condition | None = None
    choices: tuple[tuple[float | None, Action], ...] = ()  # SPLIT: a random pick; None: by a hash
    lookup: Callable[[State], Action | None] | None = None  # LOOKUP; None for a miss
    keys: tuple[Callable[[State], Any], ...] = ()  # ADD: what is added to the set `detail`
    element: RuleRef | None = None  # of a verdict that came from a commented map element


CONTINUE_ACTION = Action(Act.CONTINUE)


class Rule:
    """A compiled rule. `labels` name the conditions, for when one of them can't be answered."""

    __slots__ = (
        "actions",
        "by_destination",
        "chain",
        "conditions",
        "dport",
        "dst",
        "final",
        "goto",
        "idle",
        "index",
        "labels",
        "probability",
        "proto",
        "raw",
        "target",
        "unread",
    )

    def __init__(self, chain: Chain, index: int, raw: Any) -> None:
        self.chain, self.index, self.raw = chain, index, raw
        self.conditions: tuple[Condition, ...] = ()
        self.labels: tuple[str, ...] = ()
        self.actions: tuple[Action, ...] = ()
        self.unread = ""  # what of it could not be read
        self.probability: float | None = None  # of a random match
        self.proto: int | None = None  # the only protocol that can match
        self.dst: int | None = None  # the only destination that can match
        self.dport: int | None = None  # the only destination port that can match
        self.by_destination = False  # whether it asks for the destination in any other way
        self.target: Chain | None = None  # where its one action goes, a jump (or, with `goto`, a goto)
        self.goto = False
        self.idle = False  # whether it only counts or logs: no packet goes otherwise for it
        self.final: Action | None = None  # its one action, where that ends the base chain

    def finish(self) -> None:
        """Resolves a lone jump or verdict, the commonest actions, once for all packets."""
        self.idle = all(action.kind is Act.CONTINUE for action in self.actions)
        if len(self.actions) != 1:
            return
        action = self.actions[0]
        if action.kind in (Act.JUMP, Act.GOTO):
            self.target, self.goto = self.chain.table.chains.get(action.chain), action.kind is Act.GOTO
        elif action.kind in (Act.ACCEPT, Act.DROP, Act.REJECT, Act.SNAT) or (
            action.kind is Act.DNAT and action.last_address is None and action.last_port is None
        ):
            self.final = action

    def rest(self, number: int, choice: Action) -> Rule:
        """What is left of the rule from the action `number` on, of which a random pick has made `choice`."""
        remainder = Rule(self.chain, self.index, self.raw)
        remainder.actions = (choice, *self.actions[number + 1 :])
        return remainder

    def doubts(self, numbers: list[int]) -> list[tuple[Condition, str]]:
        """The conditions that could not be answered, with their labels."""
        return [(self.conditions[number], self.labels[number]) for number in numbers]

    @property
    def ref(self) -> RuleRef:
        return self.chain.table.describe(self)


def path_refs(path: RulePath | None) -> tuple[RuleRef, ...]:
    """The rules of a path, oldest first."""
    refs: list[RuleRef] = []
    while path is not None:
        passed, path = path
        stretch = passed if isinstance(passed, tuple) else (passed,)
        refs += [rule if isinstance(rule, RuleRef) else rule.ref for rule in reversed(stretch)]
    return tuple(reversed(refs))


class Table(ABC):
    """A table of one family (4, 6, or 0 for both) with its chains. Subclasses know how to compile and to describe."""

    def __init__(self, name: str, family: int, source: str) -> None:
        self.name, self.family, self.source = name, family, source
        self.chains: dict[str, Chain] = {}
        self.number = 0  # its place among the tables of nf_tables, in the order of their making

    @property
    def title(self) -> str:
        """How a rule reference names the table."""
        return self.name

    @abstractmethod
    def compile(self, chain: Chain) -> list[Rule]: ...

    @abstractmethod
    def describe(self, rule: Rule) -> RuleRef: ...


class Chain:
    """A chain and its rules, compiled on first use. `raw` is what the parser kept of each rule."""

    __slots__ = (
        *("_index", "_rules", "devices", "drops_rest", "hook", "hook_name", "kind", "name", "policy", "priority"),
        *("raw", "table"),
    )

    def __init__(self, table: Table, name: str) -> None:
        self.table, self.name = table, name
        self.raw: list[Any] = []
        self.hook: Hook | None = None
        self.hook_name = ""  # as the ruleset writes it
        self.devices: tuple[str, ...] = ()  # of a hook of devices
        self.drops_rest = False  # its policy, for packets of these devices
        self.kind = "filter"  # "nat" for a base chain that translates
        self.priority = 0
        self.policy = "ACCEPT"  # "": not known
        self._rules: list[Rule] | None = None
        self._index: _Index | None = None

    @property
    def rules(self) -> list[Rule]:
        if self._rules is None:
            self._rules = self.table.compile(self)
        return self._rules

    @property
    def ref(self) -> RuleRef:
        """The chain's policy, as the rule that ends it."""
        return RuleRef(self.table.title, self.name, 0, f"policy {self.policy}")

    def candidates(self, state: State) -> Sequence[Rule]:
        """The rules that can match by destination address and port, in order; a superset of those that do."""
        rules = self._rules
        if rules is None:
            rules = self.rules
        if len(rules) < 8:
            return rules
        if self._index is None:
            self._index = _Index(rules)
        return self._index.candidates(state)


class _Index:
    """A long chain's rules by the one destination, or the one destination port, that each can match."""

    __slots__ = ("by_dport", "by_dst", "known", "rest")

    def __init__(self, rules: list[Rule]) -> None:
        self.by_dst: dict[int, list[Rule]] = {}
        self.by_dport: dict[int, list[Rule]] = {}
        self.rest: list[Rule] = []
        self.known: dict[tuple[int, int | None], Sequence[Rule]] = {}
        for rule in rules:
            if rule.dst is not None:
                self.by_dst.setdefault(rule.dst, []).append(rule)
            elif rule.dport is not None:
                self.by_dport.setdefault(rule.dport, []).append(rule)
            else:
                self.rest.append(rule)

    def candidates(self, state: State) -> Sequence[Rule]:
        dst, dport = state.dst, state.dport if self.by_dport else 0
        if dst not in self.by_dst and dport not in self.by_dport and dport is not None:
            return self.rest
        known = self.known.get((dst, dport))
        if known is None:
            known = self.known[(dst, dport)] = list(merge(*self._parts(dst, dport), key=_position))
        return known

    def _parts(self, dst: int, dport: int | None) -> list[list[Rule]]:
        if dport is None:  # not known: any of them
            ports = [sorted((r for rules in self.by_dport.values() for r in rules), key=_position)]
        else:
            ports = [self.by_dport.get(dport, [])]
        return [self.by_dst.get(dst, []), *ports, self.rest]


def _position(rule: Rule) -> int:
    return rule.index
