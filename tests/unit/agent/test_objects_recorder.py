"""The recorder of the cluster's objects: what it writes gives them back, and when they were not seen is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kubectl_genainet.agent.objects.recorder import ObjectsRecorder
from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.history.objects import Objects, objects_range
from kubectl_genainet.history.ranges import node_range
from kubectl_genainet.history.read import NOT_RUN, RangeReader
from kubectl_genainet.history.store import Bounds
from kubectl_genainet.model.events import ClusterChanged
from kubectl_genainet.model.history import ObjectChanged
from tests.unit.history.recording import MONO, SECOND, WALL


def test_two_runs_give_the_objects_and_name_what_was_not_seen(tmp_path: Path) -> None:
    snapshot = read_bundle(recordings() / "policy-service-port.gnb").snapshot
    now_s = 0

    def start() -> ObjectsRecorder:
        clocks = {"wall": lambda: WALL + now_s * SECOND, "mono": lambda: MONO + now_s * SECOND}
        recorder = ObjectsRecorder(tmp_path, Bounds(), **clocks)
        assert recorder.see(snapshot) == len(snapshot.objects)
        return recorder

    first = start()
    now_s = 5
    first.flush()
    first.unseen("the API server is away")
    now_s = 10
    assert first.see(snapshot) == 0
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
    assert sorted(spans) == [(5, 10, "the API server is away"), (10, 30, NOT_RUN)]


def test_what_changes_just_after_the_clock_was_set_is_by_the_new_clock(tmp_path: Path) -> None:
    snapshot = read_bundle(recordings() / "policy-service-port.gnb").snapshot
    wall_s = mono_s = 0
    clocks = {"wall": lambda: WALL + wall_s * SECOND, "mono": lambda: MONO + mono_s * SECOND}
    recorder = ObjectsRecorder(tmp_path, Bounds(), **clocks)
    recorder.see(snapshot)
    wall_s, mono_s = 3602, 2  # an hour ahead
    assert recorder.see(replace(snapshot, objects=snapshot.objects[1:])) == 1
    wall_s, mono_s = 3607, 7
    recorder.close()
    since, until = WALL + 3600 * SECOND, WALL + 3607 * SECOND
    known = objects_range(node_range("objects", RangeReader(tmp_path, "objects", since, until).blocks()), since, until)
    changes = [(at_ns, event) for at_ns, event in known.changes if isinstance(event, ObjectChanged)]
    assert [at_ns - WALL for at_ns, _ in changes] == [3602 * SECOND]


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
