"""Workloads: pods folded into what makes them, with the template that the user edits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from kubectl_genainet.doctor.objects.podspec import Container, Template
from kubectl_genainet.doctor.objects.raw import at, items, mapping, text
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject, Pod

# Where the pod template of a kind is.
_TEMPLATES: dict[str, tuple[tuple[str | int, ...], ...]] = {
    "Deployment": (("spec", "template"),),
    "StatefulSet": (("spec", "template"),),
    "DaemonSet": (("spec", "template"),),
    "ReplicaSet": (("spec", "template"),),
    "Job": (("spec", "template"),),
    "LeaderWorkerSet": (("spec", "leaderWorkerTemplate", "workerTemplate"),),
    "JobSet": (("spec", "replicatedJobs", 0, "template", "spec", "template"),),
    "PyTorchJob": (("spec", "pytorchReplicaSpecs", "Worker", "template"),),
    "MPIJob": (("spec", "mpiReplicaSpecs", "Worker", "template"),),
    "RayCluster": (("spec", "workerGroupSpecs", 0, "template"),),
}

# Labels that name the distributed job a pod belongs to.
_GROUP_LABELS = (
    "training.kubeflow.org/job-name",
    "leaderworkerset.sigs.k8s.io/name",
    "jobset.sigs.k8s.io/jobset-name",
    "ray.io/cluster",
    "batch.kubernetes.io/job-name",
    "job-name",
)


@dataclass(frozen=True, slots=True)
class LivePod:
    """A pod that is not finished: the typed view and the whole object."""

    pod: Pod
    obj: KubeObject

    @property
    def ref(self) -> ObjectRef:
        return self.pod.ref

    @property
    def node(self) -> str:
        return self.pod.spec.node_name

    @property
    def terminating(self) -> bool:
        return bool(self.pod.metadata.deletion_timestamp)


@dataclass(frozen=True, slots=True)
class Workload:
    """A controller (or a bare pod) with its template and its pods.

    `ref` is the object to edit, `path` where its pod template's spec is ("spec.template.spec", "spec").
    """

    ref: ObjectRef
    path: str
    template: Template
    pods: tuple[LivePod, ...]

    @property
    def namespace(self) -> str:
        return self.ref.namespace

    @property
    def name(self) -> str:
        return self.ref.name

    def field(self, below: str = "") -> str:
        """A field path inside `ref`, from a path below the pod's spec."""
        return f"{self.path}.{below}" if below else self.path

    def label_field(self, name: str) -> str:
        return f"{self.path.removesuffix('spec')}metadata.labels[{name}]"

    def annotation_field(self, name: str) -> str:
        return f"{self.path.removesuffix('spec')}metadata.annotations[{name}]"

    @property
    def containers(self) -> list[Container]:
        return self.template.containers

    @property
    def nodes(self) -> set[str]:
        return {p.node for p in self.pods if p.node}

    @property
    def group(self) -> str:
        """The distributed job that the pods belong to; the workload's own name where no label says."""
        labels = self.pods[0].obj.labels if self.pods else self.template.labels
        return next((str(labels[k]) for k in _GROUP_LABELS if labels.get(k)), self.ref.name)


def _dotted(path: Iterable[str | int]) -> str:
    out = ""
    for step in path:
        out += f"[{step}]" if isinstance(step, int) else (f".{step}" if out else step)
    return out


def _template(obj: KubeObject) -> tuple[str, Template] | None:
    for path in _TEMPLATES.get(obj.kind, ()):
        found = at(obj.raw, *path)
        if isinstance(found, dict):
            return _dotted((*path, "spec")), Template(mapping(found, "metadata"), mapping(found, "spec"))
    return None


def _controller(obj: KubeObject) -> tuple[str, str] | None:
    """Kind and name of the owner that controls an object."""
    owners = items(obj.raw, "metadata", "ownerReferences")
    owner = next((o for o in owners if o.get("controller")), owners[0] if owners else None)
    return (text(owner, "kind"), text(owner, "name")) if owner else None


def fold(snapshot: ClusterSnapshot) -> tuple[Workload, ...]:
    """All workloads of a cluster, those without pods included. A Deployment's ReplicaSets are not workloads.

    A pod whose controller was not read is folded with its siblings under that controller, and the first pod stands
    for the template. Where ReplicaSets were not read, the Deployment's name is the ReplicaSet's without its
    pod-template-hash.
    """
    made: dict[tuple[str, str, str], tuple[KubeObject, str, Template]] = {}
    for kind in _TEMPLATES:
        for obj in snapshot.of(kind):
            found = _template(obj)
            if found:
                made[(kind, obj.namespace, obj.name)] = (obj, *found)
    parents = {key: owner for key, (obj, _, _) in made.items() if (owner := _controller(obj))}

    pods: dict[tuple[str, str, str], list[LivePod]] = defaultdict(list)
    for obj, pod in zip(snapshot.of("Pod", ""), snapshot.pods, strict=True):
        if not pod.finished:
            pods[_top(obj, made.keys(), parents)].append(LivePod(pod, obj))

    out = []
    for key, (obj, path, template) in made.items():
        owned_by_other = key in parents and (parents[key][0], key[1], parents[key][1]) in made
        idle = obj.kind == "ReplicaSet" and key not in pods
        if not owned_by_other and not idle:
            out.append(Workload(obj.ref, path, template, tuple(pods.pop(key, ()))))
    for left in pods.values():
        first = left[0].obj
        template = Template(mapping(first.raw, "metadata"), mapping(first.raw, "spec"))
        out.append(Workload(first.ref, "spec", template, tuple(left)))
    return tuple(sorted(out, key=lambda w: (w.namespace, w.ref.kind, w.name)))


def _top(
    obj: KubeObject, made: Iterable[tuple[str, str, str]], parents: dict[tuple[str, str, str], tuple[str, str]]
) -> tuple[str, str, str]:
    owner = _controller(obj)
    if owner is None:
        return ("Pod", obj.namespace, obj.name)
    key = (owner[0], obj.namespace, owner[1])
    if key not in made and owner[0] == "ReplicaSet":
        hashed = obj.labels.get("pod-template-hash", "")
        name = re.sub(rf"-{re.escape(hashed)}$", "", owner[1]) if hashed else owner[1]
        if ("Deployment", obj.namespace, name) in made:
            return ("Deployment", obj.namespace, name)
    for _ in range(5):  # Pod → Job → JobSet is the longest chain there is; a cycle of owners ends here too
        if key not in parents:
            break
        above = (parents[key][0], obj.namespace, parents[key][1])
        if above not in made:
            break
        key = above
    return key
