"""How many accelerators a node has, and how many of them it offers."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import findings

P5 = "node.kubernetes.io/instance-type: p5.48xlarge"
G5 = "node.kubernetes.io/instance-type: g5.12xlarge"
GKE = "cloud.google.com/gke-accelerator: nvidia-h100-80gb, cloud.google.com/gke-accelerator-count: '8'"
A3 = "cloud.google.com/gke-accelerator: nvidia-h100-80gb"
TRN = "node.kubernetes.io/instance-type: trn1.32xlarge"


def node(labels: str, allocatable: str, capacity: str = "") -> str:
    return f"""
---
apiVersion: v1
kind: Node
metadata: {{name: gpu-1, uid: u, labels: {{{labels}}}}}
status: {{allocatable: {{{allocatable}}}, capacity: {{{capacity or allocatable}}}}}
"""


@pytest.mark.parametrize(
    ("labels", "allocatable", "capacity", "told_by"),
    [
        (P5, "nvidia.com/gpu: '7'", "", "metadata.labels[node.kubernetes.io/instance-type]"),
        (P5, "nvidia.com/gpu: '7'", "nvidia.com/gpu: '8'", "status.capacity[nvidia.com/gpu]"),
        (P5, "nvidia.com/gpu: '8'", "", None),
        (G5, "nvidia.com/gpu: '3'", "", "metadata.labels[node.kubernetes.io/instance-type]"),
        (G5, "nvidia.com/gpu: '16'", "", None),  # time slicing: four of each
        (GKE, "nvidia.com/gpu: '6'", "", "metadata.labels[cloud.google.com/gke-accelerator-count]"),
        (A3, "nvidia.com/gpu: '6'", "nvidia.com/gpu: '8'", "status.capacity[nvidia.com/gpu]"),
        (A3, "nvidia.com/gpu: '6'", "", None),  # nothing tells how many there are
        (P5, "nvidia.com/gpu: '4', nvidia.com/mig-1g.10gb: '28'", "", None),
        (P5, "nvidia.com/gpu: '4', nvidia.com/gpu.shared: '16'", "", None),
        (TRN, "aws.amazon.com/neuron: '15'", "", "metadata.labels[node.kubernetes.io/instance-type]"),
        (TRN, "aws.amazon.com/neuron: '16'", "", None),
    ],
)
def test_a_node_offers_as_many_devices_as_it_has(
    labels: str, allocatable: str, capacity: str, told_by: str | None
) -> None:
    found = findings(node(labels, allocatable, capacity), "gpu-advertised", complete=True)
    assert [f.evidence[1].field for f in found] == ([told_by] if told_by else [])
    if told_by:
        assert " of its " in found[0].title
        assert found[0].evidence[0].field.startswith("status.allocatable[")


SLICE = """
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: s, uid: s}
spec: {driver: DRIVER, nodeName: gpu-1, pool: {name: gpu-1, generation: 1, resourceSliceCount: 1}}
"""


def test_gpus_that_are_given_out_by_claims_are_in_no_allocatable() -> None:
    assert findings(node(P5, "cpu: '8'") + SLICE.replace("DRIVER", "gpu.nvidia.com"), "gpu-advertised") == []
    assert len(findings(node(P5, "cpu: '8'") + SLICE.replace("DRIVER", "dra.net"), "gpu-advertised")) == 1
