"""What a remedy changes, as objects: the patch commands and the added objects that it gives, applied to a copy.

Sources: RFC 7386 (merge patch), RFC 6902 (JSON patch); strategic merge joins lists of named items by their names, as the
API server does for containers, ports of containers and variables.
"""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from kubectl_genainet.doctor.objects.raw import items, mapping
from kubectl_genainet.doctor.objects.workloads import fold
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Remedy
from kubectl_genainet.model.kube import KubeObject

_INJECTED = ("istio-proxy", "linkerd-proxy")
_READS = ("get", "describe", "logs", "genainet", "explain", "exec")


class CannotApplyError(Exception):
    """A remedy that can't be applied to a copy: it is another program's, or left to the user's editor."""


class Addition(Remedy, frozen=True):
    """A remedy that adds objects; `yaml` is their text."""

    objects: tuple[dict[str, Any], ...] = ()


def changes_something(remedy: Remedy) -> bool:
    """Whether a remedy gives a change to paste, rather than something to look at."""
    words = [line.split() for line in remedy.command.splitlines() if line.strip()]
    reads = all(w[0] == "kubectl" and any(v in w[1:5] for v in _READS) for w in words)
    return bool(remedy.yaml.strip()) or (bool(words) and not reads)


def applied(snapshot: ClusterSnapshot, remedy: Remedy) -> ClusterSnapshot:
    """The snapshot with a remedy's changes, its workloads' pods made anew. Raises CannotApplyError."""
    objects = list(snapshot.objects)
    changed: list[KubeObject] = []
    if isinstance(remedy, Addition):
        new = [KubeObject(copy.deepcopy(o), _a_source(objects)) for o in remedy.objects]
        taken = {(o.group, o.kind, o.namespace, o.name) for o in new}
        objects = [o for o in objects if (o.group, o.kind, o.namespace, o.name) not in taken] + new
    elif remedy.yaml.strip() or not remedy.command.strip():
        raise CannotApplyError
    for line in remedy.command.splitlines():
        index, after = _one(objects, shlex.split(line, comments=True))
        objects[index] = after
        changed.append(after)
    return _with_new_pods(replace(snapshot, objects=tuple(objects)), changed)


def _a_source(objects: Sequence[KubeObject]) -> str:
    """Where objects from files say that they are from; empty for those of a cluster."""
    return "the remedy" if any(o.source for o in objects) else ""


def _one(objects: Sequence[KubeObject], words: list[str]) -> tuple[int, KubeObject]:
    """(index, object as it is after one kubectl command)."""
    if not words or words.pop(0) != "kubectl":
        raise CannotApplyError
    namespace = ""
    if words[:1] == ["-n"]:
        namespace, words = words[1], words[2:]
    verb, words = words[0], words[1:]
    if words[:1] == ["env"]:
        words = words[1:]
    kind, _, name = words[0].partition("/")
    rest = words[1:]
    if not name:
        name, rest = rest[0], rest[1:]
    index = _find(objects, kind, namespace, name)
    raw = copy.deepcopy(objects[index].raw)
    if verb == "patch":
        raw = _patched(raw, rest)
    elif verb in ("annotate", "label"):
        where = raw.setdefault("metadata", {}).setdefault("annotations" if verb == "annotate" else "labels", {})
        for key, equals, value in (w.partition("=") for w in rest if not w.startswith("--")):
            if equals:
                where[key] = value
            else:
                where.pop(key.removesuffix("-"), None)
    elif verb == "set":
        _set_env(raw, rest)
    elif verb == "scale":
        raw.setdefault("spec", {})["replicas"] = int(rest[0].removeprefix("--replicas="))
    else:
        raise CannotApplyError
    return index, KubeObject(raw, objects[index].source)


