"""A cluster to test live commands on: two whole nodes with the chatbot application, or any other cluster.

GENAINET_TEST_KUBECONFIG names another cluster's kubeconfig (of an administrator); GENAINET_TEST_IMAGE the agent's image
there. Users are service accounts then. Tests that break nodes, or look into them, need nodes of their own and skip.
"""

from __future__ import annotations

import contextlib
import json
import re
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

from tests.cluster.harness.api import may
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
        gave is in the list then."""
        done = list[Done]()
        with contextlib.ExitStack() as stack:
            runs = [stack.enter_context(Watching(self, argv)) for argv in commands]
            try:
                for run in runs:
                    run.wait()
                yield done
            finally:
                for run in runs:
                    run.interrupt()
            done += [run.finish(120) for run in runs]

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
        """Has every node's kube-proxy of this mode and release; returns once its rules lead to every pod of the Services."""
        assert self.plane is not None
        self.plane.proxy_mode = mode
        changed = [node for node in self.nodes if (node.proxy_mode, node.proxy_release) != (mode, release)]
        for node in changed:
            node.route_services(nowhere=True)
            node.run_kube_proxy(mode, release)
        self.wait_for_rules()
        for node in changed:
            node.route_services()

    def wait_for_rules(self) -> None:
        """Until the application's pods are ready, and each node's kube-proxy has written rules that lead to all of them: an
        endpoint is listed after its pod is ready, and is in the rules of one node after those of another."""
        wait_for("the workloads", partial(workloads_ready, self.api()), 400)
        for node in self.nodes:
            wait_for(f"the rules of {node.name}", partial(self._leads_to_all, node), 240)

    def _leads_to_all(self, node: KubeNode) -> bool:
        backends = service_backends(self.api())
        return bool(backends) and set(_POD_BACKEND.findall(node.proxy_rules())) >= backends


_PODS = "10.244."
# A pod's address before a port; nft prints both of a map's entry as "IP . PORT".
_POD_BACKEND = re.compile(rf"\b({re.escape(_PODS)}\d+\.\d+)(?::| \. )\d+\b")


def service_backends(api: Any) -> set[str]:
    """The addresses of the ready pods that Services with a cluster IP select."""
    pods = [pod for pod in api.get("/api/v1/pods")["items"] if _is_ready(pod)]
    found: set[str] = set()
    for service in api.get("/api/v1/services")["items"]:
        spec, namespace = service["spec"], service["metadata"]["namespace"]
        if spec.get("selector") and spec.get("clusterIP") != "None":
            own = [pod for pod in pods if pod["metadata"]["namespace"] == namespace]
            labels = [(pod["status"]["podIP"], pod["metadata"].get("labels", {})) for pod in own]
            found |= {ip for ip, have in labels if spec["selector"].items() <= have.items()}
    return {ip for ip in found if ip.startswith(_PODS)}


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and not pod["metadata"].get("deletionTimestamp")


def workloads_ready(api: Any) -> bool:
    return all(rolled_out(deployment) for deployment in api.get("/apis/apps/v1/deployments")["items"])


def rolled_out(deployment: dict[str, Any]) -> bool:
    """Whether the pods of its newest template, and no others, are there and ready."""
    status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    return bool(
        status.get("observedGeneration") == deployment["metadata"]["generation"]
        and status.get("updatedReplicas") == status.get("readyReplicas") == status.get("replicas") == wanted
    )


class Watching:
    """A command line that runs beside the test, for a context. It writes to files, since one whose pipe is full would wait."""

    def __init__(self, cluster: Cluster, argv: Sequence[str], user: str = "admin") -> None:
        self._nodes, self._begun = ", ".join(node.name for node in cluster.nodes), time.monotonic()
        self._folder = tempfile.TemporaryDirectory()
        self._out, self._err = Path(self._folder.name, "out"), Path(self._folder.name, "err")
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = cluster.start(*argv, user=user, stdout=out, stderr=err)

    def wait(self) -> None:
        """Until it watches on all nodes; on another cluster, on some. Each agent's `--timeout` begins when its own probes are
        attached, and on a busy machine one may be over before the next begins: what two nodes see together waits for both."""
        watching = f"watching on {self._nodes}\n" if self._nodes else "watching on "
        wait_for("the probes", lambda: watching in self.said(), 240)

    def said(self) -> str:
        """What it has printed for people until now."""
        return self._err.read_text()

    def printed(self) -> str:
        """The whole lines that it has printed as data until now."""
        return self._out.read_text().rpartition("\n")[0]

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def finish(self, timeout: float) -> Done:
        status = self.process.wait(timeout)
        return Done(status, self._out.read_text(), self._err.read_text(), time.monotonic() - self._begun)

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()


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
    wait_for("the chatbot application", partial(workloads_ready, api), 400)


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


def bind_roles(cluster: Cluster) -> None:
    """Returns once the API server goes by the bindings: it follows them by a watch."""
    cluster.api().apply(role_bindings(cluster))
    for user, verb, resource in (
        ("viewer", "list", "pods"),
        ("tracer", "list", "pods"),
        ("tracer", "create", "pods/portforward"),
        ("deployer", "create", "namespaces"),
    ):
        wait_for(f"{user}'s role", partial(may, cluster.api(user), verb, resource, "genainet"))


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
