"""The Services that operators make: a call of one leads to the operator's pods, though the manifests hold no Service."""

from __future__ import annotations

import pytest

from kubectl_genainet.doctor.objects.stacks import Role
from tests.unit.doctor.worlds.manifests import cluster_of, deployment, findings, report_of, service

ELASTIC = """
apiVersion: elasticsearch.k8s.elastic.co/v1
kind: Elasticsearch
metadata: {name: vectors, namespace: ml}
spec: {version: 9.1.0, nodeSets: [{name: hot, count: 3}]}
"""
OPENSEARCH = """
apiVersion: opensearch.opster.io/v1
kind: OpenSearchCluster
metadata: {name: vectors, namespace: ml}
spec:
  general: {serviceName: search, httpPort: 9201, version: 2.19.2}
  dashboards: {enable: true, version: 2.19.2, replicas: 1}
  nodePools: [{component: hot, replicas: 3, diskSize: 30Gi, roles: [cluster_manager, data]}]
"""
POSTGRES = """
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata: {name: facts, namespace: ml}
spec: {instances: 3}
"""
ZALANDO = """
apiVersion: acid.zalan.do/v1
kind: postgresql
metadata: {name: acid-facts, namespace: ml}
spec: {teamId: acid, numberOfInstances: 2, enableConnectionPooler: true, volume: {size: 10Gi}, postgresql: {version: "17"}}
"""
MILVUS = """
apiVersion: milvus.io/v1beta1
kind: Milvus
metadata: {name: docs, namespace: ml}
spec: {mode: cluster, components: {image: milvusdb/milvus:v2.6.0}}
"""
NIM = """
apiVersion: apps.nvidia.com/v1alpha1
kind: NIMService
metadata: {name: embed, namespace: ml}
spec: {image: {repository: nvcr.io/nim/nvidia/embed, tag: "1.6"}, expose: {service: {port: 8010}}}
"""


def rag(url: str) -> str:
    model = "{name: OPENAI_BASE_URL, value: 'https://api.openai.com/v1'}"
    return deployment("rag", f"image: 'registry.test/rag:1', env: [{model}, {{name: STORE_URL, value: '{url}'}}]")


@pytest.mark.parametrize(
    ("made", "url", "callee"),
    [
        (ELASTIC, "https://vectors-es-http:9200", "vectors"),
        (ELASTIC, "https://vectors-es-internal-http.ml.svc:9200", "vectors"),
        (ELASTIC, "https://vectors-es-hot.ml.svc.cluster.local:9200", "vectors"),
        (OPENSEARCH, "https://search:9201", "vectors"),
        (OPENSEARCH, "https://search-hot.ml.svc.cluster.local:9201", "vectors"),
        (OPENSEARCH.replace(".opster.io", ".org"), "https://search:9201", "vectors"),
        (NIM, "http://embed.ml.svc:8010/v1", "embed"),
    ],
)
def test_a_call_of_an_operators_service_leads_to_its_pods(made: str, url: str, callee: str) -> None:
    cluster = cluster_of(made + rag(url), complete=True)
    (call,) = [c for c in cluster.calls if c.service is not None]
    assert call.service is not None
    assert call.service_port is not None
    assert [w.name for w in cluster.workloads_of(call.service)] == [callee]
    assert findings(made + rag(url), "call-host", complete=True) == []
    assert findings(made + rag(url), "call-port", complete=True) == []


def test_an_elasticsearch_that_an_application_calls_is_its_store() -> None:
    cluster = cluster_of(ELASTIC + rag("https://vectors-es-http.ml.svc:9200"))
    assert [cluster.role(w) for w in cluster.workloads if w.name == "vectors"] == [Role.VECTOR_DATABASE]


@pytest.mark.parametrize("url", ["https://vector-es-http:9200", "https://vectors-es-http.other.svc:9200"])
def test_a_service_that_no_operator_makes_does_not_exist(url: str) -> None:
    assert len(findings(ELASTIC + rag(url), "call-host", complete=True)) == 1


@pytest.mark.parametrize(
    ("made", "host", "port"),
    [(ELASTIC, "vectors-es-http", 9201), (POSTGRES, "facts-rw", 5433), (OPENSEARCH, "search", 9200)],
)
def test_a_port_that_the_operator_gives_no_service_is_found(made: str, host: str, port: int) -> None:
    (found,) = findings(made + rag(f"https://{host}:{port}"), "call-port", complete=True)
    assert f"port {port} of Service ml/{host}" in found.title
    assert findings(made + rag(f"https://{host}:{port}"), "call-host", complete=True) == []


def test_a_service_that_is_written_goes_before_the_operators() -> None:
    own = "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: vectors-es-http, namespace: ml}\nspec: {ports: [{port: 443}]}\n"
    assert findings(ELASTIC + own + rag("https://vectors-es-http:443"), "call-port", complete=True) == []
    assert len(findings(ELASTIC + own + rag("https://vectors-es-http:9200"), "call-port", complete=True)) == 1


