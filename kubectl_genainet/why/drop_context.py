"""A drop with all that may explain it, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.diagnoses import BY_REASON, Diagnosis
from kubectl_genainet.model.events import PacketDropped
from kubectl_genainet.model.finding import Certainty, Evidence
from kubectl_genainet.model.packet import FiveTuple, address_text
from kubectl_genainet.policy import PolicyEngine
from kubectl_genainet.proxy import RuleRef, Ruleset
from kubectl_genainet.why.remedies import Remedies


@dataclass(frozen=True, slots=True)
class DropContext:
    """A drop and all that may explain it. `established` says whether the packet belonged to an existing connection.

    `ruleset` is the rules of the namespace that the packet was in. `named` is the rule that the node's kernel itself named
    for the packet, where it was asked (`--exact`). `engines` are the policies that may have been in force, the newest first; None
    stands for objects that can't be read. `asked` is the connection's tuple as its client had it, where known;
    `entered` the packet's as it came into the namespace.
    """

    event: PacketDropped
    established: bool
    identity: Identity
    ruleset: Ruleset | None
    ruleset_error: str
    engines: tuple[PolicyEngine | None, ...]
    remedies: Remedies | None = None
    named: RuleRef | None = None  # the rule that the kernel itself named for this packet (`--exact`)
    icmp: tuple[int, int] | None = None  # type and code, where the packet is an ICMP error itself
    request: FiveTuple | None = None  # the flow that policies judge, where the packet itself is an answer
    asked: FiveTuple | None = None
    entered: FiveTuple | None = None
    earlier: Callable[[], tuple[Ruleset, ...]] = tuple  # the namespace's rules as they were before, the latest first

    @property
    def judged(self) -> FiveTuple:
        return self.request or self.event.flow

    @property
    def flow(self) -> FiveTuple:
        """The packet's tuple as rules and routes see it: the tunnel's, where it died inside one."""
        return self.event.tunnel or self.event.flow

    @property
    def what(self) -> str:
        """The packet in a sentence."""
        if self.event.tunnel is None:
            return "it"
        return f"the tunnel's packet from {self.flow.src} to {self.flow.destination} that carries it"

    @property
    def place(self) -> str:
        """The pod or node in whose namespace the packet was."""
        return self.identity.place(self.event.node, self.event.netns)

    @property
    def where(self) -> str:
        """The same as it stands in sentences about rules: the node's name alone, but "pod NAMESPACE/NAME"."""
        return self.place.removeprefix("node ")

    @property
    def destination(self) -> str:
        pod = self.identity.snapshot.pod_at(self.flow.dst)
        return f"pod {pod.metadata.namespace}/{pod.metadata.name}" if pod else address_text(self.flow.dst, None)


@dataclass(frozen=True, slots=True)
class DropExplanation:
    """What is made of a drop. `certainty` is that of `rule` and `policies`; `told` is how a rule answers the sender."""

    diagnosis: Diagnosis
    explanation: str
    certainty: Certainty
    rule: str | None = None
    policies: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    told: str | None = None


def observed(statement: str, node: str = "") -> Evidence:
    return Evidence(statement, Certainty.OBSERVED, node=node)


def derived(statement: str, node: str = "") -> Evidence:
    return Evidence(statement, Certainty.DERIVED, node=node)


def assumed(statement: str) -> Evidence:
    return Evidence(statement, Certainty.ASSUMED)


def sentence(context: DropContext) -> DropExplanation | None:
    """The reasons that say all by themselves."""
    known = BY_REASON.get(context.event.reason)
    if known is None:
        return None
    diagnosis, text = known
    statement = text.format(place=context.place, device=context.event.device or "a device")
    return DropExplanation(diagnosis, statement, Certainty.OBSERVED)
