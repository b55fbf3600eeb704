"""Whether a proxy of Istio's takes a pod's connections, as far as the objects show. Source: Istio, "Sidecar injection".

Also the ports that proxies of meshes take connections of others on.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from kubectl_genainet.model.kube import Pod

AMBIENT_LABEL = "istio.io/dataplane-mode"
HBONE, LINKERD_INBOUND = 15008, 4143
_INJECT = "sidecar.istio.io/inject"


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
