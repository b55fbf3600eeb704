"""Every policy of a snapshot, compiled, with the tiers that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.dialects.admin import compile_admin_policy
from kubectl_genainet.policy.dialects.calico.compiler import GROUPS as CALICO_GROUPS
from kubectl_genainet.policy.dialects.calico.compiler import CalicoCompiler
from kubectl_genainet.policy.dialects.calico.hosts import forward_policies, host_policies
from kubectl_genainet.policy.dialects.cilium import CiliumCompiler
from kubectl_genainet.policy.dialects.cilium.names import Lookups
from kubectl_genainet.policy.dialects.hedged import Hedges
from kubectl_genainet.policy.dialects.kubernetes import compile_network_policy
from kubectl_genainet.policy.enforcers import Enforcer, EnforcerName, Trait
from kubectl_genainet.policy.enforcers.base import UnreadKinds
from kubectl_genainet.policy.identity import IdentityScheme
from kubectl_genainet.policy.left_out.linkerd_defaults import linkerd_refusals
from kubectl_genainet.policy.left_out.mesh_config import closed_registry
from kubectl_genainet.policy.left_out.mutual_tls import strict_mutual_tls
from kubectl_genainet.policy.left_out.of_nodes import ANTREA as OF_NODES
from kubectl_genainet.policy.left_out.of_nodes import policies_of_nodes
from kubectl_genainet.policy.left_out.other_kinds import OTHER_KINDS
from kubectl_genainet.policy.left_out.served import SERVED, Doubtful, RefusedBy, all_doubtful, doubtful
from kubectl_genainet.policy.left_out.unevaluated import (
    StandIn,
    Unevaluated,
    stand_in_for,
    stand_in_for_doubtful,
    unevaluated,
    unevaluated_policies,
)
from kubectl_genainet.policy.matching.node_peers import OwnNodePeer
from kubectl_genainet.policy.matching.peers import (
    AllOfPeer,
    AnyOfPeer,
    AnyPeer,
    NodesPeer,
    NotPeer,
    OwnedPodPeer,
    PodsPeer,
)
from kubectl_genainet.policy.matching.selectors import EVERYTHING, NAMESPACE_NAME_LABEL
from kubectl_genainet.policy.model import Direction, PolicyFamily, RuleAction, Term
from kubectl_genainet.policy.rules import (
    ADMIN_TIER,
    BASELINE_TIER,
    DEFAULT_TIER,
    OTHER_TIER,
    HostPolicy,
    Policy,
    PolicyRule,
    Premise,
    Refused,
    Tier,
)
from kubectl_genainet.policy.spelling import check_top, misspelt, with_misspelt

ADMIN_GROUP = "policy.networking.k8s.io"
_ADMIN_KINDS = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")
_CILIUM_KINDS = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_CILIUM_KEYS = tuple(("cilium.io", kind) for kind in _CILIUM_KINDS)
_CALICO_KINDS = ("NetworkPolicy", "GlobalNetworkPolicy")
_CALICO_PARTS = ("NetworkSet", "GlobalNetworkSet", "Tier", "HostEndpoint")
_EVALUATED = frozenset(SERVED)

# Every kind that a snapshot must hold for a verdict not to be wrong: (API group, kind). Those that a cluster does not
# have are simply not there; those that can't be read belong into the snapshot's left_out.
POLICY_KINDS: tuple[tuple[str, str], ...] = (
    ("networking.k8s.io", "NetworkPolicy"),
    *((ADMIN_GROUP, kind) for kind in _ADMIN_KINDS),
    *(("cilium.io", kind) for kind in (*_CILIUM_KINDS, "CiliumCIDRGroup")),
    *((group, kind) for group in CALICO_GROUPS for kind in (*_CALICO_KINDS, *_CALICO_PARTS)),
    ("security.istio.io", "PeerAuthentication"),
    *OTHER_KINDS,
)


# By which NetworkPolicies select what the nodes of OpenShift send (OpenShift documentation, Network policy).
HOST_GROUP_LABEL = "policy-group.network.openshift.io/host-network"
# What the namespace has besides where routers use the network of their nodes (openshift/enhancements pull request 561).
_ROUTER_LABELS = {"policy-group.network.openshift.io/ingress": "", "network.openshift.io/policy-group": "ingress"}

_STATELESS = "k8s.ovn.org/acl-stateless"  # OVN-Kubernetes, --enable-stateless-netpol

CompilePolicy = Callable[[KubeObject], Iterable[Policy]]


@dataclass(slots=True)
class Compiled:
    """`tiers` in the order in which they are consulted; `host_policies` apply to nodes and are not evaluated.

    `refused` are not in force; `unevaluated` names these and those that a stand-in in `policies` takes the place of.
    `identities` and `lookups` are there where Cilium enforces the policies; `compilers`, by group and kind, compile one
    object more.
    `unread` are policies of kinds that the enforcer does not read, `made` those that an option of it amounts to;
    `narrowed` are the API's baseline policies, by the id of the one that the enforcer makes of each.
    `network_policy` compiles a NetworkPolicy as if the enforcer kept to the API in some respects.
    """

    tiers: tuple[Tier, ...] = ()
    policies: list[Policy] = field(default_factory=list)
    host_policies: list[HostPolicy] = field(default_factory=list)
    unevaluated: list[Unevaluated] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    identities: IdentityScheme | None = None
    lookups: Lookups | None = None
    compilers: dict[tuple[str, str], CompilePolicy] = field(default_factory=dict)
    unread: list[Policy] = field(default_factory=list)
    made: list[tuple[Trait, Policy]] = field(default_factory=list)
    narrowed: dict[int, Policy] = field(default_factory=dict)
    network_policy: Callable[[KubeObject, frozenset[Trait]], Policy] = lambda obj, _: compile_network_policy(obj)

    def take(
        self, objects: Iterable[KubeObject], compiler: CompilePolicy, by: RefusedBy, unread: UnreadKinds | None
    ) -> None:
        """Compiles objects; one that is not valid is refused by its API or agent, and the others are compiled."""
        for obj in objects:
            if doubtful(obj) is not None:
                continue  # take_doubtful has it
            try:
                check_top(obj)
                if unread is None:
                    self.policies += compiler(obj)
                else:
                    self._take_unread(obj, compiler, unread)
            except InputError as error:
                told = with_misspelt(obj, error)
                stand_in = stand_in_for(obj, told, by)
                more = tuple((one.field, one.why(obj.kind)) for one in misspelt(obj) if one.field != told.field)
                policy = stand_in.policy
                policy = msgspec.structs.replace(policy, not_evaluated=(*policy.not_evaluated, *more))
                self.take_stand_in(msgspec.structs.replace(stand_in, policy=policy), unread)

    def take_stand_in(self, stand_in: StandIn, unread: UnreadKinds | None) -> None:
        """What takes the place of a policy that is not evaluated; one that the enforcer does not read changes nothing."""
        policy, what = stand_in.policy, stand_in.what
        if unread is None or not unread.certain:
            self.policies.append(policy)
            self.unevaluated.append(what)
            return
        self._put_aside(policy, unread, what.source)
        if what.refused_by in (RefusedBy.NOBODY, RefusedBy.AGENT):  # its agent is not there
            what = Unevaluated(what.ref, unread.why, source=what.source)
        else:
            what = msgspec.structs.replace(what, reason=f"{what.reason}; {unread.why}")
        self.unevaluated.append(what)

    def take_doubtful(self, doubtful: Doubtful, unread: UnreadKinds | None) -> None:
        """Compiles a policy that may not be in force as it is written: what hangs on it is not known."""
        if unread is not None and unread.certain:
            self.take_stand_in(stand_in_for_doubtful(doubtful), unread)
            return
        compiler = self.compilers.get((doubtful.meant.group, doubtful.meant.kind))
        try:
            compiled = tuple(compiler(doubtful.meant)) if compiler is not None else ()
        except InputError:
            compiled = ()
        if compiled:
            self.unevaluated.append(unevaluated(doubtful))
        else:
            stand_in = stand_in_for_doubtful(doubtful)
            compiled = (stand_in.policy,)
            self.unevaluated.append(stand_in.what)
        of = f"{doubtful.written.source} {doubtful.written.ref}"
        for policy in compiled:
            premises = (*policy.premises, Premise(doubtful.field, doubtful.problem, of))
            self.policies.append(
                msgspec.structs.replace(policy, ref=doubtful.written.ref, family=PolicyFamily.OTHER, premises=premises)
            )

    def _take_unread(self, obj: KubeObject, compiler: CompilePolicy, unread: UnreadKinds) -> None:
        """A policy that the enforcer does not read is not in force; where that is not certain, it is not known."""
        for policy in compiler(obj):
            if not unread.certain:
                premises = (*policy.premises, Premise("", unread.why))
                self.policies.append(msgspec.structs.replace(policy, premises=premises))
                continue
            self._put_aside(policy, unread, obj.source)
        self.unevaluated.append(Unevaluated(obj.ref, unread.why, source=obj.source))

    def _put_aside(self, policy: Policy, unread: UnreadKinds, source: str) -> None:
        self.unread.append(policy)
        directions = frozenset(d for d in Direction if policy.applies(d))
        self.refused.append(Refused(policy.ref, policy.subject, directions, "", unread.why, source))

    def without_selected(self, policies: Sequence[Policy]) -> Iterator[Policy]:
        """The policies, those of the baseline without the pods that some NetworkPolicy selects."""
        selected = AnyOfPeer(tuple(p.subject for p in policies if p.tier == DEFAULT_TIER.name))
        others = NotPeer(selected, Term.POD_LABELS, "a pod that no NetworkPolicy selects", "")
        for policy in policies:
            if policy.tier == BASELINE_TIER.name and selected.parts:
                narrowed = msgspec.structs.replace(policy, subject=AllOfPeer((policy.subject, others)))
                self.narrowed[id(narrowed)] = policy
                policy = narrowed
            yield policy


def compile_policies(snapshot: ClusterSnapshot, enforcer: Enforcer) -> Compiled:
    """Every policy of a snapshot, as the enforcer takes it. One that can't be compiled is in `unevaluated`."""
    cilium = CiliumCompiler(snapshot, enforces=enforcer.name is EnforcerName.CILIUM)
    calico = CalicoCompiler(snapshot)
    hedges = Hedges(enforcer.doubts, snapshot)

    def network_policy(obj: KubeObject, without: frozenset[Trait]) -> Policy:
        return hedges.applied(_network_policy(obj, enforcer, cilium, snapshot, without))

    compiled = Compiled(identities=cilium.identities if cilium.enforces else None)
    compiled.compilers = {
        ("networking.k8s.io", "NetworkPolicy"): lambda o: [network_policy(o, frozenset())],
        **{
            (ADMIN_GROUP, kind): lambda o: [hedges.of_administrators(_admin_policy(o, enforcer, calico), o)]
            for kind in _ADMIN_KINDS
        },
        **{("cilium.io", kind): lambda o: hedges.of_cilium(o, cilium.compile(o)) for kind in _CILIUM_KINDS},
        **{(g, kind): lambda o: filter(None, [calico.compile(o)]) for g in CALICO_GROUPS for kind in _CALICO_KINDS},
    }
    compiled.network_policy = network_policy
    unread = {(kinds.group, kind): kinds for kinds in enforcer.unread for kind in kinds.kinds}
    _take_all(compiled, snapshot, unread, (cilium, calico, hedges))
    compiled.lookups = cilium.lookups if cilium.enforces else None
    compiled.made += _made(enforcer, compiled.policies)
    compiled.policies += [policy for _, policy in compiled.made]
    if Trait.BASELINE in enforcer.traits:
        compiled.policies = list(compiled.without_selected(compiled.policies))
    _stand_in(compiled, snapshot, unread)
    compiled.host_policies += cilium.host_policies if _CILIUM_KEYS[1] not in unread else []
    compiled.host_policies += policies_of_nodes(snapshot) if OF_NODES not in unread else ()
    if (CALICO_GROUPS[0], "GlobalNetworkPolicy") not in unread:
        compiled.host_policies += host_policies(snapshot)
        compiled.policies += forward_policies(snapshot)
    compiled.refused += cilium.refused
    compiled.unevaluated += [Unevaluated(r.ref, r.why, r.field, r.source, RefusedBy.AGENT) for r in cilium.refused]
    own = (OTHER_TIER, ADMIN_TIER, DEFAULT_TIER, BASELINE_TIER)
    compiled.tiers = tuple(sorted((*own, *calico.tiers.values()), key=lambda t: t.order))
    return compiled


