"""deploy, status, version and undeploy, against an API server in memory; the agents are replaced at their sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kubectl_genainet import __version__, wire
from kubectl_genainet.cli import cli
from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.kube.agents.base import AGENT, NAMESPACE, VERSION_LABEL
from kubectl_genainet.model.events import Hello
from kubectl_genainet.run.fleet import status
from kubectl_genainet.run.fleet.status import lab_fleet
from tests.unit.commands.fake_api import VERSION, FakeApi, Object, fake_api
from tests.unit.commands.live_output import saying

DAEMONSET = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{AGENT}"


class Cluster:
    def __init__(self, api: FakeApi, kubeconfig: str) -> None:
        self.api, self.kubeconfig = api, kubeconfig

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--kubeconfig", self.kubeconfig], standalone_mode=False)

    def deploy(self) -> Result:
        return self.run("deploy", "--image", "registry.example/agent:1", "--no-wait")

    def node(self, name: str, *, ready: bool, version: str = __version__) -> None:
        """A node, and its agent as the DaemonSet's controller would make it."""
        self.api.put(f"/api/v1/nodes/{name}", {"kind": "Node", "metadata": {"name": name}})
        labels = {"app.kubernetes.io/name": AGENT, VERSION_LABEL: version}
        pod = {
            "kind": "Pod",
            "metadata": {"name": f"{AGENT}-{name}", "namespace": NAMESPACE, "labels": labels},
            "spec": {"nodeName": name, "containers": [{"name": "agent"}]},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                "containerStatuses": [{"name": "agent", "ready": ready, "state": {"running": {}}}],
            },
        }
        self.api.put(f"/api/v1/namespaces/{NAMESPACE}/pods/{AGENT}-{name}", pod)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.delenv("GENAINET_NAMESPACE", raising=False)
    with fake_api(tmp_path) as (api, kubeconfig):
        yield Cluster(api, kubeconfig)


def answering(node: str, version: str = __version__) -> Callable[[], socket.socket]:
    """An agent that says who it is."""
    return saying(
        Hello(
            node=node,
            protocol=wire.PROTOCOL,
            version=version,
            kernel="6.18.0",
            boot_id=node,
            t_ns=0,
            realtime_ns=0,
            tier="kprobe",
        )
    )


def test_deploy_applies_everything_and_makes_the_capability_once(cluster: Cluster) -> None:
    first = cluster.deploy()
    assert first.exception is None and f"daemonset {NAMESPACE}/{AGENT} created" in first.stdout
    secrets = [path for method, path in cluster.api.requests if method == "POST" and path.endswith("/secrets")]
    assert DAEMONSET in cluster.api.objects and len(secrets) == 1
    again = cluster.deploy()
    assert again.exception is None
    assert len([p for m, p in cluster.api.requests if m == "POST" and p.endswith("/secrets")]) == 1


def test_undeploy_leaves_nothing_of_deploys_and_nothing_else_goes(cluster: Cluster) -> None:
    other = f"/api/v1/namespaces/{NAMESPACE}/configmaps/mine"
    cluster.api.put("/api/v1/namespaces/default", {"kind": "Namespace", "metadata": {"name": "default"}})
    cluster.deploy()
    cluster.api.put(other, {"kind": "ConfigMap", "metadata": {"name": "mine", "namespace": NAMESPACE}})
    done = cluster.run("undeploy", "--no-wait")
    assert done.exception is None and "deleted" in done.stdout
    left = set(cluster.api.objects)
    assert DAEMONSET not in left and {other, "/api/v1/namespaces/default"} <= left
    assert not any("genainet" in path.rpartition("/")[2] for path in left - {f"/api/v1/namespaces/{NAMESPACE}"})


def test_undeploy_without_a_deployment_says_so(cluster: Cluster) -> None:
    done = cluster.run("undeploy")
    assert done.exception is None and done.stdout == ""
    assert f"nothing of deploy's is in the cluster (namespace {NAMESPACE})" in done.stderr


