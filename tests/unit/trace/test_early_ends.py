"""Backends whose streams end in order, but long before those of the others."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.trace.streaming.early import early_ends
from tests.unit.trace.test_pinned import path


def stream(backend: str, size: int, lasted_s: float, *, ended: str = "fin", by: str = "server") -> PacketPath:
    one = path("a", backend, 100, lasted_s)
    assert one.stream is not None and one.backend is not None
    carried = msgspec.structs.replace(one.stream, reply_bytes=size, gap_p50_ns=50_000_000, ended=ended, ended_by=by)
    number = int(backend.rpartition("-")[2])
    return msgspec.structs.replace(
        one, stream=carried, backend=msgspec.structs.replace(one.backend, ip=f"10.244.2.{number}")
    )


LONG = [stream(f"llm-{number}", 600 + i, 2.0) for number in (1, 2) for i in range(3)]


def test_backend_with_a_fraction_of_bytes_and_time_is_named() -> None:
    (finding,) = early_ends([*LONG, *(stream("llm-0", 96 + i, 0.25) for i in range(5))])
    assert finding.title == (
        "llm-0 ends its streams early: none of 5 has more than 100 bytes, and they last 250 ms (median); those of the other "
        "backends have 601 and last 2.0 s"
    )
    assert finding.object is not None and finding.object.name == "llm-0"


def test_one_that_was_held_up_does_not_hide_the_others() -> None:
    assert early_ends([*LONG, stream("llm-0", 100, 3.0), *(stream("llm-0", 100, 0.25) for _ in range(5))])


def test_a_few_short_streams_or_shorter_in_one_way_only_are_no_finding() -> None:
    assert early_ends([*LONG, *(stream("llm-0", 100, 0.25) for _ in range(4))]) == []
    assert early_ends([*LONG, *(stream("llm-0", 100, 1.5) for _ in range(5))]) == []
    assert early_ends([*LONG, *(stream("llm-0", 500, 0.25) for _ in range(5))]) == []


def test_one_stream_of_usual_length_shows_that_it_does_not_end_them_early() -> None:
    assert early_ends([*LONG, stream("llm-0", 600, 2.0), *(stream("llm-0", 100, 0.25) for _ in range(9))]) == []


def test_what_the_client_ended_or_is_still_open_tells_nothing() -> None:
    for ended, by in (("fin", "client"), ("open", ""), ("reset", "server")):
        assert early_ends([*LONG, *(stream("llm-0", 100, 0.25, ended=ended, by=by) for _ in range(5))]) == []


def test_short_answers_are_no_streams() -> None:
    short = [stream(f"llm-{number}", 600, 0.3) for number in (1, 2) for _ in range(3)]
    assert early_ends([*short, *(stream("llm-0", 100, 0.02) for _ in range(5))]) == []