def _take_all(
    compiled: Compiled,
    snapshot: ClusterSnapshot,
    unread: Mapping[tuple[str, str], UnreadKinds],
    dialects: tuple[CiliumCompiler, CalicoCompiler, Hedges],
) -> None:
    """Compiles the policies of every kind, with who refuses those that are not valid."""
    cilium, calico, hedges = dialects
    for key in (("networking.k8s.io", "NetworkPolicy"), *((ADMIN_GROUP, kind) for kind in _ADMIN_KINDS)):
        compiled.take(snapshot.of(key[1], key[0]), compiled.compilers[key], RefusedBy.API, unread.get(key))

    def of_cilium(obj: KubeObject) -> Iterable[Policy]:
        try:
            return hedges.of_cilium(obj, cilium.compile(obj))
        except InputError as error:
            cilium.refuse(obj, with_misspelt(obj, error))
            return ()

    for key in _CILIUM_KEYS:
        compiler = compiled.compilers[key] if key in unread else of_cilium
        compiled.take(snapshot.of(key[1], key[0]), compiler, RefusedBy.AGENT, unread.get(key))
    for obj in calico.policies():
        by = RefusedBy.API if obj.group == CALICO_GROUPS[0] else RefusedBy.AGENT
        key = (obj.group, obj.kind)
        compiled.take((obj,), compiled.compilers[key], by, unread.get(key))
    compiled.compilers = {key: compiler for key, compiler in compiled.compilers.items() if key not in unread}
    for one in all_doubtful(snapshot):
        compiled.take_doubtful(one, unread.get((one.meant.group, one.meant.kind)))


