"""What every kind of policy is compiled to: policies with ordered rules, in tiers.

A rule matches a flow when its peers, its ports and its `own` term do. Policies of all kinds are then judged by one
procedure (decide.py).
"""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.policy.matching.covering import hold_all
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.matching.peers import YES, BlockPeer, Match, Peer, best_match, no
from kubectl_genainet.policy.model import Direction, PolicyFamily, RuleAction, Term

PROTOCOLS = ("TCP", "UDP", "SCTP")


class NumberedPorts(msgspec.Struct, frozen=True):
    """Destination ports `first` to `last` of a protocol; an empty protocol is any."""

    protocol: str
    first: int
    last: int
    field: str

    def match(self, protocol: str, port: int, destination: PolicyParty) -> Match:
        if self.protocol and self.protocol != protocol:
            return no(Term.PROTOCOL, self, protocol, self.field)
        if self.first <= port <= self.last:
            return YES
        return no(Term.PORT, self, f"{protocol} {port}", self.field, 1)

    def __str__(self) -> str:
        if (self.first, self.last) == (0, 65535):
            return self.protocol or "any port"
        numbers = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.protocol} {numbers}".strip()


class NamedPortTerm(msgspec.Struct, frozen=True):
    """A port by its name in the destination pod's containers; an empty protocol is that of the container port."""

    protocol: str
    name: str
    field: str
    of_hosts: bool = True  # whether pods that use their node's network have named ports
    of_sidecars: bool = True  # whether init containers that keep running have
    last: int = 0  # Cilium: the range from the named port to this one

    def holds(self, named: int, port: int) -> bool:
        """Whether the term selects a port where the name stands for the number `named`."""
        return named <= port <= max(named, self.last)

    def match(self, protocol: str, port: int, destination: PolicyParty) -> Match:
        if self.protocol and self.protocol != protocol:
            return no(Term.PROTOCOL, self, protocol, self.field)
        known = self.of_hosts or destination.kind is PartyKind.POD
        ports_known = destination.ports if known else ()
        named = [p for p in ports_known if p.name == self.name and (self.of_sidecars or not p.sidecar)]
        if any(p.protocol == protocol and self.holds(p.port, port) for p in named):
            return YES
        ports = ", ".join(f"{p.protocol} {p.port}" for p in named)
        meaning = f"{self.name} is {ports} in {destination.text}" if named else f"{destination.text} has no such port"
        if not known:
            meaning = f"Cilium knows no named ports of {destination.text}, which uses its node's network"
        return no(Term.PORT, self, f"{protocol} {port} ({meaning})", self.field, 1)

    def __str__(self) -> str:
        return f"{self.protocol} port {self.name}".strip()


class NotPorts(msgspec.Struct, frozen=True):
    """Every port but these (Calico's notPorts)."""

    ports: tuple[NumberedPorts | NamedPortTerm, ...]
    field: str

    def match(self, protocol: str, port: int, destination: PolicyParty) -> Match:
        if any(p.match(protocol, port, destination).value for p in self.ports):
            return no(
                Term.PORT, "a port other than " + ", ".join(map(str, self.ports)), f"{protocol} {port}", self.field
            )
        return YES


class NotProtocol(msgspec.Struct, frozen=True):
    """Every protocol but this one (Calico's notProtocol)."""

    protocol: str
    field: str

    def match(self, protocol: str, port: int, destination: PolicyParty) -> Match:
        if protocol == self.protocol:
            return no(Term.PROTOCOL, f"not {self.protocol}", protocol, self.field)
        return YES


class NoPorts(msgspec.Struct, frozen=True):
    """No port at all, for the reason `why` (Cilium: a port rule without ports, a rule for ICMP only)."""

    field: str
    why: str

    def match(self, protocol: str, port: int, destination: PolicyParty) -> Match:
        return no(Term.PORT, f"no port: {self.why}", f"{protocol} {port}", self.field)


Ports = NumberedPorts | NamedPortTerm | NotPorts | NotProtocol | NoPorts


