"""What doctor says of manifests, written as YAML in a test."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import Report, examine
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.finding import Finding


def cluster_of(text: str, *, complete: bool = False) -> Cluster:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "in.yaml"
        file.write_text(text)
        return Cluster(load_manifests([str(file)]), complete=complete)


def report_of(text: str, *, complete: bool = False) -> Report:
    return examine(cluster_of(text, complete=complete), all_checks())


def findings(text: str, check: str, *, complete: bool = False) -> list[Finding]:
    return [f for f in report_of(text, complete=complete).findings if f.check == check]


def unchecked(text: str, check: str, *, complete: bool = False) -> str:
    """Why a check looked at nothing, or at part only; empty where it looked at all."""
    found = report_of(text, complete=complete).not_checked
    return "; ".join(n.reason for n in found if n.what == check)


def deployment(name: str, container: str, namespace: str = "ml") -> str:
    """A Deployment of one container."""
    return f"""
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: c, {container}}}]}}
"""


def service(name: str, spec: str, namespace: str = "ml") -> str:
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"""
