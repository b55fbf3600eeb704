"""Values that a kustomization copies between objects: `replacements`, and the older `vars`.

Source: Kustomize's reference of replacements and vars; its api/filters/replacement.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.kustomize.targets import selector
from kubectl_genainet.kube.yaml_text import Warn

Item = tuple[dict[str, Any], str]
Place = tuple[Any, Any]  # a mapping or a list, and the key or index in it
_STEP = re.compile(r"\[([^\]]*)\](?:\.|$)|((?:\\.|[^.\\])*)(?:\.|$)")
_VARIABLE = re.compile(r"\$\(([-.\w]+)\)")
_PREPENDED = -1


class Unplaced(Exception):
    """A source or a field that is not there."""


def replace(items: Sequence[Item], replacements: Iterable[Any], former: Callable[[str], str], warn: Warn) -> None:
    """Copies values into objects, in place. `former` is an object's name before this kustomization changed it."""
    for one in replacements:
        try:
            value = _source_value(items, one, former)
            for target in one.get("targets") or ():
                _put(items, target, value, former)
        except (Unplaced, InputError) as error:
            warn(f"a replacement is left out: {error}")


def _source_value(items: Sequence[Item], one: dict[str, Any], former: Callable[[str], str]) -> Any:
    if "sourceValue" in one:
        return one["sourceValue"]
    source = one.get("source") or {}
    chosen = [obj for obj, _ in items if _names(source, obj, former)]
    if len(chosen) != 1:
        raise Unplaced(f"its source {_text(source)} is {len(chosen)} objects")
    path = str(source.get("fieldPath") or "metadata.name")
    places = list(_places(chosen[0], _steps(path), create=False))
    if not places:
        raise Unplaced(f"its source {_text(source)} has no field {path}")
    holder, key = places[0]
    value, options = holder[key], source.get("options") or {}
    if options.get("delimiter"):
        parts = str(value).split(str(options["delimiter"]))
        index = int(options.get("index") or 0)
        if not 0 <= index < len(parts):
            raise Unplaced(f"{path} of its source {_text(source)} has no part {index}")
        return parts[index]
    return value


def _put(items: Sequence[Item], target: dict[str, Any], value: Any, former: Callable[[str], str]) -> None:
    select, rejected = target.get("select") or {}, [r for r in target.get("reject") or () if r]
    options = target.get("options") or {}
    for obj, _ in items:
        if not _names(select, obj, former) or any(_names(r, obj, former) for r in rejected):
            continue
        for path in target.get("fieldPaths") or ("metadata.name",):
            places = list(_places(obj, _steps(str(path)), create=bool(options.get("create"))))
            if not places:
                raise Unplaced(f"{obj.get('kind')} {obj['metadata'].get('name')} has no field {path}")
            for holder, key in places:
                old = holder.get(key) if isinstance(holder, dict) else holder[key]
                holder[key] = _with_value(old, value, options)


def _with_value(old: Any, value: Any, options: Mapping[str, Any]) -> Any:
    """The new value of a field: as a part of the old one, or in its place with the type of the old one."""
    delimiter = str(options.get("delimiter") or "")
    if delimiter and isinstance(old, str):
        parts, index = old.split(delimiter), int(options.get("index") or 0)
        if index <= _PREPENDED:
            parts.insert(0, str(value))
        elif index >= len(parts):
            parts.append(str(value))
        else:
            parts[index] = str(value)
        return delimiter.join(parts)
    if isinstance(old, str) and isinstance(value, int | float | bool):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(old, int) and not isinstance(old, bool) and isinstance(value, str) and value.isdecimal():
        return int(value)
    return copy.deepcopy(value)


