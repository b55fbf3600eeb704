"""Kinds whose operators compose the pods: who they are, what is said of them, and by which field."""

from __future__ import annotations

import pytest

from kubectl_genainet.doctor.objects.stacks import Role
from tests.unit.doctor.worlds.manifests import cluster_of, findings

NIM = """
apiVersion: apps.nvidia.com/v1alpha1
kind: NIMService
metadata: {name: embed, namespace: serving}
spec:
  image: {repository: registry.test/nim/nvidia/embed, tag: "1.6"}
  replicas: 2
  resources: {limits: {nvidia.com/gpu: 1}}
  expose: {service: {port: 8010}}
"""
DYNAMO = """
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata: {name: chat, namespace: serving}
spec:
  services:
    Frontend:
      componentType: frontend
      extraPodSpec: {mainContainer: {image: "registry.test/runtime:1", command: [python3, -m, dynamo.frontend]}}
    decode:
      componentType: worker
      resources: {limits: {gpu: "2"}}
      extraPodSpec:
        mainContainer:
          image: registry.test/runtime:1
          command: [python3, -m, dynamo.vllm, --tensor-parallel-size, "2"]
          env: [{name: NCCL_SOCKET_IFNAME, value: ens5}]
"""
KUBEAI = """
apiVersion: kubeai.org/v1
kind: Model
metadata: {name: small, namespace: serving}
spec: {url: "hf://x/y", engine: VLLM, features: [TextGeneration]}
"""
STORM = """
apiVersion: orchestration.aibrix.ai/v1alpha1
kind: StormService
metadata: {name: pd, namespace: serving}
spec:
  template:
    spec:
      roles:
      - name: prefill
        template:
          metadata: {labels: {app: pd}}
          spec: {containers: [{name: m, image: "vllm/vllm-openai:v0.10.1", ports: [{containerPort: 8000}]}]}
"""
SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: serving}
spec: {type: NodePort, selector: %s, ports: [{port: 80, targetPort: 8000}]}
"""


def roles(text: str) -> dict[str, Role]:
    cluster = cluster_of(text)
    return {w.part or w.name: cluster.role(w) for w in cluster.workloads}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NIM, {"embed": Role.MODEL_SERVER}),
        (DYNAMO, {"Frontend": Role.ROUTER, "decode": Role.MODEL_SERVER}),
        (KUBEAI, {"small": Role.MODEL_SERVER}),
        (STORM, {"pd": Role.MODEL_SERVER}),
    ],
)
def test_each_kind_has_its_role(text: str, expected: dict[str, Role]) -> None:
    assert roles(text) == expected


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        (NIM, "{app: embed}"),
        (DYNAMO, "{nvidia.com/dynamo-component: Frontend}"),
        (KUBEAI, "{model: small}"),
        (STORM, "{storm-service-name: pd, role-name: prefill}"),
    ],
)
def test_services_are_joined_by_the_labels_that_the_operator_adds(text: str, selector: str) -> None:
    service = SERVICE % selector
    assert findings(text + service, "service-selector") == []
    assert len(findings(text + service, "service-node-port")) == 1


def test_the_operators_own_probes_count_unless_they_are_switched_off() -> None:
    assert findings(NIM, "readiness-probe") == []
    off = NIM + "  readinessProbe: {enabled: false}\n"
    assert findings(off, "readiness-probe") == [], "the operator's startup probe waits for the model"
    (found,) = findings(off + "  startupProbe: {enabled: false}\n", "readiness-probe")
    assert found.evidence[0].field == "spec"
    assert found.remedy is not None
    assert found.remedy.command == "kubectl -n serving edit nimservice.apps.nvidia.com/embed"


def test_a_field_of_a_composed_container_is_the_field_of_the_object() -> None:
    (found,) = findings(DYNAMO, "nccl-settings")
    assert found.evidence[0].field == "spec.services.decode.extraPodSpec.mainContainer.env[0].value"
    assert found.remedy is not None
    assert found.remedy.command == "kubectl -n serving edit dynamographdeployment.nvidia.com/chat"


def test_an_inference_service_passes_its_annotations_on_to_its_pods() -> None:
    text = """
apiVersion: serving.kserve.io/v1alpha1
kind: LLMInferenceService
metadata: {name: moe, namespace: serving, annotations: {k8s.v1.cni.cncf.io/networks: roce}}
spec:
  template:
    containers:
    - name: main
      image: "vllm/vllm-openai:v0.10.1"
      resources: {limits: {nvidia.com/gpu: 8}}
      env: [{name: NCCL_SOCKET_IFNAME, value: net1}]
