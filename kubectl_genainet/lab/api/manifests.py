"""Reads the Kubernetes YAML that a lab is made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.model.kube import without_nulls

SHIPPED = Path(__file__).resolve().parents[1] / "manifests"


def read_folder(folder: Path) -> list[dict[str, Any]]:
    """All objects of a folder's *.yaml, *.yml and *.json files, in the order of the file names; Lists are unpacked."""
    if not folder.is_dir():
        raise GenainetError(f"{folder} is not a folder", "--manifests takes a folder with Kubernetes YAML files.")
    files = sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml", ".json"))
    if not files:
        raise GenainetError(f"{folder} has no *.yaml, *.yml or *.json file")
    return [obj for path in files for obj in _read_file(path)]


def _read_file(path: Path) -> list[dict[str, Any]]:
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"is not YAML: {' '.join(str(error).split())}", source=str(path)) from None
    objects: list[dict[str, Any]] = []
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        items = document.get("items", []) if _is_list(document) else [document]
        for item in items:
            if not isinstance(item, dict) or not item.get("kind") or not item.get("metadata", {}).get("name"):
                raise InputError(
                    "is not a Kubernetes object: kind or metadata.name is missing", source=f"{path} #{number}"
                )
            objects.append(without_nulls(item))
    return objects


def _is_list(document: Any) -> bool:
    return isinstance(document, dict) and str(document.get("kind", "")).endswith("List") and "items" in document
