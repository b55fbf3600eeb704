"""OVN-Kubernetes (OpenShift) and Kube-OVN: both make ACLs of OVN from NetworkPolicies."""

from __future__ import annotations

from kubectl_genainet.policy.enforcers.base import Enforcer, EnforcerName, Known, agent, any_object, first_of

OVN = Known(
    Enforcer(EnforcerName.OVN, "OVN"),
    agent("ovn-kube(rnetes)?(-[a-z]+)?|ovnkube|kube-ovn|.*ovn-kubernetes.*"),
    first_of(
        any_object("k8s.ovn.org", "EgressFirewall", "EgressIP", "UserDefinedNetwork"),
        any_object("kubeovn.io", "Subnet", "Vpc"),
    ),
)
