"""What unseen repositories showed to be no fault: load balancers before models that others serve, and models that load soon."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, service, unchecked

NLB = (
    "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: front\n  namespace: ml\n  annotations:\n"
    '    {"service.beta.kubernetes.io/aws-load-balancer-type": "nlb"}\n'
    "spec: {type: LoadBalancer, selector: {app: litellm}, ports: [{port: 80, targetPort: 4000}]}\n"
)
ROUTER = 'image: "ghcr.io/berriai/litellm:v1.80", ports: [{containerPort: 4000}], env: [{name: BASE, value: "URL"}]'
SERVER = deployment(
    "vllm",
    'image: "vllm/vllm-openai:v0.9.2", args: [--model, llama], ports: [{containerPort: 8000}], '
    "resources: {limits: {nvidia.com/gpu: 1}}",
) + service("vllm", "{selector: {app: vllm}, ports: [{port: 8000}]}")


@pytest.mark.parametrize("check", ["nlb-legacy", "nlb-idle-timeout"])
@pytest.mark.parametrize(
    ("url", "severity"),
    [("http://vllm:8000/v1", Severity.WARNING), ("https://api.openai.com/v1", Severity.INFO), ("", Severity.INFO)],
)
def test_a_load_balancer_matters_before_a_router_to_a_model_that_is_served_here(
    check: str, url: str, severity: Severity
) -> None:
    text = SERVER + deployment("litellm", ROUTER.replace("URL", url)) + NLB
    assert [f.severity for f in findings(text, check)] == [severity]


@pytest.mark.parametrize(
    ("model", "delay", "severity"),
    [
        ("Qwen/Qwen2-1.5B-Instruct", 60, Severity.INFO),
        ("meta-llama/Llama-3.2-3B", 60, Severity.INFO),
        ("Qwen/Qwen2-1.5B-Instruct", 10, Severity.WARNING),
        ("meta-llama/Llama-3.1-8B-Instruct", 60, Severity.WARNING),
        ("Qwen/Qwen2.5-32B", 60, Severity.WARNING),
    ],
)
def test_a_light_model_may_load_in_a_minute_and_a_half(model: str, delay: int, severity: Severity) -> None:
    probe = f"httpGet: {{path: /health, port: 8000}}, initialDelaySeconds: {delay}, periodSeconds: 15"
    text = deployment(
        "vllm",
        f'image: "vllm/vllm-openai:v0.9.2", args: [--model, "{model}"], ports: [{{containerPort: 8000}}], '
        f"resources: {{limits: {{nvidia.com/gpu: 1}}}}, livenessProbe: {{{probe}}}, readinessProbe: {{{probe}}}",
    )
    assert [f.severity for f in findings(text, "startup-budget")] == [severity]


@pytest.mark.parametrize(("name", "found"), [("MODEL_NAME", 0), ("${MODEL}", 0), ("model-name", 1)])
def test_an_object_whose_name_is_to_be_filled_in_is_a_template(name: str, found: int) -> None:
    text = deployment(
        "model-name",
        'image: "vllm/vllm-openai:v0.9.2", args: [--model, llama], ports: [{containerPort: 8000}], '
        "resources: {limits: {nvidia.com/gpu: 1}}",
    ).replace("metadata: {name: model-name,", f"metadata: {{name: '{name}',")
    assert len(findings(text, "readiness-probe")) == found
    assert ("a placeholder" in unchecked(text, "readiness-probe")) is (found == 0)


@pytest.mark.parametrize(
    ("ready", "severity"), [("/ready", Severity.INFO), ("/readyz/", Severity.INFO), ("/health", Severity.WARNING)]
)
def test_a_server_that_is_ready_by_a_path_of_its_own_may_live_while_it_loads(ready: str, severity: Severity) -> None:
    probe = "httpGet: {path: PATH, port: 8000}, initialDelaySeconds: 30, periodSeconds: 10"
    text = deployment(
        "chat",
        'image: "registry.test/llm-d:v1", args: [--model, llama], ports: [{containerPort: 8000}], '
        f"resources: {{limits: {{nvidia.com/gpu: 1}}}}, livenessProbe: {{{probe.replace('PATH', '/health')}}}, "
        f"readinessProbe: {{{probe.replace('PATH', ready)}}}",
    )
    assert [f.severity for f in findings(text, "startup-budget")] == [severity]
