"""What pods' packets may measure, beside what the way to other nodes carries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, on_node
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.nodes import TUNNELS, RouteTable, host_of, pod_namespaces
from kubectl_genainet.doctor.objects.nodes import uplink as uplink_of
from kubectl_genainet.doctor.objects.raw import sh
from kubectl_genainet.doctor.predicates.calico_mtu import CHOICE, set_calico_mtu
from kubectl_genainet.model.finding import NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.model.node import Device, NetNs, NodeReport

_HEADERS = {"vxlan": 50, "geneve": 50, "ipip": 20, "wireguard": 60}


@check(Area.CNI, Severity.ERROR, needs=(Need.NODES,))
def mtu_mismatch(cluster: Cluster) -> Problems:
    """A pod's MTU is larger than what its node can carry to other nodes.

    Looks, on each node, at the MTU of pods' eth0 and of their default route, of tunnel devices and of the uplink (the
    device with the node's address). A tunnel must fit the uplink less its own headers; a pod must fit the tunnel that leads
    to a pod with packets as large on another node, or the uplink. The MTU of a tunnel whose packets a program sends (Cilium, Open
    vSwitch: "external") says nothing: there the uplink less the headers counts.

    Why: larger packets are dropped with "fragmentation needed", or silently where ICMP is filtered: small requests
    pass, long prompts and responses hang. An error: users see long prompts and answers hang, while health checks
    pass.

    Source: https://docs.tigera.io/calico/latest/networking/configuring/mtu, RFC 7348 section 4.3
    """
    sizes = _sizes(cluster)
    for report in cluster.reports:
        host, uplink = host_of(report), uplink_of(cluster, report)
        if host is None or uplink is None:
            yield NotChecked(f"node {report.node}", "its report names no uplink with an address")
            continue
        tunnels = [d for d in host.devices if d.kind in TUNNELS and d.up]
        yield from _tunnels_too_large(cluster, report, uplink, tunnels)
        yield from _pods_too_large(cluster, report, uplink, tunnels, sizes)


def _carried(tunnel: Device, uplink: Device) -> int:
    """What fits a tunnel on its uplink."""
    return uplink.mtu - _HEADERS.get(tunnel.kind, 20)


def _tunnels_too_large(
    cluster: Cluster, report: NodeReport, uplink: Device, tunnels: list[Device]
) -> Iterator[Problem]:
    for tunnel in tunnels:
        carried = _carried(tunnel, uplink)
        if tunnel.external or tunnel.mtu <= carried:
            continue
        own = on_node(report.node, f"{tunnel.name} has MTU {tunnel.mtu}", tunnel.mtu, field=f"{tunnel.name}.mtu")
        yield Problem(
            f"tunnel {tunnel.name} on node {report.node} has MTU {tunnel.mtu}, its uplink carries {carried}",
            ObjectRef("Node", report.node),
            (own, on_node(report.node, f"uplink {uplink.name} has MTU {uplink.mtu}", uplink.mtu)),
            _set_mtu(cluster, carried, tunnel.kind),
        )


def _pods_too_large(
    cluster: Cluster, report: NodeReport, uplink: Device, tunnels: list[Device], sizes: Mapping[str, int]
) -> Iterator[Problem]:
    above: Counter[tuple[int, int]] = Counter()
    limits: dict[int, int] = {}
    for netns in pod_namespaces(cluster, report):
        mtu = _pod_mtu(netns)
        if mtu and mtu not in limits:
            limits[mtu] = _limit(cluster, report, uplink, tunnels, sizes, mtu)
        if mtu > limits.get(mtu, mtu):
            above[(mtu, limits[mtu])] += 1
    for (mtu, limit), pods in sorted(above.items()):
        yield Problem(
            f"{pods} of its pods {'have' if pods > 1 else 'has'} MTU {mtu}, the way out carries {limit}",
            ObjectRef("Node", report.node),
            (
                on_node(report.node, f"eth0 of {pods} pods has MTU {mtu}", mtu, field="eth0.mtu"),
                on_node(report.node, f"smallest MTU of {uplink.name} and the tunnels is {limit}", limit),
            ),
            _set_mtu(cluster, limit),
        )


def _pod_mtu(netns: NetNs) -> int:
    """The size of a pod's largest packets: its default route may have an MTU of its own; 0 without eth0."""
    device = next((d for d in netns.devices if d.name == "eth0"), None)
    routes = [r.mtu for r in netns.routes or () if r.device == "eth0" and r.dst in ("0.0.0.0/0", "::/0") and r.mtu]
    return min([device.mtu, *routes]) if device is not None else 0