def _names(select: Mapping[str, Any], obj: Mapping[str, Any], former: Callable[[str], str]) -> bool:
    """Whether an object is the one, or one of those, that a reference names; a field that is left out is any."""
    metadata = obj.get("metadata") or {}
    group, _, version = str(obj.get("apiVersion", "")).rpartition("/")
    name = str(metadata.get("name", ""))
    actual = {"group": (group,), "version": (version,), "kind": (obj.get("kind"),), "name": (name, former(name))}
    actual["namespace"] = (metadata.get("namespace"), "default" if "namespace" not in metadata else None)
    if any(select.get(field) and select[field] not in values for field, values in actual.items()):
        return False
    return all(
        match(metadata.get(held) or {})
        for field, held in (("labelSelector", "labels"), ("annotationSelector", "annotations"))
        for match in selector(str(select.get(field) or ""))
    )


def _text(reference: Mapping[str, Any]) -> str:
    return " ".join(str(reference[f]) for f in ("kind", "namespace", "name") if reference.get(f)) or "(nothing)"


def _steps(path: str) -> list[str]:
    """The steps of a path: `a.b`, `a\\.b` for one step, `[key.with.dots]` too, `[name=x]` and `*` in lists."""
    steps = []
    position = 0
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None or step.end() == position:
            raise Unplaced(f"the path {path[:64]!r} is not read")
        bracketed, plain = step.groups()
        if bracketed is not None:
            steps.append(f"[{bracketed}]" if "=" in bracketed else bracketed)
        elif plain:
            steps.append(re.sub(r"\\(.)", r"\1", plain))
        position = step.end()
    return steps


def _places(value: Any, steps: Sequence[str], *, create: bool) -> Iterator[Place]:
    """Every place that a path leads to."""
    first, rest = steps[0], steps[1:]
    for key in _keys(value, first, create=create):
        if not rest:
            yield value, key
            continue
        if create and isinstance(value, dict) and value.get(key) is None:
            value[key] = {}
        yield from _places(value[key], rest, create=create)


def _keys(value: Any, step: str, *, create: bool) -> Iterable[Any]:
    if isinstance(value, dict):
        if step == "*":
            return list(value)
        return [step] if step in value or create else []
    if not isinstance(value, list):
        return []
    if step == "*":
        return range(len(value))
    if step.startswith("["):
        name, _, wanted = step[1:-1].partition("=")
        return [i for i, item in enumerate(value) if isinstance(item, dict) and str(item.get(name)) == wanted]
    return [int(step)] if step.isdecimal() and int(step) < len(value) else []


@dataclass(slots=True)
class Variable:
    """One of `vars`: $(NAME) stands for a field of an object, whose name follows what kustomizations make of it."""

    name: str
    kind: str
    object_name: str
    path: str

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Variable:
        reference, field = raw.get("objref") or {}, raw.get("fieldref") or {}
        path = str(field.get("fieldPath") or field.get("fieldpath") or "metadata.name")
        return cls(str(raw["name"]), str(reference.get("kind", "")), str(reference.get("name", "")), path)

    def rename(self, renamed: Mapping[tuple[str, str], str]) -> None:
        self.object_name = renamed.get((self.kind, self.object_name), self.object_name)


def resolve(items: Sequence[Item], variables: Sequence[Variable], warn: Warn) -> None:
    """Puts the values of variables into the objects, in place; $(NAME) of another name stays (a container's own)."""
    values: dict[str, str] = {}
    for one in variables:
        try:
            values[one.name] = str(_source_value(items, {"source": _reference(one)}, str))
        except Unplaced as error:
            warn(f"the variable {one.name} is left out: {error}")
    if values:
        for obj, _ in items:
            _fill(obj, values)


def _reference(one: Variable) -> dict[str, str]:
    return {"kind": one.kind, "name": one.object_name, "fieldPath": one.path}


def _fill(value: Any, values: Mapping[str, str]) -> None:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        if isinstance(inner, str) and "$(" in inner:
            value[key] = _VARIABLE.sub(lambda found: values.get(found[1], found[0]), inner)
        else:
            _fill(inner, values)
