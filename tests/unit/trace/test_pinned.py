"""Few long connections that carry most of the requests, told by requests where these were read, else by bytes."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.path import (
    ConnectionOutcome,
    Flow,
    Http,
    Http2,
    PacketPath,
    Party,
    ServiceRef,
    Stream,
    Verdict,
)
from kubectl_genainet.render.trace.streams import final_line
from kubectl_genainet.trace.streaming.pinned import pinned

SERVICE = ServiceRef("default", "llm", 80, "http", "10.96.0.10")


def path(client: str, backend: str, asked: int, lasted_s: float = 5.0) -> PacketPath:
    stream = Stream(
        request_bytes=asked,
        reply_bytes=10,
        first_reply_ns=1,
        next_reply_ns=None,
        silence=None,
        gap_p50_ns=None,
        gap_p99_ns=None,
        ended="open",
        ended_by="",
        lasted_ns=int(lasted_s * 1e9),
    )
    return PacketPath(
        flow=Flow(Party("10.244.1.2", 40000, "default", client), SERVICE, Protocol.TCP),
        backend=Party("10.244.2.3", 8080, "default", backend),
        nat=None,
        hops=(),
        verdict=Verdict.FORWARDED,
        outcome=ConnectionOutcome.ANSWERED,
        stream=stream,
    )


def test_one_connection_with_most_of_the_bytes_is_pinned() -> None:
    (finding,) = pinned([path("a", "llm-0", 60_000), path("b", "llm-1", 600)], lambda _: 3)
    assert finding.title == (
        "one connection carries 99% of what svc/llm is asked: a is bound to llm-0, and 3 backends are ready"
    )
    assert "bytes asked by backend: llm-0 60000, llm-1 600" in finding.evidence[0].statement
    assert "not known (TLS, or without --http)" in finding.evidence[1].statement
    assert finding.evidence[1].certainty is Certainty.UNKNOWN


def test_balanced_short_small_or_single_backends_are_not() -> None:
    assert pinned([path("a", "llm-0", 60_000), path("b", "llm-1", 50_000)], lambda _: 3) == []
    assert pinned([path("a", "llm-0", 60_000, 0.1), path("b", "llm-1", 600)], lambda _: 3) == []
    assert pinned([path("a", "llm-0", 600), path("b", "llm-1", 6)], lambda _: 3) == []
    assert pinned([path("a", "llm-0", 60_000), path("b", "llm-0", 600)], lambda _: 1) == []


def test_few_long_connections_to_few_backends_are_pinned_together() -> None:
    both = [path("a", "llm-0", 40_000), path("b", "llm-0", 35_000)]
    (finding,) = pinned([*both, path("c", "llm-1", 900), path("d", "llm-2", 900)], lambda _: 3)
    assert finding.title == (
        "2 connections carry 98% of what svc/llm is asked: a, b are bound to llm-0, and 3 backends are ready"
    )
    assert "each lasted 5.0 s or more" in finding.evidence[2].statement
    spread = [path("a", "llm-0", 40_000), path("b", "llm-1", 35_000), path("c", "llm-2", 30_000)]
    assert pinned(spread, lambda _: 3) == []
    many = [path(f"c{i}", "llm-0", 10_000) for i in range(12)]
    assert pinned(many, lambda _: 3) == []


def http2(path: PacketPath, streams: int, certainty: Certainty = Certainty.OBSERVED) -> PacketPath:
    return msgspec.structs.replace(path, http2=Http2(streams=streams, last=2 * streams - 1, certainty=certainty))


def http(path: PacketPath, requests: int) -> PacketPath:
    heads = Http(
        requests=requests,
        method="POST",
        path="/",
        statuses={},
        content_type="",
        slowest_answer_ns=None,
        first_body_ns=None,
    )
    return msgspec.structs.replace(path, http=heads)


def test_streams_tell_what_bytes_hide() -> None:
    """Many small requests on one connection, a large one on another."""
    paths = [http2(path("a", "llm-0", 30_000), 900), http2(path("b", "llm-1", 70_000), 2)]
    assert pinned([msgspec.structs.replace(p, http2=None) for p in paths], lambda _: 3) == []
    (finding,) = pinned(paths, lambda _: 3)
    assert finding.title == (
        "one connection carries 100% of the requests to svc/llm: a is bound to llm-0, and 3 backends are ready"
    )
    assert finding.evidence[1].statement == "HTTP/2 streams by backend: llm-0 900, llm-1 2"
    assert finding.evidence[1].certainty is Certainty.OBSERVED


def test_large_requests_are_no_pinning_where_streams_are_spread() -> None:
    paths = [http2(path("a", "llm-0", 90_000), 50), http2(path("b", "llm-1", 600), 60)]
    assert pinned(paths, lambda _: 3) == []


def test_streams_by_their_numbers_are_derived_and_requests_count_beside_them() -> None:
    paths = [http2(path("a", "llm-0", 30_000), 900, Certainty.DERIVED), http(path("b", "llm-1", 600), 3)]
    (finding,) = pinned(paths, lambda _: 3)
    assert finding.evidence[1].statement == "requests (of HTTP/2: streams) by backend: llm-0 900, llm-1 3"
    assert finding.evidence[1].certainty is Certainty.DERIVED


def test_bytes_tell_where_the_requests_of_one_connection_are_not_known() -> None:
    (finding,) = pinned([http2(path("a", "llm-0", 60_000), 9), path("b", "llm-1", 600)], lambda _: 3)
    assert "99% of what svc/llm is asked" in finding.title
    assert finding.evidence[1].certainty is Certainty.UNKNOWN


def test_final_line_of_a_connection_has_its_streams_or_requests() -> None:
    one = path("a", "llm-0", 30_000)
    assert one.stream is not None
    assert "40 HTTP/2 streams, still open" in final_line(http2(one, 40), one.stream).plain
    assert "7 requests, still open" in final_line(http(one, 7), one.stream).plain
    assert "request" not in final_line(one, one.stream).plain
