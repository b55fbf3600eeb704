"""Callers of the agent who want more than they may: what they send is parsed, bounded, and read after their token."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_genainet.agent.always.session import PROBES, RECORDED
from kubectl_genainet.agent.exact import rules
from kubectl_genainet.agent.exact.rules import exact_filters, legacy_rules, nft_commands
from kubectl_genainet.agent.exact.tracing import ExactTracer
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.serve import limits, memory, server
from kubectl_genainet.agent.serve.auth import Capability
from kubectl_genainet.agent.serve.limits import checked_filters, checked_request
from kubectl_genainet.agent.serve.server import AnyCaller, Authenticator, Server
from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.wire import CheckRequest, FilterEntry, TraceRequest
from tests.unit.agent.worker_programs import worker_that_is

TOKEN = "t" * 64
EVIL = "fe80::1%\nflush ruleset\n"
Talk = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


@pytest.mark.parametrize("ip", [EVIL, "fe80::1%eth0", "10.0.0.1\nflush ruleset", " 10.0.0.1", "10.0.0.1/8", "٣.0.0.1"])
def test_an_address_is_nothing_but_an_address(ip: str) -> None:
    with pytest.raises(InputError, match="is not an IP address"):
        checked_filters((FilterEntry(ip, 80, "TCP"),))
    with pytest.raises(GenainetError):
        exact_filters([FilterEntry(ip, 80, "TCP")])
    for probe in (CheckRequest(ip, "10.0.0.1", 80), CheckRequest("10.0.0.1", ip, 80)):
        with pytest.raises(InputError, match="is not an IP address"):
            checked_request(TraceRequest(filters=(), check=probe))


def test_what_goes_on_is_printed_from_the_parsed_value() -> None:
    spelled = (FilterEntry("FD00:0::01", 80, "tcp"), FilterEntry("fd00::1", 80, "TCP"))
    assert checked_filters(spelled) == (FilterEntry("fd00::1", 80, "TCP"),)
    assert exact_filters(spelled) == (FilterEntry("fd00::1", 80, "tcp"),)


@pytest.mark.parametrize("protocol", ["tcp } ; flush ruleset", "QUIC", "TCP\n"])
def test_a_protocol_is_one_of_those_that_are_known(protocol: str) -> None:
    with pytest.raises(InputError, match="is not a protocol"):
        checked_filters((FilterEntry("10.0.0.1", 80, protocol),))
    with pytest.raises(GenainetError):
        exact_filters([FilterEntry("10.0.0.1", 80, protocol)])


def test_what_nft_is_told_is_json_with_one_constant_line_before_it() -> None:
    filters = exact_filters(
        [FilterEntry("10.0.0.1", 80, "TCP"), FilterEntry("10.0.0.2", 80, "TCP"), FilterEntry("fd00::1", 0, "")]
    )
    first, *lines = nft_commands(filters)
    assert first == f"add table inet {rules.TABLE} {{ flags owner; }}"
    (commands,) = [json.loads(line)["nftables"] for line in lines]
    assert all("\n" not in line for line in lines)
    found = [c["add"]["rule"]["expr"] for c in commands if "rule" in c["add"]]
    assert len(found) == 4  # two hooks, and addresses that share port and protocol share a rule
    assert found[0][0]["match"]["right"] == {"set": ["10.0.0.1", "10.0.0.2"]}
    assert [m["match"]["right"] for m in found[0][1:3]] == ["tcp", 80]
    assert found[1][0]["match"]["right"] == "fd00::1" and len(found[1]) == 2


def test_a_tracers_filters_are_parsed_whoever_makes_it() -> None:
    spelled = [FilterEntry("FD00:0::01", 80, "TCP")]
    assert ExactTracer("node-1", spelled).filters == (FilterEntry("fd00::1", 80, "tcp"),)
    for evil in (FilterEntry(EVIL, 80, "TCP"), FilterEntry("10.0.0.1", 70_000, "TCP"), FilterEntry("10.0.0.1", -1)):
        with pytest.raises(GenainetError):
            ExactTracer("node-1", [evil])


def test_rules_of_protocols_without_ports_have_none() -> None:
    filters = exact_filters([FilterEntry("10.0.0.1", 80, "ICMP")])
    assert filters == (FilterEntry("10.0.0.1", 0, "icmp"),)
    assert all("--dport" not in rule for rule in legacy_rules(filters, ""))


def test_more_rules_than_a_node_should_bear_are_refused() -> None:
    with pytest.raises(GenainetError, match="more than the 1000"):
        exact_filters([FilterEntry("10.0.0.1", 1 + n, "TCP") for n in range(1001)])


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (TraceRequest(filters=(), probes=("packet",) * 60), "asked for once"),
        (TraceRequest(filters=(), probes=("x" * 10**6,)), "unknown probes"),
        (TraceRequest(filters=(), timeout_s=float("nan")), "is not between"),
        (TraceRequest(filters=(), timeout_s=float("inf")), "is not between"),
        (TraceRequest(filters=(), options={str(n): "" for n in range(1000)}), "at most"),
        (TraceRequest(filters=(), options={"search": "x" * 10**6}), "at most"),
        (TraceRequest(filters=(), options={"redact": "ab" * 40}), "at most 32 bytes"),
        (TraceRequest(filters=(), check=CheckRequest("10.0.0.1", "10.0.0.1", 1, path="/ü")), "printable ASCII"),
        (TraceRequest(filters=(), check=CheckRequest("10.0.0.1", "10.0.0.1", 1, path="x")), "starts with /"),
        (TraceRequest(filters=(), check=CheckRequest("10.0.0.1", "10.0.0.1", 1, interval_s=float("nan"))), "apart"),
    ],
)
def test_numbers_and_sizes_are_bounded(request_: TraceRequest, says: str) -> None:
    with pytest.raises(InputError, match=says):
        checked_request(request_)


def test_filters_fit_the_kernels_table() -> None:
    every_protocol = tuple(FilterEntry(f"10.0.{n >> 8}.{n & 255}") for n in range(limits.MAX_FILTER_KEYS // 5 + 1))
    with pytest.raises(InputError, match="by protocol, more than"):
        checked_filters(every_protocol)
    assert len(checked_filters(every_protocol[:-1])) == len(every_protocol) - 1


def test_sessions_that_would_not_fit_are_refused_and_a_first_one_never_is() -> None:
    everything = ("packet", "drops", "dns")
    assert memory.fits([], everything, 10)
    assert memory.fits([("packet",)] * 3, ("packet",), 400)
    assert not memory.fits([everything], everything, 400)
    assert memory.fits([everything] * 3, everything, None)


def test_a_recorder_leaves_room_for_a_trace() -> None:
    """In the DaemonSet's 400 MiB; with every probe its maps have 113 MiB, its worker 54."""
    for probes in (("packet",), ("drops",)):
        assert memory.fits([(*RECORDED, *PROBES)], probes, 400)


