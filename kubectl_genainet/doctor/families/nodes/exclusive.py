"""RDMA devices that pods have to themselves, or share without meaning to."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, json_in, mapping, patch, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.claims import GROUP, is_network, requests
from kubectl_genainet.doctor.predicates.edits import edit
from kubectl_genainet.doctor.predicates.replicas import replicas
from kubectl_genainet.model.finding import ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject


@check(Area.SRIOV, Severity.ERROR)
def rdma_claim_shared(cluster: Cluster) -> Problems:
    """Several pods name the same claim of a network device.

    Looks at ResourceClaims (not templates) of network devices, and at the workloads that name them: more than one, or one
    of several replicas. An error: only one of the pods gets the device.

    Why: the device moves into a pod's network namespace, and can be in one only. The second pod stays in
    ContainerCreating, or starts without its NIC. A ResourceClaimTemplate makes a claim for each pod.

    Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/,
    https://github.com/google/dranet
    """
    users: dict[tuple[str, str], list[Workload]] = defaultdict(list)
    for workload in cluster.workloads_with("resourceClaims"):
        for entry in items(workload.template.spec, "resourceClaims"):
            if text(entry, "resourceClaimName"):
                users[(workload.namespace, text(entry, "resourceClaimName"))].append(workload)
    for claim in cluster.snapshot.of("ResourceClaim", GROUP):
        sharing = users.get((claim.namespace, claim.name), [])
        network = [c for _, c in requests(mapping(claim.raw, "spec")) if is_network(c)]
        pods = sum(max(len(w.pods), replicas(cluster, w)) for w in sharing)
        if not cluster.in_scope(claim.namespace) or not network or pods < 2:
            continue
        named = ", ".join(dict.fromkeys(str(w.ref) for w in sharing))
        yield Problem(
            f"{pods} pods of {named} name it, and a network device is one pod's",
            claim.ref,
            (
                seen(claim.ref, "spec.devices.requests", network, f"it asks for {', '.join(network)}"),
                *(
                    seen(w.ref, w.field("resourceClaims"), claim.name, f"{w.ref} names it by resourceClaimName")
                    for w in sharing[:3]
                ),
            ),
            Remedy("Name a ResourceClaimTemplate in resourceClaimTemplateName.", command=edit(sharing[0])),
        )


def _plugins(definition: KubeObject) -> list[dict[str, Any]]:
    """The CNI plugins of a NetworkAttachmentDefinition."""
    config = json_in(text(definition.raw, "spec", "config"))
    return items(config, "plugins") or ([config] if isinstance(config, dict) else [])


def _rdma_plugin(network: KubeObject) -> str:
    """The field that puts the plugin `rdma` into a network's chain; empty where none does. A SriovNetwork names what comes
    behind its own plugin in metaPlugins, from which the operator makes the definition."""
    if network.kind == "SriovNetwork":
        more = json_in(f"[{text(network.raw, 'spec', 'metaPlugins')}]")
        return "spec.metaPlugins" if any(text(p, "type") == "rdma" for p in items(more)) else ""
    index = next((i for i, p in enumerate(_plugins(network)) if text(p, "type") == "rdma"), None)
    return "" if index is None else f"spec.config.plugins[{index}].type"


def _mode(cluster: Cluster) -> tuple[ObjectRef, str, str] | None:
    """(object, field, mode) of the RDMA subsystem as SriovNetworkPoolConfigs set it; None where none does."""
    for config in cluster.snapshot.of("SriovNetworkPoolConfig"):
        if text(config.raw, "spec", "rdmaMode"):
            return config.ref, "spec.rdmaMode", text(config.raw, "spec", "rdmaMode")
    return None


@check(Area.SRIOV, Severity.ERROR)
def rdma_exclusive(cluster: Cluster) -> Problems:
    """A network moves RDMA devices into pods, and the nodes' RDMA subsystem is shared.

    Looks at NetworkAttachmentDefinitions with the plugin `rdma` in their chain and SriovNetworks with it in metaPlugins, and
    at rdmaMode of SriovNetworkPoolConfigs. An error: pods on the network stay in ContainerCreating.

    Why: in the mode `shared` an RDMA device belongs to all network namespaces at once, and can't be moved; the plugin
    refuses. In `exclusive` each pod sees its own device and no other's.

    Source: https://github.com/k8snetworkplumbingwg/rdma-cni#readme, man 8 rdma-system
    """
    mode = _mode(cluster)
    if mode is None or mode[2] != "shared":
        return
    networks = (n for kind in ("NetworkAttachmentDefinition", "SriovNetwork") for n in cluster.snapshot.of(kind))
    for definition in networks:
        in_scope = cluster.in_scope(text(definition.raw, "spec", "networkNamespace") or definition.namespace)
        field = _rdma_plugin(definition) if in_scope else ""
        if not field:
            continue
        yield Problem(
            "it moves RDMA devices into pods, and the nodes share them",
            definition.ref,
            (
                seen(definition.ref, field, "rdma", "the plugin rdma moves the device into the pod"),
                seen(mode[0], mode[1], mode[2], f"{mode[0]} makes the nodes' RDMA subsystem shared"),
            ),
            Remedy(
                "Set rdmaMode to exclusive (the nodes are drained for it).",
                command=patch(mode[0], {"spec": {"rdmaMode": "exclusive"}}),
            ),
        )
