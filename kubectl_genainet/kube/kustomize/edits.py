"""What a kustomization does to objects: patches, and the fields that it sets in all of them.

Source: Kustomize's reference of the kustomization file; RFC 6902; strategic merge patch of the API machinery, with the
merge keys of the lists in a pod's spec.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.kustomize.targets import selects
from kubectl_genainet.kube.yaml_text import Warn, parse_text
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.workload_kinds.kinds import pod_templates

Item = tuple[dict[str, Any], str]

_CLUSTER_WIDE = re.compile(r"Cluster.*|Namespace|Node|CustomResourceDefinition|PersistentVolume|.*Class|Global.*")
# Merge keys of lists, by the list's field.
_MERGE_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port"),
    "imagePullSecrets": ("name",),
}


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch: a list of JSON 6902 operations or a partial object, and what it is for (empty: the object it names)."""

    body: Any
    target: dict[str, Any]


def is_component(raw: dict[str, Any]) -> bool:
    return raw.get("kind") == "Component"


def generated(raw: dict[str, Any], text_of: Callable[[str], str | None]) -> Iterable[dict[str, Any]]:
    """The ConfigMaps that a kustomization generates. Secrets are generated without their values."""
    for kind, field in (("ConfigMap", "configMapGenerator"), ("Secret", "secretGenerator")):
        for generator in raw.get(field) or ():
            data: dict[str, str] = {}
            for literal in generator.get("literals") or ():
                key, _, value = str(literal).partition("=")
                data[key] = value
            for file in generator.get("files") or ():
                key, _, path = str(file).rpartition("=")
                data[key or path.rpartition("/")[2]] = text_of(path) or ""
            metadata = {"name": generator["name"]}
            if generator.get("namespace"):
                metadata["namespace"] = generator["namespace"]
            values = {"data": data} if kind == "ConfigMap" else {}
            yield {"apiVersion": "v1", "kind": kind, "metadata": metadata, **values}


def patches_of(raw: dict[str, Any], values_of: Callable[[str], list[Item]], warn: Warn) -> Iterable[Patch]:
    for text in raw.get("patchesStrategicMerge") or ():
        bodies = _inline(text, warn) if "\n" in str(text) else [v for v, _ in values_of(str(text))]
        yield from (Patch(body, {}) for body in bodies)
    for patch in [*(raw.get("patches") or ()), *(raw.get("patchesJson6902") or ())]:
        target = patch.get("target") or {}
        bodies = (
            _inline(patch["patch"], warn) if patch.get("patch") else [v for v, _ in values_of(str(patch.get("path")))]
        )
        if bodies and all(isinstance(b, dict) and "op" in b for b in bodies):
            bodies = [bodies]
        yield from (Patch(body, target) for body in bodies)


def _inline(text: Any, warn: Warn) -> list[Any]:
    try:
        return [d for d in parse_text("a patch", str(text), warn) if d is not None]
    except InputError as error:
        warn(f"{error.message}: left out")
        return []


def patched(items: Sequence[Item], patch: Patch, warn: Warn) -> list[Item]:
    """The objects with one patch applied to those that it is for. One whose target is not read is for none of them."""
    try:
        return _patched(items, patch, warn)
    except InputError as error:
        warn(f"{error.message}: the patch is left out")
        return list(items)


def _patched(items: Sequence[Item], patch: Patch, warn: Warn) -> list[Item]:
    out: list[Item] = []
    hits = 0
    for obj, source in items:
        if not _is_for(patch, obj):
            out.append((obj, source))
            continue
        hits += 1
        if isinstance(patch.body, list):
            out.append((_with_operations(obj, patch.body, warn), source))
        elif patch.body.get("$patch") != "delete":
            body = {k: v for k, v in patch.body.items() if k not in ("apiVersion", "kind", "$patch")}
            if patch.target:  # the target says which object: the name in the patch is not merged
                names = ("name", "namespace")
                body["metadata"] = {k: v for k, v in (body.get("metadata") or {}).items() if k not in names}
            out.append((_merged(obj, body, ""), source))
    if not hits:
        warn(f"a patch is for no object here ({patch.target or _named(patch.body)})")
    return out


def _named(body: Any) -> str:
    return f"{body.get('kind')} {(body.get('metadata') or {}).get('name')}" if isinstance(body, dict) else "no target"


