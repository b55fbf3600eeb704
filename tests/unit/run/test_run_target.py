"""A target that is deleted while a run goes on: the run ends as it would have, with its summary and its losses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import Bundle, BundleWriter, read_bundle
from kubectl_genainet.cli import cli
from kubectl_genainet.context.targets import resolve_namespace
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged, Event, LostEvents
from kubectl_genainet.run.target import HeldTarget

TARGET = "svc/my-llama-svc"
LOST = LostEvents(node="node-1", probe="packet", count=7, where="ring buffer")


def without_the_service(snapshot: ClusterSnapshot) -> ClusterSnapshot:
    return ClusterSnapshot(tuple(o for o in snapshot.objects if (o.kind, o.name) != ("Service", "my-llama-svc")))


def with_the_service_deleted(recorded: Bundle, *, back: bool) -> Iterator[Event]:
    """The records, with the Service gone after a third of them, and back (or not) after another."""
    events = tuple(recorded.events)
    third = len(events) // 3
    gone = ClusterChanged.of(without_the_service(recorded.snapshot))
    yield from events[:third]
    yield from (gone, gone)
    yield from events[third : 2 * third]
    yield ClusterChanged.of(recorded.snapshot) if back else gone
    yield from events[2 * third :]
    yield LOST


def bundle(path: Path, verb: str, *, back: bool) -> Path:
    recorded = read_bundle(recordings() / "healthy.gnb")
    header = msgspec.structs.replace(recorded.header, command=verb)
    with BundleWriter(path, header, recorded.snapshot) as writer:
        for event in with_the_service_deleted(recorded, back=back):
            writer.write(event)
    return path


@pytest.mark.parametrize("verb", ["trace", "drops", "dns"])
@pytest.mark.parametrize("back", [False, True])
def test_a_service_deleted_during_a_run_leaves_summary_and_losses(verb: str, back: bool, tmp_path: Path) -> None:
    file = bundle(tmp_path / "deleted.gnb", verb, back=back)
    done = CliRunner().invoke(cli, [verb, TARGET, "--from", str(file), "-o", "json"], standalone_mode=False)
    assert done.exception is None
    records = [json.loads(line) for line in done.stdout.splitlines()]
    summary = next(r for r in records if r["kind"].endswith("summary"))
    assert summary["target"] == TARGET
    losses = [r for r in [*records, *summary.get("lost", ())] if r["kind"] == "lost"]
    assert [loss["count"] for loss in losses][:1] == [LOST.count]
    assert done.stderr.count("can't be found any more; its last addresses are followed") == 1
    assert (f"{TARGET} is back" in done.stderr) is back


def test_a_service_deleted_while_diagnose_watches_leaves_a_conclusion(tmp_path: Path) -> None:
    file = bundle(tmp_path / "deleted.gnb", "trace", back=False)
    done = CliRunner().invoke(cli, ["diagnose", TARGET, "--from", str(file), "-o", "json"], standalone_mode=False)
    assert done.exception is None
    conclusion = json.loads(done.stdout)
    assert (conclusion["kind"], conclusion["target"]) == ("diagnosis", TARGET) and conclusion["connections"] > 0
    assert "its last addresses are followed" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("rules", TARGET),
        ("explain", "deploy/chatbot-ui", TARGET),
        ("matrix",),
        ("doctor",),
    ],
    ids=lambda command: command[0],
)
def test_verbs_that_read_objects_once_answer_for_the_moment_that_they_read(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    """What they look at is the snapshot: a Service that was deleted after it changes nothing."""
    here, gone = recordings() / "healthy.gnb", bundle(tmp_path / "deleted.gnb", "trace", back=False)
    whole, deleted = (
        CliRunner().invoke(cli, [*command, "--from", str(file), "-o", "json"], standalone_mode=False)
        for file in (here, gone)
    )
    assert (whole.exception, deleted.exception) == (None, None)
    assert deleted.stdout == whole.stdout != ""


@pytest.mark.parametrize("verb", ["trace", "drops", "dns", "diagnose"])
def test_a_service_that_is_not_there_at_the_start_is_an_error(verb: str, tmp_path: Path) -> None:
    file = bundle(tmp_path / "b.gnb", verb, back=True)
    done = CliRunner().invoke(cli, [verb, "svc/my-lama-svc", "--from", str(file)])
    assert isinstance(done.exception, InputError) and "my-llama-svc" in done.exception.hint


def test_paths_to_a_deleted_service_are_still_shown(tmp_path: Path) -> None:
    whole = CliRunner().invoke(cli, ["trace", TARGET, "--from", str(recordings() / "healthy.gnb"), "-o", "json"])
    file = bundle(tmp_path / "deleted.gnb", "trace", back=False)
    done = CliRunner().invoke(cli, ["trace", TARGET, "--from", str(file), "-o", "json"])
    assert done.stdout.count('"kind":"path"') == whole.stdout.count('"kind":"path"') > 0


def test_what_is_held_follows_the_objects_and_survives_their_absence() -> None:
    here, moved, gone = (ClusterSnapshot(taken_at=text) for text in ("1.1.1.1", "2.2.2.2", ""))
    told: list[str] = []

    def address(snapshot: ClusterSnapshot) -> str:
        if not snapshot.taken_at:
            raise InputError("no such Service")
        return snapshot.taken_at

    held = HeldTarget("svc/a", address, here, told.append)
    seen = []
    for snapshot in (moved, gone, gone, here):
        held.update(snapshot)
        seen.append(held.current)
    assert seen == ["2.2.2.2", "2.2.2.2", "2.2.2.2", "1.1.1.1"]
    assert told == [
        "svc/a can't be found any more; its last addresses are followed: no such Service",
        "svc/a is back",
    ]


def test_all_namespaces_are_one_target_as_each_of_them_is(tmp_path: Path) -> None:
    recorded = read_bundle(recordings() / "healthy.gnb")
    everywhere = resolve_namespace("", recorded.snapshot)
    parts = [resolve_namespace(namespace, recorded.snapshot) for namespace in ("default", "kube-system")]
    assert set(everywhere.filters) == {entry for part in parts for entry in part.filters} > set(parts[0].filters)
    assert str(everywhere.target) == "the cluster"
    elsewhere = ["trace", "--from", str(recordings() / "healthy.gnb"), "-n", "kube-system", "-o", "json"]
    assert '"kind":"path"' not in CliRunner().invoke(cli, elsewhere).stdout
    assert '"kind":"path"' in CliRunner().invoke(cli, [*elsewhere[:3], "-A", "-o", "json"]).stdout
    with pytest.raises(InputError, match="the cluster has no Services"):
        resolve_namespace("", ClusterSnapshot(()))
