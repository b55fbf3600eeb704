"""Thirty clients, eight backends, one label typo: the cause is on the first screen of a small terminal, in time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.lab.spec import LabSpec
from tests.lab.labtest import RunningLab, fresh_name, running
from tests.lab.tracetest import genainet

CLIENTS = {"chat": 15, "batch-scoring": 14, "chat-canary": 1}


def deployment(name: str, replicas: int, labels: dict[str, str], calls: str = "") -> dict[str, Any]:
    notes = {"lab.genainet/calls": calls, "lab.genainet/period": "2s"} if calls else {}
    container = {"name": "http", "image": "lab.genainet/http", "ports": [{"name": "http", "containerPort": 8000}]}
    template = {
        "metadata": {"labels": {"app": name} | labels, "annotations": notes},
        "spec": {"containers": [container]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    """The canary's label says `role: clinet`; the policy admits `role: client`."""
    peer = {"podSelector": {"matchLabels": {"role": "client"}}}
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "vllm"},
            "spec": {"selector": {"app": "vllm"}, "ports": [{"name": "http", "port": 80, "targetPort": 8000}]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "vllm-clients"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "vllm"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [peer], "ports": [{"protocol": "TCP", "port": 8000}]}],
            },
        },
        deployment("vllm", 8, {}),
    ]
    for name, replicas in CLIENTS.items():
        role = "clinet" if name == "chat-canary" else "client"
        objects.append(deployment(name, replicas, {"role": role}, "http://vllm/v1/chat/completions"))
    folder: Path = tmp_path_factory.mktemp("heavy")
    for number, obj in enumerate(objects):
        (folder / f"{number}.json").write_text(json.dumps(obj))
    with running(LabSpec(name=fresh_name(), manifests=str(folder))) as found:
        yield found


def test_the_typo_is_on_the_first_screen_and_all_of_it_on_forty_lines(lab: RunningLab) -> None:
    arguments = ("trace", "svc/vllm", "--lab", lab.name, "--timeout", "8s")
    done = genainet(*arguments, environment={"COLUMNS": "80"}, timeout=180)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and len(lines) <= 40, done.stdout
    assert all(len(line) <= 80 for line in lines)
    screen = "\n".join(lines[:23])
    assert lines[0].startswith("✗ DROPPED"), done.stdout
    assert "default/chat-canary → svc/vllm:80 → default/vllm" in screen
    assert "isolated for ingress by default/vllm-clients" in " ".join(screen.split())
    assert "role=clinet" in screen and "role=client" in screen
    assert "default/chat (15 pods)" in done.stdout and "default/batch-scoring (14 pods)" in done.stdout


def test_a_diagnosis_of_it_is_as_short(lab: RunningLab) -> None:
    arguments = ("diagnose", "svc/vllm", "--lab", lab.name, "--for", "8s")
    done = genainet(*arguments, environment={"COLUMNS": "80"}, timeout=180)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and len(lines) <= 40 and all(len(line) <= 80 for line in lines), done.stdout
    screen = " ".join("\n".join(lines[:23]).split())
    assert "1 cause found" in lines[0] and "isolated for ingress by default/vllm-clients" in screen
    assert "default/chat-canary → default/vllm" in screen and "role=clinet" in screen


def test_filters_leave_the_failing_client_alone(lab: RunningLab) -> None:
    arguments = ("trace", "svc/vllm", "--lab", lab.name, "--timeout", "12s", "--from", "role=clinet", "-o", "json")
    began = time.monotonic()
    done = genainet(*arguments, timeout=180)
    assert time.monotonic() - began < 60
    *paths, _ = [r for r in map(json.loads, done.stdout.splitlines()) if r["kind"] in ("path", "summary")]
    assert done.returncode == 1 and {p["flow"]["client"]["workload"] for p in paths} == {"chat-canary"}
    assert all(p["verdict"] == "dropped" and p["time"].endswith("Z") for p in paths)
