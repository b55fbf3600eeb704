"""Devices, addresses and routes of a lab: pods on nodes as the ptp CNI plugin wires them, nodes on one bridge.

The bridge is in a namespace of its own (the fabric). Pods of other nodes are reached by routes through the nodes'
addresses, as kindnet or flannel's host-gw write them, or through a VXLAN device, as flannel's vxlan backend does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.spec import AddressFamily, LabSpec, Overlay, family_of, node_name, veth_name

BRIDGE = "br0"
HAS_IPV6 = Path("/proc/sys/net/ipv6")
VNI, VXLAN_PORT = 1, 8472
_NUD_PERMANENT, _NTF_SELF, _RTNH_F_ONLINK = 0x80, 0x02, 4
_RTN_BLACKHOLE = 6


@dataclass(frozen=True, slots=True)
class PodWire:
    """A pod to be wired. `index` is its node's (from 1)."""

    namespace: str
    name: str
    netns: str
    index: int
    ips: tuple[str, ...]


class Wires:
    """Netlink sockets into the namespaces of one lab, opened when first needed."""

    def __init__(self, spec: LabSpec, fabric: str, nodes: dict[str, str]) -> None:
        self.spec, self.fabric, self.nodes = spec, fabric, nodes
        self._sockets: dict[str, Any] = {}

    def __enter__(self) -> Wires:
        return self

    def __exit__(self, *_: object) -> None:
        for socket in self._sockets.values():
            socket.close()

    def at(self, namespace: str) -> Any:
        """An IPRoute that works in the namespace."""
        if namespace not in self._sockets:
            with netns.inside(namespace):
                self._sockets[namespace] = IPRoute()
        return self._sockets[namespace]

    def index_of(self, namespace: str, device: str) -> int:
        indexes = self.at(namespace).link_lookup(ifname=device)
        if not indexes:
            raise LookupError(f"{namespace} has no device {device}")
        return int(indexes[0])

    # --- the underlay -----------------------------------------------------------------------------------------------

    def make_fabric(self) -> None:
        with netns.inside(self.fabric):
            netns.write_sysctls(host_sysctls(self.spec) | {"net/ipv4/conf/default/rp_filter": "0"})
        ipr = self.at(self.fabric)
        ipr.link("add", ifname=BRIDGE, kind="bridge", br_mcast_snooping=0)
        bridge = self.index_of(self.fabric, BRIDGE)
        ipr.addr("add", index=bridge, address="172.19.0.1", prefixlen=24)  # the network of second devices
        for family in self.spec.families:
            ipr.addr(
                "add", index=bridge, address=family.fabric_ip, prefixlen=family.underlay.prefixlen, **_flags(family)
            )
        self._up(self.fabric, "lo", BRIDGE)

    def make_node(self, index: int) -> None:
        node = self.nodes[node_name(index)]
        with netns.inside(node):
            netns.write_sysctls(host_sysctls(self.spec))
        self.add_uplink(index, "eth0", f"port{index}")
        device = self.index_of(node, "eth0")
        ipr = self.at(node)
        for family in self.spec.families:
            ipr.addr(
                "add",
                index=device,
                address=family.node_ip(index),
                prefixlen=family.underlay.prefixlen,
                **_flags(family),
            )
        self._up(node, "lo", "eth0")
        for family in self.spec.families:
            self._route(node, "default", "eth0", gateway=family.fabric_ip, family=family)
            # What is meant for a pod that is gone must not leave the node by the default route.
            ipr.route("add", dst=family.pod_cidr(index), type=_RTN_BLACKHOLE, family=_af(family))

    def add_uplink(self, index: int, device: str, port: str) -> None:
        """A device of a node on the fabric's bridge. It answers and asks ARP for its own addresses only."""
        node, ipr = self.nodes[node_name(index)], self.at(self.fabric)
        with _opened(node) as fd:
            ipr.link("add", ifname=port, kind="veth", peer={"ifname": device, "net_ns_fd": fd})
        with netns.inside(node):
            netns.write_sysctls(
                {f"net/ipv4/conf/{device}/{k}": v for k, v in (("arp_ignore", "1"), ("arp_announce", "2"))}
            )
        ipr.link("set", index=self.index_of(self.fabric, port), master=self.index_of(self.fabric, BRIDGE), state="up")
        self._up(node, device)

    def add_second_uplink(self, index: int, device: str) -> None:
        """A second device, in a network of its own, as cloud instances with several interfaces have."""
        self.add_uplink(index, device, f"port{index}b")
        node = self.nodes[node_name(index)]
        self.at(node).addr("add", index=self.index_of(node, device), address=f"172.19.0.{index + 1}", prefixlen=24)

    # --- between the nodes ------------------------------------------------------------------------------------------

    def join_nodes(self) -> None:
        if self.spec.overlay is Overlay.VXLAN:
            for index in self._indices():
                self._make_vtep(index)
        for index in self._indices():
            for peer in self._indices():
                if peer != index:
                    for family in self.spec.families:
                        self.route_to_peer(index, peer, family)

    def route_to_peer(self, index: int, peer: int, family: AddressFamily) -> None:
        """A node's way to the pods of another."""
        node, cidr = self.nodes[node_name(index)], family.pod_cidr(peer)
        if self.spec.overlay is Overlay.NONE:
            self._route(node, cidr, "eth0", gateway=family.node_ip(peer), family=family)
            return
        device, vtep = vxlan_device(family), cidr.partition("/")[0]
        ipr, number = self.at(node), self.index_of(node, vxlan_device(family))
        ipr.neigh(
            "replace",
            dst=vtep,
            lladdr=_vtep_mac(peer, family),
            ifindex=number,
            state=_NUD_PERMANENT,
            family=_af(family),
        )
        ipr.fdb(
            "replace",
            ifindex=number,
            lladdr=_vtep_mac(peer, family),
            dst=family.node_ip(peer),
            state=_NUD_PERMANENT,
            flags=_NTF_SELF,
        )
        self._route(node, cidr, device, gateway=vtep, family=family, onlink=True)

    def _make_vtep(self, index: int) -> None:
        node = self.nodes[node_name(index)]
        ipr, below = self.at(node), self.index_of(node, "eth0")
        for family in self.spec.families:
            local = {"vxlan_local" if family is AddressFamily.IPV4 else "vxlan_local6": family.node_ip(index)}
            device = vxlan_device(family)
            mtu = 1500 - (50 if family is AddressFamily.IPV4 else 70)
            ipr.link(
                "add",
                ifname=device,
                kind="vxlan",
                vxlan_id=VNI,
                vxlan_port=VXLAN_PORT,
                vxlan_link=below,
                vxlan_learning=0,
                address=_vtep_mac(index, family),
                mtu=mtu,
                **local,
            )
            ipr.addr(
                "add",
                index=self.index_of(node, device),
                address=family.pod_cidr(index).partition("/")[0],
                prefixlen=family.host_prefix,
                **_flags(family),
            )
            self._up(node, device)

    # --- pods -------------------------------------------------------------------------------------------------------

    def make_pod(self, pod: PodWire) -> None:
        node, device = self.nodes[node_name(pod.index)], veth_name(pod.namespace, pod.name)
        with netns.inside(pod.netns):
            netns.write_sysctls(pod_sysctls(self.spec))
        ipr, mtu = self.at(node), self.spec.pod_mtu
        with _opened(pod.netns) as fd:
            ipr.link("add", ifname=device, kind="veth", mtu=mtu, peer={"ifname": "eth0", "net_ns_fd": fd, "mtu": mtu})
        outer, inner = self.index_of(node, device), self.index_of(pod.netns, "eth0")
        inside = self.at(pod.netns)
        for ip in pod.ips:
            family = family_of(ip)
            gateway, cidr = family.gateway(pod.index), family.pod_cidr(pod.index)
            ipr.addr("add", index=outer, address=gateway, prefixlen=family.host_prefix, **_flags(family))
            prefix = int(cidr.partition("/")[2])
            # IPv6 neighbours of the /64 are not on this link: the address stands alone.
            inside.addr(
                "add",
                index=inner,
                address=ip,
                prefixlen=prefix if family is AddressFamily.IPV4 else 128,
                **_flags(family, noprefixroute=True),
            )
        self._up(node, device)
        self._up(pod.netns, "lo", "eth0")
        for ip in pod.ips:
            family = family_of(ip)
            gateway, cidr = family.gateway(pod.index), family.pod_cidr(pod.index)
            self._route(node, f"{ip}/{family.host_prefix}", device, family=family)
            self._route(pod.netns, f"{gateway}/{family.host_prefix}", "eth0", family=family)
            self._route(pod.netns, cidr, "eth0", gateway=gateway, family=family)
            self._route(pod.netns, "default", "eth0", gateway=gateway, family=family)

    def remove_pod(self, pod: PodWire) -> None:
        """Takes the pod's devices away, as a CNI plugin does: the kernel takes its time with a namespace that nobody needs."""
        node, device = self.nodes[node_name(pod.index)], veth_name(pod.namespace, pod.name)
        self.at(node).link("del", index=self.index_of(node, device))

    # --- the outside ------------------------------------------------------------------------------------------------

    def route_balancer(self, ip: str, index: int) -> None:
        """Sends a load balancer's address to a node, as the network before a cluster does."""
        family = family_of(ip)
        self._route(self.fabric, f"{ip}/{family.host_prefix}", BRIDGE, gateway=family.node_ip(index), family=family)

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _indices(self) -> Iterable[int]:
        return range(1, self.spec.nodes + 1)

    def _up(self, namespace: str, *devices: str) -> None:
        for device in devices:
            self.at(namespace).link("set", index=self.index_of(namespace, device), state="up")

    def _route(
        self, namespace: str, to: str, device: str, *, family: AddressFamily, gateway: str = "", onlink: bool = False
    ) -> None:
        how: dict[str, Any] = {"gateway": gateway} if gateway else {"scope": 253 if family is AddressFamily.IPV4 else 0}
        if onlink:
            how["flags"] = _RTNH_F_ONLINK
        self.at(namespace).route("replace", dst=to, oif=self.index_of(namespace, device), family=_af(family), **how)


