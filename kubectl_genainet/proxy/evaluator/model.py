"""What the evaluation of a ruleset takes and gives: packet, rule reference, outcome, verdict, attribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import msgspec

from kubectl_genainet.model.packet import FiveTuple, Protocol, address_text
from kubectl_genainet.proxy.evaluator.ir import Path, path_refs
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.names import service_of


class Verdict(Enum):
    DNAT = "DNAT"
    REJECT = "REJECT"
    DROP = "DROP"
    ACCEPT = "ACCEPT"  # a rule accepts the packet and leaves its destination alone
    NO_MATCH = "NO_MATCH"
    UNKNOWN = "UNKNOWN"


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
class Outcome:
    """One way that the packet may go: its end, and the rules that it passed."""

    verdict: Verdict
    backend: BackendChoice | None
    probability: float | None
    masquerade: bool
    path: Path | None
    presumed: tuple[str, ...] = ()  # what this way takes for granted, and is not known

    @cached_property
    def rules(self) -> tuple[RuleRef, ...]:
        """The rules passed, in order."""
        return path_refs(self.path)

    @property
    def final_rule(self) -> RuleRef | None:
        """The rule that dropped or rejected the packet, where one did."""
        return self.rules[-1] if self.rules and self.verdict in (Verdict.DROP, Verdict.REJECT) else None


@dataclass(frozen=True)
class Evaluation:
    """What a node's rules do with a packet. `unknown` names what would have to be known where the verdict is UNKNOWN.

    With several outcomes, `verdict` is the one that all share; where only some of the backends' ways end in a
    drop, it is DNAT and `outcomes` has the rest.
    """

    verdict: Verdict
    backends: tuple[BackendChoice, ...]
    masquerade: bool | None  # of at least one backend; None: not known
    unknown: tuple[str, ...] = ()
    tell: Callable[[], tuple[Outcome, ...]] = field(default=tuple, repr=False, compare=False)

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Every way that the packet may go, in the rules' order."""
        return self.tell()

    @cached_property
    def rules(self) -> tuple[RuleRef, ...]:
        """The rules passed, in order, over all outcomes, each once."""
        return tuple(dict.fromkeys(rule for outcome in self.outcomes for rule in outcome.rules))

    @cached_property
    def service(self) -> str | None:
        """ "ns/name:port" of the Service whose rules took the packet, as kube-proxy names it; None if none did."""
        return service_of(self.rules)

    @property
    def dropping_rules(self) -> tuple[RuleRef, ...]:
        """The rules that drop or reject the packet on some way, whatever is unknown."""
        return tuple(dict.fromkeys(r for o in self.outcomes if (r := o.final_rule) is not None))


class NatAttribution(msgspec.Struct, frozen=True):
    """The rules behind an observed translation. `rules` are those passed, the last being the one that did it."""

    mode: str  # "iptables", "nftables", "ipvs"
    service_chain: str | None
    endpoint_chain: str | None
    service: str | None
    rules: tuple[RuleRef, ...]
    masquerade: bool | None = None
