"""Model servers: the container of a pod that serves, and the pools of the Gateway API's inference extension."""

from __future__ import annotations

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import mapping
from kubectl_genainet.doctor.objects.recognise import runs_model_server
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.kube import KubeObject

# v1 is of the first group, v1alpha2 of the second: two kinds of object, which controllers tell apart.
INFERENCE = ("inference.networking.k8s.io", "inference.networking.x-k8s.io")


def pools(cluster: Cluster) -> list[KubeObject]:
    return [p for group in INFERENCE for p in cluster.snapshot.of("InferencePool", group)]


def pool_labels(pool: KubeObject) -> dict[str, str]:
    """The labels that select a pool's pods: selector.matchLabels in v1, the selector itself in v1alpha2."""
    selector = mapping(pool.raw, "spec", "selector")
    return {k: str(v) for k, v in (mapping(selector, "matchLabels") or selector).items()}


def serving_container(workload: Workload) -> ContainerSpec | None:
    """The container that serves the model: the one with the accelerators, else the one whose image or command line told
    the stack, else the first."""
    containers = workload.containers
    accelerated = next((c for c in containers if c.accelerators), None)
    accelerated = accelerated or next((c for c in containers if runs_model_server(c)), None)
    sidecars = ("istio-proxy", "linkerd-proxy", "queue-proxy")
    return accelerated or next((c for c in containers if c.name not in sidecars), None)
