"""`doctor` on a real API server: faulty objects are found as it stores them, and what may not be read is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.harness.api import may
from tests.cluster.harness.controlplane import ControlPlane
from tests.cluster.harness.processes import wait_for

pytestmark = pytest.mark.cluster

NAMESPACE = "doctor"
LABEL = "app.kubernetes.io/name"
OBJECTS = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: Node
metadata: {{name: doctor-node}}
---
apiVersion: v1
kind: Pod
metadata: {{name: my-llama-0, namespace: {NAMESPACE}, labels: {{{LABEL}: my-llama-finetuned}}}}
spec:
  automountServiceAccountToken: false
  nodeName: doctor-node
  containers:
  - name: vllm
    image: docker.io/vllm/vllm-openai:v0.9.0
    ports: [{{name: http, containerPort: 8080}}]
    readinessProbe: {{httpGet: {{path: /health, port: http}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: rag-app-0, namespace: {NAMESPACE}, labels: {{{LABEL}: rag-app}}}}
spec:
  automountServiceAccountToken: false
  nodeName: doctor-node
  containers:
  - name: app
    image: example.com/rag-app:1
    env: [{{name: LLM_URL, value: "http://my-llama-svc/v1"}}]
    ports: [{{name: http, containerPort: 80}}]
    readinessProbe: {{httpGet: {{path: /healthz, port: http}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: my-llama-svc, namespace: {NAMESPACE}}}
spec:
  selector: {{{LABEL}: my-llama-finetuned}}
  ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]
---
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system}}
spec:
  selector: {{k8s-app: kube-dns}}
  ports: [{{name: dns, port: 53, targetPort: 53, protocol: UDP}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: coredns-0, namespace: kube-system, labels: {{k8s-app: kube-dns}}}}
spec:
  automountServiceAccountToken: false
  nodeName: doctor-node
  containers: [{{name: coredns, image: registry.k8s.io/coredns/coredns:v1.12.0}}]
---
apiVersion: v1
kind: Service
metadata: {{name: typo, namespace: {NAMESPACE}}}
spec:
  selector: {{{LABEL}: my-lama-finetuned}}
  ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]
---
apiVersion: v1
kind: Service
metadata: {{name: openai, namespace: {NAMESPACE}}}
spec: {{type: ExternalName, externalName: 203.0.113.7}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: llama-ingress, namespace: {NAMESPACE}}}
spec:
  podSelector: {{matchLabels: {{{LABEL}: my-llama-finetuned}}}}
  policyTypes: [Ingress]
  ingress:
  - from: [{{podSelector: {{matchLabels: {{{LABEL}: rag-app}}}}}}]
    ports: [{{protocol: TCP, port: 80}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: rag-app-egress, namespace: {NAMESPACE}}}
spec:
  podSelector: {{matchLabels: {{{LABEL}: rag-app}}}}
  policyTypes: [Egress]
  egress:
  - to: [{{podSelector: {{matchLabels: {{{LABEL}: my-llama-finetuned}}}}}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: chat, namespace: {NAMESPACE}}}
spec:
  rules:
  - host: chat.example.com
    http:
      paths:
      - {{path: /, pathType: Prefix, backend: {{service: {{name: chatbot-ui, port: {{number: 80}}}}}}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: read-some, namespace: {NAMESPACE}}}
rules: [{{apiGroups: [""], resources: [pods, services], verbs: [get, list]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: read-some, namespace: {NAMESPACE}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: read-some}}
subjects: [{{kind: User, name: nobody, apiGroup: rbac.authorization.k8s.io}}]
"""
# What is wrong with them, in their own namespace.
COMPLAINTS = {
    ("service-selector", "Service/typo"),
    ("external-name-address", "Service/openai"),
    ("service-endpoints", "Service/my-llama-svc"),  # no controller runs that would make EndpointSlices
    ("policy-service-port", "NetworkPolicy/llama-ingress"),
    ("policy-blocks-call", "Pod/my-llama-0"),
    ("egress-without-dns", "Pod/rag-app-0"),
    ("ingress-backend", "Ingress/chat"),
    ("ingress-controller", "Ingress/chat"),
}


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    api = control_plane.api()
    api.apply(OBJECTS)
    wait_for("nobody's role", lambda: may(control_plane.api("nobody"), "list", "pods", NAMESPACE))
    yield control_plane
    # No controller-manager runs here: a namespace that is deleted keeps what is in it.
    for service in api.get(f"/api/v1/namespaces/{NAMESPACE}/services")["items"]:
        api.delete(f"/api/v1/namespaces/{NAMESPACE}/services/{service['metadata']['name']}")
    for name in ("my-llama-0", "rag-app-0"):
        api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}?gracePeriodSeconds=0")
    api.delete("/api/v1/namespaces/kube-system/pods/coredns-0?gracePeriodSeconds=0")
    for path in ("namespaces/kube-system/services/kube-dns", f"namespaces/{NAMESPACE}", "nodes/doctor-node"):
        api.delete(f"/api/v1/{path}")


