"""`timeline`: when it began, what changed just before, and what is not known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import Bundle
from kubectl_genainet.cli import cli
from kubectl_genainet.errors import ExitStatus, GenainetError
from kubectl_genainet.model.events import AgentFailed
from kubectl_genainet.model.history import Gap
from kubectl_genainet.model.packet import ALL_KEPT
from kubectl_genainet.model.results.timeline import Series, SeriesName, Timeline
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.records import RECORDS
from kubectl_genainet.render.timeline import text
from kubectl_genainet.run import timeline as run_timeline
from kubectl_genainet.run.collect import DoctorCollector
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.run.sources.manifests import ManifestsSource
from kubectl_genainet.run.timeline import timeline
from kubectl_genainet.timeline import build
from kubectl_genainet.timeline.series import Buckets
from kubectl_genainet.wire import FilterEntry
from tests.unit.timeline import recorded

SERVICE = "svc/my-llama-svc"


def run(*arguments: str, width: int = 80) -> Result:
    return CliRunner().invoke(cli, ["timeline", *arguments], standalone_mode=False, env={"COLUMNS": str(width)})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recorded") / "two.gnb"
    recorded.write(str(path), recorded.two_incidents())
    return str(path)


def timeline_of(file: str, *arguments: str) -> Timeline:
    done = run(*arguments, "--from", file, "-o", "json")
    assert done.exception is None, done.exception
    (record,) = RECORDS["timeline"]
    value = json.loads(done.stdout)
    assert json.loads(msgspec.json.encode(record.roundtrip(value))) == value
    return msgspec.convert(value, Timeline)


def test_two_incidents_an_hour_apart_are_told_apart_each_with_what_came_just_before(file: str) -> None:
    first, second = timeline_of(file, SERVICE).onsets
    assert (first.time[:19], second.time[:19]) == ("2025-11-29T03:12:10", "2025-11-29T04:20:00")
    assert first.series == (SeriesName.FAILURES,)
    assert set(second.series) == {SeriesName.FAILURES, SeriesName.LATENCY, SeriesName.DNS}
    assert [s.change.object.name for s in first.suspects if s.change.object] == ["lock-down", "batch-embed"]
    assert {s.change.node for s in second.suspects} == {"node-2"}
    assert all(s.change.certainty.value == "observed" for onset in (first, second) for s in onset.suspects)
    assert (first.until_s, second.until_s) == (4720, 9000)


def test_what_was_counted_does_not_come_before_its_cause_whenever_the_time_begins() -> None:
    """A recorder's bucket is of ten whole seconds; the policy came 5 s after its begin."""
    counted_from = recorded.BEGIN + 40 * recorded.SECOND
    for begin_s in (0.0, 3.25, 9.9):
        grid = Buckets.of(recorded.BEGIN + int(begin_s * recorded.SECOND), recorded.BEGIN + 100 * recorded.SECOND)
        number = grid.bucket_of(counted_from)
        assert number is not None and grid.since_ns + number * 10 * recorded.SECOND == counted_from


def test_an_unrelated_rollout_is_listed_and_not_named_first_though_it_is_nearer(file: str) -> None:
    policy, rollout = timeline_of(file, SERVICE).onsets[0].suspects
    assert (policy.change.touches, policy.before_s) == ("policies of its namespace", 12)
    assert (rollout.change.touches, rollout.before_s) == ("", 5)


def test_the_terminal_of_80_by_24_holds_two_incidents(file: str) -> None:
    done = run(SERVICE, "--from", file)
    lines = done.stdout.splitlines()
    assert done.return_value == 1 and len(lines) <= 24 and max(map(len, lines)) <= 80
    assert lines[0] == "svc/my-llama-svc: failures began at 03:12:10Z, and 1 more"
    assert any(line.startswith("▲ 1. 03:12:10Z failures: ") for line in lines)
    assert "What came before is not thereby a cause." in " ".join(" ".join(lines).split())


def test_markdown_and_the_page_say_the_same(file: str, tmp_path: Path) -> None:
    page = tmp_path / "timeline.html"
    done = run(SERVICE, "--from", file, "-o", "markdown", "--report", str(page))
    told = "NetworkPolicy default/lock-down created"
    assert told in done.stdout and told in page.read_text()
    assert done.stdout.startswith("# svc/my-llama-svc: failures began at 03:12:10Z")


