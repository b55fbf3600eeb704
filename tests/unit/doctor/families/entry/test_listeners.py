"""Routes and listeners: who takes whom."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import findings

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  gatewayClassName: any
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - name: models
    port: 443
    protocol: HTTPS
    hostname: "*.example.com"
    allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {models: "yes"}}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ai, labels: {models: "%s"}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: %s}
spec:
  hostnames: [%s]
  parentRefs: [{name: edge, namespace: infra%s}]
  rules: [{}]
"""


@pytest.mark.parametrize(
    ("label", "namespace", "host", "section", "found"),
    [
        ("yes", "ai", "chat.example.com", "", 0),
        ("yes", "ai", "chat.example.com", ", sectionName: models", 0),
        ("yes", "ai", "chat.example.com", ", sectionName: http", 1),  # takes its own namespace only
        ("yes", "ai", "chat.example.com", ", sectionName: https", 1),  # there is none of that name
        ("yes", "ai", "chat.example.org", "", 1),
        ("no", "ai", "chat.example.com", "", 1),
        ("yes", "infra", "chat.example.org", "", 0),
        ("yes", "elsewhere", "chat.example.com", "", 0),  # its labels are not known
    ],
)
def test_a_route_needs_a_listener_that_takes_it(
    label: str, namespace: str, host: str, section: str, found: int
) -> None:
    assert len(findings(GATEWAY % (label, namespace, host, section), "route-listener")) == found
