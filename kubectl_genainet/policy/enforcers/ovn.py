"""OVN-Kubernetes (OpenShift) and Kube-OVN: both make ACLs of OVN from NetworkPolicies."""

from __future__ import annotations

from kubectl_genainet.policy.enforcers.base import (
    Deviation,
    Enforcer,
    EnforcerName,
    Known,
    Trait,
    agent,
    any_object,
    first_of,
)
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import Direction

_HOST_NAMESPACE = "openshift-host-network"

OVN = Known(
    Enforcer(
        EnforcerName.OVN,
        "OVN",
        deviations=(
            Deviation(
                f"namespace {_HOST_NAMESPACE} stands for the nodes: a selector of it selects what they send",
                "OpenShift documentation, Network policy: policy-group.network.openshift.io/host-network",
                Trait.HOST_GROUP,
                directions=(Direction.INGRESS,),
                peers=(PartyKind.HOST,),
                own_node=False,
            ),
        ),
        host_namespace=_HOST_NAMESPACE,
    ),
    agent("ovn-kube(rnetes)?(-[a-z]+)?|ovnkube|kube-ovn|.*ovn-kubernetes.*"),
    first_of(
        any_object("k8s.ovn.org", "EgressFirewall", "EgressIP", "UserDefinedNetwork"),
        any_object("kubeovn.io", "Subnet", "Vpc"),
    ),
)
