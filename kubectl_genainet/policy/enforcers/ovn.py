"""OVN-Kubernetes (OpenShift) and Kube-OVN: both make ACLs of OVN from NetworkPolicies."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import (
    Deviation,
    Doubt,
    Enforcer,
    EnforcerName,
    Known,
    Trait,
    agent,
    any_object,
    arguments_of,
    environment_of,
    first_of,
    running,
    running_release,
)
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import Direction

_OPENSHIFT, _UPSTREAM = "openshift-host-network", "ovn-host-network"
_OPTION, _VARIABLE = "--host-network-namespace", "OVN_HOST_NETWORK_NAMESPACE"
_OVN_KUBERNETES = "ovn-kube(rnetes)?(-[a-z]+)?|ovnkube|[^/]*ovn-kubernetes(?s:.*)"
_KUBE_OVN = "[^/]*kube-ovn"
# OVN-Kubernetes, admin_network_policy (ErrorANPPriorityUnsupported); OpenShift documentation, AdminNetworkPolicy.
_LATE = "OVN-Kubernetes makes AdminNetworkPolicies of priorities 0 to 99 only"
_RELEASE = "ocp-v[0-9.]+-art-dev[a-z-]*|scos-content|release"  # all images of a release of OpenShift have one name
_NO_POLICIES = "--enable-np=false"  # Kube-OVN issue 3347
# Kube-OVN pull request 6419.
_EXCEPTS_APART_SINCE = (1, 17)
_JOINED = (
    "Kube-OVN before 1.17 applies the exceptions of a rule's blocks to all peers of the rule, releases with the correction "
    "excepted"
)


def _host_group(namespace: str) -> Deviation:
    return Deviation(
        f"namespace {namespace} stands for the nodes: a selector of it selects what they send",
        "OVN-Kubernetes, --host-network-namespace; OpenShift documentation, Network policy",
        Trait.HOST_GROUP,
        directions=(Direction.INGRESS,),
        peers=(PartyKind.HOST,),
        own_node=False,
    )


def _configured(enforcer: Enforcer, snapshot: ClusterSnapshot) -> Enforcer:
    """With the namespace that stands for the nodes, which Kube-OVN has none of."""
    if any(True for _ in running(snapshot, _KUBE_OVN)):
        release = running_release(snapshot, _KUBE_OVN)
        joined = release is None or release < _EXCEPTS_APART_SINCE
        doubts = ((Doubt.JOINED_EXCEPTS, _JOINED),) if joined else ()
        off = _switched_off(snapshot)
        return msgspec.structs.replace(enforcer, host_namespace="", deviations=(), doubts=doubts, stopped=off)
    namespace = _host_namespace(snapshot)
    deviations, doubts = (_host_group(namespace),), ((Doubt.LATE_PRIORITIES, _LATE),)
    return msgspec.structs.replace(enforcer, host_namespace=namespace, deviations=deviations, doubts=doubts)


def _switched_off(snapshot: ClusterSnapshot) -> str:
    """Why Kube-OVN enforces no policy; "" where nothing says so."""
    controllers = [c for obj in snapshot.of("Deployment", "apps") for c in obj.pod_containers]
    containers = (*controllers, *(container for _, container in running(snapshot, _KUBE_OVN)))
    off = any(_NO_POLICIES in arguments_of(container) for container in containers)
    return f"Kube-OVN's controller has {_NO_POLICIES}" if off else ""


def _host_namespace(snapshot: ClusterSnapshot) -> str:
    for _, container in running(snapshot, _OVN_KUBERNETES):
        arguments = [part for word in arguments_of(container) for part in word.split("=", 1)]
        if _OPTION in arguments[:-1]:
            return arguments[arguments.index(_OPTION) + 1]
        if environment_of(container).get(_VARIABLE):
            return environment_of(container)[_VARIABLE]
    return _UPSTREAM if _UPSTREAM in snapshot.namespaces and _OPENSHIFT not in snapshot.namespaces else _OPENSHIFT


OVN = Known(
    Enforcer(EnforcerName.OVN, "OVN", deviations=(_host_group(_OPENSHIFT),), host_namespace=_OPENSHIFT),
    first_of(
        agent(f"{_OVN_KUBERNETES}|kube-ovn"), agent(_RELEASE, "ovnkube-controller"), agent(_RELEASE, "ovnkube-node")
    ),
    first_of(
        any_object("k8s.ovn.org", "EgressFirewall", "EgressIP", "UserDefinedNetwork"),
        any_object("kubeovn.io", "Subnet", "Vpc"),
    ),
    _configured,
)
