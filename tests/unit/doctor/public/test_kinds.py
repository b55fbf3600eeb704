"""Kinds of files that public repositories have and that are no fault: each beside one that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.kube.manifests import load_manifests
from tests.unit.doctor.worlds.manifests import findings, unchecked


def deployment(name: str, image: str, container: str = "", spec: str = "", namespace: str = "ml") -> str:
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: c, image: "{image}", {container}}}]{spec}}}
---
"""


def service(name: str, port: str, more: str = "") -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: ml}}
spec: {{selector: {{app: {name}}}, ports: [{port}]{more}}}
---
"""


GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ml}
spec: {gatewayClassName: edge, listeners: [{name: LISTENER, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}
---
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: ml}
spec: {parentRefs: [{name: gw, sectionName: web}], rules: []}
---
"""


def of_files(tmp_path: Path, check: str, *texts: str) -> tuple[list[str], str]:
    """(titles of a check's findings, what it did not check) of a folder with these files."""
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.yaml").write_text(text)
    report = examine(Cluster(load_manifests([str(tmp_path)])), all_checks())
    reasons = "; ".join(n.reason for n in report.not_checked if n.what == check)
    return [f.title for f in report.findings if f.check == check], reasons


def test_of_a_gateway_given_in_two_ways_nobody_knows_which_a_route_means(tmp_path: Path) -> None:
    other = GATEWAY.replace("LISTENER", "api")
    assert findings(other + ROUTE, "route-listener")
    titles, reasons = of_files(tmp_path, "route-listener", GATEWAY.replace("LISTENER", "web"), ROUTE + other)
    assert titles == []
    assert "Gateway ml/gw is given more than once" in reasons


INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: NAME, namespace: ml}
spec:
  ingressClassName: nginx
  rules:
  - host: chat.test.dev
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: NAME, port: {number: 80}}}}]}
---
"""


@pytest.mark.parametrize(("one", "other", "conflicts"), [("a", "b", 0), ("a", "a", 1)])
def test_files_that_give_one_object_differently_are_not_applied_together(
    tmp_path: Path, one: str, other: str, conflicts: int
) -> None:
    variant = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: ml}\ndata: {mode: %s}\n---\n"
    texts = (variant % one + INGRESS.replace("NAME", "old"), variant % other + INGRESS.replace("NAME", "new"))
    titles, reasons = of_files(tmp_path, "ingress-path-conflict", *texts)
    assert len(titles) == conflicts
    assert ("one of several files that give the same object differently" in reasons) is (one != other)


def test_a_gateway_in_a_file_has_no_conditions_before_a_controller_saw_it() -> None:
    remote = GATEWAY.replace("LISTENER", "web").replace("---", "status: {addresses: [{value: 192.0.2.1}]}\n---")
    assert findings(remote, "gateway-accepted") == []
    seen = remote.replace("{name: gw,", "{name: gw, uid: 0b0a6d4e-3f43-4f2e-8a3e-5d3c8f5f6a11,")
    assert len(findings(seen, "gateway-accepted")) == 1


CERTIFICATE = """
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: web, namespace: ml%s}
spec: {secretName: web-tls}
---
"""
WITH_TLS = INGRESS.replace("spec:", "spec:\n  tls: [{secretName: web-tls, hosts: [chat.test.dev]}]").replace(
    "NAME", "web"
)


def test_a_certificate_in_a_file_was_not_issued_yet() -> None:
    assert findings(CERTIFICATE % "" + WITH_TLS, "ingress-tls") == []
    assert findings(CERTIFICATE % ", uid: 0b0a6d4e-3f43-4f2e-8a3e-5d3c8f5f6a11" + WITH_TLS, "ingress-tls")


VLLM = "vllm/vllm-openai:v0.10.0"
MEETS = 'args: ["--model", m, "--port", "8000"], env: [{name: MASTER_PORT, value: "29500"}]'


def test_a_service_for_the_port_where_ranks_meet_is_no_wrong_port() -> None:
    rendezvous = service("llm", "{port: 29500}", ", clusterIP: None")
    assert findings(deployment("llm", VLLM, MEETS) + rendezvous, "server-port") == []
    assert findings(deployment("llm", VLLM, MEETS.replace("29500", "29400")) + rendezvous, "server-port")


@pytest.mark.parametrize(
    ("image", "container", "found"),
    [
        (VLLM, "args: [--model, m]", 1),
        (VLLM, 'args: [--model, m], env: [{name: NODE_RANK, value: "1"}]', 0),
        (VLLM, 'args: [--model, m], env: [{name: NODE_RANK, value: "0"}]', 1),
        (VLLM, "args: [--model, m], startupProbe: {httpGet: {path: /health, port: 8000}}", 0),
        ("ollama/ollama:0.9", "startupProbe: {tcpSocket: {port: 11434}}", 1),
        ("lmsysorg/sglang:v0.5.5", "command: [python, -m, mooncake.mooncake_store_service]", 0),
        ("registry.test/llama-factory:1", "ports: [{containerPort: 8000}]", 0),
        ("ghcr.io/llm-d/llm-d-workload-variant-autoscaler:v1", "args: [--leader-elect]", 0),
        ("registry.test/worker:1", "command: [python3, -m, dynamo.vllm]", 0),
        (VLLM, 'command: [sh, -c, "cd /app && uvicorn --port 8001 launcher:app"]', 0),
        (VLLM, "args: [--model, m, --uvicorn-log-level, info]", 1),
    ],
)
def test_what_serves_no_model_by_itself_needs_no_readiness_probe(image: str, container: str, found: int) -> None:
    assert len(findings(deployment("llama-one", image, container), "readiness-probe")) == found


def test_a_server_that_loads_a_model_when_asked_is_not_killed_while_it_loads() -> None:
    probe = "livenessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 5}"
    assert findings(deployment("o", "ollama/ollama:0.9", probe), "startup-budget") == []
    assert findings(deployment("t", "ghcr.io/huggingface/text-generation-inference:3", probe), "startup-budget")


def route(name: str) -> str:
    return f"""
