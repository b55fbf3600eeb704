"""A snapshot from YAML and JSON files, folders or standard input: policies can be judged before they are applied.

Workloads count as their pods: each stays in the snapshot and gets the pods that its controller would make, unless the
files hold these already. Such pods have no address and no node; what depends on them is unknown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject, without_nulls

_SUFFIXES = (".yaml", ".yml", ".json")
_CLUSTER_SCOPED = frozenset(
    {
        "Namespace",
        "Node",
        "AdminNetworkPolicy",
        "BaselineAdminNetworkPolicy",
        "CiliumClusterwideNetworkPolicy",
        "GlobalNetworkPolicy",
        "GlobalNetworkSet",
        "HostEndpoint",
        "Tier",
        "CiliumCIDRGroup",
        "CiliumNode",
        "CustomResourceDefinition",
        "ClusterRole",
        "ClusterRoleBinding",
        "PersistentVolume",
        "StorageClass",
        "IngressClass",
        "GatewayClass",
        "PriorityClass",
        "RuntimeClass",
        "APIService",
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "ClusterNetworkPolicy",
        "FelixConfiguration",
        "IPPool",
        "BGPConfiguration",
        "Profile",
    }
)
_WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"})
# Named pods of a StatefulSet; more than this many are the same to every policy.
_MOST_REPLICAS = 100


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as kubectl reads it: a key given twice is an error, timestamps stay text."""

    yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} is given twice", key_node.start_mark
                    )
                seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def load_manifests(paths: Sequence[str]) -> ClusterSnapshot:
    """The objects of all files, in order; "-" is standard input, a folder stands for the files below it.

    Raises InputError, with file and document, for what can't be read, is no Kubernetes object or is given twice.
    """
    objects: dict[tuple[str, str, str, str], KubeObject] = {}
    for path in paths:
        for obj in _read(path):
            key = (obj.group, obj.kind, obj.namespace, obj.name)
            if key in objects:
                raise InputError(f"given twice; also in {objects[key].source}", source=obj.source, obj=str(obj.ref))
            objects[key] = obj
    found = list(objects.values())
    if not found:
        where = ", ".join("standard input" if path == "-" else path for path in paths)
        raise InputError(f"there is no Kubernetes object in {where}")
    return ClusterSnapshot((*found, *_pods_of_workloads(found)))


def _read(path: str) -> Iterator[KubeObject]:
    if path == "-":
        yield from _documents("standard input", sys.stdin.read())
        return
    place = Path(path)
    if place.is_dir():
        files = sorted(p for p in place.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
        if not files:
            raise InputError(f"there is no {', '.join(_SUFFIXES)} file in {path}")
    else:
        files = [place]
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise InputError(f"can't read {file}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"{file} is not UTF-8 text") from None
        yield from _documents(str(file), text)


def _documents(source: str, text: str) -> Iterator[KubeObject]:
    for number, document in enumerate(_parse(source, text), start=1):
        where = f"{source}, document {number}"
        if document is not None:
            yield from _objects(document, where)


def _parse(source: str, text: str) -> Iterable[Any]:
    if text.lstrip()[:1] in ("{", "["):
        try:
            return [json.loads(text)]
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Extra data"):
                try:
                    return list(yaml.load_all(text, Loader=_Loader))  # flow style, or JSON with comments
                except yaml.YAMLError:
                    raise InputError(f"not JSON: {error}", source=source) from None
            return _json_stream(source, text)
    try:
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        hint = (
            "It looks like a template: `helm template CHART | kubectl genainet … --manifests -`" if "{{" in text else ""
        )
        raise InputError(f"not YAML: {' '.join(str(error).split())}", source=source, hint=hint) from None


def _json_stream(source: str, text: str) -> list[Any]:
    """JSON values one after the other, as `kubectl … -o json` of several commands gives them."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error}", source=source) from None
        found.append(value)
        position += len(text[position:]) - len(text[position:].lstrip())
    return found


def _objects(value: Any, source: str) -> Iterator[KubeObject]:
    if isinstance(value, list):  # a JSON array of objects
        for i, item in enumerate(value):
            yield from _objects(item, f"{source}, item {i + 1}")
        return
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str) or not value.get("apiVersion"):
        raise InputError("not a Kubernetes object: it has no apiVersion and kind", source=source)
    if value["kind"].endswith("List") and isinstance(value.get("items"), list):
        for i, item in enumerate(value["items"]):
            if isinstance(item, dict):  # items of typed lists (PodList) may leave out what the list says
                item = {"apiVersion": value["apiVersion"], "kind": value["kind"].removesuffix("List"), **item}
            yield from _objects(item, f"{source}, item {i + 1}")
        return
    raw: dict[str, Any] = without_nulls(value)
    metadata = raw.setdefault("metadata", {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        name = metadata.get("generateName") if isinstance(metadata, dict) else None
        if not isinstance(name, str):
            raise InputError("has no name", source=source, obj=raw["kind"], field="metadata.name")
        metadata["name"] = name
    antrea = raw["kind"] == "ClusterNetworkPolicy" and "antrea" in str(raw["apiVersion"])
    if raw["kind"] not in _CLUSTER_SCOPED and not antrea:
        metadata.setdefault("namespace", "default")
    yield KubeObject(raw, source)


def _pods_of_workloads(objects: Sequence[KubeObject]) -> Iterator[KubeObject]:
    owned = {
        (obj.namespace, owner.get("kind"), owner.get("name"))
        for obj in objects
        for owner in obj.raw["metadata"].get("ownerReferences", ())
        if isinstance(owner, dict)
    }
    present = {(obj.namespace, obj.name) for obj in objects if obj.kind == "Pod"}
    names = {(obj.namespace, obj.kind, obj.name) for obj in objects}
    for obj in objects:
        if obj.kind not in _WORKLOADS or (obj.namespace, obj.kind, obj.name) in owned:
            continue
        owners = obj.raw["metadata"].get("ownerReferences", ())
        if any((obj.namespace, o.get("kind"), o.get("name")) in names for o in owners if isinstance(o, dict)):
            continue  # the pods are made for its owner
        for pod in _pods_of(obj):
            if (pod.namespace, pod.name) not in present:
                yield pod


def _pods_of(workload: KubeObject) -> Iterator[KubeObject]:
    spec = workload.raw.get("spec")
    if workload.kind == "CronJob" and isinstance(spec, dict):
        job = spec.get("jobTemplate")
        spec = job.get("spec") if isinstance(job, dict) else None
    template = spec.get("template") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(template, dict):
        field = "spec.jobTemplate.spec.template" if workload.kind == "CronJob" else "spec.template"
        raise InputError("has no pod template", source=workload.source, obj=str(workload.ref), field=field)
    labels = template.get("metadata", {}).get("labels", {})
    replicas = spec.get("replicas", 1)
    named = workload.kind == "StatefulSet" and isinstance(replicas, int)
    for index in range(min(max(replicas, 1), _MOST_REPLICAS) if named else 1):
        name = f"{workload.name}-{index}"
        own = {"statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": str(index)} if named else {}
        metadata = {
            "name": name,
            "namespace": workload.namespace,
            "labels": {**labels, **own} if isinstance(labels, dict) else labels,
            "ownerReferences": [
                {"apiVersion": workload.api_version, "kind": workload.kind, "name": workload.name, "controller": True}
            ],
        }
        raw = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec", {})}
        yield KubeObject(raw, f"{workload.source}, pod of {workload.ref}")
