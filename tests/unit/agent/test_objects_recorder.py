"""The recorder of the cluster's objects: what it writes gives them back, and when they were not seen is named."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.agent.objects import server
from kubectl_genainet.agent.objects.recorder import ObjectsRecorder
from kubectl_genainet.agent.serve.auth import Capability
from kubectl_genainet.agent.serve.server import AnyCaller
from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.blocks import Flag, scan
from kubectl_genainet.history.objects import Objects, objects_range
from kubectl_genainet.history.ranges import node_range
from kubectl_genainet.history.read import NOT_RUN, RangeReader
from kubectl_genainet.history.store import RecordingLimits
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged
from kubectl_genainet.model.history import Gap, ObjectChanged
from tests.unit.history.recording import MONO, SECOND, WALL


def test_two_runs_give_the_objects_and_name_what_was_not_seen(tmp_path: Path) -> None:
    snapshot = read_bundle(recordings() / "policy-service-port.gnb").snapshot
    now_s = 0

    def start() -> ObjectsRecorder:
        clocks = {"wall": lambda: WALL + now_s * SECOND, "mono": lambda: MONO + now_s * SECOND}
        recorder = ObjectsRecorder(tmp_path, RecordingLimits(), **clocks)
        assert recorder.see(snapshot) == len(snapshot.objects)
        return recorder

    first = start()
    now_s = 5
    first.flush()
    first.unseen("the API server is away")
    now_s = 10
    assert first.see(snapshot) == 0
    now_s = 15
    first.close()
    now_s = 30
    second = start()
    now_s = 35
    second.close()
    since, until = WALL, WALL + 35 * SECOND
    given = node_range("objects", RangeReader(tmp_path, "objects", since, until).blocks())
    known = objects_range(given, since, until)
    assert known.snapshot is not None and len(known.snapshot.objects) == len(snapshot.objects)
    spans = [((g.since_ns - WALL) // SECOND, (g.until_ns - WALL) // SECOND, g.why) for g in known.gaps]
    assert sorted(spans) == [(5, 10, "the API server is away"), (15, 30, NOT_RUN)]


def test_each_change_is_kept_and_how_long_objects_are_unseen(tmp_path: Path) -> None:
    now_s = 0
    clocks = {"wall": lambda: WALL + now_s * SECOND, "mono": lambda: MONO + now_s * SECOND}
    recorder = ObjectsRecorder(tmp_path, RecordingLimits(), **clocks)

    def pod(name: str, version: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "resourceVersion": version}}

    def see(*objects: dict[str, Any]) -> int:
        return recorder.see(ClusterChanged(objects=list(objects)).snapshot)

    assert see(pod("same", "1"), pod("other", "1"), pod("gone", "1")) == 3
    recorder.flush()
    now_s = 5
    assert see(pod("same", "1"), pod("other", "2"), pod("new", "1")) == 3
    now_s = 7
    recorder.unseen("away")
    now_s = 10
    recorder.flush()
    since, until = WALL - SECOND, WALL + 10 * SECOND
    given = node_range("objects", RangeReader(tmp_path, "objects", since, until).blocks())
    records = [(block.flags, record) for block in given.blocks for record in block.records()]
    changes = [record for _, record in records if isinstance(record, ObjectChanged)]
    told = {(c.name, c.after is not None, c.before_version, c.api_version, c.at_ns - WALL) for c in changes}
    assert told == {
        ("other", True, "1", "v1", 5 * SECOND),
        ("new", True, "", "v1", 5 * SECOND),
        ("gone", False, "1", "v1", 5 * SECOND),
    }
    (first,) = {flags for flags, record in records if isinstance(record, ClusterChanged)}
    assert Flag.WHOLE_STATE in first
    gaps = [(r.since_ns - WALL, r.until_ns - WALL) for _, r in records if isinstance(r, Gap) and r.why == "away"]
    assert gaps == [(7 * SECOND, 10 * SECOND)]


def test_what_changes_just_after_the_clock_was_set_is_by_the_new_clock(tmp_path: Path) -> None:
    snapshot = read_bundle(recordings() / "policy-service-port.gnb").snapshot
    wall_s = mono_s = 0
    clocks = {"wall": lambda: WALL + wall_s * SECOND, "mono": lambda: MONO + mono_s * SECOND}
    recorder = ObjectsRecorder(tmp_path, RecordingLimits(), **clocks)
    recorder.see(snapshot)
    wall_s, mono_s = 3602, 2  # an hour ahead
    assert recorder.see(replace(snapshot, objects=snapshot.objects[1:])) == 1
    wall_s, mono_s = 3607, 7
    recorder.close()
    since, until = WALL + 3600 * SECOND, WALL + 3607 * SECOND
    known = objects_range(node_range("objects", RangeReader(tmp_path, "objects", since, until).blocks()), since, until)
    changes = [(at_ns, event) for at_ns, event in known.changes if isinstance(event, ObjectChanged)]
    assert [at_ns - WALL for at_ns, _ in changes] == [3602 * SECOND]


def test_the_log_says_each_thing_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LOOK_S", 0.001)
    snapshot = ClusterSnapshot(objects=())
    answers: list[str | ClusterSnapshot] = ["held", "held", "held", "away", "away", snapshot, "held", snapshot]

    def look() -> ClusterSnapshot | None:
        if len(answers) == 1:
            watch.stopping.set()
        answer = answers.pop(0)
        if isinstance(answer, str):
            raise GenainetError(answer)
        return answer

    watch = server.Watch(ObjectsRecorder(tmp_path, RecordingLimits()), look)
    watch.run()
    said = [line.removeprefix("genainet-objects: ") for line in capsys.readouterr().err.splitlines()]
    assert said == ["held", "away", "the objects can be read again", "held", "the objects can be read again"]


def test_who_says_nothing_makes_room_for_a_health_check(tmp_path: Path) -> None:
    async def run() -> bytes:
        recorder = ObjectsRecorder(tmp_path / "kept", RecordingLimits())
        objects = server.ObjectsServer(tmp_path / "kept", recorder, AnyCaller(), lambda: True)
        path = str(tmp_path / "objects.sock")
        async with await asyncio.start_unix_server(objects.handle, path=path):
            silent = [await asyncio.open_unix_connection(path) for _ in range(server.MAX_CONNECTIONS + 4)]
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(20):
                answer = await reader.readuntil(b"\r\n")
                for closed, _ in silent[:5]:  # the oldest
                    await closed.read()
            assert not any(waiting.at_eof() for waiting, _ in silent[5:])
            for _, opened in [*silent, (reader, writer)]:
                opened.close()
        return answer

    assert asyncio.run(run()) == b"HTTP/1.1 200 \r\n"


def test_who_shows_no_token_reads_nothing_and_who_says_nothing_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.2)
    (tmp_path / "token").write_text("t" * 40)

    async def run() -> tuple[bytes, bytes]:
        recorder = ObjectsRecorder(tmp_path / "kept", RecordingLimits())
        objects = server.ObjectsServer(tmp_path / "kept", recorder, Capability(tmp_path / "token"), lambda: True)
        path = str(tmp_path / "objects.sock")
        async with await asyncio.start_unix_server(objects.handle, path=path), asyncio.timeout(20):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"POST /v1/history HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            refused = await reader.readuntil(b"\r\n")
            silent, waiting = await asyncio.open_unix_connection(path)
            heard = await silent.read()
            for opened in (writer, waiting):
                opened.close()
        return refused, heard

    refused, heard = asyncio.run(run())
    assert refused.startswith(b"HTTP/1.1 401") and heard == b""


def test_callers_with_a_token_leave_places_to_the_health_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_KNOWN", 0)

    async def run() -> bytes:
        recorder = ObjectsRecorder(tmp_path / "kept", RecordingLimits())
        objects = server.ObjectsServer(tmp_path / "kept", recorder, AnyCaller(), lambda: True)
        path = str(tmp_path / "objects.sock")
        async with await asyncio.start_unix_server(objects.handle, path=path), asyncio.timeout(20):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"POST /v1/history HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            answer = await reader.readuntil(b"\r\n")
            writer.close()
        return answer

    assert asyncio.run(run()).startswith(b"HTTP/1.1 503")


def test_files_are_their_owners_and_a_killed_recorder_leaves_nothing_else(tmp_path: Path) -> None:
    """kill -9 between two writes: what is there is what was written, and can be read."""
    kept = tmp_path / "kept"
    program = (
        "import os, signal, sys; from pathlib import Path;"
        "from kubectl_genainet.agent.objects.recorder import ObjectsRecorder;"
        "from kubectl_genainet.history.store import RecordingLimits; from kubectl_genainet.model.cluster import ClusterSnapshot;"
        "recorder = ObjectsRecorder(Path(sys.argv[1]), RecordingLimits()); recorder.see(ClusterSnapshot(objects=()));"
        "recorder.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.umask(0); {program}", str(kept)], timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    (segment,) = kept.iterdir()
    assert segment.suffix == ".seg" and [kept.stat().st_mode & 0o777, segment.stat().st_mode & 0o777] == [0o700, 0o600]
    assert [type(part).__name__ for part in scan(segment.read_bytes())] == ["Block"]


def test_kinds_of_one_name_of_two_groups_are_two_objects() -> None:
    def policy(api_version: str) -> dict[str, Any]:
        metadata = {"name": "allow", "namespace": "d"}
        return {"apiVersion": api_version, "kind": "NetworkPolicy", "metadata": metadata}

    objects = Objects()
    objects.take(ClusterChanged(objects=[policy("networking.k8s.io/v1"), policy("projectcalico.org/v3")]))
    objects.take(
        ObjectChanged(
            at_ns=1, object_kind="NetworkPolicy", namespace="d", name="allow", api_version="projectcalico.org/v3"
        )
    )
    left = objects.now("")
    assert left is not None and [raw["apiVersion"] for raw in left.objects] == ["networking.k8s.io/v1"]
