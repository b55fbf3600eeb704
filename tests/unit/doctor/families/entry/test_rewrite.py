"""A rewrite that captures nothing sends all below a path to one."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.families.entry.test_streams import model
from tests.unit.doctor.worlds.manifests import findings

ERROR = [("every request below /llm arrives as /", Severity.ERROR)]


def told(
    path: str, kind: str = "Prefix", target: str = "/", cls: str = "nginx", image: str = ""
) -> list[tuple[str, Severity]]:
    ingress = f"""
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: edge, namespace: shop, annotations: {{nginx.ingress.kubernetes.io/rewrite-target: "{target}"}}}}
spec:
  ingressClassName: {cls}
  rules:
  - http: {{paths: [{{path: "{path}", pathType: {kind}, backend: {{service: {{name: model, port: {{number: 80}}}}}}}}]}}
"""
    server = model().replace("vllm/vllm-openai:v0.9.2", image or "vllm/vllm-openai:v0.9.2")
    return [(f.title, f.severity) for f in findings(server + ingress, "ingress-rewrite")]


@pytest.mark.parametrize("kind", ["Prefix", "ImplementationSpecific"])
def test_what_is_below_a_prefix_is_lost(kind: str) -> None:
    assert told("/llm", kind) == ERROR


@pytest.mark.parametrize(
    ("path", "kind", "target", "cls"),
    [
        ("/", "Prefix", "/", "nginx"),
        ("/llm", "Exact", "/", "nginx"),
        ("/llm(/|$)(.*)", "ImplementationSpecific", "/$2", "nginx"),
        ("/llm", "Prefix", "/v1/chat/completions", "nginx"),
        ("/llm", "Prefix", "/", "traefik"),
    ],
)
def test_what_is_captured_exact_or_meant_is_not(path: str, kind: str, target: str, cls: str) -> None:
    assert told(path, kind, target, cls) == []


def test_a_server_that_answers_at_its_root_and_one_that_is_no_part_of_it_are_left_out() -> None:
    assert told("/llm", image="ghcr.io/huggingface/text-generation-inference:3") == []
    assert told("/llm", image="nginx:1.27") == []
