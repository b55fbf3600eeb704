"""What public repositories show to be chosen, or not to be asked for: timeouts of minutes, names that nobody looks up, hosts
that two Ingresses share."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, service

VLLM = "image: 'vllm/vllm-openai:v0.11.0', args: [--model, org/m], ports: [{containerPort: 8000}]"
SERVER = deployment("llm", VLLM) + service("llm", "{selector: {app: llm}, ports: [{port: 8000}]}")
ENVOY = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: envoy}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: ml}
spec: {gatewayClassName: envoy, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""


def route(to: str, timeouts: str = "") -> str:
    return f"""{ENVOY}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, namespace: ml}}
spec: {{parentRefs: [{{name: g}}], rules: [{{backendRefs: [{{name: {to}, port: 8000}}]{timeouts}}}]}}
"""


@pytest.mark.parametrize(
    ("timeouts", "severity"),
    [
        ("", Severity.WARNING),
        (", timeouts: {request: 30s}", Severity.WARNING),
        (", timeouts: {request: 60s}", Severity.WARNING),
        (", timeouts: {request: 100s}", Severity.INFO),
    ],
)
def test_a_timeout_of_minutes_is_somebodys_choice(timeouts: str, severity: Severity) -> None:
    (found,) = findings(SERVER + route("llm", timeouts), "route-stream-timeout")
    assert found.severity is severity


@pytest.mark.parametrize(("timeout", "severity"), [("30s", Severity.WARNING), ("120s", Severity.INFO)])
def test_a_meshs_timeout_of_minutes_is_somebodys_choice(timeout: str, severity: Severity) -> None:
    virtual = f"""
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: v, namespace: ml}}
spec: {{hosts: [llm], http: [{{timeout: {timeout}, route: [{{destination: {{host: llm}}}}]}}]}}
"""
    (found,) = findings(SERVER + virtual, "mesh-stream-timeout")
    assert found.severity is severity


@pytest.mark.parametrize(
    ("image", "severity"),
    [
        ("ghcr.io/open-webui/open-webui:main", Severity.INFO),
        ("registry.test/chainlit-app:1", Severity.INFO),
        ("registry.test/chat-api:1", Severity.WARNING),
    ],
)
def test_a_websocket_is_not_cut_with_a_response(image: str, severity: Severity) -> None:
    calls = "env: [{name: OPENAI_API_BASE_URL, value: 'http://llm:8000/v1'}]"
    front = deployment("chat", f"image: '{image}', ports: [{{containerPort: 8000}}], {calls}")
    front += service("chat", "{selector: {app: chat}, ports: [{port: 8000}]}")
    (found,) = findings(SERVER + front + route("chat"), "route-stream-timeout")
    assert found.severity is severity


STORE = "image: 'chromadb/chroma:0.5.3', ports: [{containerPort: 8000}]"


def store(replicas: int) -> str:
    whole = deployment("vectors", STORE).replace("kind: Deployment", "kind: StatefulSet")
    return whole.replace("spec:\n", f"spec:\n  serviceName: vectors\n  replicas: {replicas}\n", 1)


@pytest.mark.parametrize(
    ("replicas", "url", "found"),
    [
        (1, "http://vectors-service:8000", 0),
        (1, "http://vectors-0.vectors:8000", 1),
        (1, "http://vectors-0.vectors.ml.svc.cluster.local:8000", 1),
        (1, "http://vectors-0.vectors-service:8000", 0),
        (3, "http://vectors-service:8000", 1),
    ],
)
def test_the_name_of_a_single_pod_is_missed_by_those_who_call_it(replicas: int, url: str, found: int) -> None:
    app = deployment("rag", f"image: 'registry.test/rag:1', env: [{{name: CHROMA_URL, value: '{url}'}}]")
    front = service("vectors-service", "{selector: {app: vectors}, ports: [{port: 8000}]}")
    assert len(findings(store(replicas) + front + app, "headless-missing")) == found


def test_a_bare_pod_that_no_service_selects_gets_no_requests() -> None:
    pod = f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: llm, namespace: ml, labels: {{app: llm}}}}
spec: {{containers: [{{name: c, {VLLM}}}]}}
"""
    assert [f.severity for f in findings(pod, "readiness-probe")] == [Severity.INFO]
    selected = pod + service("llm", "{selector: {app: llm}, ports: [{port: 8000}]}")
    assert [f.severity for f in findings(selected, "readiness-probe")] == [Severity.WARNING]


