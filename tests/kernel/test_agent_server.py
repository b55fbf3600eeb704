"""Hostile and slow clients of the agent: refused or waited for, counted, and never in the way of the probes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kubectl_genainet import __version__, wire
from kubectl_genainet.agent.serve import limits
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import Bye, LostEvents, PacketSeen, Progress
from kubectl_genainet.stream import AgentConnection
from kubectl_genainet.wire import FilterEntry, TraceRequest
from tests.kernel.kerneltest import PORT, SERVER_IP, Row, cache_folder, send_datagrams, udp_sink
from tests.kernel.test_agent_lifecycle import Agent, Client, listens, wait_for

REQUEST = {"filters": [{"ip": "10.0.0.1", "port": 80}], "timeout_s": 5}

SMALL_OUTBOX = """
import asyncio, sys
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.serve.limits import Budget
from kubectl_genainet.agent.serve.listening import serve
from kubectl_genainet.agent.serve.server import AnyCaller, Server
path, host_netns, cache = sys.argv[1:]
server = Server(Inventory("node", host_netns), cache, AnyCaller(), Budget(outbox_bytes=100_000))
asyncio.run(serve(server, socket_path=path))
"""


@pytest.fixture(scope="module")
def agent(row: Row, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    found = Agent(row, tmp_path_factory.mktemp("agent"))
    try:
        yield found
    finally:
        found.stop()


def answer(agent: Agent, data: bytes, timeout: float = 20.0) -> tuple[int, str]:
    """(status, body) of what the agent says to these bytes; (0, "") where it hangs up without a word."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(timeout)
        sock.connect(agent.path)
        text = b""
        with contextlib.suppress(BrokenPipeError):  # it has heard enough
            sock.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(65536):
                text += part
    if not text:
        return 0, ""
    head, _, body = text.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