@pytest.mark.parametrize(
    ("made", "host", "there"),
    [
        (ZALANDO, "acid-facts:5432", True),
        (ZALANDO, "acid-facts-repl.ml.svc.cluster.local:5432", True),
        (ZALANDO, "acid-facts-pooler:5432", True),
        (ZALANDO, "acid-facts-pooler-repl:5432", False),
        (ZALANDO.replace("enableConnectionPooler: true", "enableLogicalBackup: true"), "acid-facts-pooler:5432", False),
        (MILVUS, "docs-milvus:19530", True),
        (MILVUS, "docs-milvus.ml.svc:9091", True),
        (MILVUS, "docs:19530", False),
    ],
)
def test_a_database_that_an_operator_runs_has_the_services_of_its_operator(made: str, host: str, there: bool) -> None:
    assert (findings(made + rag(f"http://{host}"), "call-host", complete=True) == []) is there
    assert findings(made + rag(f"http://{host}"), "call-port", complete=True) == []


@pytest.mark.parametrize(
    ("made", "host", "port"),
    [(ZALANDO, "acid-facts", 5433), (ZALANDO, "acid-facts-pooler", 6432), (MILVUS, "docs-milvus", 9000)],
)
def test_another_port_than_its_operator_gives_a_database_is_found(made: str, host: str, port: int) -> None:
    (found,) = findings(made + rag(f"http://{host}:{port}"), "call-port", complete=True)
    assert f"port {port} of Service ml/{host}" in found.title


INFERENCE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: llama, namespace: ml, annotations: {serving.kserve.io/deploymentMode: MODE}}
spec:
  transformer: {containers: [{name: kserve-container, image: 'registry.test/tokens:1'}]}
  predictor: {model: {modelFormat: {name: huggingface}, args: [--model_id=llama], resources: {limits: {nvidia.com/gpu: 1}}}}
"""
RAY_NODE = (
    "{containers: [{name: ray, image: 'rayproject/ray-llm:2.46.0', ports: [{containerPort: 8000, name: serve}]}]}"
)
RAY_CLUSTER = f"""
apiVersion: ray.io/v1
kind: RayCluster
metadata: {{name: llama, namespace: ml, annotations: {{ray.io/enable-serve-service: "true"}}}}
spec: {{headGroupSpec: {{template: {{spec: {RAY_NODE}}}}}}}
"""
RAY_SERVICE = f"""
apiVersion: ray.io/v1
kind: RayService
metadata: {{name: llama, namespace: ml}}
spec:
  rayClusterConfig: {{headGroupSpec: {{template: {{spec: {RAY_NODE}}}}}}}
"""
ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: ml}
spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{name: NAME, port: PORT}], timeouts: {request: 30s}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i, namespace: ml}
spec:
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: NAME, port: {number: PORT}}}}]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: ml}
spec: {hosts: [a.test], http: [{route: [{destination: {host: NAME.ml.svc.cluster.local, port: {number: PORT}}}]}]}
"""
RAW, KNATIVE = INFERENCE.replace("MODE", "RawDeployment"), INFERENCE.replace("MODE", "Knative")
BACKENDS = ("ingress-backend", "route-backend", "virtual-service-backend")


def routes(name: str, port: int) -> str:
    return ROUTE.replace("NAME", name).replace("PORT", str(port))


@pytest.mark.parametrize(
    ("made", "name", "port"),
    [
        (RAW, "llama-predictor", 80),
        (RAW, "llama-predictor", 8080),
        (RAW, "llama-transformer", 80),
        (KNATIVE, "llama-predictor", 80),
        (KNATIVE, "llama", 80),
        (RAY_CLUSTER, "llama-head-svc", 8000),
        (RAY_CLUSTER, "llama-head-svc", 8080),
        (RAY_CLUSTER, "llama-serve-svc", 8000),
        (RAY_SERVICE, "llama-head-svc", 8000),
        (RAY_SERVICE, "llama-serve-svc", 8000),
        (NIM, "embed", 8010),
        (ELASTIC, "vectors-es-http", 9200),
        (OPENSEARCH, "search", 9600),
        (OPENSEARCH, "vectors-dashboards", 5601),
    ],
)
def test_a_route_to_an_operators_service_is_not_dangling(made: str, name: str, port: int) -> None:
    for complete in (False, True):
        report = report_of(made + routes(name, port), complete=complete)
        assert [f for f in report.findings if f.check in BACKENDS] == []
    assert findings(made + rag(f"http://{name}:{port}"), "call-host", complete=True) == []
    assert findings(made + rag(f"http://{name}:{port}"), "call-port", complete=True) == []


