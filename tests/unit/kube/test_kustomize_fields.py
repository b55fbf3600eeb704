"""What a kustomization sets and patches, as `kubectl kustomize` (5.5) does it: each value was compared with its output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_genainet.kube.manifests import load_manifests
from tests.unit.kube.test_kustomize import BASE, POLICY, tree

ISOLATE = POLICY.replace("name: chat", "name: all").replace("{matchLabels: {app: chat}}", "{}")
ROLLOUT = """\
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: r}
spec: {selector: {matchLabels: {app: r}}, template: {metadata: {labels: {app: r}}, spec: {containers: [{name: c}]}}}
"""
FILES = {**BASE, "base/kustomization.yaml": "resources: [deployment.yaml, service.yaml, policy.yaml]\n"}


def built(root: Path, overlay: str, **files: str) -> tuple[dict[tuple[str, str], dict[str, Any]], tuple[str, ...]]:
    """The objects of an overlay by kind and name, and what is said of them; not which files are patches."""
    more = {f"overlay/{name}.yaml": text for name, text in files.items()}
    tree(root, {**FILES, "overlay/kustomization.yaml": overlay, **more})
    snapshot = load_manifests([str(root / "overlay")])
    return {(o.kind, o.name): o.raw for o in snapshot.objects if o.kind != "Pod"}, tuple(
        note for note in snapshot.notes if not note.startswith("read as")
    )


LABELS = "labels: [{pairs: {env: prod}, includeSelectors: true}]\n"


def test_labels_join_the_labels_of_selectors_and_make_none(tmp_path: Path) -> None:
    objects, _ = built(tmp_path, f"resources: [../base, all.yaml, r.yaml]\n{LABELS}", all=ISOLATE, r=ROLLOUT)
    assert objects["NetworkPolicy", "all"]["spec"]["podSelector"] == {}
    assert objects["NetworkPolicy", "chat"]["spec"]["podSelector"] == {"matchLabels": {"app": "chat", "env": "prod"}}
    assert objects["Deployment", "chat"]["spec"]["selector"] == {"matchLabels": {"app": "chat", "env": "prod"}}
    assert objects["Rollout", "r"]["spec"]["template"]["metadata"]["labels"] == {"app": "r"}  # no kind of kustomize's


def test_labels_and_annotations_reach_the_fields_that_are_named_and_those_of_templates(tmp_path: Path) -> None:
    field = "{path: spec/podSelector/matchLabels, kind: NetworkPolicy, create: true}"
    labels = f"labels: [{{pairs: {{env: prod}}, fields: [{field}]}}]\n"
    overlay = f"resources: [../base, all.yaml]\n{labels}commonAnnotations: {{a: b}}\n"
    objects, _ = built(tmp_path, overlay, all=ISOLATE)
    assert objects["NetworkPolicy", "all"]["spec"]["podSelector"] == {"matchLabels": {"env": "prod"}}
    template = objects["Deployment", "chat"]["spec"]["template"]["metadata"]
    assert template == {"labels": {"app": "chat"}, "annotations": {"a": "b"}}


def test_replicas_are_those_of_workloads(tmp_path: Path) -> None:
    objects, _ = built(tmp_path, "resources: [../base]\nnamePrefix: x-\nreplicas: [{name: chat, count: 3}]\n")
    assert objects["Deployment", "x-chat"]["spec"]["replicas"] == 3
    assert "replicas" not in objects["NetworkPolicy", "x-chat"]["spec"]


def test_the_namespace_renames_namespaces_too(tmp_path: Path) -> None:
    text = "{apiVersion: v1, kind: Namespace, metadata: {name: dev, labels: {team: a}}}\n"
    objects, _ = built(tmp_path, "resources: [../base, ns.yaml]\nnamespace: prod\n", ns=text)
    assert objects["Namespace", "prod"]["metadata"]["labels"] == {"team": "a"}


@pytest.mark.parametrize("name", ["chat", "m-chat"])
def test_a_patch_names_an_object_as_it_is_or_as_it_was(tmp_path: Path, name: str) -> None:
    tree(tmp_path, {"middle/kustomization.yaml": "resources: [../base]\nnamePrefix: m-\n"})
    written = "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {}}}, spec: {{policyTypes: [Egress]}}}}"
    patch = written.format(name)
    objects, notes = built(tmp_path, "resources: [../middle]\npatches: [{path: p.yaml}]\n", p=patch)
    assert objects["NetworkPolicy", "m-chat"]["spec"]["policyTypes"] == ["Egress"]
    assert objects["NetworkPolicy", "m-chat"]["metadata"] == {"name": "m-chat", "namespace": "default"}
    assert notes == ()


def test_operations_copy_move_and_test(tmp_path: Path) -> None:
    operations = [
        {"op": "test", "path": "/spec/podSelector/matchLabels/app", "value": "chat"},
        {"op": "copy", "from": "/spec/ingress/0", "path": "/spec/ingress/-"},
        {"op": "move", "from": "/spec/podSelector/matchLabels/app", "path": "/spec/podSelector/matchLabels/name"},
        {"op": "replace", "path": "/spec/nothing", "value": 1},
        {"op": "test", "path": "/metadata/name", "value": "other"},
        {"op": "swap", "path": "/spec"},
    ]
    patch = {"target": {"kind": "NetworkPolicy"}, "patch": yaml.safe_dump(operations)}
    objects, notes = built(tmp_path, yaml.safe_dump({"resources": ["../base"], "patches": [patch]}))
    spec = objects["NetworkPolicy", "chat"]["spec"]
    assert len(spec["ingress"]) == 2
    assert spec["podSelector"] == {"matchLabels": {"name": "chat"}}
    assert [note.partition("operation ")[2] for note in notes] == [
        "replace /spec/nothing does not fit NetworkPolicy chat: left out",
        "test /metadata/name does not fit NetworkPolicy chat: left out",
        "swap /spec does not fit NetworkPolicy chat: left out",
    ]


@pytest.mark.parametrize(("options", "name"), [({}, "chat"), ({"allowNameChange": True}, "other")])
def test_a_patch_renames_an_object_where_it_may(tmp_path: Path, options: dict[str, bool], name: str) -> None:
    body = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: other}}"
    patch = {"target": {"kind": "NetworkPolicy"}, "patch": body, "options": options}
    objects, _ = built(tmp_path, yaml.safe_dump({"resources": ["../base"], "patches": [patch]}))
    assert [key for key in objects if key[0] == "NetworkPolicy"] == [("NetworkPolicy", name)]
