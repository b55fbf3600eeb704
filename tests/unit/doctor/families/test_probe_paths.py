"""Probes that ask a server for a path that it does not have."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import deployment, findings

QDRANT, CHROMA, OLLAMA = "qdrant/qdrant:v1.12.1", "chromadb/chroma", "ollama/ollama:latest"
TRITON, LITELLM = "nvcr.io/nvidia/tritonserver:24.04-py3", "ghcr.io/berriai/litellm:main-latest"
KEY = ", env: [{name: LITELLM_MASTER_KEY, valueFrom: {secretKeyRef: {name: k, key: k}}}]"


def asked(image: str, path: str, port: int | str = 8000, more: str = "") -> list[str]:
    probe = f"readinessProbe: {{httpGet: {{path: '{path}', port: {port}}}}}"
    return [f.title for f in findings(deployment("db", f"image: '{image}', {probe}{more}"), "probe-path")]


@pytest.mark.parametrize(
    ("image", "path"),
    [
        (QDRANT, "/health"),
        ("docker.io/qdrant/qdrant", "/health/"),
        (OLLAMA, "/healthz"),
        (CHROMA, "/api/v1/heartbeat"),
        (f"{CHROMA}:1.0.9", "/api/v1/heartbeat"),
        (f"{CHROMA}:0.5.3", "/api/v1/health"),
        ("cr.weaviate.io/semitechnologies/weaviate:1.28.0", "/readyz"),
        ("ghcr.io/ggml-org/llama.cpp:server", "/healthz"),
        (LITELLM, "/healthz"),
    ],
)
def test_a_path_of_another_server_is_never_answered(image: str, path: str) -> None:
    (title,) = asked(image, path)
    assert title.startswith(f"its readinessProbe asks {path.rstrip('/')}, which ")


@pytest.mark.parametrize(
    ("image", "path"),
    [
        (QDRANT, "/readyz"),
        (QDRANT, "/"),
        (QDRANT, "/collections"),
        (OLLAMA, "/api/tags"),
        (f"{CHROMA}:0.5.3", "/api/v1/heartbeat"),
        (f"{CHROMA}@sha256:0", "/api/v1/heartbeat"),
        (f"{CHROMA}:latest", "/api/v2/heartbeat"),
        (LITELLM, "/health/liveness"),
        (LITELLM, "/health"),
        ("registry.test/qdrant:1", "/health"),
        ("registry.test/ollama/gateway:1", "/health"),
    ],
)
def test_paths_that_it_has_and_servers_of_ones_own_are_left_alone(image: str, path: str) -> None:
    assert asked(image, path) == []


def test_another_program_in_the_image_has_paths_of_its_own() -> None:
    assert asked(OLLAMA, "/health", more=", command: [python3, proxy.py]") == []
    assert len(asked(OLLAMA, "/health", more=", command: [/bin/ollama, serve]")) == 1


def test_litellm_with_a_key_tells_nobody_without_it_how_its_models_are() -> None:
    (title,) = asked(LITELLM, "/health", more=KEY)
    assert title == "its readinessProbe asks /health, which LiteLLM answers with its master key only"
    config = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: proxy, namespace: ml}
data: {config.yaml: "general_settings: {master_key: sk-1}"}
"""
    probe = "readinessProbe: {httpGet: {path: /health, port: 4000}}"
    mounted = deployment("db", f"image: '{LITELLM}', {probe}").replace(
        "spec: {containers:", "spec: {volumes: [{name: v, configMap: {name: proxy}}], containers:"
    )
    assert len(findings(mounted + config, "probe-path")) == 1
    assert findings(mounted, "probe-path") == []
    with_key = mounted.replace("port: 4000", "port: 4000, httpHeaders: [{name: Authorization, value: Bearer sk-1}]")
    assert findings(with_key + config, "probe-path") == []


@pytest.mark.parametrize(
    ("port", "path", "options", "found"),
    [
        (8002, "/v2/health/ready", "", 1),
        (8001, "/v2/health/ready", "", 1),
        (8000, "/v2/health/ready", "", 0),
        (8002, "/metrics", "", 0),
        (8002, "/v2/health/ready", ", --http-port=8002", 0),
        (8000, "/healthz", "", 1),
    ],
)
def test_tritons_metrics_are_no_health(port: int, path: str, options: str, found: int) -> None:
    started = f", command: [tritonserver, --model-repository=/models{options}]"
    assert len(asked(TRITON, path, port, started)) == found
    assert asked(TRITON, path, port) == []  # what the image is told is not here


def test_a_sidecars_port_is_not_the_servers() -> None:
    both = deployment("db", f"image: '{QDRANT}', readinessProbe: {{httpGet: {{path: /health, port: 9000}}}}")
    assert len(findings(both, "probe-path")) == 1
    sidecar = both.replace("}}}]}", "}}}, {name: proxy, image: 'registry.test/p:1', ports: [{containerPort: 9000}]}]}")
    assert sidecar != both
    assert findings(sidecar, "probe-path") == []
