"""GPU nodes: what has to run there for the network to work, and what they offer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import INSTANCE_TYPE, Cluster
from kubectl_genainet.doctor.objects.instance_types import GPUS, NEURON_DEVICES
from kubectl_genainet.doctor.objects.podspec import NEURON_RESOURCES, OTHER_ACCELERATORS
from kubectl_genainet.doctor.objects.raw import condition, items, kubectl, mapping, patch, text
from kubectl_genainet.doctor.predicates.claims import GROUP as CLAIMS
from kubectl_genainet.doctor.predicates.claims import is_accelerator
from kubectl_genainet.doctor.predicates.devices import tells_its_devices
from kubectl_genainet.model.finding import Evidence, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.units import quantity, whole_number
from kubectl_genainet.model.workload_kinds.accelerators import GPU_RESOURCES


@dataclass(frozen=True, slots=True)
class _Accelerator:
    """How nodes with a kind of accelerator are known (labels, EC2 instance types), what they offer, who makes them offer it."""

    resource: str
    types: re.Pattern[str] | None
    labels: tuple[str, ...]
    install: str


_NVIDIA = _Accelerator(
    "nvidia.com/gpu",
    re.compile(r"(p[2-6](d|de|dn|e|en|-b200)?|g[3-6](s|dn|ad|e|f)?|gr6)\.[0-9a-z]+"),
    (
        "nvidia.com/gpu.present",
        "cloud.google.com/gke-accelerator",
        "k8s.amazonaws.com/accelerator",
        "accelerator",
        "karpenter.k8s.aws/instance-gpu-name",
    ),
    "helm upgrade -i nvdp nvdp/nvidia-device-plugin -n nvidia-device-plugin --create-namespace",
)
_NEURON = _Accelerator(
    "aws.amazon.com/neuron",
    re.compile(r"(inf[12]|trn[12]n?)\.[0-9a-z]+"),
    (),
    "helm upgrade -i neuron-helm-chart oci://public.ecr.aws/neuron/neuron-helm-chart",
)
_GAUDI = _Accelerator("habana.ai/gaudi", re.compile(r"dl1\.[0-9a-z]+"), ("habana.ai/gaudi.present",), "")
_TPU = _Accelerator("google.com/tpu", None, ("cloud.google.com/gke-tpu-accelerator",), "")
_GKE_COUNT = "cloud.google.com/gke-accelerator-count"
# DaemonSets without which a node's network does not work.
_NETWORK = (
    "aws-node",
    "calico-node",
    "cilium",
    "anetd",
    "kube-flannel",
    "antrea-agent",
    "weave-net",
    "kindnet",
    "kube-router",
    "kube-proxy",
    "node-local-dns",
    "nodelocaldns",
    "ztunnel",
    "istio-cni",
    "aws-efa",
)


def _devices(node: KubeObject) -> float:
    allocatable = mapping(node.raw, "status", "allocatable")
    offered = (*GPU_RESOURCES, *NEURON_RESOURCES, *OTHER_ACCELERATORS)
    return sum(quantity(v) for k, v in allocatable.items() if k.startswith(offered))


def _accelerator(node: KubeObject) -> tuple[_Accelerator, str] | None:
    """The accelerator that a node has, with the label that tells; None for a node without."""
    for accelerator in (_TPU, _GAUDI, _NVIDIA, _NEURON):
        for label in accelerator.labels:
            if node.labels.get(label, "false") != "false":
                return accelerator, label
        if accelerator.types is not None and accelerator.types.fullmatch(node.labels.get(INSTANCE_TYPE, "")):
            return accelerator, INSTANCE_TYPE
    return None


def _should_have(node: KubeObject, resource: str) -> tuple[int, str, str]:
    """How many devices of a resource a node has, as the plugin that counted them, a label or its type tells: the largest of
    these, with the field and what stands there."""
    label = node.labels.get(_GKE_COUNT, "")
    kind = node.labels.get(INSTANCE_TYPE, "")
    capacity = int(quantity(mapping(node.raw, "status", "capacity").get(resource, 0)))
    told = [(capacity, f"status.capacity[{resource}]", str(capacity))]
    if resource == _NVIDIA.resource:
        told += [(whole_number(label) or 0, f"metadata.labels[{_GKE_COUNT}]", label)]
        told += [(GPUS.get(kind, 0), f"metadata.labels[{INSTANCE_TYPE}]", kind)]
    if resource == _NEURON.resource:
        told += [(NEURON_DEVICES.get(kind, 0), f"metadata.labels[{INSTANCE_TYPE}]", kind)]
    return max(told, key=lambda one: one[0])


def _missing(node: KubeObject, resource: str) -> tuple[Evidence, ...]:
    """What shows that a node offers fewer devices than it has. One that splits its GPUs (MIG) offers them in other ways."""
    allocatable = mapping(node.raw, "status", "allocatable")
    offered = int(quantity(allocatable.get(resource, 0)))
    has, field, value = _should_have(node, resource)
    split = any(k.startswith(("nvidia.com/mig-", f"{resource}.")) and quantity(v) for k, v in allocatable.items())
    if not 0 < offered < has or split:
        return ()
    return (
        seen(node.ref, f"status.allocatable[{resource}]", offered, f"{offered} of its {has} devices are allocatable"),
        seen(node.ref, field, value, f"it has {has}"),
    )


def _by_claims(cluster: Cluster) -> set[str]:
    """The nodes whose accelerators are given out by resource claims: a driver's slices have them."""
    slices = cluster.snapshot.of("ResourceSlice", CLAIMS)
    return {text(s.raw, "spec", "nodeName") for s in slices if is_accelerator(text(s.raw, "spec", "driver"))}


