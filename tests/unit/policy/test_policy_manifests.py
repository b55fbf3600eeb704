"""Manifests: files, folders, lists and workloads as a snapshot."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy import PolicyEngine, PolicyFlow
from tests.unit.policy.policy_cluster import end, pod

POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, creationTimestamp: 2026-01-01T00:00:00Z}
spec: {podSelector: {}, ingress: null}
"""
PARTS = ["w-ps-0", "w-wk-0"]
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
        ("apps/v1 Deployment", f"{{replicas: 3, {TEMPLATE}}}", ["w-0"]),
        ("apps/v1 StatefulSet", f"{{replicas: 3, {TEMPLATE}}}", ["w-0", "w-1", "w-2"]),
        ("apps/v1 DaemonSet", f"{{{TEMPLATE}}}", ["w-0"]),
        ("apps/v1 ReplicaSet", f"{{{TEMPLATE}}}", ["w-0"]),
        ("batch/v1 Job", f"{{{TEMPLATE}}}", ["w-0"]),
        ("batch/v1 CronJob", f"{{jobTemplate: {{spec: {{{TEMPLATE}}}}}}}", ["w-0"]),
        ("v1 ReplicationController", f"{{replicas: 2, {TEMPLATE}}}", ["w-0"]),
        ("argoproj.io/v1alpha1 Rollout", f"{{{TEMPLATE}}}", ["w-0"]),
        ("batch.volcano.sh/v1alpha1 Job", f"{{tasks: [{{name: Ps, {TEMPLATE}}}, {{name: wk, {TEMPLATE}}}]}}", PARTS),
    ],
)
def test_workloads_count_as_their_pods(tmp_path: Path, kind: str, spec: str, pods: list[str]) -> None:
    version, kind = kind.split()
    text = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: w, namespace: ai}}\nspec: {spec}\n"
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
    ],
)
def test_what_can_not_be_read_is_an_error_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(InputError) as caught:
        load_manifests([path])
    assert problem in caught.value.message
    assert caught.value.source.startswith(path)


@pytest.mark.parametrize(
    ("text", "note", "objects"),
    [
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {}\nkind: Pod",
            "line 5: the key 'kind' is given twice: the last one counts",
            ["Pod default/x"],
        ),
        (f"{POLICY}---\n{POLICY}", "is given twice", ["NetworkPolicy default/p"]),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: w}\nspec: {}",
            "Deployment default/w has no pod template here",
            ["Deployment default/w"],
        ),
        (f"{POLICY}---\nreplicaCount: 2", "document 2: not a Kubernetes object", ["NetworkPolicy default/p"]),
        (f"{POLICY}---\napiVersion: v1\nkind: Pod", "Pod: metadata.name: has no name", ["NetworkPolicy default/p"]),
    ],
)
def test_what_is_left_out_or_settled_is_said(tmp_path: Path, text: str, note: str, objects: list[str]) -> None:
    found = load_manifests([write(tmp_path / "x.yaml", text)])
    assert [str(o.ref) for o in found.objects] == objects
    assert len(found.notes) == 1 and note in found.notes[0] and str(tmp_path / "x.yaml") in found.notes[0]


def test_the_last_of_two_objects_counts(tmp_path: Path) -> None:
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: chat}\nspec: {ports: [{port: %d}]}"
    write(tmp_path / "a.yaml", service % 80)
    write(tmp_path / "b.yaml", service % 81)
    found = load_manifests([str(tmp_path)])
    assert [s.spec.ports[0].port for s in found.services] == [81]


def test_a_namespace_is_that_of_the_objects_without_one(tmp_path: Path) -> None:
    text = f"{POLICY}---\napiVersion: v1\nkind: Node\nmetadata: {{name: n}}\n---\n" + POLICY.replace(
        "name: p", "name: q, namespace: other"
    )
    found = load_manifests([write(tmp_path / "x.yaml", text)], "ai")
    assert [o.namespace for o in found.objects] == ["ai", "", "other"]


def test_other_yaml_of_a_repository_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path / "np.yaml", POLICY)
    write(tmp_path / "values.yaml", "image: {tag: 1}")
    (tmp_path / "templates").mkdir()
    write(tmp_path / "templates" / "web.yaml", "kind: {{ .Values.kind }}\nmetadata: {{ include }}\n")
    found = load_manifests([str(tmp_path)])
    assert [o.name for o in found.objects] == ["p"]
    assert sorted(n.partition(":")[0].rpartition("/")[2] for n in found.notes) == [
        "values.yaml, document 1",
        "web.yaml",
    ]
    assert any("helm template" in n for n in found.notes)


def test_a_missing_file_and_an_empty_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "nope.yaml", tmp_path):
        with pytest.raises(InputError):
            load_manifests([str(path)])


POLICY_TEMPLATE = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: {{ .Release.Name }}}\n"


def test_a_chart_is_left_out_whole_and_what_its_policies_could_stop_is_unknown(tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    write(chart / "Chart.yaml", "{apiVersion: v2, name: rag, version: 1.0.0}")
    write(chart / "values.yaml", "replicas: 1")
    write(chart / "templates" / "plain.yaml", yaml.safe_dump(pod("ai/half", "10.1.0.9")))
    write(tmp_path / "pods.yaml", yaml.safe_dump_all([pod("ai/a", "10.1.0.1"), pod("ai/b", "10.1.0.2")]))
    found = load_manifests([str(tmp_path)], "ai")
    assert [o.name for o in found.objects] == ["a", "b"]
    command = f"helm template -n ai RELEASE {chart} | kubectl genainet ... --manifests -"
    parts = "Chart.yaml, templates/plain.yaml, values.yaml"
    said = f"{chart}: a Helm chart is not rendered: what it makes is left out ({parts}). To have it: {command}"
    assert found.notes == (said,)
    assert judged(found) == "allow"
    write(chart / "templates" / "policy.yaml", POLICY_TEMPLATE)
    assert judged(load_manifests([str(tmp_path)])) == "unknown"
    with pytest.raises(InputError, match="4 files looked at, 4 part of a Helm chart, which is not rendered"):
        load_manifests([str(chart)])


def test_a_policy_in_a_file_that_cannot_be_read_makes_unknown_what_it_could_stop(tmp_path: Path) -> None:
    write(tmp_path / "pods.yaml", yaml.safe_dump_all([pod("ai/a", "10.1.0.1"), pod("ai/b", "10.1.0.2")]))
    write(tmp_path / "service.yaml", "kind: Service\nmetadata: [")
    assert judged(load_manifests([str(tmp_path)])) == "allow"
    write(tmp_path / "policy.yaml", "kind: NetworkPolicy\nmetadata: [")
    assert judged(load_manifests([str(tmp_path)])) == "unknown"


def judged(objects: ClusterSnapshot) -> str:
    return PolicyEngine(objects).verdict(PolicyFlow(end("ai/a"), end("ai/b"), "TCP", 80)).value
