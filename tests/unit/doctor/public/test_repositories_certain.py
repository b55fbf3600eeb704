"""What public repositories showed to be uncertain: who uses a port, which model a server has, where a device is."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import cluster_of, deployment, findings, service, unchecked

VLLM = "image: 'vllm/vllm-openai:v0.11.0', args: [--model, org/m], ports: [{containerPort: 8000}]"
NODE_PORT = "{type: NodePort, selector: {app: llm}, ports: [{port: 80, targetPort: 8000}]}"
ALB = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: llm
  namespace: ml
  annotations:
    alb.ingress.kubernetes.io/actions.weighted: >-
      {"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "llm", "servicePort": 80}]}}
spec:
  ingressClassName: alb
  rules:
  - http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: weighted, port: {name: use-annotation}}}}]}
"""


def test_a_node_port_is_information_and_none_where_an_ingress_leads_to_it() -> None:
    text = deployment("llm", VLLM) + service("llm", NODE_PORT)
    assert [f.severity for f in findings(text, "service-node-port")] == [Severity.INFO]
    assert findings(text + ALB, "service-node-port") == []


@pytest.mark.parametrize("host", ["api.openai.com", "llm.ml.svc.cluster.local"])
def test_lookups_that_nobody_counted_are_information(host: str) -> None:
    app = deployment(
        "chat", f"image: 'registry.test/chat:1', env: [{{name: OPENAI_API_BASE, value: 'http://{host}/v1'}}]"
    )
    server = deployment("llm", VLLM) + service("llm", "{selector: {app: llm}, ports: [{port: 80, targetPort: 8000}]}")
    assert [f.severity for f in findings(app + server, "ndots")] == [Severity.INFO]


def test_a_mapping_of_an_external_name_harms_those_who_call_its_port() -> None:
    alias = service("db", "{type: ExternalName, externalName: db.example.com, ports: [{port: 80, targetPort: 8080}]}")
    (unused,) = findings(alias, "external-name-port")
    assert unused.severity is Severity.INFO
    app = deployment("app", "image: 'registry.test/app:1', env: [{name: DB, value: 'http://db:80'}]")
    (used,) = findings(alias + app, "external-name-port")
    assert used.severity is Severity.WARNING
    assert "is configured to call Service ml/db" in used.evidence[1].statement


CLAIM = """
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: nic, namespace: ml}
spec: {spec: {devices: {requests: [{name: nic, exactly: {deviceClassName: dranet}}]}}}
"""
SLICE = """
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: node-1-nics}
spec: {driver: dra.net, nodeName: node-1, devices: [DEVICES]}
"""


@pytest.mark.parametrize(
    ("devices", "severity"), [("{name: a}", Severity.INFO), ("{name: a}, {name: b}", Severity.WARNING)]
)
def test_a_claim_gets_a_far_device_where_a_node_has_several(devices: str, severity: Severity) -> None:
    asked = "resources: {limits: {nvidia.com/gpu: 2}, claims: [{name: nic}]}"
    pod = deployment("train", f"image: 'registry.test/t:1', {asked}").replace(
        "spec: {containers", "spec: {resourceClaims: [{name: nic, resourceClaimTemplateName: nic}], containers"
    )
    (told,) = findings(pod + CLAIM + SLICE.replace("DEVICES", devices), "dra-nic-and-gpu", complete=True)
    assert told.severity is severity
    assert [f.severity for f in findings(pod + CLAIM, "dra-nic-and-gpu")] == [Severity.INFO]


def test_llama_stack_is_an_api_before_models_and_no_model() -> None:
    ports = "ports: [{containerPort: 8000}]"
    assert (
        findings(deployment("llama-stack-70b", f"image: 'meta/llama-stack:latest', {ports}"), "readiness-probe") == []
    )
    assert len(findings(deployment("llama-70b", f"image: 'registry.test/x:1', {ports}"), "readiness-probe")) == 1


INGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: NAME, namespace: ml, annotations: {nginx.ingress.kubernetes.io/proxy-buffering: "off"}}
spec:
  ingressClassName: nginx
  rules:
  - host: a.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: BACKEND, port: PORT}}}]}
