"""Jobs over several pods that run on no node yet: what their templates and their node pools say of where they will."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.doctor.check import seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.installed import ZONE
from kubectl_genainet.doctor.objects.raw import at, items, mapping, number, selector_matches, strings, text
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.devices import instance_types
from kubectl_genainet.model.finding import Evidence
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.units import whole_number

_ZONES = (ZONE, "failure-domain.beta.kubernetes.io/zone")
_POOL, _CLASS = "karpenter.sh/nodepool", "karpenter.k8s.aws/ec2nodeclass"
_TYPE = "node.kubernetes.io/instance-type"
# Kinds whose pods are one program; a Job is one where its pods have numbers, others where they train.
_GANGS = (
    *("JobSet", "PyTorchJob", "MPIJob", "TFJob", "PaddleJob", "JAXJob", "XGBoostJob", "TrainJob"),
    *("LeaderWorkerSet", "RayJob", "RayCluster"),
)
# Annotations by which JobSet, LeaderWorkerSet and Kueue keep pods in one domain of a topology.
_TOGETHER = (
    "alpha.jobset.sigs.k8s.io/exclusive-topology",
    "leaderworkerset.sigs.k8s.io/exclusive-topology",
    "leaderworkerset.sigs.k8s.io/subgroup-exclusive-topology",
    "kueue.x-k8s.io/podset-required-topology",
    "kueue.x-k8s.io/podset-preferred-topology",
)
# A node of CoreWeave in an NVL72 rack has the rack for its zone: https://github.com/coreweave/nccl-tests (mpi-operator).
_COREWEAVE = ("node.coreweave.cloud/", "ds.coreweave.com/", "backend.coreweave.cloud/")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


@dataclass(frozen=True, slots=True)
class Spread:
    """A term of a template by which a job's pods are put into different zones. `forced`: or not scheduled at all."""

    evidence: Evidence
    forced: bool


def jobs_without_nodes(cluster: Cluster) -> list[Workload]:
    """The parts with accelerators of jobs over several pods of which none has a node."""
    parts: dict[tuple[str, str], list[Workload]] = defaultdict(list)
    for workload in cluster.workloads:
        if cluster.in_scope(workload.namespace) and workload.template.accelerated and _of_a_gang(cluster, workload):
            parts[(workload.namespace, workload.job)].append(workload)
    waiting = (job for job in parts.values() if not any(w.nodes for w in job))
    return [w for job in waiting if sum(_pods(cluster, w) for w in job) > 1 for w in job]


def _of_a_gang(cluster: Cluster, workload: Workload) -> bool:
    obj = cluster.object_of(workload)
    if obj is None:
        return False
    if workload.ref.kind == "Job" and workload.group == "batch":
        return text(obj.raw, "spec", "completionMode") == "Indexed"
    trains = workload.ref.kind == "StatefulSet" and cluster.role(workload) is Role.TRAINING
    return trains or workload.ref.kind in _GANGS or workload.group == "batch.volcano.sh"


def _pods(cluster: Cluster, workload: Workload) -> int:
    """How many pods a part asks for, of a LeaderWorkerSet those of one group."""
    obj = cluster.object_of(workload)
    if obj is None:
        return 0
    if workload.ref.kind == "LeaderWorkerSet":
        size = number(obj.raw, "spec", "leaderWorkerTemplate", "size", default=1)
        return 1 if workload.part == "leader" else size - 1 if workload.part else size
    if workload.ref.kind == "TrainJob":
        return number(obj.raw, "spec", "trainer", "numNodes", default=1)
    path = workload.path.removesuffix(".spec").removesuffix(".template")
    steps = [s if (index := whole_number(s)) is None else index for s in re.split(r"[.\[\]]+", path) if s]
    own = at(obj.raw, *steps)
    around = at(obj.raw, *steps[:-2]) if workload.ref.kind in ("JobSet", "TrainJob") else None
    return number(own, "replicas", default=number(own, "parallelism", default=1)) * number(
        around, "replicas", default=1
    )


def _selected(workload: Workload, label: str) -> list[str]:
    """The values of a label that a template asks of its node; none where any will do."""
    spec = workload.template.spec
    own = text(spec, "nodeSelector", label)
    terms = items(spec, "affinity", "nodeAffinity", _REQUIRED, "nodeSelectorTerms")
    asked = [e for t in terms for e in items(t, "matchExpressions") if e.get("key") == label]
    return [own] if own else [v for e in asked if e.get("operator") == "In" for v in strings(e, "values")]


