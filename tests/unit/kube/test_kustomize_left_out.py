"""Files beside kustomizations and charts that are not read as objects: each is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.kube.manifests import load_manifests
from tests.unit.kube.test_kustomize import tree

POLICY = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: NAME}, spec: {podSelector: {}}}\n"
KUSTOMIZATION = """\
resources: [policy.yaml]
patches: [{path: patch.yaml}]
configMapGenerator: [{name: settings, files: [settings.yaml]}]
"""
FOLDER = {
    "kustomization.yaml": KUSTOMIZATION,
    "policy.yaml": POLICY.replace("NAME", "shut"),
    "patch.yaml": POLICY.replace("NAME", "shut").replace("spec: {", "spec: {policyTypes: [Egress], "),
    "settings.yaml": "a: 1\n",
    "extra.yaml": POLICY.replace("NAME", "forgotten"),
    "values.yaml": "image: {tag: 1}\n",
    "nested/old.yaml": POLICY.replace("NAME", "old"),
    "notes.json": "{}",
    "README.md": "",
}


def said(root: Path, files: dict[str, str]) -> tuple[list[str], list[str]]:
    found = load_manifests([tree(root, files)])
    names = sorted(o.name for o in found.objects if o.kind != "ConfigMap")
    return names, sorted(note.replace(f"{root}/", "").replace(str(root), ".") for note in found.notes)


def test_what_no_resource_lists_is_named_in_a_folder_that_is_a_kustomization(tmp_path: Path) -> None:
    names, notes = said(tmp_path, FOLDER)
    assert names == ["shut"]
    assert notes == [
        "extra.yaml: no kustomization here names it: left out",
        "nested/old.yaml: no kustomization here names it: left out",
        "notes.json: no kustomization here names it: left out",
        "read as parts of kustomizations (patches, inputs of generators), not as objects: patch.yaml, settings.yaml",
        "values.yaml: no kustomization here names it: left out",
    ]


def test_the_same_in_a_folder_with_kustomizations_below_it(tmp_path: Path) -> None:
    names, notes = said(tmp_path, {f"app/{name}": text for name, text in FOLDER.items()})
    assert names == ["forgotten", "old", "shut"]  # files of their own, as in any folder
    assert [note.partition(":")[0] for note in notes] == [
        "app/notes.json, document 1",
        "app/values.yaml, document 1",
        "read as parts of kustomizations (patches, inputs of generators), not as objects",
    ]


def test_an_overlay_below_a_kustomization_that_does_not_build_on_it_is_named(tmp_path: Path) -> None:
    files = {
        "kustomization.yaml": "resources: [base]\n",
        "base/kustomization.yaml": "resources: [policy.yaml]\n",
        "base/policy.yaml": POLICY.replace("NAME", "shut"),
        "overlays/prod/kustomization.yaml": "resources: [../../base]\nnamePrefix: prod-\n",
    }
    names, notes = said(tmp_path, files)
    assert names == ["shut"]
    assert notes == ["overlays/prod: a kustomization that no other here builds on: left out"]


@pytest.mark.parametrize("field", ["components", "transformers", "configurations", "replacements"])
def test_a_file_that_a_kustomization_names_in_any_field_is_not_called_forgotten(tmp_path: Path, field: str) -> None:
    value = "[{path: more.yaml}]" if field == "replacements" else "[more.yaml]"
    files = {
        "kustomization.yaml": f"resources: [policy.yaml]\n{field}: {value}\n",
        "more.yaml": "{}" if field == "configurations" else "[]",
    }
    _, notes = said(tmp_path, {**files, "policy.yaml": POLICY.replace("NAME", "shut")})
    assert not any("no kustomization here names it" in note for note in notes)


def test_the_files_of_a_chart_are_named_with_it(tmp_path: Path) -> None:
    files = {f"templates/t{i}.yaml": "kind: {{ .Values.kind }}\n" for i in range(7)}
    chart = {f"chart/{name}": text for name, text in {**files, "Chart.yaml": "name: c\n", "values.yaml": "{}"}.items()}
    names, notes = said(
        tmp_path, {**chart, "policy.yaml": POLICY.replace("NAME", "shut"), "chart/ci/test.yaml": "a: 1"}
    )
    assert names == ["shut"]
    assert len(notes) == 2
    assert notes[0].startswith("chart/ci/test.yaml, document 1: not a Kubernetes object")
    assert "left out (Chart.yaml, templates/t0.yaml" in notes[1] and "and 1 more)" in notes[1]
