"""Settings of controllers where they really stand: F5's ConfigMap, Linkerd's annotations, ports of a PeerAuthentication."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import report_of

SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: llm, namespace: serve}
spec:
  template:
    metadata: {labels: {app: llm}}
    spec:
      containers:
      - {name: vllm, image: "vllm/vllm-openai:v0.9.0", args: [--model, /m], ports: [{containerPort: 8000}]}
---
apiVersion: v1
kind: Service
metadata: {name: llm, namespace: serve}
spec: {selector: {app: llm}, ports: [{port: 80, targetPort: 8000}]}
---
"""
F5 = """
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: nginx.org/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: chat, namespace: serve}
spec:
  ingressClassName: nginx
  rules: [{host: a.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: llm, port: {number: 80}}}}]}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge-nginx-ingress-controller, namespace: edge}
spec:
  template:
    metadata: {labels: {app: edge}}
    spec:
      containers:
      - {name: c, image: "nginx/nginx-ingress:5.0.0", args: ["-nginx-configmaps=$(POD_NAMESPACE)/of-the-edge"]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: of-the-edge, namespace: edge}
data: {DATA}
"""
STREAMS = ("ingress-buffering", "ingress-stream-timeout")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", list(STREAMS)),
        ("proxy-buffering: 'False', proxy-read-timeout: 900s", []),
        ("proxy-buffering: 'True', proxy-read-timeout: 900s", ["ingress-buffering"]),
        ("proxy-buffering: 'False', proxy-read-timeout: 60s", ["ingress-stream-timeout"]),
    ],
)
def test_f5_nginx_takes_its_settings_from_the_config_map_that_it_is_told(data: str, expected: list[str]) -> None:
    findings = [f for f in report_of(SERVER + F5.replace("DATA", data)).findings if f.check in STREAMS]
    assert sorted(f.check for f in findings) == expected
    assert all(str(f.evidence[0].object) == "ConfigMap edge/of-the-edge" for f in findings if data)


JOB = """
apiVersion: v1
kind: Namespace
metadata: {{name: train, annotations: {{linkerd.io/inject: {namespace}}}}}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: finetune, namespace: train}}
spec:
  template:
    metadata: {{annotations: {{linkerd.io/inject: {own}}}}}
    spec: {{containers: [{{name: t, image: "registry.test/t:1", resources: {{limits: {{nvidia.com/gpu: 8}}}}}}]}}
"""


@pytest.mark.parametrize(
    ("namespace", "own", "injected"),
    [
        ("enabled", "''", True),
        ("enabled", "disabled", False),
        ("disabled", "enabled", True),
        ("ingress", "''", True),
        ("disabled", "''", False),
    ],
)
def test_linkerd_injects_by_annotations(namespace: str, own: str, injected: bool) -> None:
    findings = report_of(JOB.format(namespace=namespace, own=own)).findings
    titles = [f.title for f in findings if f.check == "mesh-in-job"]
    assert titles == (["its pods get the Linkerd proxy, which does not end with the job"] if injected else [])


STRICT = """
apiVersion: v1
kind: Namespace
metadata: {name: serve, labels: {istio-injection: enabled}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: llm, namespace: serve}
spec: {selector: {matchLabels: {app: llm}}, mtls: {mode: STRICT}, portLevelMtls: {PORT: {mode: PERMISSIVE}}}
"""
NLB = (
    "{name: llm, namespace: serve, annotations: {service.beta.kubernetes.io/aws-load-balancer-type: external, "
    "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip}}"
)


@pytest.mark.parametrize(("port", "strict"), [("8000", False), ('"8000"', False), ("9000", True)])
def test_a_port_that_a_policy_exempts_may_be_written_as_a_number(port: str, strict: bool) -> None:
    service, rest = SERVER.split("kind: Service\nmetadata: ")
    balanced = f"{service}kind: Service\nmetadata: {NLB}{rest.removeprefix('{name: llm, namespace: serve}')}"
    balanced = balanced.replace("spec: {selector", "spec: {type: LoadBalancer, selector")
    checks = {f.check for f in report_of(balanced + STRICT.replace("PORT", port)).findings}
    assert ("mesh-strict" in checks) is strict
