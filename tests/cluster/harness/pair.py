"""A server on node-2 and a client on node-1 that calls it, for the networks that the tests give to pods."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from tests.cluster.harness.cluster import Cluster, Done, Watching, rows
from tests.cluster.harness.image import AGENT
from tests.cluster.harness.node import KubeNode
from tests.cluster.harness.processes import wait_for

LABEL = "app.kubernetes.io/name"
INGRESS, EGRESS = "kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth"
BANDWIDTH = {INGRESS: "20M", EGRESS: "10M"}  # which the bandwidth plugin reads, where it is in the chain
# Calls each address on connections of their own.
_CALL = """
import os, time, urllib.request
while True:
    for url in os.environ["URLS"].split():
        try:
            urllib.request.urlopen(url, timeout=2).read()
        except OSError as error:
            print(url, error, flush=True)
    time.sleep(0.2)
"""
_SERVE = ["python3", "-m", "http.server", "8080", "--directory", "/tmp"]
_LISTENS = {
    "tcpSocket": {"port": 8080},
    "periodSeconds": 1,
    "failureThreshold": 240,
}  # asks until it does, and not again
_SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "cni-server", "namespace": "chat"},
    "spec": {"selector": {LABEL: "cni-server"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
}


def _pod(name: str, node: str, command: list[str], **container: Any) -> dict[str, Any]:
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [
            {"name": name, "image": AGENT, "imagePullPolicy": "IfNotPresent", "command": command, **container}
        ],
    }
    metadata = {"name": name, "namespace": "chat", "labels": {LABEL: name}, "annotations": BANDWIDTH}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def running(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """The pods by name, as the API has them."""
    items = cluster.api().get("/api/v1/namespaces/chat/pods")["items"]
    return {item["metadata"]["name"]: item for item in items if item["metadata"]["name"].startswith("cni-")}


def start_pair(cluster: Cluster, network: str, urls: Sequence[str] = (), **server: Any) -> None:
    """cni-server and its Service, and cni-client, which calls the server's address, the Service and `urls`. Both pods get
    addresses that begin with `network`; `server` are fields of the server's container."""
    api = cluster.api()
    api.create(_SERVICE)
    ip = _start(cluster, _pod("cni-server", "node-2", _SERVE, startupProbe=_LISTENS, **server))
    cluster_ip = api.get("/api/v1/namespaces/chat/services/cni-server")["spec"]["clusterIP"]
    client = start_client(cluster, "cni-client", "node-1", [f"http://{ip}:8080/", f"http://{cluster_ip}/", *urls])
    assert ip.startswith(network) and client.startswith(network), (ip, client)


def start_client(cluster: Cluster, name: str, node: str, urls: Sequence[str]) -> str:
    """A pod on a node that calls `urls` all the time; gives its address once it runs."""
    called = {"name": "URLS", "value": " ".join(urls)}
    return _start(cluster, _pod(name, node, ["python3", "-c", _CALL], env=[called]))


def _start(cluster: Cluster, pod: dict[str, Any]) -> str:
    cluster.api().create(pod)
    name = pod["metadata"]["name"]

    def address() -> str:
        status = running(cluster)[name]["status"]
        is_ready = any(container["ready"] for container in status.get("containerStatuses", ()))
        return str(status.get("podIP", "")) if is_ready else ""

    return wait_for(f"the pod {name}", address, 240)


def end_pod(cluster: Cluster, name: str) -> None:
    cluster.api().delete(f"/api/v1/namespaces/chat/pods/{name}")
    wait_for("its end", lambda: name not in running(cluster), 240)


def end_pair(cluster: Cluster) -> None:
    for path in ("pods/cni-client", "pods/cni-server", "services/cni-server"):
        cluster.api().delete(f"/api/v1/namespaces/chat/{path}")
    wait_for("their end", lambda: not running(cluster), 240)


def paths(done: Done) -> list[dict[str, Any]]:
    """The client's connections that `trace -o json` printed."""
    return _of_client(done.out)


def _of_client(text: str) -> list[dict[str, Any]]:
    return [r for r in rows(text) if r["kind"] == "path" and r["flow"]["client"]["pod"] == "cni-client"]


