"""Who enforces the policies of a cluster, found from its objects, with the documented deviations of each."""

from __future__ import annotations

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.antrea import ANTREA
from kubectl_genainet.policy.enforcers.base import UNKNOWN, Deviation, Enforcer, EnforcerName, Known, Trait
from kubectl_genainet.policy.enforcers.calico import CALICO
from kubectl_genainet.policy.enforcers.cilium import CILIUM
from kubectl_genainet.policy.enforcers.foreign import foreign_to
from kubectl_genainet.policy.enforcers.kube_router import KUBE_ROUTER
from kubectl_genainet.policy.enforcers.none import NONE
from kubectl_genainet.policy.enforcers.others import AZURE_NPM, KUBE_NETWORK_POLICIES, WEAVE
from kubectl_genainet.policy.enforcers.ovn import OVN
from kubectl_genainet.policy.enforcers.vpc_cni import VPC_CNI

UNKNOWN_ENFORCER = UNKNOWN
_UNREAD = Deviation(
    "policies of a kind that it does not read are not in force",
    "network-policy-api, implementations; the documentation of the enforcer",
    Trait.UNREAD,
)

__all__ = [
    "UNKNOWN_ENFORCER",
    "Deviation",
    "Enforcer",
    "EnforcerName",
    "Trait",
    "as_configured",
    "enforcer_of",
    "named_enforcer",
]

# In the order in which they are looked for: a network that enforces nothing counts only where no enforcer runs.
_KNOWN: tuple[Known, ...] = (
    CILIUM,
    CALICO,
    ANTREA,
    OVN,
    KUBE_ROUTER,
    VPC_CNI,
    AZURE_NPM,
    WEAVE,
    KUBE_NETWORK_POLICIES,
    NONE,
)


def enforcer_of(snapshot: ClusterSnapshot) -> Enforcer:
    """The enforcer that the objects of a cluster show."""
    for known in _KNOWN:
        evidence = known.find(snapshot)
        if evidence:
            return msgspec.structs.replace(known.enforcer, evidence=evidence)
    for known in _KNOWN:
        evidence = known.traces(snapshot)
        if evidence:
            return msgspec.structs.replace(known.enforcer, evidence=evidence, certain=False)
    return UNKNOWN


def as_configured(enforcer: Enforcer, snapshot: ClusterSnapshot) -> Enforcer:
    """An enforcer with what the objects of a cluster say of its options, and the kinds that it does not read."""
    known = next((k for k in _KNOWN if k.enforcer.name is enforcer.name), None)
    own = known.adapt(enforcer, snapshot) if known is not None else enforcer
    unread = tuple(dict.fromkeys((*own.unread, *foreign_to(own, snapshot))))
    if not unread:
        return own
    others = tuple(d for d in own.deviations if d.trait is not Trait.UNREAD)
    return msgspec.structs.replace(own, unread=unread, deviations=(*others, _UNREAD))


def named_enforcer(name: str) -> Enforcer:
    """The enforcer that a user names. Raises InputError for a name that there is not."""
    try:
        wanted = EnforcerName(name)
    except ValueError:
        names = ", ".join(n.value for n in EnforcerName)
        raise InputError(f"{name!r} is no enforcer", hint=f"Enforcers are {names}.") from None
    return next((k.enforcer for k in _KNOWN if k.enforcer.name is wanted), UNKNOWN)
