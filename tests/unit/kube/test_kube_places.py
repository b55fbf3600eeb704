"""Where an object begins in its file; an object of another shape is left out alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.kube.files.places import Places
from kubectl_genainet.kube.manifests import load_manifests

LIST = """kind: List
apiVersion: v1
items:
- kind: Service
  metadata:
    name: one
- kind: Service
  metadata:
    name: "two"
"""


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("kind: A\n---\nkind: B\n", [1, 3]),
        ("---\n# c\nkind: A\n---\n\n# d\nkind: B\n", [3, 7]),
        ("# only\n\n---\nkind: A\n", [4]),
        ("%YAML 1.2\n---\nkind: A\n", [3]),
        ("--- # first\nkind: A\n", [2]),
    ],
)
def test_documents_begin_at_their_first_line_with_content(text: str, lines: list[int]) -> None:
    places = Places(text)
    assert [places.line(n, "x") for n in range(1, len(lines) + 1)] == lines
    assert places.line(len(lines) + 1, "x") == 0


def test_an_item_of_a_list_is_at_its_name() -> None:
    places = Places(LIST)
    assert [places.line(1, name) for name in ("one", "two", "three")] == [6, 9, 1]


def test_an_object_of_another_shape_is_left_out_alone(tmp_path: Path) -> None:
    file = tmp_path / "in.yaml"
    file.write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: $PORT}]}\n---\n"
        "apiVersion: v1\nkind: Service\nmetadata: {name: good}\nspec: {ports: [{port: 80}]}\n---\n"
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n"
        "spec: {template: {spec: {containers: [{name: c, image: x, ports: [{containerPort: $PORT}]}]}}}\n"
    )
    snapshot = load_manifests([str(file)])
    assert [(o.kind, o.name, o.line) for o in snapshot.objects] == [("Service", "good", 6), ("Deployment", "d", 11)]
    assert [n for n in snapshot.notes if "left out" in n and "bad" in n]
    assert [n for n in snapshot.notes if "left out" in n and "Pod" in n]
