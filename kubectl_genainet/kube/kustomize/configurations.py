"""The fields that files of `configurations` add to those that Kustomize knows by itself.

Source: Kustomize's reference of transformer configurations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.kube.kustomize.fields import FieldSpec
from kubectl_genainet.kube.kustomize.references import DEFAULT_REFERENCES, References
from kubectl_genainet.kube.yaml_text import Warn

_READ = ("commonLabels", "commonAnnotations", "nameReference")


@dataclass(frozen=True, slots=True)
class Configured:
    """More fields for common labels and annotations, and all fields that refer to other objects."""

    labelled: tuple[FieldSpec, ...]
    annotated: tuple[FieldSpec, ...]
    references: References


def configured(files: Iterable[Any], warn: Warn) -> Configured:
    """What the documents of configuration files say; what of them is not read is named."""
    labelled: list[FieldSpec] = []
    annotated: list[FieldSpec] = []
    references = {kind: list(fields) for kind, fields in DEFAULT_REFERENCES.items()}
    for document in files:
        labelled += map(FieldSpec.of, document.get("commonLabels") or ())
        annotated += map(FieldSpec.of, document.get("commonAnnotations") or ())
        for reference in document.get("nameReference") or ():
            fields = references.setdefault(str(reference.get("kind", "")), [])
            fields += map(FieldSpec.of, reference.get("fieldSpecs") or ())
        unread = [name for name in document if name not in _READ]
        if unread:
            warn(f"{', '.join(map(str, unread))} of its configurations is left out")
    return Configured(tuple(labelled), tuple(annotated), references)
