"""Where no objects were recorded, names are those of now, and policies are not known."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet import api
from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import BundleWriter
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.objects import ObjectsRange
from kubectl_genainet.history.ranges import NodeRange
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged
from kubectl_genainet.model.history import Gap
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.results.diagnosis import CheckState
from kubectl_genainet.run.agents import Agents
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.run.sources.history import HistorySource, TimeRange
from kubectl_genainet.wire import HistoryRequest
from tests.unit.history.recording import NODE, SECOND, WALL


def test_policies_of_now_do_not_judge_what_was_then() -> None:
    now = BundleSource(recordings() / "policy-service-port.gnb")
    assert any(obj.kind == "NetworkPolicy" for obj in now.snapshot().objects)
    warnings: list[str] = []
    then = HistorySource(now, TimeRange(0, 1), warn=warnings.append).snapshot()
    assert not any(obj.kind == "NetworkPolicy" for obj in then.objects)
    assert {"NetworkPolicy", "Service", "EndpointSlice"} <= {left_out.kind for left_out in then.left_out}
    assert then.services and len(warnings) == 1 and "policies are not known" in warnings[0]


def test_objects_whose_recorder_can_not_be_asked_are_not_said_to_be_unrecorded() -> None:
    def refuses() -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    class Recorded(BundleSource):
        def objects_recorder(self) -> Agents:
            return Agents({"objects": refuses})

    warnings: list[str] = []
    now = Recorded(recordings() / "policy-service-port.gnb")
    then = HistorySource(now, TimeRange(0, 1), warn=warnings.append).snapshot()
    (warning,) = warnings
    assert "can't be asked" in warning and "Connection refused" in warning and "recorded for" not in warning
    assert "deploy --record" not in warning and "policies are not known" in warning
    assert {left_out.reason for left_out in then.left_out if left_out.kind == "NetworkPolicy"} == {
        "their recorder can't be asked (the agent on node objects can't be reached: [Errno 111] Connection refused)"
    }


def test_a_table_that_has_no_present_is_not_said_to_have_names_of_now() -> None:
    class Table(BundleSource):
        def _read(self) -> ClusterSnapshot:
            raise GenainetError("no objects of that time")

    warnings: list[str] = []
    source = HistorySource(Table(recordings() / "policy-service-port.gnb"), TimeRange(0, 1), warn=warnings.append)
    with pytest.raises(GenainetError, match="no objects of that time"):
        source.snapshot()
    assert not warnings


def node(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


class AskedOfOneNode(HistorySource):
    """Only the node `NODE` of the recording has a recorder."""

    def _ask_nodes(self, request: HistoryRequest) -> dict[str, NodeRange | GenainetError]:
        return {NODE: NodeRange(NODE, ())}


def test_of_a_time_of_which_nothing_was_recorded_nothing_is_said_to_have_been_fine_or_missing() -> None:
    """Endpoints of now were "3 of 3 ready"."""
    now = BundleSource(recordings() / "policy-service-port.gnb")
    source = AskedOfOneNode(now, TimeRange(WALL, WALL + SECOND))
    conclusion = api.diagnose(source, "svc/my-llama-svc").conclusion
    assert conclusion.checked and {checked.state for checked in conclusion.checked} == {CheckState.NOT_CHECKED}
    assert conclusion.causes == ()


@pytest.mark.parametrize(
    ("then", "later", "named"),
    [
        ([NODE], [NODE], []),
        ([NODE, "drained"], [NODE], ["drained"]),  # it has left the cluster since
        ([NODE], [NODE, "young"], ["young"]),
        ([f"n{i}" for i in range(10)], [], [*(f"n{i}" for i in range(7)), "n7, n8, n9"]),
    ],
)
def test_a_node_that_was_there_and_has_no_recorder_now_is_named(
    then: list[str], later: list[str], named: list[str]
) -> None:
    source = AskedOfOneNode(BundleSource(recordings() / "policy-service-port.gnb"), TimeRange(WALL, WALL + SECOND))
    snapshot = ClusterSnapshot(tuple(KubeObject(node(name)) for name in then))
    changes = ((WALL, ClusterChanged(objects=list(map(node, later)), taken_at="")),) if later else ()
    source._objects = ObjectsRange(snapshot, changes, ())
    gaps = [event for event in source.replayed("trace", ()).events if isinstance(event, Gap)]
    assert [gap.node for gap in gaps if "no recorder runs there now" in gap.why] == named
    assert all((gap.since_ns, gap.until_ns, gap.partial) == (WALL, WALL + SECOND, False) for gap in gaps)


def written(source: HistorySource, file: Path) -> Path:
    bundle = source.recording
    with BundleWriter(file, bundle.header, bundle.snapshot) as writer:
        for event in bundle.events:
            writer.write(event)
    return file


def test_a_bundle_of_a_range_tells_of_the_objects_what_the_range_told(tmp_path: Path) -> None:
    """What came before the range is in none of its records."""
    source = AskedOfOneNode(BundleSource(recordings() / "policy-service-port.gnb"), TimeRange(WALL, WALL + SECOND))
    gap = Gap(node="", since_ns=WALL - SECOND, until_ns=WALL, why="the recorder was away")
    source._objects = ObjectsRange(ClusterSnapshot(), (), (gap,), {"chat/llama": WALL - SECOND})
    warnings: list[str] = []
    bundle = BundleSource(written(source, tmp_path / "range.gnb"), warn=warnings.append)
    assert bundle.snapshot().objects == () and warnings == []
    assert bundle.endpoints_just_changed() == {"chat/llama": WALL - SECOND}
    (missing,) = bundle.unknown_at_begin()
    assert missing.startswith("the cluster's objects: nothing is known from") and missing.endswith(gap.why)
    assert bundle.unknown_at_begin() == source.unknown_at_begin() and bundle.moment == source.moment


def test_a_bundle_of_a_range_says_that_its_objects_are_of_a_later_time(tmp_path: Path) -> None:
    source = AskedOfOneNode(BundleSource(recordings() / "policy-service-port.gnb"), TimeRange(WALL, WALL + SECOND))
    source._objects = ObjectsRange(None, (), ())
    warnings: list[str] = []
    bundle = BundleSource(written(source, tmp_path / "range.gnb"), warn=warnings.append)
    assert bundle.snapshot().services and bundle.unknown_at_begin() == ()
    (warning,) = warnings
    assert (
        "none were recorded for that time: names and Services are as they were when the bundle was written" in warning
    )
