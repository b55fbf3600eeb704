"""What a backend's connections carried together."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.results.path import PacketPath, Silence, WaitedFor
from kubectl_genainet.trace.streaming.together import streams_of
from tests.unit.trace.test_pinned import http2, path


def ended(one: PacketPath, by: str, silence_ns: int, gap_ns: int | None) -> PacketPath:
    assert one.stream is not None
    silence = Silence(length_ns=silence_ns, at_ns=0, waited_for=WaitedFor.SERVER)
    stream = msgspec.structs.replace(
        one.stream, ended="fin" if by else "open", ended_by=by, silence=silence, gap_p50_ns=gap_ns
    )
    return msgspec.structs.replace(one, stream=stream)


def test_bytes_are_added_and_the_longest_silence_is_kept() -> None:
    paths = [
        ended(path("a", "llm-0", 100, lasted_s=2), "server", 5, 10),
        ended(path("b", "llm-0", 200, lasted_s=4), "client", 9, 30),
        ended(path("c", "llm-0", 300, lasted_s=6), "", 7, None),
        msgspec.structs.replace(path("d", "llm-0", 0), stream=None),
    ]
    together = streams_of(paths)
    assert together is not None
    assert (together.connections, together.request_bytes, together.reply_bytes) == (3, 600, 30)
    assert together.silence is not None and together.silence.length_ns == 9
    assert (together.gap.count, together.gap.p50, together.gap.max) == (2, 10, 30)
    assert together.lasted.max == 6_000_000_000
    assert together.ended == {"fin by server": 1, "fin by client": 1, "open": 1}


def test_requests_are_known_where_they_were_read_of_all() -> None:
    paths = [http2(path("a", "llm-0", 100), 40), http2(path("b", "llm-0", 100), 2)]
    together = streams_of(paths)
    assert together is not None and together.requests == 42
    together = streams_of([*paths, path("c", "llm-0", 100)])
    assert together is not None and together.requests is None


def test_connections_without_data_carried_nothing() -> None:
    assert streams_of([msgspec.structs.replace(path("a", "llm-0", 0), stream=None)]) is None
