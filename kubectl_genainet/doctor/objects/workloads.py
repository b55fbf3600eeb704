"""Workloads: pods folded into what makes them, with the template that the user edits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from kubectl_genainet.doctor.objects.podspec import ContainerSpec, Template
from kubectl_genainet.doctor.objects.raw import items, mapping, text
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject, Pod
from kubectl_genainet.model.workload_kinds.kinds import TEMPLATE_PLACES, PodTemplate, pod_templates

# Labels that name the distributed job a pod belongs to.
_GROUP_LABELS = (
    "training.kubeflow.org/job-name",
    "leaderworkerset.sigs.k8s.io/name",
    "jobset.sigs.k8s.io/jobset-name",
    "ray.io/cluster",
    "volcano.sh/job-name",
    "storm-service-name",
    "batch.kubernetes.io/job-name",
    "job-name",
)
_BUILT_IN = ("", "apps", "batch")
_GROUPS: dict[str, list[str]] = defaultdict(list)
for _group, _kind in TEMPLATE_PLACES:
    _GROUPS[_kind].append(_group)
_FIRST = "containers[0]"
_HASH = "pod-template-hash"
_OWNERS_DEEP = 8  # Pod → StatefulSet → Pod → StatefulSet → LeaderWorkerSet; a cycle of owners ends here too
WorkloadKey = tuple[ObjectRef, str, str]
_ObjectKey = tuple[str, str, str, str]  # group, kind, namespace, name


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


@dataclass(frozen=True)
class Workload:
    """A pod template with its pods: of a controller, of one part of it (a leader, a worker group), or a bare pod's own.

    `ref` is the object to edit and `group` its API group, `path` where the pod's spec is in it ("spec.template.spec",
    "spec"), `metadata` where its metadata is (empty where the place holds a spec only). `labels` are the template's with
    those that the controller adds.
    """

    ref: ObjectRef
    path: str
    template: Template
    pods: tuple[LivePod, ...]
    part: str = ""
    group: str = "apps"
    metadata: str = "spec.template.metadata"
    container: str | None = (
        None  # of a pod that an operator composes: what its first container is made of, below `path`
    )
    added_labels: tuple[tuple[str, str], ...] = ()

    @cached_property
    def key(self) -> WorkloadKey:
        return self.ref, self.part, self.path

    @cached_property
    def namespace(self) -> str:
        return self.ref.namespace

    @property
    def name(self) -> str:
        return self.ref.name

    @cached_property
    def labels(self) -> Mapping[str, str]:
        return {**self.template.labels, **dict(self.added_labels)}

    @property
    def built_in(self) -> bool:
        """Whether the API server knows the kind itself: a custom resource takes no strategic merge patch."""
        return self.group in _BUILT_IN

    def field(self, below: str = "") -> str:
        """A field path inside `ref`, from a path below the pod's spec; of a composed pod as near as the object has it."""
        if self.container is not None:
            own = f"{self.path}.{self.container}" if self.container else self.path
            return own + below.removeprefix(_FIRST) if self.container and below.startswith(_FIRST) else own
        return f"{self.path}.{below}" if below else self.path

    def label_field(self, name: str) -> str:
        return f"{self.metadata or self.path}.labels[{name}]"

    def annotation_field(self, name: str) -> str:
        return f"{self.metadata or self.path}.annotations[{name}]"

    @property
    def containers(self) -> list[ContainerSpec]:
        return self.template.containers

    @property
    def nodes(self) -> set[str]:
        return {p.node for p in self.pods if p.node}

    @property
    def job(self) -> str:
        """The distributed job that the pods belong to; the workload's own name where no label says."""
        labels = {**self.labels, **(self.pods[0].obj.labels if self.pods else {})}
        return next((str(labels[k]) for k in _GROUP_LABELS if labels.get(k)), self.ref.name)


def _dotted(path: Iterable[str | int]) -> str:
    dotted = ""
    for step in path:
        dotted += f"[{step}]" if isinstance(step, int) else (f".{step}" if dotted else step)
    return dotted


def _key(obj: KubeObject) -> _ObjectKey:
    return obj.group, obj.kind, obj.namespace, obj.name


def _controller(obj: KubeObject) -> _ObjectKey | None:
    """The owner that controls an object."""
    owners = items(obj.raw, "metadata", "ownerReferences")
    owner = next((o for o in owners if o.get("controller")), owners[0] if owners else None)
    if owner is None:
        return None
    group, kind = text(owner, "apiVersion").rpartition("/")[0], text(owner, "kind")
    if (group, kind) not in TEMPLATE_PLACES and len(_GROUPS.get(kind, ())) == 1:
        group = _GROUPS[kind][0]
    return group, kind, obj.namespace, text(owner, "name")


def _whole(templates: Iterable[PodTemplate]) -> bool:
    """Whether every container has an image and stands in the object: what an operator composes is not edited as one."""
    templates = tuple(templates)
    containers = [c for t in templates for c in items(dict(t.spec), "containers")]
    return (
        not any(t.container is not None for t in templates)
        and bool(containers)
        and all(c.get("image") for c in containers)
    )


