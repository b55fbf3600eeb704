"""The commands over what kube-proxy has written on a real cluster: run in both of its modes."""

import json
from typing import Any

import pytest

from kubectl_genainet import __version__
from kubectl_genainet.kube.agents.forward import find_agents
from kubectl_genainet.kube.client import connect
from tests.cluster.harness.cluster import Cluster, Watching, rows
from tests.cluster.harness.pair import namespace_of
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

PATIENCE_S = 240  # of runs that see what they wait for at once where the machine has time


def trace(cluster: Cluster, *argv: str, seconds: int = 8) -> list[dict[str, Any]]:
    done = cluster.cli("trace", "svc/my-llama-svc", "-n", "chat", "--timeout", f"{seconds}s", "-o", "json", *argv)
    assert done.status in (0, 1), done.err
    return rows(done.out)


def test_status_shows_an_answering_agent_on_every_node(deployed: Cluster) -> None:
    done = deployed.cli("status", "-o", "json")
    assert done.status == 0, done.err
    assert {(row["state"], row["version"], row["problem"]) for row in rows(done.out)} == {("ready", __version__, "")}
    assert [row["node"] for row in rows(done.out)] == [node.name for node in deployed.nodes] or not deployed.nodes
    assert "ready" in deployed.cli("status").out


def test_version_knows_client_server_and_agents(deployed: Cluster) -> None:
    found = json.loads(deployed.cli("version", "-o", "json").out)
    assert found["client"] == __version__
    assert found["server"].startswith("v1.")
    assert set(found["agents"]) == {__version__}


def test_trace_follows_calls_of_the_service_to_its_backends(deployed: Cluster) -> None:
    def whole() -> list[dict[str, Any]]:
        called = [p for p in paths_of(trace(deployed)) if (p["flow"]["client"]["pod"] or "").startswith("chatbot-ui")]
        return [p for p in called if p["verdict"] == "forwarded" and p["backend"] and p["backend"]["pod"]]

    for path in wait_for("calls that arrive", whole, PATIENCE_S):
        assert path["flow"]["service"]["name"] == "my-llama-svc"
        assert path["backend"]["pod"].startswith("my-llama-finetuned") and path["backend"]["port"] == 8080


def test_trace_names_the_backends_and_the_chains_of_the_real_kube_proxy(own: Cluster) -> None:
    def of_both_backends() -> list[dict[str, Any]]:
        called = [p for p in paths_of(trace(own)) if (p["flow"]["client"]["pod"] or "").startswith("chatbot-ui")]
        found = [p for p in called if p["nat"] and p["nat"]["service_chain"] and p["backend"]["pod"]]
        return found if {p["backend"]["node"] for p in found} == {"node-1", "node-2"} else []

    translated = wait_for("calls of both backends", of_both_backends, PATIENCE_S)
    rules = own.node("node-1").proxy_rules()
    for path in translated:
        assert path["verdict"] == "forwarded"
        assert path["flow"]["service"]["name"] == "my-llama-svc"
        backend = f"{path['backend']['ip']}:{path['backend']['port']}"
        service, endpoint = path["nat"]["service_chain"], path["nat"]["endpoint_chain"]
        if own.proxy_mode == "nftables":  # the service's chain translates by itself
            assert f"chain {service} {{" in rules and not endpoint
            continue
        assert f"-A {service} " in rules
        assert any(
            r.startswith(f"-A {endpoint} ") and r.endswith(f"--to-destination {backend}") for r in rules.splitlines()
        )


def test_trace_names_the_node_the_reason_and_the_hook_of_a_drop(own: Cluster) -> None:
    """A rule on the client's node drops what goes to the backend on the other node."""
    selector = "labelSelector=app.kubernetes.io/name=my-llama-finetuned"
    pods = own.plane.api().get(f"/api/v1/namespaces/chat/pods?{selector}")["items"]  # type: ignore[union-attr]
    backend = next(p["status"]["podIP"] for p in pods if p["spec"]["nodeName"] == "node-2")
    rule = ["FORWARD", "-d", backend, "-p", "tcp", "--dport", "8080", "-j", "DROP"]
    node = own.node("node-1")
    node.run("iptables", "-I", *rule)
    try:
        paths = wait_for("a drop, and a call of the other backend", lambda: both_ways(own), PATIENCE_S)
    finally:
        node.run("iptables", "-D", *rule)
    drops = [p["drop"] for p in paths if p["verdict"] == "dropped"]
    assert {(d["reason"], d["hook"]) for d in drops} == {("NETFILTER_DROP", "FORWARD")}
    assert all(p["hops"][-1]["node"] == "node-1" for p in paths if p["verdict"] == "dropped")


