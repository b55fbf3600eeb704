"""The always-on mode on a real cluster: scraped through the API server, named by what the cluster is now, removed whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kubectl_genainet.kube.agents.forward import find_agents
from kubectl_genainet.kube.agents.portforward import dial_pod
from kubectl_genainet.kube.client import connect
from tests.cluster.harness.cluster import Cluster, everything
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
Labels = dict[str, str]


def may(cluster: Cluster, verb: str, group: str, resource: str, namespace: str = "") -> bool:
    """Whether the agents' service account may."""
    attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
    spec = {"user": "system:serviceaccount:genainet:genainet-agent", "resourceAttributes": attributes}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return bool(cluster.api().request("POST", ACCESS, review)["status"]["allowed"])


@pytest.fixture(scope="module")
def counting(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with agents that count."""
    done = cluster.deploy("--metrics")
    assert done.status == 0, done.err
    yield cluster
    cluster.cli("undeploy")


def scrape(cluster: Cluster) -> list[tuple[str, Labels, float]]:
    """The samples of all agents, by way of the API server; each has the label `node` besides."""
    client = connect(kubeconfig=cluster.kubeconfig)
    found = []
    for agent in find_agents(client):
        with dial_pod(client, agent.namespace, agent.pod, 9913) as sock:
            sock.settimeout(15)
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda s=sock: s.recv(65536), b""))  # type: ignore[misc]
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        text = (dechunked(body) if b"chunked" in head.lower() else body).decode()
        samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
        found += [(s.name, {**s.labels, "node": agent.node}, s.value) for s in samples]
    return found


def dechunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        whole, body = whole + rest[:length], rest[length + 2 :]
        if not length:
            break
    return whole


def value(cluster: Cluster, name: str, **labels: str) -> float:
    """The sum of the samples with these labels."""
    return sum(v for n, have, v in scrape(cluster) if n == name and labels.items() <= have.items())


def grows(cluster: Cluster, name: str, labels: dict[str, str], timeout: float = 120) -> float:
    """Waits until the sum has grown; gives by how much."""
    # An API server that has just started may refuse at first.
    (before,) = wait_for("a scrape", lambda: (value(cluster, name, **labels),), timeout, interval=1)
    return wait_for(f"{name}{labels}", lambda: value(cluster, name, **labels) - before, timeout, interval=1)


def test_every_agent_counts_and_knows_names(counting: Cluster) -> None:
    def counts() -> bool:
        up = [v for name, _, v in scrape(counting) if name == "genainet_session_up"]
        return bool(up) and set(up) == {1}

    wait_for("the sessions", counts, 150, interval=1)
    taken = [v for name, _, v in scrape(counting) if name == "genainet_identities_timestamp_seconds"]
    assert taken and all(abs(time.time() - seconds) < 90 for seconds in taken)
    assert counting.cli("status").status == 0


def test_dns_latency_is_a_histogram_by_workload_and_response_code(counting: Cluster) -> None:
    whose = {"namespace": "chat", "workload": "rag-app"}
    name = "genainet_dns_duration_seconds"
    for rcode in ("NOERROR", "NXDOMAIN"):
        assert grows(counting, f"{name}_count", {**whose, "rcode": rcode}) > 0
    wanted = {**whose, "rcode": "NOERROR"}.items()
    samples = [(n, have, v) for n, have, v in scrape(counting) if wanted <= have.items()]
    assert len({have["node"] for _, have, _ in samples}) == 1  # by the client's node
    buckets = sorted((float(have["le"]), v) for n, have, v in samples if n == f"{name}_bucket")
    counts = [v for _, v in buckets]
    assert counts == sorted(counts) and len(counts) == 15
    (total,) = [v for n, _, v in samples if n == f"{name}_sum"]
    assert 0 < total / counts[-1] < 5


def test_drops_are_counted_by_reason_hook_and_workload(counting: Cluster) -> None:
    if not counting.nodes:
        pytest.skip("puts a packet rule on a node: not on another's cluster")
    selector = "labelSelector=app.kubernetes.io/name=my-llama-finetuned"
    pods = counting.api().get(f"/api/v1/namespaces/chat/pods?{selector}")["items"]
    backend = next(p["status"]["podIP"] for p in pods if p["spec"]["nodeName"] == "node-2")
    node = counting.node("node-1")
    rule = ["FORWARD", "-d", backend, "-p", "tcp", "--dport", "8080", "-j", "DROP"]
    node.run("iptables", "-I", *rule)
    try:
        # On the node itself the drop is the destination's: a pod of the other node, known by its address.
        what = {"reason": "NETFILTER_DROP", "hook": "FORWARD", "node": "node-1"}
        whose = {"namespace": "chat", "workload": "my-llama-finetuned"}
        assert grows(counting, "genainet_drops_total", what | whose) > 0
    finally:
        node.run("iptables", "-D", *rule)


def test_connections_are_counted_by_service_and_backend(counting: Cluster) -> None:
    assert grows(counting, "genainet_connections_total", {"service": "chat/my-llama-svc"}) > 0
    pods = counting.api().get("/api/v1/namespaces/chat/pods?labelSelector=app.kubernetes.io/name=my-llama-finetuned")
    backends = {f"{p['status']['podIP']}:8080": p["spec"]["nodeName"] for p in pods["items"]}

    def counted() -> set[tuple[str, str]]:
        """(backend, node) of those that are there; of backends that are gone the count stays."""
        labels = [have for name, have, _ in scrape(counting) if name == "genainet_connections_total"]
        pairs = {(have["backend"], have["node"]) for have in labels if have["service"] == "chat/my-llama-svc"}
        return {pair for pair in pairs if pair[0] in backends}

    wait_for("both backends", lambda: len(counted()) >= len(backends), 120, interval=1)  # chosen at random
    assert counted() == set(backends.items())  # each is accepted on its own node


def client_of_dns(name: str, image: str) -> dict[str, Any]:
    """A Deployment that asks for a name all the time."""
    loop = (
        "import socket, time\nwhile True:\n  socket.getaddrinfo('my-llama-svc', 80, socket.AF_INET)\n  time.sleep(0.3)"
    )
    container = {"name": "c", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["python3", "-c", loop]}
    labels = {"app.kubernetes.io/name": name}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "chat"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }


def test_a_pod_made_after_deploy_is_named_and_so_after_a_restart_of_the_api_server(counting: Cluster) -> None:
    api = counting.api()
    try:
        for name in ("latecomer", "later-still"):
            api.apply([client_of_dns(name, counting.image)])
            assert grows(counting, "genainet_dns_duration_seconds_count", {"namespace": "chat", "workload": name}) > 0
            if counting.plane is not None:
                counting.plane.daemons["kube-apiserver"].kill()
                counting.plane.daemons["kube-apiserver"].start()
                counting.plane.wait_ready()
    finally:
        for name in ("latecomer", "later-still"):
            api.delete(f"/apis/apps/v1/namespaces/chat/deployments/{name}")


def test_what_follows_names_is_small_and_nobody(counting: Cluster) -> None:
    if not counting.nodes:
        pytest.skip("looks at the processes of a node: not on another's cluster")
    processes = counting.node("node-1").run("ps", "-e", "-o", "rss=,uid=,args=").splitlines()
    (names,) = [line.split(maxsplit=2) for line in processes if "kubectl_genainet.kube.names" in line]
    assert names[1] == "65532" and int(names[0]) < 60_000  # KiB; 29,500 measured


def test_only_with_metrics_the_service_account_may_list_and_only_three_kinds(counting: Cluster) -> None:
    for group, resource in (("", "pods"), ("", "services"), ("discovery.k8s.io", "endpointslices")):
        assert may(counting, "list", group, resource) and may(counting, "watch", group, resource)
    refused = [
        ("list", "", "secrets"),
        ("get", "", "secrets"),
        ("list", "", "configmaps"),
        ("list", "", "nodes"),
        ("get", "", "pods"),
        ("create", "", "pods"),
        ("create", "", "pods/exec"),
        ("get", "", "nodes/proxy"),
        ("patch", "", "pods"),
        ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
    ]
    assert [r for r in refused if may(counting, *r) or may(counting, *r, "genainet")] == []


def test_metrics_can_be_turned_off_and_undeploy_removes_what_they_brought(counting: Cluster) -> None:
    brought = {
        "services genainet/genainet-metrics",
        "networkpolicies genainet/genainet-metrics",
        "networkpolicies genainet/genainet-names",
        "clusterrolebindings /genainet-names",
        "clusterroles /genainet-names",
    }
    assert brought <= everything(counting.api())
    done = counting.deploy()
    assert done.status == 0, done.err
    assert not brought & everything(counting.api())
    assert not may(counting, "list", "", "pods")
    assert counting.deploy("--metrics").status == 0
    done = counting.cli("undeploy")
    assert done.status == 0 and "warning" not in done.err, done.err
    assert {name for name in everything(counting.api()) if "genainet" in name} == set()
