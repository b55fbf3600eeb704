"""Many agents at once: one that fails, hangs or talks nonsense stops nobody else."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from kubectl_genainet import __version__, stream, wire
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import AgentFailed, Bye, Hello, LostEvents, Progress, Tick
from kubectl_genainet.stream import AgentConnection, Streams, ask_all
from kubectl_genainet.wire import CheckRequest, FilterEntry, TraceRequest
from tests.unit.agentfleet import (
    RECORDS,
    REQUEST,
    Fleet,
    Talk,
    asked,
    begins_with_something_else,
    breaks_off,
    ends_early,
    ends_within_a_record,
    everything,
    hangs,
    head,
    hello,
    is_another_program,
    is_newer,
    is_older,
    refuses,
    send,
    trickles,
    well,
)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    found = Fleet()
    yield found
    for thread in found.threads:
        thread.join(10)
        assert not thread.is_alive()


def test_one_agent_that_fails_and_one_that_hangs_leave_198_alone(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SILENT_S", 1.5)
    talks: dict[str, Talk] = {**{f"node-{i}": well for i in range(198)}, "bad": breaks_off, "deaf": hangs}
    streams = Streams({n: fleet.dial(n, t) for n, t in talks.items()}, dict.fromkeys(talks, REQUEST))
    try:
        events = everything(streams)
    finally:
        streams.close()
    failed = {e.node: e.message for e in events if isinstance(e, AgentFailed)}
    assert failed.keys() == {"bad", "deaf"}
    assert "ended without its last record" in failed["bad"] or "broke off" in failed["bad"]
    assert "has sent nothing for" in failed["deaf"]
    ticks = Counter(e.node for e in events if isinstance(e, Tick))
    assert ticks == {**{f"node-{i}": RECORDS for i in range(198)}, "bad": 1}
    assert sum(isinstance(e, Bye) for e in events) == 198
    order = [e.t_ns for e in events if isinstance(e, Tick) and e.node == "node-7"]
    assert order == list(range(RECORDS))  # each node's records stay in order


@pytest.mark.parametrize(
    ("talk", "says"),
    [
        (refuses, "refuses (429): 4 traces run on this node already"),
        (is_older, f"unknown field `newer`; the agent on node a is version 0.0.7, this client {__version__}"),
        (is_another_program, "can't read"),
        (is_newer, f"speaks protocol {wire.PROTOCOL + 1}"),
        (breaks_off, "node a"),
        (ends_early, "the stream of node a ended without its last record"),
        (ends_within_a_record, "broke off in the middle of a record"),
        (begins_with_something_else, "the process answering on node a is not a genainet agent"),
    ],
)
def test_failure_names_the_node_and_the_reason(fleet: Fleet, talk: Talk, says: str) -> None:
    streams = Streams({"a": fleet.dial("a", talk)}, {"a": REQUEST})
    try:
        failures = [e for e in everything(streams) if isinstance(e, AgentFailed)]
    finally:
        streams.close()
    assert len(failures) == 1 and failures[0].node == "a" and says in failures[0].message


def test_an_older_agent_that_refuses_is_to_be_deployed_again(fleet: Fleet) -> None:
    connection = AgentConnection("a", fleet.dial("a", is_older))
    with contextlib.closing(connection), pytest.raises(GenainetError) as refused:
        connection.request("POST", "/v1/trace", b"{}")
    assert "kubectl genainet deploy" in refused.value.hint


def test_node_that_can_not_be_reached_is_a_failure_of_its_own(fleet: Fleet) -> None:
    def unreachable() -> socket.socket:
        raise ConnectionRefusedError("connection refused")

    streams = Streams({"a": unreachable, "b": fleet.dial("b", well)}, {"a": REQUEST, "b": REQUEST})
    try:
        events = everything(streams)
    finally:
        streams.close()
    assert [e.node for e in events if isinstance(e, AgentFailed)] == ["a"]
    assert [e.node for e in events if isinstance(e, Bye)] == ["b"]


def test_node_that_opens_connections_is_asked_when_the_others_watch(fleet: Fleet) -> None:
    release = threading.Event()

    def slow_to_attach(sock: socket.socket, node: str) -> None:
        head(sock)
        send(sock, hello(node))
        release.wait(10)
        send(sock, Progress(node=node, stage="attached", t_ns=1), Bye(node=node, emitted=0, sent=0, lost=0, reason="x"))
        sock.sendall(b"0\r\n\r\n")

    probing = TraceRequest(filters=(), check=CheckRequest(from_ip="10.0.0.1", host="10.0.0.2", port=80))
    dials = {
        "a": fleet.dial("a", slow_to_attach),
        "b": fleet.dial("b", slow_to_attach),
        "probing": fleet.dial("probing", well),
    }
    streams = Streams(dials, {"a": REQUEST, "b": REQUEST, "probing": probing})
    try:
        hellos = [streams.poll(5), streams.poll(5)]
        assert {e.node for e in hellos if isinstance(e, Hello)} == {"a", "b"}
        assert streams.poll(0.3) is None and "probing" not in fleet.dialled
        release.set()
        assert {e.node for e in everything(streams) if isinstance(e, Bye)} == {"a", "b", "probing"}
    finally:
        release.set()
        streams.close()


def test_finish_tells_the_agents_and_still_gets_the_last_records(fleet: Fleet) -> None:
    def until_told(sock: socket.socket, node: str) -> None:
        head(sock)
        send(sock, hello(node))
        assert sock.recv(2) == b"\n"  # the client says no more, and reads on
        send(sock, LostEvents(node=node, probe="packet", count=3, where="ring buffer"))
        send(sock, Bye(node=node, emitted=3, sent=0, lost=3, reason="stopped"))
        sock.sendall(b"0\r\n\r\n")

    streams = Streams({n: fleet.dial(n, until_told) for n in ("a", "b")}, {"a": REQUEST, "b": REQUEST})
    try:
        assert {type(streams.poll(5)), type(streams.poll(5))} == {Hello}
        streams.finish()
        events = everything(streams)
    finally:
        streams.close()
    assert sum(isinstance(e, Bye) for e in events) == 2 and sum(isinstance(e, LostEvents) for e in events) == 2


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("limit", "at its limit of records"),
        ("agent stopped", "because its agent was stopped"),
        ("stopped", "because something on the node ended its process"),
        ("timeout", ""),
    ],
)
def test_a_trace_that_ends_before_its_time_has_failed_and_says_why(fleet: Fleet, reason: str, says: str) -> None:
    def ends(sock: socket.socket, node: str) -> None:
        head(sock)
        send(sock, hello(node), Bye(node=node, emitted=0, sent=0, lost=0, reason=reason))
        sock.sendall(b"0\r\n\r\n")

    streams = Streams({"a": fleet.dial("a", ends), "b": fleet.dial("b", well)}, {"a": REQUEST, "b": REQUEST})
    try:
        events = everything(streams)
    finally:
        streams.close()
    failed = [event for event in events if isinstance(event, AgentFailed)]
    assert [event.node for event in failed] == (["a"] if says else [])
    assert all(says in event.message and "node a" in event.message for event in failed)
    assert {event.node for event in events if isinstance(event, Bye)} == {"a", "b"}  # their accounts are there


def test_the_byte_that_asks_for_the_end_follows_the_request_once() -> None:
    ours, theirs = socket.socketpair()
    said: list[bytes] = []

    def serve() -> None:
        with theirs:
            text = theirs.recv(65536)
            while not text.endswith(b"{}\n"):
                text += theirs.recv(65536)
            said.append(text)
            theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            said.append(theirs.recv(10))

    thread = threading.Thread(target=serve)
    thread.start()
    connection = AgentConnection("a", lambda: ours)
    connection.say_no_more()  # before there is a request
    connection.request("POST", "/v1/trace", b"{}").read()
    connection.say_no_more()
    connection.close()
    thread.join(10)
    assert said[0].startswith(b"POST /v1/trace ") and said[1] == b""


def test_close_ends_streams_that_hang(fleet: Fleet) -> None:
    nodes = [f"node-{i}" for i in range(60)]
    streams = Streams({n: fleet.dial(n, hangs) for n in nodes}, dict.fromkeys(nodes, REQUEST))
    for _ in nodes:
        assert isinstance(streams.poll(5), Hello)
    readers = [thread for thread in threading.enumerate() if thread.name.startswith("stream-")]
    died: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, died.append
    begun = time.monotonic()
    try:
        streams.close()
        assert everything(streams) == [] and time.monotonic() - begun < 5
        for thread in readers:
            thread.join(5)
    finally:
        threading.excepthook = before
    assert not any(thread.is_alive() for thread in readers) and not died


def has_report(sock: socket.socket, node: str) -> None:
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    send(sock, hello(node))
    sock.sendall(b"0\r\n\r\n")


def test_who_trickles_an_answer_has_failed_when_the_time_is_over(fleet: Fleet) -> None:
    dials = {"slow": fleet.dial("slow", trickles), "well": fleet.dial("well", has_report)}
    begun = time.monotonic()
    answers = ask_all(dials, "/v1/hello", within_s=1.0)
    assert time.monotonic() - begun < 30  # it trickles for longer
    slow, well = answers["slow"], answers["well"]
    assert isinstance(slow, GenainetError) and slow.message == "the agent on node slow has not answered within 1 s"
    assert isinstance(well, list) and isinstance(well[0], Hello)


def test_an_answer_has_a_size(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def chatters(sock: socket.socket, node: str) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        send(sock, *[hello(node)] * 20)
        sock.sendall(b"0\r\n\r\n")

    monkeypatch.setattr(stream, "MAX_ANSWER", 1000)
    answer = ask_all({"a": fleet.dial("a", chatters)}, "/v1/hello")["a"]
    assert isinstance(answer, GenainetError) and answer.message == "node a answered with more than 1000 bytes"


@pytest.mark.parametrize("body", [b'{"error":"\xff"}', b'{"error":' + b"[" * 20_000, b"<html>", b'{"error":{}}'])
def test_a_refusal_in_any_words_is_a_refusal(fleet: Fleet, body: bytes) -> None:
    def refuses(sock: socket.socket, _: str) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 429 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    answer = ask_all({"a": fleet.dial("a", refuses)}, "/v1/hello")["a"]
    assert isinstance(answer, GenainetError) and "the agent on node a refuses (429)" in answer.message


def test_a_dial_without_end_is_left_behind() -> None:
    dialled, release = threading.Event(), threading.Event()

    def dial() -> socket.socket:
        dialled.set()
        release.wait(30)
        raise ConnectionRefusedError

    answer = ask_all({"a": dial}, "/v1/hello", within_s=0.5)["a"]
    assert dialled.is_set() and isinstance(answer, GenainetError) and "within 0.5 s" in answer.message
    release.set()


def test_new_filters_do_not_hold_a_run_up(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHANGE_S", 0.5)
    talks: list[Talk] = [hangs, lambda sock, _: trickles(sock, "changes")]
    streams = Streams({"a": lambda: fleet.dial("a", talks.pop(0))()}, {"a": REQUEST})
    try:
        assert isinstance(streams.poll(5), Hello)
        (problem,) = streams.set_filters((FilterEntry("10.0.0.2", 80),))
    finally:
        streams.close()
    assert "has not answered within 0.5 s" in problem.message


def test_an_agent_that_takes_new_filters_is_no_problem(fleet: Fleet) -> None:
    def takes(sock: socket.socket, _: str) -> None:
        text = b""
        while not text.endswith(b"]"):
            text += sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    talks: list[Talk] = [hangs, takes]
    streams = Streams({"a": lambda: fleet.dial("a", talks.pop(0))()}, {"a": REQUEST})
    try:
        assert isinstance(streams.poll(5), Hello)
        assert streams.set_filters((FilterEntry("10.0.0.2", 80),)) == []
    finally:
        streams.close()


def test_a_stream_that_does_not_end_is_overdue_and_one_that_broke_off_while_ending_has_failed(fleet: Fleet) -> None:
    def dies(sock: socket.socket, node: str) -> None:
        head(sock)
        send(sock, hello(node))
        sock.recv(1)  # the client says no more: it is killed before its last record

    def stays(sock: socket.socket, node: str) -> None:
        head(sock)
        send(sock, hello(node))
        with contextlib.suppress(OSError):
            while True:
                send(sock, Tick(node=node, t_ns=1))
                time.sleep(0.05)

    streams = Streams({"a": fleet.dial("a", dies), "b": fleet.dial("b", stays)}, {"a": REQUEST, "b": REQUEST})
    failed: list[AgentFailed] = []
    try:
        hellos = 0
        while hellos < 2:
            hellos += isinstance(streams.poll(5), Hello)
        streams.finish()
        while not failed:
            event = streams.poll(5)
            failed += [event] if isinstance(event, AgentFailed) else []
        assert [e.node for e in failed] == ["a"]
        assert [e.node for e in streams.overdue()] == ["b"]
    finally:
        streams.close()


class Body:
    """A response of given bytes, as http.client gives them: 64 KiB at a time."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def read1(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        self.at += len(part)
        return part