"""
ELASTIC = """
apiVersion: elasticsearch.k8s.elastic.co/v1
kind: Elasticsearch
metadata: {name: vectors, namespace: ml}
spec: {version: 9.0.0, http: HTTP, nodeSets: [{name: default, count: 1}]}
"""
PLAIN = "{tls: {selfSignedCertificate: {disabled: true}}}"


@pytest.mark.parametrize(
    ("http", "port", "found"),
    [
        ("{}", "{name: https}", 0),
        ("{}", "{name: http}", 1),
        (PLAIN, "{name: http}", 0),
        ("{service: {spec: {ports: [{name: es, port: 443, targetPort: 9200}]}}}", "{name: es}", 0),
        ("{service: {spec: {ports: [{name: es, port: 443, targetPort: 9200}]}}}", "{number: 9200}", 1),
    ],
)
def test_the_port_of_elasticsearch_is_named_after_its_protocol(http: str, port: str, found: int) -> None:
    route = INGRESS.replace("BACKEND", "vectors-es-http").replace("PORT", port)
    assert len(findings(ELASTIC.replace("HTTP", http) + route, "ingress-backend")) == found


def test_of_an_operators_object_that_is_given_in_two_ways_the_ports_are_not_known(tmp_path: Path) -> None:
    route = INGRESS.replace("BACKEND", "vectors-es-http").replace("PORT", "{name: https}")
    for folder, http in (("one", "{}"), ("two", PLAIN)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "es.yaml").write_text(ELASTIC.replace("HTTP", http) + (route if folder == "one" else ""))
    report = examine(Cluster(load_manifests([str(tmp_path)])), all_checks())
    assert [f for f in report.findings if f.check == "ingress-backend"] == []


RAY = """
---
apiVersion: ray.io/v1
kind: RayService
metadata: {name: NAME, namespace: ml}
spec:
  serveConfigV2: "applications: [{name: app, import_path: 'PROGRAM'}]"
  rayClusterConfig:
    headGroupSpec:
      template:
        spec: {containers: [{name: head, image: 'rayproject/ray:2.46.0', ports: [{containerPort: 8000, name: serve}]}] MORE}
    workerGroupSpecs:
    - {groupName: gpus, template: {spec: {containers: [{name: worker, image: 'rayproject/ray:2.46.0'}]}}}
