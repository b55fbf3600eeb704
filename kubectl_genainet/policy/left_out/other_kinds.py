"""Kinds of policies that have no compiler here: what each can do, and how one that is not known is told from its shape.

Sources: API references of the projects named; Kubernetes deprecation guide (removed API versions).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.left_out.selections import selects_pods
from kubectl_genainet.policy.model import Direction
from kubectl_genainet.policy.rules import ADMIN_TIER, BASELINE_TIER, DEFAULT_TIER, OTHER_TIER, Tier

_EGRESS = (Direction.EGRESS,)
_INGRESS = (Direction.INGRESS,)


class EnforcementPoint(msgspec.Struct, frozen=True):
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


_ADDITIVE = EnforcementPoint(DEFAULT_TIER, denies=False, isolates=True)
_CILIUM = EnforcementPoint(DEFAULT_TIER, isolates=True)
_CALICO = EnforcementPoint(DEFAULT_TIER, isolates=True, by_order=True)

# For refused policies by API group, for kinds that could not be read by kind; "" is any other.
PLACES: Mapping[str, EnforcementPoint] = {
    "": EnforcementPoint(OTHER_TIER),
    "networking.k8s.io": _ADDITIVE,
    "policy.networking.k8s.io": EnforcementPoint(ADMIN_TIER),
    "cilium.io": _CILIUM,
    "projectcalico.org": _CALICO,
    "crd.projectcalico.org": _CALICO,
    "NetworkPolicy": EnforcementPoint(DEFAULT_TIER, isolates=True),
    "AdminNetworkPolicy": EnforcementPoint(ADMIN_TIER),
    "BaselineAdminNetworkPolicy": EnforcementPoint(BASELINE_TIER),
    "ClusterNetworkPolicy": EnforcementPoint(ADMIN_TIER),
    "CiliumNetworkPolicy": _CILIUM,
    "CiliumClusterwideNetworkPolicy": _CILIUM,
    "GlobalNetworkPolicy": _CALICO,
}


class OtherKind(msgspec.Struct, frozen=True):
    """How the API server names the kind's collection, and what its policies can do."""

    plural: str
    place: EnforcementPoint
    namespaced: bool = True


_BEYOND = EnforcementPoint(OTHER_TIER)
_WORKLOADS = EnforcementPoint(
    OTHER_TIER, admits=False, directions=_INGRESS
)  # who may call a workload, beside all policies
_APART = EnforcementPoint(OTHER_TIER, admits=False)
_SENDERS = EnforcementPoint(OTHER_TIER, admits=False, directions=_EGRESS)
_OUTSIDE = EnforcementPoint(OTHER_TIER, admits=False, directions=_EGRESS, outside_only=True)

