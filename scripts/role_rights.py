"""Which rights of the roles are used: people of each do their work on a real Kubernetes, and its audit log says what was asked.

    python -m scripts.role_rights

Needs root and what tests/cluster need; some minutes. A right that nobody used is printed; exit status 1 then. Kinds that this
Kubernetes does not have are read as the others are. `escalate`, `bind` and `create` are no
requests of their own: each is taken away, and deploy fails. Not looked at: what the Prometheus Operator's kinds and an agent that
does not start need.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from kubectl_genainet.kube.agents.always import MONITORING
from kubectl_genainet.kube.agents.base import DeployOptions, always_on_extras, render
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.cluster import Cluster, Done, install_application
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.image import AGENT, ImageBuilder
from tests.cluster.harness.node import start_nodes
from tests.cluster.harness.processes import remove_leftovers

Right = tuple[str, str, str, str]  # verb, group, resource (with its subresource), name or "" for all
RBAC = "rbac.authorization.k8s.io"
TARGET = ("svc/my-llama-svc", "-n", "chat")
NOT_REQUESTS = (
    "escalate",
    "bind",
    "create",
)  # asked of who writes roles, applies what is not there yet, or forwards a port
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
# Who works with which roles.
USERS = {
    "deployer": ("genainet-admin",),
    "viewer": ("genainet-view",),
    "tracer": ("genainet-trace", "genainet-view"),
    "nobody": ("genainet-history", "genainet-view"),
    "system:serviceaccount:genainet:genainet-objects": ("genainet-view",),
    "system:serviceaccount:genainet:genainet-agent": ("genainet-names",),
}


@contextmanager
def audited_cluster() -> Iterator[tuple[Cluster, Path]]:
    """Two nodes with the application, and the API server's audit log."""
    binaries = Binaries.built()
    remove_leftovers()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "image").mkdir()
        images = ImageBuilder(binaries, folder / "image").build()
        (folder / "policy.yaml").write_text(yaml.safe_dump(AUDIT))
        flags = {
            "disable-admission-plugins": "",
            "audit-policy-file": str(folder / "policy.yaml"),
            "audit-log-path": str(folder / "audit.log"),
        }
        with ControlPlane(binaries, folder, "cluster", flags) as plane:
            plane.start_controllers()
            nodes = start_nodes(plane, 2, images)
            try:
                install_application(plane, AGENT)
                yield Cluster(str(plane.kubeconfig()), AGENT, nodes, plane), folder / "audit.log"
            finally:
                for node in nodes:
                    node.stop()


def bind(cluster: Cluster, role: str, user: str, namespace: str = "") -> None:
    cluster.api().apply(
        [
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
                "metadata": {"name": f"{user}-{role}", **({"namespace": namespace} if namespace else {})},
                "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
                "subjects": [cluster.subject(user)],
            }
        ]
    )


def work(cluster: Cluster) -> None:
    """What people of each role do, from before the first deploy to after the undeploy."""
    everything = ("--metrics", "--otlp-endpoint", "http://collector.observe:4318", "--record")
    cluster.api().apply(
        [o for o in render(DeployOptions()) if o["kind"] == "ClusterRole"]
    )  # somebody bound them before
    bind(cluster, "genainet-admin", "deployer")
    _done(cluster.deploy(user="deployer"))
    bind(cluster, "genainet-view", "viewer")
    bind(cluster, "genainet-view", "tracer")
    bind(cluster, "genainet-trace", "tracer", "genainet")
    _done(cluster.cli("explain", "deploy/chatbot-ui", *TARGET, user="viewer"))
    _done(cluster.cli("doctor", user="viewer"))
    for command in (("status",), ("trace", *TARGET, "--timeout", "5s"), ("rules", *TARGET)):
        _done(cluster.cli(*command, user="tracer"))
    _done(cluster.deploy(*everything, user="deployer"))
    bind(cluster, "genainet-view", "nobody")
    bind(cluster, "genainet-history", "nobody", "genainet")
    cluster.cli("drops", *TARGET, "--since", "1m", user="nobody")  # which may have recorded nothing yet
    _done(cluster.cli("undeploy", user="deployer"))


