"""kube-router's policy controller on the nodes of a cluster."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.node import KubeNode


@contextlib.contextmanager
def enforcing(cluster: Cluster) -> Iterator[None]:
    """Has it on each node while it is entered."""
    assert cluster.plane is not None
    kubeconfig = cluster.plane.kubeconfig(inside=True)
    flags = ["--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--metrics-port=0"]
    flags += ["--health-port=0", "--service-cluster-ip-range=10.96.0.0/16", f"--kubeconfig={kubeconfig}", "--v=1"]
    running = [
        node.daemon("kube-router", "kube-router", f"--hostname-override={node.name}", *flags) for node in cluster.nodes
    ]
    try:
        yield
    finally:
        for node, daemon in zip(cluster.nodes, running, strict=True):
            daemon.kill()
            node.daemons.remove(daemon)
            _remove_rules(node)


def _remove_rules(node: KubeNode) -> None:
    """What `kube-router --cleanup-config` would do, which needs a kernel with IPVS: all but its chains stays."""
    chains = re.compile(r"KUBE-(ROUTER|POD-FW|NWPLCY)")
    kept = [line for line in node.run("iptables-save").splitlines() if not chains.search(line)]
    node.run("bash", "-c", 'iptables-restore <<< "$1"', "restore", "\n".join(kept) + "\n")