def test_the_containers_own_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("419430400\n")
    (tmp_path / "none").write_text("max\n")
    assert memory.limit_mib([tmp_path / "missing", tmp_path / "none", tmp_path / "memory.max"]) == 400
    assert memory.limit_mib([tmp_path / "none"]) is None


def served(authenticator: Authenticator, talk: Talk, tmp_path: Path) -> Any:
    """What `talk` returns, which gets the socket's path and one connection."""

    async def run() -> Any:
        found = Server(Inventory("node-1", "/proc/self/ns/net"), str(tmp_path), authenticator)
        path = str(tmp_path / "agent.sock")
        async with await asyncio.start_unix_server(found.handle, path=path):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                async with asyncio.timeout(20):
                    return await talk(path, reader, writer)
            finally:
                writer.close()

    return asyncio.run(run())


def test_a_body_is_not_read_before_its_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)

    async def talk(_: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        head = b"POST /v1/trace HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nContent-Length: 4000000\r\n\r\n"
        writer.write(head)
        return await reader.readuntil(b"\r\n")

    assert served(Capability(tmp_path / "token"), talk, tmp_path) == b"HTTP/1.1 401 \r\n"


def test_a_refusal_arrives_although_its_request_has_a_body(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)

    async def talk(_: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"POST /v1/trace HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000)
        return await reader.read()

    assert b"wants the capability" in served(Capability(tmp_path / "token"), talk, tmp_path)


def test_who_says_nothing_makes_room_for_a_health_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 5)
    monkeypatch.setattr(server, "HEAD_S", 600.0)  # it is not time that makes room

    async def talk(path: str, first: asyncio.StreamReader, __: asyncio.StreamWriter) -> tuple[bytes, bytes]:
        silent = [await asyncio.open_unix_connection(path) for _ in range(12)]
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.readuntil(b"\r\n")
        hung_up = await first.read()
        for _reader, silent_writer in silent:
            silent_writer.close()
        writer.close()
        return answer, hung_up

    assert served(AnyCaller(), talk, tmp_path) == (b"HTTP/1.1 200 \r\n", b"")


def test_json_of_any_depth_is_refused(tmp_path: Path) -> None:
    async def talk(_: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        body = b'{"filters":[],"x":' + b"[" * 100_000
        writer.write(b"POST /v1/trace HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        return await reader.readuntil(b"\r\n")

    assert served(AnyCaller(), talk, tmp_path) == b"HTTP/1.1 400 \r\n"


def test_whatever_fails_is_answered_and_the_agent_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LookupError("something that nobody thought of")

    monkeypatch.setattr(Inventory, "report", broken)

    async def talk(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, bytes]:
        writer.write(b"GET /v1/node HTTP/1.1\r\nHost: x\r\n\r\n")
        said = await reader.read()
        again, other = await asyncio.open_unix_connection(path)
        other.write(b"GET /v1/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await again.readuntil(b"\r\n")
        other.close()
        return said, answer

    said, answer = served(AnyCaller(), talk, tmp_path)
    assert b"500" in said and b"LookupError" in said
    assert answer == b"HTTP/1.1 200 \r\n"
    assert "something that nobody thought of" in capsys.readouterr().err


def test_each_session_is_two_lines_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a server whose workers have nothing to say."""
    request = TraceRequest(
        filters=tuple(FilterEntry(f"10.0.0.{n}", 80, "TCP") for n in range(30)),
        exact=True,
        http=True,
        check=CheckRequest("10.0.0.1", "10.0.0.2", 80, path="/v1"),
    )

    monkeypatch.setattr(Server, "_worker", worker_that_is("true"))

    async def talk(_: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        body = msgspec.json.encode(request)
        writer.write(b"POST /v1/trace HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        return await reader.read()

    assert b"200" in served(AnyCaller(), talk, tmp_path)
    begun, ended = map(msgspec.json.decode, capsys.readouterr().err.splitlines())
    assert (begun["audit"], begun["peer"]) == ("session", f"process {os.getpid()} of user {os.getuid()}")
    assert (begun["probes"], begun["exact"], begun["http"]) == (["packet"], True, True)
    assert (begun["timeout_s"], begun["filters"], len(begun["first_filters"])) == (request.timeout_s, 30, 20)
    assert begun["check_connections"]["path"] == "/v1"
    assert (ended["audit"], ended["session"], ended["end"]) == ("session ended", begun["session"], "its own")
    assert ended["seconds"] >= 0
