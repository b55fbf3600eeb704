"""The network devices of a pod, and what it asks for of RDMA."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import NEURON_RESOURCES, OTHER_ACCELERATORS, ContainerSpec
from kubectl_genainet.doctor.objects.raw import at, items, json_in, mapping, strings, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.workload_kinds.accelerators import GPU_RESOURCES

NETWORKS = "k8s.v1.cni.cncf.io/networks"
GKE_INTERFACES = "networking.gke.io/interfaces"
ACCELERATORS = (*GPU_RESOURCES, *NEURON_RESOURCES, *OTHER_ACCELERATORS)
_RDMA = re.compile(r"^rdma/|^mellanox\.com/|rdma|roce|infiniband|(^|[/_-])ib([/_-]|$)", re.I)


def pod_devices(workload: Workload) -> tuple[str, ...] | None:
    """The names of a pod's network devices, as far as its template tells; None where it does not: the node's own
    devices (hostNetwork), or devices that a resource claim brings.

    The CNI's device is eth0. Multus calls its own net1, net2, … unless a name is given (Network Custom Resource
    Definition De-facto Standard, section 4.1.2); GKE's multi-networking names them in networking.gke.io/interfaces.
    """
    if workload.template.host_network or items(workload.template.spec, "resourceClaims"):
        return None
    notes = workload.template.annotations
    return ("eth0", *_multus(notes.get(NETWORKS, "")), *_gke(notes.get(GKE_INTERFACES, "")))


def _multus(value: str) -> list[str]:
    value = value.strip()
    if value.startswith("["):
        entries = _objects(value)
        return [text(e, "interface") or f"net{i}" for i, e in enumerate(entries, start=1)]
    parts = [p.strip() for p in value.split(",") if p.strip()]
    return [p.partition("@")[2] or f"net{i}" for i, p in enumerate(parts, start=1)]


def _gke(value: str) -> list[str]:
    return [name for e in _objects(value) if (name := text(e, "interfaceName"))]


def _objects(value: str) -> list[dict[str, object]]:
    return items(json_in(value))


def rdma_requests(cluster: Cluster, container: ContainerSpec) -> list[str]:
    """The RDMA resources that a container asks for; EFA, which needs other things, is not among them.

    The configuration of the device plugins tells, where it is here, else the name.
    """
    return [name for name in device_requests(container) if _is_rdma(cluster, name)]


def _is_rdma(cluster: Cluster, resource: str) -> bool:
    if resource.startswith("vpc.amazonaws.com/"):
        return False
    told = cluster.rdma.says(resource)
    return bool(_RDMA.search(resource)) if told is None else told


def device_requests(container: ContainerSpec) -> list[str]:
    """The extended resources that a container asks for and that are no accelerators."""
    return [name for name in container.requests if "/" in name and not name.startswith(ACCELERATORS)]


def privileged(container: ContainerSpec) -> bool:
    return at(container.raw, "securityContext", "privileged") is True


def instance_types(workload: Workload) -> list[str]:
    """The instance types that a template asks its node to be of."""
    spec, label = workload.template.spec, "node.kubernetes.io/instance-type"
    terms = items(spec, *_REQUIRED)
    expressions = [e for term in terms for e in items(term, "matchExpressions") if text(e, "key") == label]
    of_affinity = [v for e in expressions if text(e, "operator") == "In" for v in strings(e, "values")]
    own = text(spec, "nodeSelector", label)
    return [own, *of_affinity] if own else of_affinity


_REQUIRED = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")


def tells_its_devices(node: KubeObject) -> bool:
    """Whether a node's status says what it offers: one that people wrote, to label it, has none."""
    return bool(mapping(node.raw, "status", "allocatable"))
