"""Which kinds of policies an enforcer reads: those of another one are not in force, however well they are written.

Sources: network-policy-api, "Implementations"; Cilium documentation, "Kubernetes Networking, Network Policy"; Amazon EKS user
guide, network policies; Antrea documentation, "Antrea Network Policy"; OVN-Kubernetes, "Egress Firewall", "User Defined Network";
OpenShift documentation, "Egress firewall" (EgressNetworkPolicy is OpenShift SDN's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.admin_kinds import unread_admin_kinds
from kubectl_genainet.policy.enforcers.antrea import ANTREA
from kubectl_genainet.policy.enforcers.base import Enforcer, EnforcerName, Known, UnreadKinds
from kubectl_genainet.policy.enforcers.ovn import OVN
from kubectl_genainet.policy.enforcers.vpc_cni import VPC_CNI

_CILIUM = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "CiliumNodeConfig")
_CALICO = ("NetworkPolicy", "GlobalNetworkPolicy")
_CALICO_GROUPS = ("projectcalico.org", "crd.projectcalico.org")
# Kinds that are not evaluated, and that one enforcer alone reads. Not among them: what a controller of its own turns into
# policies of another kind (GKE's FQDNNetworkPolicy), and networks and security groups, which are there beside any enforcer.
_OF_ONE: tuple[tuple[Known, str, tuple[str, ...]], ...] = (
    (VPC_CNI, "networking.k8s.aws", ("ApplicationNetworkPolicy", "ClusterNetworkPolicy")),
    (ANTREA, "crd.antrea.io", ("ClusterNetworkPolicy", "NetworkPolicy")),
    (OVN, "k8s.ovn.org", ("EgressFirewall", "UserDefinedNetwork", "ClusterUserDefinedNetwork")),
)
_OF_OPENSHIFT_SDN = ("network.openshift.io", ("EgressNetworkPolicy",))


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
    unread += _kinds_of_one(enforcer, snapshot, who)
    return (*unread, *unread_admin_kinds(enforcer, snapshot))


def _kinds_of_one(enforcer: Enforcer, snapshot: ClusterSnapshot, who: str) -> Iterator[UnreadKinds]:
    """Kinds of an enforcer that does not run beside this one either."""
    for known, group, kinds in _OF_ONE:
        find: Callable[[ClusterSnapshot], str] = known.find
        if known.enforcer.name is not enforcer.name and not find(snapshot):
            yield UnreadKinds(group, kinds, who)
    yield UnreadKinds(*_OF_OPENSHIFT_SDN, who)
