"""The labels by which a remedy selects one workload's pods."""

from __future__ import annotations

from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.workload_kinds.generated_labels import changes


def selecting_labels(workload: Workload) -> dict[str, str]:
    """A workload's labels that stay the same from one rollout to the next: they select its pods and, where several
    workloads share a name, no others. All labels where none stays: they select it until then."""
    labels = dict(sorted(workload.labels.items()))
    return {k: v for k, v in labels.items() if not changes(k)} or labels
