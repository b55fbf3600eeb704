"""The mesh and pods that end: sidecars in jobs."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, items, text
from kubectl_genainet.doctor.objects.recognise import BATCH
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import edit
from kubectl_genainet.doctor.predicates.mesh import Mesh, mesh_of, no_mesh
from kubectl_genainet.model.finding import Remedy, Severity

_SIDECARS = ("istio-proxy", "linkerd-proxy")


def _native(workload: Workload) -> bool:
    """Whether the sidecar is an init container that is restarted: the kubelet ends it after the others (KEP-753)."""
    pods = (p.obj.raw for p in workload.pods)
    return any(
        text(c, "name") in _SIDECARS and text(c, "restartPolicy") == "Always"
        for raw in pods
        for c in items(raw, "spec", "initContainers")
    )


# Kinds that run training and nothing else, also without accelerators; and what a trainer is called.
_TRAINERS = ("PyTorchJob", "MPIJob", "TFJob", "XGBoostJob", "PaddleJob", "JAXJob", "TrainJob")
_TRAINS = re.compile(r"(^|[^a-z])(pre-?train|fine-?tune|train|trainer|training)([^a-z]|$)")


def _trains(cluster: Cluster, workload: Workload) -> bool:
    command_lines = " ".join(word for c in workload.containers for word in c.words)
    return (
        cluster.role(workload) is Role.TRAINING
        or workload.ref.kind in _TRAINERS
        or _TRAINS.search(f"{workload.name} {command_lines}".lower()) is not None
    )


def _parallel(workload: Workload) -> bool:
    """Whether a job's pods talk to each other."""
    numbers = [at(workload.template.spec, "subdomain"), workload.part]
    return any(numbers) or len(workload.pods) > 1


def _ends(workload: Workload) -> bool:
    return workload.ref.kind in BATCH or workload.group == "batch.volcano.sh"


def _no_mesh_in_jobs(cluster: Cluster) -> str:
    in_mesh = any(_ends(w) and mesh_of(cluster, w)[0] is not Mesh.NONE for w in cluster.workloads)
    return "" if in_mesh else no_mesh(cluster)


@check(Area.MESH, Severity.WARNING, needs=("Pod", "Namespace"), applies=_no_mesh_in_jobs)
def mesh_in_job(cluster: Cluster) -> Problems:
    """A training job gets a sidecar of the mesh.

    Looks at jobs that train (a PyTorchJob, MPIJob or another training operator's; a Job or JobSet with accelerators, a
    training command, or a name that says so) whose pods have a sidecar, or get one from the label of their namespace. A
    native sidecar (an init container that is restarted) is reported only where the pods talk to each other. A warning: with
    a sidecar that ends by itself the job runs through.

    Why: a sidecar does not end when the trainer does: the pod stays Running, the job never completes, and its GPUs stay
    taken. Until the proxy is ready, rendezvous and SSH between the pods fail, and what they send in the clear to a pod's own
    address is refused where mTLS is STRICT.

    Source: https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/,
    https://linkerd.io/2/tasks/graceful-shutdown/
    """
    for workload in cluster.workloads:
        if not _ends(workload) or not cluster.in_scope(workload.namespace) or not _trains(cluster, workload):
            continue
        mesh, evidence = mesh_of(cluster, workload)
        if mesh not in (Mesh.ISTIO_SIDECAR, Mesh.LINKERD) or evidence is None:
            continue
        if _native(workload) and not _parallel(workload):
            continue
        yield Problem(
            f"its pods get the {mesh.value}, which does not end with the job",
            workload.ref,
            (evidence,),
            Remedy(
                'Leave the sidecar out of the job\'s template: label sidecar.istio.io/inject: "false" (Linkerd: annotation '
                "linkerd.io/inject: disabled).",
                command=edit(workload),
            ),
        )
