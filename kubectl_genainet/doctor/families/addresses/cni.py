"""CNI and MTU."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived, on_node, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.nodes import TUNNELS
from kubectl_genainet.doctor.objects.platform import Routing, config_map, container_env
from kubectl_genainet.doctor.objects.raw import kubectl, number, sh, text
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.predicates.calico_mtu import calico_mtu, change
from kubectl_genainet.model.finding import Evidence, NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.model.node import Device, NodeReport


@check(Area.CNI, Severity.WARNING, needs=("DaemonSet",))
def cni_overlay(cluster: Cluster) -> Problems:
    """GenAI traffic between nodes is encapsulated.

    Looks at the CNI's configuration: Flannel's backend, Calico's IP pools, Cilium's routing-mode, Antrea's
    trafficEncapMode, Weave Net; with an agent also at tunnel devices. Where the CNI is not known, pods' packets that were
    recorded inside a tunnel, or else tunnel devices that are up, are information; so is all of it where of the GenAI
    workloads is known only that they have a GPU: video is transcoded on GPUs too.

    Why: encapsulation costs latency, CPU and 20 to 60 bytes of every packet; token streams and NCCL over TCP feel
    it. Native routing (the Amazon VPC CNI, Cilium native) has none of it. A warning: requests are answered, later
    and with less throughput.

    Source: https://docs.aws.amazon.com/eks/latest/best-practices/networking.html,
    https://docs.cilium.io/en/stable/network/concepts/routing/
    """
    genai = [recognised for _, recognised in cluster.genai_workloads]
    if not genai:
        return
    if not cluster.cnis and (tunnels := _tunnels_seen(cluster)):
        yield Problem(
            "pod traffic between nodes is encapsulated, by a CNI that is not known",
            ObjectRef("Node", tunnels[0].node),
            tuple(tunnels),
            _native(cluster, ""),
            severity=Severity.INFO,
        )
    for cni in cluster.cnis:
        if cni.routing is not Routing.OVERLAY:
            continue
        evidence = [cni.evidence, *_tunnels_seen(cluster)]
        yield Problem(
            f"{cni.name} encapsulates pod traffic ({cni.encapsulation})",
            cni.evidence.object,
            tuple(evidence),
            _native(cluster, cni.name),
            severity=None if any(r.stack or r.role is not Role.ACCELERATED for r in genai) else Severity.INFO,
        )


def _tunnels_seen(cluster: Cluster) -> list[Evidence]:
    """Tunnel devices of the nodes that are up, and the first packet that was seen inside a tunnel."""
    tunnels = [
        on_node(
            report.node, f"{device.kind} device {device.name} is up, MTU {device.mtu}", device.name, field="devices"
        )
        for report, device in _host_devices(cluster)
        if device.kind in TUNNELS and device.up
    ]
    inside = next((p for p in cluster.packets if p.tunnel is not None), None)
    if inside is not None:
        tunnels.append(on_node(inside.node, f"{inside.flow} was seen inside {inside.tunnel}", str(inside.tunnel)))
    return tunnels


def _native(cluster: Cluster, name: str) -> Remedy:
    if name.startswith("Cilium"):
        config = config_map(cluster.snapshot, "cilium-config", "")
        pools = text(config.raw, "data", "cluster-pool-ipv4-cidr").split() if config else []
        told = "" if pools else "; CIDR is the range of pod addresses"
        return Remedy(
            "Where all nodes share a layer 2 network, switch Cilium to native routing with a route to each node. Where a router "
            f"has the routes to pod addresses, leave out autoDirectNodeRoutes{told}.",
            command="helm upgrade cilium cilium/cilium -n kube-system --reuse-values --set routingMode=native "
            f"--set ipv4NativeRoutingCIDR={sh(pools[0] if pools else 'CIDR')} --set autoDirectNodeRoutes=true",
        )
    if name == "Calico":
        return Remedy(
            "Encapsulate only between subnets, or not at all where the network routes pod addresses.",
            command="kubectl patch ippool default-ipv4-ippool --type=merge -p "
            '\'{"spec":{"vxlanMode":"CrossSubnet","ipipMode":"Never"}}\'',
        )
    if name == "Antrea":
        return Remedy(
            "Where nodes share a subnet, set trafficEncapMode to noEncap (or hybrid) in antrea-agent.conf.",
            command="kubectl -n kube-system edit configmap antrea-config",
        )
    if name == "Flannel":
        return Remedy(
            "Where nodes share a subnet, use Flannel's host-gw backend, or a CNI that routes natively.",
            command="kubectl -n kube-flannel edit configmap kube-flannel-cfg   # Backend.Type: host-gw",
        )
    return Remedy("Move the GenAI node pools to a CNI that routes natively (Amazon VPC CNI, Cilium native routing).")


def _host_devices(cluster: Cluster) -> list[tuple[NodeReport, Device]]:
    return [(r, d) for r in cluster.reports for n in r.namespaces if n.host for d in n.devices]


@check(Area.CNI, Severity.WARNING, needs=("DaemonSet",))
def cni_several(cluster: Cluster) -> Problems:
    """More than one CNI is installed.

    Looks at the DaemonSets of known CNIs. Calico's policy engine beside the Amazon VPC CNI or Flannel, and Cilium
    chained to the VPC CNI, are combinations that their projects support and are not reported.

    Why: kubelet uses the first file in /etc/cni/net.d; leftovers of another CNI bring their own routes, tunnels and
    rules, and pods of one node differ from those of the next. A warning: pods work until a node restarts and picks
    the other CNI; then some are unreachable.

    Source: https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/network-plugins/
    """
    names = cluster.cni_names
    supported: tuple[set[str], ...] = (
        {"Amazon VPC CNI", "Calico"},
        {"Flannel", "Calico"},
        {"Amazon VPC CNI", "Cilium"},
        {"kindnet", "Calico"},
    )
    if len(names) > 1 and not any(names == s for s in supported):
        evidence = tuple(
            seen(c.daemonset.ref, "metadata.name", c.daemonset.name, f"{c.name} is installed") for c in cluster.cnis
        )
        yield Problem(
            f"several CNIs are installed: {', '.join(sorted(names))}",
            cluster.cnis[-1].daemonset.ref,
            evidence,
            Remedy(
                "Find out which one the nodes use (the first file in /etc/cni/net.d), then remove the other.",
                command="kubectl get daemonsets -A",
            ),
        )


@check(Area.CNI, Severity.ERROR, needs=("DaemonSet",))
def cni_not_ready(cluster: Cluster) -> Problems:
    """The CNI's DaemonSet is not ready on every node.

    Looks at status.numberReady against status.desiredNumberScheduled of the CNI's DaemonSet. What a file keeps of one
    object's status is of the day it was saved: not checked, unless the manifests are a whole cluster.

    Why: on a node without a working CNI agent new pods get no address, and policies and routes are not kept up. An
    error: new pods on that node serve nobody.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
    """
    for cni in cluster.cnis:
        raw = cni.daemonset.raw
        old = cluster.extent.old_status(cni.daemonset)
        if old:
            yield NotChecked(cni.daemonset.name, old)
            continue
        wanted, ready = number(raw, "status", "desiredNumberScheduled"), number(raw, "status", "numberReady")
        if ready < wanted:
            yield Problem(
                f"{cni.name} is ready on {ready} of {wanted} nodes",
                cni.daemonset.ref,
                (seen(cni.daemonset.ref, "status.numberReady", ready, f"{ready} ready of {wanted} desired"),),
                Remedy(
                    "See why its pods are not ready.",
                    command=kubectl(cni.daemonset.ref, "describe"),
                ),
            )


@check(Area.CNI, Severity.WARNING, needs=("DaemonSet",))
def mtu_configured(cluster: Cluster) -> Problems:
    """The CNI is configured with an MTU that leaves no room for its encapsulation.

    Looks at calicoNetwork.mtu of the operator's Installation, veth_mtu in calico-config and AWS_VPC_ENI_MTU of aws-node.
    Only values that cannot be right are reported: an overlay with 1500 or 9001 bytes, which are the sizes of bare
    networks; an ENI beyond its limits.

    Why: a packet of the configured size does not fit once the tunnel's headers are added. A warning: nothing is
    lost until a packet of full size is sent.

    Source: https://docs.tigera.io/calico/latest/networking/configuring/mtu
    """
    for cni in cluster.cnis:
        setting = None
        if cni.name == "Calico":
            setting = calico_mtu(cluster)
        elif cni.name == "Amazon VPC CNI":
            value, field = container_env(cni.daemonset, "aws-node").get("AWS_VPC_ENI_MTU", ("", ""))
            if re.fullmatch(r"[0-9]+", value) and not 576 <= int(value) <= 9001:
                yield Problem(
                    f"AWS_VPC_ENI_MTU is {value}; an ENI takes 576 to 9001",
                    cni.daemonset.ref,
                    (seen(cni.daemonset.ref, field, value, f"AWS_VPC_ENI_MTU={value}"),),
                    Remedy(
                        "Use 9001.", command="kubectl -n kube-system set env daemonset/aws-node AWS_VPC_ENI_MTU=9001"
                    ),
                )
        # Calico takes the overhead off only where the MTU is not given (veth_mtu 0, no mtu in the Installation).
        if setting and cni.overhead and setting[2] in ("1500", "9001"):
            right = int(setting[2]) - cni.overhead
            yield Problem(
                f"Calico's MTU of {setting[2]} leaves no room for {cni.encapsulation}",
                setting[0],
                (
                    derived(setting[0], setting[1], setting[2], f"{cni.encapsulation} adds {cni.overhead} bytes"),
                    cni.evidence,
                ),
                Remedy(
                    f"Set it to {right}, or leave it to Calico's own detection, and restart the pods.",
                    command=change(setting[0], right),
                ),
            )
