"""`diagnose` names the cause of every incident first, in one command, and finds nothing in a healthy lab."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kubectl_genainet.lab.incidents import find_incident, incidents
from tests.lab.labtest import RunningLab, broken
from tests.lab.tracetest import SLOW, genainet

LLAMA = "svc/my-llama-svc"


def diagnosis(lab: RunningLab, target: str, seconds: str = "8s") -> tuple[int, dict[str, Any]]:
    done = genainet("diagnose", target, "--lab", lab.name, "--for", seconds, "-o", "json", timeout=180)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def diagnosis_with(
    lab: RunningLab, target: str, wanted: Callable[[dict[str, Any]], object], seconds: int = 8
) -> tuple[int, dict[str, Any]]:
    """One that has what is wanted, or the last of three: on a busy machine the clients' next call may be late."""
    for longer in (1, 2, 4):
        status, conclusion = diagnosis(lab, target, f"{longer * seconds}s")
        if wanted(conclusion):
            break
    return status, conclusion


@pytest.mark.parametrize("name", incidents())
def test_the_cause_of_an_incident_comes_first(lab: RunningLab, name: str) -> None:
    cause = find_incident(name).cause
    with broken(lab, name):
        status, conclusion = diagnosis_with(lab, cause.target, lambda found: found["causes"], cause.watch_s)
    causes = [(reported["check"], reported["title"]) for reported in conclusion["causes"]]
    # A client that waits for the pod that is gone opens no connection meanwhile: then the node's rules tell it alone.
    also = "stale-endpoint-rules" if cause.diagnosis == "stale-endpoint" else cause.diagnosis
    assert causes and causes[0][0] in (cause.diagnosis, also), causes
    assert cause.title in causes[0][1]
    assert status == 1


def test_a_healthy_lab_gives_no_cause(lab: RunningLab) -> None:
    status, found = diagnosis(lab, LLAMA)
    assert {cause["check"] for cause in found["causes"]} <= SLOW
    assert status == (1 if found["causes"] else 0)
    assert {c["what"]: c["state"] for c in found["checked"]} == dict.fromkeys(
        ("dns", "policies", "endpoints", "rules", "mtu", "conntrack", "nodes", "answers"), "fine"
    )
    assert found["callers"]["default/chatbot-ui"] > 0


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("policy-drop", "dns-timeout", {"policy-drop", "rule-drop"}),
        ("policy-drop", "disagreement", {"policy-drop", "rule-drop"}),  # a rule that drops what the policy would
        ("reset-by-app", "listen-overflow", {"reset-by-app", "listen-overflow"}),  # of two pods
        ("dns-policy-egress", "no-endpoints", {"policy-drop", "no-endpoints"}),  # nobody comes as far as to try
    ],
)
def test_two_incidents_at_once_are_two_causes(lab: RunningLab, one: str, other: str, expected: set[str]) -> None:
    with broken(lab, one), broken(lab, other):
        _, found = diagnosis_with(lab, LLAMA, lambda found: checks_of(found) >= expected)
    assert checks_of(found) >= expected


def checks_of(conclusion: dict[str, Any]) -> set[str]:
    return {cause["check"] for cause in conclusion["causes"]}


def test_what_one_incident_hides_of_another_is_not_called_fine(lab: RunningLab) -> None:
    with broken(lab, "policy-drop"), broken(lab, "slow-backend"):
        _, found = diagnosis_with(lab, LLAMA, lambda found: "policy-drop" in checks_of(found))
    states = {c["what"]: c["state"] for c in found["checked"]}
    assert (states["policies"], states["mtu"], states["answers"]) == ("faulty", "not-checked", "not-checked")
