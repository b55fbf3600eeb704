"""Public reports of jobs: NCCL, RDMA, shared memory, names on the nodes' network."""

from __future__ import annotations

from tests.unit.doctor.public.reported import JOB, LLM, READY, VLLM, Reported, deployment

RING = """
---
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: llm, namespace: ai}
spec:
  leaderWorkerTemplate:
    size: 2
    workerTemplate:
      spec:
        hostNetwork: true
        dnsPolicy: ClusterFirstWithHostNet
        containers:
        - name: worker
          image: vllm/vllm-openai:v0.10.1
          resources: {limits: {nvidia.com/gpu: 8}}
          env: [ENV]
"""
BOTH = '{name: NCCL_SOCKET_IFNAME, value: "^lo,docker"}, {name: GLOO_SOCKET_IFNAME, value: VALUE}'


FABRIC = (
    Reported(
        "vllm-project/vllm#37982",
        "shared-memory",
        deployment(
            "llm",
            "vllm/vllm-openai:v0.10.1",
            f"{READY}\n        args: [--tensor-parallel-size, '2']\n        resources: {{limits: {{nvidia.com/gpu: 2}}}}",
            pod="volumes: [{name: shm, emptyDir: {medium: Memory}}]",
        ),
        ("args: [--tensor", "volumeMounts: [{name: shm, mountPath: /dev/shm}]\n        args: [--tensor"),
    ),
    Reported(
        "kubeflow/mpi-operator#427",
        "host-network-dns",
        JOB.replace("POD", "hostNetwork: true")
        .replace("MORE", "")
        .replace("ENV", "{name: MASTER_ADDR, value: master.ring.ai.svc.cluster.local}"),
        ("hostNetwork: true", "hostNetwork: true\n          dnsPolicy: ClusterFirstWithHostNet"),
    ),
    Reported(
        "kubernetes/dns#316",
        "host-network-dns",
        deployment(
            "app", "registry.test/app:1", 'env: [{name: LLM_URL, value: "http://llm.ai.svc:80"}]', "hostNetwork: true"
        )
        + VLLM
        + LLM,
        ("hostNetwork: true", "hostNetwork: true\n      dnsPolicy: ClusterFirstWithHostNet"),
    ),
    Reported(
        "NVIDIA/nccl#1016",
        "nccl-settings",
        JOB.replace("POD", "restartPolicy: Never")
        .replace("MORE", "")
        .replace("ENV", "{name: NCCL_SOCKET_IFNAME, value: net1}"),
        ("value: net1", "value: eth0"),
    ),
    Reported(
        "horovod/horovod#584",
        "nccl-settings",
        JOB.replace("POD", "restartPolicy: Never")
        .replace("MORE", "")
        .replace("ENV", "{name: NCCL_SOCKET_IFNAME, value: lo}"),
        ("value: lo", 'value: "^lo"'),
    ),
    Reported(
        "NVIDIA/nccl#719 (without the capability)",
        "rdma-memlock",
        JOB.replace("POD", "restartPolicy: Never").replace("MORE", ", rdma/rdma_shared_device_a: 1").replace("ENV", ""),
        (
            "image: registry.test/tune:1",
            "image: registry.test/tune:1\n            securityContext: {capabilities: {add: [IPC_LOCK]}}",
        ),
    ),
    Reported(
        "awslabs/awsome-distributed-ai#386",
        "nccl-settings",
        JOB.replace("POD", "restartPolicy: Never")
        .replace("MORE", "")
        .replace("ENV", "{name: FI_PROVIDER, value: efa}"),
        ("nvidia.com/gpu: 8", "nvidia.com/gpu: 8, vpc.amazonaws.com/efa: 4, hugepages-2Mi: 5Gi, memory: 8Gi"),
    ),
    Reported(
        "aws/sagemaker-hyperpod-cli#282",
        "efa-plugin-version",
        """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: aws-efa-k8s-device-plugin, namespace: kube-system}
spec:
  selector: {matchLabels: {name: efa}}
  template:
    metadata: {labels: {name: efa}}
    spec: {containers: [{name: c, image: "602401143452.dkr.ecr.us-west-2.amazonaws.com/eks/aws-efa-k8s-device-plugin:v0.5.8"}]}
---
apiVersion: v1
kind: Node
metadata: {name: n, labels: {node.kubernetes.io/instance-type: p6-b200.48xlarge}}
spec: {providerID: "aws:///us-west-2a/i-1"}
""",
        ("plugin:v0.5.8", "plugin:v0.5.10"),
    ),
    Reported(
        "aws-samples/aws-do-eks#50",
        "nccl-settings",
        RING.replace("ENV", '{name: NCCL_SOCKET_IFNAME, value: "^lo,docker"}'),
        ("env: [", "env: [{name: GLOO_SOCKET_IFNAME, value: ens5}, "),
    ),
    Reported(
        "aws-samples/aws-do-eks#51",
        "gloo-interface",
        RING.replace("ENV", BOTH.replace("VALUE", '"^lo,docker,veth,eni"')),
        ("^lo,docker,veth,eni", "ens5"),
    ),
)