def _set_env(raw: dict[str, Any], words: list[str]) -> None:
    """`kubectl set env`: NAME=VALUE sets, NAME- takes away; in all containers, or in that of -c."""
    only = words[words.index("-c") + 1] if "-c" in words else ""
    for container in items(raw, "spec", "template", "spec", "containers"):
        if only not in ("", container.get("name")):
            continue
        for word in (w for w in words if w != "-c" and w != only):
            name, equals, value = word.partition("=")
            by_name = {e.get("name"): e for e in items(container, "env")}
            if equals:
                by_name[name] = {"name": name, "value": value}
            else:
                by_name.pop(name.removesuffix("-"), None)
            container["env"] = list(by_name.values())


def _find(objects: Sequence[KubeObject], kind: str, namespace: str, name: str) -> int:
    plain, _, group = kind.partition(".")
    for index, obj in enumerate(objects):
        same = (obj.kind.lower(), obj.name, obj.namespace) == (plain.removesuffix("s"), name, namespace)
        plural = (obj.kind.lower(), obj.name, obj.namespace) == (plain, name, namespace)
        if (same or plural) and group in ("", obj.group):
            return index
    raise CannotApplyError


def _patched(raw: dict[str, Any], words: list[str]) -> dict[str, Any]:
    kind = next((w.removeprefix("--type=") for w in words if w.startswith("--type=")), "strategic")
    change = json.loads(words[words.index("-p") + 1])
    if kind == "json":
        for operation in change:
            _operate(raw, operation)
        return raw
    merged = _merged(raw, change, by_name=kind == "strategic")
    if not isinstance(merged, dict):
        raise CannotApplyError
    return merged


def _merged(value: Any, change: Any, *, by_name: bool) -> Any:
    if isinstance(change, dict):
        out = dict(value) if isinstance(value, dict) else {}
        for key, below in change.items():
            if below is None:
                out.pop(key, None)
            else:
                out[key] = _merged(out.get(key), below, by_name=by_name)
        return out
    if by_name and isinstance(change, list) and isinstance(value, list) and all(_named(i) for i in (*change, *value)):
        own = {i["name"]: i for i in value}
        joined = {i["name"]: _merged(own.get(i["name"]), i, by_name=True) for i in change}
        return list({**own, **joined}.values())
    return change


def _named(item: Any) -> bool:
    return isinstance(item, dict) and "name" in item


def _operate(raw: dict[str, Any], operation: dict[str, Any]) -> None:
    """One operation of a JSON patch, in place."""
    *path, last = [s.replace("~1", "/").replace("~0", "~") for s in str(operation["path"]).split("/")[1:]]
    at: Any = raw
    try:
        for step in path:
            at = at[int(step)] if isinstance(at, list) else at[step]
        if operation["op"] == "remove":
            del at[int(last) if isinstance(at, list) else last]
        elif isinstance(at, list) and operation["op"] == "add":
            at.insert(len(at) if last == "-" else int(last), operation["value"])
        else:
            at[int(last) if isinstance(at, list) else last] = operation["value"]
    except (KeyError, IndexError, TypeError, ValueError):
        raise CannotApplyError from None


def _with_new_pods(snapshot: ClusterSnapshot, changed: Iterable[KubeObject]) -> ClusterSnapshot:
    """The pods of changed workloads as a rollout makes them: spec and annotations of the template, labels kept."""
    refs = {o.ref for o in changed}
    specs = {
        pod.ref: workload.template
        for workload in (fold(snapshot) if refs else ())
        if workload.ref in refs and workload.ref.kind != "Pod"
        for pod in workload.pods
    }
    if not specs:
        return snapshot
    out = []
    for obj in snapshot.objects:
        template = specs.get(obj.ref) if obj.kind == "Pod" else None
        if template is not None:
            node = {k: v for k, v in mapping(obj.raw, "spec").items() if k == "nodeName"}
            kept = [c for c in items(obj.raw, "spec", "containers") if c.get("name") in _INJECTED]
            spec = {**template.spec, **node, "containers": [*items(template.spec, "containers"), *kept]}
            metadata = {**mapping(obj.raw, "metadata"), "annotations": dict(template.annotations)}
            obj = KubeObject({**obj.raw, "metadata": metadata, "spec": spec}, obj.source)
        out.append(obj)
    return replace(snapshot, objects=tuple(out))
