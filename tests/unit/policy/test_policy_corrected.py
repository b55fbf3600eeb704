"""Where the answer hangs on a policy that is refused as it is written, the patch writes it as its kind is served now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kubectl_genainet.cli import cli
from kubectl_genainet.errors import ExitStatus, InputError
from tests.unit.policy.policy_cluster import Raw, admin, labels, namespace, netpol, pod
from tests.unit.policy.test_policy_commands import run, write

PODS = (namespace("ai"), pod("ai/llama", "10.1.0.1"), pod("ai/rag", "10.1.0.2"), pod("web/chat", "10.2.0.1"))
FLOW = ("pod/web/chat", "pod/ai/llama:80")
FROM_WEB = [{"from": [{"namespaceSelector": labels(**{"kubernetes.io/metadata.name": "web"})}]}]


def old(version: str, kind: str, **spec: Any) -> Raw:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "old", "namespace": "ai"}, "spec": spec}


def explained(tmp_path: Path, *policies: Raw, options: tuple[str, ...] = ()) -> str:
    """What explain prints; the command ends with the policy that the API server would refuse."""
    path = write(tmp_path / "all.json", *PODS, *policies)
    with pytest.raises(InputError) as refused:
        run("explain", "--manifests", str(path), *FLOW, *options)
    assert refused.value.exit_code is ExitStatus.FAILED
    return refused.value.message


@pytest.mark.parametrize(
    ("policy", "written", "current"),
    [
        (old("extensions/v1beta1", "NetworkPolicy", podSelector={}), "extensions/v1beta1", "networking.k8s.io/v1"),
        (
            old("networking.k8s.io/v1beta1", "NetworkPolicy", podSelector={}),
            "networking.k8s.io/v1beta1",
            "networking.k8s.io/v1",
        ),
        (
            {
                **admin(
                    "AdminNetworkPolicy",
                    "old",
                    subject={"namespaces": {}},
                    priority=5,
                    ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}],
                ),
                "apiVersion": "policy.networking.k8s.io/v1alpha0",
            },
            "policy.networking.k8s.io/v1alpha0",
            "policy.networking.k8s.io/v1alpha1",
        ),
        (
            old("projectcalico.org/v1", "NetworkPolicy", selector="all()", ingress=[{"action": "Deny"}]),
            "projectcalico.org/v1",
            "projectcalico.org/v3",
        ),
        (
            old("cilium.io/v1", "CiliumNetworkPolicy", endpointSelector={}, ingress=[{"fromEntities": ["host"]}]),
            "cilium.io/v1",
            "cilium.io/v2",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_text_and_patch_both_name_the_current_version(tmp_path: Path, policy: Raw, written: str, current: str) -> None:
    path = write(tmp_path / "all.json", *PODS, policy)
    result = CliRunner().invoke(cli, ["explain", "--manifests", str(path), *FLOW])
    assert result.exit_code != 0
    assert "UNKNOWN" in result.output and f"the current version is {current}" in result.output
    assert f"to admit it, edit: {policy['kind']}" in result.output.replace(".projectcalico.org", "")
    assert f"apiVersion: {current} in place of {written}; " in result.output
    assert f"\n    apiVersion: {current}\n    kind: {policy['kind']}\n" in result.output


def test_a_policy_that_admits_as_it_is_served_needs_no_other_change(tmp_path: Path) -> None:
    admits = old("extensions/v1beta1", "NetworkPolicy", podSelector={}, ingress=FROM_WEB)
    path = write(tmp_path / "all.json", *PODS, admits, netpol("ai/closed"))
    result = CliRunner().invoke(cli, ["explain", "--manifests", str(path), *FLOW, "-o", "json"])
    record = json.loads(result.stdout.splitlines()[0])
    (change,) = record["patch"]["edit"]["changes"]
    assert change["what"] == "apiVersion: networking.k8s.io/v1 in place of extensions/v1beta1"
    assert change["object"]["apiVersion"] == "networking.k8s.io/v1"
    assert record["patch"]["edit"]["also_admits"] == [{"from": "web/chat", "to": "ai/rag"}]
    assert record["patch"]["new"] is None


def test_patch_alone_prints_it_and_the_command_still_names_the_refused_policy(tmp_path: Path) -> None:
    message = explained(tmp_path, old("extensions/v1beta1", "NetworkPolicy", podSelector={}), options=("--patch",))
    assert "the current version is networking.k8s.io/v1" in message
