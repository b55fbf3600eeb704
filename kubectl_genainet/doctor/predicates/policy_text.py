"""NetworkPolicies that remedies give."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.doctor.changes import Addition
from kubectl_genainet.doctor.objects.raw import to_yaml
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.labels import selecting_labels


def network_policy(name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A NetworkPolicy."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def adding(text: str, *objects: dict[str, Any]) -> Addition:
    """A remedy that adds objects."""
    return Addition(text, yaml="---\n".join(map(to_yaml, objects)), objects=objects)


def peer(namespace: str, workload: Workload) -> dict[str, Any]:
    """The peer that is a workload's pods, for a policy of a namespace."""
    by_labels: dict[str, Any] = {"podSelector": {"matchLabels": selecting_labels(workload)}}
    if workload.namespace != namespace:
        by_labels["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": workload.namespace}}
    return by_labels
