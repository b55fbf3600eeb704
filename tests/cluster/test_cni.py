"""flannel (VXLAN, host-gw) and the reference CNI plugins: bridge, portmap, bandwidth, firewall. The other tests have ptp.

containerd calls the plugins as on a node. A client on node-1 calls a server on node-2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cluster.harness.cluster import Cluster, rows
from tests.cluster.harness.flannel import Flannel
from tests.cluster.harness.kube_router import enforcing, taken_by_rules
from tests.cluster.harness.node import KubeNode
from tests.cluster.harness.pair import (
    EGRESS,
    FORGOTTEN,
    INGRESS,
    end_pair,
    end_pod,
    failed,
    host_device,
    namespace_of,
    nobody_may_call,
    paths,
    places,
    running,
    start_client,
    start_pair,
    taken_by_policy,
    traced,
    whole_paths,
)
from tests.cluster.harness.processes import Daemon, wait_for

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
    for path in whole_paths(traced(deployed, "pod/cni-server")):
        assert places(path) == WAYS[backend]
        tunnels = [hop["tunnel"] for hop in path["hops"] if hop["tunnel"]]
        assert len(tunnels) == (2 if backend == "vxlan" else 0)
        assert all("172.31.0.2" in tunnel and "172.31.0.3:8472" in tunnel for tunnel in tunnels)
        if path["flow"]["service"] is not None:
            assert path["nat"]["service_chain"].startswith(deployed.service_chains)
        else:
            assert path["nat"] is None


def test_a_drop_and_its_policy_are_named_behind_each_backend(deployed: Cluster, backend: str) -> None:
    with enforcing(deployed), nobody_may_call(deployed):
        told = taken_by_policy(deployed, WAYS[backend][: -len(IN)])
        taken = taken_by_rules(deployed.node("node-2"))
    assert 0 < told <= taken


def test_a_host_port_is_portmaps_translation_and_flannels_masquerade(deployed: Cluster, flannel: Flannel) -> None:
    for path in whole_paths(traced(deployed, f"{deployed.node('node-2').ip}:{HOST_PORT}")):
        assert places(path) == WAYS["host-gw"]  # an address of the node is never in the tunnel
        assert path["nat"]["endpoint_chain"].startswith("CNI-DN-")
        assert path["nat"]["masqueraded"]
        assert path["nat"]["before"] == f"{deployed.node('node-2').ip}:{HOST_PORT}"


ECHO_PORT = 9000
ECHO = f"""
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", {ECHO_PORT}))
print("ready", flush=True)
while True:
    data, peer = sock.recvfrom(2048)
    if data == b"?":
        sock.sendto(b"!", peer)
"""
# Far more at once than the queue holds, between two questions that are answered.
BURST = f"""
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
SO_SNDBUFFORCE = 32  # asm-generic/socket.h; with the default a socket waits before a queue of its own node is full
sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20)
sock.connect((sys.argv[1], {ECHO_PORT}))
sock.settimeout(5)
sock.send(b"?")
sock.recv(1)
for _ in range(300):
    sock.send(bytes(1000))