"""


@pytest.mark.parametrize(
    ("program", "more", "found"),
    [
        ("fruit.deployment_graph", "", 0),
        ("dogbooth:entrypoint", "", 0),
        ("ray.serve.llm:build_openai_app", "", 1),
        ("serve_llama:app", "", 1),
        ("serve_llama:app", ", volumes: [{name: code, configMap: {name: llama-app-code-embedding}}]", 0),
    ],
)
def test_ray_serves_what_its_programs_are(program: str, more: str, found: int) -> None:
    app = RAY.replace("NAME", "answers").replace("PROGRAM", program).replace(" MORE", more)
    route = INGRESS.replace("BACKEND", "answers-serve-svc").replace("PORT", "{number: 8000}")
    assert len(findings(app + route, "ingress-stream-timeout")) == found


@pytest.mark.parametrize(("model", "found"), [("s3://models/densenet", 0), ("s3://models/llama-3-8b", 1)])
def test_a_server_of_every_kind_of_model_streams_where_it_has_a_language_model(model: str, found: int) -> None:
    server = deployment(
        "triton",
        "image: 'nvcr.io/nvidia/tritonserver:25.01-py3', "
        f"command: [tritonserver, --model-repository={model}], ports: [{{containerPort: 8000}}]",
    ) + service("triton", "{selector: {app: triton}, ports: [{port: 8000}]}")
    route = INGRESS.replace("BACKEND", "triton").replace("PORT", "{number: 8000}")
    assert len(findings(server + route, "ingress-stream-timeout")) == found


def reported(root: Path, check: str) -> list[str]:
    report = examine(Cluster(load_manifests([str(root)])), all_checks())
    return [str(f.object) for f in report.findings if f.check == check and f.severity is not Severity.INFO]


def write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize(("folder", "found"), [("examples/k8s", []), ("deploy", ["Service ml/two"])])
def test_examples_of_one_folder_are_applied_one_by_one(tmp_path: Path, folder: str, found: list[str]) -> None:
    for name in ("one", "two"):
        ports = f"{{type: NodePort, selector: {{app: {name}}}, ports: [{{port: 80, nodePort: 30008}}]}}"
        write(tmp_path / folder, f"{name}.yaml", service(name, ports))
    assert reported(tmp_path, "node-port-twice") == found


MILVUS = "image: 'milvusdb/milvus:v2.5.4', args: [milvus, run, standalone]"
MINIO = service("minio", "{selector: {app: minio}, ports: [{port: 9000}]}")


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("", 1),
        (", env: [{name: MINIO_ADDRESS, value: minio}]", 1),
        (", env: [{name: MINIO_ADDRESS, value: 'minio:9000'}]", 0),
    ],
)
def test_milvus_reads_the_port_of_its_store_where_the_address_has_none(address: str, found: int) -> None:
    assert len(findings(deployment("milvus", MILVUS + address) + MINIO, "service-variable")) == found


@pytest.mark.parametrize("namespace", [", namespace: ml", ""])
def test_two_folders_may_have_a_namespace_or_a_cluster_each(tmp_path: Path, namespace: str) -> None:
    for name, text in (("milvus", deployment("milvus", MILVUS)), ("minio", MINIO)):
        write(tmp_path / name, "all.yaml", text.replace(", namespace: ml", namespace))
    assert reported(tmp_path, "service-variable") == []
    (tmp_path / "minio/all.yaml").rename(tmp_path / "milvus/minio.yaml")
    assert len(reported(tmp_path, "service-variable")) == 1


def test_no_probe_waits_for_a_model_that_is_loaded_on_request() -> None:
    ollama = "image: 'ollama/ollama:0.9', ports: [{containerPort: 11434}]"
    (told,) = findings(deployment("llm", ollama), "readiness-probe")
    assert (told.severity, told.title) == (Severity.INFO, "Ollama counts as ready before it listens")
    assert told.remedy is not None and "as soon as it serves" in told.remedy.text
    (whisper,) = findings(deployment("stt", "image: 'fedirz/faster-whisper-server:latest-cuda'"), "readiness-probe")
    assert whisper.severity is Severity.INFO
    connects = deployment("llm", f"{ollama}, readinessProbe: {{tcpSocket: {{port: 11434}}}}")
    assert [f.severity for f in findings(connects, "readiness-probe-model")] == [Severity.INFO]


@pytest.mark.parametrize(
    ("seconds", "severity"), [("45", Severity.WARNING), ("60", Severity.WARNING), ("180", Severity.INFO)]
)
def test_a_longer_silence_was_set_by_those_who_know_the_model(seconds: str, severity: Severity) -> None:
    server = deployment("llm", VLLM) + service("llm", "{selector: {app: llm}, ports: [{port: 8000}]}")
    note = f'proxy-read-timeout: "{seconds}", nginx.ingress.kubernetes.io/proxy-buffering'
    route = INGRESS.replace("BACKEND", "llm").replace("PORT", "{number: 8000}").replace("proxy-buffering", note)
    assert [f.severity for f in findings(server + route, "ingress-stream-timeout")] == [severity]


AWS = "service.beta.kubernetes.io/aws-load-balancer-"


@pytest.mark.parametrize(
    ("server", "notes", "severity"),
    [
        ("nginx:1", "", Severity.INFO),
        ("nginx:1", f"{AWS}scheme: internal", Severity.WARNING),  # the in-tree controller makes a public one
        ("vllm/vllm-openai:v0.11.0", "", Severity.WARNING),
    ],
)
def test_an_in_tree_load_balancer_works_on_and_ignores_what_it_does_not_know(
    server: str, notes: str, severity: Severity
) -> None:
    noted = service("ui", "{type: LoadBalancer, selector: {app: ui}, ports: [{port: 80, targetPort: 8000}]}").replace(
        "namespace: ml}", f"namespace: ml, annotations: {{{AWS}type: nlb{', ' if notes else ''}{notes}}}}}"
    )
    text = deployment("ui", f"image: '{server}', ports: [{{containerPort: 8000}}]") + noted
    assert [f.severity for f in findings(text, "nlb-legacy")] == [severity]


@pytest.mark.parametrize(("server", "severity"), [("nginx:1", Severity.INFO), ("vllm/vllm-openai:1", Severity.WARNING)])
def test_a_detour_by_node_ports_matters_to_long_streams(server: str, severity: Severity) -> None:
    noted = service("ui", "{type: LoadBalancer, selector: {app: ui}, ports: [{port: 80, targetPort: 8000}]}").replace(
        "namespace: ml}", f"namespace: ml, annotations: {{{AWS}type: external, {AWS}nlb-target-type: instance}}}}"
    )
    text = deployment("ui", f"image: '{server}', ports: [{{containerPort: 8000}}]") + noted
    assert [f.severity for f in findings(text, "nlb-target-type")] == [severity]


CALLED = deployment("web", "image: 'registry.test/web:1', ports: [{containerPort: 8000}]") + service(
    "web", "{selector: {app: web}, ports: [{port: 8000}]}"
)


@pytest.mark.parametrize(
    ("setting", "calls"),
    [
        ("env: [{name: OTEL_SERVICE_NAME, value: web}]", 0),
        ("env: [{name: POSTGRES_USER, value: web}]", 0),
        ("env: [{name: CORS_ALLOWED_ORIGINS, value: 'http://web:8000,https://app.example.org'}]", 0),
        ("env: [{name: NEXT_PUBLIC_API_URL, value: 'http://web:8000'}]", 0),
        ("args: [--cors-allowed-origins, 'http://web:8000']", 0),
        ("args: [--name, web]", 0),
        ("env: [{name: WEB_HOST, value: web}]", 1),
        ("env: [{name: X, value: 'web:8000'}]", 1),
        ("args: [--host, web]", 1),
        ("args: [--api-server=web]", 1),
    ],
)
def test_a_name_is_a_call_where_the_setting_is_an_address(setting: str, calls: int) -> None:
    cluster = cluster_of(deployment("app", f"image: 'registry.test/app:1', {setting}") + CALLED)
    assert len(cluster.calls) == calls


@pytest.mark.parametrize(
    ("image", "severity"), [("vllm/vllm-openai:v0.11.0", Severity.WARNING), ("registry.test/rag:1", Severity.INFO)]
)
def test_whether_an_application_passes_tokens_on_one_by_one_is_not_seen(image: str, severity: Severity) -> None:
    told = "env: [{name: OPENAI_API_BASE, value: 'https://api.openai.com/v1'}], ports: [{containerPort: 8000}]"
    server = deployment("llm", f"image: '{image}', {told}") + service(
        "llm", "{selector: {app: llm}, ports: [{port: 8000}]}"
    )
    route = INGRESS.replace("BACKEND", "llm").replace("PORT", "{number: 8000}").replace('"off"', '"on"')
    assert [f.severity for f in findings(server + route, "ingress-buffering")] == [severity]


@pytest.mark.parametrize(("model", "severity"), [("facebook/opt-125m", Severity.INFO), ("org/m-8B", Severity.WARNING)])
def test_a_small_model_loads_in_a_minute(model: str, severity: Severity) -> None:
    live = "livenessProbe: {httpGet: {path: /health, port: 8000}, initialDelaySeconds: 60, periodSeconds: 10}"
    text = deployment("llm", f"image: 'vllm/vllm-openai:v0.11.0', args: [--model, {model}], {live}")
    assert [f.severity for f in findings(text, "startup-budget")] == [severity]


AGENT = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: aws-node, namespace: kube-system}
spec: {template: {spec: {containers: [{name: aws-node, image: 'amazon-k8s-cni:v1.19.3'}]}}}
status: {desiredNumberScheduled: 2, numberReady: 0}
"""


