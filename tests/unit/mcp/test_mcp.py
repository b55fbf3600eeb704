"""`mcp`: a client of the SDK gets what the commands print, within limits, and can change nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import kubectl_genainet
from kubectl_genainet.assets import recordings
from kubectl_genainet.cli import VERBS, cli
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.mcp.answer import bounded_answer, input_schema
from kubectl_genainet.mcp.tools import TOOLS, Outcome
from kubectl_genainet.mcp.worker import ToolCall, perform
from kubectl_genainet.run.sources.choice import SourceChoice
from tests.mcptest import COMMAND, Asking, asked
from tests.unit.commands.fake_api import fake_api

INCIDENT = str(recordings() / "policy-service-port.gnb")
APP = str(Path(kubectl_genainet.__file__).parent / "lab" / "manifests" / "app")
SERVICE = "svc/my-llama-svc"
# Verbs that change something: the cluster, this machine, or (mcp) what is being asked.
NOT_TOOLS = {"deploy", "undeploy", "lab", "mcp"}
CHANGES = {"check", "exact", "record", "report", "write_baseline", "hits", "path", "file"}


def printed(*arguments: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(cli, [*arguments, "-o", "json"], standalone_mode=False)
    assert done.exception is None, done.exception
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_verb_that_only_reads_is_a_tool_and_no_tool_takes_what_changes_something() -> None:
    assert set(TOOLS) == set(VERBS) - NOT_TOOLS
    for tool in TOOLS.values():
        assert not CHANGES & input_schema(tool)["properties"].keys(), tool.name


def test_over_a_bundle_each_tool_answers_what_its_command_prints() -> None:
    async def ask(session: Asking) -> None:
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in session.tools.values())
        for name in ("trace", "rules"):
            answer = await session.call(name, target=SERVICE)
            assert answer["records"] == printed(name, SERVICE, "--from", INCIDENT)
        assert answer["status"] == "nothing wrong found" and answer["left_out"] == 0
        diagnosis = await session.call("diagnose", target=SERVICE)
        assert diagnosis["status"] == "something found"
        assert diagnosis["records"][0]["causes"][0]["check"] == "policy-drop"
        assert "recorded by `trace`" in await session.refused("drops")
        assert "unknown field `record`" in await session.refused("trace", target=SERVICE, record="x.gnb")
        assert "no tool 'deploy'" in await session.refused("deploy")
        assert "Did you mean my-llama-svc?" in await session.refused("trace", target="svc/my-lama-svc")

    asked(ask, "--from", INCIDENT)


def test_what_a_client_sends_has_bounds_and_so_has_what_quotes_it() -> None:
    async def ask(session: Asking) -> None:
        assert "the arguments of trace have more than 65536 bytes" in await session.refused(
            "trace", target="A" * 70_000
        )
        said = await session.refused("explain", client="A" * 30_000, destination=SERVICE)
        assert said.startswith("'AAAA") and "more characters)" in said and len(said) < 5_000
        assert "Expected `int` <= 1000000" in await session.refused("trace", target=SERVICE, last=10**30)
        assert "\\x1b[31m" in await session.refused("trace", target="svc/\x1b[31mred")

    asked(ask, "--from", INCIDENT)


def test_over_manifests_the_policies_answer_and_packets_are_refused_with_what_to_do() -> None:
    async def ask(session: Asking) -> None:
        ends = ("deploy/rag-app", SERVICE)
        explained = await session.call("explain", client=ends[0], destination=ends[1])
        assert explained["records"] == printed("explain", *ends, "--manifests", APP)
        assert (await session.call("matrix"))["records"] == printed("matrix", "--manifests", APP)
        assert (await session.call("doctor", only=["policy"]))["records"][-1]["kind"] == "summary"
        assert "no area or check 'polocy'" in await session.refused("doctor", only=["polocy"])
        assert "no agents can be asked" in await session.refused("trace", target=SERVICE)
        assert "what is in a file has its own" in await session.refused("trace", target=SERVICE, since_minutes=5)

    asked(ask, "--manifests", APP)


def test_no_tool_asks_a_cluster_for_anything_but_to_read(tmp_path: Path) -> None:
    required = {"explain": {"client": "10.0.0.1", "destination": "10.0.0.2:80"}}

    with fake_api(tmp_path) as (api, kubeconfig):
        choice = SourceChoice(kubeconfig=kubeconfig)
        for name in TOOLS:
            perform(ToolCall(tool=name, arguments=required.get(name, {}), choice=choice, max_bytes=1 << 20, max_s=60.0))
        assert api.requests == [] and api.reads > 0


def test_what_finds_no_room_is_counted_and_what_is_wrong_is_kept() -> None:
    well = {"kind": "path", "verdict": "forwarded", "text": "x" * 500}
    dead = {"kind": "path", "verdict": "dropped", "drop": {"reason": "NETFILTER_DROP"}}
    answer = bounded_answer(Outcome(ExitStatus.FOUND, [well, dead, well, dead, {"kind": "summary"}]), 300)
    kept = [json.loads(bytes(record)) for record in answer.records]
    assert kept == [dead, dead, {"kind": "summary"}] and answer.left_out == 2
    assert "2 of 5 records found no room in 300 bytes" in answer.warnings[-1]


def test_a_files_name_that_is_not_utf_8_is_text() -> None:
    answer = bounded_answer(Outcome(ExitStatus.FOUND, [{"file": "recorded\udcff.gnb"}]), 300)
    assert [json.loads(bytes(record)) for record in answer.records] == [{"file": "recorded\\udcff.gnb"}]


def test_a_call_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    silent = tmp_path / "objects.yaml"
    os.mkfifo(silent)  # nobody writes it: opening it waits for ever

    async def ask(session: Asking) -> None:
        assert "doctor took longer than 1 s" in await session.refused("doctor")

    asked(ask, "--manifests", str(silent), "--timeout", "1s")


@pytest.mark.parametrize(("end", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 0)])
def test_a_signal_or_the_end_of_standard_input_ends_the_server(end: signal.Signals | None, status: int) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, "--manifests", APP], stdin=pipe, stdout=pipe, stderr=pipe) as server:
        assert server.stdin is not None and server.stdout is not None and server.stderr is not None
        server.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        server.stdin.flush()
        assert b'"id":1' in server.stdout.readline()  # it serves
        if end is None:
            server.stdin.close()
        else:
            server.send_signal(end)
        assert server.wait(30) == status
        assert b"Traceback" not in server.stderr.read()


def test_a_client_that_is_gone_ends_the_server_without_a_traceback() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, "--manifests", APP], stdin=pipe, stdout=pipe, stderr=pipe) as server:
        assert server.stdin is not None and server.stdout is not None and server.stderr is not None
        server.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        server.stdin.flush()
        assert b'"id":1' in server.stdout.readline()
        server.stdout.close()
        server.stdin.write(b'{"jsonrpc":"2.0","id":2,"method":"ping"}\n')
        server.stdin.close()
        assert server.wait(60) == 0
        assert server.stderr.read() == b""


def test_arguments_that_no_json_can_hold_are_refused_and_the_server_goes_on() -> None:
    async def ask(session: Asking) -> None:
        wrong: tuple[object, ...] = (10**400, float("nan"), "nan", "1e999", -1, {}, [1], None)
        for number in wrong:
            assert "can't be read" in await session.refused("trace", seconds=number)
        for text in ("svc/\x00", "svc/a\nb", "--kubeconfig=/x", "pod/../../etc/passwd"):
            assert len(await session.refused("trace", target=text)) < 500
        assert (await session.call("version"))["records"]

    asked(ask, "--manifests", APP)


def test_manifests_on_standard_input_are_refused() -> None:
    done = CliRunner().invoke(cli, ["mcp", "--manifests", "-"], standalone_mode=False)
    assert "standard input carries the protocol" in str(done.exception)
