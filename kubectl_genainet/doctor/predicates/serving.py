"""Which container of a pod serves its model."""

from __future__ import annotations

from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.recognise import runs_model_server
from kubectl_genainet.doctor.objects.workloads import Workload


def serving_container(workload: Workload) -> ContainerSpec | None:
    """The container that serves the model: the one with the accelerators, else the one whose image or command line told
    the stack, else the first."""
    containers = workload.containers
    accelerated = next((c for c in containers if c.accelerators), None)
    accelerated = accelerated or next((c for c in containers if runs_model_server(c)), None)
    sidecars = ("istio-proxy", "linkerd-proxy", "queue-proxy")
    return accelerated or next((c for c in containers if c.name not in sidecars), None)