def traced(cluster: Cluster, target: str, least: int = 4) -> Done:
    """A trace of a target in the namespace `chat`, ended once all nodes have watched so many of the client's connections."""
    with Watching(cluster, ("trace", target, "-n", "chat", "--timeout", "240s", "-o", "json")) as trace:
        trace.wait()
        least += len(_of_client(trace.printed()))  # what was seen until then may lack the part on another node
        wait_for("the client's calls", lambda: len(_of_client(trace.printed())) >= least)
        trace.interrupt()
        return trace.finish(120)


def whole_paths(done: Done) -> list[dict[str, Any]]:
    """Those that were seen from one end to the other: probes are attached on one node after the other."""
    ends = [(path, path["hops"][0]["pod"], path["hops"][-1]["pod"]) for path in paths(done) if path["hops"]]
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


@contextlib.contextmanager
def nobody_may_call(cluster: Cluster) -> Iterator[None]:
    """Nobody may call the server, as the policy chat/nobody-calls-the-server has it and an enforcer's rules on its node."""
    metadata = {"name": "nobody-calls-the-server", "namespace": "chat"}
    spec = {"podSelector": {"matchLabels": {LABEL: "cni-server"}}, "policyTypes": ["Ingress"]}
    made = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
    cluster.api().create(made)
    try:
        wait_for("its rules", lambda: metadata["name"] in cluster.node("node-2").run("iptables-save"), 240)
        yield
    finally:
        cluster.api().delete(f"/apis/networking.k8s.io/v1/namespaces/chat/networkpolicies/{metadata['name']}")


# What was open while rules came or went may have lost its entry: a late packet of it is INVALID, and kube-router drops that.
FORGOTTEN = "conntrack-invalid"


def failed(reported: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last word on each failure among rows of `drops`."""
    drops = {r["id"]: r for r in reported if r["kind"] == "drop" and r["severity"] == "error"}
    return [row for row in drops.values() if row["check"] != FORGOTTEN]


def taken_by_policy(cluster: Cluster, way: list[str]) -> int:
    """Packets that `drops` tells of while nobody may call; both verbs name the policy and kube-router's rule, `trace`
    the way that they had come until then."""
    target = ("pod/cni-server", "-n", "chat", "-o", "json", "--timeout")
    with cluster.watching(("trace", *target, "120s")) as done:
        drops = cluster.cli("drops", *target, "8s")
    (trace,) = done
    reported = failed(rows(drops.out))
    dropped = [path for path in paths(trace) if path["drop"] and path["drop"]["check"] != FORGOTTEN]
    assert reported and dropped, (drops, trace)
    for drop in (*(row["drop"] for row in reported), *(path["drop"] for path in dropped)):
        assert (drop["check"], drop["node"]) == ("policy-drop", "node-2"), drop
        assert drop["policies"] == ["chat/nobody-calls-the-server"]
        assert "KUBE-POD-FW-" in drop["rule"]
    assert way in [places(path) for path in dropped]
    return sum(row["packets"] for row in reported)


def namespace_of(node: KubeNode, ip: str) -> str:
    """The file of a pod's network namespace on its node."""
    script = f'for f in /run/netns/cni-*; do nsenter --net=$f ip -br address | grep -q " {ip}/" && echo $f; done; true'
    return node.run("bash", "-c", script).split()[0]


def listens(node: KubeNode, ip: str, port: int) -> bool:
    """Whether a pod of the node has a socket that does, with TCP or UDP."""
    sockets = node.run("nsenter", f"--net={namespace_of(node, ip)}", "ss", "-Hltun")
    return any(line.split()[4].endswith(f":{port}") for line in sockets.splitlines())


def host_device(node: KubeNode, ip: str) -> str:
    """The node's end of a pod's veth pair."""
    (inside,) = json.loads(node.run("nsenter", f"--net={namespace_of(node, ip)}", "ip", "-j", "link", "show", "eth0"))
    links = json.loads(node.run("ip", "-j", "link", "show"))
    return next(str(link["ifname"]) for link in links if link["ifindex"] == inside["link_index"])
