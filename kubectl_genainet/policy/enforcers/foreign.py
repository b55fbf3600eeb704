"""Which kinds of policies an enforcer reads: those of another one are not in force, however well they are written.

Sources: network-policy-api, "Implementations"; Cilium documentation, "Kubernetes Networking, Network Policy" and issue 23380.
"""

from __future__ import annotations

from kubectl_genainet.policy.enforcers.base import Enforcer, EnforcerName, UnreadKinds

_CILIUM = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_CALICO = ("NetworkPolicy", "GlobalNetworkPolicy")
_CALICO_GROUPS = ("projectcalico.org", "crd.projectcalico.org")
_ADMIN_GROUP = "policy.networking.k8s.io"
_ADMIN = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")
# Not among the implementations of the administrators' kinds, as their API lists them.
_WITHOUT_ADMIN = (EnforcerName.KUBE_ROUTER, EnforcerName.VPC_CNI, EnforcerName.AZURE_NPM, EnforcerName.WEAVE)


def foreign_to(enforcer: Enforcer) -> tuple[UnreadKinds, ...]:
    """Kinds that another program would have to enforce."""
    if enforcer.name in (EnforcerName.UNKNOWN, EnforcerName.NONE) or not enforcer.certain:
        return ()
    found = []
    who = f"{enforcer.title} enforces the policies, and it does not read this kind"
    if enforcer.name is not EnforcerName.CILIUM:
        found.append(UnreadKinds("cilium.io", _CILIUM, who))
    if enforcer.name is not EnforcerName.CALICO:
        found += [UnreadKinds(group, _CALICO, who) for group in _CALICO_GROUPS]
    if enforcer.name in _WITHOUT_ADMIN:
        why = f"{enforcer.title} is not among the documented implementations of this kind"
        found.append(UnreadKinds(_ADMIN_GROUP, _ADMIN, why, certain=False))
    return tuple(found)
