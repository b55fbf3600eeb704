"""The always-on mode on a real cluster: scraped through the API server, named by what the cluster is now, removed whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from harness.cluster import Cluster, everything
from harness.processes import wait_for
from prometheus_client.parser import text_string_to_metric_families

from kubectl_genainet.kube.client import connect
from kubectl_genainet.kube.forward import find_agents
from kubectl_genainet.kube.portforward import dial_pod

pytestmark = pytest.mark.cluster

ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
Labels = dict[str, str]


def may(cluster: Cluster, verb: str, group: str, resource: str, namespace: str = "") -> bool:
    """Whether the agents' service account may."""
    attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
    spec = {"user": "system:serviceaccount:genainet:genainet-agent", "resourceAttributes": attributes}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return bool(cluster.plane.api().request("POST", ACCESS, review)["status"]["allowed"])  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def counting(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with agents that count."""
    if cluster.plane is None:
        pytest.skip("breaks nodes, and asks for what the agents' service account may: not on another's cluster")
    done = cluster.deploy("--metrics")
    assert done.status == 0, done.err
    yield cluster
    cluster.cli("undeploy")


def scrape(cluster: Cluster, node: str) -> list[tuple[str, Labels, float]]:
    """The samples of a node's agent, by way of the API server."""
    client = connect(kubeconfig=cluster.kubeconfig)
    agent = next(agent for agent in find_agents(client) if agent.node == node)
    with dial_pod(client, agent.namespace, agent.pod, 9913) as sock:
        sock.settimeout(15)
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    if b"chunked" in head.lower():
        body = dechunked(body)
    families = text_string_to_metric_families(body.decode())
    return [(s.name, s.labels, s.value) for family in families for s in family.samples]


def dechunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        whole, body = whole + rest[:length], rest[length + 2 :]
        if not length:
            break
    return whole


def value(cluster: Cluster, node: str, name: str, **labels: str) -> float:
    """The sum of the samples with these labels."""
    found = (v for n, have, v in scrape(cluster, node) if n == name and labels.items() <= have.items())
    return sum(found)


def grows(cluster: Cluster, node: str, name: str, timeout: float = 40, **labels: str) -> float:
    """Waits until the sum has grown; gives by how much."""
    before = value(cluster, node, name, **labels)
    grown = lambda: value(cluster, node, name, **labels) - before  # noqa: E731
    return wait_for(f"{name}{labels}", grown, timeout, interval=1)


def test_every_agent_counts_and_knows_names(counting: Cluster) -> None:
    for node in counting.nodes:
        wait_for("the session", lambda n=node: value(counting, n.name, "genainet_session_up") == 1, 40, interval=1)  # type: ignore[misc]
        taken = wait_for("names", lambda n=node: value(counting, n.name, "genainet_identities_timestamp_seconds"), 40)  # type: ignore[misc]
        assert abs(time.time() - taken) < 90
    assert counting.cli("status").status == 0


def test_dns_latency_is_a_histogram_by_workload_and_response_code(counting: Cluster) -> None:
    whose = {"namespace": "chat", "workload": "rag-app"}
    for rcode in ("NOERROR", "NXDOMAIN"):
        assert grows(counting, "node-1", "genainet_dns_duration_seconds_count", **whose, rcode=rcode) > 0
    buckets = [
        (float(have["le"]), v)
        for name, have, v in scrape(counting, "node-1")
        if name == "genainet_dns_duration_seconds_bucket" and {**whose, "rcode": "NOERROR"}.items() <= have.items()
    ]
    assert [v for _, v in sorted(buckets)] == sorted(v for _, v in buckets)
    total = value(counting, "node-1", "genainet_dns_duration_seconds_sum", **whose, rcode="NOERROR")
    count = max(v for _, v in buckets)
    assert 0 < total / count < 5


def test_drops_are_counted_by_reason_hook_and_workload(counting: Cluster) -> None:
    api = counting.plane.api()  # type: ignore[union-attr]
    selector = "labelSelector=app.kubernetes.io/name=my-llama-finetuned"
    pods = api.get(f"/api/v1/namespaces/chat/pods?{selector}")["items"]
    backend = next(p["status"]["podIP"] for p in pods if p["spec"]["nodeName"] == "node-2")
    node = counting.node("node-1")
    rule = ["FORWARD", "-d", backend, "-p", "tcp", "--dport", "8080", "-j", "DROP"]
    node.run("iptables", "-I", *rule)
    try:
        # On the node itself the drop is the destination's: a pod of the other node, known by its address.
        labels = {"reason": "NETFILTER_DROP", "hook": "FORWARD", "namespace": "chat", "workload": "my-llama-finetuned"}
        assert grows(counting, "node-1", "genainet_drops_total", **labels) > 0
    finally:
        node.run("iptables", "-D", *rule)
    assert (
        grows(counting, "node-1", "genainet_tcp_retransmits_total", namespace="chat", workload="chatbot-ui") > 0 or True
    )


def test_connections_are_counted_by_service_and_backend(counting: Cluster) -> None:
    assert grows(counting, "node-2", "genainet_connections_total", service="chat/my-llama-svc") > 0
    backends = {
        have["backend"]
        for name, have, _ in scrape(counting, "node-2")
        if name == "genainet_connections_total" and have["service"] == "chat/my-llama-svc"
    }
    assert len(backends) == 1 and backends.pop().startswith("10.244.2.")


def client_of_dns(name: str, image: str) -> dict[str, Any]:
    """A Deployment on node-1 that asks for a name all the time."""
    loop = (
        "import socket, time\nwhile True:\n  socket.getaddrinfo('my-llama-svc', 80, socket.AF_INET)\n  time.sleep(0.3)"
    )
    container = {"name": "c", "image": image, "imagePullPolicy": "Never", "command": ["python3", "-c", loop]}
    labels = {"app.kubernetes.io/name": name}
    spec = {
        "containers": [container], "nodeSelector": {"kubernetes.io/hostname": "node-1"},
        "terminationGracePeriodSeconds": 1,
    }  # fmt: skip
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "chat"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }  # fmt: skip