def test_the_report_of_a_diagnosis_of_a_recorded_time_has_the_picture(file: str, tmp_path: Path) -> None:
    report = tmp_path / "incident.html"
    arguments = ["diagnose", SERVICE, "--from", file, "--report", str(report)]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False, env={"COLUMNS": "80"})
    assert done.exception is None, done.exception
    page = report.read_text()
    for said in (
        "What was checked",
        "What was felt, and what changed",
        "1. It began at 03:12:10Z",
        "lock-down created",
    ):
        assert said in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_report_of_a_diagnosis_of_seconds_has_no_picture(tmp_path: Path) -> None:
    report = tmp_path / "incident.html"
    arguments = ["diagnose", SERVICE, "--from", str(recordings() / "policy-service-port.gnb"), "--report", str(report)]
    CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert "What was checked" in report.read_text() and "What was felt" not in report.read_text()


def test_where_nothing_rises_nothing_began(tmp_path: Path) -> None:
    path = str(tmp_path / "well.gnb")
    recorded.write(path, recorded.bundle(recorded.buckets(), recorded.policy(5000)))
    result = timeline_of(path, SERVICE)
    assert result.onsets == () and len(result.changes) == 1
    done = run(SERVICE, "--from", path)
    assert done.return_value == 0 and "nothing became worse" in done.stdout


def test_a_quiet_time_without_a_node_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, load = str(tmp_path / "well.gnb"), BundleSource._load

    def without_a_node(source: BundleSource) -> Bundle:
        source.failed_nodes.add("node-2")
        return load(source)

    recorded.write(path, recorded.bundle(recorded.buckets(), recorded.policy(5000)))
    monkeypatch.setattr(BundleSource, "_load", without_a_node)
    assert run(SERVICE, "--from", path).return_value is ExitStatus.FAILED


@pytest.mark.parametrize("is_long", [False, True])
def test_of_more_than_a_quarter_of_an_hour_totals_are_read_and_no_single_packets(
    file: str, monkeypatch: pytest.MonkeyPatch, is_long: bool
) -> None:
    asked: list[str] = []

    class Asked(BundleSource):
        def replayed(self, verb: str, filters: tuple[FilterEntry, ...]) -> Bundle:
            asked.append(verb)
            return super().replayed(verb, filters)

    expected = timeline_of(file, SERVICE)
    if not is_long:
        monkeypatch.setattr(run_timeline, "DETAILED_NS", 1 << 62)
    result = timeline(Asked(file), parse_target(SERVICE), DoctorCollector())
    assert asked == (["changes"] if is_long else ["changes", "trace", "dns"])
    assert [note.startswith("longer than 15 min") for note in result.notes] == [True] * is_long
    assert result.onsets == expected.onsets and len(result.onsets) == 2


def test_of_more_than_a_quarter_of_an_hour_a_node_that_failed_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "failed.gnb")
    recorded.write(path, recorded.bundle(recorded.buckets(), AgentFailed(node="node-9", message="it is gone")))
    assert run(SERVICE, "--from", path).stderr.count("node node-9: it is gone") == 1


