"""Where a node's own packets to pods of other nodes come from: in an overlay, from the node's end of the tunnel.

Sources: Calico, annotations of nodes; Flannel, "Annotations" (its vxlan device has the first address of the node's pods).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from kubectl_genainet.model.kube import Node

_CALICO = ("IPv4VXLANTunnelAddr", "IPv4IPIPTunnelAddr", "IPv6VXLANTunnelAddr")
_FLANNEL = "flannel.alpha.coreos.com/backend-type"


def tunnel_addresses(node: Node) -> Iterator[str]:
    """The addresses of a node's ends of tunnels, as its annotations show them."""
    annotations = node.metadata.annotations
    for name in _CALICO:
        if annotations.get(f"projectcalico.org/{name}"):
            yield annotations[f"projectcalico.org/{name}"]
    if annotations.get(_FLANNEL) == "vxlan":
        for block in node.spec.pod_cidrs or (node.spec.pod_cidr,):
            try:
                yield str(ipaddress.ip_network(block, strict=False).network_address)
            except ValueError:
                continue
