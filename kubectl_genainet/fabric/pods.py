"""Which pods talk to each other: the pods of a job."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubectl_genainet.context.identity import workload_of
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.workload_kinds.accelerators import gpus_of

# Labels by which controllers name the whole job, whose pods have several owners.
JOB_LABELS = (
    "jobset.sigs.k8s.io/jobset-name",
    "leaderworkerset.sigs.k8s.io/name",
    "training.kubeflow.org/job-name",
    "ray.io/cluster",
    "batch.kubernetes.io/job-name",
)


@dataclass(frozen=True, slots=True)
class WatchedPod:
    """A pod that is looked at."""

    namespace: str
    name: str
    node: str
    job: str
    gpus: int
    addresses: tuple[str, ...]
    host_network: bool

    @property
    def group(self) -> tuple[str, str]:
        return self.namespace, self.job


def job_of(pod: Pod) -> str:
    labels = pod.metadata.labels
    return next((labels[key] for key in JOB_LABELS if labels.get(key)), "") or workload_of(pod) or pod.metadata.name


def members(snapshot: ClusterSnapshot, pods: Iterable[Pod]) -> tuple[WatchedPod, ...]:
    """The running ones among the pods."""
    gpus = {(o.namespace, o.name): gpus_of(o.raw) for o in snapshot.of("Pod")}
    chosen = []
    for pod in pods:
        meta = pod.metadata
        if pod.finished or not pod.ips or not pod.spec.node_name:
            continue
        ips = tuple(map(canonical_ip, pod.ips))
        count = gpus.get((meta.namespace, meta.name), 0)
        host = pod.spec.host_network
        chosen.append(WatchedPod(meta.namespace, meta.name, pod.spec.node_name, job_of(pod), count, ips, host))
    return tuple(chosen)
