"""Custom kinds with the definitions of their own projects: accepted by the real schema, read by the plugin in its own role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from kubectl_genainet.assets import asset_dir
from kubectl_genainet.kube.client import KubeClient, connect
from kubectl_genainet.kube.resources import KINDS, Resource
from kubectl_genainet.kube.snapshot import read_listings
from kubectl_genainet.model.cluster import ClusterSnapshot
from tests.cluster.harness.api import may
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.cluster import Cluster, rows
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.crds import FOLDER, Kubectl, definitions
from tests.cluster.harness.dry_run import tried_remedies
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

OBJECTS = list(yaml.safe_load_all((FOLDER / "objects.yaml").read_text()))
APPLICATION = """
apiVersion: v1
kind: Namespace
metadata: {name: custom}
---
apiVersion: v1
kind: Pod
metadata: {name: llama-0, namespace: custom, labels: {app: llama}}
spec: {automountServiceAccountToken: false, containers: [{name: vllm, image: vllm/vllm-openai}]}
---
apiVersion: v1
kind: Pod
metadata: {name: chatbot-0, namespace: custom, labels: {app: chatbot}}
spec: {automountServiceAccountToken: false, containers: [{name: ui, image: chatbot}]}
"""
ADDRESSES = {"llama-0": "10.244.1.5", "chatbot-0": "10.244.1.6"}


@pytest.fixture(scope="module")
def plane(kubernetes_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with every definition, one object of each kind, and a viewer in the plugin's own role."""
    with ControlPlane(kubernetes_binaries, tmp_path_factory.mktemp("custom"), "custom") as plane:
        kubectl = Kubectl(plane)
        kubectl.apply(definitions())
        kubectl.wait_for_definitions()
        api = plane.api()
        api.apply(APPLICATION)
        for name, ip in ADDRESSES.items():
            status = {"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}}
            api.patch(f"/api/v1/namespaces/custom/pods/{name}/status", status)
        kubectl.apply((FOLDER / "objects.yaml").read_text())
        roles = yaml.safe_load_all((asset_dir("daemonset") / "manifests" / "roles.yaml").read_text())
        kubectl.apply([role for role in roles if role["metadata"]["name"] == "genainet-view"])
        api.apply(
            [
                {
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": "viewer"},
                    "roleRef": {
                        "apiGroup": "rbac.authorization.k8s.io",
                        "kind": "ClusterRole",
                        "name": "genainet-view",
                    },
                    "subjects": [{"kind": "User", "name": "viewer", "apiGroup": "rbac.authorization.k8s.io"}],
                }
            ]
        )
        wait_for("the viewer's role", lambda: may(plane.api("viewer"), "list", "pods", "custom"))
        yield plane


@pytest.fixture(scope="module")
def viewer(plane: ControlPlane) -> KubeClient:
    return connect(kubeconfig=str(plane.kubeconfig("viewer", namespace="custom")))


@pytest.fixture(scope="module")
def snapshot(viewer: KubeClient) -> ClusterSnapshot:
    return read_listings(viewer)[0]


def group_of(obj: dict[str, Any]) -> str:
    return str(obj["apiVersion"].rpartition("/")[0])


def test_every_definition_has_an_object() -> None:
    """What a kind was added to the plugin for is read here once, with its real schema."""
    with_object = {(group_of(obj), obj["kind"]) for obj in OBJECTS}
    defined = {(d["spec"]["group"], d["spec"]["names"]["kind"]) for d in definitions()}
    # The older of two groups: the objects of the newer are read.
    assert defined - with_object == {("inference.networking.x-k8s.io", "InferencePool")}


def test_the_role_lets_every_kind_be_read(snapshot: ClusterSnapshot) -> None:
    assert [left.kind for left in snapshot.left_out] == ["Secret"]


@pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: f"{obj['kind']}.{group_of(obj)}")
def test_an_object_that_the_real_schema_accepts_is_read(snapshot: ClusterSnapshot, obj: dict[str, Any]) -> None:
    found = [o for o in snapshot.of(obj["kind"], group_of(obj)) if o.name == obj["metadata"]["name"]]
    assert len(found) == 1
    for key, value in obj["spec"].items():
        assert key in found[0].raw["spec"]
        if not isinstance(value, dict | list):  # of others the API server fills in defaults
            assert found[0].raw["spec"][key] == value


def test_explain_evaluates_the_policies_of_every_project(plane: ControlPlane) -> None:
    cluster = Cluster(str(plane.kubeconfig()), plane=plane)
    done = cluster.cli("explain", "pod/chatbot-0", "pod/llama-0:22", "-n", "custom", "-o", "json", user="viewer")
    assert done.status == 1, done.out + done.err
    assert "no-ssh" in done.out and "custom/model-callers" in done.out
    assert "Traceback" not in done.err


