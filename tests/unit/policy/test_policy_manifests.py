"""Manifests: files, folders, lists and workloads as a snapshot."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.manifests import load_manifests

POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, creationTimestamp: 2026-01-01T00:00:00Z}
spec: {podSelector: {}, ingress: null}
"""
TEMPLATE = "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}}"


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_documents_have_their_place_and_no_nulls(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.yaml", f"---\n{POLICY}---\n# nothing\n---\n{POLICY.replace('name: p', 'name: q, namespace: ai')}"
    )
    first, second = load_manifests([path]).objects
    assert (first.name, first.namespace, first.source) == ("p", "default", f"{path}, document 1")
    assert (second.namespace, second.source) == ("ai", f"{path}, document 3")
    assert first.raw["spec"] == {"podSelector": {}}
    assert first.raw["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"


def test_lists_and_json_and_folders(tmp_path: Path) -> None:
    items = [{"metadata": {"name": "a"}}, {"metadata": {"name": "b", "namespace": "ai"}}]
    write(tmp_path / "pods.json", json.dumps({"apiVersion": "v1", "kind": "PodList", "items": items}))
    (tmp_path / "deep").mkdir()
    write(
        tmp_path / "deep" / "ns.yml",
        "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: ai}}]}",
    )
    write(tmp_path / "README.md", "not a manifest")
    found = load_manifests([str(tmp_path)])
    assert [str(o.ref) for o in found.objects] == ["Namespace ai", "Pod default/a", "Pod ai/b"]
    assert found.objects[2].source == f"{tmp_path}/pods.json, document 1, item 2"


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(POLICY))
    assert load_manifests(["-"]).objects[0].source == "standard input, document 1"


def test_json_values_one_after_the_other(tmp_path: Path) -> None:
    one = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})
    assert len(load_manifests([write(tmp_path / "x.json", one + "\n" + one.replace('"a"', '"b"'))]).objects) == 2


@pytest.mark.parametrize(
    ("kind", "spec", "pods"),
    [
        ("Deployment", f"{{replicas: 3, {TEMPLATE}}}", ["w-0"]),
        ("StatefulSet", f"{{replicas: 3, {TEMPLATE}}}", ["w-0", "w-1", "w-2"]),
        ("DaemonSet", f"{{{TEMPLATE}}}", ["w-0"]),
        ("ReplicaSet", f"{{{TEMPLATE}}}", ["w-0"]),
        ("Job", f"{{{TEMPLATE}}}", ["w-0"]),
        ("CronJob", f"{{jobTemplate: {{spec: {{{TEMPLATE}}}}}}}", ["w-0"]),
    ],
)
def test_workloads_count_as_their_pods(tmp_path: Path, kind: str, spec: str, pods: list[str]) -> None:
    text = f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: w, namespace: ai}}\nspec: {spec}\n"
    found = load_manifests([write(tmp_path / "w.yaml", text)])
    assert found.objects[0].kind == kind
    assert [p.metadata.name for p in found.pods] == pods
    assert {p.metadata.labels["app"] for p in found.pods} == {"x"}
    assert found.pods[0].ports[0].container_port == 80
    assert found.pods[0].metadata.owner_references[0].kind == kind


def test_a_workload_whose_pods_are_there_gets_no_more(tmp_path: Path) -> None:
    def owned(kind: str, name: str, by: tuple[str, str]) -> dict[str, object]:
        owner = [{"kind": by[0], "name": by[1], "controller": True}]
        spec: dict[str, object] = {"template": {"metadata": {}, "spec": {}}}
        return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "ownerReferences": owner}, "spec": spec}

    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {}}}
    objects = [
        deployment,
        owned("ReplicaSet", "d-1", ("Deployment", "d")),
        owned("Pod", "d-1-x", ("ReplicaSet", "d-1")),
    ]
    found = load_manifests([write(tmp_path / "x.json", json.dumps(objects))])
    assert [p.metadata.name for p in found.pods] == ["d-1-x"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "not YAML"),
        ('{"a": ', "not JSON"),
        ("just text", "not a Kubernetes object"),
        ("kind: Pod\nmetadata: {name: x}", "not a Kubernetes object"),
        ("apiVersion: v1\nkind: Pod", "has no name"),
        ("apiVersion: v1\nkind: Pod\nkind: Pod\nmetadata: {name: x}", "key 'kind' is given twice"),
        (f"{POLICY}---\n{POLICY}", "given twice"),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: w}\nspec: {}", "has no pod template"),
    ],
)
def test_what_can_not_be_read_is_an_error_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(InputError) as caught:
        load_manifests([path])
    assert problem in caught.value.message
    assert caught.value.source.startswith(path)


def test_a_missing_file_and_an_empty_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "nope.yaml", tmp_path):
        with pytest.raises(InputError):
            load_manifests([str(path)])
