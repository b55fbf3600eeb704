"""One node port for two Services: what the API server refuses, and what manifests leave open."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import Report, examine
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import findings, service

CHECK = "node-port-twice"


def asks(name: str, ports: str, more: str = "", namespace: str = "ml") -> str:
    return service(name, f"{{type: NodePort, selector: {{app: x}}, ports: [{ports}]{more}}}", namespace)


TCP, UDP = "{port: 80, nodePort: 30080}", "{port: 53, nodePort: 30080, protocol: UDP}"
LOCAL = ", externalTrafficPolicy: Local, healthCheckNodePort: 30080"
REFUSED = [
    (asks("a", TCP) + asks("b", TCP), "Service ml/b", "spec.ports[0].nodePort"),
    (asks("a", TCP) + asks("b", TCP, namespace="other"), "Service other/b", "spec.ports[0].nodePort"),
    (asks("a", TCP) + asks("b", UDP), "Service ml/b", "spec.ports[0].nodePort"),
    (asks("a", TCP) + asks("b", "{port: 81}", LOCAL), "Service ml/b", "spec.healthCheckNodePort"),
    (asks("a", "{port: 80, nodePort: 30080, name: x}, " + UDP), "Service ml/a", "spec.ports[1].nodePort"),
]
TAKEN = [
    asks("a", TCP) + asks("b", "{port: 80, nodePort: 30081}"),
    asks("a", TCP) + asks("b", "{port: 80}"),
    asks("a", "{name: t, port: 80, nodePort: 30080}, {name: u, port: 80, nodePort: 30080, protocol: UDP}"),
]


@pytest.mark.parametrize(("text", "about", "field"), REFUSED)
def test_a_node_port_is_one_services(text: str, about: str, field: str) -> None:
    (found,) = findings(text, CHECK)
    assert (str(found.object), found.severity, found.evidence[0].field) == (about, Severity.ERROR, field)


@pytest.mark.parametrize("text", TAKEN)
def test_what_the_api_server_takes(text: str) -> None:
    assert findings(text, CHECK) == []


def report(folder: Path, files: dict[str, str]) -> Report:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return examine(Cluster(load_manifests([str(folder)])), all_checks())


@pytest.mark.parametrize(
    ("other", "severity", "open_"),
    [
        (asks("b", TCP, namespace="other"), Severity.INFO, ""),
        (asks("a", TCP, namespace="other"), None, "of two environments"),
        (asks("a-dev", TCP, namespace="other"), None, "of two environments"),
        (asks("a-device", TCP, namespace="other"), Severity.INFO, ""),
        (asks("b", TCP).replace(", namespace: ml", ""), Severity.INFO, ""),
    ],
    ids=["two applications", "one application twice", "another environment", "another name", "an example"],
)
def test_folders_that_may_never_meet(tmp_path: Path, other: str, severity: Severity | None, open_: str) -> None:
    told = report(tmp_path, {"one/a.yaml": asks("a", TCP), "two/b.yaml": other})
    assert [f.severity for f in told.findings if f.check == CHECK] == ([severity] if severity else [])
    assert open_ in "; ".join(n.reason for n in told.not_checked if n.what == CHECK)


def test_overlays_of_one_base_are_for_two_clusters(tmp_path: Path) -> None:
    overlay = "resources: [../base]\nnamespace: "
    files = {"base/a.yaml": asks("a", TCP), "base/kustomization.yaml": "resources: [a.yaml]\n"}
    files |= {f"{name}/kustomization.yaml": f"{overlay}{name}\n" for name in ("dev", "prod")}
    told = report(tmp_path, files)
    assert [f for f in told.findings if f.check == CHECK] == []
    assert "of two environments" in "; ".join(n.reason for n in told.not_checked if n.what == CHECK)
