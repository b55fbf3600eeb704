"""Every policy of a snapshot, compiled, with the tiers that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.policy.dialects.admin import compile_admin_policy
from kubectl_genainet.policy.dialects.calico import GROUPS as CALICO_GROUPS
from kubectl_genainet.policy.dialects.calico import CalicoCompiler
from kubectl_genainet.policy.dialects.cilium import CiliumCompiler
from kubectl_genainet.policy.dialects.kubernetes import compile_network_policy
from kubectl_genainet.policy.dialects.unsupported import OTHER_KINDS, OTHER_TIER, not_evaluated_policies
from kubectl_genainet.policy.rules import ADMIN_TIER, BASELINE_TIER, DEFAULT_TIER, Policy, Refused, Tier

ADMIN_GROUP = "policy.networking.k8s.io"


# Every kind that a snapshot must hold for a verdict not to be wrong: (API group, kind). Those that a cluster does not
# have are simply not there; those that can't be read belong into the snapshot's left_out.
POLICY_KINDS: tuple[tuple[str, str], ...] = (
    ("networking.k8s.io", "NetworkPolicy"),
    *((ADMIN_GROUP, kind) for kind in ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")),
    *(("cilium.io", kind) for kind in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "CiliumCIDRGroup")),
    *(
        (group, kind)
        for group in CALICO_GROUPS
        for kind in ("NetworkPolicy", "GlobalNetworkPolicy", "NetworkSet", "GlobalNetworkSet", "Tier")
    ),
    *((other.group, other.kind) for other in OTHER_KINDS),
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """`tiers` in the order in which they are consulted; `host_policies` apply to nodes and are not evaluated; `refused` are
    not in force. `by_identity`: Cilium enforces the policies."""

    tiers: tuple[Tier, ...]
    policies: tuple[Policy, ...]
    host_policies: tuple[ObjectRef, ...]
    refused: tuple[Refused, ...] = ()
    by_identity: bool = False


def compile_policies(snapshot: ClusterSnapshot) -> Compiled:
    """Raises InputError, with file, object and field, for the first policy that is not valid."""
    cilium = CiliumCompiler(snapshot)
    policies = [
        cilium.as_enforced(compile_network_policy(o, every_rule=cilium.enforces))
        for o in snapshot.of("NetworkPolicy", "networking.k8s.io")
    ]
    for kind in ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"):
        policies += [compile_admin_policy(o) for o in snapshot.of(kind, ADMIN_GROUP)]
    for kind in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"):
        for obj in snapshot.of(kind, "cilium.io"):
            policies += cilium.compile(obj)
    calico = CalicoCompiler(snapshot)
    for group in CALICO_GROUPS:
        for kind in ("NetworkPolicy", "GlobalNetworkPolicy"):
            policies += filter(None, map(calico.compile, snapshot.of(kind, group)))
    policies += not_evaluated_policies(snapshot)
    own = (OTHER_TIER, ADMIN_TIER, DEFAULT_TIER, BASELINE_TIER)
    tiers = sorted((*own, *calico.tiers.values()), key=lambda t: t.order)
    refused = tuple(cilium.refused)
    return Compiled(tuple(tiers), tuple(policies), tuple(cilium.host_policies), refused, cilium.enforces)