time.sleep(0.2)
sock.send(b"?")
sock.recv(1)
"""
LIMIT = 64_000


def shortened(node: KubeNode, device: str) -> int:
    """Leaves the plugin's queue its rate, in bytes a second, and takes its length: containerd asks for a burst of 512 MiB, so
    that what an annotation holds back waits there for long and is hardly ever dropped."""
    (made,) = json.loads(node.run("tc", "-j", "qdisc", "show", "dev", device, "root"))
    assert made["kind"] == "tbf"
    rate = int(made["options"]["rate"])
    words = f"tc qdisc change dev {device} root handle {made['handle']} tbf rate {rate}bps burst 32kb limit {LIMIT}"
    node.run(*words.split())
    return rate


def dropped_by(node: KubeNode, device: str) -> int:
    (queue,) = json.loads(node.run("tc", "-s", "-j", "qdisc", "show", "dev", device, "root"))
    return int(queue["drops"])


def queue_of(deployed: Cluster, pod: dict[str, Any], annotation: str) -> tuple[KubeNode, str]:
    """Node and device of the plugin's queue: towards a pod the node's end of its veth pair, from it an ifb device."""
    node = deployed.node(pod["spec"]["nodeName"])
    if annotation == INGRESS:
        return node, host_device(node, pod["status"]["podIP"])
    (link,) = json.loads(node.run("ip", "-j", "link", "show", "type", "ifb"))  # one pod of the node asks for it
    return node, str(link["ifname"])


@pytest.mark.parametrize(
    ("pod", "annotation", "megabits"), [("cni-server", INGRESS, 20), ("cni-client", EGRESS, 10)], ids=["to", "from"]
)
def test_what_the_bandwidth_plugins_queue_drops_is_named_with_its_annotation(
    deployed: Cluster, flannel: Flannel, pod: str, annotation: str, megabits: int
) -> None:
    found = running(deployed)
    ips = {name: found[name]["status"]["podIP"] for name in found}
    client, server = deployed.node("node-1"), deployed.node("node-2")
    node, device = queue_of(deployed, found[pod], annotation)
    assert shortened(node, device) * 8 == megabits * 1_000_000
    before = dropped_by(node, device)
    inside = ("nsenter", f"--net={namespace_of(server, ips['cni-server'])}", "python3", "-c", ECHO)
    echo = Daemon("echo", server.call("setpriv", "--pdeathsig", "KILL", *inside), server.folder / "echo.log")
    burst = ("nsenter", f"--net={namespace_of(client, ips['cni-client'])}", "python3", "-c", BURST, ips["cni-server"])
    try:
        wait_for("the echo", lambda: "ready" in echo.logged())
        flags = ("pod/cni-server", "-n", "chat", "--timeout", "9s", "-o", "json")
        with ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(deployed.cli, verb, *flags) for verb in ("drops", "trace")]
            while not all(run.done() for run in runs):
                client.run(*burst)
    finally:
        echo.kill()
    (drops, trace), dropped = (run.result() for run in runs), dropped_by(node, device) - before
    reported = list(
        {r["id"]: r for r in rows(drops.out) if r["kind"] == "drop" and r["check"] == "queue-full"}.values()
    )
    lost = [path for path in paths(trace) if path["drop"] and path["flow"]["protocol"] == "UDP"]
    assert dropped > 0 and reported and lost, (dropped, drops, trace)
    queue = (
        f"the queue of {device} (tbf, {megabits}.0 Mbit/s, at most {LIMIT:,} bytes waiting) in node {node.name} has no"
    )
    asks = f"the annotation {annotation}: {megabits}M of pod chat/{pod} asks for"
    for drop in (*(row["drop"] for row in reported), *(path["drop"] for path in lost)):
        assert (drop["reason"], drop["device"], drop["node"]) == ("QDISC_DROP", device, node.name)
        assert queue in drop["explanation"] and asks in drop["explanation"]
    assert all("datagrams-lost" in {f["check"] for f in path["findings"]} for path in lost)
    # The queue counts from before the probes are attached.
    assert 0 < sum(row["packets"] for row in reported) <= dropped


@pytest.fixture
def neighbour(deployed: Cluster, flannel: Flannel) -> Iterator[str]:
    """A pod beside the server, on a bridge of its own, that calls the server in vain."""
    ip = running(deployed)["cni-server"]["status"]["podIP"]
    try:
        with flannel.another_bridge(deployed.node("node-2")):
            start_client(deployed, "cni-neighbour", "node-2", [f"http://{ip}:8080/"])
        yield "cni-neighbour"
    finally:
        end_pod(deployed, "cni-neighbour")


def kept_apart(node: KubeNode) -> int:
    """Packets to the server's bridge that the firewall plugin's rules have dropped, as the kernel counts them."""
    saved = node.run("iptables-save", "-c", "-t", "filter")
    return sum(map(int, re.findall(r"^\[(\d+):\d+\] -A CNI-ISOLATION-STAGE-2 -o cni0 .*-j DROP", saved, re.M)))


def test_what_the_firewall_plugin_keeps_apart_is_told_with_its_rule(deployed: Cluster, neighbour: str) -> None:
    node = deployed.node("node-2")
    target = ("pod/cni-server", "-n", "chat", "-o", "json", "--timeout")
    before = kept_apart(node)
    with deployed.watching(("trace", *target, "120s")) as runs:
        drops = deployed.cli("drops", *target, "8s")
    (trace,), after = runs, kept_apart(node)
    reported = failed(rows(drops.out))
    lost = [r for r in rows(trace.out) if r["kind"] == "path" and r["drop"] and r["drop"]["check"] != FORGOTTEN]
    assert reported and lost, (drops, trace)
    assert {row["client"]["pod"] for row in reported} == {path["flow"]["client"]["pod"] for path in lost} == {neighbour}
    for drop in (*(row["drop"] for row in reported), *(path["drop"] for path in lost)):
        assert (drop["check"], drop["node"], drop["policies"]) == ("rule-drop", "node-2", []), drop
        assert "CNI-ISOLATION-STAGE-2" in drop["rule"] and "ingressPolicy: same-bridge" in drop["rule"]
    way = [f"{neighbour} eth0 tx", "node-2 veth rx", "node-2 bwp tx", "node-2 cni1 rx"]
    assert way in [places(path) for path in lost]
    assert 0 < sum(row["packets"] for row in reported) <= after - before
