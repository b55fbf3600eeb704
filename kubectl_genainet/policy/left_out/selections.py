"""Whether fields of an object select pods, at whatever depth: what tells a policy of a kind that is not known.

Source: Kubernetes API reference, LabelSelector; Gateway API, GEP-713 (targetRefs).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_DEEPEST, _MOST = 12, 4000  # levels, and values; what is not looked through may select pods
# Fields that say whom an object is about. Their plurals are lists of the same.
_OF_PODS = frozenset(
    f"{whose}selector" for whose in ("pod", "endpoint", "workload", "namespace", "serviceaccount", "target", "peer")
) | {"appliedto", "applyto", "appliesto", "subject"}
_TARGETS = frozenset({"targetref"})
_TARGET_KINDS = frozenset(
    kind.lower()
    for kind in (
        "Pod",
        "Namespace",
        "Service",
        "ServiceAccount",
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "ReplicaSet",
        "ReplicationController",
        "Job",
        "CronJob",
        "LeaderWorkerSet",
        "JobSet",
        "Rollout",
        "InferenceService",
        "RayCluster",
    )
)
_TERMS = frozenset({"matchLabels", "matchExpressions"})
# What stands below fields with these words in their names is about something else than the pods of a network.
_OF_OTHERS = ("node", "affinity", "topology", "template", "cluster", "object", "resource", "image", "volume", "secret")


def selects_pods(spec: Any) -> bool:
    """Whether a spec, or a list of them, selects pods in some field; a value that is too large to look through may."""
    seen = 0
    for value, depth in _mappings(spec, 0):
        seen += len(value)
        if depth > _DEEPEST or seen > _MOST or any(_is_selection(str(k), v) for k, v in value.items()):
            return True
    return False


def _mappings(value: Any, depth: int) -> Iterator[tuple[Mapping[Any, Any], int]]:
    """Every mapping in a value that may be about pods, with its depth; nothing below the deepest level."""
    if isinstance(value, list):
        for member in value:
            yield from _mappings(member, depth + 1)
    elif isinstance(value, dict):
        yield value, depth
        if depth > _DEEPEST or ("apiVersion" in value and "kind" in value and "spec" in value):  # an object in itself
            return
        for key, member in value.items():
            if not any(word in str(key).lower() for word in _OF_OTHERS):
                yield from _mappings(member, depth + 1)


def _is_selection(key: str, value: Any) -> bool:
    name = key.lower().removesuffix("s")
    if key in _TERMS:
        return True
    if name in _OF_PODS:
        return isinstance(value, dict | list) or (isinstance(value, str) and bool(value) and name != "subject")
    if name in _TARGETS:
        targets = value if isinstance(value, list) else [value]
        return any(isinstance(t, dict) and str(t.get("kind", "")).lower() in _TARGET_KINDS for t in targets)
    if name != "selector":
        return False
    if isinstance(value, dict):  # labels, or all pods
        return all(isinstance(member, str) for member in value.values())
    return isinstance(value, str) and bool(value)  # an expression, as Calico has it
