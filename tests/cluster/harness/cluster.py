"""A cluster to test live commands on: two whole nodes with the chatbot application, or any other cluster.

GENAINET_TEST_KUBECONFIG names another cluster's kubeconfig (of an administrator); GENAINET_TEST_IMAGE the agent's image
there. Users are service accounts then. Tests that break nodes, or look into them, need nodes of their own and skip.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.harness.binaries import NEWEST
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.dns import coredns_objects, start_upstream
from tests.cluster.harness.image import AGENT
from tests.cluster.harness.node import KubeNode
from tests.cluster.harness.other import NAMESPACE, OtherApi, service_account_config
from tests.cluster.harness.processes import wait_for

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Done:
    """What a command gave. Named as subprocess names it, without its exceptions."""

    status: int
    out: str
    err: str
    seconds: float


@dataclass
class Cluster:
    """`nodes` and `plane` are the harness's own; empty and None on another cluster."""

    kubeconfig: str
    image: str = AGENT
    nodes: list[KubeNode] = field(default_factory=list)
    plane: ControlPlane | None = None
    _users: dict[str, str] = field(default_factory=dict, repr=False)  # kubeconfigs of users of another cluster

    def config_of(self, user: str) -> str:
        """The kubeconfig of a user, who may do nothing unless a test binds roles to `subject(user)`."""
        if user == "admin":
            return self.kubeconfig
        if self.plane is not None:
            return str(self.plane.kubeconfig(user))
        if user not in self._users:
            self._users[user] = service_account_config(self.kubeconfig, self.api(), f"genainet-test-{user}")
        return self._users[user]

    def subject(self, user: str) -> dict[str, str]:
        """Who that is in a binding."""
        if self.plane is not None:
            return {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
        return {"kind": "ServiceAccount", "name": f"genainet-test-{user}", "namespace": NAMESPACE}

    def api(self, user: str = "admin") -> Any:
        """The API as a user: get, create, apply, patch, delete, request, which raise harness.api.ApiError."""
        return self.plane.api(user) if self.plane is not None else OtherApi(self.config_of(user))

    def start(
        self, *argv: str, user: str = "admin", stdout: Any = subprocess.PIPE, stderr: Any = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """The command line as a user types it, running."""
        command = [sys.executable, "-m", "kubectl_genainet", *argv, "--kubeconfig", self.config_of(user)]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True)

    def cli(self, *argv: str, user: str = "admin", timeout: float = 240) -> Done:
        return finish(self.start(*argv, user=user), timeout)

    @contextlib.contextmanager
    def watching(self, *commands: Sequence[str]) -> Iterator[list[Done]]:
        """Command lines that run meanwhile: it is entered once each of them watches on all nodes, Ctrl-C ends them, and what they
        gave is in the list then. They write to files, since one whose pipe is full would wait."""
        nodes, done, begun = ", ".join(node.name for node in self.nodes), list[Done](), time.monotonic()
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            files = [(Path(folder, f"{number}.out"), Path(folder, f"{number}.err")) for number in range(len(commands))]
            runs = []
            for argv, (out, err) in zip(commands, files, strict=True):
                with out.open("w") as stdout, err.open("w") as stderr:
                    runs.append(stack.enter_context(self.start(*argv, stdout=stdout, stderr=stderr)))
            try:
                for _, err in files:
                    wait_for("the probes", lambda err=err: f"watching on {nodes}\n" in err.read_text(), 120)  # type: ignore[misc]
                yield done
            finally:
                for run in runs:
                    run.send_signal(signal.SIGINT)
            for run, (out, err) in zip(runs, files, strict=True):
                status = run.wait(120)
                done.append(Done(status, out.read_text(), err.read_text(), time.monotonic() - begun))

    def deploy(self, *argv: str, user: str = "admin") -> Done:
        # An ended pod may be kept for a while, and a changed DaemonSet is rolled out node by node.
        argv = ("deploy", "--image", self.image, "--timeout", "200s", *argv)
        return self.cli(*argv, user=user, timeout=420)

    @property
    def proxy_mode(self) -> str:
        """kube-proxy's, on nodes of the harness's own."""
        return self.plane.proxy_mode if self.plane is not None else ""

    @property
    def service_chains(self) -> str:
        """How the names of kube-proxy's chains of Services begin, on nodes of the harness's own."""
        return {"iptables": "KUBE-SVC-", "nftables": "service-"}[self.proxy_mode]

    def node(self, name: str) -> KubeNode:
        return next(node for node in self.nodes if node.name == name)

    def run_kube_proxies(self, mode: str, release: str = NEWEST) -> None:
        """Has every node's kube-proxy of this mode and release; returns once its rules are there."""
        assert self.plane is not None
        self.plane.proxy_mode = mode
        changed = [node for node in self.nodes if (node.proxy_mode, node.proxy_release) != (mode, release)]
        for node in changed:
            node.route_services(nowhere=True)
            node.run_kube_proxy(mode, release)
        for node in changed:
            wait_for(f"the rules of {node.name}", partial(_has_rules, node), 240)
            node.route_services()


def _has_rules(node: KubeNode) -> bool:
    begins = "" if node.proxy_mode == "nftables" else "-A KUBE-SERVICES "
    return any(line.startswith(begins) and "my-llama-svc" in line for line in node.proxy_rules().splitlines())


def finish(process: subprocess.Popen[str], timeout: float = 120) -> Done:
    started = time.monotonic()
    out, err = process.communicate(timeout=timeout)
    return Done(process.returncode, out, err, time.monotonic() - started)


def rows(text: str) -> list[dict[str, Any]]:
    """What `-o json` printed, an object a line."""
    return [json.loads(line) for line in text.splitlines()]


def install_application(plane: ControlPlane, image: str) -> None:
    """The chatbot application and CoreDNS, ready; the clients on node-1, CoreDNS on node-2."""
    api = plane.api()
    folder = Path(__file__).parents[1]
    objects = _documents(folder / "chatbot.yaml", image)
    _pin(objects, {"chatbot-ui": "node-1", "rag-app": "node-1"})
    api.apply(sorted(objects, key=lambda o: ["Namespace", "Service", "Deployment"].index(o["kind"])))
    start_upstream(plane)
    api.apply(coredns_objects(plane, image, "node-2"))

    def ready() -> bool:
        deployments = api.get("/apis/apps/v1/deployments")["items"]
        return all(d.get("status", {}).get("readyReplicas", 0) == d["spec"]["replicas"] for d in deployments)

    wait_for("the chatbot application", ready, 400)


def _documents(path: Path, image: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text().replace(AGENT, image)))


