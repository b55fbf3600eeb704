"""What else lives in a namespace: asked before it is deleted, because everything in it would go too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_genainet.kube.agents.base import MANAGED_BY
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.failures import ApiError

# Written by the cluster itself, or only a view of other objects.
_SKIPPED = {"events", "endpoints", "endpointslices", "leases", "controllerrevisions", "podmetrics"}
_ALWAYS_THERE = {
    ("configmaps", "kube-root-ca.crt"),
    ("configmaps", "openshift-service-ca.crt"),
    ("configmaps", "istio-ca-root-cert"),
    ("serviceaccounts", "default"),
}


def others_in(client: KubeClient, namespace: str) -> list[str]:
    """Objects of a namespace that neither deploy nor the cluster itself made, as "pods/name".

    Kinds that the user may not list are not seen.
    """
    objects: list[str] = []
    for root, plural in _listable(client):
        try:
            items = client.get(f"{root}/namespaces/{namespace}/{plural}", limit="50").get("items") or []
        except ApiError:
            continue
        objects += [f"{plural}/{item['metadata']['name']}" for item in items if _is_other(plural, item)]
    return sorted(set(objects))


def _listable(client: KubeClient) -> Iterator[tuple[str, str]]:
    groups = client.get("/apis").get("groups") or []
    roots = ["/api/v1", *(f"/apis/{g['preferredVersion']['groupVersion']}" for g in groups)]
    for root in roots:
        try:
            resources = client.get(root).get("resources") or []
        except ApiError:  # an aggregated API whose server is down
            continue
        for resource in resources:
            name = resource["name"]
            if resource["namespaced"] and "list" in resource["verbs"] and "/" not in name and name not in _SKIPPED:
                yield root, name


def _is_other(plural: str, item: dict[str, Any]) -> bool:
    metadata = item["metadata"]
    if metadata.get("deletionTimestamp") or metadata.get("ownerReferences"):
        return False  # going, or it goes with its owner
    if metadata.get("labels", {}).get(MANAGED_BY[0]) == MANAGED_BY[1]:
        return False
    if plural == "secrets" and item.get("type") == "kubernetes.io/service-account-token":
        return False  # before 1.24 every service account has one
    return (plural, metadata["name"]) not in _ALWAYS_THERE
