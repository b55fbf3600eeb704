"""What `explain` prints of the two ends of a flow: a pod, a node, a pod on its node's network, a port of another node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kubectl_genainet.cli import cli
from tests.unit.policy.policy_cluster import Raw, labels, namespace, netpol, node, pod

_SERVICE: Raw = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "db", "namespace": "a"},
    "spec": {
        "type": "NodePort",
        "selector": {"app": "db"},
        "clusterIP": "10.96.0.10",
        "ports": [{"port": 80, "targetPort": 80, "nodePort": 30080}],
    },
}


def on_host(raw: Raw) -> Raw:
    return {**raw, "spec": {**raw["spec"], "hostNetwork": True}}


_CLUSTER = (
    namespace("a"),
    node("n1", "192.168.0.1"),
    node("n2", "192.168.0.2"),
    node("n3", "192.168.0.3"),
    pod("a/web", "10.0.0.1", node="n1", labels={"app": "web"}),
    pod("a/db", "10.0.0.2", node="n2", labels={"app": "db"}),
    on_host(pod("a/host", "192.168.0.2", node="n2", labels={"app": "host"})),
    _SERVICE,
    netpol("a/in", podSelector=labels(app="db"), policyTypes=["Ingress"]),
)
_CLOSED = "deny, isolated by NetworkPolicy a/in; no rule admits the flow"
_OPEN = "allow, no policy selects the pod, or none of their rules applies"
_OUT, _HOST = "  egress from a/web: ", "the pod uses its node's network, and policies don't select such pods"
_ISOLATES = "    NetworkPolicy a/in: isolates the pod and has no rule"


def said(folder: Path, source: str, target: str) -> list[str]:
    """The lines before the patch."""
    path = folder / "all.json"
    path.write_text(json.dumps(_CLUSTER))
    command = ["explain", "--manifests", str(path), "-n", "a", "--enforcer", "antrea", source, target]
    answer, *_ = CliRunner().invoke(cli, command).stdout.partition("  to admit it")
    head = answer.splitlines()
    assert head[0] == "Policies are enforced by Antrea."
    return head[2:]


@pytest.mark.parametrize(
    ("source", "target", "lines"),
    [
        ("pod/web", "pod/db:80", [f"{_OUT}{_OPEN}", f"  ingress into a/db: {_CLOSED}", _ISOLATES]),
        (
            "pod/web",
            "192.168.0.3:30080",
            [
                "  the connection is sent to 192.168.0.3:30080; that node makes a/db TCP 80 of it",
                f"{_OUT}{_OPEN}",
                f"  ingress into a/db: {_CLOSED}",
                _ISOLATES,
            ],
        ),
        (
            "pod/web",
            "192.168.0.2:22",
            [f"{_OUT}{_OPEN}", "  ingress into 192.168.0.2: allow, not a pod, so no policy governs this end"],
        ),
        ("pod/web", "pod/host:80", [f"{_OUT}{_OPEN}", f"  ingress into a/host: allow, {_HOST}"]),
        ("pod/host", "pod/web:80", [f"  egress from a/host: allow, {_HOST}", f"  ingress into a/web: {_OPEN}"]),
        (
            "192.168.0.2",
            "pod/db:80",
            [
                "  egress from 192.168.0.2: allow, not a pod, so no policy governs this end",
                "  ingress into a/db: allow, a pod and the node that runs it may always talk",
            ],
        ),
        (
            "192.168.0.1",
            "pod/db:80",
            [
                "  egress from 192.168.0.1: allow, not a pod, so no policy governs this end",
                f"  ingress into a/db: {_CLOSED}",
                _ISOLATES,
            ],
        ),
        (
            "pod/web",
            "pod/web:80",
            [
                f"{_OUT}allow, a pod may always reach itself",
                "  ingress into a/web: allow, a pod may always reach itself",
            ],
        ),
    ],
)
def test_each_end_of_a_flow_is_named_with_what_decides_there(
    source: str, target: str, lines: list[str], tmp_path: Path
) -> None:
    assert said(tmp_path, source, target) == lines
