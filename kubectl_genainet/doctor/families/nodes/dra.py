"""Dynamic resource allocation: claims of network devices, classes, and the slices that serve them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, items, mapping, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.claims import (
    GROUP,
    count,
    is_accelerator,
    is_network,
    least,
    near_accelerators,
    options,
    requests,
)
from kubectl_genainet.doctor.predicates.edits import edit
from kubectl_genainet.model.finding import Evidence, NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.workload_kinds.accelerators import GPU_RESOURCES

_DRIVER = re.compile(r"device\.driver\s*==\s*['\"]([^'\"]+)['\"]")


def _claims(cluster: Cluster) -> Iterator[tuple[KubeObject, dict[str, Any], str]]:
    """(object, spec of the claim, path of that spec) of claims and claim templates in scope."""
    for claim in cluster.snapshot.of("ResourceClaim", GROUP):
        if cluster.in_scope(claim.namespace):
            yield claim, mapping(claim.raw, "spec"), "spec"
    for template in cluster.snapshot.of("ResourceClaimTemplate", GROUP):
        if cluster.in_scope(template.namespace):
            yield template, mapping(template.raw, "spec", "spec"), "spec.spec"


def _drivers(device_class: KubeObject) -> set[str]:
    """The drivers that a class's selectors name; none where they name no driver."""
    selectors = items(device_class.raw, "spec", "selectors")
    return {d for s in selectors for d in _DRIVER.findall(text(s, "cel", "expression"))}


def _unserved(device_class: KubeObject | None, served: set[str]) -> bool:
    """Whether a class names drivers, and no slice is of one of them."""
    drivers = _drivers(device_class) if device_class is not None else set()
    return bool(drivers) and not drivers & served


@check(Area.SRIOV, Severity.ERROR)
def dra_device_class(cluster: Cluster) -> Problems:
    """A resource claim names a device class that does not exist, or that no node serves.

    Looks at deviceClassName in ResourceClaims and ResourceClaimTemplates, at the DeviceClasses, at the driver that their
    selectors name, and at the drivers of the ResourceSlices. Of a request's alternatives (firstAvailable) each class has to
    exist, and one has to be served. An error: the pods stay Pending.

    Why: the scheduler finds no device: a class without slices means that its driver (DRANET, an SR-IOV or a GPU driver)
    does not run, or found nothing on the nodes.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/
    """
    classes = {c.name: c for c in cluster.snapshot.of("DeviceClass", GROUP)}
    served = {text(s.raw, "spec", "driver") for s in cluster.snapshot.of("ResourceSlice", GROUP)}
    for claim, spec, path in _claims(cluster):
        for request, name in requests(spec):
            device_class, elsewhere = classes.get(name), cluster.partial("DeviceClass")
            if device_class is None and elsewhere:
                yield NotChecked(str(claim.ref), f"DeviceClass {name} is not here: {elsewhere}")
                continue
            drivers = _drivers(device_class) if device_class is not None else set()
            alternatives = [classes.get(c) for r, c in requests(spec) if r == request]
            unserved = all(_unserved(c, served) for c in alternatives) and not cluster.partial("ResourceSlice")
            field = f"{path}.devices.requests[{request}].deviceClassName"
            if device_class is None:
                problem = f"there is no DeviceClass {name}"
                evidence = [seen(claim.ref, field, name, problem)]
            elif unserved:
                problem = f"no ResourceSlice is of driver {', '.join(sorted(drivers))}"
                evidence = [
                    seen(claim.ref, field, name, problem),
                    seen(device_class.ref, "spec.selectors", sorted(drivers), problem),
                ]
            else:
                continue
            yield Problem(
                f"request {request} can't be met: {problem}",
                claim.ref,
                tuple(evidence),
                Remedy(
                    "Name an existing class, or repair the driver that serves it.",
                    command="kubectl get deviceclasses,resourceslices",
                ),
            )