def _stand_in(compiled: Compiled, snapshot: ClusterSnapshot, unread: Mapping[tuple[str, str], UnreadKinds]) -> None:
    """What is not evaluated, or decided by a mesh, as policies that stand for it."""
    meshes = (*strict_mutual_tls(snapshot), *closed_registry(snapshot), *linkerd_refusals(snapshot))
    for stand_in in (*unevaluated_policies(snapshot, _EVALUATED), *meshes):
        kinds = [unread.get(key) for key in stand_in.kinds]
        read = not kinds or any(kind is None or not kind.certain for kind in kinds)
        compiled.take_stand_in(stand_in, None if read else kinds[0])
    compiled.unevaluated = list(dict.fromkeys(compiled.unevaluated))


def _admin_policy(obj: KubeObject, enforcer: Enforcer, calico: CalicoCompiler) -> Policy:
    policy = compile_admin_policy(obj)
    return calico.as_enforced(policy) if enforcer.name is EnforcerName.CALICO else policy


def _network_policy(
    obj: KubeObject, enforcer: Enforcer, cilium: CiliumCompiler, snapshot: ClusterSnapshot, without: frozenset[Trait]
) -> Policy:
    """A NetworkPolicy as the enforcer takes it, less some of its deviations."""
    every_rule = cilium.enforces and Trait.EVERY_RULE not in without
    policy = cilium.as_enforced(compile_network_policy(obj, every_rule=every_rule), without)
    if enforcer.host_namespace and Trait.HOST_GROUP not in without:
        policy = _with_host_group(policy, enforcer.host_namespace, snapshot)
    if Trait.ONE_CHAIN in enforcer.traits - without:
        policy = _in_one_chain(policy)
    if enforcer.name is EnforcerName.OVN and obj.annotations.get(_STATELESS) == "true":
        policy = msgspec.structs.replace(policy, egress=_stateless(policy.egress), ingress=_stateless(policy.ingress))
    if not enforcer.owned_pods_only or Trait.OWNED_PODS in without:
        return policy
    return msgspec.structs.replace(policy, subject=AllOfPeer((policy.subject, OwnedPodPeer())))


