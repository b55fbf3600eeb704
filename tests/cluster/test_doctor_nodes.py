"""`doctor` on a real cluster with agents: what only the nodes know, found where it is, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from kubectl_genainet.doctor.families.dns.coredns import SLOW_NS
from kubectl_genainet.doctor.families.dns.coredns_cpu import OFTEN
from tests.cluster.harness.cluster import Cluster, rolled_out
from tests.cluster.harness.image import AGENT
from tests.cluster.harness.pair import listens
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

NAME = "app.kubernetes.io/name"
DNS_IP = "10.96.0.10"
# Each socket asks as fast as it is answered, for a name that no cache has: CoreDNS has to ask its own name server each time.
CLIENT = f"""
import itertools, socket, struct, threading
numbers = itertools.count()
def ask():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(5)
        for n in numbers:
            name = b"".join(bytes([len(p)]) + p for p in (f"no-such-host-{{n}}".encode(), b"example", b"com")) + bytes(1)
            asking.sendto(struct.pack("!6H", n & 0xffff, 0x100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1), ("{DNS_IP}", 53))
            try: asking.recv(512)
            except OSError: pass
for _ in range(8):
    threading.Thread(target=ask).start()
"""


def deployment(namespace: str, name: str, labels: dict[str, str], code: list[str], **more: Any) -> dict[str, Any]:
    container = {"name": name, "image": AGENT, "imagePullPolicy": "Never", "command": code, **more}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def service(namespace: str, name: str, selector: dict[str, str], port: dict[str, Any], **spec: Any) -> dict[str, Any]:
    spec |= {"selector": selector, "ports": [port]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


LATE = "dns-latency"
COREDNS = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
LIMIT = {"requests": {"cpu": "30m"}, "limits": {"cpu": "30m"}}  # 3 ms in a period of 100
FAULTY = [
    deployment("chat", "crawler", {NAME: "crawler"}, ["python3", "-c", CLIENT]),
    deployment("chat", "ollama", {NAME: "ollama"}, ["python3", "-m", "http.server", "11434", "--bind", "127.0.0.1"]),
    service("chat", "ollama", {NAME: "ollama"}, {"name": "http", "port": 80, "targetPort": 11434}),
    service("chat", "old-llama", {NAME: "my-llama-finetuned"}, {"name": "http", "port": 80, "targetPort": 8000}),
]


def doctor(cluster: Cluster, *argv: str) -> list[dict[str, Any]]:
    for _ in range(3):
        done = cluster.cli("doctor", "-A", "-o", "json", *argv)
        assert done.status in (0, 1), done.err
        if "has sent nothing" not in done.err:  # an overloaded machine: said, and no more than that
            break
    assert "Traceback" not in done.err and "warning" not in done.err, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def complaints(records: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    found = [r for r in records if r["kind"] == "finding" and r["severity"] != "info"]
    return {(r["check"], f"{r['object']['kind']}/{r['object']['name']}"): r["severity"] for r in found}


NODE_CHECKS = (
    "pod-netns-mismatch",
    "pod-device-down",
    "pod-route-missing",
    "node-forwarding-off",
    "conntrack-fill",
    "mtu-mismatch",
    "mtu-nodes-differ",
    "reverse-path",
    "listen-queue",
    "service-listener",
    "listen-loopback",
    "kube-proxy-drift",
    "rule-of-nobody",
    "icmp-blocked",
    "kube-proxy-latency",
)


def test_what_nodes_know_is_checked_and_sound(own: Cluster) -> None:
    records = doctor(own, "--measure", "4s")
    outcomes = {r["check"]: (r["outcome"], r["reasons"]) for r in records if r["kind"] == "check"}
    assert {name: outcomes[name] for name in NODE_CHECKS} == dict.fromkeys(NODE_CHECKS, ("passed", []))
    # rag-app asks. A busy machine's answers are slow, and that is said then.
    slow = [e["value"] for r in records if r["kind"] == "finding" and r["check"] == LATE for e in r["evidence"]]
    assert outcomes[LATE] == ("found" if slow else "passed", []) and all(p99 >= SLOW_NS for p99 in slow)


def answers(cluster: Cluster, namespace: str, name: str, port: int) -> bool:
    """Whether the pod of a Deployment listens: its program has begun by then, which its readiness does not say."""
    pods = cluster.api().get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    (pod,) = [p for p in pods if p["metadata"]["name"].startswith(f"{name}-") and "podIP" in p["status"]]
    return listens(cluster.node(pod["spec"]["nodeName"]), pod["status"]["podIP"], port)


def coredns_pods(cluster: Cluster) -> list[dict[str, Any]]:
    """Also one that ends."""
    return list(cluster.api().get("/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app=kube-dns")["items"])


def coredns_cpu_stat(cluster: Cluster) -> dict[str, int]:
    """What the kernel counts in the cgroup of CoreDNS's container."""
    (pod,) = coredns_pods(cluster)
    (status,) = pod["status"]["containerStatuses"]
    container = status["containerID"].rpartition("//")[2]
    script = 'find /sys/fs/cgroup -path "*/$0/cpu.stat" -exec cat {} +'
    lines = cluster.node(pod["spec"]["nodeName"]).run("sh", "-c", script, container).splitlines()
    return {name: int(value) for name, value in map(str.split, lines)}


