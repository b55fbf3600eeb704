"""Kinds of policies that have no compiler here: what each can do, and how one that is not known is told from its shape.

Sources: API references of the projects named; Kubernetes deprecation guide (removed API versions).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.model import Direction
from kubectl_genainet.policy.rules import ADMIN_TIER, BASELINE_TIER, DEFAULT_TIER, Tier

OTHER_TIER = Tier("other", 0)  # before all tiers that are evaluated

_EGRESS = (Direction.EGRESS,)
_INGRESS = (Direction.INGRESS,)


class Place(msgspec.Struct, frozen=True):
    """Where policies of a kind are consulted and what they can do.

    `admits`: let pass what others would drop. `denies`: drop what others of the tier admit. `isolates`: drop what no
    policy of the tier admits. Without `directions`, these are read from the object. `by_order`: policies have an order
    within the tier. `outside_only`: about traffic that leaves the cluster.
    """

    tier: Tier
    admits: bool = True
    denies: bool = True
    isolates: bool = False
    directions: tuple[Direction, ...] = ()
    by_order: bool = False
    outside_only: bool = False


_ADDITIVE = Place(DEFAULT_TIER, denies=False, isolates=True)
_CILIUM = Place(DEFAULT_TIER, isolates=True)
_CALICO = Place(DEFAULT_TIER, isolates=True, by_order=True)

# For refused policies by API group, for kinds that could not be read by kind; "" is any other.
PLACES: Mapping[str, Place] = {
    "": Place(OTHER_TIER),
    "networking.k8s.io": _ADDITIVE,
    "policy.networking.k8s.io": Place(ADMIN_TIER),
    "cilium.io": _CILIUM,
    "projectcalico.org": _CALICO,
    "crd.projectcalico.org": _CALICO,
    "NetworkPolicy": Place(DEFAULT_TIER, isolates=True),
    "AdminNetworkPolicy": Place(ADMIN_TIER),
    "BaselineAdminNetworkPolicy": Place(BASELINE_TIER),
    "ClusterNetworkPolicy": Place(ADMIN_TIER),
    "CiliumNetworkPolicy": _CILIUM,
    "CiliumClusterwideNetworkPolicy": _CILIUM,
    "GlobalNetworkPolicy": _CALICO,
}


class OtherKind(msgspec.Struct, frozen=True):
    """How the API server names the kind's collection, and what its policies can do."""

    plural: str
    place: Place
    namespaced: bool = True


_BEYOND = Place(OTHER_TIER)
_WORKLOADS = Place(OTHER_TIER, admits=False, directions=_INGRESS)  # who may call a workload, beside all policies
_OUTSIDE = Place(OTHER_TIER, admits=False, directions=_EGRESS, outside_only=True)

# One entry is all that a kind needs: it is read from clusters (kube/resources.py), scoped in manifests and named in verdicts.
OTHER_KINDS: Mapping[tuple[str, str], OtherKind] = {
    ("networking.gke.io", "FQDNNetworkPolicy"): OtherKind(
        "fqdnnetworkpolicies", Place(DEFAULT_TIER, denies=False, isolates=True, directions=_EGRESS)
    ),
    ("networking.k8s.aws", "ApplicationNetworkPolicy"): OtherKind("applicationnetworkpolicies", _ADDITIVE),
    ("networking.k8s.aws", "ClusterNetworkPolicy"): OtherKind(
        "clusternetworkpolicies", Place(ADMIN_TIER), namespaced=False
    ),
    ("crd.antrea.io", "ClusterNetworkPolicy"): OtherKind("clusternetworkpolicies", _BEYOND, namespaced=False),
    ("crd.antrea.io", "NetworkPolicy"): OtherKind("networkpolicies", _BEYOND),
    ("k8s.ovn.org", "EgressFirewall"): OtherKind("egressfirewalls", _OUTSIDE),
    ("network.openshift.io", "EgressNetworkPolicy"): OtherKind("egressnetworkpolicies", _OUTSIDE),
    ("vpcresources.k8s.aws", "SecurityGroupPolicy"): OtherKind(
        "securitygrouppolicies", Place(OTHER_TIER, admits=False)
    ),
    ("kubeovn.io", "SecurityGroup"): OtherKind("security-groups", Place(OTHER_TIER, admits=False), namespaced=False),
    ("security.istio.io", "AuthorizationPolicy"): OtherKind("authorizationpolicies", _WORKLOADS),
    ("policy.linkerd.io", "Server"): OtherKind("servers", _WORKLOADS),
    ("kuma.io", "MeshTrafficPermission"): OtherKind("meshtrafficpermissions", _WORKLOADS),
}
# Kinds that look like policies of the pods' network and are none.
HARMLESS = frozenset(
    {
        ("networking.k8s.aws", "PolicyEndpoint"),  # what the controller makes of NetworkPolicies
        ("k8s.cni.cncf.io", "MultiNetworkPolicy"),  # of further interfaces, never of the pod's own
        ("cilium.io", "TracingPolicy"),
        ("cilium.io", "TracingPolicyNamespaced"),
        ("cilium.io", "CiliumEgressGatewayPolicy"),
        ("cilium.io", "CiliumLocalRedirectPolicy"),
        ("cilium.io", "CiliumBGPPeeringPolicy"),
        ("cilium.io", "CiliumL2AnnouncementPolicy"),
        ("projectcalico.org", "StagedNetworkPolicy"),
        ("projectcalico.org", "StagedGlobalNetworkPolicy"),
        ("projectcalico.org", "StagedKubernetesNetworkPolicy"),
        ("crd.projectcalico.org", "StagedNetworkPolicy"),
        ("crd.projectcalico.org", "StagedGlobalNetworkPolicy"),
        ("crd.projectcalico.org", "StagedKubernetesNetworkPolicy"),
    }
)
_SELECTS_PODS = ("podSelector", "subject", "endpointSelector", "appliedTo")


def looks_like_a_policy(obj: KubeObject) -> bool:
    """Whether an object of a kind that is not known may restrict the traffic of pods, by its kind and its fields."""
    kind = obj.kind.lower()
    if "networkpolicy" in kind or "egressfirewall" in kind:
        return True
    spec = obj.raw.get("spec")
    return kind.endswith("policy") and isinstance(spec, dict) and any(f in spec for f in _SELECTS_PODS)


def old_api(obj: KubeObject) -> str:
    """What to say of an API version that no server offers any more; else ""."""
    if obj.group == "extensions" and obj.kind == "NetworkPolicy":
        return (
            f"{obj.api_version} has not been served since Kubernetes 1.16: the API server refuses it; "
            "the current version is networking.k8s.io/v1"
        )
    return ""


def misspelt(obj: KubeObject) -> str:
    """What to say of the kind NetworkPolicy spelt with the wrong case; else ""."""
    if obj.group in ("networking.k8s.io", "extensions") and obj.kind.lower() in ("networkpolicy", "networkpolicies"):
        return f"there is no kind {obj.kind} in {obj.api_version}: the kind is NetworkPolicy of networking.k8s.io/v1"
    return ""
