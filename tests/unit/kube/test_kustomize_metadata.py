"""What `buildMetadata` adds: the label that names the builder, whose version is not known before it builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.kube.kustomize.build import Kustomizations
from kubectl_genainet.model.kube import BUILT_HERE
from tests.unit.kube.test_kustomize import tree

KEY = "app.kubernetes.io/managed-by"
BOTH = "buildMetadata: [managedByLabel, originAnnotations]\n"
OBJECTS = f"""\
apiVersion: v1
kind: Pod
metadata: {{name: chat, labels: {{app: chat, {KEY}: Helm}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: rag}}
spec:
  selector: {{matchLabels: {{app: rag}}}}
  template: {{metadata: {{labels: {{app: rag}}}}, spec: {{}}}}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: flux
  annotations: {{config.kubernetes.io/origin: "path: old.yaml", alpha.config.kubernetes.io/transformations: t, a: b}}
data: {{name: kustomize-controller}}
"""


def built(root: Path, overlay: str, base: str = "", objects: str = OBJECTS) -> tuple[dict[str, Any], list[str]]:
    """The metadata of each object by kind, and what is said."""
    files = {"base/all.yaml": objects, "base/kustomization.yaml": f"resources: [all.yaml]\n{base}"}
    tree(root, {**files, "o/kustomization.yaml": f"resources: [../base]\n{overlay}"})
    notes: list[str] = []
    kustomizations = Kustomizations(root / "o", notes.append)
    (place,) = kustomizations.roots
    return {obj["kind"]: obj for obj, _ in kustomizations.build(place)}, notes


def test_the_label_is_set_on_objects_and_not_on_their_pods(tmp_path: Path) -> None:
    objects, notes = built(tmp_path, BOTH)
    assert {kind: obj["metadata"]["labels"] for kind, obj in objects.items()} == {
        "Pod": {"app": "chat", KEY: BUILT_HERE},  # over what it was
        "Deployment": {KEY: BUILT_HERE},
        "ConfigMap": {KEY: BUILT_HERE},
    }
    assert objects["Deployment"]["spec"]["template"]["metadata"]["labels"] == {"app": "rag"}
    assert objects["Deployment"]["spec"]["selector"] == {"matchLabels": {"app": "rag"}}
    assert notes == []


@pytest.mark.parametrize("base", ["", BOTH])
def test_only_the_kustomization_that_is_built_counts(tmp_path: Path, base: str) -> None:
    objects, _ = built(tmp_path, "", base)
    assert objects["Pod"]["metadata"]["labels"] == {"app": "chat", KEY: "Helm"}


def test_annotations_of_where_an_object_came_from_before_are_dropped(tmp_path: Path) -> None:
    objects, _ = built(tmp_path, "")
    assert objects["ConfigMap"]["metadata"]["annotations"] == {"a": "b"}


def test_a_selector_that_asks_for_a_version_gets_it_and_that_is_said(tmp_path: Path) -> None:
    policy = f"""\
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: built}}
spec: {{podSelector: {{matchLabels: {{{KEY}: kustomize-v5.4.1}}}}}}
"""
    objects, (note,) = built(tmp_path, BOTH, objects=OBJECTS + policy)
    assert objects["Pod"]["metadata"]["labels"][KEY] == "kustomize-v5.4.1"
    assert f"the label {KEY} is taken for kustomize-v5.4.1, since an object asks for it" in note


def test_a_buildmetadata_that_is_no_list_is_named(tmp_path: Path) -> None:
    tree(tmp_path, {"kustomization.yaml": "buildMetadata: managedByLabel\n"})
    notes: list[str] = []
    assert Kustomizations(tmp_path, notes.append).roots == []
    assert "buildMetadata is not a list" in notes[0]
