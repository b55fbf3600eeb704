"""What accelerators and their networks need, as a faulty manifest and a sound one."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import deployment, findings

JOB = """
---
apiVersion: batch/v1
kind: Job
metadata: {name: sft, namespace: lab ANNOTATIONS}
spec:
  completions: 2
  parallelism: 2
  completionMode: Indexed
  template:
    metadata: {annotations: {NOTES}}
    spec:
      restartPolicy: Never
      containers: [{name: trainer, image: "registry.test/trainer:3", CONTAINER}]
      VOLUMES
"""


def job(container: str, notes: str = "", volumes: str = "volumes: []") -> str:
    text = JOB.replace(" ANNOTATIONS", "").replace("NOTES", notes)
    return text.replace("CONTAINER", container).replace("VOLUMES", volumes)


def node_class(metadata: str = "", more: str = "") -> str:
    options = f", metadataOptions: {{{metadata}}}" if metadata else ""
    return f"""
---
apiVersion: karpenter.k8s.aws/v1
kind: EC2NodeClass
metadata: {{name: p5}}
spec: {{role: nodes{options}{more}}}
"""


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", 1),
        ("httpTokens: required", 1),
        ("httpPutResponseHopLimit: 1", 1),
        ("httpPutResponseHopLimit: 2", 0),
        ("httpPutResponseHopLimit: 64", 0),
    ],
)
def test_the_instances_metadata_answers_pods_from_a_hop_limit_of_two(options: str, found: int) -> None:
    caller = deployment("batcher", "image: 'registry.test/b:1', env: [{name: MODEL, value: 's3://weights/m'}]")
    assert len(findings(caller + node_class(options), "imds-hop-limit", complete=True)) == found
    own = caller.replace("spec: {containers", "spec: {hostNetwork: true, containers")
    assert findings(own + node_class(options), "imds-hop-limit", complete=True) == []


def nodes_and_pods(*names: str) -> str:
    return "".join(
        f"""
---
apiVersion: v1
kind: Node
metadata: {{name: {name}, uid: u-{name}, labels: {{karpenter.k8s.aws/ec2nodeclass: p5}}}}
spec: {{providerID: "aws:///eu-west-1a/i-{name}"}}
status: {{allocatable: {{nvidia.com/gpu: "8"}}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: sft-{name}
  namespace: lab
  uid: p-{name}
  labels: {{batch.kubernetes.io/job-name: sft}}
  ownerReferences: [{{apiVersion: batch/v1, kind: Job, name: sft, uid: j, controller: true}}]
spec:
  nodeName: {name}
  containers: [{{name: trainer, image: "registry.test/trainer:3", resources: {{limits: {{nvidia.com/gpu: 8}}}}}}]
status: {{phase: Running, podIP: 10.0.0.{index}}}
"""
        for index, name in enumerate(names, start=4)
    )


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("", 1),
        (", placementGroupSelector: {name: p5-cluster}", 0),
        (", capacityReservationSelectorTerms: [{id: cr-1}]", 0),
    ],
)
def test_nodes_of_one_class_share_the_group_that_it_selects(more: str, found: int) -> None:
    text = job("resources: {limits: {nvidia.com/gpu: 8}}").replace("name: sft,", "name: sft, uid: j,")
    assert len(findings(text + nodes_and_pods("a", "b") + node_class("", more), "training-placement")) == found


def networks(count: int) -> str:
    entries = [{"interfaceName": f"eth{i}", "network": f"vpc{i}" if i else "default"} for i in range(count + 1)]
    return "networking.gke.io/interfaces: '" + str(entries).replace("'", '"') + "'"


GPUS = "resources: {limits: {nvidia.com/gpu: 8}}"
TCPXO = f"env: [{{name: NCCL_FASTRAK_CTRL_DEV, value: eth0}}], {GPUS}"
TCPX = f"env: [{{name: NCCL_GPUDIRECTTCPX_SOCKET_IFNAME, value: eth1}}], {GPUS}"
GIB = f"volumeMounts: [{{name: gib, mountPath: /usr/local/gib}}], {GPUS}"


@pytest.mark.parametrize(
    ("container", "count", "found"),
    [(TCPXO, 7, 1), (TCPXO, 8, 0), (TCPX, 3, 1), (TCPX, 4, 0), (GIB, 4, 1), (GIB, 8, 0), (GPUS, 3, 0)],
)
def test_each_transport_of_gke_has_its_number_of_networks(container: str, count: int, found: int) -> None:
    assert len(findings(job(container, networks(count)), "gke-networks")) == found


@pytest.mark.parametrize(("allocatable", "found"), [("{cpu: '8'}", 1), ("{aws.amazon.com/neuroncore: '32'}", 0)])
def test_a_neuron_instance_offers_its_devices(allocatable: str, found: int) -> None:
    node = f"""
---
apiVersion: v1
kind: Node
metadata: {{name: trn, uid: u, labels: {{node.kubernetes.io/instance-type: trn1.32xlarge}}}}
spec: {{providerID: "aws:///eu-west-1a/i-1"}}
status: {{allocatable: {allocatable}, capacity: {allocatable}}}
"""
    assert len(findings(node, "gpu-advertised")) == found


RDMA_NET = """
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: rail0, namespace: lab}
spec: {config: '{"cniVersion": "1.0.0", "name": "rail0", "plugins": [{"type": "sriov"}, {"type": "PLUGIN"}]}'}
---
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkPoolConfig
metadata: {name: workers, namespace: sriov-network-operator}
spec: {rdmaMode: MODE}
"""


@pytest.mark.parametrize(
    ("plugin", "mode", "found"), [("rdma", "shared", 1), ("rdma", "exclusive", 0), ("tuning", "shared", 0)]
)
def test_a_device_that_moves_is_exclusive(plugin: str, mode: str, found: int) -> None:
    text = RDMA_NET.replace("PLUGIN", plugin).replace("MODE", mode)
    assert len(findings(text, "rdma-exclusive")) == found


@pytest.mark.parametrize(
    ("security", "found"),
    [
        ("", 1),
        ("securityContext: {capabilities: {add: [NET_RAW]}}, ", 1),
        ("securityContext: {capabilities: {add: [NET_RAW, IPC_LOCK]}}, ", 0),
        ("securityContext: {privileged: true}, ", 0),
    ],
)
@pytest.mark.parametrize("resource", ["rdma/ib_shared", "rdma/hca_shared_devices_a"])
def test_a_pod_with_rdma_may_lock_memory(security: str, found: int, resource: str) -> None:
    wanted = f"resources: {{limits: {{nvidia.com/gpu: 8, {resource}: 1}}}}"
    assert len(findings(job(security + wanted), "rdma-memlock")) == found


SHARDED = "command: [vllm, serve, m, --tensor-parallel-size=4], resources: {limits: {nvidia.com/gpu: 4}}"
MOUNT = ", volumeMounts: [{name: shm, mountPath: /dev/shm}]"


@pytest.mark.parametrize(
    ("container", "volumes", "found"),
    [
        (SHARDED, "volumes: []", 1),
        (SHARDED + MOUNT, "volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 256Mi}}]", 1),
        (SHARDED + MOUNT, "volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 16Gi}}]", 0),
        (SHARDED + MOUNT, "volumes: [{name: shm, emptyDir: {medium: Memory}}]", 0),
        (SHARDED, "hostIPC: true", 0),
    ],
)
def test_a_sharded_server_has_shared_memory(container: str, volumes: str, found: int) -> None:
    assert len(findings(job(container, volumes=volumes), "shared-memory")) == found