def _pin(objects: list[dict[str, Any]], nodes: dict[str, str]) -> None:
    for obj in objects:
        if obj["kind"] == "Deployment" and obj["metadata"]["name"] in nodes:
            node = nodes[obj["metadata"]["name"]]
            obj["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}


def role_bindings(cluster: Cluster) -> list[dict[str, Any]]:
    """Users for the three roles: viewer; tracer, who is a viewer as well; deployer. `nobody` has none."""

    def binding(name: str, role: str, *users: str, namespace: str = "") -> dict[str, Any]:
        return {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
            "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [cluster.subject(user) for user in users],
        }

    return [
        binding("test-view", "genainet-view", "viewer", "tracer"),
        binding("test-admin", "genainet-admin", "deployer"),
        binding("test-trace", "genainet-trace", "tracer", namespace="genainet"),
    ]


def agent_processes(node: KubeNode) -> dict[int, str]:
    """The agent's processes on a node, by the node's own PIDs."""
    listed = node.run("ps", "-e", "-o", "pid=,args=")
    columns = (line.strip().partition(" ") for line in listed.splitlines())
    return {int(pid): args for pid, _, args in columns if "kubectl_genainet.agent" in args}


def everything(api: Any) -> set[str]:
    """Every object in the cluster that can be listed, but for what changes by itself."""
    objects: set[str] = set()
    groups = ["/api/v1", *(f"/apis/{g['preferredVersion']['groupVersion']}" for g in api.get("/apis")["groups"])]
    for root in groups:
        for resource in api.get(root)["resources"]:
            name = resource["name"]
            if (
                "list" in resource["verbs"]
                and "/" not in name
                and name not in ("events", "leases", "componentstatuses")
            ):
                items = api.get(f"{root}/{name}")["items"] or []
                objects |= {f"{name} {i['metadata'].get('namespace', '')}/{i['metadata']['name']}" for i in items}
    return objects
