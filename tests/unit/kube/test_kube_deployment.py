"""deploy and undeploy against an API that remembers: what is made, and that nothing of it stays, nor anything else goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.agents.base import DeployOptions
from kubectl_genainet.kube.agents.deployment import AppliedObject, api_server_port, deploy, has_monitoring, undeploy
from kubectl_genainet.kube.agents.progress import wait_for_rollout
from kubectl_genainet.kube.agents.record import RecordChoices
from kubectl_genainet.kube.client import KubeClient, connect

DAEMONSET = "/apis/apps/v1/namespaces/genainet/daemonsets/genainet-agent"
GROUPS = ["apps", "networking.k8s.io", "rbac.authorization.k8s.io", "scheduling.k8s.io"]
ENDPOINTS = "/api/v1/namespaces/default/endpoints/kubernetes"


class Remembering(ThreadingHTTPServer):
    """Objects by path. `monitoring`: whether the Prometheus Operator's kinds are there."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, dict[str, Any]] = {}
        self.monitoring = True

    def put(self, path: str, obj: dict[str, Any]) -> None:
        obj["metadata"].setdefault("uid", f"uid-{len(self.objects)}")
        self.objects[path] = obj

    def lacks(self, path: str) -> bool:
        return "monitoring.coreos.com" in path and not self.monitoring


class Handler(BaseHTTPRequestHandler):
    server: Remembering

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        return found

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/apis":
            names = GROUPS + ["monitoring.coreos.com"] * self.server.monitoring
            groups = [{"name": n, "preferredVersion": {"groupVersion": f"{n}/v1"}} for n in names]
            self.answer(200, {"groups": groups})
        elif path in self.server.objects and not self.server.lacks(path):
            self.answer(200, self.server.objects[path])
        elif path.endswith("/v1"):  # discovery: nothing that could be listed
            self.answer(200, {"resources": [{"name": "configmaps", "namespaced": True, "verbs": ["list"]}]})
        elif path.rpartition("/")[2] in ("pods", "configmaps"):
            under = [o for p, o in self.server.objects.items() if p.startswith(path + "/")]
            self.answer(200, {"items": under})
        else:
            self.answer(404, {"message": f"{path} not found", "reason": "NotFound"})

    def do_PATCH(self) -> None:
        url, obj = urlsplit(self.path), self.body()
        path, namespace = url.path, obj["metadata"].get("namespace")
        if namespace and f"/api/v1/namespaces/{namespace}" not in self.server.objects:
            self.answer(404, {"message": f'namespaces "{namespace}" not found', "reason": "NotFound"})
            return
        if self.server.lacks(path):
            self.answer(404, {"message": "the server could not find the requested resource"})
            return
        if "dryRun=All" not in url.query:
            self.server.put(path, obj)
        self.answer(200, obj)

    def do_POST(self) -> None:
        obj = self.body()
        self.server.put(f"{self.path}/{obj['metadata']['name']}", obj)
        self.answer(201, obj)

    def do_DELETE(self) -> None:
        self.body()
        self.server.objects.pop(self.path)
        self.answer(200, {})


@pytest.fixture
def api() -> Iterator[Remembering]:
    with Remembering() as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(api: Remembering, tmp_path: Path) -> Iterator[KubeClient]:
    cluster = {"server": f"http://127.0.0.1:{api.server_port}"}
    config = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    found = connect(kubeconfig=str(tmp_path / "config"))
    yield found
    found._pool.clear()


def metrics(client: KubeClient) -> DeployOptions:
    """As `deploy --metrics` asks for them."""
    return DeployOptions(metrics=True, monitoring=has_monitoring(client), api_port=api_server_port(client))


def removed(client: KubeClient) -> list[AppliedObject]:
    return list(undeploy(client, "genainet", 5))


def kinds(api: Remembering) -> set[str]:
    return {o["kind"] for o in api.objects.values()}


def test_undeploy_removes_what_deploy_made_for_prometheus_and_grafana(api: Remembering, client: KubeClient) -> None:
    theirs = "/apis/monitoring.coreos.com/v1/namespaces/monitoring/servicemonitors/of-somebody-else"
    api.put(theirs, {"kind": "ServiceMonitor", "metadata": {"name": "of-somebody-else"}})
    steps = list(deploy(client, metrics(client)))
    assert {step.outcome for step in steps} == {"created"}
    assert {"ServiceMonitor", "PrometheusRule", "ConfigMap", "ClusterRoleBinding"} <= kinds(api)
    assert {step.outcome for step in removed(client)} == {"deleted"}
    assert api.objects.keys() == {theirs}


def test_without_the_operators_kinds_nothing_of_them_is_made_or_missed(api: Remembering, client: KubeClient) -> None:
    api.monitoring = False
    list(deploy(client, metrics(client)))
    assert not {"ServiceMonitor", "PrometheusRule", "ConfigMap"} & kinds(api)
    assert {step.outcome for step in removed(client)} == {"deleted"}
    assert api.objects == {}


def test_a_deploy_without_metrics_takes_away_what_one_with_them_made(api: Remembering, client: KubeClient) -> None:
    list(deploy(client, DeployOptions()))
    plain = set(api.objects)
    list(deploy(client, metrics(client)))
    assert set(api.objects) > plain
    assert {s.outcome for s in deploy(client, DeployOptions())} == {"unchanged", "configured", "deleted"}
    assert set(api.objects) == plain


