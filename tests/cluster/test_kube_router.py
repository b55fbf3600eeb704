"""kube-router, a real enforcer on iptables and ipset: explain says what it does about random policies, and drops and trace name
the policy behind what it takes. Its router is the pods' network: trace has the way over its bridges and BGP's routes, and its
translation of what leaves the cluster.

The application's pods were there before, with ptp; those that start here are on kube-router's bridge.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness.cluster import Cluster, Done, rows
from tests.cluster.harness.kube_router import BRIDGE, routing, taken_by_rules
from tests.cluster.harness.pair import (
    end_pair,
    namespace_of,
    nobody_may_call,
    paths,
    places,
    start_pair,
    taken_by_policy,
    traced,
    whole_paths,
)
from tests.cluster.harness.processes import Daemon, wait_for

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
    """The cluster with kube-router on each node, its policy controller and its router."""
    if deployed.plane is None:
        pytest.skip("runs an enforcer on the nodes: not on another's cluster")
    with routing(deployed):
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


OUTSIDE_PORT = 8089


@dataclass(frozen=True)
class Paired:
    """A cluster with a client on node-1 and a server on node-2, and a server outside of both nodes that the client calls."""

    cluster: Cluster
    outside: Daemon


@dataclass(frozen=True)
class Seen:
    """What `trace` said of the client's connections to the server and its Service, and of those to `outside`, which has no pod
    and is of no node; `callers` are the addresses that outside saw; `grown` is what bridges counted, "NODE rx" and "NODE tx"."""

    server: Done
    outside: Done
    callers: set[str]
    grown: dict[str, int]


def bridged(cluster: Cluster) -> dict[str, int]:
    """Packets that each node's bridge took from its pods, and gave to them."""
    counts: dict[str, int] = {}
    for node in cluster.nodes:
        (link,) = json.loads(node.run("ip", "-j", "-s", "link", "show", BRIDGE))
        counts |= {f"{node.name} {way}": int(link["stats64"][way]["packets"]) for way in ("rx", "tx")}
    return counts


@pytest.fixture(scope="module")
def paired(enforced: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Paired]:
    assert enforced.plane is not None
    ip, folder = enforced.plane.ip, tmp_path_factory.mktemp("outside")
    argv = ["python3", "-u", "-m", "http.server", str(OUTSIDE_PORT), "--bind", ip, "--directory", str(folder)]
    outside = Daemon("outside", argv, folder / "log", netns=enforced.plane.netns)
    try:
        start_pair(enforced, "10.244.", [f"http://{ip}:{OUTSIDE_PORT}/"])
        yield Paired(enforced, outside)
    finally:
        end_pair(enforced)
        outside.kill()


@pytest.fixture(scope="module")
def seen(paired: Paired) -> Seen:
    cluster = paired.cluster
    assert cluster.plane is not None
    before = bridged(cluster)
    server, outside = traced(cluster, "pod/cni-server"), traced(cluster, f"{cluster.plane.ip}:{OUTSIDE_PORT}")
    callers = set(re.findall(r"^([0-9.]+) - - ", paired.outside.logged(), re.M))
    return Seen(server, outside, callers, {place: now - before[place] for place, now in bridged(cluster).items()})


def test_its_own_network_is_what_the_pods_have(enforced: Cluster) -> None:
    """The fixture waits for the routes, which only BGP's peers give."""
    for node in enforced.nodes:
        written = json.loads(node.pods_conflist.read_text())["plugins"][0]
        assert [[{"subnet": node.pod_cidr}]] == written["ipam"]["ranges"]  # of node.spec.podCIDR
        assert "ESTAB" in node.run("ss", "-Htn", "( sport = :179 or dport = :179 )")


OUT = ["cni-client eth0 tx", "node-1 veth rx", f"node-1 {BRIDGE} rx", "node-1 eth0 tx"]
IN = ["node-2 eth0 rx", f"node-2 {BRIDGE} tx", "node-2 veth tx", "cni-server eth0 rx"]


def test_trace_has_every_hop_over_its_bridges_and_the_services_translation(enforced: Cluster, seen: Seen) -> None:
    found = whole_paths(seen.server)
    assert {path["flow"]["service"] is not None for path in found} == {True, False}
    for path in found:
        assert places(path) == [*OUT, *IN]
        if path["flow"]["service"] is not None:
            assert path["nat"]["service_chain"].startswith(enforced.service_chains)
            assert not path["nat"]["masqueraded"]
        else:
            assert path["nat"] is None
    for place in ("node-1 rx", "node-2 tx"):
        assert seen.grown[place] >= len(found)  # the kernel's own count of the bridge


def test_what_leaves_the_cluster_is_translated_by_its_pod_egress_rule(enforced: Cluster, seen: Seen) -> None:
    assert seen.callers == {enforced.node("node-1").ip}  # whom the server outside saw
    found = [path for path in paths(seen.outside) if path["verdict"] == "forwarded" and len(path["hops"]) == len(OUT)]
    assert found, seen.outside
    for path in found:
        assert places(path) == OUT and path["outcome"] == "answered"
        assert (path["flow"]["service"], path["back"][-1]["pod"]) == (None, "cni-client")
        senders = [hop["src"].partition(":")[0] for hop in path["hops"]]
        assert senders == [*[path["flow"]["client"]["ip"]] * 3, enforced.node("node-1").ip]


def test_a_drop_and_its_policy_are_named_behind_its_bridge(paired: Paired) -> None:
    node = paired.cluster.node("node-2")
    with nobody_may_call(paired.cluster):
        before = taken_by_rules(node)
        told = taken_by_policy(paired.cluster, [*OUT, "node-2 eth0 rx"])
        assert 0 < told <= taken_by_rules(node) - before
