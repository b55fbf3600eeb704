"""What GPU pods did while doctor watched: the way of their bulk traffic, and what their RDMA devices counted."""

from __future__ import annotations

import msgspec

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import sh
from kubectl_genainet.model.diagnoses.fabric import NCCL_ON_TCP, RDMA_TROUBLE
from kubectl_genainet.model.finding import Finding, Remedy, Severity


def _no_gpu_pods(cluster: Cluster) -> str:
    return "" if cluster.has_gpu_pods else "no pod asks for a GPU"


def _found(cluster: Cluster, name: str) -> tuple[Finding, ...]:
    summary = cluster.fabric.summary
    return tuple(f for f in summary.findings if f.check == name) if summary is not None else ()


def _problem(finding: Finding, remedy: Remedy) -> Problem:
    field = "rate" if finding.check == NCCL_ON_TCP.name else "counters"
    evidence = tuple(msgspec.structs.replace(e, field=e.field or field) for e in finding.evidence)
    return Problem(finding.title, finding.object, evidence, remedy, finding.detail, finding.severity)


@check(Area.EFA, Severity.WARNING, needs=("Pod", Need.FABRIC), applies=_no_gpu_pods)
def nccl_on_tcp(cluster: Cluster) -> Problems:
    """GPU pods of one job move bulk data over kernel TCP while their nodes' RDMA devices stand still.

    Looks at the bytes of the GPU pods' TCP connections with each other and of their nodes' RDMA devices, read twice,
    --measure apart (as `fabric` does). A pod on a node without an active RDMA port has nothing to fall back from, and is
    left alone.

    Why: NCCL falls back to sockets without an error when its plugin, its device or its rights are missing. The job runs,
    at a tenth of the bandwidth, and the CPU copies every byte. A warning: the step is slow, not wrong. That the bytes
    are a collective's is assumed.

    Source: https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html
    """
    for finding in _found(cluster, NCCL_ON_TCP.name):
        obj = finding.object
        if obj is not None and not cluster.in_scope(obj.namespace):
            continue
        command = (
            f"kubectl -n {sh(obj.namespace)} logs pod/{sh(obj.name)} | grep -E 'NET/(Socket|IB|OFI)'" if obj else ""
        )
        yield _problem(
            finding,
            Remedy(
                "Run the job with NCCL_DEBUG=INFO; its lines NET/… say which transport it took, and why not another. See "
                "that the pods request the devices, have IPC_LOCK or memlock, and that the image has the network plugin.",
                command=command,
            ),
        )


@check(Area.EFA, Severity.WARNING, needs=("Pod", Need.FABRIC), applies=_no_gpu_pods)
def rdma_trouble(cluster: Cluster) -> Problems:
    """Counters of lost, late or repeated packets of an RDMA device grew while it was watched.

    Looks at the counters of every port of the nodes with GPU pods, read twice, --measure apart: those of EFA
    (retrans_timeout_events, impaired_remote_conn_events, unresponsive_remote_events, rdma_*_err, rx_drops), of mlx5 and
    bnxt_re, and InfiniBand's own.

    Why: a collective is as fast as its slowest member, and each packet that is sent again holds all of them up. A
    warning: the job goes on, slower.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-working-monitor.html,
    https://docs.kernel.org/admin-guide/abi-stable.html (sysfs-class-infiniband)
    """
    for finding in _found(cluster, RDMA_TROUBLE.name):
        node = finding.object.name if finding.object is not None else ""
        yield _problem(
            finding,
            Remedy(
                "See which peers are concerned, and whether the fabric's flow control (PFC, ECN), a bad cable or a "
                "placement across networks is why.",
                command=f"kubectl genainet fabric node/{sh(node)} -o wide",
            ),
        )