class _Owners:
    """What controls what, among the objects that were read."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.templates: dict[_ObjectKey, list[PodTemplate]] = {}
        self.objects: dict[_ObjectKey, KubeObject] = {}
        self.above: dict[_ObjectKey, _ObjectKey] = {}
        for group, kind in TEMPLATE_PLACES:
            for obj in snapshot.of(kind, group):
                templates = pod_templates(obj, snapshot.by_kind)
                if templates:
                    self.templates[_key(obj)], self.objects[_key(obj)] = templates, obj
        for obj in self.objects.values():
            if (owner := _controller(obj)) is not None:
                self.above[_key(obj)] = owner
        pods = snapshot.of("Pod", "")
        self._of_pods = [_controller(pod) for pod in pods]
        leaders = {key for key in (*self.above.values(), *self._of_pods) if key is not None and key[1] == "Pod"}
        for obj, owner in zip(pods, self._of_pods, strict=True) if leaders else ():
            if owner is not None and _key(obj) in leaders:
                self.above[_key(obj)] = owner
        self._tops: dict[tuple[_ObjectKey, str], _ObjectKey] = {}

    def tops_of_pods(self, pods: Iterable[KubeObject]) -> Iterator[_ObjectKey]:
        """`top` of every pod of the snapshot; those of one controller and template have one."""
        for pod, owner in zip(pods, self._of_pods, strict=True):
            if owner is None:
                yield _key(pod)
                continue
            siblings = owner, text(pod.labels, _HASH)
            if siblings not in self._tops:
                best = owner if owner in self.templates else self._deployment_of(pod, owner)
                self._tops[siblings] = self._above(best, owner)
            yield self._tops[siblings]

    def top(self, obj: KubeObject) -> _ObjectKey:
        """The uppermost workload above an object with templates."""
        own = _key(obj)
        owner = self.above.get(own)
        return own if owner is None else self._above(own, owner)

    def _above(self, best: _ObjectKey, owner: _ObjectKey) -> _ObjectKey:
        """The uppermost workload from an owner on; `best` where none there has templates. An owner not read is named."""
        current: _ObjectKey | None = owner
        for _ in range(_OWNERS_DEEP):
            if current is None:
                break
            if current in self.templates and (best not in self.templates or _whole(self.templates[current])):
                best = current
            current = self.above.get(current)
        return best

    def _deployment_of(self, pod: KubeObject, owner: _ObjectKey) -> _ObjectKey:
        """The Deployment of a ReplicaSet that was not read, by its name without the pod-template-hash."""
        _, kind, namespace, name = owner
        hashed = text(pod.labels, _HASH)
        if kind == "ReplicaSet" and hashed:
            deployment = ("apps", "Deployment", namespace, re.sub(rf"-{re.escape(hashed)}$", "", name))
            if deployment in self.templates:
                return deployment
        return owner


def _part_of(pod: KubeObject, templates: list[PodTemplate]) -> int:
    """The index of the template that a pod was made of: no label contradicts, most labels and containers agree."""
    names = {text(c, "name") for c in items(pod.raw, "spec", "containers")}

    def score(template: PodTemplate) -> tuple[bool, int, int]:
        contradicted = any(k in pod.labels and pod.labels[k] != v for k, v in template.added_labels.items())
        same = sum(pod.labels.get(k) == str(v) for k, v in template.labels.items())
        containers = sum(text(c, "name") in names for c in items(dict(template.spec), "containers"))
        return not contradicted, same, containers

    return max(range(len(templates)), key=lambda i: score(templates[i]))


def fold(snapshot: ClusterSnapshot) -> tuple[Workload, ...]:
    """All workloads of a cluster, those without pods included. A Deployment's ReplicaSets are not workloads.

    A pod whose controller was not read is folded with its siblings under that controller, and the first pod stands
    for the template. Where ReplicaSets were not read, the Deployment's name is the ReplicaSet's without its
    pod-template-hash.
    """
    owners = _Owners(snapshot)
    pods: dict[_ObjectKey, list[LivePod]] = defaultdict(list)
    objects = snapshot.of("Pod", "")
    for obj, pod, top in zip(objects, snapshot.pods, owners.tops_of_pods(objects), strict=True):
        if not pod.finished:
            pods[top].append(LivePod(pod, obj))
    workloads = []
    for key, templates in owners.templates.items():
        obj = owners.objects[key]
        top = owners.top(obj)
        owned = top != key and top in owners.templates
        if owned or (obj.kind == "ReplicaSet" and key not in pods):
            continue
        composed = not _whole(templates) and _made_by_its_own(key, owners)
        if not composed:
            workloads += _parts(obj, templates, pods.pop(key, []))
    for unowned in pods.values():
        first = unowned[0].obj
        template = Template(mapping(first.raw, "metadata"), mapping(first.raw, "spec"))
        workloads.append(Workload(first.ref, "spec", template, tuple(unowned), group="", metadata="metadata"))
    return tuple(sorted(workloads, key=lambda w: (w.namespace, w.ref.kind, w.name, w.part)))


def _made_by_its_own(key: _ObjectKey, owners: _Owners) -> bool:
    """Whether the workload that an operator made of an object was read, which says more than the object."""
    return any(above == key and below in owners.templates for below, above in owners.above.items())


def _parts(obj: KubeObject, templates: list[PodTemplate], pods: list[LivePod]) -> list[Workload]:
    by_part: Mapping[int, list[LivePod]] = {i: [] for i, _ in enumerate(templates)}
    for live in pods:
        by_part[_part_of(live.obj, templates) if len(templates) > 1 else 0].append(live)
    return [
        Workload(
            obj.ref,
            _dotted(template.spec_path),
            Template(dict(template.metadata), dict(template.spec)),
            tuple(by_part[index]),
            template.part if len(templates) > 1 else "",
            obj.group,
            "" if template.bare else _dotted((*template.path, "metadata")),
            template.container,
            tuple(template.added_labels.items()),
        )
        for index, template in enumerate(templates)
    ]
