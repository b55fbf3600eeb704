"""The labels and annotations that a kustomization sets, and in which fields of which kinds.

Source: Kustomize, the reference of `labels`, `commonLabels` and `commonAnnotations`, and its default field specifications: a
selector is made only for the workloads that need one; elsewhere labels join those that a selector has already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kubectl_genainet.kube.kustomize.fields import FieldSpec

_TEMPLATED = ("ReplicationController", "Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "Job")
_MATCHED = ("Deployment", "ReplicaSet", "DaemonSet", "StatefulSet")
_SPREAD = ("Deployment", "StatefulSet")


def _in_templates(field: str) -> tuple[FieldSpec, ...]:
    return (
        *(FieldSpec(f"spec/template/metadata/{field}", kind, create=True) for kind in _TEMPLATED),
        FieldSpec(f"spec/jobTemplate/metadata/{field}", "CronJob", create=True),
        FieldSpec(f"spec/jobTemplate/spec/template/metadata/{field}", "CronJob", create=True),
    )


def _in_affinities() -> Iterator[FieldSpec]:
    for kind in _SPREAD:
        for which in ("podAffinity", "podAntiAffinity"):
            path = f"spec/template/spec/affinity/{which}"
            preferred = "preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels"
            required = "requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels"
            yield from (FieldSpec(f"{path}/{terms}", kind, "apps") for terms in (preferred, required))
        yield FieldSpec("spec/template/spec/topologySpreadConstraints/labelSelector/matchLabels", kind, "apps")


_OWN = (FieldSpec("metadata/labels", create=True),)
_IN_TEMPLATES = (
    *_in_templates("labels"),
    FieldSpec("spec/volumeClaimTemplates[]/metadata/labels", "StatefulSet", create=True),
)
_ANNOTATIONS = (FieldSpec("metadata/annotations", create=True), *_in_templates("annotations"))
_IN_SELECTORS = (
    FieldSpec("spec/selector", "Service", create=True),
    FieldSpec("spec/selector", "ReplicationController", create=True),
    *(FieldSpec("spec/selector/matchLabels", kind, create=True) for kind in _MATCHED),
    *_in_affinities(),
    FieldSpec("spec/selector/matchLabels", "Job"),
    FieldSpec("spec/jobTemplate/spec/selector/matchLabels", "CronJob"),
    FieldSpec("spec/selector/matchLabels", "PodDisruptionBudget"),
    FieldSpec("spec/podSelector/matchLabels", "NetworkPolicy", "networking.k8s.io"),
    FieldSpec("spec/ingress/from/podSelector/matchLabels", "NetworkPolicy", "networking.k8s.io"),
    FieldSpec("spec/egress/to/podSelector/matchLabels", "NetworkPolicy", "networking.k8s.io"),
)


def set_labels(
    obj: dict[str, Any], raw: dict[str, Any], labelled: Sequence[FieldSpec] = (), annotated: Sequence[FieldSpec] = ()
) -> None:
    """Sets the labels and annotations of a kustomization in one object, in place; `labelled` and `annotated` are more
    fields for those that are common."""
    for pairs, fields in _sets(raw, labelled, annotated):
        for field in fields:
            field.add(obj, pairs)


def _sets(
    raw: dict[str, Any], labelled: Sequence[FieldSpec], annotated: Sequence[FieldSpec]
) -> Iterator[tuple[dict[str, Any], tuple[FieldSpec, ...]]]:
    if raw.get("commonLabels"):
        yield raw["commonLabels"], (*_OWN, *_IN_TEMPLATES, *_IN_SELECTORS, *labelled)
    if raw.get("commonAnnotations"):
        yield raw["commonAnnotations"], (*_ANNOTATIONS, *annotated)
    for entry in raw.get("labels") or ():
        selectors, templates = bool(entry.get("includeSelectors")), bool(entry.get("includeTemplates"))
        own = tuple(map(FieldSpec.of, entry.get("fields") or ()))
        more = (
            *(_IN_TEMPLATES if selectors or templates else ()),
            *((*_IN_SELECTORS, *labelled) if selectors else ()),
        )
        yield entry.get("pairs") or {}, (*_OWN, *more, *own)