def _done(done: Done) -> None:
    assert done.status in (0, 1), done.err


def used_rights(log: Path) -> dict[str, set[Right]]:
    """Role -> what was asked for and granted."""
    used = defaultdict(set)
    for line in log.read_text().splitlines():
        event = json.loads(line)
        held, target = USERS.get(event["user"]["username"], ()), event.get("objectRef")
        if target and event.get("responseStatus", {}).get("code", 200) != 403:
            resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
            for role in held:
                used[role].add((event["verb"], target.get("apiGroup", ""), resource, target.get("name", "")))
    return used


def granted_rights() -> dict[str, set[Right]]:
    options = DeployOptions()
    roles = [o for o in (*render(options), *always_on_extras(options)) if o["kind"] == "ClusterRole"]
    return {role["metadata"]["name"]: {right for rule in role["rules"] for right in _rights(rule)} for role in roles}


def _rights(rule: dict[str, Any]) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                yield from ((verb, group, resource, name) for name in rule.get("resourceNames", [""]))


def is_used(right: Right, used: set[Right]) -> bool:
    verb, group, resource, name = right
    return any(u[:3] == (verb, group, resource) and name in ("", u[3]) for u in used)


def without(cluster: Cluster, verb: str, number: int) -> Done:
    """A deploy by who has the role genainet-admin but the verb in one of its rules, and finds the others' roles older."""
    (role,) = (o for o in render(DeployOptions()) if o["metadata"]["name"] == "genainet-admin")
    rules = [
        {**rule, "verbs": [v for v in rule["verbs"] if v != verb]} if i == number else rule
        for i, rule in enumerate(role["rules"])
    ]
    changed = {**role, "metadata": {"name": "less"}, "rules": [rule for rule in rules if rule["verbs"]]}
    api = cluster.api()
    api.apply([changed])
    bind(cluster, "less", "deployer")
    try:
        return cluster.deploy("--metrics", "--record", "--no-wait", user="deployer")
    finally:
        cluster.cli("undeploy")
        api.delete(f"/apis/{RBAC}/v1/clusterroles/less")


def no_requests(cluster: Cluster) -> list[str]:
    """Rules whose verb `escalate` or `bind` a deploy does without."""
    (role,) = (o for o in render(DeployOptions()) if o["metadata"]["name"] == "genainet-admin")
    spare = []
    for number, rule in enumerate(role["rules"]):
        if MONITORING in rule["apiGroups"]:  # not in this Kubernetes
            continue
        for verb in set(rule["verbs"]) & set(NOT_REQUESTS):
            done = without(cluster, verb, number)
            refusal = next((line for line in done.err.splitlines() if line.startswith("error:")), "deploy works")
            print(f"without {verb} of {', '.join(rule['resources'])}: {refusal[:150]}", flush=True)
            spare += [f"{verb} of {rule['resources']}"] * (done.status == 0)
    return spare


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with audited_cluster() as (cluster, log):
        work(cluster)
        used = used_rights(log)
        cluster.api().delete(f"/apis/{RBAC}/v1/clusterrolebindings/deployer-genainet-admin")
        spare = no_requests(cluster)
    needed = not spare
    for role, rights in granted_rights().items():
        unused = sorted(r for r in rights if r[0] not in NOT_REQUESTS and not is_used(r, used[role]))
        unused = [r for r in unused if r[1] != MONITORING and r[3] != "genainet-dashboard" and r[2] != "pods/log"]
        served = {r[1:3] for r in used["genainet-view"]}
        if role == "genainet-view":
            unused = [r for r in unused if r[1:3] in served]
        print(f"{role}: {len(rights)} rights, {len(unused)} not used", flush=True)
        for right in unused:
            print("   ", *right)
        needed &= not unused
    return 0 if needed else 1


if __name__ == "__main__":
    sys.exit(main())
