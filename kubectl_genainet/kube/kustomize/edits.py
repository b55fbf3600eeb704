"""What a kustomization does to objects: patches, and the fields that it sets in all of them.

Source: Kustomize's reference of the kustomization file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.kustomize.configurations import Configured
from kubectl_genainet.kube.kustomize.labels import set_labels
from kubectl_genainet.kube.kustomize.merging import merged_object, with_operations
from kubectl_genainet.kube.kustomize.names import former_names, name_of, renamings
from kubectl_genainet.kube.kustomize.references import follow
from kubectl_genainet.kube.kustomize.targets import selects
from kubectl_genainet.kube.yaml_text import Warn, parse_text

Item = tuple[dict[str, Any], str]

# The kinds of Kubernetes' own groups without a namespace; every other one is taken for one with a namespace, as by kubectl.
_CLUSTER_WIDE = frozenset(
    {
        *("APIService", "CSIDriver", "CSINode", "CertificateSigningRequest", "ClusterRole", "ClusterRoleBinding"),
        *(
            "ComponentStatus",
            "CustomResourceDefinition",
            "FlowSchema",
            "IPAddress",
            "IngressClass",
            "Namespace",
            "Node",
        ),
        *("MutatingWebhookConfiguration", "PersistentVolume", "PriorityClass", "PriorityLevelConfiguration"),
        *("RuntimeClass", "ServiceCIDR", "StorageClass", "ValidatingAdmissionPolicy", "VolumeAttachment"),
        *("ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration"),
    }
)
_NOT_PREFIXED = ("Namespace", "CustomResourceDefinition", "APIService")
_SCALED = ("Deployment", "ReplicaSet", "ReplicationController", "StatefulSet")


@dataclass(frozen=True, slots=True)
class KustomizePatch:
    """One patch: a list of JSON 6902 operations or a partial object, and what it is for (empty: the object it names)."""

    body: Any
    target: dict[str, Any]
    options: dict[str, Any]


def is_component(raw: dict[str, Any]) -> bool:
    return raw.get("kind") == "Component"


def patches_of(raw: dict[str, Any], values_of: Callable[[str], list[Item]], warn: Warn) -> Iterable[KustomizePatch]:
    for text in raw.get("patchesStrategicMerge") or ():
        bodies = inline_documents(text, warn) if "\n" in str(text) else [v for v, _ in values_of(str(text))]
        yield from (KustomizePatch(body, {}, {}) for body in bodies)
    for patch in [*(raw.get("patches") or ()), *(raw.get("patchesJson6902") or ())]:
        target = patch.get("target") or {}
        bodies = (
            inline_documents(patch["patch"], warn)
            if patch.get("patch")
            else [v for v, _ in values_of(str(patch.get("path")))]
        )
        if bodies and all(isinstance(b, dict) and "op" in b for b in bodies):
            bodies = [bodies]
        yield from (KustomizePatch(body, target, patch.get("options") or {}) for body in bodies)


def inline_documents(text: Any, warn: Warn) -> list[Any]:
    """The documents of a text that stands in the kustomization itself."""
    try:
        return [d for d in parse_text("a patch", str(text), warn) if d is not None]
    except InputError as error:
        warn(f"{error.message}: left out")
        return []


def patched(items: Sequence[Item], patch: KustomizePatch, place: str, warn: Warn) -> list[Item]:
    """The objects with one patch applied to those that it is for, whose sources then name the `place` of the patch. One
    whose target is not read is for none of them."""
    try:
        return _patched(items, patch, place, warn)
    except InputError as error:
        warn(f"{error.message}: the patch is left out")
        return list(items)


def _patched(items: Sequence[Item], patch: KustomizePatch, place: str, warn: Warn) -> list[Item]:
    out: list[Item] = []
    by = f", patched in {place}"
    hits = 0
    for obj, source in items:
        if not _is_for(patch, obj):
            out.append((obj, source))
            continue
        hits += 1
        source = source if source.endswith(by) else source + by
        if isinstance(patch.body, list):
            out.append((with_operations(obj, patch.body, warn), source))
        elif patch.body.get("$patch") != "delete":
            out.append((merged_object(obj, _merging_body(patch)), source))
    if not hits:
        warn(f"a patch is for no object here ({patch.target or _named(patch.body)})")
    return out


def _merging_body(patch: KustomizePatch) -> dict[str, Any]:
    """What of a patch is merged: its names say which object it is for, unless it may change them."""
    body = {k: v for k, v in patch.body.items() if k not in ("apiVersion", "kind", "$patch")}
    if patch.options.get("allowKindChange"):
        body |= {k: patch.body[k] for k in ("apiVersion", "kind") if k in patch.body}
    metadata = dict(body.get("metadata") or {})
    if not patch.options.get("allowNameChange"):
        metadata.pop("name", None)
    if patch.target:
        metadata.pop("namespace", None)
    return {**body, "metadata": metadata} if metadata else {k: v for k, v in body.items() if k != "metadata"}


def _named(body: Any) -> str:
    return f"{body.get('kind')} {(body.get('metadata') or {}).get('name')}" if isinstance(body, dict) else "no target"


def _is_for(patch: KustomizePatch, obj: dict[str, Any]) -> bool:
    metadata = obj.get("metadata") or {}
    names = [name_of(obj), *former_names(obj)]
    if patch.target:
        return any(
            selects(
                patch.target, {**obj, "metadata": {**metadata, "name": n.name, "namespace": n.namespace or "default"}}
            )
            for n in names
        )
    body = patch.body if isinstance(patch.body, dict) else {}
    named = name_of(body)
    return (
        bool(body)
        and body.get("kind") == obj.get("kind")
        and any(named.name == n.name and named.namespace in ("", n.namespace) for n in names)
    )


def set_fields(items: Sequence[Item], raw: dict[str, Any], configured: Configured) -> dict[tuple[str, str], str]:
    """Sets namespace, names, labels, annotations, images and replicas in all objects, in place.

    Returns the new names, by kind and former name.
    """
    counts = {replicas.get("name"): replicas.get("count") for replicas in raw.get("replicas") or ()}
    prefix, suffix = str(raw.get("namePrefix") or ""), str(raw.get("nameSuffix") or "")
    objects = [obj for obj, _ in items]
    for obj in objects:
        metadata = obj.setdefault("metadata", {})
        kind = str(obj.get("kind", ""))
        if raw.get("namespace"):
            _set_namespace(obj, placement_of(raw["namespace"]))
        if (prefix or suffix) and kind not in _NOT_PREFIXED and "name" in metadata:
            metadata["name"] = f"{prefix}{metadata['name']}{suffix}"
        set_labels(obj, raw, configured.labelled, configured.annotated)
        if kind in _SCALED:
            names = [name_of(obj).name, *(n.name for n in former_names(obj))]
            for name in (n for n in names if n in counts):
                obj.setdefault("spec", {})["replicas"] = counts[name]
    renamed = renamings(objects)
    follow(objects, renamed, configured.references)
    images = {image.get("name"): image for image in raw.get("images") or ()}
    if images:
        for obj in objects:
            _set_image(obj, images)
    return {(renaming.kind, renaming.before.name): renaming.after.name for renaming in renamed}


@dataclass(frozen=True, slots=True)
class Placement:
    """The namespace that objects get: whether one that an object has stays, whether a Namespace gets it as its name, and
    which ServiceAccounts that roles are bound to move too (defaultOnly, allServiceAccounts, none)."""

    namespace: str
    unset_only: bool = False
    renames: bool = True
    subjects: str = "defaultOnly"


def placement_of(value: Any) -> Placement:
    """What a kustomization's `namespace` asks for."""
    return value if isinstance(value, Placement) else Placement(str(value))


def _set_namespace(obj: dict[str, Any], to: Placement) -> None:
    kind, metadata = obj.get("kind"), obj["metadata"]
    if kind == "Namespace":
        if to.renames and not (to.unset_only and metadata.get("name")):
            metadata["name"] = to.namespace
    elif kind not in _CLUSTER_WIDE and not (to.unset_only and metadata.get("namespace")):
        metadata["namespace"] = to.namespace
    if kind in ("RoleBinding", "ClusterRoleBinding") and to.subjects != "none":
        for subject in obj.get("subjects") or ():
            meant = to.subjects == "allServiceAccounts" or subject.get("name") == "default"
            if subject.get("kind") == "ServiceAccount" and meant and not (to.unset_only and subject.get("namespace")):
                subject["namespace"] = to.namespace


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