def test_a_first_dry_run_checks_what_needs_no_namespace_and_says_so(api: Remembering, client: KubeClient) -> None:
    steps = list(deploy(client, DeployOptions(), dry_run=True))
    assert api.objects == {}
    outcomes = {step.object: step.outcome for step in steps}
    assert outcomes["namespace genainet"] == outcomes["clusterrole genainet-trace"] == "created"
    assert outcomes["daemonset genainet/genainet-agent"] == "not checked"
    assert [(step.object, step.note) for step in steps if step.note] == [
        ("namespace genainet", "it does not exist yet: the server checks nothing that belongs into it")
    ]
    list(deploy(client, DeployOptions()))
    again = list(deploy(client, DeployOptions(), dry_run=True))
    assert {(step.outcome, step.note) for step in again} == {("unchanged", "")}


def test_a_deploy_waits_for_what_an_undeploy_is_still_removing(api: Remembering, client: KubeClient) -> None:
    list(deploy(client, DeployOptions()))
    api.objects[DAEMONSET]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    steps = deploy(client, DeployOptions(), 30)
    waiting = next(step for step in steps if step.outcome == "waiting")
    assert waiting.object == "daemonset genainet/genainet-agent"
    api.objects.pop(DAEMONSET)
    assert [s.outcome for s in steps if s.object == waiting.object] == ["created"]


def test_what_is_never_removed_ends_a_deploy(api: Remembering, client: KubeClient) -> None:
    list(deploy(client, DeployOptions()))
    api.objects[DAEMONSET]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(GenainetError, match="genainet-agent is still being deleted after 0 s"):
        list(deploy(client, DeployOptions(), 0.1))
    assert "waiting" not in {s.outcome for s in deploy(client, DeployOptions(), 0, dry_run=True)}


def test_what_somebody_else_made_under_the_same_name_stays(api: Remembering, client: KubeClient) -> None:
    theirs = "/apis/monitoring.coreos.com/v1/namespaces/genainet/servicemonitors/genainet-agent"
    list(deploy(client, DeployOptions()))
    api.put(theirs, {"kind": "ServiceMonitor", "metadata": {"name": "genainet-agent", "namespace": "genainet"}})
    steps = removed(client)
    assert [s.object for s in steps if s.outcome == "kept"] == ["servicemonitor genainet/genainet-agent"]
    assert theirs in api.objects


@pytest.mark.parametrize(
    ("found", "port"),
    [({"subsets": [{"ports": [{"port": 8443}]}]}, 8443), ({"subsets": []}, 0), ({}, 0), (None, 0)],
)
def test_the_api_servers_port_is_found_or_not_known(
    api: Remembering, client: KubeClient, found: dict[str, Any] | None, port: int
) -> None:
    if found is not None:
        api.put(ENDPOINTS, {**found, "metadata": {"name": "kubernetes"}})
    assert api_server_port(client) == port


@pytest.mark.parametrize(("minor", "has_field"), [("37", True), ("30+", True), ("29", False), ("20", False)])
def test_the_apparmor_profile_is_a_field_where_the_api_has_it(
    api: Remembering, client: KubeClient, minor: str, has_field: bool
) -> None:
    api.objects["/version"] = {"major": "1", "minor": minor}
    list(deploy(client, DeployOptions()))
    (daemonset,) = [o for path, o in api.objects.items() if path.endswith("/daemonsets/genainet-agent")]
    template = daemonset["spec"]["template"]
    agent = next(c for c in template["spec"]["containers"] if c["name"] == "agent")
    field = agent["securityContext"].get("appArmorProfile")
    annotated = any("apparmor" in key for key in template["metadata"].get("annotations", {}))
    assert (field, annotated) == (({"type": "Unconfined"}, False) if has_field else (None, True))


def test_a_rollout_waits_for_the_recorder_of_objects_too(api: Remembering, client: KubeClient) -> None:
    list(deploy(client, DeployOptions(record=RecordChoices())))
    api.objects[DAEMONSET]["status"] = {"desiredNumberScheduled": 1, "numberReady": 1, "updatedNumberScheduled": 1}
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off"}
    ended = {"terminated": {"exitCode": 1, "message": "genainet-objects: the folder can't be made"}}
    container = {"name": "objects", "ready": False, "state": {"waiting": waiting}, "lastState": ended}
    pod = {
        "metadata": {"name": "genainet-objects-x", "namespace": "genainet", "uid": "1"},
        "spec": {"nodeName": "n1"},
        "status": {"containerStatuses": [container]},
    }
    api.put("/api/v1/namespaces/genainet/pods", {"metadata": {}, "items": [pod]})
    api.put("/api/v1/namespaces/genainet/events", {"metadata": {}, "items": []})
    with pytest.raises(GenainetError) as refused:
        wait_for_rollout(client, "genainet", 0, lambda _: None)
    assert "1 of 1 agents are ready" in refused.value.message
    assert "genainet-objects: it ended with status 1: genainet-objects: the folder can't" in refused.value.message
    deployment = api.objects["/apis/apps/v1/namespaces/genainet/deployments/genainet-objects"]
    deployment["status"] = {"readyReplicas": 1, "updatedReplicas": 1}
    assert wait_for_rollout(client, "genainet", 0, lambda _: None).complete
