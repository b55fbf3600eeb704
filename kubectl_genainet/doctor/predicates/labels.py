"""The labels by which a remedy selects one workload's pods."""

from __future__ import annotations

from kubectl_genainet.doctor.objects.workloads import Workload

_CHANGING = ("pod-template-hash", "controller-revision-hash", "pod-template-generation", "helm.sh/chart")
_VERSION = "app.kubernetes.io/version"


def selecting_labels(workload: Workload) -> dict[str, str]:
    """A workload's labels that stay the same from one rollout to the next: they select its pods and, where several
    workloads share a name, no others."""
    return {k: v for k, v in sorted(workload.labels.items()) if k not in _CHANGING and k != _VERSION}