def _is_for(patch: Patch, obj: dict[str, Any]) -> bool:
    if patch.target:
        return selects(patch.target, obj)
    metadata = obj.get("metadata") or {}
    body = patch.body if isinstance(patch.body, dict) else {}
    named = body.get("metadata") or {}
    return bool(body) and (body.get("kind"), named.get("name")) == (obj.get("kind"), metadata.get("name"))


def _merged(old: Any, new: Any, field: str) -> Any:
    """A strategic merge: mappings merge, lists with a merge key merge by it, null deletes, all else is replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        if new.get("$patch") == "replace":
            return {k: v for k, v in new.items() if k != "$patch"}
        out = dict(old)
        for key, value in new.items():
            if value is None:
                out.pop(key, None)
            elif key != "$patch":
                out[key] = _merged(old.get(key), value, key)
        return out
    if isinstance(old, list) and isinstance(new, list) and all(isinstance(i, dict) for i in (*old, *new)):
        keys = [k for k in _MERGE_KEYS.get(field, ()) if all(k in i for i in (*old, *new))]
        if keys:
            return _merged_list(old, new, keys[0])
    return copy.deepcopy(new)


def _merged_list(old: list[dict[str, Any]], new: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    by_key = {str(i[key]): i for i in old}
    for item in new:
        name = str(item[key])
        if item.get("$patch") == "delete":
            by_key.pop(name, None)
        else:
            by_key[name] = _merged(by_key.get(name, {}), item, "")
    return list(by_key.values())


def _with_operations(obj: dict[str, Any], operations: list[Any], warn: Warn) -> dict[str, Any]:
    out = copy.deepcopy(obj)
    for operation in operations:
        steps = [s.replace("~1", "/").replace("~0", "~") for s in str(operation.get("path", "")).split("/")[1:]]
        try:
            _operate(out, operation, steps)
        except (KeyError, IndexError, ValueError, TypeError):
            warn(f"the operation {operation.get('op')} {operation.get('path')} does not fit {_named(obj)}: left out")
    return out


def _operate(value: Any, operation: dict[str, Any], steps: list[str]) -> None:
    for step in steps[:-1]:
        value = value[int(step)] if isinstance(value, list) else value[step]
    last, op = steps[-1], operation["op"]
    if isinstance(value, list):
        index = len(value) if last == "-" else int(last)
        if op == "add":
            value.insert(index, copy.deepcopy(operation["value"]))
        elif op == "replace":
            value[index] = copy.deepcopy(operation["value"])
        elif op == "remove":
            del value[index]
    elif op in ("add", "replace"):
        value[last] = copy.deepcopy(operation["value"])
    elif op == "remove":
        del value[last]


def set_fields(items: Sequence[Item], raw: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Sets namespace, names, labels, annotations, images and replicas in all objects, in place.

    Returns the new names, by kind and former name.
    """
    renamed: dict[tuple[str, str], str] = {}
    labels = _labels_of(raw)
    prefix, suffix = str(raw.get("namePrefix") or ""), str(raw.get("nameSuffix") or "")
    for obj, _ in items:
        metadata = obj.setdefault("metadata", {})
        kind = str(obj.get("kind", ""))
        if raw.get("namespace") and not _CLUSTER_WIDE.fullmatch(kind):
            metadata["namespace"] = raw["namespace"]
        if (prefix or suffix) and kind not in ("Namespace", "CustomResourceDefinition") and "name" in metadata:
            renamed[kind, str(metadata["name"])] = f"{prefix}{metadata['name']}{suffix}"
            metadata["name"] = renamed[kind, str(metadata["name"])]
        _set_labels(obj, labels)
        if raw.get("commonAnnotations"):
            metadata["annotations"] = {**(metadata.get("annotations") or {}), **raw["commonAnnotations"]}
        for replicas in raw.get("replicas") or ():
            if replicas.get("name") in (metadata.get("name"), _name_before(str(metadata.get("name")), prefix, suffix)):
                obj.setdefault("spec", {})["replicas"] = replicas.get("count")
    if renamed:
        for obj, _ in items:
            _rename_references(obj, renamed)
    images = {image.get("name"): image for image in raw.get("images") or ()}
    if images:
        for obj, _ in items:
            _set_image(obj, images)
    return renamed


def name_before(name: str, raw: dict[str, Any]) -> str:
    """The name that an object had before a kustomization added its prefix and suffix."""
    return _name_before(name, str(raw.get("namePrefix") or ""), str(raw.get("nameSuffix") or ""))


def _name_before(name: str, prefix: str, suffix: str) -> str:
    return name.removeprefix(prefix).removesuffix(suffix) if suffix else name.removeprefix(prefix)


