"""Where a value stands in an object, for errors that name file, object and field."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.kube import KubeObject

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Where:
    """A place inside an object: `at("spec").at("ingress").item(0)` is "spec.ingress[0]"."""

    obj: KubeObject
    field: str = ""

    def at(self, name: str) -> Where:
        return Where(self.obj, f"{self.field}.{name}" if self.field else name)

    def item(self, index: int) -> Where:
        return Where(self.obj, f"{self.field}[{index}]")

    def error(self, problem: str, hint: str = "") -> InputError:
        return InputError(problem, source=self.obj.source, obj=str(self.obj.ref), field=self.field, hint=hint)


def unknown_fields(raw: Any, shape: Any, field: str = "") -> list[str]:
    """Paths in `raw` that `shape` has no field for: `shape` is a msgspec type (struct, dict, tuple of structs)."""
    return _unknown(raw, _type_info(shape), field)


@cache
def _type_info(shape: Any) -> Any:
    return msgspec.inspect.type_info(shape)


def _unknown(raw: Any, info: Any, field: str) -> list[str]:
    if isinstance(info, msgspec.inspect.UnionType):
        structs = [t for t in info.types if isinstance(t, msgspec.inspect.StructType | msgspec.inspect.VarTupleType)]
        return _unknown(raw, structs[0], field) if structs else []
    if isinstance(info, msgspec.inspect.VarTupleType) and isinstance(raw, list):
        return [path for i, item in enumerate(raw) for path in _unknown(item, info.item_type, f"{field}[{i}]")]
    if isinstance(info, msgspec.inspect.StructType) and isinstance(raw, dict):
        known = {f.encode_name: f.type for f in info.fields}
        unknown: list[str] = []
        for key, value in raw.items():
            path = f"{field}.{key}" if field else str(key)
            if key in known:
                unknown += _unknown(value, known[key], path)
            else:
                unknown.append(path)
        return unknown
    return []
