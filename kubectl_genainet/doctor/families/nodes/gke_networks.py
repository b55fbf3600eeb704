"""GKE's networks of GPU nodes: the interfaces of TCPX, TCPXO and RDMA."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, json_in, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.devices import GKE_INTERFACES
from kubectl_genainet.doctor.predicates.edits import edit
from kubectl_genainet.doctor.predicates.selectors import alike
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity

# (prefix of the variables, GPUDirect transport, networks of a pod with all eight GPUs of a node)
_TRANSPORTS = (("NCCL_FASTRAK_", "TCPXO", 8), ("NCCL_GPUDIRECTTCPX_", "TCPX", 4))
_GIB = "/usr/local/gib"  # where GKE's NCCL for RDMA is mounted
_RDMA = ("RDMA", 8)


def _interfaces(workload: Workload) -> list[tuple[str, str]]:
    """(interface, network) of the annotation networking.gke.io/interfaces."""
    entries = items(json_in(workload.template.annotations.get(GKE_INTERFACES, "")))
    return [(text(e, "interfaceName"), text(e, "network")) for e in entries]


def _transport(cluster: Cluster, workload: Workload) -> tuple[str, int] | None:
    for container in workload.containers:
        names = cluster.variables(workload, container)
        for prefix, transport, networks in _TRANSPORTS:
            if any(n.startswith(prefix) for n in names):
                return transport, networks
        if any(text(m, "mountPath").startswith(_GIB) for m in items(container.raw, "volumeMounts")):
            return _RDMA
    return None


@check(Area.EFA, Severity.WARNING)
def gke_networks(cluster: Cluster) -> Problems:
    """A pod with GKE's GPU networking lacks some of its networks, or names one that does not exist.

    Looks at the annotation networking.gke.io/interfaces of pods with eight GPUs: TCPX has four networks besides the
    default one, TCPXO eight, RDMA (gIB) eight; and at the Networks (networking.gke.io) that it names. One network alone is
    taken for a choice; resource claims bring their own. A warning: with fewer networks NCCL runs, on a part of the
    bandwidth. An error where a Network does not exist: the pod does not start.

    Why: each network is a NIC beside one or two GPUs. NCCL uses the NICs that the pod has; what is missing goes over the
    others, and all ranks wait for the slowest.

    Source: https://cloud.google.com/kubernetes-engine/docs/how-to/gpu-bandwidth-gpudirect-tcpx,
    https://cloud.google.com/ai-hypercomputer/docs/create/gke-ai-hypercompute-custom
    """
    known = {n.name for n in cluster.snapshot.of("Network", "networking.gke.io")}
    for workload in cluster.workloads:
        if not cluster.in_scope(workload.namespace) or GKE_INTERFACES not in workload.template.annotations:
            continue
        field, value = workload.annotation_field(GKE_INTERFACES), workload.template.annotations[GKE_INTERFACES]
        interfaces = [(i, n) for i, n in _interfaces(workload) if n not in ("default", "")]
        for _, network in interfaces:
            elsewhere = cluster.partial("Network")
            if network not in known and (not elsewhere or alike(network, known)):
                problem = f"there is no Network {network}"
                yield Problem(
                    f"its network {network} does not exist",
                    workload.ref,
                    (seen(workload.ref, field, value, problem),),
                    Remedy("Name a Network of the cluster.", command=edit(workload)),
                    severity=Severity.ERROR,
                )
            elif network not in known:
                yield NotChecked(str(workload.ref), f"Network {network} is not here: {elsewhere}")
        transport_networks = _transport(cluster, workload)
        if transport_networks is None or workload.template.gpus != 8 or items(workload.template.spec, "resourceClaims"):
            continue
        transport, needed = transport_networks
        if 1 < len(interfaces) < needed:
            problem = f"{len(interfaces)} networks besides the default one, of {needed}"
            yield Problem(
                f"it has {len(interfaces)} of the {needed} networks of {transport}",
                workload.ref,
                (seen(workload.ref, field, value, problem),),
                Remedy(f"Name all {needed} networks of the node pool.", command=edit(workload)),
            )