def test_undeploy_waits_for_agents_and_names_the_node_that_does_not_end(cluster: Cluster) -> None:
    cluster.deploy()
    cluster.node("node-7", ready=True)
    done = cluster.run("undeploy", "--timeout", "1s")
    assert isinstance(done.exception, GenainetError) and "node-7" in done.exception.message


def test_status_tells_the_agent_that_answers_from_the_one_that_is_not_ready(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_genainet.kube.agents.survey.dialler", lambda _, agent: answering(agent.node))
    cluster.deploy()
    cluster.node("node-1", ready=True)
    cluster.node("node-2", ready=False)
    cluster.api.put("/api/v1/nodes/node-3", {"kind": "Node", "metadata": {"name": "node-3"}})
    done = cluster.run("status", "-o", "json")
    rows = {row["node"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert {node: row["state"] for node, row in rows.items()} == {
        "node-1": "ready",
        "node-2": "not ready",
        "node-3": "none",
    }
    assert (rows["node-1"]["kernel"], rows["node-1"]["tier"]) == ("6.18.0", "kprobe")
    assert done.return_value is ExitStatus.FOUND


def test_status_ends_in_its_time_whoever_trickles(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent whose answer has no end is one more part of all that `status` waits for."""

    def trickling() -> socket.socket:
        ours, theirs = socket.socketpair()
        threading.Thread(target=trickle, args=(theirs,), daemon=True).start()
        return ours

    def trickle(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while True:
                sock.sendall(b"H")
                time.sleep(0.05)

    cluster.deploy()
    cluster.node("node-1", ready=True)
    monkeypatch.setattr("kubectl_genainet.kube.agents.survey.dialler", lambda _, agent: trickling)
    monkeypatch.setattr(status, "STATUS_S", 2.0)
    begun = time.monotonic()
    done = cluster.run("status", "-o", "json")
    assert time.monotonic() - begun < 10
    (row,) = map(json.loads, done.stdout.splitlines())
    assert row["state"] == "silent" and "has not answered within" in row["problem"]


def test_status_of_a_cluster_where_all_answer_is_ok(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_genainet.kube.agents.survey.dialler", lambda _, agent: answering(agent.node))
    cluster.deploy()
    cluster.node("node-1", ready=True)
    for output in ("table", "wide", "yaml"):
        done = cluster.run("status", "-o", output)
        assert done.exception is None and "node-1" in done.stdout and done.return_value is ExitStatus.OK


def test_a_watched_status_shows_a_node_again_when_it_changes(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_genainet.kube.agents.survey.dialler", lambda _, agent: answering(agent.node))
    cluster.deploy()
    cluster.node("node-1", ready=True)
    cluster.node("node-2", ready=False)
    looks = iter((lambda: None, lambda: cluster.node("node-2", ready=True)))

    def between(_: float) -> None:
        look = next(looks, None)
        if look is None:
            raise KeyboardInterrupt
        look()

    monkeypatch.setattr("kubectl_genainet.run.watch.sleep", between)
    done = cluster.run("status", "--watch", "-o", "jsonpath={.node} {.state}")
    assert done.stdout.splitlines() == ["node-1 ready", "node-2 not ready", "node-2 ready"]
    assert cluster.run("status", "-o", "name").stdout.splitlines() == ["node/node-1", "node/node-2"]


@pytest.mark.parametrize("command", [("deploy", "--no-wait"), ("undeploy",), ("status",), ("version",)])
def test_the_api_server_is_asked_as_another_user(cluster: Cluster, command: tuple[str, ...]) -> None:
    cluster.run(*command, "--as", "ana", "--as-group", "sre", "--as-group", "system:masters")
    assert cluster.api.users == {("ana", ("sre", "system:masters"))}


def test_a_watched_status_warns_of_the_same_thing_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_genainet.kube.agents.survey.dialler", lambda _, agent: answering(agent.node, "0.0.1"))
    cluster.deploy()
    cluster.node("node-1", ready=True)
    rounds = iter(range(3))

    def between(_: float) -> None:
        if next(rounds, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr("kubectl_genainet.run.watch.sleep", between)
    assert cluster.run("status", "--watch").stderr.count("warning:") == 1


def test_status_warns_of_the_version_that_an_agent_says_itself(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its label is of the client that deployed it; `deploy --image` may have named an older image."""
    monkeypatch.setattr("kubectl_genainet.kube.agents.survey.dialler", lambda _, agent: answering(agent.node, "0.0.1"))
    cluster.deploy()
    cluster.node("node-1", ready=True)
    warning = f"warning: agents of version 0.0.1 run, this client is {__version__}: run `kubectl genainet deploy --kubeconfig "
    assert warning in cluster.run("status").stderr


def test_deploy_says_that_agents_run_in_another_namespace(cluster: Cluster) -> None:
    """Two agents on a node: those of an older version have another lock for --exact."""
    older = {"name": AGENT, "namespace": "older", "labels": {"app.kubernetes.io/name": AGENT, VERSION_LABEL: "0.0.1"}}
    cluster.api.put(f"/apis/apps/v1/daemonsets/{AGENT}", {"metadata": older})
    said = cluster.deploy()
    assert f"daemonset older/{AGENT} kept\n" in said.stdout
    assert "agents of version 0.0.1 run in namespace older too" in said.stderr
    assert "`kubectl genainet undeploy -n older` removes them" in said.stderr


def test_deploy_goes_on_where_the_user_may_not_look_into_other_namespaces(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = cluster.api.answer

    def answering_no(method: str, path: str, *rest: Any) -> tuple[int, Object]:
        return (403, {"message": "no"}) if path == "/apis/apps/v1/daemonsets" else answer(method, path, *rest)

    monkeypatch.setattr(cluster.api, "answer", answering_no)
    assert cluster.deploy().exception is None


def test_a_labs_agents_are_told_as_those_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> socket.socket:
        raise OSError("no such file")

    dials = {"node-1": answering("node-1", "0.0.1"), "node-2": silent}
    agents = SimpleNamespace(dials=dials)
    monkeypatch.setattr("kubectl_genainet.run.sources.lab.LabSource", lambda _: SimpleNamespace(agents=lambda: agents))
    found = lab_fleet("default")
    assert [(row.node, row.state, row.version) for row in found.nodes] == [
        ("node-1", "ready", "0.0.1"),
        ("node-2", "silent", ""),
    ]
    assert found.warnings == (f"agents of version 0.0.1 run, this client is {__version__}: make the lab anew",)


def test_status_without_agents_is_an_error_that_names_deploy(cluster: Cluster) -> None:
    done = cluster.run("status")
    assert isinstance(done.exception, GenainetError) and "deploy" in done.exception.hint


def test_version_names_client_server_and_agents(cluster: Cluster) -> None:
    cluster.deploy()
    cluster.node("node-1", ready=True)
    cluster.node("node-2", ready=True, version="0.0.1")
    done = cluster.run("version")
    assert f"client {__version__} (protocol {wire.PROTOCOL})" in done.stdout
    assert f"server {VERSION}" in done.stdout and "agents 0.0.1 on 1 node" in done.stdout
    assert "warning:" in done.stderr and "0.0.1" in done.stderr


def test_version_answers_without_a_cluster(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["version", "-o", "json", "--kubeconfig", str(tmp_path / "none")])
    assert json.loads(done.stdout) == {"client": __version__, "protocol": wire.PROTOCOL, "server": None, "agents": None}
    assert "warning: there is no kubeconfig" in done.stderr


def test_version_of_the_client_asks_nobody(cluster: Cluster) -> None:
    done = cluster.run("version", "--client")
    assert done.stdout == f"client {__version__} (protocol {wire.PROTOCOL})\n" and done.stderr == ""
