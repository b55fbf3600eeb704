"""kube-router on the nodes of a cluster: its policy controller alone, or with its router as the pods' network."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from functools import partial

from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.node import KubeNode
from tests.cluster.harness.processes import wait_for

BRIDGE = "kube-bridge"
BGP_ROUTES = "17"  # the protocol of the routes that it learns (zebraRouteOriginator, pkg/controllers/routing)
_OWN = re.compile(r"KUBE-(ROUTER|POD-FW|NWPLCY)|kube-bridge|kube-router-|allow outbound node port traffic")


@contextlib.contextmanager
def enforcing(cluster: Cluster) -> Iterator[None]:
    """Has its policy controller on each node while it is entered."""
    with _running(cluster, "--run-router=false"):
        yield


@contextlib.contextmanager
def routing(cluster: Cluster) -> Iterator[None]:
    """Has it on each node as its own manifest for kubeadm deploys it, with its router: pods that start meanwhile are on its
    bridge. Routes between the nodes are what it learns by BGP."""
    former = {node.name: node.pods_conflist.read_text() for node in cluster.nodes}
    for node in cluster.nodes:
        node.pods_conflist.write_text(json.dumps(_network(node)))
        # It writes the name of its routing table there, and the nodes share this machine's files.
        node.run("cp", "/etc/iproute2/rt_tables", str(node.folder))
        node.run("mount", "--bind", str(node.folder / "rt_tables"), "/etc/iproute2/rt_tables")
    for node, other in itertools.permutations(cluster.nodes, 2):
        node.run("ip", "route", "delete", other.pod_cidr)
    try:
        with _running(cluster, "--run-router=true"):
            for node, other in itertools.permutations(cluster.nodes, 2):
                wait_for(f"{node.name}'s route to {other.name} by BGP", partial(_has_route, node, other), 240)
            yield
    finally:
        for node in cluster.nodes:
            node.pods_conflist.write_text(former[node.name])
            node.run("umount", "/etc/iproute2/rt_tables")
            node.run("ip", "rule", "delete", "from", node.pod_cidr, "lookup", "77", check=False)
            node.run("ip", "link", "delete", BRIDGE, check=False)
        for node, other in itertools.permutations(cluster.nodes, 2):
            node.route_to(other)


def _network(node: KubeNode) -> dict[str, object]:
    """Its manifest's network, but for the name and folder under which addresses are taken: those of the pods that run already.
    It puts the node's podCIDR and the MTU into it (InsertPodCIDRIntoIPAM, pkg/utils/cni.go)."""
    ipam = {"type": "host-local", "dataDir": f"{node.folder}/ipam"}
    bridge = {"name": "kubernetes", "type": "bridge", "bridge": BRIDGE, "isDefaultGateway": True, "ipam": ipam}
    return {"cniVersion": "0.3.0", "name": "pods", "plugins": [bridge]}


def _has_route(node: KubeNode, other: KubeNode) -> bool:
    next(daemon for daemon in node.daemons if daemon.name == "kube-router").check()
    return f"via {other.ip} dev eth0" in node.run("ip", "route", "show", other.pod_cidr, "proto", BGP_ROUTES)


def taken_by_rules(node: KubeNode) -> int:
    """Packets that its rules for pods have rejected, as the kernel counts them."""
    counted = re.findall(r"^\[(\d+):\d+\] -A KUBE-POD-FW-\S+ .*-j REJECT", node.run("iptables-save", "-c"), re.M)
    return sum(map(int, counted))


@contextlib.contextmanager
def _running(cluster: Cluster, router: str) -> Iterator[None]:
    assert cluster.plane is not None
    kubeconfig = cluster.plane.kubeconfig(inside=True)
    flags = ["--run-firewall=true", router, "--run-service-proxy=false", "--metrics-port=0", "--health-port=0"]
    flags += ["--service-cluster-ip-range=10.96.0.0/16", f"--kubeconfig={kubeconfig}", "--v=1"]
    running = [
        node.daemon(
            "kube-router",
            "kube-router",
            f"--hostname-override={node.name}",
            *flags,
            env={"KUBE_ROUTER_CNI_CONF_FILE": str(node.pods_conflist)},
        )
        for node in cluster.nodes
    ]
    try:
        yield
    finally:
        for node, daemon in zip(cluster.nodes, running, strict=True):
            daemon.kill()
            node.daemons.remove(daemon)
            _remove_rules(node)


def _remove_rules(node: KubeNode) -> None:
    """What `kube-router --cleanup-config` would do, which needs a kernel with IPVS: all but its rules stays."""
    kept = [line for line in node.run("iptables-save").splitlines() if not _OWN.search(line)]
    node.run("bash", "-c", 'iptables-restore <<< "$1"', "restore", "\n".join(kept) + "\n")
