"""`doctor` on a real cluster with agents: what only the nodes know, found where it is, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.cluster.harness.cluster import Cluster, rolled_out
from tests.cluster.harness.image import AGENT
from tests.cluster.harness.pair import listens
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

NAME = "app.kubernetes.io/name"
DNS_IP = "10.96.0.10"
# Answers every query with NXDOMAIN, and is busy beside that: the limit stops it in most periods.
RESOLVER = """
import socket, threading
def burn():
    while True: pass
threading.Thread(target=burn, daemon=True).start()
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    query, client = server.recvfrom(512)
    server.sendto(query[:2] + bytes([0x81, 0x83]) + query[4:], client)
"""
CLIENT = f"""
import itertools, socket, struct, time
for n in itertools.count():
    name = b"".join(bytes([len(p)]) + p for p in (f"no-such-host-{{n}}".encode(), b"example", b"com")) + bytes(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(2)
        asking.sendto(struct.pack("!6H", n & 0xffff, 0x100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1), ("{DNS_IP}", 53))
        try: asking.recv(512)
        except OSError: pass
    time.sleep(0.1)
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


COREDNS = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
LIMITED = {
    "name": "coredns",
    "image": AGENT,
    "imagePullPolicy": "Never",
    "command": ["python3", "-c", RESOLVER],
    "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}],
    "resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "200m"}},
}
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
    assert outcomes["dns-latency"] == ("passed", [])  # rag-app asks


def answers(cluster: Cluster, namespace: str, name: str, port: int) -> bool:
    """Whether the pod of a Deployment listens: its program has begun by then, which its readiness does not say."""
    pods = cluster.api().get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    (pod,) = [p for p in pods if p["metadata"]["name"].startswith(f"{name}-") and "podIP" in p["status"]]
    return listens(cluster.node(pod["spec"]["nodeName"]), pod["status"]["podIP"], port)


@pytest.fixture
def faulty(own: Cluster) -> Iterator[Cluster]:
    api = own.api()
    api.apply(FAULTY)
    sound = api.get(COREDNS)
    api.patch(COREDNS, {"spec": {"template": {"spec": {"containers": [LIMITED]}}}})
    kinds = {"Deployment": "/apis/apps/v1", "Service": "/api/v1"}

    def path(obj: dict[str, Any]) -> str:
        meta = obj["metadata"]
        return f"{kinds[obj['kind']]}/namespaces/{meta['namespace']}/{obj['kind'].lower()}s/{meta['name']}"

    def running() -> bool:
        return all(rolled_out(api.get(p)) for p in (COREDNS, *(path(o) for o in FAULTY if o["kind"] == "Deployment")))

    try:
        wait_for("the faulty workloads", running, 300)
        own.wait_for_rules()
        for namespace, name, port in (("kube-system", "coredns", 53), ("chat", "ollama", 11434)):
            wait_for(f"{name} on port {port}", partial(answers, own, namespace, name, port))
        yield own
    finally:
        for obj in FAULTY:
            api.delete(path(obj))
        containers = sound["spec"]["template"]["spec"]["containers"]
        api.patch(COREDNS, {"spec": {"template": {"spec": {"containers": containers}}}})
        wait_for("the DNS server as it was", lambda: rolled_out(api.get(COREDNS)), 300)


ASKS_IN_VAIN = "Deployment/rag-app"  # for a Service that is not there, always: the tests of `dns` want it
BY_OBJECTS = {"service-target-port", "readiness-probe", "readiness-probe-model", "policy-none", "coredns-replicas"}


def test_faults_that_only_nodes_know_of_are_found_as_observed(faulty: Cluster) -> None:
    records = doctor(faulty, "--measure", "8s")
    others = {k: v for k, v in complaints(records).items() if k[0] not in BY_OBJECTS and k[1] != ASKS_IN_VAIN}
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
    assert stopped["field"] == "cpu.stat[nr_throttled]" and stopped["value"] > 0
    assert told["dns-nxdomain"][0]["value"] >= 20
    fact = next(r["value"] for r in records if r["kind"] == "fact" and r["name"] == "DNS measured")
    assert "of 2 workloads in 8 s" in fact
