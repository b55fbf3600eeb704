"""What a remedy changes, as objects: the patch commands and the added objects that it gives, applied to a copy.

Sources: RFC 7386 (merge patch), RFC 6902 (JSON patch); strategic merge joins lists of named items by their names, as the
API server does for containers, ports of containers and variables.
"""

from __future__ import annotations

import copy
import json
import re
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
    commands = [line.split() for line in remedy.command.splitlines() if line.strip()]
    return bool(remedy.yaml.strip()) or not all(map(_only_reads, commands))


# What programs of the nodes and the clouds are told to show; with any other words they change something.
_SHOWS = (
    re.compile(r"ethtool -S "),
    re.compile(r"conntrack -[CLS]\b"),
    re.compile(r"rdma (-\S+ )?statistic show\b"),
    re.compile(r"aws \S+ describe-"),
    re.compile(r"ip6?tables(-legacy|-nft)? (-t \S+ )?-\S*L"),
)


def _only_reads(tokens: list[str]) -> bool:
    """Whether a command shows something and changes nothing."""
    if tokens[0] == "kubectl":
        return any(verb in tokens[1:5] for verb in _READS)
    line = " ".join(tokens).partition(" #")[0] + " "
    shown, _, filtered = line.partition("| grep ")
    return not set("|>&;") & set(shown + filtered) and any(pattern.match(shown) for pattern in _SHOWS)


# Steps whose outcome is not in the objects as they are written.
_ELSEWHERE = {
    "edit": "the value is yours to choose",
    "delete": "the object is made anew by its controller, as it was written",
    "rollout": "the pods are made anew, as they were written",
    "apply": "the file that it applies is not here",
    "create": "the object that it makes is not written out here",
    "drain": "the node's pods move, and no object changes",
}


def untriable(remedy: Remedy) -> str:
    """Why a remedy can't be applied to a copy of the objects; empty where it can."""
    for tokens in (line.split() for line in remedy.command.splitlines() if line.strip()):
        if tokens[0] != "kubectl":
            return f"{tokens[0]} makes the change, not the API server"
        verb = next((v for v in tokens[1:] if v in _ELSEWHERE), "")
        if verb:
            return _ELSEWHERE[verb]
    if remedy.yaml.strip() and not isinstance(remedy, Addition):
        return "parts of it are yours to fill in"
    return ""


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


def _one(objects: Sequence[KubeObject], tokens: list[str]) -> tuple[int, KubeObject]:
    """(index, object as it is after one kubectl command)."""
    if not tokens or tokens.pop(0) != "kubectl":
        raise CannotApplyError
    namespace = ""
    if tokens[:1] == ["-n"]:
        namespace, tokens = tokens[1], tokens[2:]
    verb, tokens = tokens[0], tokens[1:]
    if tokens[:1] == ["env"]:
        tokens = tokens[1:]
    if not tokens:
        raise CannotApplyError
    kind, _, name = tokens[0].partition("/")
    arguments = tokens[1:]
    if not name:
        if not arguments:
            raise CannotApplyError
        name, arguments = arguments[0], arguments[1:]
    index = _find(objects, kind, namespace, name)
    raw = copy.deepcopy(objects[index].raw)
    if verb == "patch":
        raw = _patched(raw, arguments)
    elif verb in ("annotate", "label"):
        where = _mapping_in(_mapping_in(raw, "metadata"), "annotations" if verb == "annotate" else "labels")
        for key, equals, value in (w.partition("=") for w in arguments if not w.startswith("--")):
            if equals:
                where[key] = value
            else:
                where.pop(key.removesuffix("-"), None)
    elif verb == "set":
        _set_env(raw, arguments)
    elif verb == "scale":
        _mapping_in(raw, "spec")["replicas"] = int(arguments[0].removeprefix("--replicas="))
    else:
        raise CannotApplyError
    return index, KubeObject(raw, objects[index].source)


def _mapping_in(raw: dict[str, Any], field: str) -> dict[str, Any]:
    """The mapping in a field, made where there is none. Raises CannotApplyError where something else is in its place."""
    members = raw.setdefault(field, {})
    if not isinstance(members, dict):
        raise CannotApplyError
    return members


def _set_env(raw: dict[str, Any], arguments: list[str]) -> None:
    """`kubectl set env`: NAME=VALUE sets, NAME- takes away; in all containers, or in that of -c."""
    only = arguments[arguments.index("-c") + 1] if "-c" in arguments else ""
    for container in items(raw, "spec", "template", "spec", "containers"):
        if only not in ("", container.get("name")):
            continue
        for word in (w for w in arguments if w != "-c" and w != only):
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


def _patched(raw: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    kind = next((w.removeprefix("--type=") for w in arguments if w.startswith("--type=")), "strategic")
    change = json.loads(arguments[arguments.index("-p") + 1])
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
        merged = dict(value) if isinstance(value, dict) else {}
        for key, below in change.items():
            if below is None:
                merged.pop(key, None)
            else:
                merged[key] = _merged(merged.get(key), below, by_name=by_name)
        return merged
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
    parent: Any = raw
    try:
        for step in path:
            parent = parent[int(step)] if isinstance(parent, list) else parent[step]
        if operation["op"] == "remove":
            del parent[int(last) if isinstance(parent, list) else last]
        elif isinstance(parent, list) and operation["op"] == "add":
            parent.insert(len(parent) if last == "-" else int(last), operation["value"])
        else:
            parent[int(last) if isinstance(parent, list) else last] = operation["value"]
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
    objects = []
    for obj in snapshot.objects:
        template = specs.get(obj.ref) if obj.kind == "Pod" else None
        if template is not None:
            node = {k: v for k, v in mapping(obj.raw, "spec").items() if k == "nodeName"}
            kept = [c for c in items(obj.raw, "spec", "containers") if c.get("name") in _INJECTED]
            spec = {**template.spec, **node, "containers": [*items(template.spec, "containers"), *kept]}
            metadata = {**mapping(obj.raw, "metadata"), "annotations": dict(template.annotations)}
            obj = KubeObject({**obj.raw, "metadata": metadata, "spec": spec}, obj.source)
        objects.append(obj)
    return replace(snapshot, objects=tuple(objects))
