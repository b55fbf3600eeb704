"""Kustomizations that stand side by side in a repository and are alternatives of each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import Report, examine
from kubectl_genainet.kube.manifests import load_manifests
from tests.unit.doctor.worlds.manifests import deployment, service

CHECK = "service-selects-others"
PATCH = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: ml}
spec: {template: {spec: {containers: [{name: c, env: [{name: STORE, value: NAME}]}]}}}
"""


def store(name: str, port: int) -> str:
    one = deployment(name, f"image: 'registry.test/{name}:1', ports: [{{containerPort: {port}}}]")
    labelled = one.replace(f"app: {name}", "component: db")
    return labelled + service(name, f"{{selector: {{component: db}}, ports: [{{port: {port}}}]}}")


def report(folder: Path, patches: dict[str, str]) -> Report:
    """Of a base, and an overlay for each of two databases, which patches the base."""
    (folder / "base").mkdir()
    (folder / "base" / "api.yaml").write_text(deployment("api", "image: 'registry.test/api:1'"))
    (folder / "base" / "kustomization.yaml").write_text("resources: [api.yaml]\n")
    for name, port in (("mysql", 3306), ("postgres", 5432)):
        overlay = folder / name
        overlay.mkdir()
        (overlay / "store.yaml").write_text(store(name, port))
        (overlay / "patch.yaml").write_text(PATCH.replace("NAME", patches[name]))
        (overlay / "kustomization.yaml").write_text("resources: [../base, store.yaml]\npatches: [{path: patch.yaml}]\n")
    return examine(Cluster(load_manifests([str(folder)])), all_checks())


@pytest.mark.parametrize("patches", [{"mysql": "mysql", "postgres": "postgres"}, {"mysql": "both", "postgres": "both"}])
def test_a_service_leads_to_the_pods_of_its_own_overlay(tmp_path: Path, patches: dict[str, str]) -> None:
    found = report(tmp_path, patches)
    assert [f for f in found.findings if f.check == CHECK] == []


@pytest.mark.parametrize(("kind", "found"), [("Namespace", 1), ("ConfigMap", 0)])
def test_a_namespace_that_applications_share_makes_them_no_alternatives(tmp_path: Path, kind: str, found: int) -> None:
    parts = {
        "app": deployment("app", "image: 'registry.test/app:1', ports: [{containerPort: 80, name: web}]"),
        "front": service("app", "{selector: {app: app}, ports: [{port: 80, targetPort: wab}]}"),
    }
    for name, text in parts.items():
        folder = tmp_path / name
        folder.mkdir()
        shared = f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: ml, labels: {{of: {name}}}}}\n"
        (folder / "shared.yaml").write_text(shared)
        (folder / "own.yaml").write_text(text)
        (folder / "kustomization.yaml").write_text("resources: [shared.yaml, own.yaml]\n")
    report = examine(Cluster(load_manifests([str(tmp_path)])), all_checks())
    assert len([f for f in report.findings if f.check == "service-target-port"]) == found
