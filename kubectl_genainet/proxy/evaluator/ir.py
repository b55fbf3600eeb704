"""The one form that iptables and nftables rules are compiled to: checks on a packet's state, then actions.

A check answers True, False, or None where what it asks for is not known. Chains are compiled when they are first
walked: a node with 10,000 Services has 250,000 rules, and a packet meets a few dozen of them.
"""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from heapq import merge
from typing import Any, TypeVar, Union

from kubectl_genainet.proxy.evaluator.rule_ref import Hook, RuleRef

S = TypeVar("S", bound="State")
ALL_BITS = 0xFFFFFFFF


@lru_cache(maxsize=65536)
def address_number(text: str) -> int:
    """An address as a number; IPv6 numbers never collide with IPv4 ones in use. Raises ValueError."""
    return int(ipaddress.ip_address(text)) if ":" in text else ipv4_number(text)


def ipv4_number(text: str) -> int:
    """`int(IPv4Address(text))`, several times faster: a ruleset has an address in every second line."""
    a, b, c, d = map(int, text.split("."))
    if not (0 <= a < 256 and 0 <= b < 256 and 0 <= c < 256 and 0 <= d < 256):
        raise ValueError(f"{text!r} is no IPv4 address")
    return a << 24 | b << 16 | c << 8 | d


def address_of(number: int, family: int) -> str:
    if family == 4:
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return str(ipaddress.IPv6Address(number))


class State:
    """A packet on its way. Numbers throughout; None is "not known". `known` has the bits of `mark` that are known."""

    __slots__ = (
        "accepted",
        "added",
        "assumed",
        "bridged",
        "by_node",
        "connmark",
        "connmark_known",
        "ct",
        "ct_later",
        "dnat",
        "doubts",
        "dport",
        "dscp",
        "dst",
        "env",
        "family",
        "from_wire",
        "gid",
        "icmp",
        "iif",
        "known",
        "looped",
        "mark",
        "masquerade",
        "nat_done",
        "oif",
        "oif_routed",
        "orig_dport",
        "orig_dst",
        "orig_src",
        "own",
        "path",
        "phys_in",
        "phys_out",
        "probability",
        "proto",
        "redirected",
        "scheduled",
        "sport",
        "src",
        "tcp_flags",
        "uid",
    )

    env: Env
    family: int  # 4 or 6
    src: int | None
    dst: int
    sport: int | None
    dport: int | None
    proto: int
    mark: int
    known: int
    connmark: int
    connmark_known: int
    ct: str  # "INVALID" in chains that come before connection tracking
    ct_later: str  # what `ct` becomes once conntrack has seen the packet; "" from then on
    iif: str | None  # "" where there is none
    oif: str | None
    oif_routed: str | None  # the device that it leaves by, once it is routed
    phys_in: str | None  # ports of a bridge
    phys_out: str | None
    uid: int | None  # of the socket that sent it; -1: none
    gid: int | None
    tcp_flags: int | None
    dscp: int | None
    icmp: tuple[int, int] | None
    orig_dst: int
    orig_src: int | None  # before the source was translated; of no use until then
    orig_dport: int | None
    dnat: bool
    masquerade: bool  # its source was translated: `src` is the new one, None where it is any address of the node
    by_node: bool  # masqueraded: the new source is one of the node's addresses
    nat_done: int  # status bits of the directions that NAT has decided about
    accepted: bool
    bridged: bool | None
    own: bool  # made on the node
    from_wire: bool  # it came in by a device that is not the loopback device, whichever that is
    looped: bool  # came back in through the loopback device
    redirected: bool  # to a port of the node itself
    scheduled: bool  # IPVS has sent it to a real server
    added: tuple[tuple[str, object], ...]  # (set, key) that rules on this way have added to sets
    assumed: tuple[str, ...]  # what was taken for granted on this way, in words
    probability: float | None
    path: Path | None
    doubts: tuple[tuple[str, bool], ...]

    def copy(self) -> State:
        return self.copy_to(object.__new__(State))

    def copy_to(self, new: S) -> S:
        """Fills `new` with all that this packet has."""
        new.env, new.family, new.src, new.dst = self.env, self.family, self.src, self.dst
        new.sport, new.dport, new.proto, new.mark = self.sport, self.dport, self.proto, self.mark
        new.known, new.connmark, new.ct, new.iif, new.oif = self.known, self.connmark, self.ct, self.iif, self.oif
        new.orig_dst, new.orig_dport, new.dnat = self.orig_dst, self.orig_dport, self.dnat
        new.masquerade, new.accepted, new.probability = self.masquerade, self.accepted, self.probability
        new.path, new.doubts, new.own, new.looped = self.path, self.doubts, self.own, self.looped
        new.bridged, new.icmp, new.assumed, new.scheduled = self.bridged, self.icmp, self.assumed, self.scheduled
        new.connmark_known, new.ct_later, new.oif_routed = self.connmark_known, self.ct_later, self.oif_routed
        new.phys_in, new.phys_out, new.uid, new.gid = self.phys_in, self.phys_out, self.uid, self.gid
        new.tcp_flags, new.dscp, new.redirected = self.tcp_flags, self.dscp, self.redirected
        new.orig_src, new.nat_done, new.added = self.orig_src, self.nat_done, self.added
        new.by_node, new.from_wire = self.by_node, self.from_wire
        return new

    @property
    def traced(self) -> bool:
        """Whether conntrack has an entry for the packet."""
        return self.ct not in ("UNTRACKED", "INVALID")

    def translate_source(self, src: int | None) -> None:
        """SNAT: `src` is the new source, None where it is not known which of the node's addresses it is."""
        self.orig_src, self.src, self.masquerade = self.src, src, True

    def assume(self, what: str) -> None:
        if what not in self.assumed:
            self.assumed = (*self.assumed, what)


