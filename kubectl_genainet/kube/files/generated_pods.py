"""The pods that the workloads of a set of objects stand for.

Each workload without pods of its own among the objects gets those that its controller would make. Such pods have no
address and no node; what depends on them is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kubectl_genainet.kube.yaml_text import Warn
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.workload_kinds.kinds import PodTemplate, makes_pods, pod_templates

# Named pods of a StatefulSet; more than this many are the same to every policy.
_MOST_REPLICAS = 100


def pods_of_workloads(objects: Sequence[KubeObject], warn: Warn) -> Iterator[KubeObject]:
    """The pods that are not among `objects` yet. `warn` hears of a workload without a pod template."""
    owned = {(obj.namespace, owner.get("kind"), owner.get("name")) for obj in objects for owner in obj.owner_references}
    present = {(obj.namespace, obj.name) for obj in objects if obj.kind == "Pod"}
    names = {(obj.namespace, obj.kind, obj.name) for obj in objects}
    by_kind: dict[str, list[KubeObject]] = {}
    for obj in objects:
        by_kind.setdefault(obj.kind, []).append(obj)
    for obj in objects:
        if not makes_pods(obj) or (obj.namespace, obj.kind, obj.name) in owned:
            continue
        if any((obj.namespace, o.get("kind"), o.get("name")) in names for o in obj.owner_references):
            continue  # the pods are made for its owner
        for pod in _pods_of(obj, by_kind, warn):
            if (pod.namespace, pod.name) not in present:
                present.add((pod.namespace, pod.name))
                yield pod


def _pods_of(workload: KubeObject, others: Mapping[str, Sequence[KubeObject]], warn: Warn) -> Iterator[KubeObject]:
    templates = pod_templates(workload, others)
    if not templates:
        warn(f"{workload.source}: {workload.ref} has no pod template here: it stands for no pods")
    for template in templates:
        prefix = f"{workload.name}-{template.part.lower()}" if template.part else workload.name
        named = workload.kind == "StatefulSet"
        for index in range(min(max(template.replicas, 1), _MOST_REPLICAS) if named else 1):
            yield _pod(workload, template, f"{prefix}-{index}", index if named else None)


def _pod(workload: KubeObject, template: PodTemplate, name: str, index: int | None) -> KubeObject:
    labels = template.labels
    if index is not None:
        labels |= {"statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": str(index)}
    metadata = {
        "name": name,
        "namespace": workload.namespace,
        "labels": labels,
        "annotations": template.metadata.get("annotations", {}),
        "ownerReferences": [
            {"apiVersion": workload.api_version, "kind": workload.kind, "name": workload.name, "controller": True}
        ],
    }
    raw = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": dict(template.spec)}
    return KubeObject(raw, f"{workload.source}, pod of {workload.ref}")
