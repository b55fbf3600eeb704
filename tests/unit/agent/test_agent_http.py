"""Heads of HTTP messages: what is read of them, and that nothing else is."""

from __future__ import annotations

import dataclasses
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_genainet.agent.http import tap
from kubectl_genainet.agent.http.head import BEGINS, MAX_PATH, MAX_TYPE, Head, read_head
from kubectl_genainet.agent.node.segments import Arrival, TcpSegment, attach_filter, parse_segment, segment_filter
from kubectl_genainet.model.events import Point
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.wire import FilterEntry

BODY = b'{"prompt": "a secret"}'


def test_request_is_its_method_and_path_without_a_query() -> None:
    head = b"POST /v1/chat?key=abc#x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Type: application/json\r\n\r\n"
    assert read_head(head + BODY) == Head("POST", "/v1/chat", 0, "application/json", len(head))


def test_what_follows_a_hash_is_left_out_too() -> None:
    found = read_head(b"GET /v1/chat#access_token=abc HTTP/1.1\r\n\r\n")
    assert found is not None and found.path == "/v1/chat"


@pytest.mark.parametrize("scheme", [b"http", b"https", b"HTTP", b"ws"])
def test_path_of_a_proxied_request_has_no_host_and_no_credentials(scheme: bytes) -> None:
    found = read_head(b"GET " + scheme + b"://user:word@host/path HTTP/1.1\r\n\r\n")
    assert found is not None and found.path == "/path"


def test_words_of_a_head_are_bounded() -> None:
    found = read_head(b"POST /" + b"x" * 3000 + b" HTTP/1.1\r\nContent-Type: " + b"y" * 3000 + b"\r\n\r\n")
    assert found is not None and (len(found.path), len(found.content_type)) == (MAX_PATH, MAX_TYPE)


def test_response_is_its_status_and_type() -> None:
    head = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n"
    assert read_head(head + b"data: token") == Head(status=200, content_type="text/event-stream", length=len(head))


def test_head_that_goes_on_in_the_next_segment_has_no_length() -> None:
    found = read_head(b"GET /" + b"x" * 3000)
    assert found is None
    found = read_head(b"HTTP/1.1 503 Service Unavailable\r\nX-Long: " + b"y" * 3000)
    assert found == Head(status=503)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.0",
        b"HTTP/2 200\r\n\r\n",
        b"GET me a coffee\r\n\r\n",
        b"POSTAL 1 HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 20\r\n",
    ],
)
def test_what_only_looks_like_http_is_none(data: bytes) -> None:
    assert read_head(data) is None


@given(st.binary(max_size=400))
def test_any_bytes_are_read_without_an_error_and_give_bounded_words(data: bytes) -> None:
    for begin in BEGINS:
        found = read_head(begin + data)
        assert found is None or (
            len(found.path) <= MAX_PATH and "?" not in found.path and found.length <= len(data) + 4
        )


def packet(family: int, payload: bytes, port: int = 8080, options: int = 3) -> bytes:
    doff = 5 + options
    tcp = struct.pack("!HHIIBBHHH", 40000, port, 1, 1, doff << 4, 24, 64, 0, 0) + bytes(4 * options) + payload
    if family == 6:
        return struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + bytes(32) + tcp
    return (
        struct.pack("!BBHHHBBH4s4s", 0x46, 0, 24 + len(tcp), 7, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
        + bytes(4)
        + tcp
    )


@pytest.mark.parametrize("family", [4, 6])
def test_filter_lets_only_begins_of_messages_of_the_ports_through(family: int) -> None:
    """Classic BPF runs on any socket: here on datagrams that hold a packet each."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        attach_filter(ours, segment_filter({8080}, BEGINS, 4096))
        ours.setblocking(False)
        wanted = [packet(family, b"GET / HTTP/1.1\r\n\r\n"), packet(family, b"HTTP/1.1 200 OK\r\n\r\n", options=0)]
        others = [
            packet(family, b"GET / HTTP/1.1\r\n\r\n", port=8081),
            packet(family, b"data: GET "),
            packet(family, b"GE"),
            packet(family, b""),
        ]
        for one in (*others, *wanted):
            try:
                theirs.send(one)
            except OSError as error:  # what a filter refuses may be told to the sender
                assert one in others, error
        got = []
        while True:
            try:
                got.append(ours.recv(5000))
            except BlockingIOError:
                break
    assert got == wanted


class Segments:
    """In place of the packet socket: what it was asked for, and the segments that it gives."""

    inode, refused = 1, 0

    def __init__(self, what: str, netns: str, most: int) -> None:
        self.most, self.programs = most, list[object]()
        self.given: list[TcpSegment] = []

    def filter(self, program: object) -> None:
        self.programs.append(program)

    def arrivals(self, batch: int) -> Iterator[Arrival]:
        return iter([Arrival(segment, "eth0", Point.RX, 1) for segment in self.given])


def test_only_the_traced_ends_are_read_and_of_these_the_first_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "SegmentSocket", Segments)
    followed = tap.HttpTap("node", "netns")
    segments: Any = followed._segments
    followed.configure(
        [FilterEntry("10.0.0.1", 80, "TCP"), FilterEntry("10.0.0.2", 0, "TCP"), FilterEntry("10.0.0.3", 53, "UDP")]
    )
    assert (
        segments.programs == [segment_filter({80}, tap.BEGINS_OF_ALL, tap.MOST, frames=True)]
        and segments.most == tap.MOST == 4096
    )
    request = packet(4, b"GET /a?b HTTP/1.1\r\n\r\n", port=80)
    of_another = parse_segment(request, len(request))  # the filter knows ports, not addresses
    assert of_another is not None
    ours = dataclasses.replace(of_another, flow=flow_to("10.0.0.1"))
    segments.given = [of_another, ours]
    assert [head.flow.dst for head in followed.poll()] == ["10.0.0.1"]


def flow_to(dst: str) -> FiveTuple:
    return FiveTuple("10.0.0.9", 40000, dst, 80, Protocol.TCP)
