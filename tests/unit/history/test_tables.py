"""Tables of records answer as the nodes' own segments do, and a question about one Service reads that Service's part.

The engine is chdb, which is ClickHouse as a library; tests/tabletest.py says what that leaves untested.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kubectl_genainet import api
from kubectl_genainet.assets import asset_dir, recordings
from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.cli import cli
from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.history.merge import merged
from kubectl_genainet.history.objects import objects_range
from kubectl_genainet.history.ranges import NodeRange, node_range
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.history.rows import COVER, OBJECTS, Nobody, rows_of_folder
from kubectl_genainet.history.select import RecordPart
from kubectl_genainet.model.events import Event
from kubectl_genainet.model.history import Gap
from kubectl_genainet.run.sources.clickhouse import ClickHouseSource, records_query
from kubectl_genainet.run.sources.engines import TABLE, Chdb, ClickHouse, chdb_over
from kubectl_genainet.run.sources.history import TimeRange
from kubectl_genainet.run.sources.past import past_of
from kubectl_genainet.wire import HistoryRequest
from tests.tabletest import BLOCK_NS, SECOND, http_over, segments_of

SERVICE = "svc/my-llama-svc"
OTHER_ROWS = 400_000  # of other Services, in the same time


@dataclass(frozen=True)
class Recorded:
    folder: Path
    when: TimeRange
    engine: Chdb

    def source(self, name: str = "chdb:x", engine: object | None = None) -> ClickHouseSource:
        return ClickHouseSource(name, self.when, engine=self.engine if engine is None else None)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("segments")
    begin, end = segments_of(read_bundle(recordings() / "policy-service-port.gnb"), folder)
    engine = chdb_over(folder)
    yield Recorded(folder, TimeRange(begin, end), engine)
    engine.close()


def from_segments(recorded: Recorded) -> tuple[Event, ...]:
    """The events of the range as the nodes themselves give them."""
    since, until = recorded.when.since_ns, recorded.when.until_ns

    def read(node: Path) -> NodeRange:
        return node_range(node.name, RangeReader(node, node.name, since, until).blocks())

    nodes = {node.name: read(node) for node in recorded.folder.iterdir() if node.name != OBJECTS}
    return tuple(merged(nodes, objects_range(read(recorded.folder / OBJECTS), since, until), since, until))


def test_rows_give_back_what_the_nodes_segments_have(recorded: Recorded) -> None:
    assert sorted(map(repr, recorded.source().recording.events)) == sorted(map(repr, from_segments(recorded)))


@pytest.mark.parametrize("target", [SERVICE, "deploy/my-llama-finetuned"])
def test_a_verb_over_a_table_says_what_it_says_of_the_segments(recorded: Recorded, target: str) -> None:
    direct = recorded.source()
    direct._bundle = recorded.source().recording  # all records, whoever they are of
    asked = api.trace(recorded.source(), target)
    assert asked.paths and asked == api.trace(direct, target)
    assert not asked.warnings


def test_clickhouse_connect_gets_the_same_rows(recorded: Recorded) -> None:
    with http_over(recorded.engine) as port:
        over_http = recorded.source(f"clickhouse://127.0.0.1:{port}/genainet", engine=ClickHouse)
        assert over_http.recording.events == recorded.source().recording.events
        assert len(api.trace(over_http, SERVICE).paths) == len(api.trace(recorded.source(), SERVICE).paths) > 0
        assert str(over_http) == "ClickHouse at 127.0.0.1, database genainet"


def test_every_verb_of_the_past_replays_a_table(recorded: Recorded) -> None:
    summary = api.rules(recorded.source(), SERVICE).report
    assert {row.node for row in summary.rows} == {"node-1", "node-2", "node-3"}
    assert api.explain(recorded.source(), "deploy/chatbot-ui", SERVICE)[0].explanation.verdict.value == "deny"
    assert api.diagnose(recorded.source(), SERVICE).conclusion.causes[0].check == "policy-drop"
    assert api.drops(recorded.source(), SERVICE).summary is not None
    assert api.dns(recorded.source()).exchanges == ()


def test_what_is_missing_is_a_gap_with_its_reason(recorded: Recorded, tmp_path: Path) -> None:
    events = recorded.source().recording.events
    assert not [event for event in events if isinstance(event, Gap)]
    rows = [row for row in rows_of_folder(recorded.folder / "node-1", "node-4", Nobody()) if row.number != 4]
    recorded.engine.load(
        replace(row, body=row.body.replace('"node-1"', '"node-4"')) for row in rows
    )  # without one block
    gaps = [e for e in recorded.source().recording.events if isinstance(e, Gap)]
    assert [gap.node for gap in gaps] == ["node-4"] and gaps[0].until_ns - gaps[0].since_ns == BLOCK_NS
    recorded.engine.run(f"ALTER TABLE {TABLE} DELETE WHERE Node = 'node-4' SETTINGS mutations_sync = 1")
    later = TimeRange(recorded.when.since_ns, recorded.when.until_ns + 60 * SECOND)
    of_later = past_of(recorded.source(), later, print)
    assert isinstance(of_later, ClickHouseSource)
    gaps = [e for e in of_later.recording.events if isinstance(e, Gap)]
    assert {gap.node for gap in gaps} >= {"node-1", "node-2", "node-3"}
    assert all("not written yet" in gap.why for gap in gaps if gap.node.startswith("node"))


def test_a_time_without_records_is_an_error_that_names_the_table(recorded: Recorded) -> None:
    long_ago = TimeRange(SECOND, 2 * SECOND)
    with pytest.raises(GenainetError, match="has no objects of that time"):
        api.trace(recorded.source().within(long_ago), SERVICE)


def dashboard_panels() -> list[dict[str, Any]]:
    file = asset_dir("daemonset") / "metrics" / "monitoring" / "dashboard.json"
    panels = json.loads(file.read_text())["panels"]
    return [p for p in panels if "clickhouse" in str(p.get("datasource"))]


@pytest.mark.parametrize("panel", dashboard_panels(), ids=lambda panel: str(panel["id"]))
def test_the_dashboards_statements_run_in_the_engine(recorded: Recorded, panel: dict[str, Any]) -> None:
    """Grafana itself can't be had here: its plugin's macros are put in by hand, and nothing is drawn."""
    (target,) = panel["targets"]
    sql = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(\1, INTERVAL 10 SECOND)", target["rawSql"])
    between = "\\1 >= fromUnixTimestamp64Nano({since:Int64}) AND \\1 < fromUnixTimestamp64Nano({until:Int64})"
    sql = re.sub(r"\$__timeFilter\((\w+)\)", between, sql)
    assert "$" not in sql
    when = {"since": recorded.when.since_ns, "until": recorded.when.until_ns}
    rows = recorded.engine.rows(sql, when)
    columns = recorded.engine.rows(f"DESCRIBE ({sql})", when)
    assert columns[0][0] == "time" and (panel["type"] == "table") == (target["format"] == 1)
    if panel["title"] == "Nodes that record":
        assert {row[1] for row in rows} <= {3, 4} and rows


def test_the_plan_of_a_question_about_a_service_reads_that_services_part(recorded: Recorded) -> None:
    request = HistoryRequest(
        since_ns=recorded.when.since_ns, until_ns=recorded.when.until_ns, parts=("trace",), addresses=("10.96.0.65",)
    )
    recorded.engine.run(
        f"INSERT INTO {TABLE} (Timestamp, Body, Node, Part, Service, Addresses) SELECT "
        f"fromUnixTimestamp64Nano({recorded.when.since_ns} + number * 10000), 'x', 'node-x', 'trace', "
        f"concat('other/svc-', toString(number % 200)), ['10.9.0.1'] FROM numbers({OTHER_ROWS}) "
        "SETTINGS insert_allow_materialized_columns = 1"
    )
    sql, parameters = records_query(request, frozenset({"default/my-llama-svc"}))
    ((*_, rows, marks),) = recorded.engine.rows(f"EXPLAIN ESTIMATE {sql}", parameters)
    ((in_all,),) = recorded.engine.rows(f"SELECT count() FROM {TABLE}", {})
    assert int(in_all) > OTHER_ROWS
    assert int(marks) <= 3 and int(rows) <= 3 * 8192


def test_of_blocks_beyond_the_range_a_table_has_their_headers_and_what_holds_until_later(recorded: Recorded) -> None:
    middle = recorded.when.since_ns + 4 * BLOCK_NS
    folder = recorded.folder / "node-1"
    everything = list(rows_of_folder(folder, "node-1", Nobody()))
    rows = list(rows_of_folder(folder, "node-1", Nobody(), middle - BLOCK_NS // 2, middle + BLOCK_NS // 2))
    chosen = {row.number for row in rows if row.part != COVER}
    assert chosen == {1, 4, 5}  # the first has the state
    assert [row for row in rows if row.part == COVER] == [row for row in everything if row.part == COVER]
    assert [row for row in rows if row.number in chosen] == [row for row in everything if row.number in chosen]
    assert len(rows) < len(everything) / 2


def test_a_table_that_is_filled_for_a_time_says_of_it_what_the_whole_one_says(recorded: Recorded) -> None:
    begin = recorded.when.since_ns
    part = TimeRange(begin + 3 * BLOCK_NS, begin + 5 * BLOCK_NS)
    expected = tuple(recorded.source().within(part).recording.events)
    recorded.engine.close()  # there is one engine in a process
    of_part = ClickHouseSource(f"chdb:{recorded.folder}", part)
    assert len(expected) > 100 and of_part.recording.events == expected
    of_all = of_part.within(ClickHouseSource(f"chdb:{recorded.folder}").when)
    assert sorted(map(repr, of_all.recording.events)) == sorted(map(repr, from_segments(recorded)))
    of_all.within(part)  # closes it
    with pytest.raises(GenainetError, match="there are no segments"):
        ClickHouseSource(f"chdb:{recorded.folder}/nothing")


def test_from_takes_a_folder_of_segments_on_the_command_line(recorded: Recorded) -> None:
    recorded.engine.close()  # there is one engine in a process
    done = CliRunner().invoke(
        cli, ["trace", SERVICE, "--from", f"chdb:{recorded.folder}", "-o", "json"], standalone_mode=False
    )
    assert done.exception is None, done.exception
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["kind"] == "summary" and lines[-1]["verdicts"]["dropped"] > 0


@pytest.mark.parametrize(
    "url", ["clickhouse://", "clickhouse:///db", "clickhouse://host/a;b", "clickhouse://host:x/db"]
)
def test_what_names_no_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InputError):
        ClickHouse(url)
    for password in ("secret", "/secret", "s:ecret", "@secret"):
        with pytest.raises(InputError) as refused:
            ClickHouse(f"clickhouse://me:{password}@host/")
        assert "ecret" not in str(refused.value) and "clickhouse://me@host/" in str(refused.value)


def test_a_question_reads_the_parts_of_its_verb_only() -> None:
    request = HistoryRequest(since_ns=1, until_ns=2, parts=(RecordPart.DNS.value, RecordPart.TOTALS.value))
    _, parameters = records_query(request, frozenset())
    assert parameters["parts"] == ["dns", "totals", "all"]


def test_a_server_that_is_not_there_is_an_error_in_plain_words(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(GenainetError) as failed:
        ClickHouse(f"clickhouse://127.0.0.1:{port}/genainet", password="secret").rows("SELECT 1", {})
    assert failed.value.message == "ClickHouse at 127.0.0.1 does not answer: Connection refused"
    assert "clickhouse://" in failed.value.hint
    assert capfd.readouterr() == ("", "")
