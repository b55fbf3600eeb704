"""How a patch changes one object: strategic merge patch of the API machinery, and JSON patch (RFC 6902)."""

from __future__ import annotations

import copy
from typing import Any

from kubectl_genainet.kube.kustomize.fields import group_of
from kubectl_genainet.kube.yaml_text import Warn

# Merge keys of lists in Kubernetes' own kinds, by the list's field.
_MERGE_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "port"),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
    "resourceClaims": ("name",),
    "ownerReferences": ("uid",),
}
_OWN_GROUPS = frozenset(
    {
        *("", "apps", "autoscaling", "batch", "extensions", "policy", "admissionregistration.k8s.io"),
        *("apiextensions.k8s.io", "apiregistration.k8s.io", "certificates.k8s.io", "coordination.k8s.io"),
        *("discovery.k8s.io", "events.k8s.io", "flowcontrol.apiserver.k8s.io", "networking.k8s.io", "node.k8s.io"),
        *("rbac.authorization.k8s.io", "resource.k8s.io", "scheduling.k8s.io", "storage.k8s.io"),
    }
)


def merged_object(obj: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """An object after a strategic merge patch. Of a custom kind there is no schema: its lists are replaced."""
    out: dict[str, Any] = _merged(obj, patch, "", group_of(obj) in _OWN_GROUPS)
    return out


def _merged(old: Any, new: Any, field: str, own: bool) -> Any:
    """Mappings merge, lists with a merge key merge by it, null deletes, all else is replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        if new.get("$patch") == "replace":
            return {k: v for k, v in new.items() if k != "$patch"}
        out = dict(old)
        for key, value in new.items():
            if value is None:
                out.pop(key, None)
            elif key != "$patch":
                out[key] = _merged(old.get(key), value, key, own)
        return out
    if isinstance(new, list) and {"$patch": "replace"} in new:
        return [copy.deepcopy(i) for i in new if i != {"$patch": "replace"}]
    if own and isinstance(old, list) and isinstance(new, list) and all(isinstance(i, dict) for i in (*old, *new)):
        keys = [k for k in _MERGE_KEYS.get(field, ()) if all(k in i for i in (*old, *new))]
        if keys:
            return _merged_list(old, new, keys[0])
    return copy.deepcopy(new)


def _merged_list(old: list[dict[str, Any]], new: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The items of the patch first, as kustomize has them."""
    before = {str(item[key]): item for item in old}
    patched = {str(item[key]): item for item in new}
    kept = [
        _merged(before.get(name, {}), item, "", True)
        for name, item in patched.items()
        if item.get("$patch") != "delete"
    ]
    return kept + [item for name, item in before.items() if name not in patched]


def with_operations(obj: dict[str, Any], operations: list[Any], warn: Warn) -> dict[str, Any]:
    """The object after JSON patch operations; each that does not fit is left out with a warning."""
    out = copy.deepcopy(obj)
    for operation in operations:
        try:
            _operate(out, operation)
        except (KeyError, IndexError, ValueError, TypeError):
            where = f"{obj.get('kind')} {(obj.get('metadata') or {}).get('name')}"
            warn(f"the operation {operation.get('op')} {operation.get('path')} does not fit {where}: left out")
    return out


def _operate(value: Any, operation: dict[str, Any]) -> None:
    path = _steps(operation["path"])
    match operation["op"]:
        case "add":
            _add(value, path, copy.deepcopy(operation["value"]))
        case "remove":
            _remove(value, path)
        case "replace":
            _value_at(value, path)  # it must be there
            holder, last = _value_at(value, path[:-1]), path[-1]
            holder[int(last) if isinstance(holder, list) else last] = copy.deepcopy(operation["value"])
        case "copy":
            _add(value, path, copy.deepcopy(_value_at(value, _steps(operation["from"]))))
        case "move":
            _add(value, path, _remove(value, _steps(operation["from"])))
        case "test":
            if _value_at(value, path) != operation["value"]:
                raise ValueError(operation["path"])
        case _:
            raise ValueError(operation["op"])


def _steps(pointer: Any) -> list[str]:
    return [s.replace("~1", "/").replace("~0", "~") for s in str(pointer).split("/")[1:]]


def _value_at(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def _made(value: Any, steps: list[str]) -> Any:
    """The mapping or list that a path leads to; mappings on the way that are not there are made."""
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value.setdefault(step, {})
    return value


def _add(value: Any, steps: list[str], new: Any) -> None:
    holder, last = _made(value, steps[:-1]), steps[-1]
    if isinstance(holder, list):
        index = len(holder) if last == "-" else int(last)
        if not 0 <= index <= len(holder):
            raise IndexError(last)
        holder.insert(index, new)
    else:
        holder[last] = new


def _remove(value: Any, steps: list[str]) -> Any:
    holder, last = _value_at(value, steps[:-1]), steps[-1]
    return holder.pop(int(last) if isinstance(holder, list) else last)
