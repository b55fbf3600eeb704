"""A folder of the real `kubectl cluster-info dump`, beside the rules that the real kube-proxy wrote for the same objects."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from kubectl_genainet.cli import cli
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.kubeproxy import KubeProxy, endpoint_slice

pytestmark = pytest.mark.cluster

NAMESPACE = "dumped"
SETUP = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: Service
metadata: {{name: my-llama-svc, namespace: {NAMESPACE}}}
spec:
  selector: {{app.kubernetes.io/name: my-llama-finetuned}}
  ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: waits, namespace: {NAMESPACE}}}
spec:
  automountServiceAccountToken: false
  containers: [{{name: c, image: i}}]
"""


@pytest.mark.parametrize("scope", [["-A"], [f"--namespaces={NAMESPACE}"]], ids=["all namespaces", "one namespace"])
def test_a_cluster_info_dump_is_read_beside_a_nodes_rules(
    control_plane: ControlPlane, kube_proxy: Callable[..., KubeProxy], tmp_path: Path, scope: list[str]
) -> None:
    api = control_plane.api()
    api.apply(SETUP)
    port = {"name": "http", "port": 8080, "protocol": "TCP"}
    api.apply([endpoint_slice("my-llama-svc", ["10.244.1.10"], [port], namespace=NAMESPACE)])
    rules = kube_proxy("dumped-1").wait_for_rules("10.244.1.10")
    folder, saved = tmp_path / "dump", tmp_path / "rules.txt"
    saved.write_text(rules)
    kubectl = [str(control_plane.binaries.path("kubectl")), f"--kubeconfig={control_plane.kubeconfig()}"]
    subprocess.run(
        [*kubectl, "cluster-info", "dump", *scope, f"--output-directory={folder}"],
        check=True,
        timeout=60,
        capture_output=True,
    )
    assert (folder / NAMESPACE / "services.json").exists()
    result = CliRunner().invoke(
        cli,
        [
            "rules",
            "svc/my-llama-svc",
            "-n",
            NAMESPACE,
            "--ruleset",
            str(saved),
            "--manifests",
            str(folder),
            "-o",
            "json",
        ],
        catch_exceptions=False,
    )
    records = [json.loads(line) for line in result.stdout.splitlines()]
    rows = [r for r in records if r["kind"] == "rules"]
    assert [(b["ip"], b["port"]) for row in rows for b in row["address"]["backends"]] == [("10.244.1.10", 8080)]
    assert not [
        r for r in records if r["kind"] == "finding"
    ]  # the dump has no EndpointSlices: endpoints are not judged
    assert any("EndpointSlice" in r["what"] + r["reason"] for r in records if r["kind"] == "not-checked"), records
    assert "left out" not in result.output
    assert result.exit_code == 0


def test_a_cluster_info_dump_on_standard_output_is_read_without_the_logs_in_it(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    control_plane.api().apply(SETUP)
    kubectl = [str(control_plane.binaries.path("kubectl")), f"--kubeconfig={control_plane.kubeconfig()}"]
    dump = [*kubectl, "cluster-info", "dump", f"--namespaces={NAMESPACE}"]
    text = subprocess.run(dump, check=True, timeout=60, capture_output=True, text=True).stdout
    assert "==== START logs for container" in text
    path = tmp_path / "dump.json"
    path.write_text(text)
    result = CliRunner().invoke(
        cli, ["doctor", "--manifests", str(path), "-n", NAMESPACE, "-o", "json"], catch_exceptions=False
    )
    assert result.exit_code in (0, 1), result.output
    assert "left out" not in result.output
