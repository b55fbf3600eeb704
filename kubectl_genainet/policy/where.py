"""Where a value stands in an object, for errors that name file, object and field."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.kube import KubeObject

T = TypeVar("T")
NO_SUCH_FIELD = "no such field"
_NEAR = 0.7  # "cird" is one of cidr


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


class UnknownField(NamedTuple):
    """A path in an object that its kind has no field for, and the field there that is spelt nearly so, if one is."""

    field: str
    near: str

    def why(self, kind: str) -> str:
        return f"{NO_SUCH_FIELD} in {kind}" + (f": did you mean {self.near}?" if self.near else "")


def unknown_fields(raw: Any, shape: type[msgspec.Struct], field: str) -> list[UnknownField]:
    """Paths in `raw` that `shape` has no field for."""
    return list(_unknown(raw, _fields_of(shape), field))


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that one nearly is, whatever its case; "" where it is none, or one of them."""
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower().replace("_", "").replace("-", ""), by_lower, n=1, cutoff=_NEAR)
    return by_lower[near[0]] if near and by_lower[near[0]] != name else ""


class _Nested(NamedTuple):
    """The fields of the struct that a field holds, or of those in its list."""

    in_list: bool
    struct: type[msgspec.Struct]


@cache
def _fields_of(struct: type[msgspec.Struct]) -> Mapping[str, _Nested | None]:
    """The fields of a struct by the names that they have in an object."""
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    return {field.encode_name: _nested(field.type) for field in info.fields}


def _nested(info: msgspec.inspect.Type, in_list: bool = False) -> _Nested | None:
    match info:
        case msgspec.inspect.UnionType(types=types):
            return next(filter(None, (_nested(one, in_list) for one in types)), None)
        case msgspec.inspect.VarTupleType(item_type=item):
            return _nested(item, in_list=True)
        case msgspec.inspect.StructType(cls=struct):
            return _Nested(in_list, struct)
        case _:
            return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to say after a name that is none of those that are known, where it is nearly one."""
    near = nearest(name, known)
    return f": did you mean {near}?" if near else ""


def _unknown(raw: Any, known: Mapping[str, _Nested | None], field: str) -> Iterator[UnknownField]:
    for key, value in raw.items() if isinstance(raw, dict) else ():
        if key not in known:
            yield UnknownField(f"{field}.{key}", nearest(str(key), known.keys() - raw.keys()))
            continue
        nested = known[key]
        if nested is None or not value:
            continue
        if not nested.in_list:
            yield from _unknown(value, _fields_of(nested.struct), f"{field}.{key}")
        elif isinstance(value, list):
            for i, item in enumerate(value):
                yield from _unknown(item, _fields_of(nested.struct), f"{field}.{key}[{i}]")
