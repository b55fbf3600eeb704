"""Which field a policy that is refused has in place of the one that is missing: its error names the misspelt one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.dialects.admin import RawAdminSpec
from kubectl_genainet.policy.dialects.calico.shapes import RawCalicoSpec
from kubectl_genainet.policy.dialects.cilium.shapes import RawCiliumSpec
from kubectl_genainet.policy.dialects.kubernetes import RawNetworkPolicySpec
from kubectl_genainet.policy.where import UnknownField, nearest, unknown_fields

_SHAPES: dict[str, type[msgspec.Struct]] = {
    "networking.k8s.io": RawNetworkPolicySpec,
    "policy.networking.k8s.io": RawAdminSpec,
    "cilium.io": RawCiliumSpec,
    "projectcalico.org": RawCalicoSpec,
    "crd.projectcalico.org": RawCalicoSpec,
}
_OF_OBJECTS = ("apiVersion", "kind", "metadata", "spec", "specs", "status")


def with_misspelt(obj: KubeObject, error: InputError) -> InputError:
    """The error of a policy, by the misspelt field that it comes from where there is one."""
    for unknown in misspelt(obj):
        parent = unknown.field.rpartition(".")[0]
        near = re.escape(unknown.near)
        missing_there = error.field == parent and re.search(rf"\b{near}\b", error.problem)
        if missing_there or error.field == f"{parent}.{unknown.near}":
            return _not_there(obj, unknown, error.hint)
    return error


def check_top(obj: KubeObject) -> None:
    """Raises InputError for a misspelt field of the object itself ("Spec"): without its spec a policy says something else."""
    for unknown in _misspelt_at_the_top(obj):
        raise _not_there(obj, unknown)


def _not_there(obj: KubeObject, unknown: UnknownField, hint: str = "") -> InputError:
    name = unknown.field.rpartition(".")[2]
    problem = f"there is no field {name} here: did you mean {unknown.near}?"
    return InputError(problem, source=obj.source, obj=str(obj.ref), field=unknown.field, hint=hint)


def _misspelt_at_the_top(obj: KubeObject) -> Iterator[UnknownField]:
    for key in obj.raw:
        if key not in _OF_OBJECTS and (near := nearest(str(key), _OF_OBJECTS)):
            yield UnknownField(str(key), near)


def misspelt(obj: KubeObject) -> Iterator[UnknownField]:
    """Fields of a policy that its kind does not have and that are nearly ones that it has."""
    shape = _SHAPES.get(obj.group)
    if shape is None:
        return
    specs: list[tuple[str, Any]] = [("spec", obj.raw.get("spec"))]
    several = obj.raw.get("specs")
    specs += [(f"specs[{i}]", one) for i, one in enumerate(several if isinstance(several, list) else ())]
    for field, spec in specs:
        yield from (unknown for unknown in unknown_fields(spec, shape, field) if unknown.near)