def stops_as_counted(evidence: dict[str, Any], before: dict[str, int], after: dict[str, int]) -> None:
    """What doctor says of CoreDNS's stops lies between what the kernel counted before and after it, and queries cause them:
    they go on long after CoreDNS's start."""
    throttled, periods = map(int, re.findall(r"\d+", evidence["statement"])[:2])
    assert evidence["value"] == throttled
    assert before["nr_throttled"] <= throttled <= after["nr_throttled"]
    assert before["nr_periods"] <= periods <= after["nr_periods"]
    meanwhile = {name: after[name] - before[name] for name in before}
    assert meanwhile["nr_throttled"] >= OFTEN * meanwhile["nr_periods"] > 0, meanwhile


@pytest.fixture
def faulty(own: Cluster) -> Iterator[Cluster]:
    api = own.api()
    api.apply(FAULTY)
    sound = api.get(COREDNS)
    (coredns,) = containers = sound["spec"]["template"]["spec"]["containers"]
    api.patch(COREDNS, {"spec": {"template": {"spec": {"containers": [{**coredns, "resources": LIMIT}]}}}})
    kinds = {"Deployment": "/apis/apps/v1", "Service": "/api/v1"}

    def path(obj: dict[str, Any]) -> str:
        meta = obj["metadata"]
        return f"{kinds[obj['kind']]}/namespaces/{meta['namespace']}/{obj['kind'].lower()}s/{meta['name']}"

    def running() -> bool:
        deployments = (COREDNS, *(path(obj) for obj in FAULTY if obj["kind"] == "Deployment"))
        return all(rolled_out(api.get(deployment)) for deployment in deployments) and len(coredns_pods(own)) == 1

    try:
        wait_for("the faulty workloads", running, 300)
        own.wait_for_rules()
        wait_for("ollama on port 11434", partial(answers, own, "chat", "ollama", 11434))
        yield own
    finally:
        for obj in FAULTY:
            api.delete(path(obj))
        api.patch(COREDNS, {"spec": {"template": {"spec": {"containers": containers}}}})
        wait_for("the DNS server as it was", lambda: rolled_out(api.get(COREDNS)), 300)


ASKS_IN_VAIN = "Deployment/rag-app"  # for a Service that is not there, always: the tests of `dns` want it
BY_OBJECTS = {"service-target-port", "readiness-probe", "readiness-probe-model", "policy-none", "coredns-replicas"}


def test_faults_that_only_nodes_know_of_are_found_as_observed(faulty: Cluster) -> None:
    before = coredns_cpu_stat(faulty)
    records = doctor(faulty, "--measure", "8s")
    after = coredns_cpu_stat(faulty)
    left_out = BY_OBJECTS | {LATE}  # how late a server answers that is stopped is the machine's matter
    others = {k: v for k, v in complaints(records).items() if k[0] not in left_out and k[1] != ASKS_IN_VAIN}
    assert others == {
        ("service-listener", "Service/old-llama"): "error",
        ("listen-loopback", "Service/ollama"): "error",
        ("coredns-cpu-limit", "Deployment/coredns"): "error",
        ("dns-nxdomain", "Deployment/crawler"): "warning",
    }
    findings = [r for r in records if r["kind"] == "finding" and r["object"]["name"] != "rag-app"]
    told = {r["check"]: [e for e in r["evidence"] if e["node"]] for r in findings}
    assert {e["certainty"] for found in told.values() for e in found} == {"observed"}
    assert {(e["node"], e["statement"]) for e in told["service-listener"]} == {
        ("node-1", "listens on TCP port 8080"),
        ("node-2", "listens on TCP port 8080"),
    }
    assert told["listen-loopback"][0]["statement"] == "listens on port 11434 of 127.0.0.1 only"
    stopped = told["coredns-cpu-limit"][0]
    assert stopped["field"] == "cpu.stat[nr_throttled]"
    stops_as_counted(stopped, before, after)
    assert told["dns-nxdomain"][0]["value"] >= 20
    fact = next(r["value"] for r in records if r["kind"] == "fact" and r["name"] == "DNS measured")
    queries, seconds = map(int, re.fullmatch(r"(\d+) queries of 2 workloads in (\d+) s", fact).groups())  # type: ignore[union-attr]
    assert queries >= told["dns-nxdomain"][0]["value"] and seconds >= 8  # of the node that watched longest
