"""The agents on a real cluster, in whichever mode kube-proxy is: deployed, asked by each role, attacked, broken, removed."""

import random
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from kubectl_genainet.kube.agents.forward import cluster_agents, find_agents
from kubectl_genainet.kube.agents.portforward import dial_pod
from kubectl_genainet.kube.client import connect
from kubectl_genainet.kube.failures import ApiError as Refused
from kubectl_genainet.stream import ask_all
from tests.cluster.harness.api import ApiError
from tests.cluster.harness.cluster import Cluster, agent_processes, everything, finish, rows
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

BINDINGS = "/apis/rbac.authorization.k8s.io/v1"


def test_a_deploy_can_be_repeated_and_changes_nothing(deployed: Cluster) -> None:
    done = deployed.deploy()
    assert done.status == 0
    assert {line.rpartition(" ")[2] for line in done.out.splitlines()} == {"unchanged"}


def test_a_dry_run_prints_objects_without_the_secret(deployed: Cluster) -> None:
    objects = list(yaml.safe_load_all(deployed.cli("deploy", "--dry-run=client", "-o", "yaml").out))
    assert "Secret" not in {o["kind"] for o in objects}
    assert len(objects) == 8
    assert deployed.deploy("--dry-run=server", "--no-wait").status == 0


def test_a_viewer_reads_and_may_not_trace(deployed: Cluster) -> None:
    assert deployed.cli("explain", "deploy/chatbot-ui", "svc/my-llama-svc", "-n", "chat", user="viewer").status == 0
    done = deployed.cli("trace", "svc/my-llama-svc", "-n", "chat", "--timeout", "3s", user="viewer")
    assert done.status == 2
    assert "you may not use the agents" in done.err and "genainet-trace" in done.err


def test_a_tracer_asks_agents_and_reaches_nothing_else(deployed: Cluster) -> None:
    assert deployed.cli("status", "-o", "json", user="tracer").status == 0
    api = deployed.api("tracer")
    client = connect(kubeconfig=deployed.config_of("tracer"))
    pod = deployed.api().get("/api/v1/namespaces/chat/pods")["items"][0]["metadata"]["name"]
    with pytest.raises(Refused) as refused:
        dial_pod(client, "chat", pod, 8080)
    assert refused.value.status == 403
    agent = find_agents(client)[0].pod
    for path in (
        "/api/v1/namespaces/genainet/secrets",
        "/api/v1/namespaces/kube-system/secrets",
        f"/api/v1/namespaces/genainet/pods/{agent}/exec?command=id",
    ):
        with pytest.raises(ApiError) as denied:
            api.get(path)
        assert denied.value.status == 403
    assert deployed.deploy(user="tracer").status == 2


def test_an_administrator_deploys_and_nobody_does_nothing(deployed: Cluster) -> None:
    done = deployed.deploy(user="deployer")
    assert done.status == 0, done.err
    for command in (("deploy",), ("undeploy",), ("status",), ("rules", "svc/my-llama-svc", "-n", "chat")):
        done = deployed.cli(*command, user="nobody")
        assert done.status == 2, (command, done.out)
        assert "nobody" in done.err and "Traceback" not in done.err


def ask_from_within(cluster: Cluster, node: str, token: str = "") -> str:
    """The status line that a process on the node gets which has entered the agent's network namespace."""
    pid = next(pid for pid, args in agent_processes(cluster.node(node)).items() if "agent.main" in args)
    header = f"Authorization: Bearer {token}\\r\\n" if token else ""
    script = (
        "exec 3<>/dev/tcp/127.0.0.1/9912; "
        f"printf 'GET /v1/node HTTP/1.1\\r\\nHost: a\\r\\n{header}Connection: close\\r\\n\\r\\n' >&3; head -n1 <&3"
    )
    return cluster.node(node).run("nsenter", "--target", str(pid), "--net", "bash", "-c", script).strip()


def test_requests_without_the_capability_are_refused_on_the_node_and_in_pods(own: Cluster) -> None:
    _, token = cluster_agents(kubeconfig=own.kubeconfig)
    assert ask_from_within(own, "node-1").split()[1] == "401"
    assert ask_from_within(own, "node-1", "guess" * 10).split()[1] == "401"
    assert ask_from_within(own, "node-1", token).split()[1] == "200"
    agent = find_agents(connect(kubeconfig=own.kubeconfig))[0]
    address = agent.raw.raw["status"]["podIP"]
    for node in own.nodes:  # nothing listens on the pod's address, from whichever node
        reached = node.run("bash", "-c", f"timeout 2 bash -c '</dev/tcp/{address}/9912' && echo open || echo closed")
        assert reached.strip() == "closed"


