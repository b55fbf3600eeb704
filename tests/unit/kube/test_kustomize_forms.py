"""Kustomizations are built as `kubectl kustomize` builds them: tests/data/kustomize has a hundred, and what it said of each.

`python -m tests.unit.kube.test_kustomize_forms` records that anew (kubectl 1.32, Kustomize 5.5).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_genainet.kube.kustomize.build import Kustomizations
from tests.unit.kube.test_kustomize import tree

Objects = list[dict[str, Any]]

_DATA = Path(__file__).parents[2] / "data" / "kustomize"
_BUILT = _DATA / "built.json"
_WRITTEN = yaml.load((_DATA / "forms.yaml").read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
FORMS: dict[str, dict[str, Any]] = _WRITTEN["forms"]


def laid(folder: Path, form: dict[str, Any]) -> Path:
    """The folder of a form's kustomization, with its files and those of its base."""
    names = {"all": ("all",), "small": ("all", "small"), "": ()}[form.get("base", "")]
    base = {file: text for name in names for file, text in _WRITTEN["bases"][name].items()}
    return Path(tree(folder, {**base, **form["files"]})) / str(form.get("root", "o"))


def by_name(objects: Objects) -> Objects:
    return sorted(
        objects, key=lambda obj: json.dumps([obj["apiVersion"], obj["kind"], obj["metadata"]], sort_keys=True)
    )


def changed(objects: Objects, plain: Objects) -> Objects:
    """What of the objects is not as in the base."""
    return by_name([obj for obj in objects if obj not in plain])


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    answers: dict[str, Any] = json.loads(_BUILT.read_text())
    return answers


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_built_as_kubectl_builds_it(name: str, tmp_path: Path, recorded: dict[str, Any]) -> None:
    notes: list[str] = []
    kustomizations = Kustomizations(laid(tmp_path, FORMS[name]), notes.append)
    objects = [obj for root in kustomizations.roots for obj, _ in kustomizations.build(root)]
    plain = recorded["plain"]["changed"]
    assert changed(objects, [] if name == "plain" else plain) == recorded[name]["changed"]
    assert len(objects) == recorded[name]["count"]
    assert notes == []


def record() -> None:
    answers: dict[str, Any] = {}
    plain: Objects = []
    for name in ("plain", *(n for n in FORMS if n != "plain")):
        with tempfile.TemporaryDirectory() as folder:
            argv = ["kubectl", "kustomize", str(laid(Path(folder), FORMS[name]))]
            text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        objects = [obj for obj in yaml.safe_load_all(text) if obj]
        answers[name] = {"count": len(objects), "changed": changed(objects, plain)}
        plain = plain or objects
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(answer, sort_keys=True)}" for name, answer in answers.items())
    _BUILT.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    record()
