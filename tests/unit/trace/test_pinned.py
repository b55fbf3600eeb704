"""Few long connections that carry most of the requests, told by bytes."""

from __future__ import annotations

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.path import ConnectionOutcome, Flow, PacketPath, Party, ServiceRef, Stream, Verdict
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
    assert "each lasted 5.0 s or more" in finding.evidence[1].statement
    spread = [path("a", "llm-0", 40_000), path("b", "llm-1", 35_000), path("c", "llm-2", 30_000)]
    assert pinned(spread, lambda _: 3) == []
    many = [path(f"c{i}", "llm-0", 10_000) for i in range(12)]
    assert pinned(many, lambda _: 3) == []
