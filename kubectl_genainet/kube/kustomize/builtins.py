"""Kustomize's own plugins, named in `transformers` and `generators`: each as the kustomization that does the same.

Source: Kustomize's reference of its builtin plugins. One that sets other fields than a kustomization does is not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.kustomize.edits import Placement

Raw = dict[str, Any]


def as_kustomization(document: Any) -> Raw:
    """The kustomization that does what a plugin's configuration asks for. Raises InputError for one that is not read."""
    plugin = document if isinstance(document, dict) else {}
    kind = str(plugin.get("kind"))
    written = _WRITTEN.get(kind)
    same = written(plugin) if written is not None and plugin.get("apiVersion") == "builtin" else None
    if same is None:
        raise InputError(f"the plugin {kind} {(plugin.get('metadata') or {}).get('name', '')} is not built")
    return same


def _generator(field: str) -> Callable[[Raw], Raw]:
    def written(plugin: Raw) -> Raw:
        metadata = plugin["metadata"]
        own = {k: v for k, v in plugin.items() if k not in ("apiVersion", "kind", "metadata")}
        place = {"namespace": metadata["namespace"]} if metadata.get("namespace") else {}
        return {field: [{"name": metadata["name"], **place, **own}]}

    return written


def _affix(field: str, key: str) -> Callable[[Raw], Raw | None]:
    """A prefix or suffix of the names of all objects."""
    return lambda plugin: {field: plugin[key]} if plugin.get("fieldSpecs") == [{"path": "metadata/name"}] else None


_NAMES_NAMESPACES = {"path": "metadata/name", "kind": "Namespace", "create": True}
_PLACES = {"path": "metadata/namespace", "create": True}


def _namespace(plugin: Raw) -> Raw | None:
    """Unlike a kustomization's `namespace` the plugin names Namespaces only where its fields say so."""
    fields = plugin.get("fieldSpecs") or []
    if any(field not in (_NAMES_NAMESPACES, _PLACES) for field in fields):
        return None
    to = Placement(
        plugin["metadata"]["namespace"],
        unset_only=bool(plugin.get("unsetOnly")),
        renames=_NAMES_NAMESPACES in fields,
        subjects=plugin.get("setRoleBindingSubjects") or "defaultOnly",
    )
    return {"namespace": to}


def _labels(plugin: Raw) -> Raw | None:
    fields = plugin.get("fieldSpecs") or []
    if {"path": "metadata/labels", "create": True} not in fields:
        return None
    return {"labels": [{"pairs": plugin["labels"], "fields": fields}]}


_WRITTEN: dict[str, Callable[[Raw], Raw | None]] = {
    "ConfigMapGenerator": _generator("configMapGenerator"),
    "SecretGenerator": _generator("secretGenerator"),
    "PrefixTransformer": _affix("namePrefix", "prefix"),
    "SuffixTransformer": _affix("nameSuffix", "suffix"),
    "NamespaceTransformer": _namespace,
    "LabelTransformer": _labels,
    "PatchTransformer": lambda plugin: {"patches": [plugin]},
    "PatchJson6902Transformer": lambda plugin: {"patches": [{**plugin, "patch": plugin.get("jsonOp")}]},
    "ImageTagTransformer": lambda plugin: {"images": [plugin["imageTag"]]},
    "ReplicaCountTransformer": lambda plugin: {"replicas": [plugin["replica"]]},
    "ReplacementTransformer": lambda plugin: {"replacements": plugin["replacements"]},
}
