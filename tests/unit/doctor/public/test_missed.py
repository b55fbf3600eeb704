"""Faults of public reports that were not found once, each beside the sound form."""

from __future__ import annotations

import pytest

from kubectl_genainet.doctor.objects.stacks import Role
from tests.unit.doctor.worlds.manifests import cluster_of, deployment, findings, service

RAY = """
---
apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: ray, namespace: ml}
spec:
  headGroupSpec: {template: {spec: {containers: [{name: h, image: 'rayproject/ray:2.46'}]}}}
  workerGroupSpecs:
  - {groupName: g, replicas: 1, template: {spec: {containers: [{name: w, image: 'rayproject/ray:2.46'}]}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: ml}
spec: {podSelector: {matchLabels: {ray.io/node-type: PART}}, ingress: [RULE]}
"""


@pytest.mark.parametrize("part", ["head", "worker"])
def test_parts_of_a_ray_cluster_have_to_reach_each_other_both_ways(part: str) -> None:
    # ray-project/kuberay#1282
    closed = RAY.replace("PART", part)
    assert len(findings(closed.replace("RULE", ""), "policy-blocks-peers")) == 1
    admitted = closed.replace("RULE", "{from: [{podSelector: {matchLabels: {ray.io/cluster: ray}}}]}")
    assert findings(admitted, "policy-blocks-peers") == []


CILIUM = """
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: lookups, namespace: ml}
spec:
  endpointSelector: {}
  egress: [{toEndpoints: [{matchLabels: {k8s-app: kube-dns}}], toPorts: [{ports: [{port: '53', protocol: UDP}]RULES}]}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names, namespace: ml}
spec: {endpointSelector: {matchLabels: {app: app}}, egress: [{toFQDNs: [{matchName: registry.example.com}]}]}
"""


def test_lookups_that_another_policy_admits_unseen_teach_cilium_no_address() -> None:
    # cilium/cilium#11767
    text = deployment("app", "image: 'registry.test/app:1'") + CILIUM
    assert len(findings(text.replace("RULES", ""), "cilium-fqdn-dns")) == 1
    assert findings(text.replace("RULES", ", rules: {dns: [{matchPattern: '*'}]}"), "cilium-fqdn-dns") == []


SEVERAL = """
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: app, namespace: ml}
specs:
- endpointSelector: {matchLabels: {app: app}}
  egress: [{toEndpoints: [{matchLabels: {k8s-app: kube-dns}}], toPorts: [{ports: [{port: '53', protocol: UDP}]RULES}]}]
- endpointSelector: {matchLabels: {app: app}}
  egress: [{toFQDNs: [{matchName: registry.example.com}]}]
"""


def test_each_of_several_specs_of_a_policy_is_read() -> None:
    text = deployment("app", "image: 'registry.test/app:1'") + SEVERAL
    (found,) = findings(text.replace("RULES", ""), "cilium-fqdn-dns")
    assert found.evidence[0].field == "specs[1].egress[0].toFQDNs"
    assert findings(text.replace("RULES", ", rules: {dns: [{matchPattern: '*'}]}"), "cilium-fqdn-dns") == []
    (unjudged,) = findings(text.replace("RULES", ""), "policy-not-evaluated")
    assert [e.field for e in unjudged.evidence] == ["specs[1].egress[0].toFQDNs"]


@pytest.mark.parametrize(("name", "found"), [("minio", 1), ("milvus-minio", 0)])
def test_the_port_of_milvus_store_is_made_of_a_service(name: str, found: int) -> None:
    # milvus-io/milvus#45262, zilliztech/milvus-operator#505
    text = deployment("milvus", "image: 'milvusdb/milvus:v2.6.4', args: [milvus, run, standalone]") + service(
        name, "{selector: {app: store}, ports: [{port: 9000}]}"
    )
    assert len(findings(text, "service-variable")) == found


DYNAMO = """
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata: {name: graph, namespace: ml}
spec:
  services:
    Frontend: {componentType: frontend, extraPodSpec: {mainContainer: {image: 'nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.5'}}}
"""


def test_the_frontend_of_dynamo_routes_though_its_image_could_serve() -> None:
    cluster = cluster_of(DYNAMO)
    (frontend,) = cluster.workloads
    assert cluster.role(frontend) is Role.ROUTER


