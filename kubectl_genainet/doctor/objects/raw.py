"""Reading API objects as they come: any member may be missing, or not what it should be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from kubectl_genainet.errors import DECODE_ERRORS
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.shell import command as command
from kubectl_genainet.shell import named as named
from kubectl_genainet.shell import sh as sh

TEMPLATE = r"\$\{\w[^{}]*\}|\{\{[^{}]*\}\}"
_PLACEHOLDER = re.compile(TEMPLATE)
_CAPITALS = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")


def unnamed(name: str) -> bool:
    """Whether an object's name is to be filled in: a placeholder (`${NAME}`), or a word that no API takes (MODEL_NAME)."""
    return bool(_PLACEHOLDER.search(name) or _CAPITALS.fullmatch(name))


def unfilled(value: Any, name: str = "") -> str:
    """The first placeholder of a template in a value (`${NAME}`, `{{ name }}`); empty where there is none. Of an object whose
    own name is a word such as SERVICE_NAME, which no API takes, so is any other such word."""
    if isinstance(value, dict):
        return next((placeholder for v in value.values() if (placeholder := unfilled(v, name))), "")
    if isinstance(value, list | tuple):
        return next((placeholder for v in value if (placeholder := unfilled(v, name))), "")
    match = _PLACEHOLDER.search(value) if isinstance(value, str) else None
    if match is None and isinstance(value, str) and _CAPITALS.fullmatch(name):
        match = _CAPITALS.search(value)
    return match[0] if match else ""


def at(value: Any, *path: str | int) -> Any:
    """The value at a path of keys and indices; None where the path ends early."""
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def mapping(value: Any, *path: str | int) -> dict[str, Any]:
    inner = at(value, *path)
    return inner if isinstance(inner, dict) else {}


def items(value: Any, *path: str | int) -> list[dict[str, Any]]:
    """The objects of the list at a path; anything else in it is left out."""
    inner = at(value, *path)
    return [i for i in inner if isinstance(i, dict)] if isinstance(inner, list) else []


def strings(value: Any, *path: str | int) -> list[str]:
    inner = at(value, *path)
    return [str(i) for i in inner] if isinstance(inner, list) else []


def text(value: Any, *path: str | int) -> str:
    inner = at(value, *path)
    return "" if inner is None else str(inner)


def number(value: Any, *path: str | int, default: int = 0) -> int:
    """The integer at a path; `default` where there is none."""
    inner = at(value, *path)
    try:
        return int(inner)
    except (TypeError, ValueError, OverflowError):  # .inf is a number of YAML's
        return default


def json_in(value: str) -> Any:
    """The JSON value that a string holds (an annotation, a key of a ConfigMap); None where it holds none.

    Anybody who may annotate a pod writes it: one that nests without end is none.
    """
    try:
        return msgspec.json.decode(value)
    except (TypeError, *DECODE_ERRORS):  # TypeError: the annotation is no string
        return None


def annotation(key: str) -> str:
    """The field path of an annotation."""
    return f"metadata.annotations[{key}]"


def moment(value: Any) -> float | None:
    """An RFC 3339 time as seconds since the epoch; None for what is none."""
    try:
        return datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def condition(value: Any, name: str, *path: str | int) -> dict[str, Any]:
    """The condition of a type in `status.conditions` (or at `path`); empty where there is none."""
    where: tuple[str | int, ...] = path or ("status", "conditions")
    return next((c for c in items(value, *where) if c.get("type") == name), {})


def selector_matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A LabelSelector (matchLabels and matchExpressions) against labels; an empty selector matches all.

    Source: API reference, meta/v1 LabelSelector. An unknown operator matches nothing.
    """
    if any(labels.get(k) != str(v) for k, v in mapping(selector, "matchLabels").items()):
        return False
    for term in items(selector, "matchExpressions"):
        key, operator, values = str(term.get("key", "")), term.get("operator"), strings(term, "values")
        matched = {
            "In": key in labels and labels.get(key, "") in values,
            "NotIn": labels.get(key) not in values if key in labels else True,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }.get(str(operator), False)
        if not matched:
            return False
    return True


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf below a value, with its path ("spec.egress[0].toFQDNs[1].matchName")."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from walk(below, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from walk(below, f"{path}[{index}]")
    else:
        yield path, value


def kubectl(obj: ObjectRef, verb: str, *arguments: str) -> str:
    """`kubectl -n NS VERB KIND NAME ARGUMENTS…` for an object."""
    namespace = ("-n", obj.namespace) if obj.namespace else ()
    return " ".join((command("kubectl", *namespace, verb), named(obj.kind.lower(), obj.name), *map(sh, arguments)))


def patch(obj: ObjectRef, change: Any, *, kind: str = "merge") -> str:
    """A `kubectl patch` command. `kind` is merge, strategic or json."""
    return kubectl(obj, "patch", f"--type={kind}", "-p", json.dumps(change))


def restart(obj: ObjectRef) -> str:
    """Makes a workload's pods anew; a bare pod is deleted."""
    if obj.kind == "Pod":
        return kubectl(obj, "delete")
    return command("kubectl", "-n", obj.namespace, "rollout", "restart", f"{obj.kind.lower()}/{obj.name}")


def annotate(obj: ObjectRef, key: str, value: str) -> str:
    return kubectl(obj, "annotate", "--overwrite", f"{key}={value}")


def q(value: object) -> str:
    """A value as a YAML scalar: as it is where that is plain, else in double quotes."""
    plain = re.fullmatch(r"[A-Za-z][-A-Za-z0-9._/]*", str(value))
    reserved = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
    return str(value) if plain and str(value).lower() not in reserved else _double_quoted(str(value))


def _double_quoted(text: str) -> str:
    """As JSON, but for what is beyond 16 bits: YAML does not put JSON's two halves of it together."""
    escapes = {c: f"\\u{ord(c):04x}" if ord(c) < 1 << 16 else f"\\U{ord(c):08x}" for c in text if not c.isprintable()}
    return "".join(escapes.get(c, c) for c in json.dumps(text, ensure_ascii=False))


def to_yaml(value: Any, indent: int = 0) -> str:
    """A JSON value as YAML, block style."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{pad}{q(k)}:{_below(v, indent + 1)}" for k, v in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{pad}- {to_yaml(v, indent + 1).lstrip()}" for v in value)
    return pad + _scalar(value) + "\n"


def _below(value: Any, indent: int) -> str:
    return f"\n{to_yaml(value, indent)}" if isinstance(value, dict | list) and value else f" {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    return q(value) if isinstance(value, str) else json.dumps(value)


def event_object(event: KubeObject) -> ObjectRef:
    """What an Event is about: `involvedObject` in core/v1, `regarding` in events.k8s.io/v1."""
    about = event.raw.get("involvedObject") or event.raw.get("regarding") or {}
    return ObjectRef(text(about, "kind"), text(about, "name"), text(about, "namespace"))


def event_message(event: KubeObject) -> tuple[str, str]:
    """(field, text) of an Event's message: `message` in core/v1, `note` in events.k8s.io/v1."""
    field = "note" if "note" in event.raw else "message"
    return field, text(event.raw, field)
