"""The names that an object had before kustomizations changed them: patches and references may still use these.

They travel in the object while it is built.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.kube.kustomize.fields import group_of

_FORMER = "\0former"  # no key that YAML can hold


@dataclass(frozen=True, slots=True)
class Name:
    """An object's name and namespace ("" where it has none)."""

    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Renaming:
    """What became of one object's name and namespace."""

    group: str
    kind: str
    before: Name
    after: Name


def name_of(obj: dict[str, Any]) -> Name:
    metadata = obj.get("metadata") or {}
    return Name(str(metadata.get("name", "")), str(metadata.get("namespace") or ""))


def remember(objects: Iterable[dict[str, Any]]) -> None:
    """Notes the name of each object, before a kustomization changes it."""
    for obj in objects:
        metadata = obj.setdefault("metadata", {})
        metadata[_FORMER] = [*metadata.get(_FORMER, ()), name_of(obj)]


def former_names(obj: dict[str, Any]) -> list[Name]:
    names: list[Name] = (obj.get("metadata") or {}).get(_FORMER, [])
    return names


def name_before(obj: dict[str, Any]) -> Name:
    """The name at the begin of the kustomization that is being built."""
    names = former_names(obj)
    return names[-1] if names else name_of(obj)


def renamings(objects: Iterable[dict[str, Any]]) -> list[Renaming]:
    """The objects that have another name or namespace than at the begin of this kustomization."""
    changed = []
    for obj in objects:
        before, after = name_before(obj), name_of(obj)
        if before != after:
            changed.append(Renaming(group_of(obj), str(obj.get("kind", "")), before, after))
    return changed


def without_former_names(obj: dict[str, Any]) -> dict[str, Any]:
    (obj.get("metadata") or {}).pop(_FORMER, None)
    return obj
