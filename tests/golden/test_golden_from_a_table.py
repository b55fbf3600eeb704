"""What recorders kept, as rows of a table: every verb says of it what it said live. The engine is chdb."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.cli import cli
from kubectl_genainet.run.sources.choice import SourceChoice
from kubectl_genainet.run.sources.clickhouse import ClickHouseSource
from kubectl_genainet.run.sources.engines import chdb_over
from tests.golden.recordings import HERE, bundle_of
from tests.golden.test_golden_a_day_later import LIVE, WIDTH, without_source
from tests.recordertest import record


@pytest.mark.parametrize("text", LIVE)
def test_of_a_table_a_verb_says_what_it_said_live(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, command = LIVE[text]
    begin_ns, end_ns = record(read_bundle(bundle_of(bundle)), tmp_path)
    until_s = (end_ns // 1000 + 2) / 1e6
    since, until = (datetime.fromtimestamp(t, UTC).isoformat() for t in (begin_ns // 1000 / 1e6, until_s))
    with contextlib.closing(chdb_over(tmp_path)) as engine:
        monkeypatch.setattr(SourceChoice, "open", lambda *_: ClickHouseSource(f"chdb:{tmp_path}", engine=engine))
        arguments = [*command, "--since", since, "--until", until]
        done = CliRunner(env={"COLUMNS": str(WIDTH)}).invoke(cli, arguments, catch_exceptions=False)
    assert without_source(done.stdout) == without_source((HERE / f"{text}.txt").read_text()), done.stderr