def post(path: str, body: bytes, method: str = "POST", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + body


def changed(**fields: object) -> bytes:
    return msgspec.json.encode(REQUEST | fields)


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400, ""),
        (b"GET / GOPHER/1.1\r\n\r\n", 400, ""),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, ""),
        (b"GET /v1/hello HTTP/1.1\r\n\r\n", 400, ""),  # HTTP/1.1 wants a Host
        (post("/v1/nothing", b""), 404, "there is no POST /v1/nothing"),
        (post("/v1/trace", b"", "DELETE"), 404, ""),
        (post("/v1/trace", b"{"), 400, "can't be read"),
        (post("/v1/trace", b"\xff\xfe\x00"), 400, "can't be read"),
        (post("/v1/trace", b"[]"), 400, "can't be read"),
        (post("/v1/trace", changed(shell="rm -rf /")), 400, "unknown field `shell`"),
        (post("/v1/trace", changed(filters=[{"ip": "10.0.0.1; reboot"}])), 400, "is not an IP address"),
        (post("/v1/trace", changed(filters=[{"ip": "10.0.0.1", "port": 70000}])), 400, "is not a port"),
        (post("/v1/trace", changed(filters=[{"ip": "10.0.0.1", "protocol": "QUIC"}])), 400, "is not a protocol"),
        (post("/v1/trace", changed(probes=["keylogger"])), 400, "unknown probes"),
        (post("/v1/trace", changed(probes=[])), 400, "unknown probes"),
        (post("/v1/trace", changed(timeout_s=1e9)), 400, "is not between"),
        (post("/v1/trace", changed(timeout_s=-1)), 400, "is not between"),
        (post("/v1/trace", changed(max_events=10**12)), 400, "is not between"),
        (post("/v1/trace", changed(probe={"from_ip": "x", "host": "10.0.0.1", "port": 1})), 400, "probe.from_ip"),
        (
            post(
                "/v1/trace",
                changed(probe={"from_ip": "10.0.0.1", "host": "10.0.0.1", "port": 1, "path": "/ HTTP/1.1\r\nX: y"}),
            ),
            400,
            "printable ASCII without spaces",
        ),
        (
            post("/v1/trace", changed(probe={"from_ip": "10.0.0.1", "host": "10.0.0.1", "port": 1, "count": 10**9})),
            400,
            "at most",
        ),
        (post("/v1/trace/0123/filters", b"[]", "PUT"), 404, "no such session"),
        (post("/v1/trace/../../etc/passwd/filters", b"[]", "PUT"), 404, ""),
    ],
)
def test_bad_request_is_refused_with_its_reason(agent: Agent, data: bytes, status: int, says: str) -> None:
    found, body = answer(agent, data)
    assert found == status and says in body
    assert "Traceback" not in body
    assert answer(agent, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200


def test_a_newer_client_is_told_this_agents_version(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    def dial() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(agent.path)
        return sock

    monkeypatch.setattr(wire, "__version__", "99.0")
    connection = AgentConnection("node-1", dial)
    with contextlib.closing(connection), pytest.raises(GenainetError) as refused:
        connection.request("POST", "/v1/trace", changed(newer=True))
    assert "unknown field `newer`" in refused.value.message
    assert f"the agent on node node-1 is version {__version__}, this client 99.0" in refused.value.message
    assert "kubectl genainet deploy" in refused.value.hint


def test_body_that_is_too_large_is_refused_before_it_is_read_whole(agent: Agent) -> None:
    status, body = answer(agent, post("/v1/trace", b"[" * (limits.MAX_BODY + 200_000)))
    assert status == 413 and "larger than" in body


def test_too_many_filters_are_refused(agent: Agent) -> None:
    filters = [{"ip": "10.0.0.1", "port": i % 65536} for i in range(limits.MAX_FILTERS + 1)]
    status, body = answer(agent, post("/v1/trace", changed(filters=filters)))
    assert status == 400 and "are more than" in body


def test_client_that_never_finishes_its_request_is_hung_up_on(agent: Agent) -> None:
    begun = time.monotonic()
    assert answer(agent, post("/v1/trace", b"{", length=1000), timeout=30) == (0, "")
    assert 8 < time.monotonic() - begun < 25


def test_more_traces_than_allowed_are_refused_and_places_come_free(agent: Agent) -> None:
    wait_for(lambda: not agent.workers(), "the end of earlier sessions", 30)
    clients = [agent.trace() for _ in range(limits.MAX_SESSIONS)]
    try:
        wait_for(lambda: len(agent.workers()) == limits.MAX_SESSIONS, "the sessions")
        status, body = answer(agent, post("/v1/trace", msgspec.json.encode(REQUEST)))
        assert status == 429 and "run on this node already" in body
    finally:
        for client in clients:
            client.close()
    wait_for(lambda: not agent.workers(), "the end of the sessions", 30)
    again = agent.trace(timeout_s=0.2)
    bye = again.until(Bye)
    assert isinstance(bye, Bye) and bye.reason == "timeout"
    again.close()


def test_what_a_slow_client_does_not_take_is_counted_and_the_probes_go_on(row: Row, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    arguments = [str(path), str(netns.RUN_NETNS / row.router), str(cache_folder())]
    process = subprocess.Popen([sys.executable, "-c", SMALL_OUTBOX, *arguments])
    try:
        wait_for(lambda: listens(str(path)), "the agent's socket")
        filters = (FilterEntry(SERVER_IP, PORT, "UDP"),)
        request = TraceRequest(filters=filters, timeout_s=600, rulesets=False, cpu_percent=400.0)  # nothing is sampled
        client = Client(str(path), request)
        client.until(Progress, "attached")
        with udp_sink(row):
            send_datagrams(row, 4000, pause=0.0002)  # 16,000 events of some 500 bytes: more than all queues hold
            time.sleep(1)
        client.sock.shutdown(socket.SHUT_WR)
        events = [one for line in client.lines for one in wire.expand(wire.decode(line))]
        client.close()
    finally:
        process.kill()
        process.wait(10)
    bye = events[-1]
    assert isinstance(bye, Bye)
    seen = sum(isinstance(e, PacketSeen) for e in events)
    lost = {e.where: 0 for e in events if isinstance(e, LostEvents)}
    for event in events:
        if isinstance(event, LostEvents):
            lost[event.where] += event.count
    assert bye.emitted == 4 * 4000
    assert lost["slow client"] > 0 and sum(lost.values()) == bye.lost
    assert (bye.sent, bye.emitted) == (seen, bye.sent + bye.lost)
