"""What drops, dns, rules and explain say of real traffic between real pods, well and with a fault that the test makes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from kubectl_genainet.cli import cli
from tests.cluster.harness.cluster import Cluster, rows
from tests.cluster.harness.node import KubeNode
from tests.cluster.harness.pair import namespace_of
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody-calls-the-model, namespace: chat}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/name: my-llama-finetuned}}
  policyTypes: [Ingress]
"""
BACKEND = r"\b(10\.244\.\d+\.\d+)(?::| \. )"  # before its port; nft prints both of a map as "IP . PORT"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/chat/networkpolicies"


@contextlib.contextmanager
def rule(node: KubeNode, *words: str) -> Iterator[str]:
    """A rule at the head of the node's FORWARD chain; gives it as iptables prints it."""
    node.run("iptables", "-I", "FORWARD", *words)
    try:
        yield next(r for r in node.run("iptables", "-S", "FORWARD").splitlines() if r.startswith("-A"))
    finally:
        node.run("iptables", "-D", "FORWARD", *words)


def pod_on(cluster: Cluster, node: str, name: str, namespace: str = "chat") -> dict[str, Any]:
    """The pod of a workload on a node."""
    pods = cluster.api().get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    found = [p for p in pods if p["metadata"]["name"].startswith(name + "-") and p["spec"]["nodeName"] == node]
    assert len(found) == 1
    return dict(found[0])


def last_rows(text: str) -> list[dict[str, Any]]:
    """Of rows that were printed again when they had grown, the last."""
    return list({row["id"]: row for row in rows(text) if row["kind"] == "drop"}.values())


def asked(cluster: Cluster, seconds: int) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """What `dns` says of the application that asks for names: status, exchanges, summary."""
    done = cluster.cli("dns", "deploy/rag-app", "-n", "chat", "--timeout", f"{seconds}s", "-o", "json")
    *exchanges, summary = rows(done.out)
    assert summary["kind"] == "dns_summary", done.err
    return done.status, exchanges, summary


def seen_whole(exchange: dict[str, Any]) -> bool:
    """In the first second the probes of one node may be attached and those of another not yet."""
    return None not in [exchange["split"][part] for part in ("to_nat", "to_server", "server", "to_client")]


@pytest.mark.parametrize(
    ("target", "outcome", "check", "told"),
    [
        (["DROP"], "dropped", "rule-drop", None),
        (["REJECT", "--reject-with", "tcp-reset"], "rejected", "rejected-by-rule", "tcp-reset"),
    ],
)
def test_drops_names_the_rule_between_two_pods(
    own: Cluster, target: list[str], outcome: str, check: str, told: str | None
) -> None:
    backend = pod_on(own, "node-2", "my-llama-finetuned")
    words = ("-d", backend["status"]["podIP"], "-p", "tcp", "--dport", "8080", "-j", *target)
    with rule(own.node("node-1"), *words) as printed:
        done = own.cli("drops", "svc/my-llama-svc", "-n", "chat", "--timeout", "12s", "-o", "json")
    assert done.status == 1, done.err
    (row,) = [r for r in last_rows(done.out) if r["severity"] == "error"]
    assert (row["outcome"], row["check"], row["node"]) == (outcome, check, "node-1")
    assert (row["client"]["workload"], row["client"]["node"]) == ("chatbot-ui", "node-1")
    assert (row["server"]["pod"], row["server"]["port"]) == (backend["metadata"]["name"], 8080)
    assert row["service"]["name"] == "my-llama-svc"
    assert row["packets"] >= 1 and row["direction"] == "request"
    drop = row["drop"]
    assert (drop["reason"], drop["hook"], drop["told"]) == ("NETFILTER_DROP", "FORWARD", told)
    assert drop["rule"].partition(": ")[2] in printed
    assert row["policy"]["agreement"] == "api-admits"  # no NetworkPolicy is behind it, and it says so


