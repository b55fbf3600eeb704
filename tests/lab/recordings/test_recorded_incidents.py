"""Incidents that are over: recorders kept them, and `diagnose --since … --until …` names them as a live run did."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from kubectl_genainet.lab.incidents import find_incident
from kubectl_genainet.lab.spec import LabSpec
from tests.lab.labtest import RunningLab, broken, fresh_name, running
from tests.lab.tracetest import genainet

pytestmark = pytest.mark.timeout(1200)  # the first test makes all incidents

LASTS_S = 3.0  # at least
LIMIT_S = 180.0  # by then it was felt, however busy the machine is
CALM_S = 2.0  # between two incidents
TEN = (
    "policy-drop",
    "policy-drop-egress",
    "policy-service-port",
    "no-endpoints",
    "nothing-listens",
    "stale-endpoint",
    "reset-by-app",
    "disagreement",
    "rp-filter",
    "dns-timeout",
)


@dataclass(frozen=True)
class Past:
    """When an incident was in the lab."""

    since_s: float
    until_s: float

    @property
    def options(self) -> tuple[str, ...]:
        times = (datetime.fromtimestamp(t, UTC).isoformat() for t in (self.since_s, self.until_s))
        return tuple(word for pair in zip(("--since", "--until"), times, strict=True) for word in pair)


@pytest.fixture(scope="module")
def recorded() -> Iterator[RunningLab]:
    with running(LabSpec(name=fresh_name(), record=True)) as lab:
        yield lab


@pytest.fixture(scope="module")
def incidents(recorded: RunningLab) -> dict[str, Past]:
    """All of them, made and healed one after the other before the first is asked for as one that is over."""
    past: dict[str, Past] = {}
    for name in TEN:
        time.sleep(CALM_S)
        begun = time.time()
        with broken(recorded, name):
            past[name] = Past(begun, felt(recorded, name, begun))
    return past


def felt(lab: RunningLab, name: str, begun_s: float) -> float:
    """Until when an incident lasted that begins now: its recording has it then."""
    cause = find_incident(name).cause
    time.sleep(LASTS_S)
    found: list[str] = []
    while time.time() < begun_s + LIMIT_S:
        until_s = time.time()
        _, conclusion = diagnosis(lab, cause.target, Past(begun_s, until_s))
        found = [reported["check"] for reported in conclusion["causes"]]
        if found[:1] == [cause.diagnosis]:
            return until_s
        time.sleep(1.0)
    pytest.fail(f"{name} is not in its recording after {LIMIT_S} s: {found}")


def diagnosis(lab: RunningLab, target: str, past: Past) -> tuple[int, dict[str, Any]]:
    done = genainet("diagnose", target, "--lab", lab.name, *past.options, "-o", "json", timeout=180)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("name", TEN)
def test_an_incident_that_is_over_is_named_first(recorded: RunningLab, incidents: dict[str, Past], name: str) -> None:
    cause = find_incident(name).cause
    status, conclusion = diagnosis(recorded, cause.target, incidents[name])
    causes = [(reported["check"], reported["title"]) for reported in conclusion["causes"]]
    assert status == 1
    assert causes[0][0] == cause.diagnosis, causes
    assert cause.title in causes[0][1]