def test_a_forwarded_port_carries_both_ways_and_tells_why_it_ends(deployed: Cluster) -> None:
    client = connect(kubeconfig=deployed.kubeconfig)
    pods = deployed.api().get("/api/v1/namespaces/chat/pods?labelSelector=app.kubernetes.io/name=my-llama-finetuned")
    pod = pods["items"][0]["metadata"]["name"]
    with dial_pod(client, "chat", pod, 8080) as model:
        model.settimeout(15)
        model.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: model.recv(4096), b""))
        assert b"Directory listing" in answer and model.reason == ""
    with dial_pod(client, "chat", pod, 9) as nothing:
        nothing.settimeout(15)
        assert nothing.recv(1) == b""
        assert "connection refused" in nothing.reason, nothing.reason
    with pytest.raises(Refused) as missing:
        dial_pod(client, "chat", "no-such-pod", 8080)
    assert missing.value.status == 404


def hostile_requests(token: str) -> list[bytes]:
    auth = f"Authorization: Bearer {token}\r\n".encode()
    start = b"POST /v1/trace HTTP/1.1\r\nHost: a\r\n" + auth
    bodies = [
        b"{",
        b"[]",
        b"null",
        b"\xff" * 100,
        b'{"filters": 3}',
        b'{"filters": [], "timeout_s": 1e999}',
        b'{"filters": [{"ip": "a; rm -rf /"}]}',
        b'{"filters": [], "unknown": 1}',
        b"[" * 50_000,
        b'{"filters": [], "timeout_s": -1}',
        b'{"filters": [], "probes": ["../../etc/passwd"]}',
        b'{"filters": [{"ip": "10.0.0.1", "port": 70000}]}',
        b'{"filters":[],"probe":{"from_ip":"10.0.0.1","host":"$(id)","port":80}}',
    ]
    requests = [start + f"Content-Length: {len(b)}\r\n\r\n".encode() + b for b in bodies]
    requests += [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n" * 1000,
        b"GET " + b"a" * 100_000,
        b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        start + b"Content-Length: 99999999999\r\n\r\n" + b"x" * 100_000,
        start + b"Content-Length: -1\r\n\r\n",
        start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /v1/trace/../../etc/filters HTTP/1.1\r\nHost: a\r\n" + auth + b"\r\n",
    ]
    dice = random.Random(7)
    return requests + [dice.randbytes(dice.randrange(1, 4000)) for _ in range(20)]


def test_hostile_requests_get_an_error_and_the_agent_goes_on(deployed: Cluster) -> None:
    dials, token = cluster_agents(kubeconfig=deployed.kubeconfig)
    before = {node.name: set(agent_processes(node)) for node in deployed.nodes}
    for request in hostile_requests(token):
        with next(iter(dials.values()))() as connected:
            connected.settimeout(15)
            connected.sendall(request)
            connected.shutdown(socket.SHUT_WR)
            answer = b""
            while data := connected.recv(65536):
                answer += data
        status = answer.split(b" ", 2)[1] if answer.startswith(b"HTTP/1.1 ") else b"closed"
        assert status == b"closed" or 400 <= int(status) < 500, (request[:80], answer[:200])
    assert {type(a).__name__ for a in ask_all(dials, "/v1/hello", token).values()} == {"list"}
    assert {node.name: set(agent_processes(node)) for node in deployed.nodes} == before


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


def test_undeploy_removes_exactly_what_deploy_made(deployed: Cluster) -> None:
    api = deployed.api()

    def there() -> set[str]:
        """All that is in the cluster; in another's, where others work too, what has to do with the agents."""
        return {name for name in everything(api) if deployed.plane is not None or "genainet" in name}

    api.delete(f"{BINDINGS}/namespaces/genainet/rolebindings/test-trace")
    assert deployed.cli("undeploy").status == 0
    before = there()
    assert not [name for name in before if "genainet" in name and "genainet-test-" not in name]
    assert deployed.deploy().status == 0
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine", "namespace": "genainet"}}
    api.apply([mine])
    done = deployed.cli("undeploy")
    assert done.status == 0
    assert "holds what deploy did not make: configmaps/mine" in done.err
    api.delete("/api/v1/namespaces/genainet/configmaps/mine")
    assert "namespace genainet deleted" in deployed.cli("undeploy").out
    assert there() == before
    assert not any(agent_processes(node) for node in deployed.nodes)
    again = deployed.cli("undeploy")
    assert (again.status, again.out) == (0, "")
