"""What unseen repositories showed to be no fault: addresses that a ConfigMap tells several workloads, and workloads that are
switched off."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Finding, Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, service

SHARED = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shared, namespace: ml}
data: {QDRANT_URL: "http://qdrant:6333", MODEL_URL: "https://api.openai.com/v1"}
"""
READS = 'image: "registry.test/app:1", envFrom: [{configMapRef: {name: shared}}]'
STORE = deployment("qdrant", 'image: "qdrant/qdrant:v1.16", ports: [{containerPort: 6333}]') + service(
    "qdrant", "{selector: {app: qdrant}, ports: [{port: 6333}]}"
)


def policy(name: str, egress: str) -> str:
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: ml}}
spec: {{podSelector: {{matchLabels: {{app: {name}}}}}, policyTypes: [Egress], egress: {egress}}}
"""


TO_STORE = "[{to: [{podSelector: {matchLabels: {app: qdrant}}}], ports: [{port: 6333}]}]"
TO_ALL = "[{ports: [{port: 443}]}]"
NOBODY = "[{to: [{podSelector: {matchLabels: {app: other}}}]}]"


def worst(found: list[Finding], name: str) -> Severity | None:
    return next((f.severity for f in found if f.object is not None and f.object.name == name), None)


@pytest.mark.parametrize(("check", "admits"), [("policy-blocks-call", TO_STORE), ("fqdn-egress", TO_ALL)])
@pytest.mark.parametrize(("other_is_admitted", "severity"), [(True, Severity.INFO), (False, Severity.WARNING)])
def test_an_address_that_several_are_told_is_meant_for_one_that_may_reach_it(
    check: str, admits: str, other_is_admitted: bool, severity: Severity
) -> None:
    apps = deployment("web", READS) + deployment("api", READS)
    policies = policy("web", NOBODY) + policy("api", admits if other_is_admitted else NOBODY)
    assert worst(findings(SHARED + STORE + apps + policies, check), "web") is severity


@pytest.mark.parametrize(("check", "admits"), [("policy-blocks-call", TO_STORE), ("fqdn-egress", TO_ALL)])
def test_an_address_of_its_own_is_meant_for_the_workload(check: str, admits: str) -> None:
    env = '[{name: A, value: "http://qdrant:6333"}, {name: B, value: "https://api.openai.com"}]'
    own = f'image: "registry.test/app:1", env: {env}'
    apps = deployment("web", own) + deployment("api", READS)
    text = SHARED + STORE + apps + policy("web", NOBODY) + policy("api", admits)
    assert worst(findings(text, check), "web") is Severity.WARNING


LIST = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shared, namespace: ml}
data: {API_URL: "http://api:8000", MODEL_URL: "https://api.openai.com/v1"}
"""


@pytest.mark.parametrize(("third", "severity"), [(True, Severity.INFO), (False, Severity.WARNING)])
def test_a_list_of_the_addresses_of_all_parts_tells_not_which_of_them_calls(third: bool, severity: Severity) -> None:
    api = deployment("api", f"{READS}, ports: [{{containerPort: 8000}}]")
    apps = api + service("api", "{selector: {app: api}, ports: [{port: 8000}]}") + deployment("web", READS)
    text = (
        LIST + apps + policy("web", NOBODY) + (deployment("worker", READS) + policy("worker", NOBODY) if third else "")
    )
    assert worst(findings(text, "policy-blocks-call"), "web") is severity


SERVER = deployment(
    "llm",
    'image: "vllm/vllm-openai:v0.9.2", args: [--model, llama], ports: [{containerPort: 8000}], '
    "resources: {limits: {nvidia.com/gpu: 1}}",
)
FRONT = service("llm", "{selector: {app: llm}, ports: [{port: 80, targetPort: http}]}")
SCALER = """
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: llm, namespace: ml}
spec: {scaleTargetRef: {name: llm}, minReplicaCount: 0}
"""


@pytest.mark.parametrize(
    ("check", "severity"), [("readiness-probe", Severity.WARNING), ("service-target-port", Severity.ERROR)]
)
def test_what_is_wrong_with_a_workload_that_is_switched_off_meets_nobody(check: str, severity: Severity) -> None:
    off = SERVER.replace("spec:\n  selector", "spec:\n  replicas: 0\n  selector")
    assert "replicas: 0" in off
    assert worst(findings(SERVER + FRONT, check), "llm") is severity
    assert worst(findings(off + FRONT + SCALER, check), "llm") is severity
    (found,) = findings(off + FRONT, check)
    assert found.severity is Severity.INFO
    assert "Deployment ml/llm is switched off" in found.detail


TRAINED = """
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata: {name: train, namespace: ml}
spec:
  pytorchReplicaSpecs:
    Master:
      template:
        spec:
          containers:
          - name: pytorch
            image: acme/train
            command: [torchrun, --nproc-per-node=2, train.py]
            resources: {limits: {nvidia.com/gpu: 2}}
status: {conditions: [{type: TYPE, status: "True"}]}
"""


@pytest.mark.parametrize(("ended", "severity"), [("Succeeded", Severity.INFO), ("Failed", Severity.WARNING)])
def test_a_job_that_was_saved_with_its_success_has_no_trouble(ended: str, severity: Severity) -> None:
    (found,) = findings(TRAINED.replace("TYPE", ended), "shared-memory")
    assert found.severity is severity
    assert ("succeeded" in found.detail) is (ended == "Succeeded")


