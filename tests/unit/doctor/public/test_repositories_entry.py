"""Kinds of public repositories at the way into a cluster that are no fault, each beside one that is."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, unchecked

ADDRESS = """
---
apiVersion: v1
kind: Service
metadata: {name: vectors, namespace: ml}
spec: {type: ExternalName, externalName: 192.0.2.9, ports: [{port: 6333}]}
"""
ROUTE = """
---
apiVersion: traefik.io/v1alpha1
kind: IngressRoute
metadata: {name: vectors, namespace: ml}
spec: {routes: [{match: "Host(`v.example.com`)", services: [{name: NAME, port: 6333}]}]}
"""
INGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: vectors, namespace: ml}
spec: {rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: vectors, port: {number: 6333}}}}]}}]}
"""
CALL = deployment("app", 'image: "registry.test/app:1", env: [{name: QDRANT_URL, value: "http://vectors:6333"}]')


@pytest.mark.parametrize(
    ("more", "severity"),
    [
        (ROUTE.replace("NAME", "vectors"), Severity.INFO),
        (INGRESS, Severity.INFO),
        (ROUTE.replace("NAME", "others"), Severity.WARNING),
        (CALL, Severity.ERROR),
        (ROUTE.replace("NAME", "vectors") + CALL, Severity.ERROR),
    ],
)
def test_a_proxy_takes_an_external_name_for_an_address_and_a_client_does_not(more: str, severity: Severity) -> None:
    (found,) = findings(ADDRESS + more, "external-name-address")
    assert found.severity is severity


LOAD_BALANCER = """
---
apiVersion: v1
kind: Service
metadata: {name: chat, namespace: ml, annotations: {service.beta.kubernetes.io/aws-load-balancer-scheme: internal}}
spec: {type: LoadBalancer, selector: {app: app}, ports: [{port: 80}]}
"""


def test_a_controller_of_another_manifest_may_take_a_load_balancer_without_a_class() -> None:
    text = deployment("app", 'image: "registry.test/app:1"') + LOAD_BALANCER
    assert findings(text, "nlb-legacy") == []
    assert "gives its class to new Services" in str(unchecked(text, "nlb-legacy"))
    asked = text.replace("scheme: internal", 'type: "nlb"')
    assert [f.title for f in findings(asked, "nlb-legacy")] == ["the type annotation asks for an in-tree NLB"]
