"""Agents on a real cluster that fail, or whose node or API server does: named, with no probe left behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from kubectl_genainet.kube.agents.forward import find_agents
from kubectl_genainet.kube.client import connect
from tests.cluster.harness.cluster import Cluster, Watching, agent_processes, rows
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster


def no_workers(cluster: Cluster) -> bool:
    """A probe lives in a worker process and ends with it."""
    return not any("session.worker" in args for node in cluster.nodes for args in agent_processes(node).values())


@contextlib.contextmanager
def tracing(cluster: Cluster, seconds: int = 60) -> Iterator[Watching]:
    """A trace that watches on both nodes."""
    command = ("trace", "svc/my-llama-svc", "-n", "chat", "--timeout", f"{seconds}s", "-o", "json")
    with Watching(cluster, command) as trace:
        trace.wait()
        assert not no_workers(cluster)
        yield trace


@contextlib.contextmanager
def without_kubelet(cluster: Cluster, node: str) -> Iterator[None]:
    """Its pods run on. The next kubelet has said that the node is ready, and all pods that Services need are, when it is left."""
    victim = cluster.node(node)
    victim.kubelet.kill()
    try:
        yield
    finally:
        victim.restart_kubelet()
        victim.wait_ready()
        cluster.wait_for_rules()


def test_an_interrupted_trace_leaves_no_probe(own: Cluster) -> None:
    with tracing(own) as trace:
        trace.interrupt()
        done = trace.finish(120)
    assert "Traceback" not in done.err and "broke off" not in done.err, done.err
    summary = rows(done.out)[-1]
    assert summary["kind"] == "summary" and summary["events"]["emitted"] is not None, summary  # each sent its account
    wait_for("no probe", lambda: no_workers(own), 90)


def test_an_api_server_restarted_during_a_trace_is_told_and_leaves_no_probe(own: Cluster) -> None:
    with tracing(own) as trace:
        server = own.plane.daemons["kube-apiserver"]  # type: ignore[union-attr]
        server.kill()
        server.start()
        done = trace.finish(180)
    own.plane.wait_ready()  # type: ignore[union-attr]
    assert done.status != 0
    assert "node-1" in done.err and "broke" in done.err, done.err
    assert "Traceback" not in done.err
    wait_for("no probe", lambda: no_workers(own), 90)


def test_an_agent_that_is_stopped_ends_its_part_of_a_trace_with_the_reason(own: Cluster) -> None:
    """As in a rollout, or where a node is drained."""
    with tracing(own, seconds=30) as trace:
        (agent,) = [a for a in find_agents(connect(kubeconfig=own.kubeconfig)) if a.node == "node-2"]
        own.api().delete(f"/api/v1/namespaces/genainet/pods/{agent.pod}")
        done = trace.finish(180)
    assert "the trace ended early, because its agent was stopped: what happened on node node-2" in done.err, done.err
    summary = rows(done.out)[-1]
    assert done.status in (1, 2) and summary["silent_nodes"] == [], summary
    assert summary["events"]["emitted"] is not None, summary  # both sent their accounts
    wait_for("the agent's successor", lambda: own.cli("status").status == 0, 300, interval=1)


def test_a_killed_agent_is_named_and_the_other_node_goes_on(own: Cluster) -> None:
    victim = own.node("node-2")
    with tracing(own, seconds=30) as trace:
        main = next(pid for pid, args in agent_processes(victim).items() if "agent.main" in args)
        victim.run("kill", "-KILL", str(main))
        done = trace.finish(180)
    assert "node-2" in done.err, done.err
    assert [r for r in rows(done.out) if r["kind"] == "path"]
    wait_for("no probe", lambda: no_workers(own), 90)
    wait_for("the agent's next start", lambda: own.cli("status").status == 0, 300, interval=1)


def test_a_stalled_node_is_reported_and_stops_nobody(own: Cluster) -> None:
    victim = own.node("node-2")
    with tracing(own, seconds=40) as trace:
        pids = [str(pid) for pid in agent_processes(victim)]
        victim.run("kill", "-STOP", *pids)
        try:
            done = trace.finish(180)
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
    with without_kubelet(own, "node-2"):
        done = own.cli("status", "-o", "json")
        assert done.status == 1
        bad = [r for r in rows(done.out) if r["state"] != "ready"]
        assert [r["node"] for r in bad] == ["node-2"] and bad[0]["problem"]
        # The other node's agent has ended, though its object is held.
        api.patch(held, {"metadata": {"finalizers": ["test.example/hold"]}})
        try:
            done = own.cli("undeploy", "--timeout", "40s")
        finally:
            api.patch(held, {"metadata": {"finalizers": None}})
        assert done.status == 2
        assert "agents are still there after 40 s, on node-2\n" in done.err
        assert not agent_processes(own.node("node-1")) and agent_processes(victim)
    wait_for("node-2", lambda: not agent_processes(victim), 300)
    assert own.deploy().status == 0


@pytest.fixture
def half_ready(own: Cluster) -> Iterator[Cluster]:
    """The agent on node-2 is not ready: its kubelet stands still, and the API has it so."""
    with without_kubelet(own, "node-2"):
        (agent,) = [a for a in find_agents(connect(kubeconfig=own.kubeconfig)) if a.node == "node-2"]
        status = {"conditions": [{"type": "Ready", "status": "False"}]}
        own.api().patch(f"/api/v1/namespaces/genainet/pods/{agent.pod}/status", {"status": status})
        yield own
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