def test_drops_names_the_pod_whose_port_is_closed(deployed: Cluster) -> None:
    """The Service sends to a port that nothing listens on, as after a wrong targetPort."""
    api, service = deployed.api(), "/api/v1/namespaces/chat/services/my-llama-svc"
    port = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 9999}

    def endpoints_have(number: int) -> bool:
        subsets = api.get("/api/v1/namespaces/chat/endpoints/my-llama-svc").get("subsets") or []
        return {p["port"] for subset in subsets for p in subset["ports"]} == {number}

    def follows(number: int) -> bool:
        """Whether the endpoints have that port, and so has every node's rule for each of them."""
        of_nodes = [set(re.findall(rf"{BACKEND}{number}\b", node.proxy_rules())) for node in deployed.nodes]
        return endpoints_have(number) and all(len(backends) == 2 for backends in of_nodes)

    api.patch(service, {"spec": {"ports": [port]}})
    try:
        wait_for("the endpoints", lambda: follows(9999), 120)
        done = deployed.cli("drops", "svc/my-llama-svc", "-n", "chat", "--timeout", "12s", "-o", "json")
    finally:
        api.patch(service, {"spec": {"ports": [{**port, "targetPort": "http"}]}})
        wait_for("the endpoints", lambda: follows(8080), 120)
    assert done.status == 1, done.err
    found = [r for r in last_rows(done.out) if r["check"] == "closed-port"]
    assert found
    assert not deployed.nodes or {r["server"]["node"] for r in found} == {"node-1", "node-2"}
    for row in found:
        assert (row["outcome"], row["drop"]["reason"]) == ("refused", "NO_SOCKET")
        assert (row["server"]["workload"], row["server"]["port"]) == ("my-llama-finetuned", 9999)
        assert (row["pod"], row["client"]["workload"]) == (f"chat/{row['server']['pod']}", "chatbot-ui")


def test_dns_follows_queries_through_the_service_to_the_server(deployed: Cluster) -> None:
    _, exchanges, summary = asked(deployed, 10)
    found = [e for e in exchanges if e["name"].startswith("my-llama-svc.chat.svc.") and e["type"] == "A"]
    whole = [e for e in found if e["outcome"] == "answered" and seen_whole(e)]
    assert len(whole) >= 3
    address = deployed.api().get("/api/v1/namespaces/chat/services/my-llama-svc")["spec"]["clusterIP"]
    for e in whole:
        assert e["client"]["workload"] == "rag-app" and e["service"]["namespace"] == "kube-system"
        assert (e["rcode"], e["transport"]) == ("NOERROR", "UDP")
        assert address in {data for record in e["answers"] for data in record["data"]}
        assert 0 < e["split"]["server"] < e["latency_ns"] < 5_000_000_000
    counts = summary["queries"]
    assert counts["queries"] == sum(counts[k] for k in ("answered", "failed", "timeouts", "open"))
    assert counts["rcodes"]["NXDOMAIN"] > 0  # no-such-service, with every search domain
    (client,) = summary["clients"]
    assert client["search"][0].startswith("chat.svc.")


def test_dns_names_every_place_of_a_query_on_both_nodes(own: Cluster) -> None:
    _, exchanges, _ = asked(own, 10)
    server = pod_on(own, "node-2", "coredns", "kube-system")
    whole = [e for e in exchanges if e["outcome"] == "answered" and seen_whole(e)]
    assert whole
    for e in whole:
        assert (e["client"]["node"], e["asked"]["ip"], e["service"]["name"]) == ("node-1", "10.96.0.10", "kube-dns")
        assert (e["server"]["pod"], e["server"]["node"]) == (server["metadata"]["name"], "node-2")
        assert [hop["node"] for hop in e["hops"]] == ["node-1"] * 3 + ["node-2"] * 3
        assert [hop["point"] for hop in e["hops"]] == ["tx", "rx", "tx", "rx", "tx", "rx"]
        to_service, to_server = "10.96.0.10:53", f"{server['status']['podIP']}:53"
        assert [hop["dst"] for hop in e["hops"]] == [to_service] * 2 + [to_server] * 4  # kube-proxy's NAT on node-1


