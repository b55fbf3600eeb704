"""The labels by which a patch names pods: those that the next release and the next replica have too."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations

from kubectl_genainet.model.kube import KubeObject, Pod
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.party import PolicyParty
from kubectl_genainet.policy.matching.peers import PodsPeer
from kubectl_genainet.policy.matching.selectors import Operator, Requirement, Selector

# Set by controllers and by release tools: different for the next pod, revision or release of the same workload.
_CHANGING = re.compile(
    r"""
    (?>(?:.*/)?)(.*[-_.])?                                    # a prefix, and the words before the last
    ( hash | version | revision | rev | chart | index | ordinal | uid | sha\d* | commit | build | tag | generation
    | checksum | timestamp | date | attempt | epoch | exec-?id | pod-name | group-key | job-key | job-name | node-name )
    | (batch|leaderworkerset\.sigs\.k8s)\.(kubernetes\.)?io/(?!name$).*
    | jobset\.sigs\.k8s\.io/(?!jobset-name$|replicatedjob-name$).*
    | ray\.io/(cluster|identifier|originated-from-cr-name)
    | app\.kubernetes\.io/managed-by                          # the tool, and with Kustomize its release
    | .*(?-i:[a-z](Version|Revision|RevisionUID|UID|Hash|Sha|Tag|Index))
    """,
    re.VERBOSE | re.IGNORECASE,
)
_WELL_KNOWN = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component")
_COMMON = ("app", "k8s-app", "component", "name", "role", "tier")
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Rollout", "ReplicationController")
_MOST_COMBINED = 4


def changes(key: str) -> bool:
    """Whether a label's value is another one after a release or on the next replica, by its key."""
    return _CHANGING.fullmatch(key) is not None


def lasting_labels(pod: PolicyParty) -> dict[str, str]:
    """The labels that the next pod of the same workload will have too; all labels where there are no others."""
    return {k: v for k, v in pod.labels.items() if not changes(k)} or dict(pod.labels)


class PodLabels:
    """Chooses the labels that name a pod's workload, once a pod."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine
        self._chosen: dict[tuple[str, str], dict[str, str]] = {}
        self._owner_selectors: list[tuple[str, dict[str, str]]] | None = None

    def of(self, pod: PolicyParty) -> dict[str, str]:
        """The fewest lasting labels that select what all lasting labels of the pod select in its namespace.

        Well-known labels and those of the owner's selector come first. Empty where the pod has no lasting label.
        """
        key = (pod.namespace, pod.name)
        if key not in self._chosen:
            self._chosen[key] = self._choose(pod)
        return self._chosen[key]

    def _choose(self, pod: PolicyParty) -> dict[str, str]:
        lasting = {k: v for k, v in pod.labels.items() if not changes(k) and self._is_in_identity(k)}
        for other in _replicas(self._engine, pod):
            lasting = {k: v for k, v in lasting.items() if other.get(k) == v}
        keys = sorted(lasting, key=_Rank(self._owner_keys(pod)))
        least = self._selected(pod, lasting)
        for size in range(min(_MOST_COMBINED, len(keys)) + 1):
            for chosen in combinations(keys, size):
                labels = {k: lasting[k] for k in chosen}
                if chosen and self._selected(pod, labels) == least:
                    return labels
        return {k: lasting[k] for k in keys}

    def _is_in_identity(self, key: str) -> bool:
        identities = self._engine.identities
        return identities is None or bool(identities.takes(key))

    def _owner_keys(self, pod: PolicyParty) -> frozenset[str]:
        """The keys of the selectors of workloads that select the pod; they can't change while the workload lives."""
        if self._owner_selectors is None:
            by_kind = self._engine.snapshot.by_kind
            workloads = (obj for kind in _WORKLOADS for obj in by_kind.get(kind, ()))
            self._owner_selectors = [(obj.namespace, _match_labels(obj)) for obj in workloads]
        return frozenset(
            key
            for namespace, labels in self._owner_selectors
            if namespace == pod.namespace and labels and labels.items() <= pod.labels.items()
            for key in labels
        )

    def _selected(self, pod: PolicyParty, labels: dict[str, str]) -> int:
        requirements = tuple(Requirement(k, Operator.IN, (v,)) for k, v in labels.items())
        return self._engine.rows.classes.pods_in(PodsPeer(Selector(requirements), namespace=pod.namespace))


class _Rank:
    """The order in which labels are tried: well-known ones, the owner's, common ones, the others."""

    def __init__(self, owned: frozenset[str]) -> None:
        self._owned = owned

    def __call__(self, key: str) -> tuple[int, int, str]:
        if key in _WELL_KNOWN:
            return 0, _WELL_KNOWN.index(key), key
        place = _COMMON.index(key) if key in _COMMON else len(_COMMON)
        return (1 if key in self._owned else 2), place, key


def _replicas(engine: PolicyEngine, pod: PolicyParty) -> Iterable[dict[str, str]]:
    """The labels of the other pods of the same owner."""
    own = engine.snapshot.pod(pod.namespace, pod.name)
    owners = _owners(own) if own is not None else frozenset()
    if not owners:
        return
    for other in engine.snapshot.pods:
        if other.metadata.namespace == pod.namespace and _owners(other) & owners:
            yield other.metadata.labels


def _owners(pod: Pod) -> frozenset[tuple[str, str]]:
    """A pod's owners; for a ReplicaSet the Deployment that its name begins with, since each release has a ReplicaSet."""
    owners = set()
    for owner in pod.metadata.owner_references:
        name = owner.name
        suffix = pod.metadata.labels.get("pod-template-hash") or pod.metadata.labels.get("rollouts-pod-template-hash")
        if owner.kind == "ReplicaSet" and suffix:
            name = name.removesuffix(f"-{suffix}")
        owners.add((owner.kind, name))
    return frozenset(owners)


def _match_labels(obj: KubeObject) -> dict[str, str]:
    selector = (obj.raw.get("spec") or {}).get("selector") or {}
    labels = selector.get("matchLabels", selector) if isinstance(selector, dict) else {}
    return {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}
