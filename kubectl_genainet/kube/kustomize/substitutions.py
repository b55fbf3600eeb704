"""Values that a kustomization copies between objects: `replacements`, and the older `vars`.

Source: Kustomize's reference of replacements and vars; its api/filters/replacement.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.kustomize.names import former_names, name_of
from kubectl_genainet.kube.kustomize.targets import selects
from kubectl_genainet.kube.yaml_text import Warn
from kubectl_genainet.model.units import whole_number

Item = tuple[dict[str, Any], str]
Slot = tuple[Any, Any]  # a mapping or a list, and the key or index in it
_STEP = re.compile(r"\[([^\]]*)\](?:\.|$)|((?:\\.|[^.\\])*)(?:\.|$)")
_VARIABLE = re.compile(r"\$\(([-.\w]+)\)")
_PREPENDED = -1


class Unplaced(Exception):
    """A source or a field that is not there."""


class _NoValue(str):
    """Stands where the value of a source is not there: a placeholder, so that nobody takes what is there for the value."""


def replace(items: Sequence[Item], replacements: Iterable[Any], warn: Warn) -> None:
    """Copies values into objects, in place."""
    for replacement in replacements:
        try:
            value = _source_value(items, replacement)
        except (Unplaced, InputError) as error:
            warn(f"a replacement is left out: {error}")
            value = _NoValue(f"${{{_text(replacement.get('source') or {})}}}")
        try:
            for target in replacement.get("targets") or ():
                _put(items, target, value)
        except (Unplaced, InputError) as error:
            if not isinstance(value, _NoValue):
                warn(f"a replacement is left out: {error}")


def _source_value(items: Sequence[Item], replacement: dict[str, Any]) -> Any:
    if "sourceValue" in replacement:
        return replacement["sourceValue"]
    source = replacement.get("source") or {}
    chosen = [obj for obj, _ in items if _names(source, obj)]
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


def _put(items: Sequence[Item], target: dict[str, Any], value: Any) -> None:
    select, rejected = target.get("select") or {}, [r for r in target.get("reject") or () if r]
    options = target.get("options") or {}
    for obj, _ in items:
        if not _selects(select, obj) or any(_selects(r, obj) for r in rejected):
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
    if isinstance(value, _NoValue) and not isinstance(old, str):
        return old
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
    if isinstance(old, int) and not isinstance(old, bool) and isinstance(value, str):
        number = whole_number(value)
        return value if number is None else number
    return copy.deepcopy(value)


def _names(reference: Mapping[str, Any], obj: dict[str, Any]) -> bool:
    """Whether an object is the one that a reference names, now or formerly; a field that is left out is any."""
    group, _, version = str(obj.get("apiVersion", "")).rpartition("/")
    actual = {"group": group, "version": version, "kind": obj.get("kind")}
    if any(reference.get(field) and reference[field] != value for field, value in actual.items()):
        return False
    return any(
        reference.get("name") in (None, "", own.name)
        and reference.get("namespace") in (None, "", own.namespace or "default")
        for own in (name_of(obj), *former_names(obj))
    )


def _selects(select: dict[str, Any], obj: dict[str, Any]) -> bool:
    """Whether a target's patterns are an object's, by its name or by one that it had."""
    patterns = {field: value for field, value in select.items() if value}
    return any(
        selects(
            patterns,
            {**obj, "metadata": {**obj["metadata"], "name": own.name, "namespace": own.namespace or "default"}},
        )
        for own in (name_of(obj), *former_names(obj))
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


def _places(value: Any, steps: Sequence[str], *, create: bool) -> Iterator[Slot]:
    """Every place that a path leads to."""
    first, remaining_steps = steps[0], steps[1:]
    for key in _keys(value, first, create=create):
        if not remaining_steps:
            yield value, key
            continue
        if create and isinstance(value, dict) and value.get(key) is None:
            value[key] = {}
        yield from _places(value[key], remaining_steps, create=create)


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
        chosen = [i for i, item in enumerate(value) if isinstance(item, dict) and str(item.get(name)) == wanted]
        if create and not chosen:
            value.append({name: wanted})
            return [len(value) - 1]
        return chosen
    index = whole_number(step)
    return [index] if index is not None and index < len(value) else []


@dataclass(slots=True)
class Substitution:
    """One of `vars`: $(NAME) stands for a field of an object, whose name follows what kustomizations make of it."""

    name: str
    kind: str
    object_name: str
    path: str

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Substitution:
        reference, field = raw.get("objref") or {}, raw.get("fieldref") or {}
        path = str(field.get("fieldPath") or field.get("fieldpath") or "metadata.name")
        return cls(str(raw["name"]), str(reference.get("kind", "")), str(reference.get("name", "")), path)

    def rename(self, renamed: Mapping[tuple[str, str], str]) -> None:
        self.object_name = renamed.get((self.kind, self.object_name), self.object_name)


def resolve(items: Sequence[Item], variables: Sequence[Substitution], warn: Warn) -> None:
    """Puts the values of variables into the objects, in place; $(NAME) of another name stays (a container's own)."""
    values: dict[str, str] = {}
    for variable in variables:
        try:
            values[variable.name] = str(_source_value(items, {"source": _reference(variable)}))
        except Unplaced as error:
            warn(f"the variable {variable.name} is left out: {error}")
    if values:
        for obj, _ in items:
            _fill(obj, values)


def _reference(variable: Substitution) -> dict[str, str]:
    return {"kind": variable.kind, "name": variable.object_name, "fieldPath": variable.path}


def _fill(value: Any, values: Mapping[str, str]) -> None:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        if isinstance(inner, str) and "$(" in inner:
            value[key] = _VARIABLE.sub(lambda match: values.get(match[1], match[0]), inner)
        else:
            _fill(inner, values)
