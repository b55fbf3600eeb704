"""Which packets are believed to be a tunnel's: those of the node's own tunnels, on the devices between nodes.

Any pod can send a datagram to VXLAN's port with whatever inside. It comes from a device that leads to a pod, or is for
and from no address of the node's.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.model.node import Device, NodeReport

_TUNNELS = frozenset({"vxlan", "geneve", "ipip", "sit", "ip6tnl", "openvswitch"})
_PAIRS = frozenset({"veth", "netkit"})  # one end in a pod, as a rule
_NEVER = frozenset({"bridge", "dummy"})  # pods' packets pass a bridge; kube-ipvs0 (dummy) has every Service's address


@dataclass(frozen=True, slots=True)
class Tunnels:
    """`devices` are (inode of the namespace, index) of those on which a tunnel's packets pass; `ends` the addresses of which
    one is theirs."""

    devices: frozenset[tuple[int, int]] = frozenset()
    ends: frozenset[str] = frozenset()


def tunnels_of(report: NodeReport, *, shared: bool) -> Tunnels:
    """Of the node's own namespace; nothing where it has no tunnel device.

    Where nodes share a kernel (`shared`) a node's way to the others is itself a pair; one that leads to a pod is known by
    the pod's end.
    """
    host = next((netns for netns in report.namespaces if netns.host), None)
    if host is None or not any(device.kind in _TUNNELS for device in host.devices):
        return Tunnels()
    to_pods = {
        device.peer_ifindex
        for netns in report.namespaces
        if not netns.host
        for device in netns.devices
        if device.kind in _PAIRS
    }

    def between_nodes(device: Device) -> bool:
        pair = device.kind in _PAIRS
        return (
            device.name != "lo"
            and device.kind not in _NEVER
            and not (pair and (not shared or device.ifindex in to_pods))
        )

    devices = [device for device in host.devices if between_nodes(device)]
    ends = (address for device in devices if device.kind not in _TUNNELS for address in device.addresses)
    return Tunnels(frozenset((host.inode, device.ifindex) for device in devices), frozenset(ends))