def both_ways(cluster: Cluster) -> list[dict[str, Any]]:
    """The paths of a run that saw calls arrive and die; none of one that did not."""
    paths = paths_of(trace(cluster))
    return paths if {"dropped", "forwarded"} <= {path["verdict"] for path in paths} else []


def paths_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["kind"] == "path"]


def test_rules_and_explain_agree_with_the_cluster(deployed: Cluster) -> None:
    done = deployed.cli("rules", "svc/my-llama-svc", "-n", "chat", "-o", "json")
    assert done.status == 0, done.out + done.err
    assert "my-llama-svc" in done.out
    done = deployed.cli("explain", "deploy/chatbot-ui", "svc/my-llama-svc", "-n", "chat")
    assert done.status == 0, done.out + done.err


def test_a_port_that_the_service_does_not_have_is_told(own: Cluster) -> None:
    """In nftables mode kube-proxy refuses the other ports of a cluster IP. In iptables mode it leaves them alone, and the node
    finds nobody with that address."""
    api, node = own.api(), own.node("node-1")
    pods = api.get("/api/v1/namespaces/chat/pods?labelSelector=app.kubernetes.io/name=chatbot-ui")["items"]
    address = api.get("/api/v1/namespaces/chat/services/my-llama-svc")["spec"]["clusterIP"]
    connect = f"timeout 1 bash -c '</dev/tcp/{address}/8081'"
    call = ("nsenter", f"--net={namespace_of(node, pods[0]['status']['podIP'])}", "bash", "-c", connect)
    flags = ("-n", "chat", "--timeout", "240s", "-o", "json")
    with (
        Watching(own, ("drops", "svc/my-llama-svc", *flags)) as drops,
        Watching(own, ("trace", f"{address}:8081", *flags)) as trace,
    ):

        def both_tell() -> bool:
            node.run(*call, check=False)
            return all("no-such-port" in run.printed() for run in (drops, trace))

        wait_for("both verbs' word", both_tell, PATIENCE_S)
        for run in (drops, trace):
            run.interrupt()
        listed, traced = drops.finish(120), trace.finish(120)
    found = {row["id"]: row for row in rows(listed.out) if row["kind"] == "drop" and row["check"] == "no-such-port"}
    lost = [path["drop"] for path in paths_of(rows(traced.out)) if path["drop"]]
    said = f"Service chat/my-llama-svc ({address}) has no port 8081/TCP; it has 80/TCP"
    assert found and lost, (listed, traced)
    outcome = "rejected" if own.proxy_mode == "nftables" else "dropped"
    for row in found.values():
        assert (row["node"], row["outcome"], row["policy"]) == ("node-1", outcome, None)  # no policy's matter
        assert (row["client"]["workload"], row["server"]["ip"]) == ("chatbot-ui", address)
    for drop in (*(row["drop"] for row in found.values()), *lost):
        assert (drop["check"], drop["node"], drop["policies"]) == ("no-such-port", "node-1", [])
        assert said in drop["explanation"]
    for text in (listed.out, traced.out):
        assert "disagree" not in text and "api-admits" not in text


def test_drops_on_a_quiet_cluster_lists_nothing_of_an_agents_own(own: Cluster) -> None:
    """Nor of one that has just started."""
    (agent,) = [a for a in find_agents(connect(kubeconfig=own.kubeconfig)) if a.node == "node-2"]
    own.api().delete(f"/api/v1/namespaces/genainet/pods/{agent.pod}")
    wait_for("its successor", lambda: own.cli("status").status == 0, 300, interval=1)
    done = own.cli("drops", "-A", "--timeout", "6s", "-o", "json")
    answer = rows(done.out)
    assert answer[-1]["nodes"] == ["node-1", "node-2"], done.err
    ends = [row[end] for row in answer if row["kind"] == "drop" for end in ("client", "server") if row[end]]
    assert [end for end in ends if end["port"] == 9912 or end["namespace"] == "genainet"] == []
    printed = own.cli("drops", "-A", "--timeout", "3s").out
    assert "9912" not in printed and "genainet-agent" not in printed