def test_dns_says_where_queries_die(own: Cluster) -> None:
    server = pod_on(own, "node-2", "coredns", "kube-system")
    words = ("-d", server["status"]["podIP"], "-p", "udp", "--dport", "53", "-j", "DROP")
    with rule(own.node("node-2"), *words) as printed:
        status, exchanges, summary = asked(own, 13)
    assert status == 1
    # Of the first queries the nodes that were not watched yet saw nothing.
    lost = [e for e in exchanges if e["outcome"] == "timeout" and e["drop"]]
    assert lost, exchanges
    for e in lost:
        assert e["last_seen"] == "the query was last seen at node node-2, eth0 (rx)"
        assert (e["drop"]["reason"], e["drop"]["hook"], e["drop"]["node"]) == ("NETFILTER_DROP", "FORWARD", "node-2")
        assert e["drop"]["rule"].partition(": ")[2] in printed
    assert "dns-dropped" in {finding["check"] for finding in summary["findings"]}


@contextlib.contextmanager
def standing_still(node: KubeNode) -> Iterator[None]:
    """The node's kube-proxy writes nothing meanwhile: whenever it does, its rules count from 0 again."""
    node.run("pkill", "-STOP", "-x", "kube-proxy")
    try:
        yield
    finally:
        node.run("pkill", "-CONT", "-x", "kube-proxy")


def test_rules_counts_the_calls_on_the_clients_node(own: Cluster) -> None:
    if own.proxy_mode == "nftables":
        pytest.skip("nftables mode has no counters")
    node = own.node("node-1")

    def counted() -> int:
        dispatch = re.search(
            r"\[(\d+):\d+\] -A KUBE-SERVICES .*my-llama-svc", node.run("iptables-save", "-c", "-t", "nat")
        )
        return int(dispatch[1]) if dispatch else 0

    with standing_still(node):
        before = wait_for("a call", counted)
        done = own.cli("rules", "svc/my-llama-svc", "-n", "chat", "-o", "json")
        after = counted()
    (row,) = [r for r in rows(done.out) if r["kind"] == "rules" and r["node"] == "node-1"]
    assert before <= row["address"]["packets"] <= after


QUIET = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "quiet-llama", "namespace": "chat"},
    "spec": {
        "selector": {"app.kubernetes.io/name": "my-llama-finetuned"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
    },
}
CALLS = """
import sys, urllib.request
for _ in range(7):
    urllib.request.urlopen(sys.argv[1], timeout=10).read()
"""


@pytest.fixture
def quiet_service(own: Cluster) -> Iterator[str]:
    """The address of a Service that nobody calls, once it answers each node: its endpoints may come after its rules."""
    address: str = own.api().create(QUIET)["spec"]["clusterIP"]
    try:
        for node in own.nodes:
            call = partial(node.run, "python3", "-c", CALLS, f"http://{address}/")
            wait_for("its endpoints", lambda call=call: call() == "", 150)  # type: ignore[misc]
        yield address
    finally:
        own.api().delete("/api/v1/namespaces/chat/services/quiet-llama")


