"""What the evaluation of a ruleset takes and gives: packet, rule reference, outcome, verdict, attribution."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import msgspec

from kubectl_genainet.model.packet import FiveTuple, Protocol, address_text
from kubectl_genainet.proxy.evaluator.ir import RulePath, path_refs
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.names import service_of


class RulesetVerdict(Enum):
    DNAT = "DNAT"
    REJECT = "REJECT"
    DROP = "DROP"
    ACCEPT = "ACCEPT"  # a rule accepts the packet and leaves its destination alone
    NO_MATCH = "NO_MATCH"
    MIXED = "MIXED"  # random ways end differently: `Evaluation.parts` has each with its share
    UNKNOWN = "UNKNOWN"


REFUSALS = (RulesetVerdict.DROP, RulesetVerdict.REJECT)


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """A packet as it enters the walk. None is "not known": rules that ask for it are then followed both ways.

    `mark` None means 0 for a packet that enters the node, and unknown inside it (`evaluate_hook`). `ct_state` is one
    of conntrack's states: NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED. Ports are in host order.
    """

    dst: str
    protocol: Protocol
    src: str | None = None
    sport: int | None = None
    dport: int | None = None
    mark: int | None = None
    ct_state: str = "NEW"
    in_device: str | None = None
    out_device: str | None = None
    icmp: tuple[int, int] | None = None  # type and code
    bridged: bool | None = None  # came in through a bridge's port, with br_netfilter in between
    bridge_port: str | None = None  # the port of the bridge that it came in through
    uid: int | None = None  # of the process that sends it
    gid: int | None = None
    dscp: int | None = None
    ttl: int | None = None  # as it enters the node; IPv6: the hop limit
    length: int | None = None  # in bytes, from the IP header on
    transparent_socket: bool | None = None  # a program listens, with IP_TRANSPARENT, for what TPROXY gives it

    @classmethod
    def of(cls, flow: FiveTuple, *, ct_state: str = "NEW") -> Packet:
        return cls(
            src=flow.src, sport=flow.sport, dst=flow.dst, dport=flow.dport, protocol=flow.protocol, ct_state=ct_state
        )


class BackendChoice(msgspec.Struct, frozen=True):
    """A backend that a packet may be sent to. `probability` is None where a scheduler decides by state or by hash."""

    ip: str
    port: int | None
    probability: float | None
    masquerade: bool | None

    @property
    def address(self) -> str:
        return address_text(self.ip, self.port)


@dataclass(frozen=True)
class WalkOutcome:
    """One way that the packet may go: its end, and the rules that it passed."""

    verdict: RulesetVerdict
    backend: BackendChoice | None
    probability: float | None
    masquerade: bool
    path: RulePath | None
    presumed: tuple[str, ...] = ()  # the answers to open questions that this way goes by
    reason: str = ""  # why the verdict is UNKNOWN

    @cached_property
    def rules(self) -> tuple[RuleRef, ...]:
        """The rules passed, in order."""
        return path_refs(self.path)

    @property
    def final_rule(self) -> RuleRef | None:
        """The rule that dropped or rejected the packet, where one did."""
        return self.rules[-1] if self.rules and self.verdict in REFUSALS else None

    @property
    def deciding_rule(self) -> RuleRef | None:
        """The rule that decides: the one that drops or rejects, else the one that translates; None: no rule did."""
        if self.final_rule is not None:
            return self.final_rule
        if self.backend is not None:
            return next((r for r in reversed(self.rules) if translates(r)), None)
        return self.rules[-1] if self.rules and self.verdict is RulesetVerdict.ACCEPT else None


# Statements of nft; "ct status dnat" asks, and translates nothing.
_NFT_DNAT = re.compile(r"\b(?:dnat(?: ip6?)?(?: prefix| addr \. port)? to|redirect|tproxy(?: ip6?)? to)\b")
_NFT_SNAT = re.compile(r"\b(?:snat(?: ip6?)?(?: prefix| addr \. port)? to|masquerade)\b")


def translates(rule: RuleRef) -> bool:
    """Whether the rule's target rewrites a destination."""
    if rule.table == "ipvs" or rule.target:
        return rule.table == "ipvs" or rule.target in ("DNAT", "REDIRECT", "NETMAP", "TPROXY")
    return _NFT_DNAT.search(rule.bare_text) is not None


