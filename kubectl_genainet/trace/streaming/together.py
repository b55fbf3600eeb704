"""What a backend's connections carried together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kubectl_genainet.model.results.measure import quantiles
from kubectl_genainet.model.results.path import PacketPath, Stream
from kubectl_genainet.model.results.trace import BackendStreams
from kubectl_genainet.trace.streaming.http import requests_of


def streams_of(paths: Sequence[PacketPath]) -> BackendStreams | None:
    """None where no connection carried data."""
    carrying = [(path, path.stream) for path in paths if path.stream is not None]
    streams = [stream for _, stream in carrying]
    if not streams:
        return None
    requests = [requests_of(path) for path, stream in carrying if stream.request_bytes]
    known = [count for count in requests if count is not None]
    return BackendStreams(
        connections=len(streams),
        request_bytes=sum(stream.request_bytes for stream in streams),
        reply_bytes=sum(stream.reply_bytes for stream in streams),
        requests=sum(known) if len(known) == len(requests) else None,
        gap=quantiles([stream.gap_p50_ns for stream in streams if stream.gap_p50_ns is not None]),
        silence=max((s.silence for s in streams if s.silence is not None), key=lambda s: s.length_ns, default=None),
        lasted=quantiles([stream.lasted_ns for stream in streams]),
        ended=dict(Counter(_end(stream) for stream in streams)),
    )


def _end(stream: Stream) -> str:
    return f"{stream.ended} by {stream.ended_by}" if stream.ended_by else stream.ended
