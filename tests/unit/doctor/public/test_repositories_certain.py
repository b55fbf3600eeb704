"""What public repositories showed to be uncertain: who uses a port, which model a server has, where a device is."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, service

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


@pytest.mark.parametrize(
    ("host", "severity"),
    [("api.openai.com", Severity.WARNING), ("llm.ml.svc.cluster.local", Severity.INFO)],
)
def test_full_names_of_the_cluster_are_asked_in_vain_and_answered_at_once(host: str, severity: Severity) -> None:
    app = deployment(
        "chat", f"image: 'registry.test/chat:1', env: [{{name: OPENAI_API_BASE, value: 'http://{host}/v1'}}]"
    )
    server = deployment("llm", VLLM) + service("llm", "{selector: {app: llm}, ports: [{port: 80, targetPort: 8000}]}")
    assert [f.severity for f in findings(app + server, "ndots")] == [severity]


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