def connection() -> AgentConnection:
    ours, theirs = socket.socketpair()
    theirs.close()
    return AgentConnection("a", lambda: ours)


@pytest.mark.parametrize("sizes", [[0], [5, 0, 70_000, 65_535, 65_536, 1], [200_000, 3]])
def test_lines_are_what_was_sent_wherever_they_are_cut(sizes: list[int]) -> None:
    lines = [bytes([97 + i]) * size for i, size in enumerate(sizes)]
    whole = b"".join(line + b"\n" for line in lines)
    with contextlib.closing(connection()) as agent:
        assert list(agent.lines(Body(whole))) == lines  # type: ignore[arg-type]


def test_a_record_costs_as_much_as_it_is_long() -> None:
    begun = time.process_time()
    with contextlib.closing(connection()) as agent:
        (line,) = agent.lines(Body(b"x" * (60 << 20) + b"\n"))  # type: ignore[arg-type]
        assert len(line) == 60 << 20
        assert time.process_time() - begun < 2  # copied once a part it would be 28 GB
        with pytest.raises(GenainetError, match="a record of more than"):
            list(agent.lines(Body(b"x" * (wire.MAX_RECORD + 1))))  # type: ignore[arg-type]


def test_a_refusal_that_is_cut_off_is_a_refusal(fleet: Fleet) -> None:
    def resets(sock: socket.socket, _: str) -> None:
        asked(sock)
        sock.sendall(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 100\r\n\r\n")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    streams = Streams({"a": fleet.dial("a", resets)}, {"a": REQUEST})
    try:
        (failure,) = everything(streams)
    finally:
        streams.close()
    assert isinstance(failure, AgentFailed)
    # The reset may come before the client has read the response's head.
    assert re.search(r"refuses \(429\): its reason did not arrive|does not answer: .*reset by peer", failure.message)