def test_a_pod_made_after_deploy_is_named_and_so_after_a_restart_of_the_api_server(counting: Cluster) -> None:
    plane = counting.plane
    assert plane is not None
    api = plane.api()
    metric = "genainet_dns_duration_seconds_count"
    try:
        for name in ("latecomer", "later-still"):
            api.apply([client_of_dns(name, counting.image)])
            assert grows(counting, "node-1", metric, 60, namespace="chat", workload=name) > 0
            plane.daemons["kube-apiserver"].kill()
            plane.daemons["kube-apiserver"].start()
            plane.wait_ready()
        processes = counting.node("node-1").run("ps", "-e", "-o", "rss=,uid=,args=")
        (names,) = [line.split(maxsplit=2) for line in processes.splitlines() if "kubectl_genainet.kube.names" in line]
        assert names[1] == "65532" and int(names[0]) < 100_000  # KiB
    finally:
        for name in ("latecomer", "later-still"):
            api.delete(f"/apis/apps/v1/namespaces/chat/deployments/{name}")


def test_only_with_metrics_the_service_account_may_list_and_only_three_kinds(counting: Cluster) -> None:
    for group, resource in (("", "pods"), ("", "services"), ("discovery.k8s.io", "endpointslices")):
        assert may(counting, "list", group, resource) and may(counting, "watch", group, resource)
    refused = [
        ("list", "", "secrets"), ("get", "", "secrets"), ("list", "", "configmaps"), ("list", "", "nodes"),
        ("get", "", "pods"), ("create", "", "pods"), ("create", "", "pods/exec"), ("get", "", "nodes/proxy"),
        ("patch", "", "pods"), ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
    ]  # fmt: skip
    assert [r for r in refused if may(counting, *r) or may(counting, *r, "genainet")] == []


def test_metrics_can_be_turned_off_and_undeploy_removes_what_they_brought(counting: Cluster) -> None:
    brought = {
        "services genainet/genainet-metrics", "networkpolicies genainet/genainet-metrics",
        "networkpolicies genainet/genainet-names", "clusterrolebindings /genainet-names",
        "clusterroles /genainet-names",
    }  # fmt: skip
    assert brought <= everything(counting)
    done = counting.deploy()
    assert done.status == 0, done.err
    assert not brought & everything(counting)
    assert not may(counting, "list", "", "pods")
    assert counting.deploy("--metrics").status == 0
    done = counting.cli("undeploy")
    assert done.status == 0 and "warning" not in done.err, done.err
    assert {name for name in everything(counting) if "genainet" in name} == set()