def _stateless(rules: tuple[PolicyRule, ...]) -> tuple[PolicyRule, ...]:
    """Rules that admit packets one by one: whether a connection comes about hangs on its replies too."""
    why = f"{_STATELESS}: the policy's rules admit packets and not connections, so replies need rules of their own"
    return tuple(
        msgspec.structs.replace(rule, not_evaluated=(*rule.not_evaluated, (rule.field, why))) for rule in rules
    )


def _with_host_group(policy: Policy, namespace: str, snapshot: ClusterSnapshot) -> Policy:
    """With the nodes as peers where a rule selects the namespace that stands for them, or may select it."""
    given = namespace in snapshot.namespaces
    known = snapshot.namespace_labels(namespace) if given else {HOST_GROUP_LABEL: ""}
    labels = {**known, NAMESPACE_NAME_LABEL: namespace}
    why = f"namespace {namespace}, which stands for the nodes, has this label where routers use their network; it was not read"

    def widened(rule: PolicyRule) -> tuple[PolicyRule, ...]:
        chosen = [
            peer
            for peer in rule.peers or ()
            if isinstance(peer, PodsPeer) and not peer.namespace and peer.namespaces.requirements
        ]
        wholly = [peer.namespaces for peer in chosen if not peer.pods.requirements]
        if any(selector.matches(labels) for selector in wholly):
            nodes = NodesPeer(EVERYTHING, chosen[0].namespaces_field)
            return (msgspec.structs.replace(rule, peers=(*(rule.peers or ()), nodes)),)
        if given or not any(selector.matches({**labels, **_ROUTER_LABELS}) for selector in wholly):
            return (rule,)
        field = chosen[0].namespaces_field
        notes = (*rule.not_evaluated, (field, why))
        return rule, msgspec.structs.replace(rule, peers=(NodesPeer(EVERYTHING, field),), not_evaluated=notes)

    rules = tuple(split for rule in policy.ingress for split in widened(rule))
    return msgspec.structs.replace(policy, ingress=rules)