apiVersion: route.openshift.io/v1
kind: Route
metadata: {{name: {name}, namespace: ml}}
spec: {{to: {{kind: Service, name: {name}}}}}
---
"""


@pytest.mark.parametrize(
    ("image", "container", "cut"),
    [
        (VLLM, "args: [--model, m]", 1),
        ("ghcr.io/huggingface/text-embeddings-inference:1.7", "ports: [{containerPort: 80}]", 0),
        ("zilliz/attu:v2.4", "env: [{name: MILVUS_URL, value: 'http://milvus:19530'}]", 0),
        (
            "registry.test/rag:1",
            "env: [{name: MILVUS_URL, value: 'http://milvus:19530'}, {name: LLM_MODEL, value: m}]",
            1,
        ),
    ],
)
def test_tokens_come_from_models_and_not_from_embeddings_or_consoles(image: str, container: str, cut: int) -> None:
    milvus = deployment("milvus", "milvusdb/milvus:v2.5", "ports: [{containerPort: 19530}]") + service(
        "milvus", "{port: 19530}"
    )
    text = deployment("front", image, container) + service("front", "{port: 80}") + route("front") + milvus
    assert len(findings(text, "openshift-route-timeout")) == cut


VIRTUAL = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: ml}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [chat.test.dev]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: chat, namespace: ml}
spec: {hosts: [chat.test.dev, chat.ml.svc.cluster.local], gateways: GATEWAYS, http: []}
"""


@pytest.mark.parametrize(("gateways", "found"), [("[edge, mesh]", 0), ("[edge]", 1)])
def test_hosts_for_clients_in_the_mesh_are_not_the_gateways(gateways: str, found: int) -> None:
    assert len(findings(VIRTUAL.replace("GATEWAYS", gateways), "virtual-service-gateway")) == found


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("prefill-0.s-prefill", 0),  # POD.SUBDOMAIN: the first search domain has it
        ("llm.serving", 0),  # SERVICE.NAMESPACE: the second has it
        ("llm-0.llm.serving", 0),
        ("api.openai.com", 1),
        ("openai.com", 1),
    ],
)
def test_names_of_pods_and_services_are_no_names_of_the_internet(host: str, found: int) -> None:
    text = deployment(
        "app",
        "registry.test/app:1",
        f"env: [{{name: A, value: 'http://{host}/v1'}}, {{name: B, value: 'http://llm:80'}}]",
    )
    server = deployment("llm", VLLM, "args: [--model, m]") + service("llm", "{port: 80, targetPort: 8000}")
    assert len(findings(text + server, "ndots")) == found


def test_a_port_that_a_variable_stands_for_is_not_80() -> None:
    url = "env: [{name: HUB, value: 'http://llm:$(HUB_SERVICE_PORT)/v1'}]"
    server = deployment("llm", VLLM, "args: [--model, m]") + service("llm", "{port: 8081, targetPort: 8000}")
    assert findings(deployment("app", "registry.test/app:1", url) + server, "call-port") == []
    assert findings(
        deployment("app", "registry.test/app:1", url.replace(":$(HUB_SERVICE_PORT)", "")) + server, "call-port"
    )


