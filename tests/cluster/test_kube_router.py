"""kube-router, a real enforcer on iptables and ipset, is right about random policies: explain says what it does, and
drops and trace name the policy behind what it takes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness.cluster import Cluster, rows
from tests.cluster.harness.kube_router import enforcing
from tests.cluster.harness.node import KubeNode
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

POLICIES = "/apis/networking.k8s.io/v1/namespaces/chat/networkpolicies"
NAME = "app.kubernetes.io/name"
ROUNDS = 14
# Connects to each ADDRESS in turn and prints whether it came about. A rejected one fails at once.
CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    try:
        socket.create_connection((address, 8080), 2).close()
        print("open")
    except OSError:
        print("closed")
"""


@pytest.fixture(scope="module")
def enforced(deployed: Cluster) -> Iterator[Cluster]:
    """The cluster with kube-router's policy controller on each node."""
    if deployed.plane is None:
        pytest.skip("runs an enforcer on the nodes: not on another's cluster")
    with enforcing(deployed):
        yield deployed


def pods(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """The running pods of the application by name."""
    items = cluster.api().get("/api/v1/namespaces/chat/pods")["items"]
    return {p["metadata"]["name"]: p for p in items if not p["metadata"].get("deletionTimestamp")}


def peer(rng: random.Random, ips: list[str]) -> dict[str, Any]:
    match rng.randrange(4):
        case 0:
            return {"podSelector": selector(rng)}
        case 1:
            return {"namespaceSelector": rng.choice([{}, {"matchLabels": {"kubernetes.io/metadata.name": "chat"}}])}
        case 2:
            names = ["chat", "genainet", "kube-system"]
            in_namespace = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": rng.sample(names, 2)}
            return {"namespaceSelector": {"matchExpressions": [in_namespace]}, "podSelector": selector(rng)}
        case _:
            return {"ipBlock": {"cidr": "10.244.0.0/16", "except": [f"{ip}/32" for ip in rng.sample(ips, 2)]}}


def selector(rng: random.Random) -> dict[str, Any]:
    names = ["chatbot-ui", "rag-app", "my-llama-finetuned"]
    return rng.choice(
        [
            {},
            {"matchLabels": {NAME: rng.choice(names)}},
            {"matchExpressions": [{"key": NAME, "operator": "NotIn", "values": [rng.choice(names)]}]},
            {"matchExpressions": [{"key": NAME, "operator": "In", "values": rng.sample(names, 2)}]},
        ]
    )


def ports(rng: random.Random) -> dict[str, Any]:
    choices: list[list[dict[str, Any]]] = [
        [],
        [{"protocol": "TCP", "port": 8080}],
        [{"protocol": "TCP", "port": 9999}],
        [{"protocol": "UDP", "port": 8080}],
        [{"protocol": "TCP", "port": 8000, "endPort": 8100}],
        [{"protocol": "TCP", "port": "http"}],
    ]
    chosen = rng.choice(choices)
    return {"ports": chosen} if chosen else {}


def policy(rng: random.Random, name: str, ips: list[str]) -> dict[str, Any]:
    spec: dict[str, Any] = {"podSelector": selector(rng), "policyTypes": []}
    for kind, key, side in (("Ingress", "ingress", "from"), ("Egress", "egress", "to")):
        if rng.random() < 0.6:
            spec["policyTypes"].append(kind)
            spec[key] = [
                {**({side: [peer(rng, ips)]} if rng.random() < 0.8 else {}), **ports(rng)}
                for _ in range(rng.randrange(3))
            ]
    metadata = {"name": name, "namespace": "chat"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def marker(name: str) -> dict[str, Any]:
    """A policy of no pod's, made last: where its name is in a node's rules, those before it are too."""
    spec = {"podSelector": {"matchLabels": {"made": "last"}}, "ingress": [{"from": [{"podSelector": {}}]}]}
    metadata = {"name": name, "namespace": "chat"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def namespace_of(node: KubeNode, ip: str) -> str:
    """The file of a pod's network namespace on its node."""
    script = f'for f in /run/netns/cni-*; do nsenter --net=$f ip -br address | grep -q " {ip}/" && echo $f; done; true'
    return node.run("bash", "-c", script).split()[0]


def connects(cluster: Cluster, client: dict[str, Any], addresses: list[str]) -> list[bool]:
    """Whether connections from a pod to port 8080 of each address come about; the kernel's own answer."""
    node = cluster.node(client["spec"]["nodeName"])
    inside = namespace_of(node, client["status"]["podIP"])
    return [
        word == "open" for word in node.run("nsenter", f"--net={inside}", "python3", "-c", CONNECT, *addresses).split()
    ]


def test_explain_says_what_kube_router_does(enforced: Cluster, tmp_path: Path) -> None:
    api, found = enforced.api(), pods(enforced)
    ips = [p["status"]["podIP"] for p in found.values()]
    clients = [name for name in found if name.startswith(("chatbot-ui", "rag-app"))]
    servers = [name for name in found if name.startswith("my-llama-finetuned")]
    flows = [(client, server) for client in [*clients, servers[0]] for server in servers if client != server]
    lines = tmp_path / "flows"
    lines.write_text("".join(f"pod/chat/{c} pod/chat/{s}:8080\n" for c, s in flows))
    wrong, seen = [], set()
    for number in range(ROUNDS):
        rng = random.Random(number)
        made = [policy(rng, f"random-{number}-{n}", ips) for n in range(rng.randrange(1, 4))]
        made.append(marker(f"marker-{number}"))
        for one in made:
            api.create(one)
        for node in enforced.nodes:
            wait_for(
                f"kube-router on {node.name}",
                lambda node=node, number=number: f"marker-{number} " in node.run("iptables-save"),  # type: ignore[misc]
                240,
            )
        did = [
            reached
            for client in dict.fromkeys(c for c, _ in flows)
            for reached in connects(
                enforced, found[client], [found[s]["status"]["podIP"] for c, s in flows if c == client]
            )
        ]
        done = enforced.cli("explain", "--flows", str(lines), "--enforcer", "kube-router", "-o", "json")
        said = [answer["verdict"] for answer in rows(done.out)]
        for flow, reached, verdict in zip(flows, did, said, strict=True):
            if verdict != ("allow" if reached else "deny"):
                wrong.append((flow, reached, verdict, json.dumps([o["spec"] for o in made])))
        seen |= set(did)
        for one in made:
            api.delete(f"{POLICIES}/{one['metadata']['name']}")
    assert not wrong, "\n".join(map(str, wrong))
    assert seen == {True, False}


@pytest.fixture
def isolated(enforced: Cluster) -> Iterator[Cluster]:
    """Nobody may call the model."""
    model = {"matchLabels": {NAME: "my-llama-finetuned"}}
    spec = {"podSelector": model, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}]}]}
    metadata = {"name": "nobody-calls-the-model", "namespace": "chat"}
    made = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}
    enforced.api().create(made)
    try:
        for node in enforced.nodes:
            wait_for("its rules", lambda node=node: metadata["name"] in node.run("iptables-save"), 240)  # type: ignore[misc]
        yield enforced
    finally:
        enforced.api().delete(f"{POLICIES}/{metadata['name']}")


@pytest.mark.parametrize("verb", ["drops", "trace"])
def test_what_kube_router_takes_is_named_by_its_policy(isolated: Cluster, verb: str) -> None:
    done = isolated.cli(verb, "svc/my-llama-svc", "-n", "chat", "--timeout", "10s", "-o", "json")
    assert done.status == 1, done.out + done.err
    if verb == "drops":
        drops = [r["drop"] for r in rows(done.out) if r["kind"] == "drop" and r["severity"] == "error"]
    else:
        drops = [r["drop"] for r in rows(done.out) if r["kind"] == "path" and r["drop"]]
    assert drops
    for drop in drops:
        assert (drop["check"], drop["policies"]) == ("policy-drop", ["chat/nobody-calls-the-model"]), drop
        assert "KUBE-POD-FW-" in drop["rule"]