def _sizes(cluster: Cluster) -> dict[str, int]:
    """The MTU of pods by their addresses, as far as agents tell it."""
    spaces = (netns for report in cluster.reports for netns in pod_namespaces(cluster, report))
    return {address: _pod_mtu(netns) for netns in spaces for address in netns.addresses}


def _limit(
    cluster: Cluster, report: NodeReport, uplink: Device, tunnels: list[Device], sizes: Mapping[str, int], mtu: int
) -> int:
    """What the way carries to pods whose packets are as large as `mtu`: two ends agree on the smaller size (RFC 9293, MSS)."""
    carries = {t.name: min(_carried(t, uplink), uplink.mtu if t.external else t.mtu) for t in tunnels}
    smallest = min([uplink.mtu, *carries.values()])
    host = host_of(report)
    if mtu <= smallest or host is None or not host.routes or any(t.external for t in tunnels):
        return smallest
    peers = [
        ip
        for live in cluster.live_pods
        if live.node not in ("", report.node) and not live.pod.spec.host_network
        for ip in live.pod.ips
        if (sizes.get(ip) or mtu) >= mtu
    ]
    table, routed = RouteTable(host.routes), {route.device for route in host.routes}
    ways = {route.device for ip in peers if (route := table.lookup(ip)) is not None}
    ways |= {
        t.name for t in tunnels if t.kind == "wireguard" and t.name not in routed
    }  # Calico's has a table of its own
    return min([uplink.mtu, *(size for name, size in carries.items() if name in ways)])


def _set_mtu(cluster: Cluster, mtu: int, tunnel: str = "") -> Remedy:
    command = choice = ""
    if cluster.cni("Amazon VPC CNI"):
        command = f"kubectl -n kube-system set env daemonset/aws-node AWS_VPC_ENI_MTU={mtu}"
    elif cluster.cni("Calico"):
        command = set_calico_mtu(cluster, mtu, tunnel)
        choice = "" if command else f" {CHOICE}"
    elif cluster.cni("Cilium"):
        command = f"helm upgrade cilium cilium/cilium -n kube-system --reuse-values --set MTU={mtu}"
    told = f"Set the CNI's MTU to {mtu}, then restart the pods: a running pod keeps its MTU.{choice}"
    return Remedy(told, command=command)


@check(Area.CNI, Severity.WARNING, needs=(Need.NODES,))
def mtu_nodes_differ(cluster: Cluster) -> Problems:
    """The nodes' uplinks have different MTUs.

    Looks at the MTU of every node's uplink.

    Why: a jumbo-frame node (9001 on EC2) and a 1500-byte node only talk as long as path MTU discovery works; behind
    a firewall that drops ICMP, large packets in one direction are lost. A warning: traffic passes as long as ICMP
    does.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/network_mtu.html
    """
    uplinks = [(r.node, d) for r in cluster.reports if (d := uplink_of(cluster, r)) is not None]
    common = Counter(d.mtu for _, d in uplinks).most_common(1)
    for node, device in uplinks:
        if device.mtu != common[0][0]:
            yield Problem(
                f"its uplink has MTU {device.mtu}, those of the other nodes mostly {common[0][0]}",
                ObjectRef("Node", node),
                (on_node(node, f"{device.name} has MTU {device.mtu}", device.mtu, field=f"{device.name}.mtu"),),
                Remedy(
                    "Give all nodes the same MTU (launch template or machine configuration).",
                    command=f"ip link set dev {sh(device.name)} mtu {common[0][0]}   # on the node, until its "
                    "next start",
                ),
            )