def zones_are_racks(cluster: Cluster, workload: Workload) -> bool:
    """Whether its nodes are CoreWeave's, where zones are racks of one fabric: by its node selector and affinity, by its
    nodes' labels."""
    spec = workload.template.spec
    terms = items(spec, "affinity", "nodeAffinity", _REQUIRED, "nodeSelectorTerms")
    asked = [text(e, "key") for t in terms for e in items(t, "matchExpressions")]
    nodes = [node for name in workload.nodes if (node := cluster.node(name)) is not None]
    keys = [*mapping(spec, "nodeSelector"), *asked, *(label for node in nodes for label in node.labels)]
    return any(key.startswith(_COREWEAVE) for key in keys)


def kept_together(cluster: Cluster, workload: Workload) -> bool:
    """Whether something keeps a job's pods in one zone, or in a smaller part of the network."""
    if any(len(set(_selected(workload, zone))) == 1 for zone in _ZONES):
        return True
    obj = cluster.object_of(workload)
    if any(
        key in notes for key in _TOGETHER for notes in (workload.template.annotations, obj.annotations if obj else {})
    ):
        return True
    if obj is not None and text(obj.raw, "spec", "networkTopology", "mode") == "hard":  # Volcano's
        return True
    return any(True for _ in _terms(workload, "podAffinity", _REQUIRED, any_key=True))


def _terms(workload: Workload, kind: str, how: str, *, any_key: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """(field, term) of the affinity, or its contrary, between a job's own pods, by zone."""
    for index, raw in enumerate(items(workload.template.spec, "affinity", kind, how)):
        term = mapping(raw, "podAffinityTerm") or raw
        by_zone = any_key or text(term, "topologyKey") in _ZONES
        if by_zone and "labelSelector" in term and selector_matches(mapping(term, "labelSelector"), workload.labels):
            yield workload.field(f"affinity.{kind}.{how}[{index}]"), term


def spreads(cluster: Cluster, workload: Workload) -> Iterator[Spread]:
    """The terms by which a template puts a job's own pods into different zones."""
    for index, raw in enumerate(items(workload.template.spec, "topologySpreadConstraints")):
        if text(raw, "topologyKey") not in _ZONES or number(raw, "maxSkew", default=1) >= _pods(cluster, workload):
            continue
        if "labelSelector" in raw and selector_matches(mapping(raw, "labelSelector"), workload.labels):
            forced = text(raw, "whenUnsatisfiable") != "ScheduleAnyway"
            field = workload.field(f"topologySpreadConstraints[{index}]")
            yield Spread(seen(workload.ref, field, raw, "spreads its pods over zones"), forced)
    for how, forced in ((_REQUIRED, True), (_PREFERRED, False)):
        for field, term in _terms(workload, "podAntiAffinity", how):
            yield Spread(seen(workload.ref, field, term, "keeps its pods out of each other's zone"), forced)


def _pools(cluster: Cluster, workload: Workload) -> list[KubeObject]:
    """Karpenter's NodePools that a template names."""
    names = _selected(workload, _POOL)
    return [p for p in cluster.snapshot.of("NodePool", "karpenter.sh") if p.name in names]


def node_classes(cluster: Cluster, workload: Workload) -> list[KubeObject]:
    """The EC2NodeClasses by which the nodes that a template asks for are made; none where it names none that is here."""
    of_pools = [text(p.raw, "spec", "template", "spec", "nodeClassRef", "name") for p in _pools(cluster, workload)]
    names = {*_selected(workload, _CLASS), *of_pools}
    return [c for c in cluster.snapshot.of("EC2NodeClass") if c.name in names]


def types_asked(cluster: Cluster, workload: Workload) -> list[tuple[str, Evidence]]:
    """(instance type, what says so) of the nodes that a template asks for, by itself or by the pool that it names."""
    own = instance_types(workload)
    if own:
        evidence = seen(workload.ref, workload.field("nodeSelector"), own, f"{workload.ref} is for {', '.join(own)}")
        return [(kind, evidence) for kind in own]
    asked = []
    for pool in _pools(cluster, workload):
        for index, raw in enumerate(items(pool.raw, "spec", "template", "spec", "requirements")):
            if raw.get("key") == _TYPE and raw.get("operator") == "In":
                field = f"spec.template.spec.requirements[{index}].values"
                kinds = strings(raw, "values")
                evidence = seen(pool.ref, field, kinds, f"the nodes of {pool.ref} are {', '.join(kinds)}")
                asked += [(kind, evidence) for kind in kinds]
    return asked