def test_what_was_not_followed_whole_is_said_of_what_is_not_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "busy.gnb")
    busy = [msgspec.structs.replace(bucket, followed=ALL_KEPT // 16) for bucket in recorded.buckets()]
    recorded.write(path, recorded.bundle(busy))
    _, note = timeline_of(path, SERVICE).notes
    assert "at times 6 %" in note
    assert note[:30] in run(SERVICE, "--from", path, width=120).stdout


def test_what_was_not_recorded_is_unknown_and_named(tmp_path: Path) -> None:
    path = str(tmp_path / "gap.gnb")
    missing = range(3600, 7200)
    gap = Gap(
        node=recorded.NODE,
        since_ns=recorded.BEGIN + missing.start * recorded.SECOND,
        until_ns=recorded.BEGIN + missing.stop * recorded.SECOND,
        why="the recorder did not run",
    )
    whole = recorded.bundle(recorded.buckets(), gap)
    events = tuple(
        event
        for event in whole.events
        if not gap.since_ns <= getattr(event, "since_ns", 0) < gap.until_ns or event is gap
    )
    attached_only_before = tuple(e for e in events if type(e).__name__ != "Progress")
    recorded.write(path, type(whole)(whole.header, whole.snapshot, attached_only_before))
    result = timeline_of(path, SERVICE)
    failures = next(one for one in result.series if one.name is SeriesName.FAILURES)
    assert set(failures.values[360:720]) == {None} and None not in failures.values[:360]
    assert result.holes[0].why == "the recorder did not run"
    assert text.UNKNOWN * 3 in run(SERVICE, "--from", path).stdout
    page = tmp_path / "gap.html"
    markdown = run(SERVICE, "--from", path, "-o", "markdown", "--report", str(page)).stdout
    named = "3600 s to 7200 s, node node-1: the recorder did not run"
    assert f"- {named}" in markdown and named in page.read_text()


def test_gaps_beyond_those_that_are_listed_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "MAX_HOLES", 1)
    path = str(tmp_path / "gaps.gnb")
    begins = [recorded.BEGIN + minute * 60 * recorded.SECOND for minute in (1, 5, 9)]
    gaps = [Gap(node=recorded.NODE, since_ns=b, until_ns=b + recorded.SECOND, why="no recorder") for b in begins]
    recorded.write(path, recorded.bundle(recorded.buckets(), *gaps))
    result = timeline_of(path, SERVICE)
    assert len(result.holes) == 1 and "2 more gaps found no room: the first 1 are listed" in result.notes


def test_without_the_library_the_picture_is_there_and_says_what_to_install(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_there(_: object) -> None:
        raise ModuleNotFoundError(name="ruptures")

    monkeypatch.setattr(build, "episodes", not_there)
    result = timeline_of(file, SERVICE)
    assert result.method == "" and build.NOT_INSTALLED in result.notes
    assert "nothing became worse" not in run(SERVICE, "--from", file).stdout


def test_a_trace_that_was_recorded_has_its_packets_and_says_what_it_lacks() -> None:
    result = timeline_of(str(recordings() / "policy-service-port.gnb"), SERVICE)
    names = {one.name: one.values for one in result.series}
    assert sum(names[SeriesName.FAILURES]) > 10 and SeriesName.DNS not in names  # type: ignore[arg-type]
    assert any("name lookups are not in it" in note for note in result.notes)


def test_queries_that_were_recorded_say_nothing_of_drops() -> None:
    result = timeline_of(str(Path(__file__).parents[2] / "golden" / "bundles" / "dns-timeout.gnb"), SERVICE)
    assert [one.name for one in result.series] == [SeriesName.DNS]
    assert any("drops are not in it" in note for note in result.notes)


def test_a_source_that_is_no_recording_says_how_to_ask_for_the_past() -> None:
    with pytest.raises(GenainetError, match="a timeline needs a recording") as refused:
        timeline(ManifestsSource(["x.yaml"]), None, DoctorCollector())
    assert "--since 6h" in refused.value.hint


def test_what_was_felt_without_a_beginning_is_named() -> None:
    felt = Series(name=SeriesName.FAILURES, unit="connections", what="", values=(None, 0.0, 12.0))
    begin, end = "2026-11-30T21:18:30Z", "2026-11-30T21:20:39Z"
    found = Timeline(
        target="svc/llm",
        since=begin,
        until=end,
        bucket_s=10,
        seconds=30.0,
        series=(felt,),
        onsets=(),
        changes=(),
        method="PELT",
    )
    assert "nothing became worse and stayed so (felt: failures)" in text.headline(found)
    quiet = msgspec.structs.replace(found, series=(msgspec.structs.replace(felt, values=(None, 0.0, 0.0)),))
    assert "nothing became worse as far as is known, " in text.headline(quiet)
    unknown, known = ((None,) * 3, (0.0,) * 3)
    for values, said in ((unknown, "svc/llm: nothing is known of "), (known, "svc/llm: nothing became worse, ")):
        series = (msgspec.structs.replace(felt, values=values),)
        assert text.headline(msgspec.structs.replace(found, series=series)).startswith(said)
