"""Why problems of manifests may meet nobody: workloads that are switched off, policies that are for another namespace."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Problem
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, text
from kubectl_genainet.doctor.objects.workloads import Workload

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


def for_another_namespace(cluster: Cluster, problem: Problem) -> str:
    """Why a policy for all pods of its namespace may not be for those of a problem: neither names a namespace, and nothing in
    the folders of the manifests says that they belong together. Empty where something does."""
    refs = [problem.object, *(e.object for e in problem.evidence)]
    named = {ref for ref in refs if ref is not None and ref.kind == "NetworkPolicy"}
    if not named or cluster.extent.of_a_cluster:
        return ""
    objects = [
        obj for ref in refs if ref is not None and (w := cluster.workload(ref)) and (obj := cluster.object_of(w))
    ]
    for policy in cluster.snapshot.of("NetworkPolicy", "networking.k8s.io"):
        for_all = policy.ref in named and policy.unplaced and not at(policy.raw, "spec", "podSelector")
        if for_all and any(o.unplaced and not cluster.extent.below_its_folder(policy, o) for o in objects):
            return f"{policy.ref} names no namespace, and is in another part of the manifests"
    return ""


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
