"""RDMA in pods: locked memory, device nodes, shared memory."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import EFA_RESOURCE, ContainerSpec
from kubectl_genainet.doctor.objects.raw import at, items, strings, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.devices import device_requests, instance_types, privileged, rdma_requests
from kubectl_genainet.doctor.predicates.edits import edit_container, edit_shared_memory
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.units import quantity
from kubectl_genainet.model.workload_kinds.accelerators import GPU_RESOURCES

_COREWEAVE = "rdma/ib"
DEVICE_NODES = "/dev/infiniband"
_ALL = ("IPC_LOCK", "CAP_IPC_LOCK", "ALL", "SYS_ADMIN")


_PRESETS = "the presets of its operator, which may add it, are not here"


def _merged_with_presets(workload: Workload) -> bool:
    """Whether an operator merges the containers with presets of its own (KServe's LLMInferenceServiceConfig)."""
    return workload.ref.kind == "LLMInferenceService"


def _containers(cluster: Cluster) -> Iterator[tuple[Workload, ContainerSpec]]:
    for workload in cluster.workloads:
        if cluster.in_scope(workload.namespace):
            for container in workload.containers:
                yield workload, container


@check(Area.SRIOV, Severity.WARNING)
def rdma_memlock(cluster: Cluster) -> Problems:
    """A pod with an RDMA device may not lock memory.

    Looks at containers that request an RDMA resource of the SR-IOV or the shared device plugin, and at
    securityContext.capabilities.add: IPC_LOCK, unless they are privileged. Which resources are RDMA, SriovNetworkNodePolicy
    (isRdma), NicClusterPolicy and the plugins' ConfigMaps tell where they are among the objects, else the name. EFA's
    provider registers memory without it and is left out.

    Why: RDMA registers pinned memory. Without the capability the limit of the container runtime (RLIMIT_MEMLOCK) holds;
    registration fails with ENOMEM, and NCCL stops or falls back to TCP. A warning: a runtime may be set to no limit.
    Information for rdma/ib, CoreWeave's resource: the provider's own jobs do without the capability on its nodes.

    Source: https://github.com/Mellanox/k8s-rdma-shared-dev-plugin#readme, https://github.com/coreweave/nccl-tests,
    man 2 mlock, man 7 capabilities
    """
    for workload, container in _containers(cluster):
        requests = rdma_requests(cluster, container)
        added = strings(container.raw, "securityContext", "capabilities", "add")
        if not requests or privileged(container) or any(c in _ALL for c in added):
            continue
        if _merged_with_presets(workload):
            yield NotChecked(str(workload.ref), f"IPC_LOCK: {_PRESETS}")
            continue
        field = workload.field(f"{container.field}.securityContext.capabilities.add")
        change = dict(at(container.raw, "securityContext") or {})
        change["capabilities"] = {**(at(change, "capabilities") or {}), "add": [*added, "IPC_LOCK"]}
        yield Problem(
            "it asks for RDMA and lacks the capability IPC_LOCK",
            workload.ref,
            (seen(workload.ref, field, added or None, f"container {container.name} requests {requests[0]}"),),
            Remedy("Add IPC_LOCK.", command=edit_container(workload, container, "securityContext", change)),
            severity=Severity.INFO if requests == [_COREWEAVE] else None,
        )


def _given_by_kuberay(workload: Workload, container: ContainerSpec) -> bool:
    """Whether KubeRay mounts a memory volume at /dev/shm, for Ray's object store."""
    kind = workload.ref.kind
    ray = kind.startswith("RayCluster") or (workload.group == "ray.io" and workload.part != "submitter")
    return ray and container.field == workload.containers[0].field


def _serves_kubelet(workload: Workload) -> bool:
    """Whether it mounts the kubelet's folder of device plugins or of plugins: it offers devices, and opens none."""
    paths = (text(v, "hostPath", "path") for v in items(workload.template.spec, "volumes"))
    return any("/kubelet/device-plugins" in p or "/kubelet/plugins" in p for p in paths)


@check(Area.SRIOV, Severity.WARNING)
def rdma_host_path(cluster: Cluster) -> Problems:
    """A pod mounts the node's RDMA devices instead of requesting one.

    Looks at hostPath volumes of /dev/infiniband (or below) that a container without privileges mounts and that requests
    no device besides accelerators: what a resource such as nvidia.com/hostdev brings, its name does not tell. Device
    plugins and DRA drivers, which list the devices for the kubelet, are left out.

    Why: the device files are there, and the container's device cgroup does not let it open them: ibv_open_device
    fails. A device plugin (or DRA) adds both. A warning: the job runs on TCP, or stops. Beside a request for EFA libfabric
    opens every device that it sees, and gives up where one can't be opened: a warning on p6-b200, whose nodes have others,
    else information.

    Source: https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/,
    https://github.com/aws-samples/aws-do-eks/pull/63
    """
    for workload in cluster.workloads_with("volumes"):
        if not cluster.in_scope(workload.namespace) or _serves_kubelet(workload):
            continue
        for index, volume in enumerate(items(workload.template.spec, "volumes")):
            path = text(volume, "hostPath", "path")
            if not path.startswith(DEVICE_NODES):
                continue
            users = [c for c in workload.containers if text(volume, "name") in _mounted(c)]
            barred = [c for c in users if not privileged(c) and not device_requests(c)]
            field = workload.field(f"volumes[{index}].hostPath.path")
            beside = [c for c in users if not privileged(c) and c.amount(EFA_RESOURCE)]
            if beside:
                yield _beside_efa(workload, beside[0], field, path)
            if barred:
                yield Problem(
                    f"container {barred[0].name} mounts {path} and may not open its devices",
                    workload.ref,
                    (seen(workload.ref, field, path, "no device is requested"),),
                    Remedy("Request the device of an RDMA device plugin instead of mounting the node's files."),
                )


def _beside_efa(workload: Workload, container: ContainerSpec, field: str, path: str) -> Problem:
    mixed = next((v for v in instance_types(workload) if v.rpartition("ml.")[2].startswith("p6-b200")), "")
    shown = f"all RDMA devices of the node are shown, also those that are no EFA device{f' ({mixed} has some)' if mixed else ''}"
    return Problem(
        f"container {container.name} requests EFA devices, and mounts {path} of the node over them",
        workload.ref,
        (seen(workload.ref, field, path, shown),),
        Remedy(
            f"Take the volume away: the device plugin brings the files of the devices that are requested into {path}."
        ),
        severity=Severity.WARNING if mixed else Severity.INFO,
    )


def _mounted(container: ContainerSpec) -> set[str]:
    return {text(m, "name") for m in items(container.raw, "volumeMounts")}


# Options that start several processes for one model or one job on a node, each with a device of its own.
_SHARDS = re.compile(
    r"--(?:tensor-parallel-size|tp-size|tp|num-shard|tensor-parallel|nproc[-_]per[-_]node)[= ]+([0-9]+)|(?:^| )-tp[= ]+([0-9]+)"
)
ENOUGH = 2**30


@check(Area.GPU_NODES, Severity.WARNING)
def shared_memory(cluster: Cluster) -> Problems:
    """A model server or a job over several accelerators has too little shared memory.

    Looks at containers that request two or more GPUs or Gaudi cards, each of which has a process of its own: a memory volume
    at /dev/shm with a sizeLimit below 1 GiB, or none at all (64 MiB) where the command line shards one model over them
    (--tensor-parallel-size, --num-shard) or starts a process for each (torchrun's --nproc-per-node). hostIPC is the node's,
    and the first container of a Ray pod gets a memory volume of its own memory's size from KubeRay.

    Why: the processes of one server or job exchange data through /dev/shm; with 64 MiB they stop with "No space left on
    device" or a bus error. A warning: NCCL over NVLink needs little of it.

    Source: https://docs.vllm.ai/en/latest/deployment/k8s.html,
    https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#shared-memory
    """
    for workload, container in _containers(cluster):
        if container.amount(*GPU_RESOURCES, "habana.ai/gaudi") < 2 or at(workload.template.spec, "hostIPC") is True:
            continue
        memory = _shared_memory(workload, container)
        line = " ".join(container.words)
        shards = max((int(a or b) for a, b in _SHARDS.findall(line)), default=0)
        if memory is not None and (memory[1] == 0 or memory[1] >= ENOUGH):
            continue
        if memory is None and (shards < 2 or _given_by_kuberay(workload, container)):
            continue
        if memory is None and _merged_with_presets(workload):
            yield NotChecked(str(workload.ref), f"/dev/shm: {_PRESETS}")
            continue
        field = memory[0] if memory else workload.field(f"{container.field}.volumeMounts")
        problem = (
            f"/dev/shm is limited to {memory[1] / 2**20:.0f} MiB"
            if memory
            else "nothing is mounted at /dev/shm: 64 MiB"
        )
        yield Problem(
            f"container {container.name} works on several accelerators with little shared memory",
            workload.ref,
            (seen(workload.ref, field, memory[1] if memory else None, problem),),
            Remedy(
                "Mount an emptyDir in memory at /dev/shm.",
                command=edit_shared_memory(workload, container),
            ),
        )


def _shared_memory(workload: Workload, container: ContainerSpec) -> tuple[str, float] | None:
    """(field, bytes) of the volume at /dev/shm; 0 bytes where it has no limit, or is no emptyDir."""
    mounted = {text(m, "name") for m in items(container.raw, "volumeMounts") if _is_shm(text(m, "mountPath"))}
    for index, volume in enumerate(items(workload.template.spec, "volumes")):
        if text(volume, "name") in mounted:
            limit = at(volume, "emptyDir", "sizeLimit")
            return workload.field(f"volumes[{index}].emptyDir.sizeLimit"), quantity(limit) if limit is not None else 0.0
    return ("", 0.0) if mounted else None


def _is_shm(path: str) -> bool:
    return path.rstrip("/") in ("/dev/shm", "/dev")
