"""How many pods a workload asks for."""

from __future__ import annotations

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import mapping
from kubectl_genainet.doctor.objects.workloads import Workload


def replicas(cluster: Cluster, workload: Workload) -> int:
    """spec.replicas, or spec.parallelism of a Job; one where neither is set, and what there is where its object is not."""
    obj = cluster.object_of(workload)
    if obj is None:
        return len(workload.pods)
    spec = mapping(obj.raw, "spec")
    asked = spec.get("replicas", spec.get("parallelism", 1))
    return asked if isinstance(asked, int) else 1