class PolicyRule(msgspec.Struct, frozen=True):
    """One rule. `peers` None selects every peer; `ports` is a conjunction of alternatives (one, but for Calico).

    `own` is a further term on the policy's own side. `not_evaluated` names fields of the rule that are not evaluated
    (field, reason): where the rest matches, it is unknown whether the rule does.
    """

    number: int
    action: RuleAction
    field: str
    name: str = ""
    peers: tuple[Peer, ...] | None = None
    ports: tuple[tuple[Ports, ...], ...] = ()
    own: Peer | None = None
    not_evaluated: tuple[tuple[str, str], ...] = ()

    def match_peers(self, peer: PolicyParty, own: PolicyParty) -> Match:
        if self.own is not None:
            match = self.own.match(own, own)
            if match.value is not True:
                return match
        if self.peers is None:
            return YES
        match = best_match([p.match(peer, own) for p in self.peers])
        if match.value is None and peer.domain and peer.address is None and self._holds_every_address(own):
            return YES
        return match

    def _holds_every_address(self, own: PolicyParty) -> bool:
        """Whether blocks of the rule hold every address that the pod can send to, so that any name is admitted."""
        blocks = [p for p in self.peers or () if isinstance(p, BlockPeer)]
        held = {version for version in (4, 6) if hold_all(blocks, version)}
        return bool(held) and held >= set(own.versions or (4, 6))

    def match_ports(self, protocol: str, port: int, destination: PolicyParty) -> Match:
        for alternatives in self.ports:
            match = best_match([p.match(protocol, port, destination) for p in alternatives])
            if match.value is not True:
                return match
        return YES


class Premise(msgspec.Struct, frozen=True):
    """What must hold for a policy to be in force, where that is not known, and why it may not.

    Policies with the same premise are all in force or none of them: those of one object (`of`), or with an empty `of` those
    that hang on one option or release of the enforcer.
    """

    field: str
    why: str
    of: str = ""


class Policy(msgspec.Struct, frozen=True):
    """A policy, compiled. `isolates` and `rules` are by direction; `order` sorts policies within a tier.

    `not_evaluated` names fields of the policy that are not evaluated: all its rules are unsure then. With `premises` it is
    in force as it stands, or not at all.
    """

    ref: ObjectRef
    family: PolicyFamily
    tier: str
    subject: Peer
    order: tuple[float | int | str, ...]
    egress: tuple[PolicyRule, ...] = ()
    ingress: tuple[PolicyRule, ...] = ()
    isolates_egress: bool = False
    isolates_ingress: bool = False
    not_evaluated: tuple[tuple[str, str], ...] = ()
    premises: tuple[Premise, ...] = ()

    def rules(self, direction: Direction) -> tuple[PolicyRule, ...]:
        return self.egress if direction is Direction.EGRESS else self.ingress

    def isolates(self, direction: Direction) -> bool:
        return self.isolates_egress if direction is Direction.EGRESS else self.isolates_ingress

    def applies(self, direction: Direction) -> bool:
        return self.isolates(direction) or bool(self.rules(direction))


class HostPolicy(msgspec.Struct, frozen=True):
    """A policy of nodes, which is not evaluated for the reason `why`: of one node, or of every one.

    `own_pods`: it is also about the traffic between the node and the pods that it runs.
    """

    ref: ObjectRef
    why: str
    node: str = ""
    addresses: frozenset[str] = frozenset()
    own_pods: bool = True

    def concerns(self, host: PolicyParty, peer: PolicyParty) -> bool:
        """Whether it may stop traffic between a node and somebody."""
        if not self.own_pods and peer.kind is PartyKind.POD and peer.node and peer.node == host.node:
            return False
        if not self.node:
            return True
        return host.node == self.node if host.node else str(host.address) in self.addresses


class Refused(msgspec.Struct, frozen=True):
    """A policy that its API or its agent refuses: it is not in force, in none of its parts. `directions` are those that it
    has rules for, `subject` whom it would apply to, as far as that could be read."""

    ref: ObjectRef
    subject: Peer
    directions: frozenset[Direction]
    field: str
    why: str
    source: str = ""


class Tier(msgspec.Struct, frozen=True):
    """Policies that are consulted together. Where one isolates the pod and nothing decides, the tier ends in a drop.

    `ends` is DENY, or PASS for a Calico tier with defaultAction Pass.
    """

    name: str
    order: float
    ends: RuleAction = RuleAction.DENY


OTHER_TIER = Tier("other", 0)  # before all tiers that are evaluated
ADMIN_TIER = Tier("admin", 1_000)
DEFAULT_TIER = Tier("default", 1_000_000)
# Calico evaluates a NetworkPolicy as one of its own with order 1000; elsewhere the order among them has no effect.
NETWORK_POLICY_ORDER = 1000.0
BASELINE_TIER = Tier("baseline", 10_000_000)
