"""The schemas that API servers check policies by (tests/data/policy/schemas.json: those of Kubernetes 1.34 and 1.37, of the
network policy API, of Cilium 1.14 and 1.20 and of Calico 3.24 and 3.32, without descriptions), and a validator for what they use.

Kubernetes 1.33 and older differ from 1.34 in one thing: a NetworkPolicy needs a podSelector. The network policy API gave its
peers another shape after 0.1.1: what is valid for the one is not for the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parents[2] / "data" / "policy" / "schemas.json"
SCHEMAS: dict[str, dict[str, Any]] = json.loads(_FILE.read_text())
_NESTED_KINDS = ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "number": (int, float),
}


def problems(obj: dict[str, Any], *, nested_peers: bool = False) -> list[str]:
    """What API servers of all versions would say of an object, for the administrators' kinds those whose peers have
    the shape of 0.1.1 or those that have not; raises KeyError for a kind without a schema."""
    prefix = f"{obj['apiVersion']} {obj['kind']}, "
    names = [name for name in SCHEMAS if name.startswith(prefix)]
    if obj["kind"] in _NESTED_KINDS:
        names = [name for name in names if name.endswith("network-policy-api 0.1.1") is nested_peers]
    if not names:
        raise KeyError(prefix)
    return [f"{name}: {text}" for name in names for text in _problems(obj["spec"], SCHEMAS[name], "spec")]


def _problems(value: Any, schema: dict[str, Any], at: str, *, open_: bool = False) -> Iterator[str]:
    """`open_`: fields that the schema does not name are fine; they are named elsewhere."""
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, bool))):
        yield f"{at} is no {kind}: {value!r}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if isinstance(value, str):
        yield from _of_string(value, schema, at)
    elif isinstance(value, dict):
        yield from _of_object(value, schema, at, open_)
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{at} has {len(value)} items"
        for i, item in enumerate(value):
            yield from _problems(item, schema.get("items", {}), f"{at}[{i}]")
    elif isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{at}: {value} is out of range"
    for choice in ("anyOf", "oneOf"):
        fitting = [not list(_problems(value, option, at, open_=True)) for option in schema.get(choice, ())]
        if fitting and (not any(fitting) or (choice == "oneOf" and sum(fitting) > 1)):
            yield f"{at}: {choice} does not hold"


def _of_string(value: str, schema: dict[str, Any], at: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{at} has {len(value)} characters"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{at}: {value!r} is not of the form {schema['pattern']}"


def _of_object(value: dict[str, Any], schema: dict[str, Any], at: str, open_: bool) -> Iterator[str]:
    yield from (f"{at}.{name} is missing" for name in schema.get("required", ()) if name not in value)
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
        yield f"{at} has {len(value)} fields"
    known, others = schema.get("properties"), schema.get("additionalProperties")
    for name, item in value.items():
        if known and name in known:
            yield from _problems(item, known[name], f"{at}.{name}")
        elif isinstance(others, dict):
            yield from _problems(item, others, f"{at}.{name}")
        elif known is not None and not open_:
            yield f"{at}.{name}: there is no such field"
