"""The network policy agent of the Amazon VPC CNI, where it is switched on.

Source: Amazon EKS user guide, "Limit pod traffic with Kubernetes network policies", considerations, and "Use Network Policies
with EKS Auto Mode".
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import (
    Deviation,
    Doubt,
    Enforcer,
    EnforcerName,
    Known,
    Trait,
    arguments_of,
    environment_of,
    running,
)

_AGENT = "aws-network-policy-agent|aws-eks-nodeagent|amazon/aws-network-policy-agent"


def _find(snapshot: ClusterSnapshot) -> str:
    for obj, container in running(snapshot, _AGENT):
        if "--enable-network-policy=true" in arguments_of(container):
            return str(obj.ref)
    return next(_auto_mode(snapshot), "")


def _auto_mode(snapshot: ClusterSnapshot) -> Iterator[str]:
    """EKS Auto Mode, whose nodes have the agent built in, where its controller is switched on."""
    for config in snapshot.named("ConfigMap", "kube-system", "amazon-vpc-cni"):
        data = config.raw.get("data")
        if isinstance(data, dict) and str(data.get("enable-network-policy-controller")).lower() == "true":
            yield from (str(node_class.ref) for node_class in snapshot.of("NodeClass", "eks.amazonaws.com"))


# aws/amazon-network-policy-controller-k8s issues 121 and 146.
_EXCEPTS = (
    "the agent may apply an exception of a block to wider blocks of other rules and policies too (a block without exceptions, a "
    "rule without peers)"
)
_STRICT = Deviation(
    "NETWORK_POLICY_ENFORCING_MODE is strict: a pod that no policy selects is isolated in both directions",
    "Amazon EKS user guide, network policies, strict mode",
    Trait.ALL_ISOLATED,
)


def _configured(enforcer: Enforcer, snapshot: ClusterSnapshot) -> Enforcer:
    """With the strict mode, where the variable of the CNI's container sets it."""
    for obj, container in running(snapshot, "amazon-k8s-cni"):
        if environment_of(container).get("NETWORK_POLICY_ENFORCING_MODE", "").lower() == "strict":
            deviations = tuple(dict.fromkeys((*enforcer.deviations, _STRICT)))
            return msgspec.structs.replace(
                enforcer, isolates_all=obj.ref, isolates_unselected=True, deviations=deviations
            )
    return enforcer


VPC_CNI = Known(
    Enforcer(
        EnforcerName.VPC_CNI,
        "the network policy agent of the Amazon VPC CNI",
        deviations=(
            Deviation(
                "policies reach only pods that a controller made (metadata.ownerReferences)",
                "Amazon EKS user guide, network policies, considerations",
                Trait.OWNED_PODS,
                not_owned=True,
            ),
        ),
        owned_pods_only=True,
        service_addresses=True,
        doubts=((Doubt.SHARED_EXCEPTS, _EXCEPTS),),
        other_family_open=(
            "policies reach the pod's primary interface only, and traffic of the other IP version leaves by another one "
            "(ENABLE_V4_EGRESS, ENABLE_V6_EGRESS; Amazon EKS user guide, network policies, considerations)"
        ),
    ),
    _find,
    adapt=_configured,
)
