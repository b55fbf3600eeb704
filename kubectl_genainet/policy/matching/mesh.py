"""Whether a proxy of a mesh takes a pod's connections, as far as the objects show. Sources: Istio, "Sidecar injection";
Linkerd, "Authorization Policy".

Also the ports that proxies of meshes take connections of others on.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import Pod

AMBIENT_LABEL = "istio.io/dataplane-mode"
HBONE, LINKERD_INBOUND = 15008, 4143
_INJECT = "sidecar.istio.io/inject"
_LINKERD_PROXY, _LINKERD_INJECT = "linkerd-proxy", "linkerd.io/inject"
_LINKERD_DEFAULT, _LINKERD_ADMITS_ALL = "config.linkerd.io/default-inbound-policy", "all-unauthenticated"


class MeshLevel(IntEnum):
    """In the order of how sure it is."""

    OUTSIDE = 0
    TO_BE_INJECTED = 1  # labels ask for a sidecar, and the pod shows none
    MESHED = 2


def mesh_level(pod: Pod, namespace_labels: Mapping[str, str]) -> MeshLevel:
    if pod.spec.host_network:
        return MeshLevel.OUTSIDE
    if any(c.name == "istio-proxy" for c in (*pod.spec.containers, *pod.spec.init_containers)):
        return MeshLevel.MESHED
    labels = pod.metadata.labels
    if labels.get(AMBIENT_LABEL, namespace_labels.get(AMBIENT_LABEL)) == "ambient":
        return MeshLevel.MESHED
    wish = labels.get(_INJECT, pod.metadata.annotations.get(_INJECT, ""))
    by_namespace = namespace_labels.get("istio-injection")
    asked = wish == "true" or by_namespace == "enabled" or "istio.io/rev" in {**namespace_labels, **labels}
    return (
        MeshLevel.TO_BE_INJECTED if asked and "false" not in wish and by_namespace != "disabled" else MeshLevel.OUTSIDE
    )


def linkerd_default(pod: Pod, namespace_annotations: Mapping[str, str], of_mesh: str) -> str:
    """What Linkerd's proxy of a pod admits by default; "" for a pod that has none and is to get none."""
    notes = {**namespace_annotations, **pod.metadata.annotations}
    proxied = any(c.name == _LINKERD_PROXY for c in (*pod.spec.containers, *pod.spec.init_containers))
    if pod.spec.host_network or not (proxied or notes.get(_LINKERD_INJECT) in ("enabled", "ingress")):
        return ""
    return notes.get(_LINKERD_DEFAULT) or of_mesh or _LINKERD_ADMITS_ALL


def linkerd_mesh_default(snapshot: ClusterSnapshot) -> str:
    """The default of the whole mesh, as linkerd-config has it; "" where it does not say."""
    for obj in snapshot.named("ConfigMap", "linkerd", "linkerd-config"):
        data = obj.raw.get("data")
        for line in str(data.get("values", "")).splitlines() if isinstance(data, dict) else ():
            name, _, value = line.strip().partition(":")
            if name == "defaultInboundPolicy":
                return value.strip().strip("\"'")
    return ""


def linkerd_defaults(snapshot: ClusterSnapshot) -> frozenset[str]:
    """The defaults that objects set anywhere."""
    objects = (*snapshot.of("Pod", ""), *snapshot.of("Namespace", ""))
    set_by_objects = (str(obj.annotations.get(_LINKERD_DEFAULT, "")) for obj in objects)
    return frozenset((*set_by_objects, linkerd_mesh_default(snapshot)))
