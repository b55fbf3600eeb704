"""The workloads above a pod, and which of their names the next release does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject, Pod
from kubectl_genainet.model.workload_kinds.generated_labels import is_of_a_replica

OwnerKey = tuple[str, str]  # kind and name, in the namespace of the pod

# What a controller makes anew for a release or a run of the workload above it.
_PER_RELEASE = frozenset(
    {"ReplicaSet", "ReplicationController", "Job", "RayCluster", "Revision", "TaskRun", "PipelineRun", "Workflow"}
    | {"RoleSet", "RayClusterReplicaSet", "PodClique"}
)
_HASHES = (("pod-template-hash", "Deployment"), ("rollouts-pod-template-hash", "Rollout"))
_CRON = re.compile(r"(.+)-\d{8,}")  # a CronJob's Jobs end in their time
_KNATIVE_REVISION = "serving.knative.dev/revision"
_KNATIVE = ("serving.knative.dev/service", "serving.knative.dev/configuration")
_DEEPEST = 8


def owners_of(pod: Pod) -> Iterator[OwnerKey]:
    """A pod's owners; for a ReplicaSet of a Deployment or a Rollout that workload, by the hash at the end of its name."""
    for owner in pod.metadata.owner_references:
        yield _above_a_replica_set(pod, owner.kind, owner.name) or (owner.kind, owner.name)


def _above_a_replica_set(pod: Pod, kind: str, name: str) -> OwnerKey | None:
    if kind != "ReplicaSet":
        return None
    labels = pod.metadata.labels
    rollout = _HASHES[1][0] in labels
    for key, workload in _HASHES:
        if labels.get(key) and name.endswith(f"-{labels[key]}"):
            return ("Rollout" if rollout else workload), name.removesuffix(f"-{labels[key]}")
    return None


def names_made(snapshot: ClusterSnapshot, pod: Pod) -> list[str]:
    """The names that the pod of the next release or replica does not have: its own, where a controller gave it, and of
    those above it what is made for one release of something else."""
    chain = list(_chain(snapshot, pod))
    own = [pod.metadata.name] if chain and is_of_a_replica(pod.metadata.name) else []
    return [*own, *(name for kind, name in chain[:-1] if kind in _PER_RELEASE)]


def workload_above(snapshot: ClusterSnapshot, pod: Pod) -> OwnerKey | None:
    """The workload whose pod template a person writes; None for a pod without an owner."""
    labels = pod.metadata.labels
    revision = labels.get(_KNATIVE_REVISION)
    if revision:
        own = next((labels[k] for k in _KNATIVE if labels.get(k)), re.sub(r"-\d{5}$", "", revision))
        return "Knative Service", own
    chain = list(_chain(snapshot, pod))
    if not chain:
        return None
    kind, name = chain[-1]
    of_cron = _CRON.fullmatch(name) if kind == "Job" else None
    return ("CronJob", of_cron[1]) if of_cron else (kind, name)


def is_made(kind: str) -> bool:
    """Whether objects of a kind are mostly made for one release or one run."""
    return kind in _PER_RELEASE


def is_made_for_a_release(obj: KubeObject) -> bool:
    """Whether a controller made a workload for one release of something above it (a ReplicationController of a
    DeploymentConfig, a Deployment of a Revision)."""
    above = [str(owner.get("kind")) for owner in obj.owner_references]
    return bool(above) and (obj.kind in _PER_RELEASE or any(kind in _PER_RELEASE for kind in above))


def _chain(snapshot: ClusterSnapshot, pod: Pod) -> Iterator[OwnerKey]:
    """The owner of a pod, its owner, and so on, as far as they were read or the ReplicaSet's name tells."""
    refs = pod.metadata.owner_references
    controller = next((o for o in refs if o.controller), refs[0] if refs else None)
    current = (controller.kind, controller.name) if controller is not None else None
    for _ in range(_DEEPEST):
        if current is None:
            return
        yield current
        kind, name = current
        read = snapshot.named(kind, pod.metadata.namespace, name)
        above = [o for obj in read for o in obj.owner_references if isinstance(o, dict) and o.get("kind")]
        if above:
            current = str(above[0]["kind"]), str(above[0].get("name"))
        elif kind == "ReplicationController" and pod.metadata.labels.get("deploymentconfig"):
            current = "DeploymentConfig", pod.metadata.labels["deploymentconfig"]
        else:
            current = _above_a_replica_set(pod, kind, name)
