"""Policies whose apiVersion, kind or name no API server takes as written, read as the kind that they must mean.

Such a policy is not in force as it stands; somebody wrote it to be. It is compiled as the kind that is served, and a verdict
that changes with it is UNKNOWN. Source: API references of the projects named; Kubernetes deprecation guide.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Any

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.left_out.other_kinds import HARMLESS, OTHER_KINDS


class RefusedBy(Enum):
    """Who does not take a policy. An API refuses an object when it is applied, an agent one that was stored."""

    API = "API server"
    AGENT = "agent"
    CLIENT = "client"  # there is no such kind: it is never sent
    NOBODY = "nobody"  # it is in force, but of a kind or version that is not evaluated


class ServedKind(msgspec.Struct, frozen=True):
    """A kind of policy that is evaluated, with the versions in which servers have it, the current one first."""

    group: str
    kind: str
    versions: tuple[str, ...]
    namespaced: bool = True

    @property
    def current(self) -> str:
        return f"{self.group}/{self.versions[0]}"


KUBECTL_REFUSES = "kubectl refuses the file"
_KUBERNETES = "networking.k8s.io"
_ADMIN = "policy.networking.k8s.io"
SERVED: Mapping[tuple[str, str], ServedKind] = {
    (one.group, one.kind): one
    for one in (
        ServedKind(_KUBERNETES, "NetworkPolicy", ("v1",)),
        ServedKind(_ADMIN, "AdminNetworkPolicy", ("v1alpha1",), namespaced=False),
        ServedKind(_ADMIN, "BaselineAdminNetworkPolicy", ("v1alpha1",), namespaced=False),
        ServedKind(_ADMIN, "ClusterNetworkPolicy", ("v1alpha2",), namespaced=False),
        ServedKind("cilium.io", "CiliumNetworkPolicy", ("v2",)),
        ServedKind("cilium.io", "CiliumClusterwideNetworkPolicy", ("v2",), namespaced=False),
        ServedKind("projectcalico.org", "NetworkPolicy", ("v3",)),
        ServedKind("projectcalico.org", "GlobalNetworkPolicy", ("v3",), namespaced=False),
        ServedKind("crd.projectcalico.org", "NetworkPolicy", ("v1",)),
        ServedKind("crd.projectcalico.org", "GlobalNetworkPolicy", ("v1",), namespaced=False),
    )
}
_BY_LOWER = {(group, kind.lower()): served for (group, kind), served in SERVED.items()}
_OF_CALICO = frozenset({"selector", "types", "order", "namespaceSelector", "serviceAccountSelector"})
_ALIKE = 0.9
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


class Doubtful(msgspec.Struct, frozen=True):
    """A policy that may not be in force as it is written. `meant` is the object as its kind is served."""

    written: KubeObject
    meant: KubeObject
    field: str
    problem: str
    by: RefusedBy


def doubtful(obj: KubeObject) -> Doubtful | None:
    """What is wrong with the apiVersion, the kind or the name of a policy that is evaluated; None for one that is served."""
    group, _, version = obj.api_version.rpartition("/")
    served = SERVED.get((group, obj.kind))
    unsent = unsent_because(obj)
    if served is not None and version in served.versions and not unsent:
        return None
    if unsent:
        served = served or _meant_by(obj)
        return None if served is None else _unsent(obj, served, *unsent)
    built_in = "." not in group  # the groups of the other projects have a domain
    group_meant = _KUBERNETES if built_in else group
    served = _BY_LOWER.get((group_meant, _singular(obj.kind))) or _misspelt(group_meant, obj.kind)
    if served is None:
        return None
    by = RefusedBy.API
    if obj.kind != served.kind:
        by = RefusedBy.CLIENT
        problem = f"there is no kind {obj.kind} in {obj.api_version}: the kind is {served.kind} of {served.current}"
    elif _newer(version, served):
        by = RefusedBy.NOBODY
        problem = f"version {version} of {obj.kind} is not known here, only {' and '.join(served.versions)}"
    elif group == "extensions":
        problem = (
            f"{obj.api_version} has not been served since Kubernetes 1.16: the API server refuses it; "
            f"the current version is {served.current}"
        )
    else:
        problem = (
            f"{obj.api_version} has no {obj.kind}: the API server refuses it; the current version is {served.current}"
        )
    return Doubtful(obj, _as_served(obj, served), "kind" if by is RefusedBy.CLIENT else "apiVersion", problem, by)


def all_doubtful(snapshot: ClusterSnapshot) -> Iterator[Doubtful]:
    """Every such policy among the objects."""
    for kind, objects in snapshot.by_kind.items():
        if not kind or any(_misspelt(group, kind) for group, _ in SERVED):
            yield from filter(None, map(doubtful, objects))


def unsent_because(obj: KubeObject) -> tuple[str, str] | None:
    """The field for whose sake kubectl refuses to send an object, and what is wrong with it."""
    for field in ("apiVersion", "kind"):
        if not getattr(obj, "api_version" if field == "apiVersion" else field):
            return field, f"{_missing(obj.raw.get(field), f'the {field}')}: {KUBECTL_REFUSES}"
    for name in ("name", "namespace"):
        value = obj.metadata.get(name)
        if (name == "name" and not value) or not (value is None or isinstance(value, str)):
            return f"metadata.{name}", f"{_missing(value, f'the {name}')}: {KUBECTL_REFUSES}"
    return None


def _missing(value: Any, what: str) -> str:
    return f"{what} is missing" if value in (None, "") else f"{what} is {value!r:.60}, and not a text"


def _unsent(obj: KubeObject, served: ServedKind, field: str, problem: str) -> Doubtful:
    meaning = "" if field.startswith("metadata") else f"; {served.kind} is of {served.current}"
    if field == "kind":
        meaning = f"; its fields are those of {served.kind} of {served.current}"
    return Doubtful(obj, _as_served(obj, served), field, problem + meaning, RefusedBy.CLIENT)


def _meant_by(obj: KubeObject) -> ServedKind | None:
    """The kind of a policy of which the group or the kind can't be read: by the other one and its fields, where they tell."""
    if obj.kind and obj.api_version:
        return None
    spec = obj.raw.get("spec")
    fields = spec.keys() if isinstance(spec, dict) else frozenset[str]()
    of_calico = "podSelector" not in fields and bool(fields & _OF_CALICO)
    if obj.kind:
        named = [served for (_, kind), served in _BY_LOWER.items() if kind == _singular(obj.kind)]
        if named and named[0].kind == "NetworkPolicy":
            return SERVED[("projectcalico.org" if of_calico else _KUBERNETES, "NetworkPolicy")]
        return named[0] if named else None
    tells = obj.group in ("", _KUBERNETES, "extensions") and "podSelector" in fields and "subject" not in fields
    return SERVED[(_KUBERNETES, "NetworkPolicy")] if tells else None