def _claims_of(cluster: Cluster, workload: Workload) -> Iterator[tuple[str, dict[str, Any]]]:
    """(field, claim spec) of the claims that a pod template names."""
    for index, entry in enumerate(items(workload.template.spec, "resourceClaims")):
        template, claim = text(entry, "resourceClaimTemplateName"), text(entry, "resourceClaimName")
        kind, name = ("ResourceClaimTemplate", template) if template else ("ResourceClaim", claim)
        for obj in cluster.snapshot.of(kind, GROUP):
            if (obj.namespace, obj.name) == (workload.namespace, name):
                spec = mapping(obj.raw, "spec", "spec") if template else mapping(obj.raw, "spec")
                yield workload.field(f"resourceClaims[{index}]"), spec


# What a selector asks for that tells one device of a node from the others; kind, driver and abilities are alike.
_WHICH = re.compile(r"address|id\b|index|interface|ip\b|mac\b|name|numa|pci|rail|root|switch", re.I)


def _chosen(spec: dict[str, Any]) -> bool:
    """Whether every request for a network device names which: by a selector, or as all that a node has."""
    network = [o for _, o in options(spec) if is_network(text(o, "deviceClassName"))]
    return all(text(o, "allocationMode") == "All" or any(map(_tells_which, items(o, "selectors"))) for o in network)


def _tells_which(selector: dict[str, Any]) -> bool:
    # A driver's name stands before each of its attributes: device.attributes["dra.net"].rdma
    return _WHICH.search(re.sub(r'\["[^"]*"\]', "", text(selector, "cel", "expression"))) is not None


def _several_network_devices(cluster: Cluster) -> tuple[Evidence, ...]:
    """What shows that a node has several network devices, of which a claim may get one that is far from its GPUs."""
    slices = cluster.snapshot.of("ResourceSlice", GROUP) if cluster.extent.of_a_cluster else ()
    for published in slices:
        number = len(items(published.raw, "spec", "devices"))
        if number > 1 and is_network(text(published.raw, "spec", "driver")):
            node = text(published.raw, "spec", "nodeName") or "a node"
            return (seen(published.ref, "spec.devices", number, f"{node} has {number} network devices"),)
    return ()


def _claims_several(claims: list[tuple[str, dict[str, Any]]]) -> bool:
    """Whether some claim asks for more than one network device of a node."""
    asked = (option for _, spec in claims for _, option in options(spec))
    return any(is_network(text(option, "deviceClassName")) and count(option) > 1 for option in asked)


def _gpus(workload: Workload) -> int:
    """How many GPUs a pod has from a device plugin."""
    return sum(int(c.amount(*GPU_RESOURCES)) for c in workload.containers)


@check(Area.SRIOV, Severity.WARNING)
def dra_nic_and_gpu(cluster: Cluster) -> Problems:
    """A pod claims a network device that need not be near its GPUs.

    Looks at pods with GPUs that claim a network device (DRANET, SR-IOV, RDMA): the GPUs come from a device plugin, or
    from a claim of their own, or no constraint of the common claim (matchAttribute on the PCIe root, the NUMA node; for all
    requests, or naming both) ties the two together. A warning where the claim asks for several network devices, or
    ResourceSlices show a node with several: the pod starts, and is slow on some nodes. Information where the one that it gets
    may be all that a node has, and where it claims as many as it has GPUs: then each GPU may have its own.

    Why: GPUDirect RDMA runs between devices below one PCIe root; across roots or sockets each transfer goes through the
    CPU's interconnect, at a part of the bandwidth.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/,
    https://github.com/google/dranet
    """
    several = _several_network_devices(cluster)
    for workload in cluster.workloads_with("resourceClaims"):
        if not cluster.in_scope(workload.namespace):
            continue
        claims = list(_claims_of(cluster, workload))
        far = [
            (f, s)
            for f, s in claims
            if any(is_network(c) for _, c in requests(s)) and not _chosen(s) and not near_accelerators(s)
        ]
        gpus = _gpus(workload) + sum(least(s, is_accelerator) for _, s in claims)
        if not far or not (gpus or workload.template.accelerated):
            continue
        field, spec = far[0]
        together = any(is_accelerator(c) for _, c in requests(spec))
        problem = "no constraint ties it to the GPUs" if together else "the GPUs are not in the same claim"
        many = 1 < gpus <= sum(least(s, is_network) for _, s in claims)
        yield Problem(
            f"its network device need not be near its GPUs: {problem}",
            workload.ref,
            (seen(workload.ref, field, at(spec, "devices", "constraints"), problem), *several),
            Remedy(
                "Claim both in one ResourceClaimTemplate, with a constraint matchAttribute on the PCIe root.",
                command=edit(workload),
            ),
            severity=None if (several or _claims_several(claims)) and not many else Severity.INFO,
        )