def _in_one_chain(policy: Policy) -> Policy:
    """With each direction's rules in the other too, for two pods that the policy both selects."""
    if not (policy.isolates_egress and policy.isolates_ingress):
        return policy

    def mirrored(rule: PolicyRule) -> PolicyRule:
        own = None if rule.peers is None else AnyOfPeer(rule.peers)
        return msgspec.structs.replace(rule, peers=(policy.subject,), own=own)

    return msgspec.structs.replace(
        policy,
        ingress=(*policy.ingress, *map(mirrored, policy.egress)),
        egress=(*policy.egress, *map(mirrored, policy.ingress)),
    )


def isolating_unselected(made: Policy, policies: Iterable[Policy]) -> Policy:
    """What an option makes, for pods that none of these policies selects."""
    selected = AnyOfPeer(tuple(policy.subject for policy in policies if policy.ref != made.ref))
    others = NotPeer(selected, Term.POD_LABELS, "a pod that no policy selects", "")
    return msgspec.structs.replace(made, subject=others if selected.parts else AnyPeer())


def _made(enforcer: Enforcer, policies: Sequence[Policy]) -> Iterator[tuple[Trait, Policy]]:
    """Policies that no object is, but that an option of the enforcer amounts to."""
    family = PolicyFamily.CILIUM if enforcer.name is EnforcerName.CILIUM else PolicyFamily.NETWORK_POLICY
    if enforcer.isolates_all is not None:
        order = (2, float("inf"), enforcer.isolates_all.name, "")
        made = Policy(
            enforcer.isolates_all,
            family,
            DEFAULT_TIER.name,
            AnyPeer(),
            order,
            isolates_egress=True,
            isolates_ingress=True,
        )
        yield Trait.ALL_ISOLATED, isolating_unselected(made, policies) if enforcer.isolates_unselected else made
    if enforcer.node_closed is not None:
        field = "spec.defaultEndpointToHostAction"
        rule = PolicyRule(1, RuleAction.DENY, field, peers=(OwnNodePeer(field),))
        order = (0, 0.0, enforcer.node_closed.name, "")
        yield (
            Trait.NODE_CLOSED,
            Policy(enforcer.node_closed, PolicyFamily.CALICO, OTHER_TIER.name, AnyPeer(), order, egress=(rule,)),
        )
