"""What heads of HTTP messages and numbers of HTTP/2 streams add to a connection's path."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.events import Event, Http2Streams, HttpHead
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.results.path import Http2, PacketPath
from kubectl_genainet.render.trace.http import http2_text, http_text
from kubectl_genainet.trace.joining import connection as joining
from tests.unit.trace.test_connection_life import DATA, MS, counted, fins
from tests.unit.trace_world import HOST, SECOND, World

T = 1000 * SECOND
HEAD = 150


def head(world: World, t: int, *, reply: bool = False, seq: int, payload: int = HEAD, status: int = 200) -> HttpHead:
    """A head at the node's end of the server's veth."""
    sightings = (world.reply if reply else world.request)(40000, t, DATA, payload=payload, seq=seq)
    seen = next(e for e in sightings if e.node == "node-2" and e.netns == HOST["node-2"])
    kind = {"status": status, "content_type": "text/event-stream"} if reply else {"method": "POST", "path": "/v1/chat"}
    return HttpHead(
        node=seen.node,
        t_ns=seen.t_ns,
        netns=seen.netns,
        device=seen.device,
        point=seen.point,
        flow=seen.flow,
        seq=seq,
        payload=payload,
        head_bytes=HEAD,
        **kind,
    )


def answered(heads: list[HttpHead] | list[Http2Streams], world: World, *, second: int) -> PacketPath:
    """A reply whose first piece leaves after a millisecond, and whose next at `second`."""
    request = world.request(40000, T + MS, DATA, payload=HEAD, seq=1001)
    reply = world.reply(40000, T + 2 * MS, DATA, payload=HEAD, seq=9001)
    gaps, sums = (0,) * 62 + (100,), (0,) * 62 + (5_000_000,)
    records = [
        counted(e, second_ns=second + e.t_ns - T - 2 * MS, last_ns=second + 5 * SECOND, gaps=gaps, gap_us=sums)
        for e in reply
    ]
    events: list[Event] = [*world.handshake(40000, T), *request, *(counted(e) for e in request), *heads, *reply]
    (path,) = world.tell(events, records, fins(world, 40000, second + 6 * SECOND))
    return path


def test_first_token_is_told_from_the_head_that_went_before_it() -> None:
    world = World()
    heads = [head(world, T + MS, seq=1001), head(world, T + 2 * MS, reply=True, seq=9001)]
    path = answered(heads, world, second=T + 3 * SECOND)
    assert path.http is not None and path.http.first_body_ns is not None
    assert abs(path.http.first_body_ns - 3 * SECOND) < 2 * MS
    assert (path.http.method, path.http.path, path.http.statuses) == ("POST", "/v1/chat", {"200": 1})
    (slow,) = path.findings
    assert slow.check == "slow-first-token" and "after its response header" in slow.title
    assert http_text(path.http).startswith("POST /v1/chat: 200 text/event-stream, the first of the body after 3.0")


def test_body_that_comes_with_its_head_is_the_first_token() -> None:
    world = World()
    heads = [head(world, T + MS, seq=1001), head(world, T + 2 * MS, reply=True, seq=9001, payload=HEAD + 20)]
    path = answered(heads, world, second=T + 60 * MS)
    assert path.http is not None and path.stream is not None and path.findings == ()
    assert path.http.first_body_ns == path.stream.first_reply_ns


def test_requests_of_a_kept_connection_are_counted_once_each_and_errors_named() -> None:
    world = World()
    heads = []
    for i in range(3):
        asked, answer = (
            head(world, T + i * SECOND, seq=1001 + i),
            head(world, T + i * SECOND + 40 * MS, reply=True, seq=9001 + i, status=503 if i == 2 else 200),
        )
        heads += [asked, asked, answer, answer]  # as two devices saw them
    path = answered(heads, world, second=T + 60 * MS)
    assert path.http is not None and (path.http.requests, path.http.statuses) == (3, {"200": 2, "503": 1})
    assert path.http.slowest_answer_ns is not None and abs(path.http.slowest_answer_ns - 40 * MS) < MS
    assert path.http.first_body_ns is None
    assert [f.check for f in path.findings] == ["http-error"]


def test_without_heads_nothing_is_said_of_http() -> None:
    assert answered([], World(), second=T + 60 * MS).http is None


def streams(world: World, t: int, *, preface: bool = True, first: int = 1, last: int, seen: int) -> Http2Streams:
    seen_at = head(world, t, seq=1001)
    return Http2Streams(
        node=seen_at.node,
        t_ns=t,
        netns=seen_at.netns,
        flow=seen_at.flow,
        preface=preface,
        first=first,
        last=last,
        seen=seen,
    )


def test_streams_are_observed_where_each_was_seen_and_derived_where_numbers_tell() -> None:
    world = World()
    counts = [streams(world, T + i * SECOND, last=2 * i + 1, seen=i + 1) for i in range(3)]
    assert answered(counts, world, second=T + 60 * MS).http2 == Http2(streams=3, last=5, certainty=Certainty.OBSERVED)
    for count in (streams(world, T, last=5, seen=2), streams(world, T, preface=False, first=1, last=5, seen=3)):
        path = answered([count], World(), second=T + 60 * MS)
        assert path.http2 == Http2(streams=3, last=5, certainty=Certainty.DERIVED)
        assert http2_text(path.http2) == "HTTP/2: 3 streams by their numbers"


def test_connection_that_has_opened_no_stream_yet_is_http2_all_the_same() -> None:
    world = World()
    path = answered([streams(world, T, first=0, last=0, seen=0)], world, second=T + 60 * MS)
    assert path.http2 == Http2(streams=0, last=0, certainty=Certainty.OBSERVED)


def test_streams_counted_before_a_connection_began_are_not_its() -> None:
    world = World()
    path = answered([streams(world, T - SECOND, last=5, seen=3)], world, second=T + 60 * MS)
    assert path.http2 is None


def test_messages_beyond_those_that_are_kept_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "MAX_LISTED", 4)
    world, heads = World(), list[HttpHead]()
    for i in range(5):
        asked = head(world, T + i * MS, seq=2**32 - 2 + i)  # numbers begin anew
        answer = head(world, T + i * MS, reply=True, seq=9001 + i, status=429 if i == 4 else 200)
        heads += [asked, answer, asked, answer]
    path = answered(heads, world, second=T + 60 * MS)
    assert path.http is not None
    assert (path.http.requests, path.http.statuses) == (5, {"200": 4, "429": 1})