def ingress(name: str, backend: str, annotations: str = "{}", port: str = "number: 8000") -> str:
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: ml, annotations: {annotations}}}
spec:
  ingressClassName: {"alb" if "alb." in annotations else "nginx"}
  rules:
  - host: chat.test
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {backend}, port: {{{port}}}}}}}}}]}}
"""


def test_the_ingresses_that_are_named_lead_to_different_services() -> None:
    same, other = ingress("one", "llm") + ingress("two", "llm"), ingress("three", "other")
    assert findings(same, "ingress-path-conflict", complete=True) == []
    (found,) = findings(same + other, "ingress-path-conflict", complete=True)
    assert str(found.object) == "Ingress ml/three"
    assert [e.value for e in found.evidence] == ["ml/llm", "ml/other"]


def action(name: str, port: object) -> str:
    groups = f'{{"targetGroups": [{{"serviceName": "{name}", "servicePort": {port}}}]}}'
    forward = f'{{"type": "forward", "forwardConfig": {groups}}}'
    notes = f"{{alb.ingress.kubernetes.io/target-type: ip, alb.ingress.kubernetes.io/actions.weighted: '{forward}'}}"
    return ingress("llm", "weighted", notes, "name: use-annotation")


def test_an_albs_action_leads_to_its_target_groups() -> None:
    (found,) = findings(SERVER + action("llm", 8000), "ingress-stream-timeout")
    assert found.title == "a stream of Service ml/llm is cut after 60 s without a token"
    assert findings(SERVER + action("llm", '"8000"'), "ingress-backend", complete=True) == []
    (port,) = findings(SERVER + action("llm", 80), "ingress-backend", complete=True)
    assert port.evidence[0].field == "metadata.annotations[alb.ingress.kubernetes.io/actions.weighted]"
    (name,) = findings(SERVER + action("lm", 8000), "ingress-backend", complete=True)
    assert "leads to Service lm, which does not exist" in name.title


LISTED = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: addresses, namespace: ml}
data: {MODEL_URL: "http://llm:8000", API_URL: "http://api:8000" OWN}
"""


@pytest.mark.parametrize(("own", "severity"), [(', UI_URL: "http://ui:8000"', Severity.INFO), ("", Severity.WARNING)])
def test_a_list_of_all_addresses_tells_not_who_calls_whom(own: str, severity: Severity) -> None:
    reads = (
        "image: 'registry.test/NAME:1', ports: [{containerPort: 8000}], envFrom: [{configMapRef: {name: addresses}}]"
    )
    front = deployment("ui", reads.replace("NAME", "ui")) + service(
        "ui", "{selector: {app: ui}, ports: [{port: 8000}]}"
    )
    (found,) = findings(SERVER + LISTED.replace(" OWN", own) + front + route("ui"), "route-stream-timeout")
    assert found.severity is severity


@pytest.mark.parametrize(
    ("name", "resources", "severity"),
    [
        ("anomaly", "", Severity.INFO),
        ("granite", "", Severity.WARNING),
        ("anomaly", ", resources: {limits: {nvidia.com/gpu: 1}}", Severity.WARNING),
    ],
)
def test_a_served_model_without_a_name_of_language_may_be_any(name: str, resources: str, severity: Severity) -> None:
    model = f"""
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: {name}, namespace: ml, annotations: {{serving.kserve.io/deploymentMode: RawDeployment}}}}
spec: {{predictor: {{model: {{modelFormat: {{name: other}}, storageUri: "s3://models/{name}"{resources}}}}}}}
"""
    (found,) = findings(model + route(f"{name}-predictor"), "route-stream-timeout")
    assert found.severity is severity