def test_doctor_judges_the_cluster_without_a_check_that_fails(plane: ControlPlane) -> None:
    cluster = Cluster(str(plane.kubeconfig()), plane=plane)
    done = cluster.cli("doctor", "-A", "-o", "json", user="viewer")
    assert done.status in (0, 1), done.err
    outcomes = {row["check"]: row for row in rows(done.out) if row["kind"] == "check"}
    assert len(outcomes) > 100
    broken = [row for row in outcomes.values() if any("failed" in reason for reason in row["reasons"])]
    assert broken == []


def test_the_api_server_takes_every_change_that_a_remedy_makes(plane: ControlPlane) -> None:
    """Remedies were tried on copies of objects; here the real schemas and the server's validation see the same changes."""
    refused, taken = tried_remedies(plane.api())
    assert refused == []
    assert len(taken) >= 40, sorted(taken)


WORKSPACE = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workspaces.kaito.sh"},
    "spec": {
        "group": "kaito.sh",
        "scope": "Namespaced",
        "names": {"kind": "Workspace", "plural": "workspaces", "singular": "workspace"},
        "versions": [
            {
                "name": version,
                "served": True,
                "storage": version == "v1alpha1",
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
            for version in ("v1", "v1alpha1")
        ],
        # Nothing answers there: what is stored in one version can't be read in the other.
        "conversion": {
            "strategy": "Webhook",
            "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://127.0.0.1:1/convert"},
            },
        },
    },
}
READ_WORKSPACES = [kind for kind in KINDS if kind.plural == "workspaces"]


def test_a_kind_whose_conversion_fails_is_left_out_and_not_absent(plane: ControlPlane, viewer: KubeClient) -> None:
    api = plane.api()
    api.apply([WORKSPACE])

    def created() -> Any:
        """The resource is served some time after the definition is there."""
        workspace = {
            "apiVersion": "kaito.sh/v1alpha1",
            "kind": "Workspace",
            "metadata": {"name": "llama", "namespace": "custom"},
        }
        return api.create(workspace)

    wait_for("the kind to be served", created, 240)
    try:
        read, _ = read_listings(viewer, kinds=READ_WORKSPACES)
        assert read.of("Workspace") == ()
        (missing,) = [left for left in read.left_out if left.kind == "Workspace"]
        assert "conversion webhook" in missing.reason
    finally:
        api.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/workspaces.kaito.sh")


def definition(plural: str) -> dict[str, Any]:
    """Of a kind Late; the API server establishes one definition of a kind of a group."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.late.example.com"},
        "spec": {
            "group": "late.example.com",
            "scope": "Namespaced",
            "names": {"kind": "Late", "plural": plural},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


def test_a_kind_whose_definition_is_established_late_is_read_from_then_on(
    plane: ControlPlane, viewer: KubeClient
) -> None:
    api, definitions_path = plane.api(), "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    late = Resource("Late", "lates", "late.example.com", ("v1",), optional=True)

    def conditions(plural: str) -> dict[str, str]:
        status = api.get(f"{definitions_path}/{plural}.late.example.com").get("status", {})
        return {condition["type"]: condition["status"] for condition in status.get("conditions", [])}

    api.apply([definition("firsts")])
    wait_for("the first definition", lambda: conditions("firsts").get("Established") == "True", 240)
    api.apply([definition("lates")])
    wait_for("the refusal of its kind", lambda: conditions("lates").get("NamesAccepted") == "False", 240)
    try:
        assert conditions("lates").get("Established") != "True"
        read, _ = read_listings(viewer, kinds=[late])
        assert (read.of("Late"), [left for left in read.left_out if left.kind == "Late"]) == ((), [])
        api.delete(f"{definitions_path}/firsts.late.example.com")
        wait_for("the definition", lambda: conditions("lates").get("Established") == "True", 240)
        obj = {"apiVersion": "late.example.com/v1", "kind": "Late", "metadata": {"name": "one", "namespace": "custom"}}
        wait_for("the kind to be served", lambda: api.create(obj), 240)
        read, _ = read_listings(connect(kubeconfig=str(plane.kubeconfig())), kinds=[late])
        assert [found.name for found in read.of("Late")] == ["one"]
    finally:
        for plural in ("firsts", "lates"):
            api.delete(f"{definitions_path}/{plural}.late.example.com")


def test_versions_that_are_gone_are_left_out_and_not_absent(viewer: KubeClient) -> None:
    """As if this plugin knew only a version that the cluster no longer offers."""
    older = Resource("CiliumNetworkPolicy", "ciliumnetworkpolicies", "cilium.io", ("v1",), optional=True)
    read, _ = read_listings(viewer, kinds=[older])
    assert [left.reason for left in read.left_out if left.kind == older.kind] == [
        "the server does not offer cilium.io v1, but v2"
    ]
