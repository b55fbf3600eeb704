"""Policies whose apiVersion or kind no API server takes as written, read as the kind that they must mean.

Such a policy is not in force as it stands; somebody wrote it to be. It is compiled as the kind that is served, and a verdict
that changes with it is UNKNOWN. Source: API references of the projects named; Kubernetes deprecation guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject


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
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


class Doubtful(msgspec.Struct, frozen=True):
    """A policy that may not be in force as it is written. `meant` is the object as its kind is served."""

    written: KubeObject
    meant: KubeObject
    field: str
    problem: str
    by: RefusedBy


def doubtful(obj: KubeObject) -> Doubtful | None:
    """What is wrong with the apiVersion or the kind of a policy that is evaluated; None for one that is served."""
    group, _, version = obj.api_version.rpartition("/")
    served = SERVED.get((group, obj.kind))
    if served is not None and version in served.versions:
        return None
    built_in = "." not in group  # the groups of the other projects have a domain
    served = _BY_LOWER.get((_KUBERNETES if built_in else group, obj.kind.lower().replace("policies", "policy")))
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
    names = {kind.lower() for _, kind in SERVED}
    for kind, objects in snapshot.by_kind.items():
        if kind.lower().replace("policies", "policy") in names:
            yield from filter(None, map(doubtful, objects))


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
    metadata: dict[str, Any] = dict(obj.metadata)
    if not served.namespaced:
        metadata.pop("namespace", None)
    raw = {**obj.raw, "apiVersion": served.current, "kind": served.kind, "metadata": metadata}
    return msgspec.structs.replace(obj, raw=raw)
