"""flannel (VXLAN, host-gw) and the reference CNI plugins: bridge, portmap, bandwidth, firewall. The other tests have ptp.

containerd calls the plugins as on a node. A client on node-1 calls a server on node-2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.harness.cluster import Cluster, rows
from tests.cluster.harness.flannel import Flannel
from tests.cluster.harness.image import AGENT
from tests.cluster.harness.kube_router import enforcing
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

HOST_PORT = 8088
LABEL = "app.kubernetes.io/name"
# Calls the server's own address, its Service and its host port, each on connections of their own.
CALL = """
import os, time, urllib.request
while True:
    for url in os.environ["URLS"].split():
        try:
            urllib.request.urlopen(url, timeout=2).read()
        except OSError as error:
            print(url, error, flush=True)
    time.sleep(0.2)
"""


def pod(name: str, node: str, command: list[str], **container: Any) -> dict[str, Any]:
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [
            {"name": name, "image": AGENT, "imagePullPolicy": "IfNotPresent", "command": command, **container}
        ],
    }
    limits = {"kubernetes.io/ingress-bandwidth": "20M", "kubernetes.io/egress-bandwidth": "10M"}
    metadata = {"name": name, "namespace": "chat", "labels": {LABEL: name}, "annotations": limits}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "cni-server", "namespace": "chat"},
    "spec": {"selector": {LABEL: "cni-server"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
}


@pytest.fixture(scope="module")
def flannel(deployed: Cluster) -> Iterator[Flannel]:
    if deployed.plane is None:
        pytest.skip("configures the nodes' CNI: not on another's cluster")
    flannel = Flannel(deployed.plane, deployed.nodes, "vxlan")
    try:
        run_pods(deployed, flannel)
        yield flannel
    finally:
        for path in ("pods/cni-client", "pods/cni-server", "services/cni-server"):
            deployed.api().delete(f"/api/v1/namespaces/chat/{path}")
        wait_for("their end", lambda: not running(deployed), 240)
        flannel.stop()


def running(cluster: Cluster) -> dict[str, dict[str, Any]]:
    items = cluster.api().get("/api/v1/namespaces/chat/pods")["items"]
    return {item["metadata"]["name"]: item for item in items if item["metadata"]["name"].startswith("cni-")}


def run_pods(cluster: Cluster, flannel: Flannel) -> None:
    api = cluster.api()
    ports = [{"name": "http", "containerPort": 8080, "hostPort": HOST_PORT}]
    server = ["python3", "-m", "http.server", "8080", "--directory", "/tmp"]
    api.create(SERVICE)
    api.create(pod("cni-server", "node-2", server, ports=ports))

    def address(name: str) -> str:
        status = running(cluster)[name]["status"]
        is_running = any("running" in container["state"] for container in status.get("containerStatuses", ()))
        return status.get("podIP", "") if is_running else ""

    ip = wait_for("the server's pod", lambda: address("cni-server"), 240)
    assert ip.startswith("10.250.")
    cluster_ip = api.get("/api/v1/namespaces/chat/services/cni-server")["spec"]["clusterIP"]
    urls = f"http://{ip}:8080/ http://{cluster_ip}/ http://{cluster.node('node-2').ip}:{HOST_PORT}/"
    api.create(pod("cni-client", "node-1", ["python3", "-c", CALL], env=[{"name": "URLS", "value": urls}]))
    wait_for("the client's pod", lambda: address("cni-client"), 240)


def paths(cluster: Cluster, target: str) -> list[dict[str, Any]]:
    """The client's connections that were seen from one end to the other."""
    done = cluster.cli("trace", target, "-n", "chat", "--timeout", "10s", "-o", "json")
    of_client = [r for r in rows(done.out) if r["kind"] == "path" and r["flow"]["client"]["pod"] == "cni-client"]
    ends = [(path, path["hops"][0]["pod"], path["hops"][-1]["pod"]) for path in of_client if path["hops"]]
    # Probes are attached on one node after the other: of the first connections only a part of the way was seen.
    whole = [path for path, first, last in ends if (first, last) == ("cni-client", "cni-server")]
    assert whole, done.out + done.err
    for path in whole:
        assert (path["verdict"], path["backend"]["pod"]) == ("forwarded", "cni-server"), path
    return whole


def places(path: dict[str, Any]) -> list[str]:
    """Where the packet was seen, as "node device point" or "pod device point"; names of veth and ifb devices are hashes."""
    seen = []
    for hop in path["hops"]:
        device = next((kind for kind in ("veth", "bwp") if hop["device"].startswith(kind)), hop["device"])
        seen.append(f"{hop['pod'] or hop['node']} {device} {hop['point']}")
    return seen


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
    for path in paths(deployed, "pod/cni-server"):
        assert places(path) == WAYS[backend]
        tunnels = [hop["tunnel"] for hop in path["hops"] if hop["tunnel"]]
        assert len(tunnels) == (2 if backend == "vxlan" else 0)
        assert all("172.31.0.2" in tunnel and "172.31.0.3:8472" in tunnel for tunnel in tunnels)
        if path["flow"]["service"] is not None:
            assert path["nat"]["service_chain"].startswith("KUBE-SVC-")
        else:
            assert path["nat"] is None


def test_a_host_port_is_portmaps_translation_and_flannels_masquerade(deployed: Cluster, flannel: Flannel) -> None:
    for path in paths(deployed, f"{deployed.node('node-2').ip}:{HOST_PORT}"):
        assert places(path) == WAYS["host-gw"]  # an address of the node is never in the tunnel
        assert path["nat"]["endpoint_chain"].startswith("CNI-DN-")
        assert path["nat"]["masqueraded"]
        assert path["nat"]["before"] == f"{deployed.node('node-2').ip}:{HOST_PORT}"


def test_a_policy_that_drops_is_named_behind_a_bridge(deployed: Cluster, flannel: Flannel) -> None:
    api = deployed.api()
    metadata = {"name": "nobody-calls-the-server", "namespace": "chat"}
    spec = {"podSelector": {"matchLabels": {LABEL: "cni-server"}}, "policyTypes": ["Ingress"]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
    with enforcing(deployed):
        api.create(policy)
        try:
            wait_for("its rules", lambda: metadata["name"] in deployed.node("node-2").run("iptables-save"), 240)
            done = deployed.cli("drops", "pod/cni-server", "-n", "chat", "--timeout", "10s", "-o", "json")
        finally:
            api.delete(f"/apis/networking.k8s.io/v1/namespaces/chat/networkpolicies/{metadata['name']}")
    drops = [r["drop"] for r in rows(done.out) if r["kind"] == "drop" and r["severity"] == "error"]
    assert drops, done.out + done.err
    for drop in drops:
        assert (drop["check"], drop["policies"], drop["node"]) == (
            "policy-drop",
            ["chat/nobody-calls-the-server"],
            "node-2",
        )
