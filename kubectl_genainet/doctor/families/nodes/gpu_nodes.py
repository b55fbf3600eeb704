"""GPU nodes: what has to run there for the network to work, and what they offer."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import INSTANCE_TYPE, Cluster
from kubectl_genainet.doctor.objects.podspec import NEURON_RESOURCES
from kubectl_genainet.doctor.objects.raw import condition, items, kubectl, mapping, patch, text
from kubectl_genainet.model.finding import Remedy, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.units import quantity
from kubectl_genainet.model.workload_kinds.accelerators import GPU_RESOURCES

_GPU_TYPES = r"(p[2-6](d|de|dn|e|en|-b200)?|g[3-6](s|dn|ad|e|f)?|gr6)\.[0-9a-z]+"
_NEURON_TYPES = r"(inf[12]|trn[12]n?)\.[0-9a-z]+"
_GPU_LABELS = (
    "nvidia.com/gpu.present",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
)
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
    return sum(quantity(v) for k, v in allocatable.items() if k.startswith((*GPU_RESOURCES, *NEURON_RESOURCES)))


def _is_gpu_node(node: KubeObject) -> tuple[str, str] | None:
    """(label, value) that tells an accelerator node, or None."""
    for label in _GPU_LABELS:
        if node.labels.get(label, "false") != "false":
            return label, node.labels[label]
    kind = node.labels.get(INSTANCE_TYPE, "")
    if re.fullmatch(_GPU_TYPES, kind) or re.fullmatch(_NEURON_TYPES, kind):
        return INSTANCE_TYPE, kind
    return None


@check(Area.GPU_NODES, Severity.WARNING, needs=("Node",))
def gpu_advertised(cluster: Cluster) -> Problems:
    """A GPU or Neuron node offers no device.

    Looks at nodes whose labels or instance type tell of accelerators, and at nvidia.com/gpu, amd.com/gpu,
    gpu.intel.com/* and aws.amazon.com/neuron* in status.allocatable.

    Why: the device plugin is missing or not ready there: model servers stay Pending, and their Services have no
    endpoints. A warning: what runs elsewhere is served; capacity is missing.

    Source: https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/
    """
    for node in cluster.nodes:
        mark = _is_gpu_node(node)
        if mark is not None and not _devices(node):
            neuron = re.fullmatch(_NEURON_TYPES, mark[1]) is not None
            name = "aws.amazon.com/neuron" if neuron else "nvidia.com/gpu"
            yield Problem(
                f"an accelerator node ({mark[1]}) that offers no device",
                node.ref,
                (
                    seen(node.ref, f"status.allocatable[{name}]", None, "no accelerator is allocatable"),
                    seen(node.ref, f"metadata.labels[{mark[0]}]", mark[1], f"{mark[0]}={mark[1]}"),
                ),
                Remedy(
                    "Install or repair the device plugin on that node.",
                    command="helm upgrade -i neuron-helm-chart oci://public.ecr.aws/neuron/neuron-helm-chart"
                    if neuron
                    else "helm upgrade -i nvdp nvdp/nvidia-device-plugin -n nvidia-device-plugin --create-namespace",
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
            pod, found = waiting[0]
            yield Problem(
                f"{len(waiting)} of {len(workload.pods)} pods wait for a node",
                workload.ref,
                (
                    seen(
                        pod.ref,
                        "status.conditions[PodScheduled].message",
                        text(found, "message"),
                        text(found, "message"),
                    ),
                ),
                Remedy("See what the scheduler misses.", command=kubectl(pod.ref, "describe")),
            )


def _tolerates(tolerations: list[dict[str, object]], taint: dict[str, object]) -> bool:
    """Whether tolerations cover a taint (API reference, core/v1 Toleration)."""
    for one in tolerations:
        key, effect = text(one, "key"), text(one, "effect")
        if effect not in ("", text(taint, "effect")) or key not in ("", text(taint, "key")):
            continue
        exists = text(one, "operator") == "Exists"
        if (not key and exists) or exists or text(one, "value") == text(taint, "value"):
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
    done = set()
    for node in cluster.nodes:
        if _is_gpu_node(node) is None and not _devices(node):
            continue
        for index, taint in enumerate(items(node.raw, "spec", "taints")):
            if text(taint, "effect") not in ("NoSchedule", "NoExecute") or text(taint, "key").startswith("node."):
                continue
            for daemon in cluster.snapshot.of("DaemonSet", "apps"):
                if not daemon.name.startswith(_NETWORK) or (daemon.ref, text(taint, "key")) in done:
                    continue
                tolerations = items(daemon.raw, "spec", "template", "spec", "tolerations")
                if not _tolerates(tolerations, taint):
                    done.add((daemon.ref, text(taint, "key")))
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
