"""Service meshes: which are installed, and how a workload takes part in one."""

from __future__ import annotations

from enum import Enum

from kubectl_genainet.doctor.check import seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import annotation, items, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.finding import Evidence
from kubectl_genainet.policy.matching.mesh import AMBIENT_LABEL, HBONE, LINKERD_INBOUND

__all__ = [
    "AMBIENT_LABEL",
    "HBONE",
    "LINKERD_INBOUND",
    "PROXY_PORTS",
    "XDS",
    "Mesh",
    "has_live_pods",
    "installed",
    "mesh_of",
    "no_mesh",
    "opted_out",
]

XDS = 15012
PROXY_PORTS = (15001, 15006, 4140, LINKERD_INBOUND)  # where sidecars' redirects lead


class Mesh(Enum):
    """How a workload takes part in a mesh."""

    ISTIO_SIDECAR = "Istio sidecar"
    LINKERD = "Linkerd proxy"
    AMBIENT = "Istio Ambient"
    NONE = ""


def installed(cluster: Cluster) -> list[str]:
    """The meshes whose controllers are installed."""
    meshes = []
    ambient = cluster.daemonset("ztunnel")
    if cluster.running("istiod") is not None or ambient:
        meshes.append("Istio Ambient" if ambient else "Istio")
    if cluster.running("linkerd-destination") is not None:
        meshes.append("Linkerd")
    return meshes


def no_mesh(cluster: Cluster) -> str:
    if installed(cluster) or any(mesh_of(cluster, w)[0] is not Mesh.NONE for w, _ in cluster.genai_workloads):
        return ""
    return "no service mesh is installed"


def has_live_pods(cluster: Cluster, workload: Workload) -> bool:
    """Whether pods of a workload are of a cluster, and not what a manifest's template would make."""
    return any(cluster.lives(live.pod.metadata.uid) for live in workload.pods)


def mesh_of(cluster: Cluster, workload: Workload) -> tuple[Mesh, Evidence | None]:
    """The mesh that a workload's pods are in, as their containers (or the namespace's label) show."""
    for live in workload.pods[:1]:
        spec = live.obj.raw.get("spec", {})
        for where in ("containers", "initContainers"):
            for index, container in enumerate(items(spec, where)):
                name = text(container, "name")
                field = f"spec.{where}[{index}].name"
                if name == "istio-proxy":
                    return Mesh.ISTIO_SIDECAR, seen(live.ref, field, name, f"{live.ref} has the sidecar istio-proxy")
                if name == "linkerd-proxy":
                    return Mesh.LINKERD, seen(live.ref, field, name, f"{live.ref} has the sidecar linkerd-proxy")
    labels = cluster.snapshot.namespace_labels(workload.namespace)
    written = cluster.from_files and not has_live_pods(cluster, workload)
    if written and not opted_out(workload) and not workload.template.host_network:
        if (injected := _istio_injects(cluster, workload, labels)) is not None:
            return Mesh.ISTIO_SIDECAR, injected
        if (injected := _linkerd_injects(cluster, workload)) is not None:
            return Mesh.LINKERD, injected
    own = workload.template.labels.get(AMBIENT_LABEL, "")
    if own == "ambient" or (labels.get(AMBIENT_LABEL) == "ambient" and own != "none"):
        field = workload.label_field(AMBIENT_LABEL) if own else f"metadata.labels[{AMBIENT_LABEL}]"
        obj = next((n.ref for n in cluster.snapshot.of("Namespace", "") if n.name == workload.namespace), workload.ref)
        return Mesh.AMBIENT, seen(
            workload.ref if own else obj, field, "ambient", f"{workload.ref} is captured by ztunnel"
        )
    return Mesh.NONE, None


def opted_out(workload: Workload) -> bool:
    """Whether a template says that it wants no sidecar."""
    labels, notes = workload.template.labels, workload.template.annotations
    return (
        "false" in (labels.get("sidecar.istio.io/inject"), notes.get("sidecar.istio.io/inject"))
        or notes.get("linkerd.io/inject") == "disabled"
    )


def _istio_injects(cluster: Cluster, workload: Workload, labels: dict[str, str]) -> Evidence | None:
    """What makes Istio inject a sidecar into a manifest's pods when they are made."""
    own = workload.template.labels.get("sidecar.istio.io/inject")
    if own == "true":
        field = workload.label_field("sidecar.istio.io/inject")
        return seen(workload.ref, field, own, f"{workload.ref} asks for the sidecar istio-proxy")
    for key, value in labels.items():
        if (key, value) == ("istio-injection", "enabled") or key == "istio.io/rev":
            obj = next((n.ref for n in cluster.snapshot.of("Namespace", "") if n.name == workload.namespace), None)
            return seen(
                obj, f"metadata.labels[{key}]", value, f"pods of {workload.namespace} get the sidecar istio-proxy"
            )
    return None


LINKERD_INJECT, _ASKS_LINKERD = "linkerd.io/inject", ("enabled", "ingress")


def _linkerd_injects(cluster: Cluster, workload: Workload) -> Evidence | None:
    """What makes Linkerd inject its proxy into a manifest's pods: the template's annotation before the namespace's.

    Source: https://linkerd.io/2/features/proxy-injection/
    """
    own = workload.template.annotations.get(LINKERD_INJECT)
    if own in _ASKS_LINKERD:
        return seen(
            workload.ref, workload.annotation_field(LINKERD_INJECT), own, f"{workload.ref} asks for Linkerd's proxy"
        )
    namespace = next((n for n in cluster.snapshot.of("Namespace", "") if n.name == workload.namespace), None)
    value = namespace.annotations.get(LINKERD_INJECT) if namespace is not None else None
    if own or namespace is None or value not in _ASKS_LINKERD:
        return None
    return seen(namespace.ref, annotation(LINKERD_INJECT), value, f"pods of {namespace.name} get Linkerd's proxy")