def test_a_name_that_nearly_is_a_written_services_is_the_operators_all_the_same() -> None:
    near = service("llama-predictors", "{ports: [{port: 80}]}")
    assert findings(RAW + near + routes("llama-predictor", 80), "ingress-backend") == []
    assert len(findings(near + routes("llama-predictor", 80), "ingress-backend")) == 1


@pytest.mark.parametrize(
    ("made", "name", "port", "title"),
    [
        (RAY_SERVICE, "llama-serve-svc", 8265, "port 8265"),
        (RAY_CLUSTER, "llama-head-svc", 80, "port 80"),
        (RAY_CLUSTER.replace("enable-serve", "other"), "llama-serve-svc", 8000, "does not exist"),
        (RAW, "llama-explainer", 80, "does not exist"),
        (RAW, "llama", 80, "does not exist"),
    ],
)
def test_what_no_operator_makes_is_found_in_routes(made: str, name: str, port: int, title: str) -> None:
    report = report_of(made + routes(name, port), complete=True)
    found = {f.check: f.title for f in report.findings if f.check in BACKENDS}
    assert sorted(found) == sorted(BACKENDS)
    assert all(title in t or "no port" in t for t in found.values()), found


def test_a_route_to_an_operators_service_leads_to_its_pods() -> None:
    (found,) = findings(RAY_SERVICE + routes("llama-serve-svc", 8000), "route-stream-timeout")
    assert "30 s" in found.title


def test_a_ray_services_service_leads_to_no_other_ray_cluster() -> None:
    images = RAY_SERVICE.replace("name: llama", "name: images").replace("ray-llm", "ray")
    made = cluster_of(images + "---" + RAY_SERVICE)
    behind = [made.workloads_of(s) for n in ("images", "llama") if (s := made.service("ml", f"{n}-serve-svc"))]
    assert [[w.name for w in workloads] for workloads in behind] == [["images"], ["llama"]]
    assert findings(images + "---" + RAY_SERVICE + routes("images-serve-svc", 8000), "route-stream-timeout") == []


def test_the_service_that_a_ray_object_names_itself_counts() -> None:
    own = "spec:\n  serveService: {metadata: {name: chat}, spec: {ports: [{name: serve, port: 80, targetPort: 8000}]}}"
    assert findings(RAY_SERVICE.replace("spec:", own, 1) + routes("chat", 80), "route-backend", complete=True) == []
    head = RAY_CLUSTER.replace("headGroupSpec: {", "headGroupSpec: {headService: {metadata: {name: boss}}, ")
    assert findings(head + routes("boss", 8000), "route-backend", complete=True) == []


@pytest.mark.parametrize(
    ("made", "labels"),
    [
        (RAW, "serving.kserve.io/inferenceservice: llama, component: predictor"),
        (KNATIVE, "serving.knative.dev/service: llama-predictor"),
        (RAY_CLUSTER, "ray.io/cluster: llama, ray.io/node-type: head"),
        (RAY_SERVICE, "ray.io/node-type: head, ray.io/serve: 'true'"),
        (OPENSEARCH, "opster.io/opensearch-cluster: vectors, opster.io/opensearch-nodepool: hot"),
        (OPENSEARCH, "opensearch.role: cluster_manager"),
    ],
)
def test_a_policy_for_an_operators_pods_selects_something(made: str, labels: str) -> None:
    policy = f"""
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: p, namespace: ml}}
spec: {{podSelector: {{matchLabels: {{{labels}}}}}, policyTypes: [Ingress], ingress: [{{}}]}}
"""
    assert [f for f in report_of(made + policy, complete=True).findings if f.check == "policy-selects-nothing"] == []


def test_a_policy_for_another_ray_cluster_selects_nothing() -> None:
    policy = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: ml}
spec: {podSelector: {matchLabels: {ray.io/cluster: lama}}, policyTypes: [Ingress], ingress: [{}]}
"""
    found = findings(RAY_CLUSTER + policy, "policy-selects-nothing", complete=True)
    assert [f.object.name for f in found if f.object] == ["p"]


DRAGONFLY = """
apiVersion: dragonflydb.io/v1alpha1
kind: Dragonfly
metadata: {name: search, namespace: ml}
spec: {replicas: 1}
"""


def test_a_service_that_two_operators_make_has_the_ports_of_neither() -> None:
    front = service("front", "{selector: {app: rag}, ports: [{port: 80}]}")
    for made, url, found in (
        (DRAGONFLY, "redis://search:6379/0", 0),
        (DRAGONFLY, "http://search:9200", 1),
        (OPENSEARCH, "redis://search:6379/0", 1),
        (f"{OPENSEARCH}---{DRAGONFLY}", "redis://search:6379/0", 0),
        (f"{DRAGONFLY}---{OPENSEARCH}", "http://search:9200", 0),
    ):
        assert len(findings(made + "---" + rag(url) + front, "call-port")) == found, (made, url)