"""
    assert findings(text, "nccl-settings") == []
    assert len(findings(text.replace("net1", "net2"), "nccl-settings")) == 1


LLM = """
apiVersion: serving.kserve.io/v1alpha1
kind: LLMInferenceService
metadata: {name: qwen, namespace: serving}
spec: {model: {uri: "hf://Qwen/Qwen3-8B"}, replicas: 2, router: {route: {}, gateway: {}}}
"""
ELASTIC = """
apiVersion: elasticsearch.k8s.elastic.co/v1
kind: Elasticsearch
metadata: {name: vectors, namespace: serving}
spec: {version: 9.1.0, nodeSets: [{name: default, count: 3, config: {node.store.allow_mmap: false}}]}
"""
RAG = """
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: rag, namespace: serving}
spec:
  template:
    metadata: {labels: {app: rag}}
    spec:
      containers:
      - name: c
        image: registry.test/rag:1
        env: [{name: STORE, value: "http://front:80"}, {name: LLM_URL, value: "https://api.openai.com/v1"}]
"""
CLOSED = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: serving}
spec:
  podSelector: {matchLabels: {elasticsearch.k8s.elastic.co/cluster-name: vectors}}
  ingress: [{from: [{podSelector: {matchLabels: {app: PEER}}}]}]
"""


def test_a_model_without_a_template_is_served_by_the_preset() -> None:
    assert roles(LLM) == {"qwen": Role.MODEL_SERVER}
    selector = "{app.kubernetes.io/name: qwen, app.kubernetes.io/part-of: llminferenceservice}"
    joined = LLM + SERVICE % selector
    assert len(findings(joined, "service-node-port")) == 1
    assert findings(joined, "readiness-probe") == [], "KServe's preset has the probes"
    assert len(findings(LLM + SERVICE % selector.replace("qwen", "other"), "service-node-port")) == 0
    given = LLM.replace(
        "replicas: 2", "replicas: 2, template: {containers: [{name: main, image: 'registry.test/m:1'}]}"
    )
    (workload,) = cluster_of(given).workloads
    assert [c.image for c in workload.containers] == ["registry.test/m:1"]


def test_an_elasticsearch_that_an_application_asks_is_its_vector_store() -> None:
    front = (SERVICE % "{elasticsearch.k8s.elastic.co/cluster-name: vectors}").replace("8000", "9200")
    assert roles(ELASTIC)["vectors"] is Role.UNKNOWN
    assert roles(ELASTIC + front + RAG)["vectors"] is Role.VECTOR_DATABASE
    front = front.replace("NodePort", "LoadBalancer")
    assert len(findings(ELASTIC + front + RAG, "vector-database-exposed")) == 1
    inside = (ELASTIC + front + RAG).replace("type: LoadBalancer, ", "")
    assert findings(inside, "vector-database-exposed") == []


@pytest.mark.parametrize(("peer", "found"), [("rag", 0), ("other", 1)])
def test_a_policy_is_joined_to_the_pods_that_the_operator_of_elasticsearch_makes(peer: str, found: int) -> None:
    front = (SERVICE % "{common.k8s.elastic.co/type: elasticsearch}").replace("8000", "9200")
    text = ELASTIC + front + RAG + CLOSED.replace("PEER", peer)
    assert len(findings(text, "policy-blocks-call", complete=True)) == found


OPENSEARCH = """
apiVersion: opensearch.opster.io/v1
kind: OpenSearchCluster
metadata: {name: vectors, namespace: serving}
spec:
  general: {serviceName: front, version: 1.3.20, httpPort: 9201, serviceAccount: search, annotations: {of: the Services}}
  nodePools:
  - {component: masters, replicas: 3, roles: [master]}
  - component: data
    replicas: 2
    roles: [data]
    nodeSelector: {disk: nvme}
    labels: {team: rag}
    resources: {limits: {memory: 8Gi}}
"""


def test_each_node_pool_of_an_opensearch_is_a_workload() -> None:
    data, masters = cluster_of(OPENSEARCH).workloads
    cluster = {"opster.io/opensearch-cluster": "vectors"}
    assert masters.labels == {
        **cluster,
        "opster.io/opensearch-nodepool": "masters",
        "opensearch.role": "master",
    }
    assert data.labels == {**cluster, "opster.io/opensearch-nodepool": "data", "team": "rag"}
    assert data.template.spec["nodeSelector"] == {"disk": "nvme"}
    assert data.template.spec["serviceAccountName"] == "search"
    assert data.template.annotations == {}
    (container,) = data.containers
    assert (container.image, container.amount("memory")) == ("docker.io/opensearchproject/opensearch:1.3.20", 2**33)
    assert [p["containerPort"] for p in container.raw["ports"]] == [9201, 9300]


def test_an_opensearch_that_an_application_asks_is_its_vector_store() -> None:
    asking = OPENSEARCH + RAG.replace("http://front:80", "https://front:9201")
    assert Role.VECTOR_DATABASE in roles(asking).values()
    policy = CLOSED.replace("elasticsearch.k8s.elastic.co/cluster-name", "opster.io/opensearch-cluster")
    for peer, found in (("rag", 0), ("other", 2)):  # of either pool
        assert len(findings(asking + policy.replace("PEER", peer), "policy-blocks-call", complete=True)) == found
