"""RDMA devices of the node beside those that a pod requests, and plugins and operators that hand them out."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Finding, Severity
from tests.unit.doctor.worlds.manifests import report_of

POD = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: rank, namespace: train}}
spec:
  serviceName: rank
  template:
    metadata: {{labels: {{app: rank}}}}
    spec:
      nodeSelector: {{node.kubernetes.io/instance-type: {kind}}}
      containers:
      - name: t
        image: registry.test/train:2
        securityContext: {{privileged: {privileged}}}
        resources: {{limits: {{nvidia.com/gpu: 8, vpc.amazonaws.com/efa: 8, hugepages-2Mi: 5Gi, memory: 1Ti}}}}
        volumeMounts: [{{name: ib, mountPath: /dev/infiniband}}]
      volumes: [{{name: ib, hostPath: {{path: /dev/infiniband}}}}]
---
"""


def found(text: str, check: str) -> list[Finding]:
    return [f for f in report_of(text).findings if f.check == check]


@pytest.mark.parametrize(
    ("kind", "severity"), [("ml.p6-b200.48xlarge", Severity.WARNING), ("p5.48xlarge", Severity.INFO)]
)
def test_files_of_the_node_over_those_of_requested_efa_devices(kind: str, severity: Severity) -> None:
    (finding,) = found(POD.format(kind=kind, privileged="false"), "rdma-host-path")
    assert (finding.severity, str(finding.object)) == (severity, "StatefulSet train/rank")
    assert "requests EFA devices, and mounts /dev/infiniband" in finding.title


def test_a_privileged_container_opens_every_device() -> None:
    assert found(POD.format(kind="p6-b200.48xlarge", privileged="true"), "rdma-host-path") == []


PLUGIN = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: aws-efa-k8s-device-plugin, namespace: kube-system}}
spec:
  template:
    metadata: {{labels: {{name: efa}}}}
    spec:
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
            - matchExpressions: [{{key: node.kubernetes.io/instance-type, operator: In, values: [p5.48xlarge, {kind}]}}]
      containers: [{{name: plugin, image: "registry.test/eks/aws-efa-k8s-device-plugin:{version}"}}]
---
"""


@pytest.mark.parametrize(
    ("version", "kind", "titles"),
    [
        ("v0.5.6", "p6-b200.48xlarge", ["version 0.5.6 takes NVLink controllers for EFA devices"]),
        ("v0.5.10", "p6-b200.48xlarge", []),
        ("v0.5.6", "p5en.48xlarge", []),
    ],
)
def test_an_old_plugin_in_manifests_that_is_for_nodes_with_nvlink_controllers(
    version: str, kind: str, titles: list[str]
) -> None:
    findings = found(PLUGIN.format(version=version, kind=kind), "efa-plugin-version")
    assert [f.title for f in findings] == titles
    assert {f.severity for f in findings} <= {Severity.WARNING}  # whether there is such a node is not seen


NETWORK = """
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetwork
metadata: {name: roce, namespace: sriov}
spec: {resourceName: roce, networkNamespace: train, metaPlugins: '{"type": "tuning"}, {"type": "rdma"}'}
---
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetworkPoolConfig
metadata: {name: workers, namespace: sriov}
spec: {rdmaMode: shared}
"""


def test_a_sriov_network_names_the_plugin_that_moves_rdma_devices() -> None:
    (finding,) = found(NETWORK, "rdma-exclusive")
    assert (str(finding.object), finding.evidence[0].field) == ("SriovNetwork sriov/roce", "spec.metaPlugins")
    assert found(NETWORK.replace("shared", "exclusive"), "rdma-exclusive") == []
    assert found(NETWORK.replace(', {"type": "rdma"}', ""), "rdma-exclusive") == []


RAILS = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: rank, namespace: train}
spec:
  template:
    metadata: {labels: {app: rank}, annotations: {k8s.v1.cni.cncf.io/networks: "NETWORKS"}}
    spec: {containers: [{name: t, image: registry.test/train:2, resources: {limits: {fast.test/roce: DEVICES}}}]}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: rail1, namespace: train, annotations: {k8s.v1.cni.cncf.io/resourceName: fast.test/roce}}
---
apiVersion: sriovnetwork.openshift.io/v1
kind: SriovNetwork
metadata: {name: rail0, namespace: sriov}
spec: {resourceName: RESOURCE, networkNamespace: train}
"""


