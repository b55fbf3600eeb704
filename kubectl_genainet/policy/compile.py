"""Every policy of a snapshot, compiled, with the tiers that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.dialects.admin import compile_admin_policy
from kubectl_genainet.policy.dialects.calico import GROUPS as CALICO_GROUPS
from kubectl_genainet.policy.dialects.calico import CalicoCompiler
from kubectl_genainet.policy.dialects.cilium import CiliumCompiler
from kubectl_genainet.policy.dialects.kubernetes import compile_network_policy
from kubectl_genainet.policy.enforcers import Enforcer, EnforcerName
from kubectl_genainet.policy.identity import Identities
from kubectl_genainet.policy.left_out.other_kinds import OTHER_KINDS, OTHER_TIER
from kubectl_genainet.policy.left_out.unevaluated import RefusedBy, Unevaluated, stand_in_for, unevaluated_policies
from kubectl_genainet.policy.peers import AllOfPeer, OwnedPodPeer
from kubectl_genainet.policy.rules import ADMIN_TIER, BASELINE_TIER, DEFAULT_TIER, Policy, Refused, Tier

ADMIN_GROUP = "policy.networking.k8s.io"
_ADMIN_KINDS = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")
_CILIUM_KINDS = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_CALICO_KINDS = ("NetworkPolicy", "GlobalNetworkPolicy")
_EVALUATED = frozenset(
    {
        ("networking.k8s.io", "NetworkPolicy"),
        *((ADMIN_GROUP, kind) for kind in _ADMIN_KINDS),
        *(("cilium.io", kind) for kind in _CILIUM_KINDS),
        *((group, kind) for group in CALICO_GROUPS for kind in _CALICO_KINDS),
    }
)

# Every kind that a snapshot must hold for a verdict not to be wrong: (API group, kind). Those that a cluster does not
# have are simply not there; those that can't be read belong into the snapshot's left_out.
POLICY_KINDS: tuple[tuple[str, str], ...] = (
    ("networking.k8s.io", "NetworkPolicy"),
    *((ADMIN_GROUP, kind) for kind in _ADMIN_KINDS),
    *(("cilium.io", kind) for kind in (*_CILIUM_KINDS, "CiliumCIDRGroup")),
    *((group, kind) for group in CALICO_GROUPS for kind in (*_CALICO_KINDS, "NetworkSet", "GlobalNetworkSet", "Tier")),
    *OTHER_KINDS,
)


Compiler = Callable[[KubeObject], Iterable[Policy]]


@dataclass(slots=True)
class Compiled:
    """`tiers` in the order in which they are consulted; `host_policies` apply to nodes and are not evaluated.

    `refused` are not in force; `unevaluated` names these and those that a stand-in in `policies` takes the place of.
    `identities` are there where Cilium enforces the policies; `compilers`, by group and kind, compile one object more.
    """

    tiers: tuple[Tier, ...] = ()
    policies: list[Policy] = field(default_factory=list)
    host_policies: list[ObjectRef] = field(default_factory=list)
    unevaluated: list[Unevaluated] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    identities: Identities | None = None
    compilers: dict[tuple[str, str], Compiler] = field(default_factory=dict)

    def take(self, objects: Iterable[KubeObject], compiler: Compiler, by: RefusedBy) -> None:
        """Compiles objects; one that is not valid is refused by its API or agent, and the others are compiled."""
        for obj in objects:
            try:
                self.policies += compiler(obj)
            except InputError as error:
                stand_in = stand_in_for(obj, error, by)
                self.policies.append(stand_in.policy)
                self.unevaluated.append(stand_in.what)


def compile_policies(snapshot: ClusterSnapshot, enforcer: Enforcer) -> Compiled:
    """Every policy of a snapshot, as the enforcer takes it. One that can't be compiled is in `unevaluated`."""
    cilium = CiliumCompiler(snapshot, enforces=enforcer.name is EnforcerName.CILIUM)
    calico = CalicoCompiler(snapshot)
    found = Compiled(identities=cilium.identities if cilium.enforces else None)
    found.compilers = {
        ("networking.k8s.io", "NetworkPolicy"): lambda o: [_network_policy(o, enforcer, cilium)],
        **{(ADMIN_GROUP, kind): lambda o: [compile_admin_policy(o)] for kind in _ADMIN_KINDS},
        **{("cilium.io", kind): cilium.compile_valid for kind in _CILIUM_KINDS},
        **{(g, kind): lambda o: filter(None, [calico.compile(o)]) for g in CALICO_GROUPS for kind in _CALICO_KINDS},
    }
    for group, kind in (("networking.k8s.io", "NetworkPolicy"), *((ADMIN_GROUP, kind) for kind in _ADMIN_KINDS)):
        found.take(snapshot.of(kind, group), found.compilers[(group, kind)], RefusedBy.API)
    for kind in _CILIUM_KINDS:
        found.take(snapshot.of(kind, "cilium.io"), cilium.compile, RefusedBy.AGENT)
    for obj in calico.policies():
        by = RefusedBy.API if obj.group == CALICO_GROUPS[0] else RefusedBy.AGENT
        found.take((obj,), found.compilers[(obj.group, obj.kind)], by)
    for stand_in in unevaluated_policies(snapshot, _EVALUATED):
        found.policies.append(stand_in.policy)
        found.unevaluated.append(stand_in.what)
    found.host_policies += cilium.host_policies
    found.refused += cilium.refused
    found.unevaluated += [Unevaluated(r.ref, r.why, r.field, r.source, RefusedBy.AGENT) for r in cilium.refused]
    own = (OTHER_TIER, ADMIN_TIER, DEFAULT_TIER, BASELINE_TIER)
    found.tiers = tuple(sorted((*own, *calico.tiers.values()), key=lambda t: t.order))
    return found


def _network_policy(obj: KubeObject, enforcer: Enforcer, cilium: CiliumCompiler) -> Policy:
    """A NetworkPolicy as the enforcer takes it."""
    policy = cilium.as_enforced(compile_network_policy(obj, every_rule=cilium.enforces))
    if not enforcer.owned_pods_only:
        return policy
    return msgspec.structs.replace(policy, subject=AllOfPeer((policy.subject, OwnedPodPeer())))
