"""Recorders whose clock the test sets (libfaketime): incidents of yesterday, an hour apart, asked for today.

    make test-vm

The agents and the recorder of objects are whole, real processes; only what they read of the wall clock is shifted.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.lab.change import changing
from kubectl_genainet.lab.incidents import find_incident
from kubectl_genainet.lab.spec import LabSpec
from kubectl_genainet.lab.state import Memo
from tests.lab.labtest import RunningLab, broken, fresh_name, running
from tests.lab.recordings.test_recorded_incidents import CALM_S, LASTS_S, LIMIT_S, Past, diagnosis
from tests.lab.tracetest import genainet

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]  # incidents that last, and calm between them

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
HOUR = 3600.0  # a recording is kept for 24 of them
FIRST, SECOND = "policy-drop", "no-endpoints"
CALM_LONG_S = LASTS_LONG_S = 40.0  # so that a timeline has a before and an after
SETTLE_S = 3.0  # a clock that is set is noticed within a second, and what was seen before it is written


@dataclass
class Clock:
    """What the lab's processes take for the time: `behind_s` seconds behind this process's."""

    file: Path
    behind_s: float = 0.0

    def set_back(self, behind_s: float) -> None:
        self.behind_s = behind_s
        self.file.write_text(f"-{behind_s:.0f}" if behind_s else "+0")

    def now(self) -> float:
        return time.time() - self.behind_s


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    assert LIBRARY is not None, "scripts/packages.sh vm installs faketime"
    clock = Clock(tmp_path_factory.mktemp("clock") / "offset")
    clock.set_back(23 * HOUR)
    return clock


@pytest.fixture(scope="module")
def recorded(clock: Clock) -> Iterator[RunningLab]:
    fake = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock.file),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": "1",
        "NO_FAKE_STAT": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in fake.items():
            patch.setenv(name, value)
        with running(LabSpec(name=fresh_name(), record=True)) as lab:
            patch.undo()
            yield lab


@dataclass(frozen=True)
class Incident:
    """When it was, by the lab's clock, and what `diagnose` said of it live."""

    past: Past
    live: dict[str, Any]


def made(lab: RunningLab, clock: Clock, name: str, *, lasts_s: float = LASTS_S) -> Incident:
    cause = find_incident(name).cause
    time.sleep(CALM_S)
    begun = clock.now()
    with broken(lab, name):
        live = said(genainet("diagnose", cause.target, "--lab", lab.name, "--for", "4s", "-o", "json", timeout=180))
        deadline = time.monotonic() + LIMIT_S
        time.sleep(lasts_s)
        while True:
            until = clock.now()
            _, conclusion = diagnosis(lab, cause.target, Past(begun, until))
            if cause.diagnosis in [reported["check"] for reported in conclusion["causes"]]:
                return Incident(Past(begun, until), live)
            assert time.monotonic() < deadline, conclusion["causes"]
            time.sleep(1.0)


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def incidents(recorded: RunningLab, clock: Clock) -> dict[str, Incident]:
    """Yesterday's two, an hour apart, with a rollout that has nothing to do with them just before the second."""
    first = made(recorded, clock, FIRST)
    clock.set_back(22 * HOUR)
    time.sleep(SETTLE_S)
    time.sleep(CALM_LONG_S)
    roll_out(recorded)
    second = made(recorded, clock, SECOND, lasts_s=LASTS_LONG_S)
    clock.set_back(0)
    time.sleep(SETTLE_S)
    return {FIRST: first, SECOND: second}


def roll_out(lab: RunningLab) -> None:
    """Of what the Service that is asked about has nothing to do with."""
    with changing(lab.name) as changed:
        vectors = changed.edit(changed.find("StatefulSet", "qdrant"), Memo())
        vectors["spec"]["template"]["spec"]["containers"][0]["image"] = "lab.genainet/server:2"
        changed.save()


def causes(conclusion: dict[str, Any]) -> list[tuple[str, str]]:
    """Without which of its pods stands for a workload, and without numbers."""
    replicas = re.compile(r"(default/[a-z-]+?)-[0-9a-z]+-[0-9a-z]{5}\b")
    return [(c["check"], re.sub(r"\d+", "N", replicas.sub(r"\1", c["title"]))) for c in conclusion["causes"]]


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_yesterdays_incident_is_diagnosed_today_as_it_was_live(
    recorded: RunningLab, incidents: dict[str, Incident], name: str
) -> None:
    incident = incidents[name]
    status, conclusion = diagnosis(recorded, find_incident(name).cause.target, incident.past)
    assert status == 1
    assert causes(conclusion) == causes(incident.live)


def test_what_changed_is_listed_and_an_unrelated_rollout_is_not_blamed_first(
    recorded: RunningLab, incidents: dict[str, Incident]
) -> None:
    since_s, until_s = incidents[SECOND].past.since_s - CALM_LONG_S, incidents[SECOND].past.until_s
    past = Past(since_s, until_s)
    timeline = said(
        genainet(
            "timeline",
            find_incident(SECOND).cause.target,
            "--lab",
            recorded.name,
            *past.options,
            "-o",
            "json",
            timeout=180,
        )
    )
    rollouts = [change for change in timeline["changes"] if change["kind"] == "rollout"]
    assert [(change["object"]["name"], change["touches"]) for change in rollouts] == [("qdrant", "")]
    assert "failures" in timeline["onsets"][0]["series"], timeline["notes"]
    suspects = [suspect["change"] for suspect in timeline["onsets"][0]["suspects"]]
    assert suspects[0]["touches"] and suspects[0]["object"] != rollouts[0]["object"], (
        timeline["onsets"],
        timeline["changes"],
    )
