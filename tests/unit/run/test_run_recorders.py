"""Many recorders asked at once, some of which say nothing: from servers on sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.blocks import ALIVE, Flag, Span, encode_block
from kubectl_genainet.history.merge import merged
from kubectl_genainet.history.objects import ObjectsRange
from kubectl_genainet.history.ranges import node_range
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import AgentFailed, TcpRetransmit
from kubectl_genainet.model.history import Gap
from kubectl_genainet.run.agents import Agents
from kubectl_genainet.run.sources import recorders
from kubectl_genainet.run.sources.history import HistorySource, TimeRange
from kubectl_genainet.run.sources.recorders import RecorderAnswer, ask_recorders
from kubectl_genainet.stream import Dial
from kubectl_genainet.wire import HistoryRequest
from tests.recordertest import RecordedCluster
from tests.unit.history.recording import BOOT, MONO, NODE, SECOND, WALL, resent

SPAN = Span(WALL, WALL + 60 * SECOND, MONO, MONO + 60 * SECOND)
REQUEST = HistoryRequest(since_ns=WALL, until_ns=WALL + 60 * SECOND)
WHOLE = encode_block([resent(1)], SPAN, session=1, number=1, boot_id=BOOT) + encode_block(
    [], SPAN, session=0, number=0, boot_id=BOOT, flags=Flag.END
)
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SILENT_S = 0.6

Serve = Callable[[socket.socket], None]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answers(sock: socket.socket) -> None:
    sock.sendall(HEAD + chunk(WHOLE) + b"0\r\n\r\n")


def says_nothing(sock: socket.socket) -> None:
    sock.recv(1)  # until the other side closes


def stops_after_its_head(sock: socket.socket) -> None:
    sock.sendall(HEAD)
    sock.recv(1)


def stops_amid_its_blocks(sock: socket.socket) -> None:
    sock.sendall(HEAD + chunk(WHOLE)[:100])
    sock.recv(1)


def trickles_its_head(sock: socket.socket) -> None:
    trickle(sock, HEAD[:-2] + b"X: ")


def trickles_its_blocks(sock: socket.socket) -> None:
    trickle(sock, HEAD + b"%x\r\n" % len(WHOLE))


def trickle(sock: socket.socket, begin: bytes) -> None:
    """A byte now and then: no single wait is long."""
    with contextlib.suppress(OSError):
        sock.sendall(begin)
        while True:
            sock.sendall(b"x")
            time.sleep(SILENT_S / 10)


def searches_for_long(sock: socket.socket) -> None:
    sock.sendall(HEAD)
    for _ in range(6):
        time.sleep(SILENT_S / 2)
        sock.sendall(chunk(ALIVE))
    first, last = _blocks()
    sock.sendall(chunk(ALIVE + first + ALIVE + last + ALIVE) + b"0\r\n\r\n")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recorders, "SILENT_S", SILENT_S)
    monkeypatch.setattr(recorders, "QUIET_S", 0.1)
    yield


def request_is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    return bool(end) and f"Content-Length: {len(body)}".encode() in head


def dial_to(serve: Serve) -> Dial:
    def run(sock: socket.socket) -> None:
        with sock:
            while not request_is_whole(sock.recv(65536, socket.MSG_PEEK)):
                time.sleep(0.005)
            sock.recv(65536)
            serve(sock)

    def dial() -> socket.socket:
        ours, theirs = socket.socketpair()
        threading.Thread(target=run, args=(theirs,), daemon=True).start()
        return ours

    return dial


def never_dials() -> socket.socket:
    time.sleep(60)
    raise OSError("nobody waits any more")


def test_what_says_nothing_is_given_up_and_named_and_the_others_are_whole() -> None:
    silent = {"a": dial_to(says_nothing), "b": never_dials}
    dials = silent | {f"node-{number}": dial_to(answers) for number in range(5)}
    began = time.monotonic()
    given = ask_recorders(dials, REQUEST)
    assert time.monotonic() - began < 10
    for node in silent:
        error = given.pop(node)
        assert isinstance(error, GenainetError) and f"node {node} has said nothing for" in error.message
    assert list(given.values()) == [RecorderAnswer(_blocks(), True)] * 5


def test_silent_nodes_take_no_place_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "AT_A_TIME", 2)
    monkeypatch.setattr(recorders, "SILENT_S", 3.0)
    asked_s: dict[str, float] = {}

    def noted(node: str, serve: Serve) -> Callable[[], socket.socket]:
        def serving(sock: socket.socket) -> None:
            asked_s[node] = time.monotonic()
            serve(sock)

        return dial_to(serving)

    dials = {f"a-{number}": noted(f"a-{number}", says_nothing) for number in range(4)} | {"z": noted("z", answers)}
    began = time.monotonic()
    given = ask_recorders(dials, REQUEST)
    assert isinstance(given["z"], RecorderAnswer)
    assert asked_s["z"] - began < 3.0  # before any of those was given up


@pytest.mark.parametrize("serve", [stops_after_its_head, stops_amid_its_blocks, trickles_its_head, trickles_its_blocks])
def test_what_falls_silent_in_its_answer_or_trickles_is_cut_short_and_a_gap(serve: Serve) -> None:
    began = time.monotonic()
    answer = ask_recorders({"a": dial_to(serve)}, REQUEST)["a"]
    assert time.monotonic() - began < 10
    assert answer == RecorderAnswer((), False, late=True)
    given = node_range("a", answer.blocks, complete=answer.complete)
    events = merged({"a": given}, ObjectsRange(None, (), ()), REQUEST.since_ns, REQUEST.until_ns)
    assert [event.why for event in events if isinstance(event, Gap)] == ["the node's answer was cut short"]
    assert [event.node for event in events if isinstance(event, AgentFailed)] == ["a"]


def test_nodes_that_trickle_take_no_place_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "AT_A_TIME", 2)
    dials = {f"a-{number}": dial_to(trickles_its_blocks) for number in range(4)} | {"z": dial_to(answers)}
    began = time.monotonic()
    given = ask_recorders(dials, REQUEST)
    assert time.monotonic() - began < 10
    assert given.pop("z") == RecorderAnswer(_blocks(), True)
    assert set(given.values()) == {RecorderAnswer((), False, late=True)}


def test_a_node_that_was_cut_is_named_and_not_asked_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def noted(node: str, serve: Serve) -> Dial:
        def serving(sock: socket.socket) -> None:
            asked.append(node)
            serve(sock)

        return dial_to(serving)

    class Cluster(RecordedCluster):
        def agents(self) -> Agents:
            return Agents({"slow": noted("slow", trickles_its_blocks), NODE: noted(NODE, answers)})

        def objects_recorder(self) -> None:  # type: ignore[override]
            return None

        def _read(self) -> ClusterSnapshot:
            return ClusterSnapshot(objects=())

    past = HistorySource(Cluster(tmp_path), TimeRange(REQUEST.since_ns, REQUEST.until_ns))
    first, second = (past.replayed(verb, ()).events for verb in ("trace", "drops"))
    assert asked.count(NODE) == 2 and asked.count("slow") == 1
    assert past.failed_nodes == {"slow"}  # exit status 2
    assert [(e.node, e.why) for e in first if isinstance(e, Gap)] == [("slow", "the node's answer was cut short")]
    failed = [(event.node, event.message) for event in second if isinstance(event, AgentFailed)]
    assert failed == [("slow", "the agent on node slow is too slow to be asked again")]


def test_a_node_that_searches_for_long_is_waited_for() -> None:
    answer = ask_recorders({NODE: dial_to(searches_for_long)}, REQUEST)[NODE]
    assert answer == RecorderAnswer(_blocks(), True)
    given = node_range(NODE, answer.blocks, complete=answer.complete)
    events = merged({NODE: given}, ObjectsRange(None, (), ()), REQUEST.since_ns, REQUEST.until_ns)
    assert not [event for event in events if isinstance(event, Gap)]
    assert [event for event in events if isinstance(event, TcpRetransmit)] == [resent(1)]


def test_a_length_that_is_not_reached_is_no_whole_answer() -> None:
    def short_of_its_length(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(WHOLE) + 1, WHOLE))

    answer = ask_recorders({"a": dial_to(short_of_its_length)}, REQUEST)["a"]
    assert answer == RecorderAnswer(_blocks(), False)


def test_nodes_beyond_the_time_are_named_as_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "AT_A_TIME", 1)
    monkeypatch.setattr(recorders, "QUIET_S", 60.0)
    given = ask_recorders({"a": dial_to(says_nothing), "b": dial_to(answers)}, REQUEST, within_s=0.3)
    messages = [answer.message for answer in given.values() if isinstance(answer, GenainetError)]
    assert sorted(given) == ["a", "b"] and len(messages) == 2
    assert "node b was not asked" in given["b"].message  # type: ignore[union-attr]


def _blocks() -> tuple[bytes, ...]:
    first = encode_block([resent(1)], SPAN, session=1, number=1, boot_id=BOOT)
    return first, WHOLE[len(first) :]