def masquerades(rule: RuleRef) -> bool:
    """Whether the rule's target rewrites a source."""
    if rule.target:
        return rule.target in ("MASQUERADE", "SNAT")
    return _NFT_SNAT.search(rule.bare_text) is not None


class Part(msgspec.Struct, frozen=True):
    """One of the ways that a packet may go, with its share of new connections (None: a hash or a state decides)."""

    verdict: RulesetVerdict
    share: float | None
    masquerade: bool
    backends: tuple[BackendChoice, ...]
    rule: RuleRef | None  # that decides


@dataclass(frozen=True)
class Evaluation:
    """What a node's rules do with a packet. `unknown` names what would have to be known where the verdict is UNKNOWN.

    With several outcomes, `verdict` is the one that all share, else MIXED; `parts` has each with its share.
    `assumed` is what was taken for granted (a limit that has room), in words.
    """

    verdict: RulesetVerdict
    backends: tuple[BackendChoice, ...]
    masquerade: bool | None  # of at least one backend; None: not known
    unknown: tuple[str, ...] = ()
    tell: Callable[[], tuple[WalkOutcome, ...]] = field(default=tuple, repr=False, compare=False)
    assumed: tuple[str, ...] = ()
    tell_parts: Callable[[], tuple[WalkOutcome, ...]] = field(default=tuple, repr=False, compare=False)

    @cached_property
    def outcomes(self) -> tuple[WalkOutcome, ...]:
        """Every way that the packet may go, in the rules' order."""
        return self.tell()

    @cached_property
    def rules(self) -> tuple[RuleRef, ...]:
        """The rules passed, in order, over all outcomes, each once."""
        return tuple(dict.fromkeys(rule for outcome in self.outcomes for rule in outcome.rules))

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The outcomes by verdict and deciding rule; those that pass untouched, and all that are translated, as one."""
        grouped: dict[tuple[object, ...], list[WalkOutcome]] = {}
        for outcome in self.tell_parts():
            refused = outcome.verdict in REFUSALS
            key = (outcome.verdict, outcome.final_rule) if refused else (outcome.verdict,)
            grouped.setdefault(key, []).append(outcome)
        return tuple(_part(outcomes) for outcomes in grouped.values())

    @cached_property
    def service(self) -> str | None:
        """ "ns/name:port" of the Service whose rules took the packet, as kube-proxy names it; None if none did."""
        return service_of(self.rules)

    @property
    def dropping_rules(self) -> tuple[RuleRef, ...]:
        """The rules that drop or reject the packet on some way, whatever is unknown."""
        return tuple(dict.fromkeys(r for o in self.outcomes if (r := o.final_rule) is not None))


def _part(outcomes: list[WalkOutcome]) -> Part:
    backends: dict[tuple[str, int | None], BackendChoice] = {}
    for outcome in outcomes:
        if outcome.backend is not None and outcome.verdict is RulesetVerdict.DNAT:
            backends.setdefault((outcome.backend.ip, outcome.backend.port), outcome.backend)
    shares = [outcome.probability for outcome in outcomes]
    share = None if None in shares else round(sum(s for s in shares if s is not None), 9)
    first = outcomes[0]
    masquerade = any(outcome.masquerade for outcome in outcomes)
    return Part(first.verdict, share, masquerade, tuple(backends.values()), first.deciding_rule)


class NatAttribution(msgspec.Struct, frozen=True):
    """The rules behind an observed translation. `rules` are those passed, the last being the one that did it."""

    mode: str  # "iptables", "nftables", "ipvs"
    service_chain: str | None
    endpoint_chain: str | None
    service: str | None
    rules: tuple[RuleRef, ...]
    masquerade: bool | None = None
