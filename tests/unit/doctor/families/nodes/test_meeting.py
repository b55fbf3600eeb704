"""Where the ranks of a model server over several pods meet, and whether that can be reached before they are ready."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import report_of

RANKS = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: deep, namespace: serve}
spec:
  serviceName: ""
  replicas: 2
  template:
    metadata: {labels: {app: deep}}
    spec:
      containers:
      - name: sglang
        image: lmsysorg/sglang:v0.4.9
        command: [bash, -c]
        args: ["python3 -m sglang.launch_server --nnodes 2 --node-rank $RANK OPTION --host 0.0.0.0"]
        ports: [{containerPort: 30000}]
        PROBE
        resources: {limits: {nvidia.com/gpu: 8}}
---
apiVersion: v1
kind: Service
metadata: {name: first, namespace: serve}
spec: {selector: {app: deep, apps.kubernetes.io/pod-index: "0"}, PUBLISHports: [{port: 5000}]}
"""
PROBE = "readinessProbe: {httpGet: {path: /health_generate, port: 30000}}"


@pytest.mark.parametrize(
    ("option", "probe", "publish", "count"),
    [
        ("--dist-init-addr first:5000", PROBE, "", 1),
        ("--dist-init-addr=first.serve.svc.cluster.local:5000", PROBE, "", 1),
        ("--dist-init-addr first:5000", PROBE, "publishNotReadyAddresses: true, ", 0),
        ("--dist-init-addr first:5000", "", "", 0),  # ready as soon as it runs
        ("--dist-init-addr other:5000", PROBE, "", 0),
        ("", PROBE, "", 0),
    ],
)
def test_ranks_that_meet_at_a_pod_that_waits_for_them(option: str, probe: str, publish: str, count: int) -> None:
    text = RANKS.replace("OPTION", option).replace("PROBE", probe).replace("PUBLISH", publish)
    findings = [f for f in report_of(text).findings if f.check == "headless-not-ready"]
    assert [str(f.object) for f in findings] == ["Service serve/first"] * count
    assert all(f.severity is Severity.WARNING and "can't be reached" in f.title for f in findings)
    assert all(f.remedy is not None and f.remedy.trial.startswith("tried: heals it") for f in findings)
