"""The agents on a real cluster, in whichever mode kube-proxy is: deployed, asked by each role, attacked, removed."""

import random
import socket

import pytest
import yaml

from kubectl_genainet.kube.agents.forward import cluster_agents, find_agents
from kubectl_genainet.kube.agents.portforward import dial_pod
from kubectl_genainet.kube.client import connect
from kubectl_genainet.kube.failures import ApiError as Refused
from kubectl_genainet.stream import ask_all
from tests.cluster.harness.api import ApiError
from tests.cluster.harness.cluster import Cluster, agent_processes, everything

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