@check(Area.GPU_NODES, Severity.WARNING, needs=("Node",))
def gpu_advertised(cluster: Cluster) -> Problems:
    """An accelerator node offers no device, or fewer than it has.

    Looks at nodes whose labels or instance type tell of GPUs, TPUs, Gaudi or Neuron, and at what of these is in
    status.allocatable (nvidia.com/gpu, amd.com/gpu, gpu.intel.com/*, google.com/tpu, habana.ai/gaudi, aws.amazon.com/neuron*),
    against status.capacity, the number that EC2's instance type has, and GKE's label for it. GPUs that are split (MIG) or
    given out by resource claims are left out.

    Why: the device plugin is missing or not ready there, or has taken a device away that is broken: model servers that need
    all devices of a node stay Pending, and their Services have no endpoints. A warning: what runs elsewhere is served;
    capacity is missing.

    Source: https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/,
    https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/,
    https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html
    """
    claimed = _by_claims(cluster)
    for node in cluster.nodes:
        known = _accelerator(node)
        if known is None or node.name in claimed or not tells_its_devices(node):
            continue
        accelerator, label = known
        value = node.labels[label]
        if not _devices(node):
            yield Problem(
                f"an accelerator node ({value}) that offers no device",
                node.ref,
                (
                    seen(
                        node.ref, f"status.allocatable[{accelerator.resource}]", None, "no accelerator is allocatable"
                    ),
                    seen(node.ref, f"metadata.labels[{label}]", value, f"{label}={value}"),
                ),
                Remedy("Install or repair the device plugin on that node.", command=accelerator.install),
            )
        elif evidence := _missing(node, accelerator.resource):
            yield Problem(
                f"an accelerator node ({value}): {evidence[0].statement}",
                node.ref,
                evidence,
                Remedy(
                    "See why in the device plugin's log and the node's kernel log (Xid); replace a node with a broken device.",
                    command=kubectl(node.ref, "describe"),
                ),
            )


@check(Area.GPU_NODES, Severity.ERROR, needs=("Pod",))
def gpu_pending(cluster: Cluster) -> Problems:
    """A model server waits for an accelerator.

    Looks at Pending pods with accelerator requests whose PodScheduled condition is False; one finding a workload.

    Why: its Service has fewer endpoints than it should, and the rest carry the load. An error: users wait for a
    server that is not there.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/
    """
    for workload in cluster.workloads:
        if not cluster.in_scope(workload.namespace) or not workload.template.accelerated:
            continue
        waiting = [
            (p, c)
            for p in workload.pods
            if (c := condition(p.obj.raw, "PodScheduled")).get("status") == "False" and not p.node
        ]
        if waiting:
            pod, reason = waiting[0]
            yield Problem(
                f"{len(waiting)} of {len(workload.pods)} pods wait for a node",
                workload.ref,
                (
                    seen(
                        pod.ref,
                        "status.conditions[PodScheduled].message",
                        text(reason, "message"),
                        text(reason, "message"),
                    ),
                ),
                Remedy("See what the scheduler misses.", command=kubectl(pod.ref, "describe")),
            )


def _tolerates(tolerations: list[dict[str, object]], taint: dict[str, object]) -> bool:
    """Whether tolerations cover a taint (API reference, core/v1 Toleration)."""
    for toleration in tolerations:
        key, effect = text(toleration, "key"), text(toleration, "effect")
        if effect not in ("", text(taint, "effect")) or key not in ("", text(taint, "key")):
            continue
        exists = text(toleration, "operator") == "Exists"
        if (not key and exists) or exists or text(toleration, "value") == text(taint, "value"):
            return True
    return False


@check(Area.GPU_NODES, Severity.ERROR, needs=("Node", "DaemonSet"))
def gpu_node_taints(cluster: Cluster) -> Problems:
    """A network DaemonSet does not tolerate the taints of accelerator nodes.

    Looks at the tolerations of CNIs, kube-proxy, NodeLocal DNSCache, ztunnel and the EFA plugin against the NoSchedule
    and NoExecute taints of accelerator nodes.

    Why: the node has GPUs and no network agent, no Service rules or no DNS cache: the pods that tolerate the taint
    start there and cannot talk. An error: the pods of those nodes can't reach Services, or the cluster's names.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    """
    reported = set()
    for node in cluster.nodes:
        if _accelerator(node) is None and not _devices(node):
            continue
        for index, taint in enumerate(items(node.raw, "spec", "taints")):
            if text(taint, "effect") not in ("NoSchedule", "NoExecute") or text(taint, "key").startswith("node."):
                continue
            for daemon in cluster.snapshot.of("DaemonSet", "apps"):
                if not daemon.name.startswith(_NETWORK) or (daemon.ref, text(taint, "key")) in reported:
                    continue
                tolerations = items(daemon.raw, "spec", "template", "spec", "tolerations")
                if not _tolerates(tolerations, taint):
                    reported.add((daemon.ref, text(taint, "key")))
                    shown = f"{text(taint, 'key')}={text(taint, 'value')}:{text(taint, 'effect')}"
                    yield Problem(
                        f"it does not run on accelerator nodes: {shown} is not tolerated",
                        daemon.ref,
                        (
                            seen(
                                daemon.ref, "spec.template.spec.tolerations", tolerations, f"no toleration of {shown}"
                            ),
                            seen(node.ref, f"spec.taints[{index}]", shown, f"{node.ref} has it"),
                        ),
                        Remedy(
                            "Let it run on every node.",
                            command=patch(
                                daemon.ref,
                                {"spec": {"template": {"spec": {"tolerations": [{"operator": "Exists"}]}}}},
                            ),
                        ),
                    )