Check = Callable[[State], bool | None]
Passed = Union["Rule", "Chain", RuleRef]
# Rules passed, newest first: ways that fork share what came before. A tuple of rules is a stretch, oldest first.
Path = tuple[Passed | tuple[Passed, ...], "Path | None"]


@dataclass(frozen=True, slots=True)
class Env:
    """The node around the rules. `local` None: the node's addresses are not known."""

    local: frozenset[int] | None
    always_local: frozenset[int] = frozenset()

    def is_local(self, number: int, family: int) -> bool | None:
        if number in self.always_local:
            return True
        if (family == 4 and number >> 24 == 127) or (family == 6 and number == 1):
            return True
        return None if self.local is None else number in self.local


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
    DSCP = "dscp"
    CHECK = "check"  # a match that stands behind another action
    SPLIT = "split"  # a random pick
    LOOKUP = "lookup"  # a verdict map
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a rule. Which of the fields count depends on `kind`."""

    kind: Act
    chain: str = ""  # JUMP, GOTO
    detail: str = ""  # REJECT: with what; QUEUE: which; UNKNOWN: the target's name
    address: int | None = None  # DNAT: new destination; None keeps it. SNAT: new source; None: not known
    port: int | None = None  # the lowest of a range
    last_address: int | None = None  # DNAT: the end of a range
    last_port: int | None = None
    persistent: bool = False
    random_port: bool = False
    keep: int = ALL_BITS  # MARK: mark = (mark & keep) ^ flip; CONNMARK alike
    flip: int = 0
    source: str = ""  # MARK, CONNMARK: "mark" or "connmark" XORs that one's bits of `source_mask` in, too
    source_mask: int = ALL_BITS
    check: Check | None = None
    choices: tuple[tuple[float | None, Action], ...] = ()  # SPLIT: a random pick; None: by a hash
    lookup: Callable[[State], Action | None] | None = None  # LOOKUP; None for a miss
    keys: tuple[Callable[[State], Any], ...] = ()  # ADD: what is added to the set `detail`
    element: RuleRef | None = None  # of a verdict that came from a commented map element


CONTINUE_ACTION = Action(Act.CONTINUE)


class Rule:
    """A compiled rule. `labels` name the checks, for when one of them can't be answered."""

    __slots__ = (
        "actions",
        "by_destination",
        "chain",
        "checks",
        "dport",
        "dst",
        "final",
        "goto",
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
        self.checks: tuple[Check, ...] = ()
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
        self.final: Action | None = None  # its one action, where that ends the base chain

    def finish(self) -> None:
        """Resolves a lone jump or verdict, the commonest actions, once for all packets."""
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
        rest = Rule(self.chain, self.index, self.raw)
        rest.actions = (choice, *self.actions[number + 1 :])
        return rest

    def doubts(self, numbers: list[int]) -> list[tuple[Check, str]]:
        """The checks that could not be answered, with their labels."""
        return [(self.checks[number], self.labels[number]) for number in numbers]

    @property
    def ref(self) -> RuleRef:
        return self.chain.table.describe(self)


def path_refs(path: Path | None) -> tuple[RuleRef, ...]:
    """The rules of a path, oldest first."""
    found: list[RuleRef] = []
    while path is not None:
        passed, path = path
        stretch = passed if isinstance(passed, tuple) else (passed,)
        found += [rule if isinstance(rule, RuleRef) else rule.ref for rule in reversed(stretch)]
    return tuple(reversed(found))


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
        found = self.known.get((dst, dport))
        if found is None:
            found = self.known[(dst, dport)] = list(merge(*self._parts(dst, dport), key=_position))
        return found

    def _parts(self, dst: int, dport: int | None) -> list[list[Rule]]:
        if dport is None:  # not known: any of them
            ports = [sorted((r for rules in self.by_dport.values() for r in rules), key=_position)]
        else:
            ports = [self.by_dport.get(dport, [])]
        return [self.by_dst.get(dst, []), *ports, self.rest]


def _position(rule: Rule) -> int:
    return rule.index