def test_hits_are_the_calls_between_the_two_readings(
    own: Cluster, quiet_service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the counters of the rules; in nftables mode, which has none, by what conntrack saw begin."""
    node = own.node("node-1")
    inside = namespace_of(node, pod_on(own, "node-1", "rag-app")["status"]["podIP"])
    call = ("nsenter", f"--net={inside}", "python3", "-c", CALLS, f"http://{quiet_service}/")
    between = SimpleNamespace(sleep=lambda _seconds: node.run(*call))
    monkeypatch.setattr("kubectl_genainet.run.rules.time", between)  # in place of the time between the readings
    target = ("svc/quiet-llama", "-n", "chat", "--kubeconfig", own.kubeconfig)
    with standing_still(node):
        done = CliRunner().invoke(cli, ["rules", *target, "--hits", "4", "-o", "json"])
    found = {row["node"]: row for row in rows(done.stdout) if row["kind"] == "rules"}
    assert found.keys() == {"node-1", "node-2"}, (done.stdout, done.stderr, done.exception)
    for name, row in found.items():
        calls = 7 if name == "node-1" else 0
        assert row["begun"] == calls, row
        assert row["address"]["packets"] == (calls if own.proxy_mode == "iptables" else None), row


def test_rules_shows_what_kube_proxy_has_and_which_node_is_out_of_step(own: Cluster) -> None:
    backends = {pod_on(own, node.name, "my-llama-finetuned")["status"]["podIP"] for node in own.nodes}
    done = own.cli("rules", "svc/my-llama-svc", "-n", "chat", "-o", "json")
    assert done.status == 0, done.out + done.err
    found = [r for r in rows(done.out) if r["kind"] == "rules"]
    assert {(r["client"], r["verdict"]) for r in rows(done.out) if r["kind"] == "way"} == {
        ("pod", "DNAT"),
        ("node", "DNAT"),
    }
    assert [(r["node"], r["mode"], r["state"]) for r in found] == [
        ("node-1", own.proxy_mode, "in step"),
        ("node-2", own.proxy_mode, "in step"),
    ]
    for row in found:
        assert {(b["ip"], b["port"], b["probability"]) for b in row["address"]["backends"]} == {
            (ip, 8080, 0.5) for ip in backends
        }
        assert row["address"]["chain"] in own.node(row["node"]).proxy_rules()
    # kube-proxy of one node stands still, and an endpoint goes: what its rules say is stale from then on.
    stale = own.node("node-2")
    stale.kube_proxy.kill()
    own.api().patch("/apis/apps/v1/namespaces/chat/deployments/my-llama-finetuned", {"spec": {"replicas": 1}})
    try:

        def listed() -> list[str]:
            selector = "labelSelector=kubernetes.io/service-name%3Dmy-llama-svc"
            slices = own.api().get(f"/apis/discovery.k8s.io/v1/namespaces/chat/endpointslices?{selector}")["items"]
            return [a for s in slices for e in s["endpoints"] or () for a in e["addresses"]]

        def endpoints() -> int:
            """Of the other node."""
            return len(set(re.findall(f"{BACKEND}8080", own.node("node-1").proxy_rules())))

        wait_for("the other node's rules", lambda: endpoints() == 1, 150)
        # Until then its slice has it as terminating, and a rule for it is not stale.
        wait_for("the pod's end", lambda: len(listed()) == 1, 150)
        done = own.cli("rules", "svc/my-llama-svc", "-n", "chat", "-o", "json")
    finally:
        stale.kube_proxy.start()
        own.api().patch("/apis/apps/v1/namespaces/chat/deployments/my-llama-finetuned", {"spec": {"replicas": 2}})
        own.wait_for_rules()
    assert done.status == 1, done.out
    found = [r for r in rows(done.out) if r["kind"] == "rules"]
    assert {r["node"]: (len(r["address"]["backends"]), r["expected"]) for r in found} == {
        "node-1": (1, 1),
        "node-2": (2, 1),
    }
    # A connection to the endpoint that went may be in a table still.
    states = {r["node"]: set(r["state"].split(", ")) - {"stale connection"} for r in found}
    assert states == {"node-1": {"nodes disagree"}, "node-2": {"stale endpoints", "nodes disagree"}}
    stale_rules = [r for r in rows(done.out) if r.get("check") == "stale-endpoint-rules"]
    assert len(stale_rules) == 1 and "node node-2 still sends to" in stale_rules[0]["title"]


def test_explain_names_the_policy_that_isolates_the_model(deployed: Cluster) -> None:
    question = ("explain", "deploy/chatbot-ui", "svc/my-llama-svc", "-n", "chat")
    assert deployed.cli(*question).status == 0
    api = deployed.api()
    api.apply(POLICY)
    try:
        done = deployed.cli(*question, "-o", "json")
    finally:
        api.delete(f"{POLICIES}/nobody-calls-the-model")
    assert done.status == 1, done.err
    assert "nobody-calls-the-model" in done.out
    assert deployed.cli(*question).status == 0
