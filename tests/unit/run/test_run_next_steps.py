"""What a diagnosis advises to run next has the names that it knows, and never a placeholder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.run.diagnose.next_steps import next_steps

SNAPSHOT = read_bundle(Path(__file__).parents[2] / "golden" / "bundles" / "healthy.gnb").snapshot
LLAMA = tuple(service for service in SNAPSHOT.services if service.metadata.name == "my-llama-svc")


def steps(target: str, snapshot: ClusterSnapshot = SNAPSHOT) -> list[str]:
    asked = parse_target(target) if target else None
    return list(next_steps((), asked, LLAMA, snapshot, seen=False))


@pytest.mark.parametrize("target", ["svc/my-llama-svc", ""])
def test_where_nothing_was_seen_a_pod_that_calls_the_service_checks_it(target: str) -> None:
    (step,) = steps(target)
    words = step.split()
    assert words[3] == (target or "svc/default/my-llama-svc")
    assert words[4:6] == ["--check", "--from-pod"]
    names = {f"pod/{pod.metadata.namespace}/{pod.metadata.name}" for pod in SNAPSHOT.pods}
    assert words[6] in names
    assert "llama" not in words[6]


def test_where_no_pod_can_make_the_connection_nothing_is_advised() -> None:
    without_pods = dataclasses.replace(
        SNAPSHOT, objects=tuple(obj for obj in SNAPSHOT.objects if obj.kind not in ("Pod", "Deployment", "StatefulSet"))
    )
    assert steps("svc/my-llama-svc", without_pods) == []


def test_where_connections_were_seen_no_other_is_made() -> None:
    assert not list(next_steps((), parse_target("svc/my-llama-svc"), LLAMA, SNAPSHOT, seen=True))