@cache
def _misspelt(group: str, kind: str) -> ServedKind | None:
    """The kind of a group that one must mean which it does not have: it differs in a letter or two, or in its case."""
    of_group = {known: served for (other, known), served in _BY_LOWER.items() if other == group}
    if (group, kind) in HARMLESS or (group, kind) in OTHER_KINDS:
        return None
    near = difflib.get_close_matches(_singular(kind), of_group, n=1, cutoff=_ALIKE)
    return of_group[near[0]] if near else None


def _singular(kind: str) -> str:
    return kind.lower().replace("policies", "policy")


def _newer(version: str, served: ServedKind) -> bool:
    """Whether a version is one that is not known yet: nothing says that no server has it."""
    return served.group != _KUBERNETES and _rank(version) > max(map(_rank, served.versions))


def _rank(version: str) -> tuple[int, int, int]:
    match = _VERSION.fullmatch(version)
    if match is None:
        return (0, 0, 0)
    stability = {"alpha": 0, "beta": 1}.get(match[2] or "", 2)
    return int(match[1]), stability, int(match[3] or 0)


def _as_served(obj: KubeObject, served: ServedKind) -> KubeObject:
    metadata: dict[str, Any] = {**obj.metadata, "name": obj.name}
    if not served.namespaced:
        metadata.pop("namespace", None)
    elif obj.namespace:
        metadata["namespace"] = obj.namespace
    raw = {**dict.fromkeys(("apiVersion", "kind")), **obj.raw, "metadata": metadata}
    raw |= {"apiVersion": served.current, "kind": served.kind}
    return msgspec.structs.replace(obj, raw=raw)
