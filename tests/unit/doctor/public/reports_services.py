"""Public reports of Services, ports, names and probes."""

from __future__ import annotations

from tests.unit.doctor.public.reported import APP, CLUSTERED, LLM, READY, VLLM, Reported, deployment, service, stateful

TRITON = deployment(
    "triton",
    "nvcr.io/nvidia/tritonserver:24.05-py3",
    "ports: [{containerPort: 8001}]\n        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}",
).replace("spec:\n  selector", "spec:\n  replicas: 3\n  selector")

LIVE = "livenessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 5, failureThreshold: 3}"

MLFLOW = deployment("mlflow", "registry.test/mlflow:2", "ports: [{containerPort: 5000, name: http}]")
EXPORTER = deployment("exporter", "registry.test/exporter:1", "ports: [{containerPort: 5000, name: metrics}]")


def external_name(name: str, target: str) -> str:
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: ai}}
spec: {{type: ExternalName, externalName: {target}}}
"""


SERVICES = (
    Reported(
        "knative/serving#14011 (gRPC behind a cluster IP)",
        "grpc-one-endpoint",
        TRITON
        + service("triton", "triton", "[{name: grpc, port: 8001}]")
        + APP.replace("http://HOST", "grpc://triton:8001"),
        ("spec: {selector: {app: triton}", "spec: {clusterIP: None, selector: {app: triton}"),
    ),
    Reported(
        "vllm-project/aibrix#772",
        "startup-budget",
        deployment("llm", "vllm/vllm-openai:v0.10.1", f"{READY}\n        args: [--model, org/m]\n        {LIVE}"),
        ("failureThreshold: 3", "failureThreshold: 180"),
    ),
    Reported(
        "kubernetes-sigs/lws#612",
        "call-port",
        deployment("llamacpp", "ghcr.io/ggml-org/llama.cpp:server", "ports: [{containerPort: 8080}]")
        + service("llamacpp", "llamacpp", "[{port: 8080}]")
        + APP.replace("HOST", "llamacpp:80"),
        ("llamacpp:80", "llamacpp:8080"),
    ),
    Reported(
        "vllm-project/vllm#34199", "service-variable", VLLM + service("vllm", "llm"), ("name: vllm,", "name: vllm-api,")
    ),
    Reported(
        "langflow-ai/langflow#4330",
        "service-variable",
        deployment("flow", "langflowai/langflow:1.5", "ports: [{containerPort: 7860}]")
        + service("langflow", "flow", "[{port: 7860}]"),
        ("restartPolicy: Always", "enableServiceLinks: false"),
    ),
    Reported(
        "n8n-io/n8n#8650",
        "service-variable",
        deployment("n8n", "n8nio/n8n:1.29.0") + service("n8n", "n8n", "[{port: 5678}]"),
        ("imagePullPolicy: Always", 'env: [{name: N8N_PORT, value: "5678"}]'),
    ),
    Reported(
        "llm-d/llm-d-benchmark#1435",
        "server-port",
        deployment(
            "llm",
            "vllm/vllm-openai:v0.10.1",
            f'args: ["--model", "m", "--port", "8200"]\n        ports: [{{containerPort: 8200}}]\n        {READY}',
        )
        + service("llm", "llm", "[{port: 80, targetPort: 8200}]"),
        ("path: /health, port: 8000", "path: /health, port: 8200"),
    ),
    Reported(
        "vllm-project/vllm#4462",
        "readiness-probe-model",
        deployment(
            "llm",
            "ollama/ollama:0.9",
            "ports: [{containerPort: 11434}]\n        readinessProbe: {tcpSocket: {port: 11434}}",
        ),
        ("tcpSocket: {port: 11434}", "exec: {command: [ollama, show, llama3]}"),
    ),
    Reported("llm-d/llm-d#329", "readiness-probe", VLLM.replace(READY, "tty: false"), ("tty: false", READY)),
    Reported(
        "ai-dynamo/grove#134",
        "headless-not-ready",
        stateful(
            "llm",
            "vllm/vllm-openai:v0.10.1",
            "ring",
            "command: [torchrun, --rdzv-endpoint=llm-0.ring, serve.py]\n        readinessProbe: {exec: {command: [ready]}}"
            "\n        resources: {limits: {nvidia.com/gpu: 8}}",
        )
        + service("ring", "llm", "[{port: 29500}]", ", clusterIP: None"),
        ("clusterIP: None", "clusterIP: None, publishNotReadyAddresses: true"),
    ),
    Reported(
        "qdrant/qdrant-helm#115",
        "headless-not-ready",
        stateful(
            "db",
            "qdrant/qdrant:v1.13.4",
            "db-headless",
            CLUSTERED + "\n        readinessProbe: {httpGet: {path: /readyz, port: 6333}}",
        )
        + service("db-headless", "db", "[{port: 6335}]", ", clusterIP: None"),
        ("clusterIP: None", "clusterIP: None, publishNotReadyAddresses: true"),
    ),
    Reported(
        "milvus-io/milvus-helm#450",
        "headless-missing",
        stateful("etcd", "registry.test/etcd:3.5", "etcd-headles")
        + service("etcd-headless", "etcd", "[{port: 2380}]", ", clusterIP: None"),
        ("serviceName: etcd-headles\n", "serviceName: etcd-headless\n"),
    ),
    Reported(
        "crate/crate#12018",
        "call-port",
        stateful("db", "qdrant/qdrant:v1.13.4", "db")
        + service("db", "db", "[{port: 6333}]")
        + APP.replace("HOST", "db:6335"),
        ("http://db:6335", "http://db:6333"),
    ),
    Reported(
        "kubernetes/kubernetes#112481",
        "service-selector",
        VLLM + service("llm", "lm", "[{port: 80, targetPort: 8000}]"),
        ("selector: {app: lm}", "selector: {app: llm}"),
    ),
    Reported(
        "vllm-project/vllm#20119 (the port that clients ask)",
        "server-port",
        deployment("llm", "vllm/vllm-openai:v0.10.1", 'args: ["--port", "13345"]')
        + service("llm", "llm", "[{port: 80, targetPort: 8000}]"),
        ('"13345"', '"8000"'),
    ),
    Reported(
        "llm-d/llm-d#394 (a server on loopback)",
        "server-loopback",
        deployment(
            "llm",
            "vllm/vllm-openai:v0.10.1",
            f'args: ["--host", "127.0.0.1"]\n        ports: [{{containerPort: 8000}}]\n        {READY}',
        )
        + LLM,
        ('"127.0.0.1"', '"0.0.0.0"'),
    ),
    Reported(
        "kubernetes-sigs/lws#105 (a Service in front of workers)",
        "service-target-port",
        VLLM + service("llm", "llm", "[{port: 80, targetPort: http}]"),
        ("targetPort: http", "targetPort: 8000"),
    ),
    Reported(
        "cadence-workflow/cadence#2063",
        "call-host",
        VLLM + service("llama-api", "llm") + APP.replace("HOST", "lama-api.ai.svc:80"),
        ("http://lama-api", "http://llama-api"),
    ),
    Reported(
        "coredns/coredns#2324",
        "external-name-address",
        external_name("mysql", "172.31.21.116"),
        ("172.31.21.116", "mysql.internal.example.com"),
    ),
    Reported(
        "coredns/coredns#2164",
        "external-name-address",
        external_name("docs", "docs.example.com") + external_name("vectors", "10.10.10.204"),
        ("10.10.10.204", "vectors.internal.example.com"),
    ),
    Reported(
        "bitnami/charts#21488",
        "service-target-port",
        MLFLOW + service("mlflow", "mlflow", "[{port: 80, targetPort: tracking}]"),
        ("targetPort: tracking", "targetPort: http"),
    ),
    Reported(
        "prometheus-community/helm-charts#7042",
        "service-target-port",
        EXPORTER + service("exporter", "exporter", "[{name: http, port: 80, targetPort: http}]"),
        ("targetPort: http", "targetPort: metrics"),
    ),
    Reported(
        "kserve/kserve#5062",
        "startup-budget",
        deployment(
            "llm",
            "vllm/vllm-openai:v0.10.1",
            f"{READY}\n        args: [--model, org/m]"
            "\n        livenessProbe: {httpGet: {path: /health, port: 8000}, initialDelaySeconds: 60}",
        ),
        (
            "livenessProbe: {",
            "startupProbe: {httpGet: {path: /health, port: 8000}, failureThreshold: 60}\n        livenessProbe: {",
        ),
    ),
    Reported(
        "openimsdk/open-im-server#2164",
        "grpc-one-endpoint",
        TRITON
        + service("triton", "triton", "[{name: grpc, port: 8001}]")
        + APP.replace("http://HOST", "dns:///triton:8001"),
        ("spec: {selector: {app: triton}", "spec: {clusterIP: None, selector: {app: triton}"),
    ),
)
