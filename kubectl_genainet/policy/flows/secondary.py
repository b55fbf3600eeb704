"""Addresses of further interfaces of pods (Multus): what enforces policies on the pods' own network is not on that way.

Source: Kubernetes Network Custom Resource Definition De-facto Standard, "Network Attachment Status".
"""

from __future__ import annotations

import msgspec

from kubectl_genainet.errors import DECODE_ERRORS
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip

_STATUS = "k8s.v1.cni.cncf.io/network-status"


class _Attachment(msgspec.Struct, frozen=True):
    name: str = ""
    interface: str = ""
    ips: tuple[str, ...] = ()
    default: bool = False


def why_beside_policies(snapshot: ClusterSnapshot, address: str) -> str:
    """Why policies may not see what is sent to an address; "" for one that is of no further interface of a pod."""
    for pod in snapshot.pods:
        status = pod.metadata.annotations.get(_STATUS, "")
        if not address or address not in status:
            continue
        try:
            attachments = msgspec.json.decode(status, type=list[_Attachment])
        except DECODE_ERRORS:
            continue
        for one in attachments:
            if not one.default and canonical_ip(address) in map(canonical_ip, one.ips):
                return (
                    f"{address} is pod {pod.metadata.namespace}/{pod.metadata.name} on its further network {one.name} "
                    f"({one.interface}): by which interface the connection leaves is not known, and NetworkPolicies are about "
                    "the pods' own network alone"
                )
    return ""
