"""TPU slices of GKE."""

from __future__ import annotations

import math
import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, mapping, number, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import edit
from kubectl_genainet.model.finding import Remedy, Severity
from kubectl_genainet.model.units import whole_number

TPU = "google.com/tpu"
TOPOLOGY, ACCELERATOR = "cloud.google.com/gke-tpu-topology", "cloud.google.com/gke-tpu-accelerator"
_SINGLE = ("DaemonSet", "Deployment", "ReplicaSet", "Pod")


def _chips(workload: Workload) -> int:
    return int(sum(c.amount(TPU) for c in workload.containers))


def _placed_otherwise(cluster: Cluster, workload: Workload) -> bool:
    """Whether something other than node selectors places the pods: affinity, a compute class, Kueue, dynamic slices."""
    obj = cluster.object_of(workload)
    spec_text = str(
        (workload.template.metadata, workload.template.spec, obj.raw.get("metadata") if obj is not None else "")
    )
    return any(word in spec_text for word in ("nodeAffinity", "compute-class", "kueue", "slice", "resourceClaims"))


def _pods_of_a_slice(cluster: Cluster, workload: Workload) -> tuple[int, str]:
    """(pods, field) that a workload makes for one slice; 0 where its kind does not say so."""
    obj = cluster.object_of(workload)
    if obj is None:
        return 0, ""
    match workload.ref.kind:
        case "Job":
            return number(obj.raw, "spec", "parallelism", default=1), "spec.parallelism"
        case "LeaderWorkerSet":
            size = number(obj.raw, "spec", "leaderWorkerTemplate", "size", default=1)
            leaders = [w for w in cluster.workloads if w.ref == workload.ref and w.part == "leader"]
            alone = any(not _chips(leader) for leader in leaders)
            return size - alone, "spec.leaderWorkerTemplate.size"
        case "JobSet":
            path = workload.path.removesuffix(".template.spec")
            steps = [s if (index := whole_number(s)) is None else index for s in re.split(r"[.\[\]]+", path) if s]
            return number(at(obj.raw, *steps), "parallelism", default=1), f"{path}.parallelism"
        case _:
            return 0, ""


@check(Area.PLACEMENT, Severity.ERROR)
def tpu_slice(cluster: Cluster) -> Problems:
    """A TPU workload does not fit the slice that it asks for.

    Looks at pods that request google.com/tpu: at the node selectors for accelerator and topology, and, for Jobs, JobSets
    and LeaderWorkerSets, at whether the number of pods times the chips of each is the product of the topology. An error:
    the pods stay Pending, or wait for each other for ever.

    Why: a slice is taken whole: its hosts are wired into one interconnect, and the runtime starts when a pod runs on each of
    them. Without the selectors GKE places no TPU pod.

    Source: https://cloud.google.com/kubernetes-engine/docs/concepts/tpus#how_tpus_work
    """
    for workload in cluster.workloads:
        chips = _chips(workload)
        if not chips or not cluster.in_scope(workload.namespace):
            continue
        selector = mapping(workload.template.spec, "nodeSelector")
        topology = text(selector, TOPOLOGY)
        field = workload.field(f"nodeSelector[{TOPOLOGY}]")
        if not topology:
            if _placed_otherwise(cluster, workload) or any(p.node for p in workload.pods):
                continue
            problem = f"google.com/tpu {chips} is requested, and no topology is selected"
            yield Problem(
                "it asks for TPUs and selects no topology",
                workload.ref,
                (seen(workload.ref, field, None, problem),),
                Remedy(f"Select {ACCELERATOR} and {TOPOLOGY} of the node pool.", command=edit(workload)),
            )
            continue
        if not re.fullmatch(r"[0-9]+(x[0-9]+)+", topology) or workload.ref.kind in _SINGLE:
            continue
        whole = math.prod(map(int, topology.split("x")))
        pods, where = _pods_of_a_slice(cluster, workload)
        if pods and pods * chips != whole:
            yield Problem(
                f"{pods} pods with {chips} chips each are not the {whole} chips of topology {topology}",
                workload.ref,
                (
                    seen(workload.ref, where, pods, f"{pods} pods × {chips} chips"),
                    seen(workload.ref, field, topology, f"{topology} has {whole} chips"),
                ),
                Remedy(f"Run {whole // chips} pods for a slice of {topology}.", command=edit(workload)),
            )
