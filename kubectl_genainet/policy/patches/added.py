"""Labels that have to be added to pods before a patch can name them: where every label of a pod changes with a release."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from kubectl_genainet.model.kube import KubeObject, Pod
from kubectl_genainet.model.workload_kinds.generated_labels import is_of_a_replica
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.patches.labels import PodLabels
from kubectl_genainet.policy.patches.owners import OwnerKey, is_made, workload_above

_KEYS = ("app.kubernetes.io/name", "app.kubernetes.io/component", "app.kubernetes.io/instance", "workload")
_LONGEST = 63  # of a label's value


class AddedLabel(msgspec.Struct, frozen=True, order=True):
    """A label to add to the pod template of a workload; to the pod itself where `kind` is "Pod".

    `pods` are the workload's pods at present, which have no label that is sure to last.
    """

    kind: str
    namespace: str
    name: str
    key: str
    value: str
    pods: tuple[str, ...]

    @property
    def place(self) -> str:
        own = f"{self.kind} {self.namespace}/{self.name}"
        return own if self.kind == "Pod" else f"the pod template of {own}"


def labels_to_add(engine: PolicyEngine, labels: PodLabels, ends: Sequence[PolicyParty]) -> frozenset[AddedLabel]:
    """The labels to add so that each end that is a pod has one that lasts; none where an end can't get one."""
    lacking = [end for end in ends if end.kind is PartyKind.POD and not labels.of(end)]
    found = [_label_for(engine, labels, end) for end in lacking]
    return frozenset(label for label in found if label is not None)


def with_labels(engine: PolicyEngine, added: Collection[AddedLabel]) -> PolicyEngine:
    """The engine of the cluster in which the workloads' pods have the labels."""
    by_pod = {pod: label for label in added for pod in label.pods}
    objects = tuple(_labelled(obj, by_pod.get(f"{obj.namespace}/{obj.name}")) for obj in engine.snapshot.objects)
    return PolicyEngine(replace(engine.snapshot, objects=objects), engine.enforcer)


def used_in(added: Collection[AddedLabel], objects: Sequence[dict[str, Any]]) -> tuple[AddedLabel, ...]:
    """The labels that objects select by, as keys with their values or in an expression of Calico."""
    text = json.dumps(objects)
    return tuple(
        sorted(a for a in added if f'"{a.key}": "{a.value}"' in text or f"{a.key} == '{a.value}'" in text),
    )


def _label_for(engine: PolicyEngine, labels: PodLabels, party: PolicyParty) -> AddedLabel | None:
    pod = engine.snapshot.pod(party.namespace, party.name)
    key = next((k for k in _KEYS if k not in party.labels and labels.is_in_identity(k)), None)
    if pod is None or key is None:
        return None
    above = workload_above(engine.snapshot, pod)
    kind, name = above or ("Pod", party.name)
    siblings = tuple(_pods_below(engine, party.namespace, above)) if above is not None else ()
    value = _free_value(engine, party.namespace, key, kind, name)
    return AddedLabel(kind, party.namespace, name, key, value, siblings or (f"{party.namespace}/{party.name}",))


def _pods_below(engine: PolicyEngine, namespace: str, above: OwnerKey) -> Iterator[str]:
    for pod in engine.snapshot.pods:
        if pod.metadata.namespace == namespace and workload_above(engine.snapshot, pod) == above:
            yield f"{namespace}/{pod.metadata.name}"


def _free_value(engine: PolicyEngine, namespace: str, key: str, kind: str, name: str) -> str:
    """The workload's name (of a run without its number), or with its kind where other pods have that value already."""
    stem = name.rpartition("-")[0] if is_made(kind) and is_of_a_replica(name) else name
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", stem)[:_LONGEST].strip("-._") or "workload"
    taken = {_value(pod, key) for pod in engine.snapshot.pods if pod.metadata.namespace == namespace}
    with_kind = f"{plain[: _LONGEST - len(kind) - 1]}-{kind.lower().replace(' ', '-')}"
    numbered = (f"{with_kind[: _LONGEST - 5]}-{i}" for i in range(2, len(taken) + 3))
    return next(value for value in (plain, with_kind, *numbered) if value not in taken)


def _value(pod: Pod, key: str) -> str:
    return pod.metadata.labels.get(key, "")


def _labelled(obj: KubeObject, label: AddedLabel | None) -> KubeObject:
    if obj.kind != "Pod" or obj.group or label is None:
        return obj
    metadata = obj.raw["metadata"]
    labels = {**(metadata.get("labels") or {}), label.key: label.value}
    return msgspec.structs.replace(obj, raw={**obj.raw, "metadata": {**metadata, "labels": labels}})