JOB = """
---
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata: {name: job, namespace: ml}
spec:
  pytorchReplicaSpecs:
    Worker:
      replicas: 4
      template:
        spec:
          POD
          containers:
          - {name: pytorch, image: 'train:1', command: [torchrun, COMMAND, train.py], env: [ENV],
             resources: {limits: {nvidia.com/gpu: 8}}}
"""
MEMORY = "volumes: [{name: m, emptyDir: {medium: Memory}}]"


def job(pod: str = "", command: str = "--nnodes=4", env: str = "") -> str:
    return JOB.replace("POD", pod).replace("COMMAND", command).replace("ENV", env)


def test_processes_of_a_job_on_one_node_need_shared_memory() -> None:
    assert len(findings(job(command="--nproc-per-node=8"), "shared-memory")) == 1
    assert findings(job(command="--nproc-per-node=1"), "shared-memory") == []
    mounted = job(MEMORY, "--nproc-per-node=8").replace(
        "image:", "volumeMounts: [{name: m, mountPath: /dev/shm}], image:"
    )
    assert findings(mounted, "shared-memory") == []


@pytest.mark.parametrize(("policy", "found"), [("ClusterFirst", 1), ("ClusterFirstWithHostNet", 0)])
def test_the_name_of_a_pod_behind_a_headless_service_is_one_of_the_cluster(policy: str, found: int) -> None:
    text = job(f"hostNetwork: true\n          dnsPolicy: {policy}", env="{name: MASTER_ADDR, value: job-0.job}")
    headless = service("job", "{clusterIP: None, selector: {app: job}, ports: [{port: 29500}]}")
    assert len(findings(text + headless, "host-network-dns")) == found
    assert findings(text, "host-network-dns") == []


def node(name: str, labels: str, allocatable: str = "nvidia.com/gpu: '8'") -> str:
    return f"""
---
apiVersion: v1
kind: Node
metadata: {{name: {name}, labels: {{{labels}}}}}
status: {{allocatable: {{{allocatable}}}}}
"""


def pods_on(*nodes: str) -> str:
    return "".join(
        f"""
---
apiVersion: v1
kind: Pod
metadata:
  name: job-worker-{index}
  namespace: ml
  labels: {{training.kubeflow.org/job-name: job}}
  ownerReferences: [{{apiVersion: kubeflow.org/v1, kind: PyTorchJob, name: job, uid: u, controller: true}}]
spec: {{nodeName: {name}, containers: [{{name: c, image: 'i:1', resources: {{limits: {{nvidia.com/gpu: 8}}}}}}]}}
"""
        for index, name in enumerate(nodes)
    )


@pytest.mark.parametrize(
    ("spec", "found"),
    [("role: r", 1), ("placementGroupSelector: {name: pg}", 0), ("capacityReservationSelectorTerms: [{id: cr-1}]", 0)],
)
def test_nodes_of_a_class_without_a_placement_group_are_in_none(spec: str, found: int) -> None:
    made = "karpenter.k8s.aws/ec2nodeclass: gpu"
    node_class = (
        f"\n---\napiVersion: karpenter.k8s.aws/v1\nkind: EC2NodeClass\nmetadata: {{name: gpu}}\nspec: {{{spec}}}\n"
    )
    text = job() + node_class + node("a", made) + node("b", made) + pods_on("a", "b")
    assert len(findings(text, "training-placement", complete=True)) == found


@pytest.mark.parametrize(
    ("label", "resource"),
    [
        ("cloud.google.com/gke-tpu-accelerator: tpu-v5-lite-podslice", "google.com/tpu"),
        ("node.kubernetes.io/instance-type: dl1.24xlarge", "habana.ai/gaudi"),
        ("node.kubernetes.io/instance-type: trn1.32xlarge", "aws.amazon.com/neuron"),
    ],
)
def test_nodes_of_every_accelerator_have_to_offer_it(label: str, resource: str) -> None:
    (without,) = findings(node("n", label, "cpu: '8'"), "gpu-advertised", complete=True)
    assert without.evidence[0].field == f"status.allocatable[{resource}]"
    assert findings(node("n", label, f"{resource}: '16'"), "gpu-advertised", complete=True) == []