@check(Area.SRIOV, Severity.WARNING)
def dra_claim_missing(cluster: Cluster) -> Problems:
    """A pod or a container names a resource claim that is not there, or no container names that of its pod.

    Looks at spec.resourceClaims, at resources.claims of the containers, and at the ResourceClaims and
    ResourceClaimTemplates of the namespace; a ComputeDomain makes the template that it names. A container has to name a
    claim of accelerators; it need not name one of a network device, which the pod's network namespace gets.

    Why: without the claim the pod is not scheduled; a device that no container names is allocated and not there. A
    warning: the pod waits, or runs without the device. An error where a container names a claim that is not in
    spec.resourceClaims: the API server refuses the pod.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#PodSpec,
    https://github.com/google/dranet
    """
    made_by_domains = {
        (domain.namespace, text(domain.raw, "spec", "channel", "resourceClaimTemplate", "name"))
        for domain in cluster.snapshot.of("ComputeDomain", "resource.nvidia.com")
    }
    for workload in cluster.workloads:
        entries = items(workload.template.spec, "resourceClaims") if cluster.in_scope(workload.namespace) else []
        specs = dict(_claims_of(cluster, workload)) if entries else {}
        yield from _undeclared(cluster, workload)
        used = {text(c, "name") for k in workload.template.all_containers for c in items(k.raw, "resources", "claims")}
        for index, entry in enumerate(entries):
            field, name = workload.field(f"resourceClaims[{index}]"), text(entry, "name")
            template, claim = text(entry, "resourceClaimTemplateName"), text(entry, "resourceClaimName")
            kind, wanted = ("ResourceClaimTemplate", template) if template else ("ResourceClaim", claim)
            exists = (workload.namespace, wanted) in made_by_domains or any(
                (o.namespace, o.name) == (workload.namespace, wanted) for o in cluster.snapshot.of(kind, GROUP)
            )
            elsewhere = cluster.partial(kind, workload.namespace)
            if wanted and not exists and not elsewhere:
                problem = f"there is no {kind} {workload.namespace}/{wanted}"
            elif name not in used and any(is_accelerator(c) for _, c in requests(specs.get(field, {}))):
                problem = f"no container names the claim {name}"
            else:
                continue
            yield Problem(
                problem,
                workload.ref,
                (seen(workload.ref, field, wanted, problem),),
                Remedy("Name it.", command=edit(workload)),
            )


def _undeclared(cluster: Cluster, workload: Workload) -> Problems:
    """The claims that a workload's containers name and its pod does not declare."""
    declared = {text(e, "name") for e in items(workload.template.spec, "resourceClaims")}
    for container in workload.template.all_containers if cluster.in_scope(workload.namespace) else ():
        for index, claim in enumerate(items(container.raw, "resources", "claims")):
            name = text(claim, "name")
            if name in declared:
                continue
            if workload.container is not None or workload.ref.kind == "LLMInferenceService":
                yield NotChecked(str(workload.ref), f"its operator may add the claim {name} to the pod")
                continue
            field = workload.field(f"{container.field}.resources.claims[{index}].name")
            problem = f"spec.resourceClaims has {', '.join(sorted(declared)) or 'nothing'}"
            yield Problem(
                f"container {container.name} names the claim {name}, which the pod does not declare",
                workload.ref,
                (seen(workload.ref, field, name, problem),),
                Remedy("Declare it in spec.resourceClaims, or name one that is there.", command=edit(workload)),
                severity=Severity.ERROR,
            )
