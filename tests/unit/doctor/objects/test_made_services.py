"""The Services that operators make: a call of one leads to the operator's pods, though the manifests hold no Service."""

from __future__ import annotations

import pytest

from kubectl_genainet.doctor.objects.stacks import Role
from tests.unit.doctor.worlds.manifests import cluster_of, deployment, findings

ELASTIC = """
apiVersion: elasticsearch.k8s.elastic.co/v1
kind: Elasticsearch
metadata: {name: vectors, namespace: ml}
spec: {version: 9.1.0, nodeSets: [{name: hot, count: 3}]}
"""
POSTGRES = """
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata: {name: facts, namespace: ml}
spec: {instances: 3}
"""
NIM = """
apiVersion: apps.nvidia.com/v1alpha1
kind: NIMService
metadata: {name: embed, namespace: ml}
spec: {image: {repository: nvcr.io/nim/nvidia/embed, tag: "1.6"}, expose: {service: {port: 8010}}}
"""


def rag(url: str) -> str:
    model = "{name: OPENAI_BASE_URL, value: 'https://api.openai.com/v1'}"
    return deployment("rag", f"image: 'registry.test/rag:1', env: [{model}, {{name: STORE_URL, value: '{url}'}}]")


@pytest.mark.parametrize(
    ("made", "url", "callee"),
    [
        (ELASTIC, "https://vectors-es-http:9200", "vectors"),
        (ELASTIC, "https://vectors-es-internal-http.ml.svc:9200", "vectors"),
        (ELASTIC, "https://vectors-es-hot.ml.svc.cluster.local:9200", "vectors"),
        (NIM, "http://embed.ml.svc:8010/v1", "embed"),
    ],
)
def test_a_call_of_an_operators_service_leads_to_its_pods(made: str, url: str, callee: str) -> None:
    cluster = cluster_of(made + rag(url), complete=True)
    (call,) = [c for c in cluster.calls if c.service is not None]
    assert call.service is not None
    assert call.service_port is not None
    assert [w.name for w in cluster.workloads_of(call.service)] == [callee]
    assert findings(made + rag(url), "call-host", complete=True) == []
    assert findings(made + rag(url), "call-port", complete=True) == []


def test_an_elasticsearch_that_an_application_calls_is_its_store() -> None:
    cluster = cluster_of(ELASTIC + rag("https://vectors-es-http.ml.svc:9200"))
    assert [cluster.role(w) for w in cluster.workloads if w.name == "vectors"] == [Role.VECTOR_DATABASE]


@pytest.mark.parametrize("url", ["https://vector-es-http:9200", "https://vectors-es-http.other.svc:9200"])
def test_a_service_that_no_operator_makes_does_not_exist(url: str) -> None:
    assert len(findings(ELASTIC + rag(url), "call-host", complete=True)) == 1


@pytest.mark.parametrize(("made", "host", "port"), [(ELASTIC, "vectors-es-http", 9201), (POSTGRES, "facts-rw", 5433)])
def test_a_port_that_the_operator_gives_no_service_is_found(made: str, host: str, port: int) -> None:
    (found,) = findings(made + rag(f"https://{host}:{port}"), "call-port", complete=True)
    assert f"port {port} of Service ml/{host}" in found.title
    assert findings(made + rag(f"https://{host}:{port}"), "call-host", complete=True) == []


def test_a_service_that_is_written_goes_before_the_operators() -> None:
    own = "\n---\napiVersion: v1\nkind: Service\nmetadata: {name: vectors-es-http, namespace: ml}\nspec: {ports: [{port: 443}]}\n"
    assert findings(ELASTIC + own + rag("https://vectors-es-http:443"), "call-port", complete=True) == []
    assert len(findings(ELASTIC + own + rag("https://vectors-es-http:9200"), "call-port", complete=True)) == 1
