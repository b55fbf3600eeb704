"""Settings of NCCL, Gloo and libfabric."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import EFA_RESOURCE, ContainerSpec
from kubectl_genainet.doctor.objects.variables import Variable
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.devices import GKE_INTERFACES, device_requests, pod_devices, rdma_requests
from kubectl_genainet.doctor.predicates.edits import unset_variable
from kubectl_genainet.model.finding import Remedy, Severity

_NOWHERE = ("lo", "docker0", "docker")
POD_IDENTITY_DEVICE = "pod-id-link0"  # of eks-pod-identity-agent, on the node
_PERFORMANCE_TEST = re.compile(
    r"\b(all_reduce|all_gather|alltoall|alltoallv|broadcast|reduce|reduce_scatter|sendrecv|gather|scatter|hypercube)_perf\b"
)
_NODES = re.compile(r"--(?:nnodes|pipeline-parallel-size|pipeline_parallel_size|dist-nnodes|pp-size)[= ]+([0-9]+)")
Pitfall = tuple[Variable, str, Severity]


def _off_the_node(value: str, devices: tuple[str, ...] | None) -> str:
    """Why a list of device prefixes (NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME) names none that reaches other nodes.

    "^" excludes, "=" makes names exact (NCCL user guide, NCCL_SOCKET_IFNAME).
    """
    if not value or value.startswith("^"):
        return ""
    exact = value.startswith("=")
    wanted = [d.strip() for d in value.lstrip("=").split(",") if d.strip()]
    if wanted and all(d in _NOWHERE for d in wanted):
        return "this device does not reach other nodes"
    if devices is None or any(d == w if exact else d.startswith(w) for w in wanted for d in devices):
        return ""
    return f"the pod's devices are {', '.join(devices)}"


def _without_gloo(cluster: Cluster, workload: Workload) -> bool:
    """Whether a command line of the job starts a program that knows no Gloo: nccl-tests and rccl-tests rendezvous by MPI."""
    parts = (part for part in cluster.workloads_in[workload.namespace] if part.ref == workload.ref)
    return any(_PERFORMANCE_TEST.search(word) for part in parts for c in part.containers for word in c.words)


def _over_nodes(cluster: Cluster, workload: Workload) -> bool:
    """Whether one program of a workload runs over several nodes, as its command line says, or its kind."""
    line = " ".join(word for c in workload.containers for word in c.words)
    number = _NODES.search(line)
    return int(number[1]) > 1 if number else workload.ref.kind == "LeaderWorkerSet"


def _sockets(cluster: Cluster, workload: Workload, env: Mapping[str, Variable]) -> Iterator[Pitfall]:
    devices = pod_devices(workload)
    nccl, gloo = env.get("NCCL_SOCKET_IFNAME"), env.get("GLOO_SOCKET_IFNAME")
    for variable in (nccl, gloo, env.get("HCCL_SOCKET_IFNAME")):
        why = _off_the_node(variable.value, devices) if variable else ""
        if variable is not None and why:
            yield variable, why, Severity.WARNING
    if not workload.template.host_network:
        return
    if gloo is None and (nccl or _over_nodes(cluster, workload)) and not _without_gloo(cluster, workload):
        why = (
            "GLOO_SOCKET_IFNAME is not set here (an image or a script that sets it is not seen): with hostNetwork Gloo takes "
            "what the node's name resolves to, often 127.0.0.1"
        )
        yield nccl or Variable("hostNetwork", "true", workload.ref, workload.field("hostNetwork")), why, Severity.INFO
    if nccl is None:
        return
    agent = cluster.daemonset("eks-pod-identity-agent")
    excluded = [d.strip() for d in nccl.value[1:].split(",") if d.strip()]
    if agent and nccl.value.startswith("^") and not any(POD_IDENTITY_DEVICE.startswith(d) for d in excluded):
        why = f"it does not exclude {POD_IDENTITY_DEVICE}, which {agent.ref} makes on every node"
        yield nccl, why, Severity.WARNING


def _transports(cluster: Cluster, container: ContainerSpec, env: Mapping[str, Variable]) -> Iterator[Pitfall]:
    efa, rdma = container.amount(EFA_RESOURCE) > 0, rdma_requests(cluster, container)
    provider, net, plugin = env.get("FI_PROVIDER"), env.get("NCCL_NET"), env.get("NCCL_NET_PLUGIN")
    disabled, p2p = env.get("NCCL_IB_DISABLE"), env.get("NCCL_P2P_DISABLE")
    if provider and efa and provider.value not in ("", "efa"):
        yield provider, "EFA is requested and another provider is chosen", Severity.WARNING
    if provider and not efa and provider.value == "efa":
        yield provider, "the EFA provider is chosen and no EFA device is requested", Severity.WARNING
    if net and (efa or rdma) and net.value == "Socket":
        yield net, "NCCL is told to use TCP", Severity.WARNING
    over_ofi = env.get("HCCL_OVER_OFI")
    if over_ofi and over_ofi.value == "1" and container.amount("habana.ai/gaudi") and not device_requests(container):
        yield over_ofi, "HCCL is told to use libfabric, and neither EFA nor RDMA is requested", Severity.WARNING
    if plugin and efa and plugin.value == "none":
        yield plugin, "without its plugin NCCL cannot use EFA", Severity.WARNING
    if disabled and rdma and disabled.value == "1":
        yield disabled, f"NCCL is told not to use the RDMA devices that are requested ({rdma[0]})", Severity.WARNING
    if p2p and p2p.value == "1" and container.amount("nvidia.com/gpu") > 1:
        yield p2p, "GPUs of a node talk through host memory", Severity.INFO


def pitfalls(cluster: Cluster, workload: Workload) -> Iterator[tuple[ContainerSpec, Pitfall]]:
    for container in workload.containers:
        env = cluster.variables(workload, container)
        for pitfall in (*_sockets(cluster, workload, env), *_transports(cluster, container, env)):
            yield container, pitfall


@check(Area.EFA, Severity.WARNING)
def nccl_settings(cluster: Cluster) -> Problems:
    """NCCL, Gloo or libfabric is configured so that a job is slow or does not start.

    Looks at NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME and HCCL_SOCKET_IFNAME against the pod's devices (eth0, those of Multus
    and of GKE's multi-networking; pod-id-link0 with hostNetwork), FI_PROVIDER against the EFA request, NCCL_NET,
    NCCL_NET_PLUGIN, NCCL_IB_DISABLE and HCCL_OVER_OFI (Gaudi) against the RDMA and EFA requests, and NCCL_P2P_DISABLE, of
    pods with accelerators: in their variables, in ConfigMaps, in command lines and in what an MPI launcher passes on with -x.

    What an image sets in its Dockerfile is not seen: that GLOO_SOCKET_IFNAME is missing is information.

    Why: NCCL takes such settings at their word: it hangs at its first collective, or runs over TCP. A warning: a job that
    is alone on its node does not notice.

    Source: https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html,
    https://github.com/aws/aws-ofi-nccl, https://ofiwg.github.io/libfabric/main/man/fi_provider.7.html,
    https://pytorch.org/docs/stable/distributed.html#common-environment-variables
    """
    said = set()  # parts of one object may share a template
    for workload in cluster.workloads:
        if not cluster.in_scope(workload.namespace) or not (workload.template.accelerated or workload.template.efas):
            continue
        for container, (variable, why, severity) in pitfalls(cluster, workload):
            if (variable, why, workload.ref) in said:
                continue
            said.add((variable, why, workload.ref))
            yield Problem(
                f"{variable.name}={variable.value}: {why}",
                workload.ref,
                (seen(variable.object, variable.field, variable.value, f"{variable.name}={variable.value}"),),
                Remedy(
                    "Name the device that reaches the other nodes, for NCCL and for Gloo."
                    if "GLOO" in why or POD_IDENTITY_DEVICE in why
                    else "Leave it to NCCL and libfabric, or exclude devices (^lo,docker) instead of naming one.",
                    command="" if "GLOO" in why else unset_variable(workload, container, variable),
                ),
                severity=severity,
            )


@check(Area.EFA, Severity.ERROR)
def gloo_interface(cluster: Cluster) -> Problems:
    """Gloo is given a list of devices in NCCL's syntax.

    Looks at GLOO_SOCKET_IFNAME of pods with accelerators for the signs of NCCL_SOCKET_IFNAME: ^ (all but these) and =
    (exactly these).

    Why: Gloo takes names of devices alone, with commas between them. It looks for a device that is called "^lo", finds no
    address for it, and throws. An error: every process of the job stops as it starts.

    Source: https://pytorch.org/docs/stable/distributed.html#common-environment-variables,
    https://github.com/aws-samples/aws-do-eks/pull/51
    """
    for workload in cluster.workloads:
        if not cluster.in_scope(workload.namespace) or not workload.template.accelerated:
            continue
        for container in workload.containers:
            gloo = cluster.variables(workload, container).get("GLOO_SOCKET_IFNAME")
            if gloo is not None and gloo.value.startswith(("^", "=")):
                yield Problem(
                    f"GLOO_SOCKET_IFNAME={gloo.value}: Gloo has no device of that name",
                    workload.ref,
                    (seen(gloo.object, gloo.field, gloo.value, f"{gloo.value[0]} is NCCL's sign, not Gloo's"),),
                    Remedy("Name the device that reaches the other nodes."),
                )


# Variables that turn a GPUDirect transport of GKE on -> its name.
_GPUDIRECT = (("NCCL_FASTRAK_", "TCPXO"), ("NCCL_GPUDIRECTTCPX_", "TCPX"))


@check(Area.EFA, Severity.WARNING)
def gke_gpudirect(cluster: Cluster) -> Problems:
    """GPUDirect of GKE is configured, and the pod lacks the networks or the daemon.

    Looks, where variables NCCL_FASTRAK_* (TCPXO) or NCCL_GPUDIRECTTCPX_* (TCPX) are set, at the annotation
    networking.gke.io/interfaces (or hostNetwork) and at the transport's daemon: the annotation
    devices.gke.io/container.tcpxo-daemon, or a container or init container of that name.

    Why: the additional interfaces and the daemon are what the transport works through: without them NCCL fails at
    its start, or runs over TCP on eth0 with a fraction of the bandwidth. A warning: the job may run, on TCP.

    Source: https://cloud.google.com/kubernetes-engine/docs/how-to/gpu-bandwidth-gpudirect-tcpx
    """
    for workload in cluster.workloads:
        if not cluster.in_scope(workload.namespace) or not workload.template.accelerated:
            continue
        for container in workload.containers:
            env = cluster.variables(workload, container)
            for prefix, name in _GPUDIRECT:
                variable = next((v for k, v in env.items() if k.startswith(prefix)), None)
                lacks = _lacks(workload) if variable else []
                if variable is None or not lacks:
                    continue
                yield Problem(
                    f"GPUDirect {name} is configured, and it has no {' and no '.join(lacks)}",
                    workload.ref,
                    (
                        seen(variable.object, variable.field, variable.value, f"{variable.name}={variable.value}"),
                        seen(workload.ref, workload.annotation_field(GKE_INTERFACES), None, f"no {lacks[0]}"),
                    ),
                    Remedy(
                        "Add the networks' interfaces and the daemon of the transport to the pod, or unset its variables."
                    ),
                )


def _lacks(workload: Workload) -> list[str]:
    notes = workload.template.annotations
    names = [c.name for c in workload.template.all_containers] + [c.image for c in workload.template.all_containers]
    lacks = []
    if GKE_INTERFACES not in notes and not workload.template.host_network:
        lacks.append("additional network interfaces")
    if not any("tcpx" in key for key in notes) and not any("tcpx" in name or "fastrak" in name for name in names):
        lacks.append("daemon of the transport")
    return lacks