# One entry is all that a kind needs: it is read from clusters (kube/resources.py), scoped in manifests and named in verdicts.
OTHER_KINDS: Mapping[tuple[str, str], OtherKind] = {
    ("networking.gke.io", "FQDNNetworkPolicy"): OtherKind(
        "fqdnnetworkpolicies", EnforcementPoint(DEFAULT_TIER, denies=False, isolates=True, directions=_EGRESS)
    ),
    ("networking.k8s.aws", "ApplicationNetworkPolicy"): OtherKind("applicationnetworkpolicies", _ADDITIVE),
    ("networking.k8s.aws", "ClusterNetworkPolicy"): OtherKind(
        "clusternetworkpolicies", EnforcementPoint(ADMIN_TIER), namespaced=False
    ),
    ("crd.antrea.io", "ClusterNetworkPolicy"): OtherKind("clusternetworkpolicies", _BEYOND, namespaced=False),
    ("crd.antrea.io", "NetworkPolicy"): OtherKind("networkpolicies", _BEYOND),
    ("k8s.ovn.org", "EgressFirewall"): OtherKind("egressfirewalls", _OUTSIDE),
    ("network.openshift.io", "EgressNetworkPolicy"): OtherKind("egressnetworkpolicies", _OUTSIDE),
    ("vpcresources.k8s.aws", "SecurityGroupPolicy"): OtherKind("securitygrouppolicies", _APART),
    ("kubeovn.io", "SecurityGroup"): OtherKind("security-groups", _APART, namespaced=False),
    ("security.istio.io", "AuthorizationPolicy"): OtherKind("authorizationpolicies", _WORKLOADS),
    ("policy.linkerd.io", "Server"): OtherKind("servers", _WORKLOADS),
    ("policy.linkerd.io", "EgressNetwork"): OtherKind("egressnetworks", _OUTSIDE),
    ("kuma.io", "MeshTrafficPermission"): OtherKind("meshtrafficpermissions", _WORKLOADS),
    ("kuma.io", "Mesh"): OtherKind("meshes", _WORKLOADS, namespaced=False),
    ("consul.hashicorp.com", "ServiceIntentions"): OtherKind("serviceintentions", _WORKLOADS),
    ("networking.istio.io", "Sidecar"): OtherKind("sidecars", _OUTSIDE),
    ("neuvector.com", "NvSecurityRule"): OtherKind("nvsecurityrules", _APART),
    ("neuvector.com", "NvClusterSecurityRule"): OtherKind("nvclustersecurityrules", _APART, namespaced=False),
    ("security.kubearmor.com", "KubeArmorPolicy"): OtherKind("kubearmorpolicies", _SENDERS),
    ("security.kubearmor.com", "KubeArmorClusterPolicy"): OtherKind(
        "kubearmorclusterpolicies", _SENDERS, namespaced=False
    ),
    ("security.policy.gloo.solo.io", "AccessPolicy"): OtherKind("accesspolicies", _WORKLOADS),
    ("networking.aviatrix.com", "FirewallPolicy"): OtherKind("firewallpolicies", _APART),
    ("cilium.io", "CiliumNodeConfig"): OtherKind("ciliumnodeconfigs", _BEYOND),  # options of the agents of some nodes
    # Nodes of EKS Auto Mode that isolate the pods which no policy selects.
    ("eks.amazonaws.com", "NodeClass"): OtherKind(
        "nodeclasses", EnforcementPoint(DEFAULT_TIER, admits=False, denies=False, isolates=True), namespaced=False
    ),
    # No policies, but networks that keep pods apart.
    ("k8s.ovn.org", "UserDefinedNetwork"): OtherKind("userdefinednetworks", _APART),
    ("k8s.ovn.org", "ClusterUserDefinedNetwork"): OtherKind("clusteruserdefinednetworks", _APART, namespaced=False),
    ("kubeovn.io", "Subnet"): OtherKind("subnets", _APART, namespaced=False),
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
        ("isovalent.com", "IsovalentEgressGatewayPolicy"),
        ("policy.linkerd.io", "AuthorizationPolicy"),  # it admits what Servers refuse
        ("policy.linkerd.io", "HTTPLocalRateLimitPolicy"),
        ("egressgateway.spidernet.io", "EgressPolicy"),  # the address that traffic leaves with
        ("egressgateway.spidernet.io", "EgressClusterPolicy"),
        ("projectcalico.org", "EgressGatewayPolicy"),
        ("projectcalico.org", "StagedNetworkPolicy"),
        ("projectcalico.org", "StagedGlobalNetworkPolicy"),
        ("projectcalico.org", "StagedKubernetesNetworkPolicy"),
        ("crd.projectcalico.org", "StagedNetworkPolicy"),
        ("crd.projectcalico.org", "StagedGlobalNetworkPolicy"),
        ("crd.projectcalico.org", "StagedKubernetesNetworkPolicy"),
    }
)
# Groups whose policies are about something else than the network of pods, though they may select pods or namespaces: what is
# admitted to the API, where images and certificates come from, drivers of devices, clusters and clouds; and what a gateway does
# with the requests that reach it. Those below them too.
_ABOUT_OTHER_THINGS = (
    "admissionregistration.k8s.io",
    "audit.k8s.io",
    "policy",
    "kyverno.io",
    "gatekeeper.sh",
    "kubewarden.io",
    "jspolicy.com",
    "sigstore.dev",
    "cert-manager.io",
    "open-cluster-management.io",
    "karmada.io",
    "kasten.io",
    "kubevirt.io",
    "libopenstorage.org",
    "nvidia.com",
    "mellanox.com",
    "amd.com",
    "sriovnetwork.openshift.io",
    "nmstate.io",
    "crossplane.io",
    "upbound.io",
    "services.k8s.aws",
    "cnrm.cloud.google.com",
    "tekton.dev",
    "knative.dev",
    "toolkit.fluxcd.io",
    "karpenter.sh",
    "gateway.networking.k8s.io",
    "gateway.networking.x-k8s.io",
    "gateway.envoyproxy.io",
    "gateway.kgateway.dev",
    "gateway.nginx.org",
    "kuadrant.io",
    "application-networking.k8s.aws",
)
_GATEWAY_KINDS = frozenset({("networking.gke.io", kind) for kind in ("GCPBackendPolicy", "HealthCheckPolicy")})
# Of what these groups have, only policies select pods: a kind of theirs that is not known is a policy's, misspelt.
_GROUPS_OF_POLICIES = frozenset({"networking.k8s.io", "policy.networking.k8s.io"})
# By which an object without a kind is one of a policy; the last ones beside a selector that is an expression, as Calico's.
_OF_POLICIES_ONLY = frozenset({"podSelector", "policyTypes", "endpointSelector", "appliedTo"})
_RULES = frozenset({"ingress", "egress", "types"})
_OF_THE_NETWORK = ("networkpolicy", "egressfirewall")  # parts of such names that say all
_RESTRICT = ("policy", "securitygroup", "firewall")  # ends of names of kinds that restrict the pods that they select


