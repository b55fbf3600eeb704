"""What `trace` tells of ends that pause, reset, or open and close in unusual ways, each with its truth: what the clients and
servers did, and what their kernels counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_genainet.lab.spec import LabSpec
from tests.lab.connections.faultbench import ASK
from tests.lab.connections.faults_of_ends import ANSWER, CLOSED, FAULTS, PAUSE_S
from tests.lab.connections.telling import Told, checks, one, tell
from tests.lab.labtest import RunningLab, fresh_name, running
from tests.lab.tracetest import Record

SLOW = ("queue_holds_the_reply", "client_reads_nothing", "server_pauses")


@pytest.fixture(scope="module")
def lab(quiet_manifests: Path) -> Iterator[RunningLab]:
    with running(LabSpec(name=fresh_name(), manifests=str(quiet_manifests))) as found:
        yield found


@pytest.fixture(scope="module")
def told(lab: RunningLab) -> Told:
    return tell(lab, FAULTS, SLOW)


def silence(path: Record) -> tuple[str, float]:
    """(Who was waited for, for how many seconds)"""
    found = path["stream"]["silence"]
    return found["waited_for"], found["length_ns"] / 1e9


def test_a_server_that_pauses_is_waited_for(told: Told) -> None:
    _, path = one(told, "server_pauses")
    whose, length = silence(path)
    assert whose == "server" and PAUSE_S <= length < PAUSE_S + 0.5 and "stream-stalled" in checks(path)
    assert "its TCP had nothing that was not sent and acknowledged" in path["stream"]["silence"]["why"]


def test_a_client_that_reads_nothing_is_waited_for(told: Told) -> None:
    done, path = one(told, "client_reads_nothing")
    whose, length = silence(path)
    assert done.counted >= 1 and whose == "client" and length > PAUSE_S - 1
    assert "receive window had no room" in path["stream"]["silence"]["why"]
    assert not {check for check in checks(path) if check.startswith("stream-")}


def test_a_queue_that_holds_what_was_sent_is_not_the_servers_silence(told: Told) -> None:
    _, path = one(told, "queue_holds_the_reply")
    whose, length = silence(path)
    assert length > 3 and whose in ("network", "unknown") and "stream-stalled" not in checks(path)


def test_a_client_that_lingers_not_has_reset_the_connection(told: Told) -> None:
    _, path = one(told, "reset_by_linger")
    assert (path["outcome"], path["stream"]["ended"], path["stream"]["ended_by"]) == ("reset", "reset", "client")
    (found,) = [finding for finding in path["findings"] if finding["check"] == "reset-by-client"]
    assert path["flow"]["client"]["pod"] in found["title"]


def test_ends_that_close_at_once_have_lost_nothing(told: Told) -> None:
    _, path = one(told, "both_close_at_once")
    assert (path["outcome"], path["drop"], path["stream"]["ended"]) == ("answered", None, "fin")
    assert path["stream"]["reply_bytes"] == len(ANSWER) and not checks(path)


def test_a_request_that_comes_with_the_syn_is_counted(told: Told) -> None:
    done, paths = told.of("fast_open")
    assert [*done.got.values()] == ["answered"] * 2 and done.counted == 1
    assert [p["stream"]["request_bytes"] for p in paths] == [len(ASK)] * 2
    assert [p["stream"]["reply_bytes"] for p in paths] == [len(ANSWER)] * 2
    assert {p["outcome"] for p in paths} == {"answered"} and not any(map(checks, paths))


def test_a_multipath_connection_is_one(told: Told) -> None:
    done, paths = told.of("multipath")
    assert [p["outcome"] for p in paths] == [*done.got.values()]
    assert all(p["stream"]["reply_bytes"] == len(ANSWER) and not checks(p) for p in paths)


def test_a_client_whose_keepalives_stay_unanswered_resets_after_a_silence(told: Told) -> None:
    done, path = one(told, "keepalives_unanswered")
    assert [*done.got.values()] == ["TimeoutError"] and done.counted >= 2
    assert (path["outcome"], path["stream"]["ended_by"]) == ("reset", "client")
    (found,) = [finding for finding in path["findings"] if finding["check"] == "reset-by-client"]
    assert re.search(r"when neither side had sent anything new for [23]\.\d s$", found["title"])


def test_a_datagram_to_a_closed_port_behind_a_service_is_refused_there(told: Told) -> None:
    done, path = one(told, "udp_closed_behind_a_service")
    assert [*done.got.values()] == ["ConnectionRefusedError"] and done.counted == 1
    assert (path["outcome"], path["backend"]["port"], path["drop"]["check"]) == ("refused", CLOSED, "closed-port")
    assert "icmp-error" in checks(path)


def test_a_reset_that_was_made_on_the_way_is_neither_ends(told: Told) -> None:
    done, path = one(told, "reset_forged_on_the_way")
    assert [*done.got.values()] == ["ConnectionResetError"] and path["outcome"] == "reset"
    assert "reset-on-path" in checks(path)
    assert (path["stream"]["ended"], path["stream"]["ended_by"]) == ("reset", "network")
