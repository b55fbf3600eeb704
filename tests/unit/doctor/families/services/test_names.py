"""Names and ports that nearly fit: what is a slip of the pen, and what is another thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.predicates.selectors import alike
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import findings

MODEL = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: coder-7b, namespace: shop}
spec:
  template:
    metadata: {labels: {app: coder-7b}}
    spec: {containers: [{name: m, image: "registry.test/app:1", ports: [{containerPort: 8000}]}]}
"""
SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {selector: {app: %s}, ports: %s}
"""


def test_another_number_is_another_name() -> None:
    assert findings(MODEL + SERVICE % ("coder-32b", "[{port: 80}]"), "service-selector") == []
    assert len(findings(MODEL + SERVICE % ("codder-7b", "[{port: 80}]"), "service-selector")) == 1


@pytest.mark.parametrize(("more", "severity"), [("", Severity.ERROR), (", clusterIP: None", Severity.INFO)])
def test_the_names_of_a_headless_service_lead_to_pods_at_any_port(more: str, severity: Severity) -> None:
    named = SERVICE % ("coder-7b", f"[{{port: 80, targetPort: http}}]{more}")
    assert [f.severity for f in findings(MODEL + named, "service-target-port")] == [severity]


@pytest.mark.parametrize(("target", "found"), [(8000, 0), (9000, 1)])
def test_a_database_listens_on_its_own_port_whatever_is_declared(target: int, found: int) -> None:
    store = MODEL.replace("registry.test/app:1", "chromadb/chroma").replace(
        "containerPort: 8000", "containerPort: 27017"
    )
    text = store + SERVICE % ("coder-7b", f"[{{port: 8000, targetPort: {target}}}]")
    assert len(findings(text, "service-target-port")) == found


def test_a_port_beside_a_declared_one_is_information() -> None:
    served = MODEL.replace("registry.test/app:1", "vllm/vllm-openai:v0.10.0")
    one = findings(served + SERVICE % ("coder-7b", "[{name: a, port: 9400}]"), "service-target-port")
    two = findings(
        served + SERVICE % ("coder-7b", "[{name: a, port: 8000}, {name: b, port: 9400}]"), "service-target-port"
    )
    other = findings(MODEL + SERVICE % ("coder-7b", "[{name: a, port: 9400}]"), "service-target-port")
    assert [f.severity.value for f in one + two + other] == ["warning", "info", "info"]


def test_a_port_of_a_label_is_known() -> None:
    labelled = MODEL.replace("{app: coder-7b}", '{app: coder-7b, serving.test/port: "9400"}')
    assert findings(labelled + SERVICE % ("coder-7b", "[{port: 9400}]"), "service-target-port") == []


def test_another_short_word_is_another_name() -> None:
    for one, other, near in (("rel-tei", "rel-tgi", False), ("chat-modell", "chat-model", True), ("api", "app", False)):
        assert bool(alike(one, [other])) == near


def test_service_at_the_end_of_a_name_makes_no_other_name() -> None:
    for one, other, near in (
        ("ollama-service", "ollama", True),
        ("ollama", "ollama-svc", True),
        ("ollama-svc", "ollama-service", True),
        ("ollama-headless", "ollama", False),
        ("service-ollama", "ollama", False),
    ):
        assert bool(alike(one, [other])) == near
    assert alike("llm-service", ["llm", "llm-servise"]) == "llm-servise"


def test_of_an_object_given_twice_nothing_is_said_of_what_it_belongs_to(tmp_path: Path) -> None:
    service = SERVICE % ("coder-7b", "[{port: 80, targetPort: http}]")
    (tmp_path / "a.yaml").write_text(MODEL + service)
    once = examine(Cluster(load_manifests([str(tmp_path)])), all_checks())
    assert [f.check for f in once.findings if f.check.startswith("service")] == ["service-target-port"]
    (tmp_path / "b.yaml").write_text(MODEL.replace("registry.test/app:1", "registry.test/app:2"))
    twice = examine(Cluster(load_manifests([str(tmp_path)])), all_checks())
    assert [f.check for f in twice.findings if f.check.startswith("service")] == []
    assert "Deployment shop/coder-7b is given more than once" in str(twice.not_checked)