def test_a_client_without_a_namespace_may_be_where_its_service_is() -> None:
    client = deployment("app", "registry.test/app:1", "env: [{name: DB, value: 'http://mongodb:27017'}]")
    database = deployment("mongodb", "mongo:7", namespace="data") + service("mongodb", "{port: 27017}").replace(
        "ml", "data"
    )
    assert findings(client + database, "call-host")
    assert findings(client.replace(", namespace: ml", "") + database, "call-host") == []


POLICIES = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: own, namespace: ml}
spec: {podSelector: {matchLabels: {app: llm}}, ingress: [{ports: PORTS}]}
"""


@pytest.mark.parametrize(("ports", "found"), [("[{port: 80}]", 1), ("[{port: 8000}, {port: 80}]", 0)])
def test_a_services_port_beside_the_pods_own_is_superfluous_and_no_fault(ports: str, found: int) -> None:
    server = deployment("llm", VLLM, "ports: [{containerPort: 8000}]") + service("llm", "{port: 80, targetPort: 8000}")
    assert len(findings(server + POLICIES.replace("PORTS", ports), "policy-service-port")) == found


def test_a_device_whose_name_says_nothing_of_rdma_may_bring_it() -> None:
    mounts = "volumeMounts: [{name: ib, mountPath: /dev/infiniband}], resources: {limits: {nvidia.com/gpu: 8%s}}"
    volumes = ", volumes: [{name: ib, hostPath: {path: /dev/infiniband}}]"
    assert findings(deployment("t", VLLM, mounts % "", volumes), "rdma-host-path")
    assert findings(deployment("t", VLLM, mounts % ", nvidia.com/hostdev: 8", volumes), "rdma-host-path") == []


def test_a_gateways_proxies_listen_where_they_are_told() -> None:
    proxy = deployment("gw", "docker.io/envoyproxy/envoy:v1.33", "ports: [{containerPort: 15020}]")
    assert findings(proxy + service("gw", "{port: 80, targetPort: 8080}"), "service-target-port") == []
    assert "listens where its control plane tells it to" in unchecked(
        proxy + service("gw", "{port: 80, targetPort: 8080}"), "service-target-port"
    )


POOL = """
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llm, namespace: ml}
spec:
  selector: {matchLabels: {app: llm}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: PICKER
---
"""


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("--pool-name, llm, --pool-namespace, ml, --pool-group, inference.networking.k8s.io", 0),
        ("--pool-name, llm, --pool-namespace, ml, --pool-group, inference.networking.x-k8s.io", 1),
        ("--pool-name=other, --pool-namespace, ml", 1),
        ("--pool-name, llm, --pool-namespace, $(NAMESPACE)", 0),
    ],
)
def test_an_endpoint_picker_watches_the_pool_that_names_it(told: str, found: int) -> None:
    picker = deployment("epp", "ghcr.io/llm-d/llm-d-inference-scheduler:v0.4", f"args: [{told}, --grpc-port, '9002']")
    server = deployment("llm", VLLM, "args: [--model, m]")
    pool = POOL.replace("PICKER", "{name: epp, port: {number: 9002}}")
    assert len(findings(pool + server + picker + service("epp", "{port: 9002}"), "inference-pool")) == found


def test_a_picker_that_is_no_service_is_left_to_its_gateway() -> None:
    pool = POOL.replace("PICKER", "{group: extensions.test.dev, kind: WasmPlugin, name: picker}")
    server = deployment("llm", VLLM, "args: [--model, m]")
    assert findings(pool + server, "inference-pool", complete=True) == []
    assert "its endpoint picker is a WasmPlugin" in unchecked(pool + server, "inference-pool", complete=True)


@pytest.mark.parametrize(("other", "found"), [("", 1), (", networking.gke.io/load-balancer-type: Internal", 0)])
def test_a_load_balancer_for_several_clouds_may_be_on_another_one(other: str, found: int) -> None:
    internal = "service.beta.kubernetes.io/aws-load-balancer-scheme: internal"
    text = service("llm", "{port: 80}", ", type: LoadBalancer").replace(
        "namespace: ml", f"namespace: ml, annotations: {{{internal}{other}}}"
    )
    assert len(findings(text, "nlb-legacy", complete=True)) == found
