"""Names and ports that nearly fit: what is a slip of the pen, and what is another thing."""

from __future__ import annotations

from kubectl_genainet.doctor.predicates.selectors import alike
from tests.unit.doctor.manifest_reports import findings

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


def test_a_port_beside_a_declared_one_is_information() -> None:
    one = findings(MODEL + SERVICE % ("coder-7b", "[{name: a, port: 9400}]"), "service-target-port")
    two = findings(
        MODEL + SERVICE % ("coder-7b", "[{name: a, port: 8000}, {name: b, port: 9400}]"), "service-target-port"
    )
    assert [f.severity.value for f in one + two] == ["warning", "info"]


def test_a_port_of_a_label_is_known() -> None:
    labelled = MODEL.replace("{app: coder-7b}", '{app: coder-7b, serving.test/port: "9400"}')
    assert findings(labelled + SERVICE % ("coder-7b", "[{port: 9400}]"), "service-target-port") == []


def test_another_short_word_is_another_name() -> None:
    for one, other, near in (("rel-tei", "rel-tgi", False), ("chat-modell", "chat-model", True), ("api", "app", False)):
        assert bool(alike(one, [other])) == near
