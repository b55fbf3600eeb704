"""What `buildMetadata` of a kustomization adds to the objects that it makes; only that of the one that is built counts.

The label of `managedByLabel` is `kustomize-VERSION`, with the version of the program that builds. The annotations that say
where an object comes from are left out, as they are without `buildMetadata`: each object has its file beside it here.
Source: Kustomize's reference of the kustomization file, `buildMetadata`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from kubectl_genainet.kube.yaml_text import Warn
from kubectl_genainet.model.kube import BUILT_HERE, MANAGED_BY_LABEL

_ANNOTATIONS = ("config.kubernetes.io/origin", "alpha.config.kubernetes.io/transformations")
_RELEASE = re.compile(r'"kustomize-v\d[\w.-]*"')


def set_build_metadata(objects: Sequence[dict[str, Any]], raw: dict[str, Any], warn: Warn) -> None:
    """Sets the label and drops the annotations, in place."""
    for obj in objects:
        _drop_annotations(obj.get("metadata") or {})
    if "managedByLabel" not in (raw.get("buildMetadata") or ()):
        return
    value = _asked_for(objects)
    if value:
        warn(
            f"the label {MANAGED_BY_LABEL} is taken for {value}, since an object asks for it; another version sets its own"
        )
    for obj in objects:
        metadata = obj.setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), MANAGED_BY_LABEL: value or BUILT_HERE}


def _drop_annotations(metadata: dict[str, Any]) -> None:
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict) and any(key in annotations for key in _ANNOTATIONS):
        kept = {key: value for key, value in annotations.items() if key not in _ANNOTATIONS}
        metadata.pop("annotations")
        if kept:
            metadata["annotations"] = kept


def _asked_for(objects: Sequence[dict[str, Any]]) -> str:
    """The latest version that a selector of these objects names in the label's value; "" where none does."""
    texts = (json.dumps({k: v for k, v in obj.items() if k != "metadata"}, default=str) for obj in objects)
    return max((name.strip('"') for text in texts for name in _RELEASE.findall(text)), default="")
