"""Agents on a real cluster that fail, or whose node or API server does: named, with no probe left behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_genainet.kube.agents.forward import find_agents
from kubectl_genainet.kube.client import connect
from tests.cluster.harness.cluster import Cluster, agent_processes, finish, rows
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster


def no_workers(cluster: Cluster) -> bool:
    """A probe lives in a worker process and ends with it."""
    return not any("session.worker" in args for node in cluster.nodes for args in agent_processes(node).values())


def workers(cluster: Cluster) -> bool:
    return all(any("session.worker" in a for a in agent_processes(node).values()) for node in cluster.nodes)


def begin_trace(cluster: Cluster, seconds: int = 60) -> Any:
    command = ("trace", "svc/my-llama-svc", "-n", "chat", "--timeout", f"{seconds}s", "-o", "json")
    process = cluster.start(*command)
    wait_for("the probes", lambda: watches(cluster), 150)
    return process


def watches(cluster: Cluster) -> bool:
    """Whether the workers have attached their probes: they hold links, and for a while no more come."""
    before = links(cluster)
    time.sleep(2)
    return bool(before) and all(before) and links(cluster) == before


def links(cluster: Cluster) -> list[int]:
    """How many BPF links each node's workers hold."""
    if not workers(cluster):
        return []
    pids = {
        node: [p for p, args in agent_processes(node).items() if "session.worker" in args] for node in cluster.nodes
    }
    count = "cat /proc/$0/fdinfo/* 2>/dev/null | grep -c ^link_id"
    return [
        sum(int(node.run("sh", "-c", count, str(pid), check=False)) for pid in pids[node]) for node in cluster.nodes
    ]


def test_an_interrupted_trace_leaves_no_probe(own: Cluster) -> None:
    process = begin_trace(own)
    process.send_signal(signal.SIGINT)
    done = finish(process, 120)
    assert "Traceback" not in done.err and "broke off" not in done.err, done.err
    summary = rows(done.out)[-1]
    assert summary["kind"] == "summary" and summary["events"]["emitted"] is not None, summary  # each sent its account
    wait_for("no probe", lambda: no_workers(own), 90)


def test_an_api_server_restarted_during_a_trace_is_told_and_leaves_no_probe(own: Cluster) -> None:
    process = begin_trace(own)
    server = own.plane.daemons["kube-apiserver"]  # type: ignore[union-attr]
    server.kill()
    server.start()
    done = finish(process, 180)
    own.plane.wait_ready()  # type: ignore[union-attr]
    assert done.status != 0
    assert "node-1" in done.err and "broke" in done.err, done.err
    assert "Traceback" not in done.err
    wait_for("no probe", lambda: no_workers(own), 90)


def test_an_agent_that_is_stopped_ends_its_part_of_a_trace_with_the_reason(own: Cluster) -> None:
    """As in a rollout, or where a node is drained."""
    process = begin_trace(own, seconds=30)
    (agent,) = [a for a in find_agents(connect(kubeconfig=own.kubeconfig)) if a.node == "node-2"]
    own.api().delete(f"/api/v1/namespaces/genainet/pods/{agent.pod}")
    done = finish(process, 180)
    assert "the trace ended early, because its agent was stopped: what happened on node node-2" in done.err, done.err
    summary = rows(done.out)[-1]
    assert done.status in (1, 2) and summary["silent_nodes"] == [], summary
    assert summary["events"]["emitted"] is not None, summary  # both sent their accounts
    wait_for("the agent's successor", lambda: own.cli("status").status == 0, 300, interval=1)


def test_a_killed_agent_is_named_and_the_other_node_goes_on(own: Cluster) -> None:
    process = begin_trace(own, seconds=30)
    victim = own.node("node-2")
    main = next(pid for pid, args in agent_processes(victim).items() if "agent.main" in args)
    victim.run("kill", "-KILL", str(main))
    done = finish(process, 180)
    assert "node-2" in done.err, done.err
    assert [r for r in rows(done.out) if r["kind"] == "path"]
    wait_for("no probe", lambda: no_workers(own), 90)
    wait_for("the agent's next start", lambda: own.cli("status").status == 0, 300, interval=1)


def test_a_stalled_node_is_reported_and_stops_nobody(own: Cluster) -> None:
    process = begin_trace(own, seconds=40)
    victim = own.node("node-2")
    pids = [str(pid) for pid in agent_processes(victim)]
    victim.run("kill", "-STOP", *pids)
    try:
        done = finish(process, 180)
    finally:
        victim.run("kill", "-CONT", *pids, check=False)
    assert "node-2" in done.err and "has sent nothing" in done.err, done.err
    assert [r for r in rows(done.out) if r["kind"] == "path"]
    wait_for("no probe", lambda: no_workers(own), 90)
    wait_for("an agent that answers", lambda: own.cli("status").status == 0, 300, interval=1)


