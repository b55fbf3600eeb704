"""Frames of HTTP/2: how many streams a client has opened, as a real client's bytes tell, and what is no frame."""

from __future__ import annotations

import dataclasses
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

import h2.config
import h2.connection
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_genainet.agent.http import tap
from kubectl_genainet.agent.http.frames import PREFACE, StreamCount, read_frames
from kubectl_genainet.agent.node.segments import attach_filter, parse_segment, segment_filter
from kubectl_genainet.model.events import Http2Streams
from kubectl_genainet.wire import FilterEntry
from tests.unit.agent.test_agent_http import Segments, flow_to, packet

REQUEST = [(":method", "POST"), (":scheme", "http"), (":authority", "llm"), (":path", "/v1/chat")]
MSS = 1448


class Client:
    """A client's side of HTTP/2, which gives what it would send."""

    def __init__(self, first: int = 1) -> None:
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.http.initiate_connection()
        self.next = first

    def open(self, body: bytes = b"", fields: Iterable[tuple[str, str]] = ()) -> None:
        self.http.send_headers(self.next, [*REQUEST, *fields], end_stream=not body)
        if body:
            self.http.send_data(self.next, body, end_stream=True)
        self.next += 2

    @property
    def sent(self) -> bytes:
        data: bytes = self.http.data_to_send()
        return data


def count(writes: Iterable[bytes], mss: int = 65536, seq: int = 2**32 - 50) -> StreamCount:
    """What is counted of these writes, each of which begins a segment. The sequence numbers begin anew on the way."""
    streams = StreamCount(seq)
    for write in writes:
        for at in range(0, len(write), mss):
            frames = read_frames(write[at : at + mss][:4096])
            if frames is not None:
                streams.take((seq + at) % 2**32, frames)
        seq += len(write)
    return streams


def told(streams: StreamCount) -> tuple[bool, int, int, int]:
    return streams.preface, streams.first, streams.last, streams.seen


def test_streams_are_counted_from_the_preface_on() -> None:
    client, writes = Client(), list[bytes]()
    for _ in range(5):
        client.open()
        writes.append(client.sent)
    assert writes[0].startswith(PREFACE) and told(count(writes)) == (True, 1, 9, 5)


def test_several_headers_in_one_segment_are_each_counted() -> None:
    client = Client()
    for _ in range(7):
        client.open(b"body")
    assert told(count([client.sent])) == (True, 1, 13, 7)


def test_streams_that_began_within_a_segment_are_told_by_the_next_number() -> None:
    client, writes = Client(), list[bytes]()
    for _ in range(40):
        client.open(b"x" * 1000)
    writes.append(client.sent)  # one write: of its end nothing is taken
    client.open()
    writes.append(client.sent)
    streams = count(writes)
    assert (streams.first, streams.last) == (1, 81) and streams.seen < 41


def test_fields_longer_than_a_segment_and_a_frame_are_one_stream() -> None:
    client, writes = Client(), list[bytes]()
    for number in range(3):
        client.open(b"body", [("x-long", f"{number}" + "z" * 40_000)])
        writes.append(client.sent)
    assert b"\x00\x00\x00\x01" in writes[0] and any(len(write) > 16384 for write in writes)  # CONTINUATION follows
    for mss in (MSS, 65536):
        assert told(count(writes, mss)) == (True, 1, 5, 3)


def test_bodies_that_look_like_frames_count_nothing() -> None:
    client, writes = Client(), list[bytes]()
    fake = struct.pack("!BHBBI", 0, 40, 1, 4, 9999) + bytes(40)  # HEADERS of stream 9999
    for _ in range(4):
        client.open((fake * 100)[:3000])
        writes.append(client.sent)
    for mss in (MSS, 512, len(fake)):
        assert told(count(writes, mss))[:3] == (True, 1, 7)


def test_a_number_for_which_there_was_no_room_is_none() -> None:
    client = Client()
    client.open()
    start = client.sent
    far = struct.pack("!BHBBI", 0, 40, 1, 4, 99) + bytes(40)
    assert told(count([start, far])) == (True, 1, 1, 1)


def test_client_that_begins_with_three_has_opened_one() -> None:
    client = Client(first=3)
    client.open()
    assert told(count([client.sent])) == (True, 3, 3, 1)


def test_connection_older_than_the_trace_is_known_after_three_that_fit() -> None:
    client = Client()
    for _ in range(500):
        client.open()
    assert client.sent
    writes = list[bytes]()
    for _ in range(4):
        client.open(b"x")
        writes.append(client.sent)
    assert not count(writes[:2]).known
    streams = count(writes)
    assert streams.known and told(streams) == (False, 1001, 1007, 4)


def test_frames_that_do_not_fit_each_other_are_no_http2() -> None:
    frame = [struct.pack("!BHBBI", 0, 40, 1, 4, number) + bytes(40) for number in (5, 999, 7, 3, 99999, 1)]
    assert not count(frame).known


def test_what_is_seen_twice_is_counted_once() -> None:
    client, writes = Client(), list[bytes]()
    for _ in range(3):
        client.open()
        writes.append(client.sent)
    streams, seq = StreamCount(1), 1
    for write in writes:
        frames = read_frames(write)
        assert frames is not None
        assert streams.take(seq, frames) and not streams.take(seq, frames)  # at another device, or sent again
        seq += len(write)
    assert streams.seen == 3