def named_as_policies_are(group: str, kind: str) -> bool:
    """Whether objects of a kind that is not known may be policies of pods; most kinds' may not."""
    name = _singular(kind)
    of_the_network = any(part in name for part in _OF_THE_NETWORK)
    return of_the_network or not name or name.endswith(_RESTRICT) or group in _GROUPS_OF_POLICIES


def _singular(kind: str) -> str:
    return kind.lower().replace("policies", "policy")


def looks_like_a_policy(obj: KubeObject) -> bool:
    """Whether an object of a kind that is not known may restrict the traffic of pods, by its kind and its fields."""
    kind = _singular(obj.kind)
    if any(part in kind for part in _OF_THE_NETWORK):
        return True
    if not named_as_policies_are(obj.group, obj.kind):
        return False
    if (obj.group, obj.kind) in _GATEWAY_KINDS or _is_about_other_things(obj.group):
        return False
    spec = obj.raw.get("spec")
    if not kind:
        specs = obj.raw.get("specs")
        return any(_has_fields_of_policies(one) for one in (spec, *(specs if isinstance(specs, list) else ())))
    if not obj.api_version and kind.endswith("policy"):
        return not kind.endswith("admissionpolicy")
    return selects_pods(spec) or selects_pods(obj.raw.get("specs"))


def names_an_unknown_policy(group: str, kind: str) -> bool:
    """Whether a kind that no entry names may be a policy of the pods' network, by its name alone."""
    key, name = (group, kind), kind.lower()
    if key in OTHER_KINDS or key in HARMLESS or key in _GATEWAY_KINDS or _is_about_other_things(group):
        return False
    return name.endswith(_RESTRICT) or any(part in name for part in _OF_THE_NETWORK)


def _has_fields_of_policies(spec: Any) -> bool:
    if not isinstance(spec, dict):
        return False
    subject, of_calico = spec.get("subject"), isinstance(spec.get("selector"), str) and bool(spec.keys() & _RULES)
    of_administrators = isinstance(subject, dict) and bool(subject.keys() & {"namespaces", "pods"})
    return bool(spec.keys() & _OF_POLICIES_ONLY) or of_administrators or of_calico


def _is_about_other_things(group: str) -> bool:
    return any(group == other or group.endswith(f".{other}") for other in _ABOUT_OTHER_THINGS)
