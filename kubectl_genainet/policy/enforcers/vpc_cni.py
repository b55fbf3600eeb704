"""The network policy agent of the Amazon VPC CNI, where it is switched on.

Source: Amazon EKS user guide, "Limit pod traffic with Kubernetes network policies", considerations.
"""

from __future__ import annotations

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import Deviation, Enforcer, EnforcerName, Known, arguments_of, running

_AGENT = "aws-network-policy-agent|aws-eks-nodeagent|amazon/aws-network-policy-agent"


def _find(snapshot: ClusterSnapshot) -> str:
    for obj, container in running(snapshot, _AGENT):
        if "--enable-network-policy=true" in arguments_of(container):
            return str(obj.ref)
    return ""


VPC_CNI = Known(
    Enforcer(
        EnforcerName.VPC_CNI,
        "the network policy agent of the Amazon VPC CNI",
        deviations=(
            Deviation(
                "policies reach only pods that a controller made (metadata.ownerReferences)",
                "Amazon EKS user guide, network policies, considerations",
                not_owned=True,
            ),
        ),
        owned_pods_only=True,
    ),
    _find,
)