MODEL = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shared, namespace: ml}
data: {OLLAMA_HOST: "http://ollama:11434"}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: ml}
spec:
  ingressClassName: nginx
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
"""


@pytest.mark.parametrize(("readers", "severity"), [(("web",), Severity.WARNING), (("web", "worker"), Severity.INFO)])
def test_which_of_several_workloads_asks_the_model_is_not_told_by_what_they_share(
    readers: tuple[str, ...], severity: Severity
) -> None:
    ollama = deployment("ollama", 'image: "ollama/ollama:0.9", ports: [{containerPort: 11434}]')
    ollama += service("ollama", "{selector: {app: ollama}, ports: [{port: 11434}]}")
    web = service("web", "{selector: {app: web}, ports: [{port: 80}]}")
    apps = "".join(deployment(name, READS) for name in readers)
    (found,) = findings(MODEL + ollama + web + apps, "ingress-stream-timeout")
    assert found.severity is severity


CLOSED = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: ml}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - {from: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}
  - {ports: [{port: 8080}]}
"""


@pytest.mark.parametrize(("name", "found"), [("metrics", 0), ("api", 1)])
def test_a_port_for_metrics_is_not_for_the_clients_of_a_load_balancer(name: str, found: int) -> None:
    ports = f"[{{name: http, port: 8080}}, {{name: {name}, port: 9090}}]"
    text = CLOSED + service("web", f"{{type: LoadBalancer, selector: {{app: web}}, ports: {ports}}}")
    text += deployment("web", 'image: "registry.test/web:1", ports: [{containerPort: 8080}, {containerPort: 9090}]')
    assert len(findings(text, "policy-blocks-outside")) == found


@pytest.mark.parametrize(
    ("env", "severity"), [("QDRANT__SERVICE__API_KEY", Severity.INFO), ("QDRANT__LOG_LEVEL", Severity.WARNING)]
)
def test_a_database_that_asks_for_a_key_is_not_open(env: str, severity: Severity) -> None:
    key = f"env: [{{name: {env}, valueFrom: {{secretKeyRef: {{name: q, key: k}}}}}}]"
    text = deployment("qdrant", f'image: "qdrant/qdrant:v1.16", ports: [{{containerPort: 6333}}], {key}')
    text += service("qdrant", "{type: LoadBalancer, selector: {app: qdrant}, ports: [{port: 6333}]}")
    (found,) = findings(text, "vector-database-exposed")
    assert found.severity is severity


SECOND = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: stream, namespace: ml, annotations: {nginx.ingress.kubernetes.io/proxy-read-timeout: "SECONDS"}}
spec:
  ingressClassName: nginx
  rules: [{http: {paths: [{path: /stream, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
"""


@pytest.mark.parametrize(("seconds", "severity"), [("1800", Severity.INFO), ("60", Severity.WARNING)])
def test_a_timeout_beside_a_longer_one_is_for_requests_that_are_short(seconds: str, severity: Severity) -> None:
    ollama = deployment("ollama", 'image: "ollama/ollama:0.9", ports: [{containerPort: 11434}]')
    ollama += service("ollama", "{selector: {app: ollama}, ports: [{port: 11434}]}")
    web = deployment("web", READS) + service("web", "{selector: {app: web}, ports: [{port: 80}]}")
    found = findings(MODEL + SECOND.replace("SECONDS", seconds) + ollama + web, "ingress-stream-timeout")
    assert worst(found, "web") is severity


SCRAPED = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: qdrant, namespace: ml, annotations: {nginx.ingress.kubernetes.io/rewrite-target: /}}
spec:
  ingressClassName: nginx
  rules: [{http: {paths: [{path: /metrics, pathType: Prefix, backend: {service: {name: qdrant, port: {number: 9090}}}}]}}]
"""


@pytest.mark.parametrize(("name", "found"), [("metrics", 0), ("http", 1)])
def test_a_server_of_metrics_answers_at_every_path(name: str, found: int) -> None:
    store = deployment("qdrant", 'image: "qdrant/qdrant:v1.16", ports: [{containerPort: 6333}]')
    store += service(
        "qdrant", f"{{selector: {{app: qdrant}}, ports: [{{name: {name}, port: 9090, targetPort: 6333}}]}}"
    )
    assert len(findings(SCRAPED + store, "ingress-rewrite")) == found


DENIED = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: ml}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
"""


@pytest.mark.parametrize(("own", "found"), [(policy("graph", "[]"), 0), ("", 1)])
def test_a_workload_that_a_policy_of_its_own_closes_needs_no_names(own: str, found: int) -> None:
    graph = deployment("graph", 'image: "registry.test/graph:1", ports: [{containerPort: 7687}]')
    assert len(findings(DENIED + own + graph, "egress-without-dns")) == found


STRICT = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: ml}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ml, labels: {istio-injection: enabled}}
"""


@pytest.mark.parametrize(("inject", "found"), [("false", 1), ("true", 0)])
def test_an_address_that_several_are_told_is_meant_for_one_in_the_mesh(inject: str, found: int) -> None:
    def app(name: str, inject: str) -> str:
        outside = f'labels: {{app: {name}, sidecar.istio.io/inject: "{inject}"}}'
        return deployment(name, READS).replace(f"metadata: {{labels: {{app: {name}}}}}", f"metadata: {{{outside}}}")

    told = findings(STRICT + SHARED + STORE + app("web", "false") + app("api", inject), "mesh-strict")
    assert bool(told) is bool(found)
