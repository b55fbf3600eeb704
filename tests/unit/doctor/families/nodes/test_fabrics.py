"""TPU slices, GKE's networks, shared claims and the makers of nodes: what is sound is left alone."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import findings

TPU = """
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: pre, namespace: ai}
spec:
  replicatedJobs:
  - name: slice
    replicas: 2
    template:
      spec:
        parallelism: %d
        template:
          spec:
            nodeSelector: {cloud.google.com/gke-tpu-accelerator: tpu-v5p-slice, cloud.google.com/gke-tpu-topology: 2x2x4}
            containers: [{name: t, image: "registry.test/t:1", resources: {limits: {google.com/tpu: 4}}}]
"""
CLAIM = """
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: nic, namespace: ai}
spec: {devices: {requests: [{name: nic, exactly: {deviceClassName: %s}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: train, namespace: ai}
spec:
  replicas: %d
  template:
    metadata: {labels: {app: train}}
    spec:
      resourceClaims: [{name: nic, resourceClaimName: nic}]
      containers: [{name: t, image: "registry.test/t:1"}]
"""
GAUDI = """
apiVersion: v1
kind: Pod
metadata: {name: g, namespace: ai}
spec:
  containers:
  - name: t
    image: registry.test/t:1
    env: [{name: HCCL_OVER_OFI, value: "1"}]
    resources: {limits: {habana.ai/gaudi: 8%s}}
"""


@pytest.mark.parametrize(("pods", "found"), [(4, 0), (3, 1)])
def test_a_slice_is_taken_whole(pods: int, found: int) -> None:
    assert len(findings(TPU % pods, "tpu-slice")) == found


@pytest.mark.parametrize(
    ("device_class", "replicas", "found"), [("rdma.test", 2, 1), ("rdma.test", 1, 0), ("gpu.nvidia.com", 2, 0)]
)
def test_a_network_device_is_one_pods(device_class: str, replicas: int, found: int) -> None:
    assert len(findings(CLAIM % (device_class, replicas), "rdma-claim-shared")) == found


def test_libfabric_under_hccl_needs_a_device() -> None:
    assert len(findings(GAUDI % "", "nccl-settings")) == 1
    assert findings(GAUDI % ", vpc.amazonaws.com/efa: 4", "nccl-settings") == []


SHARDED = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: llm, namespace: ai}
spec:
  selector: {matchLabels: {app: llm}}
  template:
    metadata: {labels: {app: llm}}
    spec:
      containers:
      - {name: proxy, image: "registry.test/auth:1", readinessProbe: {httpGet: {path: /, port: 80}}}
      - name: server
        image: registry.test/vllm-gaudi:1
        command: [vllm, serve, /models/m, --tensor-parallel-size, "CARDS"]
        resources: {limits: {RESOURCE: CARDS}}
"""


@pytest.mark.parametrize(
    ("resource", "cards", "found"),
    [("habana.ai/gaudi", 8, 1), ("habana.ai/gaudi", 1, 0), ("gpu.intel.com/xe", 2, 1), ("google.com/tpu", 4, 0)],
)
def test_a_process_for_each_card_needs_shared_memory(resource: str, cards: int, found: int) -> None:
    text = SHARDED.replace("RESOURCE", resource).replace("CARDS", str(cards))
    assert len(findings(text, "shared-memory")) == found


@pytest.mark.parametrize(
    "resource", ["habana.ai/gaudi", "google.com/tpu", "aws.amazon.com/neuron", "nvidia.com/mig-1g.10gb"]
)
def test_the_container_with_the_accelerators_is_the_one_that_serves(resource: str) -> None:
    (finding,) = findings(SHARDED.replace("RESOURCE", resource).replace("CARDS", "4"), "readiness-probe")
    assert finding.evidence[0].field == "spec.template.spec.containers[1].readinessProbe"


LWS = """
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: big, namespace: ai}
spec:
  leaderWorkerTemplate:
    size: %d
    leaderTemplate: {spec: {containers: [{name: proxy, image: "registry.test/p:1"}]}}
    workerTemplate:
      spec:
        nodeSelector: {cloud.google.com/gke-tpu-accelerator: tpu-v5-lite, cloud.google.com/gke-tpu-topology: 4x4}
        containers: [{name: t, image: "registry.test/t:1", resources: {limits: {google.com/tpu: 4}}}]
"""


@pytest.mark.parametrize(("size", "found"), [(5, 0), (4, 1)])
def test_a_leader_without_chips_is_beside_the_slice(size: int, found: int) -> None:
    assert len(findings(LWS % size, "tpu-slice")) == found
