"""SR-IOV and secondary networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, json_in, kubectl, mapping, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.devices import tells_its_devices
from kubectl_genainet.doctor.predicates.edits import edit_resources
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.units import quantity

NETWORKS = "k8s.v1.cni.cncf.io/networks"
RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
_PREFIXES = ("intel.com/", "openshift.io/", "nvidia.com/sriov", "nvidia.com/rdma", "mellanox.com/", "rdma/", "sriov")


def networks(workload: Workload) -> list[tuple[str, str]]:
    """(namespace, name) of the secondary networks that a pod asks for; JSON or comma-separated [NS/]NAME[@IF].

    Source: Kubernetes Network Custom Resource Definition De-facto Standard, section 4.1.
    """
    value = workload.template.annotations.get(NETWORKS, "").strip()
    if value.startswith("["):
        return [(text(e, "namespace") or workload.namespace, text(e, "name")) for e in items(json_in(value))]
    out = []
    for part in filter(None, (p.strip() for p in value.split(","))):
        namespace, _, name = part.partition("@")[0].rpartition("/")
        out.append((namespace or workload.namespace, name))
    return out


def _sriov_requests(cluster: Cluster, workload: Workload) -> list[tuple[str, str]]:
    """(field, resource) of requests for virtual functions."""
    return [
        (workload.field(f"{c.field}.resources.requests[{name}]"), name)
        for c in workload.containers
        for name in c.requests
        if cluster.rdma.says(name)
        or (
            any(name.startswith(p) for p in _PREFIXES)
            and (
                "sriov" in name
                or "vf" in name
                or name.startswith(("rdma/", "mellanox.com/", "nvidia.com/rdma", "openshift.io/"))
            )
        )
    ]


@check(Area.SRIOV, Severity.INFO, needs=("Pod",))
def sriov_invisible(cluster: Cluster) -> Problems:
    """A pod has traffic that kernel probes cannot see.

    Looks at requests for virtual functions (SR-IOV, RDMA) and the annotation k8s.v1.cni.cncf.io/networks.

    Why: virtual functions bypass the node's kernel: no probe, no kube-proxy rule and no NetworkPolicy sees their
    packets. A trace of that traffic is empty, which does not mean that there is none. Information: nothing is
    wrong; it says what can't be seen.

    Source: https://github.com/k8snetworkplumbingwg/sriov-network-device-plugin
    """
    for workload in cluster.workloads:
        if not cluster.in_scope(workload.namespace):
            continue
        requests, wanted = _sriov_requests(cluster, workload), networks(workload)
        if not requests and not wanted:
            continue
        evidence = [seen(workload.ref, field, name, f"requests {name}") for field, name in requests]
        if wanted:
            value = workload.template.annotations[NETWORKS]
            names = ", ".join(f"{ns}/{name}" for ns, name in wanted)
            evidence.append(
                seen(workload.ref, workload.annotation_field(NETWORKS), value, f"secondary networks {names}")
            )
        yield Problem(
            "its secondary networks cannot be seen by kernel probes",
            workload.ref,
            tuple(evidence),
            Remedy(
                "Nothing to change. Watch these interfaces with the device's own counters; put in its name for DEVICE.",
                command="ethtool -S DEVICE   # on the node, for the physical function",
            ),
        )


def _request(workload: Workload, resource: str, count: int) -> str:
    """Lets the container that has some of a resource, or else the first, request so many."""
    container = next((c for c in workload.containers if c.amount(resource)), workload.containers[0])
    amounts = {resource: str(count)}
    return edit_resources(workload, container, limits=amounts, requests=amounts)


def _with_prefix(workload: Workload, resource: str) -> str:
    """A resource as a workload requests it: the prefix of one that an operator's object names is the operator's own."""
    requested = (name for c in workload.containers for name in c.requests)
    return resource if "/" in resource else next((n for n in requested if n.endswith(f"/{resource}")), resource)


def _too_few(workload: Workload, resources: dict[tuple[str, str], str]) -> Problems:
    """A pod with more networks of a resource than devices: one of them is left without."""
    wanted = Counter(_with_prefix(workload, resources.get(network, "")) for network in networks(workload))
    for resource, count in wanted.items():
        amount = sum(quantity(c.requests.get(resource)) for c in workload.containers)
        if resource and 0 < amount < count:
            field = workload.annotation_field(NETWORKS)
            yield Problem(
                f"{count} of its networks need {resource}, and it requests {amount:g}",
                workload.ref,
                (
                    seen(
                        workload.ref, field, workload.template.annotations[NETWORKS], f"{count} networks of {resource}"
                    ),
                ),
                Remedy(
                    "Request one device for each network.",
                    command=_request(workload, resource, count),
                ),
            )


@check(Area.SRIOV, Severity.ERROR, needs=("Pod", "NetworkAttachmentDefinition"))
def sriov_network(cluster: Cluster) -> Problems:
    """A pod asks for a secondary network that does not exist, or without the device it needs.

    Looks at the annotation k8s.v1.cni.cncf.io/networks, the NetworkAttachmentDefinitions and their resourceName,
    the pod's requests and what the nodes have. A SriovNetwork stands for the definition that its operator makes of it: its
    resourceName counts too.

    Why: the pod is stuck in ContainerCreating (no such network), Pending (no node has the resource), or gets a
    network without a virtual function. An error: the pod does not start, or has no device.

    Source: https://github.com/k8snetworkplumbingwg/multus-cni/blob/master/docs/how-to-use.md
    """
    definitions = {(d.namespace, d.name): d for d in cluster.snapshot.of("NetworkAttachmentDefinition")}
    made = {
        (text(n.raw, "spec", "networkNamespace") or n.namespace, n.name): text(n.raw, "spec", "resourceName")
        for kind in ("SriovNetwork", "SriovIBNetwork", "OVSNetwork")
        for n in cluster.snapshot.of(kind)
    }
    resources = made | {key: d.annotations.get(RESOURCE, "") for key, d in definitions.items()}
    for workload in cluster.workloads:
        if not cluster.in_scope(workload.namespace):
            continue
        field = workload.annotation_field(NETWORKS)
        yield from _too_few(workload, resources)
        for namespace, name in networks(workload):
            definition = definitions.get((namespace, name))
            if definition is None and (namespace, name) in made:
                continue
            if definition is None and (elsewhere := cluster.partial("NetworkAttachmentDefinition", namespace)):
                yield NotChecked(str(workload.ref), f"network {namespace}/{name} is not here: {elsewhere}")
                continue
            if definition is None:
                yield Problem(
                    f"its network {namespace}/{name} does not exist",
                    workload.ref,
                    (seen(workload.ref, field, name, f"no NetworkAttachmentDefinition {namespace}/{name}"),),
                    Remedy("Name an existing one.", command="kubectl get network-attachment-definitions -A"),
                )
                continue
            yield from _without_device(cluster, workload, definition, name)


def _without_device(cluster: Cluster, workload: Workload, definition: KubeObject, name: str) -> Iterator[Problem]:
    """The network's device: whether the pod requests one, and a node has one."""
    network = f"{definition.namespace}/{definition.name}"
    resource = definition.annotations.get(RESOURCE, "")
    if not resource:
        return
    needs = seen(definition.ref, f"metadata.annotations[{RESOURCE}]", resource, f"needs {resource}")
    if not any(resource in c.requests for c in workload.containers):
        yield Problem(
            f"network {network} needs {resource}, which it does not request",
            workload.ref,
            (needs, seen(workload.ref, workload.annotation_field(NETWORKS), name, "and no container requests it")),
            Remedy("Request one device for each such network.", command=_request(workload, resource, 1)),
        )
    elif (telling := [n for n in cluster.nodes if tells_its_devices(n)]) and not any(
        quantity(mapping(n.raw, "status", "allocatable").get(resource)) for n in telling
    ):
        yield Problem(
            f"no node has {resource}",
            workload.ref,
            (seen(definition.ref, f"metadata.annotations[{RESOURCE}]", resource, f"no node has {resource}"),),
            Remedy("Look at the SR-IOV device plugin.", command=kubectl(definition.ref, "describe")),
        )