def test_the_saved_status_of_one_object_is_of_another_day() -> None:
    assert findings(AGENT, "cni-not-ready") == []
    assert "of the day it was saved" in unchecked(AGENT, "cni-not-ready")
    assert len(findings(AGENT, "cni-not-ready", complete=True)) == 1


@pytest.mark.parametrize(
    ("container", "severity"),
    [
        ("image: 'registry.test/x:1', ports: [{containerPort: 8000}]", Severity.INFO),
        ("image: 'registry.test/x:1', resources: {limits: {nvidia.com/gpu: 1}}", Severity.WARNING),
        ("image: 'vllm/vllm-openai:v0.11.0'", Severity.WARNING),
    ],
)
def test_what_only_its_name_shows_to_be_a_server_is_information(container: str, severity: Severity) -> None:
    assert [f.severity for f in findings(deployment("my-llama", container), "readiness-probe")] == [severity]


@pytest.mark.parametrize(
    ("url", "severity"), [("https://api.openai.com/v1", Severity.INFO), ("http://llm:8000/v1", Severity.WARNING)]
)
def test_an_answer_is_waited_for_where_its_model_is_served_here(url: str, severity: Severity) -> None:
    told = f"image: 'registry.test/rag:1', env: [{{name: OPENAI_API_BASE, value: '{url}'}}], ports: [{{containerPort: 80}}]"
    app = deployment("rag", told) + service("rag", "{selector: {app: rag}, ports: [{port: 80}]}")
    server = deployment("llm", VLLM) + service("llm", "{selector: {app: llm}, ports: [{port: 8000}]}")
    route = INGRESS.replace("BACKEND", "rag").replace("PORT", "{number: 80}")
    assert [f.severity for f in findings(app + server + route, "ingress-stream-timeout")] == [severity]


def test_a_probe_asks_the_port_that_the_server_is_told() -> None:
    told = "image: 'vllm/vllm-openai:v0.11.0', args: [--model, m, --port=8080]"
    (found,) = findings(deployment("llm", told), "readiness-probe")
    assert found.remedy is not None and '"port": 8080' in found.remedy.command
    assert found.remedy.trial.startswith("tried: heals it")