@pytest.mark.parametrize(
    ("networks", "devices", "resource", "count"),
    [
        ("rail0, rail0", 1, "roce", 1),
        ("rail0, rail0", 2, "roce", 0),
        ("rail0, rail1", 1, "roce", 1),
        ("rail0, rail1", 1, "other", 0),
        ("rail0", 1, "roce", 0),
    ],
)
def test_each_sriov_network_takes_a_device(networks: str, devices: int, resource: str, count: int) -> None:
    text = RAILS.replace("NETWORKS", networks).replace("DEVICES", str(devices)).replace("RESOURCE", resource)
    few = found(text, "sriov-network")
    assert [f.title for f in few] == ["2 of its networks need fast.test/roce, and it requests 1"] * count


GROUP = """
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {{name: big, namespace: serve}}
spec:
  leaderWorkerTemplate:
    size: 2
    workerTemplate:
      spec:
        hostNetwork: {host}
        containers:
        - name: vllm
          image: registry.test/llm:1
          args: ["vllm serve /models/big --tensor-parallel-size 8 {more}"]
          env: [{{name: {variable}, value: enp73s0}}]
          resources: {{limits: {{nvidia.com/gpu: 8}}}}
          volumeMounts: [{{name: shm, mountPath: /dev/shm}}]
        volumes: [{{name: shm, emptyDir: {{medium: Memory}}}}]
"""


@pytest.mark.parametrize(
    ("host", "more", "variable", "count"),
    [
        ("true", "--pipeline-parallel-size 2", "OTHER", 1),
        ("true", "", "OTHER", 1),  # the pods of a group run one program
        ("true", "--pipeline-parallel-size 1", "OTHER", 0),
        ("true", "--pipeline-parallel-size 2", "GLOO_SOCKET_IFNAME", 0),
        ("false", "--pipeline-parallel-size 2", "OTHER", 0),
    ],
)
def test_gloo_over_nodes_on_their_own_network_is_told_its_device(
    host: str, more: str, variable: str, count: int
) -> None:
    findings = found(GROUP.format(host=host, more=more, variable=variable), "nccl-settings")
    assert len(findings) == count
    assert all(f.severity is Severity.INFO and "GLOO_SOCKET_IFNAME is not set" in f.title for f in findings)


LOADING = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: llm, namespace: serve}}
spec:
  template:
    metadata: {{labels: {{app: llm}}}}
    spec:
      containers:
      - name: vllm
        image: vllm/vllm-openai:v0.9.0
        args: [--model, /models/scout, --tensor-parallel-size, "{gpus}"]
        ports: [{{containerPort: 8000}}]
        livenessProbe: {{httpGet: {{path: /health, port: 8000}}, initialDelaySeconds: {delay}, periodSeconds: 10}}
        resources: {{limits: {{nvidia.com/gpu: {gpus}}}}}
"""


@pytest.mark.parametrize(("gpus", "delay", "count"), [(4, 120, 1), (1, 120, 0), (4, 300, 0), (1, 60, 1)])
def test_a_model_over_several_gpus_takes_longer_to_load(gpus: int, delay: int, count: int) -> None:
    assert len(found(LOADING.format(gpus=gpus, delay=delay), "startup-budget")) == count


@pytest.mark.parametrize(("kind", "spec"), [("batch/v1\nkind: Job", ""), ("apps/v1\nkind: Deployment", "kubectl")])
def test_no_command_changes_a_template_that_is_fixed(kind: str, spec: str) -> None:
    """`kubectl edit` of a Job ends with "field is immutable"."""
    written = f"""
apiVersion: {kind}
metadata: {{name: w, namespace: train}}
spec:
  template:
    metadata: {{labels: {{app: w}}}}
    spec:
      restartPolicy: Always
      containers: [{{name: t, image: "x:1", resources: {{limits: {{google.com/tpu: 4}}}}}}]
"""
    (finding,) = found(written, "tpu-slice")
    assert finding.remedy is not None
    assert finding.remedy.command.startswith(spec) if spec else finding.remedy.command == ""
