"""flannel (VXLAN, host-gw) and the reference CNI plugins: bridge, portmap, bandwidth, firewall. The other tests have ptp.

containerd calls the plugins as on a node. A client on node-1 calls a server on node-2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.harness.cluster import Cluster, rows
from tests.cluster.harness.flannel import Flannel
from tests.cluster.harness.kube_router import enforcing
from tests.cluster.harness.pair import (
    end_pair,
    nobody_may_call,
    places,
    start_pair,
    whole_paths,
)

pytestmark = pytest.mark.cluster

HOST_PORT = 8088


@pytest.fixture(scope="module")
def flannel(deployed: Cluster) -> Iterator[Flannel]:
    if deployed.plane is None:
        pytest.skip("configures the nodes' CNI: not on another's cluster")
    flannel = Flannel(deployed.plane, deployed.nodes, "vxlan")
    try:
        ports = [{"name": "http", "containerPort": 8080, "hostPort": HOST_PORT}]
        start_pair(deployed, "10.250.", [f"http://{deployed.node('node-2').ip}:{HOST_PORT}/"], ports=ports)
        yield flannel
    finally:
        end_pair(deployed)
        flannel.stop()


def traced(cluster: Cluster, target: str) -> list[dict[str, Any]]:
    return whole_paths(cluster.cli("trace", target, "-n", "chat", "--timeout", "10s", "-o", "json"))


OUT = ["cni-client eth0 tx", "node-1 veth rx", "node-1 bwp tx", "node-1 cni0 rx"]  # bandwidth shapes by an ifb device
IN = ["node-2 cni0 tx", "node-2 veth tx", "cni-server eth0 rx"]
WAYS = {
    "vxlan": [*OUT, "node-1 flannel.1 tx", "node-1 eth0 tx", "node-2 eth0 rx", "node-2 flannel.1 rx", *IN],
    "host-gw": [*OUT, "node-1 eth0 tx", "node-2 eth0 rx", *IN],
}


@pytest.fixture(scope="module", params=WAYS)
def backend(request: pytest.FixtureRequest, flannel: Flannel) -> str:
    name: str = request.param
    if name != flannel.backend:
        flannel.run(name)
    return name


def test_trace_has_every_hop_of_the_way_and_the_services_translation(deployed: Cluster, backend: str) -> None:
    for path in traced(deployed, "pod/cni-server"):
        assert places(path) == WAYS[backend]
        tunnels = [hop["tunnel"] for hop in path["hops"] if hop["tunnel"]]
        assert len(tunnels) == (2 if backend == "vxlan" else 0)
        assert all("172.31.0.2" in tunnel and "172.31.0.3:8472" in tunnel for tunnel in tunnels)
        if path["flow"]["service"] is not None:
            assert path["nat"]["service_chain"].startswith("KUBE-SVC-")
        else:
            assert path["nat"] is None


def test_a_host_port_is_portmaps_translation_and_flannels_masquerade(deployed: Cluster, flannel: Flannel) -> None:
    for path in traced(deployed, f"{deployed.node('node-2').ip}:{HOST_PORT}"):
        assert places(path) == WAYS["host-gw"]  # an address of the node is never in the tunnel
        assert path["nat"]["endpoint_chain"].startswith("CNI-DN-")
        assert path["nat"]["masqueraded"]
        assert path["nat"]["before"] == f"{deployed.node('node-2').ip}:{HOST_PORT}"


def test_a_policy_that_drops_is_named_behind_a_bridge(deployed: Cluster, flannel: Flannel) -> None:
    with enforcing(deployed), nobody_may_call(deployed):
        done = deployed.cli("drops", "pod/cni-server", "-n", "chat", "--timeout", "10s", "-o", "json")
    drops = [r["drop"] for r in rows(done.out) if r["kind"] == "drop" and r["severity"] == "error"]
    assert drops, done.out + done.err
    for drop in drops:
        assert (drop["check"], drop["policies"], drop["node"]) == (
            "policy-drop",
            ["chat/nobody-calls-the-server"],
            "node-2",
        )
