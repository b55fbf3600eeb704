"""Waypoints, Istio's routes and jobs in a mesh: what is sound is left alone."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import findings, unchecked

MODEL = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: model, namespace: ai}
spec:
  template:
    metadata: {labels: {app: model}}
    spec:
      containers:
      - name: m
        image: "vllm/vllm-openai:v0.10.1"
        ports: [{containerPort: 8000}]
        readinessProbe: {httpGet: {path: /health, port: 8000}}
---
apiVersion: v1
kind: Service
metadata: {name: model, namespace: ai, labels: {%s}}
spec: {selector: {app: model}, ports: [{port: 80, targetPort: 8000}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: ai, labels: {istio.io/dataplane-mode: ambient}}
"""
WAYPOINT = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s, namespace: ai}
spec: {gatewayClassName: istio-waypoint, listeners: []}
"""
POLICY = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: ai}
spec: %s
"""
VIRTUAL = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: chat, namespace: ai}
spec:
  hosts: [chat.example.com]
  gateways: [%s]
  http: [{route: [{destination: {host: %s, port: {number: 80}}}], retries: {attempts: 2, retryOn: connect-failure}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: istio-ingress}
spec: {servers: [{hosts: ["ai/*.example.com"], port: {number: 443, name: https, protocol: HTTPS}}]}
"""
JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: tune, namespace: ai}
spec:
  template:
    metadata: {labels: {%s}}
    spec:
      containers:
      - {name: t, image: "registry.test/t:1", command: [torchrun, t.py], resources: {limits: {nvidia.com/gpu: 8}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ai, labels: {istio-injection: enabled}}
"""


def test_a_waypoint_counts_where_it_is() -> None:
    text = MODEL % "istio.io/use-waypoint: waypoint" + WAYPOINT
    assert findings(text % "waypoint", "mesh-waypoint") == []
    assert len(findings(text % "waypont", "mesh-waypoint")) == 1  # a slip of the pen
    assert "not known to be the whole cluster" in unchecked(text % "other", "mesh-waypoint")
    assert len(findings(text % "other", "mesh-waypoint", complete=True)) == 1


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("{selector: {matchLabels: {app: model}}, rules: [{to: [{operation: {paths: [/v1/*]}}]}]}", 1),
        ("{rules: [{when: [{key: 'request.headers[x]', values: [y]}]}]}", 1),
        ("{selector: {matchLabels: {app: other}}, rules: [{to: [{operation: {paths: [/v1/*]}}]}]}", 0),
        ("{selector: {matchLabels: {app: model}}, rules: [{to: [{operation: {ports: ['8000']}}]}]}", 0),
        ("{targetRefs: [{kind: Service, name: model}], rules: [{to: [{operation: {paths: [/v1/*]}}]}]}", 0),
    ],
)
def test_ztunnel_judges_connections_only(spec: str, found: int) -> None:
    assert len(findings(MODEL % "" + POLICY % spec, "mesh-ambient-http")) == found


@pytest.mark.parametrize(
    ("gateway", "host", "broken"),
    [
        ("istio-ingress/edge", "model", set()),
        ("istio-ingress/edge", "model.ai.svc.cluster.local", set()),
        ("istio-ingress/edge", "api.vendor.example", set()),
        ("mesh", "model", set()),
        ("edge", "model", {"virtual-service-gateway"}),
        ("istio-ingress/edge", "modell", {"virtual-service-backend"}),
    ],
)
def test_istio_routes(gateway: str, host: str, broken: set[str]) -> None:
    text = MODEL % "" + VIRTUAL % (gateway, host)
    checks = ("virtual-service-backend", "virtual-service-gateway", "mesh-stream-timeout")
    assert {c for c in checks if findings(text, c)} == broken


def test_a_job_may_leave_the_mesh() -> None:
    assert len(findings(JOB % "app: tune", "mesh-in-job")) == 1
    assert findings(JOB % 'sidecar.istio.io/inject: "false"', "mesh-in-job") == []
