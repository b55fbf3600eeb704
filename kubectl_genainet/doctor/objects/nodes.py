"""What nodes report, seen from the cluster's objects: whose namespace, which uplink, which way."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Mapping

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, text
from kubectl_genainet.doctor.objects.workloads import LivePod
from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.node import Device, NetNs, NodeReport, Route
from kubectl_genainet.model.units import whole_number

TUNNELS = ("vxlan", "geneve", "ipip", "sit", "ip6tnl", "gre", "wireguard")


def host_of(report: NodeReport) -> NetNs | None:
    return next((n for n in report.namespaces if n.host), None)


def netns_of(report: NodeReport, live: LivePod) -> NetNs | None:
    """The pod's network namespace: by the processes in it; where none tells a pod, by the pod's address."""
    uid = live.pod.metadata.uid
    pods = [n for n in report.namespaces if not n.host]
    by_process = next((n for n in pods if uid and uid in n.pod_uids), None)
    if by_process is not None:
        return by_process
    wanted = {canonical_ip(ip) for ip in live.pod.ips}
    return next((n for n in pods if not n.pod_uids and wanted & set(n.addresses)), None)


def pod_namespaces(cluster: Cluster, report: NodeReport) -> list[NetNs]:
    """The namespaces of a node that are pods': a process of a pod is in it, or it has a pod's address."""
    return [
        n
        for n in report.namespaces
        if not n.host and (n.pod_uids or any(cluster.snapshot.pod_at(a) is not None for a in n.addresses))
    ]


def pods_on_reported_nodes(cluster: Cluster) -> list[tuple[NodeReport, LivePod]]:
    """Running pods in scope with an own network namespace, with the report of their node."""
    reports = {r.node: r for r in cluster.reports}
    return [
        (reports[p.node], p)
        for p in cluster.live_pods
        if p.node in reports and not p.pod.spec.host_network and p.pod.status.phase == "Running" and p.pod.ips
    ]


def uplink(cluster: Cluster, report: NodeReport) -> Device | None:
    """The host's device with the node's own address (status.addresses), else that of its default route, else the
    hardware device with an address and the largest MTU."""
    host = host_of(report)
    if host is None:
        return None
    candidates = [d for d in host.devices if d.name != "lo" and d.up and d.addresses and d.kind not in TUNNELS]
    node = cluster.node(report.node)
    own = (
        {canonical_ip(a) for e in items(node.raw, "status", "addresses") if (a := text(e, "address"))}
        if node
        else set()
    )
    by_address = next((d for d in candidates if own & set(d.addresses)), None)
    if by_address is not None:
        return by_address
    default = next((r.device for r in host.routes or () if r.dst in ("0.0.0.0/0", "::/0")), "")
    by_route = next((d for d in candidates if d.name == default), None)
    if by_route is not None:
        return by_route
    return max((d for d in candidates if d.kind in ("", "bond", "vlan")), key=lambda d: d.mtu, default=None)


class RouteTable:
    """Longest-prefix lookup in a namespace's main table."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._by_length: dict[tuple[int, int], dict[int, Route]] = defaultdict(dict)
        for route in routes:
            network = ipaddress.ip_network(route.dst, strict=False)
            key = (network.version, network.prefixlen)
            self._by_length[key].setdefault(int(network.network_address), route)
        self._lengths: Mapping[int, list[int]] = {
            version: sorted((length for v, length in self._by_length if v == version), reverse=True)
            for version in (4, 6)
        }

    def lookup(self, ip: str) -> Route | None:
        """The route that a packet to the address takes; None where there is none."""
        address = ipaddress.ip_address(ip)
        number, bits = int(address), address.max_prefixlen
        for length in self._lengths[address.version]:
            route = self._by_length[(address.version, length)].get(number >> (bits - length) << (bits - length))
            if route is not None:
                return route
        return None


def rp_filter(host: NetNs, device: str) -> int | None:
    """The reverse-path filter of a device: the larger of its own value and that of "all" (ip-sysctl.rst, rp_filter)."""
    values = [host.sysctls.get(f"net.ipv4.conf.{name}.rp_filter", "") for name in ("all", device)]
    known = [number for v in values if (number := whole_number(v)) is not None]
    return max(known) if len(known) == 2 else None
