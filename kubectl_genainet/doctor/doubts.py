"""Why problems of manifests may meet nobody: workloads that are switched off or have ended well, objects that are not applied
together."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Problem
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, condition, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.finding import ObjectRef

_SCALERS = ("HorizontalPodAutoscaler", "ScaledObject", "HTTPScaledObject")


def switched_off(cluster: Cluster, problem: Problem) -> str:
    """Why nobody meets a problem of manifests: all workloads that it is about are to have no pod, and nothing scales them.
    Empty where somebody may."""
    about = _about(cluster, problem) if cluster.from_files else ()
    if not about or any(e.object is not None and e.object.kind == "EndpointSlice" for e in problem.evidence):
        return ""
    if any(not _is_off(cluster, workload) for workload in about):
        return ""
    return f"{about[0].ref} is switched off (spec.replicas: 0)"


def succeeded(cluster: Cluster, problem: Problem) -> str:
    """Why nobody meets a problem of a job in manifests: the object was saved with the status of a run that ended well."""
    workload = cluster.workload(problem.object) if cluster.from_files and problem.object is not None else None
    obj = cluster.object_of(workload) if workload is not None else None
    if obj is None or all(condition(obj.raw, end).get("status") != "True" for end in ("Succeeded", "Complete")):
        return ""
    return f"its status says that {obj.ref} succeeded"


def scattered(cluster: Cluster, problem: Problem) -> str:
    """Why the objects that a problem is about may not be applied together. A Service that an operator makes is where the
    object is that it is made of."""
    made = [
        ObjectRef(owner.kind, owner.name, ref.namespace)
        for ref in problem.about
        if ref.kind == "Service" and (service := cluster.service(ref.namespace, ref.name))
        for owner in service.metadata.owner_references
    ]
    return cluster.extent.scattered((*problem.about, *made))


def _about(cluster: Cluster, problem: Problem) -> tuple[Workload, ...]:
    ref = problem.object
    if ref is None:
        return ()
    if ref.kind == "Service":
        service = cluster.service(ref.namespace, ref.name)
        return cluster.workloads_of(service) if service is not None else ()
    workload = cluster.workload(ref)
    return (workload,) if workload is not None else ()


def _is_off(cluster: Cluster, workload: Workload) -> bool:
    obj = cluster.object_of(workload)
    if obj is None or at(obj.raw, "spec", "replicas") != 0 or cluster.extent.varies(workload.ref):
        return False
    scaled = (
        (o.namespace, text(o.raw, "spec", "scaleTargetRef", "name")) for k in _SCALERS for o in cluster.snapshot.of(k)
    )
    return (workload.namespace, workload.name) not in set(scaled)