@pytest.mark.parametrize(
    "data",
    [
        bytes(400),
        b"\x17\x03\x03\x01\x00" + bytes(256),  # TLS
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"prompt": "a"}',
        struct.pack("!BHBBI", 0, 40, 1, 4, 2) + bytes(40),  # a server's stream
        struct.pack("!BHBBI", 0, 40, 5, 4, 1) + bytes(40),  # PUSH_PROMISE
        struct.pack("!BHBBI", 0, 40, 1, 0x40, 1) + bytes(40),
        struct.pack("!BHBBI", 0, 7, 6, 0, 0) + bytes(7),  # PING of another length
        struct.pack("!BHBBI", 0, 4, 1, 4, 1) + b"abcd" + b"no frame follows",
    ],
)
def test_what_no_client_sends_is_none(data: bytes) -> None:
    assert read_frames(data) is None


@given(st.binary(max_size=200))
def test_any_bytes_after_a_preface_are_read_without_an_error(data: bytes) -> None:
    frames = read_frames(PREFACE + data)
    assert frames is None or (frames.preface and all(number % 2 for _, number in frames.headers))


def through(program: list[tuple[int, int, int, int]], packets: list[bytes]) -> list[bytes]:
    """What a filter lets through: classic BPF runs on datagrams too."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        attach_filter(ours, program)
        ours.setblocking(False)
        got = list[bytes]()
        for one in packets:
            try:
                theirs.send(one)
                got.append(ours.recv(70000))
            except OSError:  # refused, or nothing came
                continue
        return got


def frame_of(kind: int, stream: int, length: int = 8, flags: int = 0) -> bytes:
    return struct.pack("!BHBBI", 0, length, kind, flags, stream) + bytes(length)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("ports", [{8080}, set(range(8017, 8081))])
def test_filter_lets_begins_of_frames_to_the_ports_through(family: int, ports: set[int]) -> None:
    program = segment_filter(ports, tap.BEGINS_OF_ALL, 4096, frames=True)
    begins = [PREFACE, b"POST / HTTP/1.1", frame_of(1, 1, 40, 5), frame_of(0, 3, 500, 1), frame_of(4, 0, 6)]
    begins += [frame_of(8, 0, 4), frame_of(8, 5, 4), frame_of(6, 0), frame_of(3, 7, 4), frame_of(9, 7, 90, 4)]
    others = [frame_of(1, 2, 40), frame_of(0, 0, 500), frame_of(1, 1, 40, 0x42), frame_of(5, 1), bytes(500)]
    others += [b"\x17\x03\x03\x01\x00" + bytes(200), frame_of(1, 1)[:8], frame_of(1, 2**31 + 1), b""]
    wanted = [packet(family, begin) for begin in begins]
    assert through(program, [*wanted, *(packet(family, other) for other in others)]) == wanted


def from_server(family: int, payload: bytes) -> bytes:
    whole = bytearray(packet(family, payload))
    at = 24 if family == 4 else 40
    whole[at : at + 4] = struct.pack("!HH", 8080, 40000)
    return bytes(whole)


@pytest.mark.parametrize("family", [4, 6])
def test_filter_keeps_a_servers_frames_away(family: int) -> None:
    program = segment_filter({8080}, tap.BEGINS_OF_ALL, 4096, frames=True)
    response = from_server(family, b"HTTP/1.1 200 OK\r\n\r\n")
    assert through(program, [from_server(family, frame_of(1, 1, 40, 4)), response]) == [response]


Tap = tuple[tap.HttpTap, Callable[[bytes, int], list[Http2Streams]]]


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Tap:
    """A tap, and how to have it read a segment with a sequence number."""
    monkeypatch.setattr(tap, "SegmentSocket", Segments)
    http = tap.HttpTap("node", "netns")
    http.configure([FilterEntry("10.0.0.1", 80, "TCP")])

    def read(payload: bytes, seq: int) -> list[Http2Streams]:
        segments: Any = http._segments
        whole = packet(4, payload, port=80)
        segment = parse_segment(whole, len(whole))
        assert segment is not None
        tcp = segment.tcp.__class__(seq, 0, 24)
        segments.given = [dataclasses.replace(segment, flow=flow_to("10.0.0.1"), tcp=tcp)]
        events = list(http.poll())
        assert all(isinstance(event, Http2Streams) for event in events)
        return [event for event in events if isinstance(event, Http2Streams)]

    return http, read


def test_tap_tells_of_a_connection_when_it_has_opened_streams(followed: Tap) -> None:
    _, read = followed
    client = Client()
    client.open(b"a secret")
    start = client.sent
    (event,) = read(start, 1)
    assert (event.preface, event.first, event.last, event.seen) == (True, 1, 1, 1)
    assert read(start, 1) == []
    client.open()
    (event,) = read(client.sent, 1 + len(start))
    assert (event.last, event.seen, event.flow) == (3, 2, flow_to("10.0.0.1"))


def test_client_that_comes_again_with_the_same_port_is_counted_anew(followed: Tap) -> None:
    _, read = followed
    for seq in (1, 5_000_000):
        client = Client()
        client.open()
        client.open()
        (event,) = read(client.sent, seq)
        assert (event.first, event.last, event.seen) == (1, 3, 2)


def test_tap_keeps_a_bounded_number_of_connections(followed: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    http, read = followed
    monkeypatch.setattr(tap, "MAX_CONNECTIONS", 0)
    client = Client()
    client.open()
    assert [event.last for event in read(client.sent, 1)] == [1]
    assert not http._streams