def vxlan_device(family: AddressFamily) -> str:
    return "flannel.1" if family is AddressFamily.IPV4 else "flannel-v6.1"


def _vtep_mac(index: int, family: AddressFamily) -> str:
    return f"0a:58:0a:f4:{index:02x}:{'04' if family is AddressFamily.IPV4 else '06'}"


def _af(family: AddressFamily) -> int:
    return 2 if family is AddressFamily.IPV4 else 10


def _flags(family: AddressFamily, *, noprefixroute: bool = False) -> dict[str, int]:
    """IFA_F_NODAD for IPv6, where every address is known to be free; IFA_F_NOPREFIXROUTE."""
    flags = (0x02 if family is AddressFamily.IPV6 else 0) | (0x200 if noprefixroute else 0)
    return {"flags": flags} if flags else {}


@contextlib.contextmanager
def _opened(namespace: str) -> Any:
    fd = os.open(netns.RUN_NETNS / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _ipv6_sysctls(spec: LabSpec, *, forward: bool) -> dict[str, str]:
    if not HAS_IPV6.exists():
        return {}
    if AddressFamily.IPV6 not in spec.families:
        return {f"net/ipv6/conf/{scope}/disable_ipv6": "1" for scope in ("all", "default")}
    settings = {
        f"net/ipv6/conf/{scope}/{key}": "0" for scope in ("all", "default") for key in ("accept_dad", "accept_ra")
    }
    if forward:
        settings |= {f"net/ipv6/conf/{scope}/forwarding": "1" for scope in ("all", "default")}
    return settings


def host_sysctls(spec: LabSpec) -> dict[str, str]:
    """As on a node: forwarding; loose reverse-path filter; kube-proxy's route_localnet and conntrack timeouts."""
    return {
        "net/ipv4/ip_forward": "1",
        "net/ipv4/conf/all/rp_filter": "0",
        "net/ipv4/conf/default/rp_filter": "2",
        "net/ipv4/conf/all/route_localnet": "1",
        "net/ipv4/conf/all/send_redirects": "0",
        "net/ipv4/conf/default/send_redirects": "0",
        "net/netfilter/nf_conntrack_tcp_timeout_established": "86400",
        "net/netfilter/nf_conntrack_tcp_timeout_close_wait": "3600",
        **_ipv6_sysctls(spec, forward=True),
    }


def pod_sysctls(spec: LabSpec) -> dict[str, str]:
    return {
        "net/ipv4/ip_unprivileged_port_start": "0",
        "net/ipv4/conf/all/rp_filter": "0",
        "net/ipv4/conf/default/rp_filter": "0",
        **_ipv6_sysctls(spec, forward=False),
    }
