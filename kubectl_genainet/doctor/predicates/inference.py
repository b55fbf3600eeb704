"""The Gateway API's inference extension: pools of model servers."""

from __future__ import annotations

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import mapping
from kubectl_genainet.model.kube import KubeObject

# v1 is of the first group, v1alpha2 of the second: two kinds of object, which controllers tell apart.
INFERENCE = ("inference.networking.k8s.io", "inference.networking.x-k8s.io")


def pools(cluster: Cluster) -> list[KubeObject]:
    return [p for group in INFERENCE for p in cluster.snapshot.of("InferencePool", group)]


def pool_labels(pool: KubeObject) -> dict[str, str]:
    """The labels that select a pool's pods: selector.matchLabels in v1, the selector itself in v1alpha2."""
    selector = mapping(pool.raw, "spec", "selector")
    return {k: str(v) for k, v in (mapping(selector, "matchLabels") or selector).items()}
