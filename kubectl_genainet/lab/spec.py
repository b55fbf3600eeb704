"""What a lab is made of: its name, its modes, and the plan of its addresses and names."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from enum import Enum

import msgspec

from kubectl_genainet.errors import InputError

DEFAULT_NAME = "default"
MAX_NODES = 16
NETNS_PREFIX = "gnlab"
FABRIC = "fabric"  # the namespace that joins the nodes; it is also where clients outside the cluster live
CLUSTER_DOMAIN = "cluster.local"
VXLAN_OVERHEAD = {"IPv4": 50, "IPv6": 70}  # outer headers of a VXLAN packet, bytes


class ProxyMode(Enum):
    IPTABLES = "iptables"
    NFTABLES = "nftables"


class Overlay(Enum):
    NONE = "none"
    VXLAN = "vxlan"


class AddressFamily(Enum):
    """An address family, with the lab's ranges for it (the ones that kind uses)."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"

    @property
    def underlay(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        return ipaddress.ip_network("172.18.0.0/16" if self is AddressFamily.IPV4 else "fc00:f853:ccd:e793::/64")

    @property
    def cluster_cidr(self) -> str:
        return "10.244.0.0/16" if self is AddressFamily.IPV4 else "fd00:10:244::/56"

    @property
    def service_cidr(self) -> str:
        return "10.96.0.0/16" if self is AddressFamily.IPV4 else "fd00:10:96::/112"

    @property
    def host_prefix(self) -> int:
        return 32 if self is AddressFamily.IPV4 else 128

    @property
    def fabric_ip(self) -> str:
        return str(self.underlay[1])

    def node_ip(self, index: int) -> str:
        """Address of the node with this index (from 1)."""
        return str(self.underlay[index + 1])

    def pod_cidr(self, index: int) -> str:
        return f"10.244.{index}.0/24" if self is AddressFamily.IPV4 else f"fd00:10:244:{index:x}::/64"

    def gateway(self, index: int) -> str:
        """The address that every pod of the node has as its gateway, on the node's side of each veth."""
        return str(ipaddress.ip_network(self.pod_cidr(index))[1])

    def pod_ip(self, index: int, number: int) -> str:
        """Address of the node's pod with this number (from 0)."""
        return str(ipaddress.ip_network(self.pod_cidr(index))[number + 2])


def family_of(ip: str) -> AddressFamily:
    return AddressFamily.IPV6 if ":" in ip else AddressFamily.IPV4


class LabSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The choices that a lab was brought up with. `manifests` is empty for the application shipped with the tool."""

    name: str = DEFAULT_NAME
    nodes: int = 3
    proxy_mode: ProxyMode = ProxyMode.IPTABLES
    overlay: Overlay = Overlay.NONE
    families: tuple[AddressFamily, ...] = (AddressFamily.IPV4,)
    manifests: str = ""
    record: bool = False  # its nodes and its objects have recorders

    @property
    def pod_mtu(self) -> int:
        return 1500 - (max(VXLAN_OVERHEAD[f.value] for f in self.families) if self.overlay is Overlay.VXLAN else 0)


def check_name(name: str) -> str:
    """Returns a lab's name; raises InputError where it can't be one.

    No dashes: namespaces are named gnlab-LAB-POD, and it must be plain where LAB ends.
    """
    if not re.fullmatch(r"[a-z0-9]{1,20}", name):
        raise InputError(f"{name!r} can't be a lab's name", hint="Use 1 to 20 lower-case letters and digits.")
    return name


def check_nodes(count: int) -> int:
    if not 1 <= count <= MAX_NODES:
        raise InputError(f"a lab has 1 to {MAX_NODES} nodes, not {count}")
    return count


def netns_name(lab: str, member: str) -> str:
    """Name of the file in /run/netns of a node, a pod or the fabric."""
    return f"{NETNS_PREFIX}-{lab}-{member}"


def veth_name(namespace: str, pod: str) -> str:
    """The node's end of a pod's veth pair, as the ptp CNI plugin names it: veth and 8 hex digits."""
    return "veth" + hashlib.sha1(f"{namespace}/{pod}".encode(), usedforsecurity=False).hexdigest()[:8]


def node_name(index: int) -> str:
    return f"node-{index}"
