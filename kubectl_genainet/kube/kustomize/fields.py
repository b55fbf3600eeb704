"""Fields by path, as Kustomize names them: `spec/template/metadata/labels`, `a\\/b` for a key with a slash, lists walked
through, `a[]` for a field that is one.

Source: Kustomize's reference of field specifications.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SLASH = re.compile(r"(?<!\\)/")


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field in the objects of a kind and group (empty: every one). `create`: also where it is not there yet."""

    path: str
    kind: str = ""
    group: str = ""
    create: bool = False

    @classmethod
    def of(cls, raw: dict[str, Any]) -> FieldSpec:
        """One of a kustomization or of its configurations."""
        return cls(
            str(raw.get("path", "")), str(raw.get("kind", "")), str(raw.get("group", "")), bool(raw.get("create"))
        )

    def places(self, obj: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
        """Each mapping of an object that holds the field, with the field's key in it."""
        if self.kind in ("", obj.get("kind")) and self.group in ("", group_of(obj)):
            path = [step.replace("\\/", "/") for step in _SLASH.split(self.path)]
            yield from _places(obj, path, self.create)

    def add(self, obj: dict[str, Any], pairs: dict[str, Any]) -> None:
        """Adds pairs to the field, which holds a mapping, in place."""
        for holder, key in self.places(obj):
            if holder.get(key) is None or isinstance(holder[key], dict):
                holder[key] = {**(holder.get(key) or {}), **pairs}


def group_of(obj: dict[str, Any]) -> str:
    return str(obj.get("apiVersion", "")).rpartition("/")[0]


def _places(value: Any, path: list[str], create: bool) -> Iterator[tuple[dict[str, Any], str]]:
    if isinstance(value, list):
        for item in value:
            yield from _places(item, path, create)
    if not isinstance(value, dict):
        return
    first, remaining_path = path[0].removesuffix("[]"), path[1:]
    if value.get(first) is None and (not create or first != path[0]):  # a list is not made
        return
    if not remaining_path:
        yield value, first
        return
    if value.get(first) is None:
        value[first] = {}
    yield from _places(value[first], remaining_path, create)