def test_a_stopped_kubelet_is_named_by_status_and_by_undeploy(own: Cluster) -> None:
    api, victim = own.plane.api(), own.node("node-2")  # type: ignore[union-attr]
    (healthy,) = [a for a in find_agents(connect(kubeconfig=own.kubeconfig)) if a.node == "node-1"]
    held = f"/api/v1/namespaces/genainet/pods/{healthy.pod}"
    victim.kubelet.stop()
    try:
        done = own.cli("status", "-o", "json")
        assert done.status == 1
        bad = [r for r in rows(done.out) if r["state"] != "ready"]
        assert [r["node"] for r in bad] == ["node-2"] and bad[0]["problem"]
        # The other node's agent has ended, though its object is held.
        api.patch(held, {"metadata": {"finalizers": ["test.example/hold"]}})
        done = own.cli("undeploy", "--timeout", "40s")
        assert done.status == 2
        assert "agents are still there after 40 s, on node-2\n" in done.err
        assert not agent_processes(own.node("node-1"))
    finally:
        victim.kubelet.start()
        api.patch(held, {"metadata": {"finalizers": None}})
    wait_for("node-2", lambda: not agent_processes(victim), 300)
    assert own.deploy().status == 0


@pytest.fixture
def half_ready(own: Cluster) -> Iterator[Cluster]:
    """The agent on node-2 is not ready: its kubelet stands still, and the API has it so."""
    victim = own.node("node-2")
    victim.kubelet.stop()
    try:
        (agent,) = [a for a in find_agents(connect(kubeconfig=own.kubeconfig)) if a.node == "node-2"]
        status = {"conditions": [{"type": "Ready", "status": "False"}]}
        own.api().patch(f"/api/v1/namespaces/genainet/pods/{agent.pod}/status", {"status": status})
        yield own
    finally:
        victim.kubelet.start()
        wait_for("both agents", lambda: own.cli("status").status == 0, 240, interval=1)


def test_every_verb_names_the_node_whose_agent_is_not_ready(half_ready: Cluster) -> None:
    said = {}
    for verb, *options in (
        ("trace", "svc/my-llama-svc", "--timeout", "4s"),
        ("drops", "svc/my-llama-svc", "--timeout", "4s"),
        ("dns", "deploy/rag-app", "--timeout", "4s"),
        ("rules", "svc/my-llama-svc"),
        ("rules", "svc/my-llama-svc", "--exact", "8"),
        ("doctor", "--measure", "3s"),
        ("diagnose", "svc/my-llama-svc", "--for", "4s"),
        ("fabric", "deploy/my-llama-finetuned", "--for", "1s"),
    ):
        done = half_ready.cli(verb, *options, "-n", "chat", "-o", "json")
        said[" ".join((verb, *options))] = (done.status, "the agent on node node-2 is not ready" in done.err)
        assert "node-1 is not ready" not in done.err and rows(done.out), (verb, done.err)
    assert {command: named for command, (_, named) in said.items()} == dict.fromkeys(said, True)
    assert 0 not in {status for status, _ in said.values()}, said  # a node is missing


@pytest.mark.parametrize("missing", ["SYS_PTRACE", "hostPID"])
def test_an_agent_that_lacks_what_it_needs_says_so_to_who_may_not_read_logs(own: Cluster, missing: str) -> None:
    api, path = own.api(), "/apis/apps/v1/namespaces/genainet/daemonsets/genainet-agent"
    spec = api.get(path)["spec"]["template"]["spec"]
    kept = [c for c in spec["containers"][0]["securityContext"]["capabilities"]["add"] if c != missing]
    container = {"name": "agent", "securityContext": {"capabilities": {"add": kept}}}
    changed = {"hostPID": None} if missing == "hostPID" else {"containers": [container]}
    patch = {"spec": {"template": {"spec": changed}}}
    api.request("PATCH", path, patch, "application/strategic-merge-patch+json")

    def reason() -> str:
        found = [r for r in rows(own.cli("status", "-o", "json", user="tracer").out) if r["state"] == "not ready"]
        return next((f"{r['problem']}; {r['hint']}" for r in found if "ended with status" in r["problem"]), "")

    try:
        said = wait_for("the reason", reason, 300, interval=1)
    finally:
        done = own.deploy()
    assert done.status == 0, done.err
    assert "genainet-agent: the node's network namespace can't be found" in said
    assert said.endswith("; In a pod the agent needs hostPID and CAP_SYS_PTRACE; elsewhere name it with --host-netns.")
