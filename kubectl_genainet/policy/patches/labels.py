"""The labels by which a patch names pods: those that the next release and the next replica have too."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import combinations

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.workload_kinds.generated_labels import is_of_a_replica, lasting
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.party import PolicyParty
from kubectl_genainet.policy.matching.peers import PodsPeer
from kubectl_genainet.policy.matching.selectors import Operator, Requirement, Selector
from kubectl_genainet.policy.patches.owners import is_made_for_a_release, names_made, owners_of

_WELL_KNOWN = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component")
# Labels in which controllers of other kinds write the name of the workload.
_OF_A_WORKLOAD = (
    *("leaderworkerset.sigs.k8s.io/name", "jobset.sigs.k8s.io/jobset-name", "serving.kserve.io/inferenceservice"),
    *(
        "serving.knative.dev/service",
        "training.kubeflow.org/job-name",
        "volcano.sh/job-name",
        "modelserving.volcano.sh/name",
    ),
    *(
        "rolebasedgroup.workloads.x-k8s.io/name",
        "storm-service-name",
        "sparkoperator.k8s.io/app-name",
        "cnpg.io/cluster",
    ),
    *("tekton.dev/pipeline", "dag_id", "deploymentconfig"),
)
_COMMON = ("app", "k8s-app", *_OF_A_WORKLOAD, "component", "name", "role", "tier")
_WORKLOADS = (
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Rollout",
    "ReplicationController",
    "DeploymentConfig",
    "CloneSet",
)
_MOST_COMBINED = 4


def lasting_labels(pod: PolicyParty) -> dict[str, str]:
    """The labels that the next pod of the same workload will have too, as far as the pod shows it; all labels where there
    are no others."""
    own = (pod.name,) if pod.owned and is_of_a_replica(pod.name) else ()
    return lasting(pod.labels, own) or dict(pod.labels)


class PodLabels:
    """Chooses the labels that name a pod's workload, once a pod. `added` are labels that are known to last."""

    def __init__(self, engine: PolicyEngine, added: Collection[tuple[str, str]] = ()) -> None:
        self._engine = engine
        self._added = frozenset(added)
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
        labels = self._lasting(pod)
        for other in _replicas(self._engine, pod):
            labels = {k: v for k, v in labels.items() if other.get(k) == v}
        keys = sorted(labels, key=_Rank(self._owner_keys(pod)))
        least = self._selected(pod, labels)
        for size in range(min(_MOST_COMBINED, len(keys)) + 1):
            for chosen in combinations(keys, size):
                fewer = {k: labels[k] for k in chosen}
                if chosen and self._selected(pod, fewer) == least:
                    return fewer
        return {k: labels[k] for k in keys}

    def _lasting(self, pod: PolicyParty) -> dict[str, str]:
        """The labels that last, as far as the pod, its owners and the agent's list of identity labels show it."""
        own = self._engine.snapshot.pod(pod.namespace, pod.name)
        made = names_made(self._engine.snapshot, own) if own is not None else ()
        found = lasting(pod.labels, made, self._owner_keys(pod))
        found |= {k: v for k, v in pod.labels.items() if (k, v) in self._added}
        return {k: v for k, v in found.items() if self.is_in_identity(k)}

    def is_in_identity(self, key: str) -> bool:
        identities = self._engine.identities
        return identities is None or bool(identities.takes(key))

    def _owner_keys(self, pod: PolicyParty) -> frozenset[str]:
        """The keys of the selectors of workloads that select the pod; they can't change while the workload lives."""
        if self._owner_selectors is None:
            by_kind = self._engine.snapshot.by_kind
            workloads = (obj for kind in _WORKLOADS for obj in by_kind.get(kind, ()) if not is_made_for_a_release(obj))
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
    owners = frozenset(owners_of(own)) if own is not None else frozenset()
    if not owners:
        return
    for other in engine.snapshot.pods:
        if other.metadata.namespace == pod.namespace and not owners.isdisjoint(owners_of(other)):
            yield other.metadata.labels


def _match_labels(obj: KubeObject) -> dict[str, str]:
    selector = (obj.raw.get("spec") or {}).get("selector") or {}
    labels = selector.get("matchLabels", selector) if isinstance(selector, dict) else {}
    return {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}
