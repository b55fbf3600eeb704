"""What is asked of the policy engine, and what it answers. Everything here is a frozen value."""

from __future__ import annotations

from enum import Enum

import msgspec

from kubectl_genainet.model.finding import ObjectRef


class PolicyVerdict(Enum):
    """Whether a new connection passes. UNKNOWN: it depends on something that could not be evaluated."""

    ALLOW = "allow"
    DENY = "deny"
    UNKNOWN = "unknown"


class Direction(Enum):
    EGRESS = "egress"
    INGRESS = "ingress"


class RuleAction(Enum):
    ALLOW = "allow"
    DENY = "deny"
    PASS = "pass"  # leave this tier, go on with the next
    LOG = "log"


class Effect(Enum):
    """What one policy does to one flow."""

    NO_RULES = "no_rules"  # it isolates the pod and has no rule in this direction
    PEER_NOT_MATCHED = "peer_not_matched"  # none of its rules selects the peer
    PORTS_NOT_MATCHED = "ports_not_matched"  # a rule selects the peer, but not the port
    ALLOWS = "allows"
    DENIES = "denies"
    PASSES = "passes"
    UNKNOWN = "unknown"  # a rule may match: it has a term that could not be evaluated


class PolicyFamily(Enum):
    """Whose semantics a policy has."""

    NETWORK_POLICY = "NetworkPolicy"
    ADMIN = "admin"
    CILIUM = "Cilium"
    CALICO = "Calico"
    OTHER = "other"  # not evaluated


class Term(Enum):
    """The part of a rule that a flow is compared with."""

    NAMESPACE = "namespace"
    NAMESPACE_LABELS = "namespace labels"
    POD = "pod"
    POD_LABELS = "pod labels"
    ADDRESS = "address"
    NODE = "node"
    DOMAIN = "domain name"
    ENTITY = "entity"
    SERVICE_ACCOUNT = "service account"
    PROTOCOL = "protocol"
    PORT = "port"


class Reason(Enum):
    """Why a direction has its verdict."""

    DEFAULT = "default"  # no policy applies
    RULE = "rule"  # a rule of a policy decides
    ISOLATED = "isolated"  # policies isolate the pod and no rule admits the flow
    OUTSIDE = "outside"  # this end is no pod of the cluster: no policy governs it
    HOST_NETWORK = "host_network"  # the pod uses its node's network: policies don't select it
    OWN_NODE = "own_node"  # between a pod and the node that runs it
    LOOPBACK = "loopback"  # a pod to itself
    NOT_EVALUATED = "not_evaluated"
    EITHER_WAY = "either_way"  # it passes, whatever comes of what could not be evaluated
    INERT = "inert"  # nothing on the cluster enforces policies


class PolicyEndpoint(msgspec.Struct, frozen=True):
    """One end of a flow: a pod (namespace and name), an address, or a domain name; `ip` may go with a pod or a domain.

    With a pod, `ip` says which of its addresses is used (by default the first).
    """

    namespace: str = ""
    name: str = ""
    ip: str = ""
    domain: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.name else self.domain or self.ip


def pod_endpoint(namespace: str, name: str, ip: str = "") -> PolicyEndpoint:
    return PolicyEndpoint(namespace, name, ip)


def ip_endpoint(ip: str) -> PolicyEndpoint:
    return PolicyEndpoint(ip=ip)


def domain_endpoint(domain: str, ip: str = "") -> PolicyEndpoint:
    return PolicyEndpoint(ip=ip, domain=domain)


class PolicyFlow(msgspec.Struct, frozen=True):
    """A new connection as it arrives at its target: after Service address translation.

    `protocol` is the API's name ("TCP", "UDP", "SCTP"); `port` is the destination's, in the target pod.
    """

    source: PolicyEndpoint
    destination: PolicyEndpoint
    protocol: str = "TCP"
    port: int = 0

    def __str__(self) -> str:
        return f"{self.source} → {self.destination} {self.protocol} {self.port}"


class FailedTerm(msgspec.Struct, frozen=True):
    """The first term of a rule that a flow does not meet; `field` is its path in the policy."""

    term: Term
    wanted: str
    actual: str
    field: str

    def __str__(self) -> str:
        verb = "are" if self.term in (Term.POD_LABELS, Term.NAMESPACE_LABELS) else "is"
        return f"the {self.term.value} {verb} {self.actual}; the rule requires {self.wanted}"


NOT_IN_FORCE = "not in force"  # so begins the reason of a policy that changes nothing


class NotEvaluated(msgspec.Struct, frozen=True):
    """Something that the verdict may depend on and that was not evaluated."""

    policy: str  # "CiliumNetworkPolicy default/x", or a kind
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.policy}: {self.field}: {self.reason}" if self.field else f"{self.policy}: {self.reason}"


class RuleResult(msgspec.Struct, frozen=True):
    """One rule against one flow. `number` counts from 1; `matches` is None where it could not be told."""

    number: int
    name: str
    action: RuleAction
    matches: bool | None
    peer_matches: bool | None
    failed: FailedTerm | None


class PolicyResult(msgspec.Struct, frozen=True):
    """One policy against one flow. `rule` is the number of the rule that `effect` is about, or None."""

    ref: ObjectRef
    family: PolicyFamily
    effect: Effect
    rule: int | None
    rule_name: str
    isolates: bool
    tier: str
    rules: tuple[RuleResult, ...]

    @property
    def name(self) -> str:
        """ "namespace/name", or the name alone for a cluster-scoped policy."""
        return f"{self.ref.namespace}/{self.ref.name}" if self.ref.namespace else self.ref.name


class DirectionResult(msgspec.Struct, frozen=True):
    """The verdict of one direction. `policies` are those that bear on it, in the order in which they are consulted.

    `isolated_by` are the policies that isolate the pod, as far as evaluation reached them (an administrator's rule
    decides before them). A NetworkPolicy never denies: a pod is isolated, and no rule admits the flow.
    """

    verdict: PolicyVerdict
    reason: Reason
    isolated_by: tuple[ObjectRef, ...] = ()
    admitted_by: tuple[ObjectRef, ...] = ()
    policies: tuple[PolicyResult, ...] = ()
    not_evaluated: tuple[NotEvaluated, ...] = ()


class Explanation(msgspec.Struct, frozen=True):
    """The answer for one flow: it passes when the source's egress and the destination's ingress both allow it.

    `arrival` says where the packet that arrives is another than the one of `flow`, and why; `arriving` are the packets of
    which any may arrive, where there are several.
    """

    flow: PolicyFlow
    verdict: PolicyVerdict
    egress: DirectionResult
    ingress: DirectionResult
    arrival: str = ""
    arriving: tuple[PolicyFlow, ...] = ()

    @property
    def not_evaluated(self) -> tuple[NotEvaluated, ...]:
        return tuple(dict.fromkeys((*self.egress.not_evaluated, *self.ingress.not_evaluated)))

    def direction(self, direction: Direction) -> DirectionResult:
        return self.egress if direction is Direction.EGRESS else self.ingress


def both(egress: PolicyVerdict, ingress: PolicyVerdict) -> PolicyVerdict:
    """The verdict of a flow from those of its two directions."""
    if PolicyVerdict.DENY in (egress, ingress):
        return PolicyVerdict.DENY
    return PolicyVerdict.UNKNOWN if PolicyVerdict.UNKNOWN in (egress, ingress) else PolicyVerdict.ALLOW