def doctor(plane: ControlPlane, user: str, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    kubeconfig = str(plane.kubeconfig(user, namespace=NAMESPACE))
    command = [sys.executable, "-m", "kubectl_genainet", "doctor", "--kubeconfig", kubeconfig, "-o", "json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def complaints(records: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {
        (r["check"], f"{r['object']['kind']}/{r['object']['name']}")
        for r in records
        if r["kind"] == "finding" and r["severity"] != "info"
    }


def test_faulty_objects_are_found_in_the_contexts_namespace(plane: ControlPlane) -> None:
    status, records, _ = doctor(plane, "admin")
    assert status == 1
    assert complaints(records) == COMPLAINTS
    recognised = {(r["object"]["name"], r["role"], r["stack"]) for r in records if r["kind"] == "workload"}
    assert recognised == {("my-llama-0", "model-server", "vLLM"), ("rag-app-0", "application", "")}


def test_evidence_names_the_field_as_the_server_stores_it(plane: ControlPlane) -> None:
    _, records, _ = doctor(plane, "admin", "--only", "services")
    finding = next(r for r in records if r["kind"] == "finding" and r["check"] == "service-selector")
    assert finding["object"] == {"kind": "Service", "name": "typo", "namespace": NAMESPACE}
    assert finding["evidence"][0]["field"] == "spec.selector"
    assert finding["evidence"][0]["value"] == {LABEL: "my-lama-finetuned"}
    assert finding["evidence"][0]["certainty"] == "observed"


def test_a_kind_that_may_not_be_listed_is_named_with_the_checks_that_needed_it(plane: ControlPlane) -> None:
    status, records, _ = doctor(plane, "nobody")
    assert status == 1
    assert ("service-selector", "Service/typo") in complaints(records)
    reasons = {(r["what"], r["reason"].partition(":")[0]): r["reason"] for r in records if r["kind"] == "not_checked"}
    refused = reasons["service-endpoints", "EndpointSlice could not be read"]
    assert 'User "nobody" cannot list resource "endpointslices"' in refused
    assert ("egress-without-dns", "NetworkPolicy could not be read") in reasons
    assert ("service-selector", "Service could not be read") not in reasons  # those of the namespace are enough
    outcomes = {r["check"]: r["outcome"] for r in records if r["kind"] == "check"}
    assert outcomes["service-endpoints"] == outcomes["egress-without-dns"] == "not-checked"
    assert not any(check.startswith("policy-") for check, _ in complaints(records))


def test_without_agents_what_nodes_know_is_not_checked(plane: ControlPlane) -> None:
    status, records, stderr = doctor(plane, "admin", "--only", "pod-ip", "--only", "kube-proxy")
    assert status == 0
    assert "what nodes know is not checked" in stderr
    reasons = {r["what"]: r["reason"] for r in records if r["kind"] == "not_checked"}
    assert "agent" in reasons["conntrack-fill"] and "agent" in reasons["kube-proxy-drift"]


def test_a_refused_token_is_an_error_of_the_command(plane: ControlPlane) -> None:
    kubeconfig = plane.kubeconfig("admin", namespace=NAMESPACE)
    broken = json.loads(kubeconfig.read_text())
    broken["users"][0]["user"]["token"] = "wrong"
    kubeconfig.write_text(json.dumps(broken))
    command = [sys.executable, "-m", "kubectl_genainet", "doctor", "--kubeconfig", str(kubeconfig)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and done.stdout == ""
