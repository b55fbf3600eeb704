"""Health checks of load balancers that ask vLLM's root are found by what is in force, with each load balancer's defaults."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, service, unchecked

CHECK = "load-balancer-health-path"
SPEC = "{selector: {app: model}, ports: [{name: http, port: 80, targetPort: 8000}]}"
READY = ", readinessProbe: {httpGet: {path: /health, port: 8000}}"


def model(image: str = "vllm/vllm-openai:v0.9.2", more: str = "", notes: str = "") -> str:
    served = service("model", SPEC).replace("namespace: ml}", f"namespace: ml, annotations: {{{notes}}}}}")
    return deployment("model", f'image: "{image}", ports: [{{containerPort: 8000}}]{more}') + served


def ingress(cls: str, notes: str = "") -> str:
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: edge, namespace: ml, annotations: {{{notes}}}}}
spec:
  ingressClassName: {cls}
  rules: [{{http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: model, port: {{number: 80}}}}}}}}]}}}}]
"""


ALB = "alb.ingress.kubernetes.io/"


@pytest.mark.parametrize(
    ("of_ingress", "of_service", "found"),
    [
        ("", "", 1),
        (f"{ALB}healthcheck-path: /", "", 1),
        (f"{ALB}healthcheck-path: /health", "", 0),
        ("", f"{ALB}healthcheck-path: /health", 0),
        (f"{ALB}healthcheck-path: /health", f"{ALB}healthcheck-path: /", 1),
        (f'{ALB}success-codes: "200,404"', "", 0),
        (f'{ALB}success-codes: "200-499"', "", 0),
        (f'{ALB}success-codes: "200-299"', "", 1),
        (f"{ALB}backend-protocol-version: GRPC", "", 0),
    ],
)
def test_an_alb_asks_the_root_unless_it_is_told(of_ingress: str, of_service: str, found: int) -> None:
    problems = findings(model(notes=of_service) + ingress("alb", of_ingress), CHECK)
    assert [f.severity for f in problems] == [Severity.WARNING] * found


@pytest.mark.parametrize("image", ["ollama/ollama:0.9", "registry.test/web:1", "ghcr.io/berriai/litellm:main"])
def test_other_servers_may_have_a_root(image: str) -> None:
    assert findings(model(image) + ingress("alb"), CHECK) == []


def test_the_remedy_is_the_servers_own_path() -> None:
    (found,) = findings(model() + ingress("alb"), CHECK)
    assert found.remedy is not None
    assert f"{ALB}healthcheck-path=/health" in found.remedy.command


CONFIG = """
---
apiVersion: cloud.google.com/v1
kind: BackendConfig
metadata: {name: model, namespace: ml}
spec: {healthCheck: {requestPath: PATH}}
"""
NAMED = """cloud.google.com/backend-config: '{"default": "model"}'"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (model(), 1),
        (model(more=READY), 0),
        (model(more=", readinessProbe: {tcpSocket: {port: 8000}}"), 1),
        (model(notes=NAMED), 0),
        (model(notes=NAMED) + CONFIG.replace("PATH", "/health"), 0),
        (model(notes=NAMED) + CONFIG.replace("PATH", "/"), 1),
    ],
)
def test_a_gke_ingress_asks_what_the_readiness_probe_asks_or_the_root(text: str, found: int) -> None:
    assert [f.severity for f in findings(text + ingress("gce"), CHECK)] == [Severity.ERROR] * found


def gateway(cls: str = "gke-l7-regional-external-managed") -> str:
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: ml}}
spec: {{gatewayClassName: {cls}, listeners: [{{name: http, port: 80, protocol: HTTP}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: chat, namespace: ml}}
spec: {{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{{name: model, port: 80}}]}}]}}
"""


def policy(config: str, name: str = "model") -> str:
    return f"""
---
apiVersion: networking.gke.io/v1
kind: HealthCheckPolicy
metadata: {{name: {name}, namespace: ml}}
spec: {{targetRef: {{group: "", kind: Service, name: {name}}}, default: {{config: {config}}}}}
"""


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("", 1),
        (policy("{type: HTTP, httpHealthCheck: {requestPath: /health}}"), 0),
        (policy("{type: HTTP, httpHealthCheck: {requestPath: /}}"), 1),
        (policy("{type: TCP, tcpHealthCheck: {port: 8000}}"), 0),
        (policy("{type: HTTP, httpHealthCheck: {requestPath: /health}}", "other"), 1),
    ],
)
def test_a_gke_gateway_asks_the_root_without_a_policy(more: str, found: int) -> None:
    text = model(more=READY) + gateway() + more  # it does not read the pods' probe
    assert [f.severity for f in findings(text, CHECK, complete=True)] == [Severity.ERROR] * found
    assert findings(text.replace("gke-l7-regional-external-managed", "istio"), CHECK, complete=True) == []


def test_a_policy_may_be_elsewhere() -> None:
    assert findings(model() + gateway(), CHECK) == []
    assert "HealthCheckPolicy" in unchecked(model() + gateway(), CHECK)