@dataclass(frozen=True, slots=True)
class _Labels:
    """The labels that a kustomization gives to objects, to their pod templates and to their selectors."""

    own: dict[str, Any]
    templates: dict[str, Any]
    selectors: dict[str, Any]


def _labels_of(raw: dict[str, Any]) -> _Labels:
    """commonLabels reach selectors and templates too; `labels` as each of its entries says."""
    common = raw.get("commonLabels") or {}
    labels = _Labels(dict(common), dict(common), dict(common))
    for entry in raw.get("labels") or ():
        pairs = entry.get("pairs") or {}
        labels.own.update(pairs)
        if entry.get("includeSelectors") or entry.get("includeTemplates"):
            labels.templates.update(pairs)
        if entry.get("includeSelectors"):
            labels.selectors.update(pairs)
    return labels


def _set_labels(obj: dict[str, Any], labels: _Labels) -> None:
    if labels.own:
        _add_labels(obj.setdefault("metadata", {}), labels.own)
    if labels.templates:
        for template in pod_templates(KubeObject(obj)):
            _add_labels(_template_metadata(obj, template.path), labels.templates)
    if labels.selectors:
        _add_to_selectors(obj, labels.selectors)


def _template_metadata(obj: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    value: Any = obj
    for step in path:
        value = value[step]
    metadata: dict[str, Any] = value.setdefault("metadata", {})
    return metadata


def _add_labels(metadata: dict[str, Any], pairs: dict[str, Any]) -> None:
    metadata["labels"] = {**(metadata.get("labels") or {}), **pairs}


def _add_to_selectors(obj: dict[str, Any], pairs: dict[str, Any]) -> None:
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return
    match obj.get("kind"):
        case "Service" | "ReplicationController":
            if spec.get("selector"):
                spec["selector"] = {**spec["selector"], **pairs}
        case "NetworkPolicy":
            peers = [p for side in ("ingress", "egress") for r in spec.get(side) or () for p in _peers(r)]
            for holder in [spec, *peers]:
                selector = holder.get("podSelector")
                if isinstance(selector, dict) and (holder is not spec or "podSelector" in spec):
                    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), **pairs}
        case _:
            selector = spec.get("selector")
            if isinstance(selector, dict) and pod_templates(KubeObject(obj)):
                selector["matchLabels"] = {**(selector.get("matchLabels") or {}), **pairs}


def _peers(rule: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(rule.get("from") or ()), *(rule.get("to") or ())]


_REFERENCES = {
    "serviceName": "Service",
    "serviceAccountName": "ServiceAccount",
    "configMapRef": "ConfigMap",
    "configMapKeyRef": "ConfigMap",
    "configMap": "ConfigMap",
    "secretRef": "Secret",
    "secretKeyRef": "Secret",
    "claimName": "PersistentVolumeClaim",
    "service": "Service",
    "scaleTargetRef": "Deployment",
}


def _rename_references(value: Any, renamed: dict[tuple[str, str], str]) -> None:
    """Follows the names that a prefix or a suffix changed into the fields that refer to them, in place."""
    if isinstance(value, list):
        for item in value:
            _rename_references(item, renamed)
    if not isinstance(value, dict):
        return
    for field, inner in value.items():
        kind = _REFERENCES.get(field, "")
        if isinstance(inner, str) and (kind, inner) in renamed:
            value[field] = renamed[kind, inner]
        elif isinstance(inner, dict) and (kind, inner.get("name")) in renamed:
            inner["name"] = renamed[kind, str(inner["name"])]
        if field != "metadata":
            _rename_references(inner, renamed)


def _set_image(value: Any, images: dict[Any, dict[str, Any]]) -> None:
    if isinstance(value, list):
        for item in value:
            _set_image(item, images)
    elif isinstance(value, dict):
        for container in [
            c for f in ("containers", "initContainers") for c in value.get(f) or () if isinstance(c, dict)
        ]:
            name = _image_name(str(container.get("image", "")))
            image = images.get(name)
            if image is not None:
                new = str(image.get("newName") or name)
                tag = str(container["image"]).removeprefix(name)
                if image.get("digest"):
                    tag = f"@{image['digest']}"
                elif image.get("newTag") is not None:
                    tag = f":{image['newTag']}"
                container["image"] = new + tag
        for inner in value.values():
            if isinstance(inner, dict | list):
                _set_image(inner, images)


def _image_name(reference: str) -> str:
    """An image's reference without its tag and digest."""
    name = reference.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(":")[0]
