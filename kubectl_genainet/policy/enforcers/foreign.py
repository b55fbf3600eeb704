"""Which kinds of policies an enforcer reads: those of another one are not in force, however well they are written.

Sources: network-policy-api, "Implementations"; Cilium documentation, "Kubernetes Networking, Network Policy".
"""

from __future__ import annotations

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.admin_kinds import unread_admin_kinds
from kubectl_genainet.policy.enforcers.base import Enforcer, EnforcerName, UnreadKinds

_CILIUM = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_CALICO = ("NetworkPolicy", "GlobalNetworkPolicy")
_CALICO_GROUPS = ("projectcalico.org", "crd.projectcalico.org")


def foreign_to(enforcer: Enforcer, snapshot: ClusterSnapshot) -> tuple[UnreadKinds, ...]:
    """Kinds that another program would have to enforce, or another version of this one."""
    if enforcer.name in (EnforcerName.UNKNOWN, EnforcerName.NONE) or not enforcer.certain:
        return ()
    unread = []
    who = f"{enforcer.title} enforces the policies, and it does not read this kind"
    if enforcer.name is not EnforcerName.CILIUM:
        unread.append(UnreadKinds("cilium.io", _CILIUM, who))
    if enforcer.name is not EnforcerName.CALICO:
        unread += [UnreadKinds(group, _CALICO, who) for group in _CALICO_GROUPS]
    return (*unread, *unread_admin_kinds(enforcer, snapshot))
