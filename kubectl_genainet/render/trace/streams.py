"""A line a stream: while it goes on, and once it is over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.text import Text

from kubectl_genainet.model.finding import counted
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.path import Flow, OpenStream, PacketPath, Party, Stream
from kubectl_genainet.render.text import duration, printable
from kubectl_genainet.render.trace.parts import ending_text, line, silence_text
from kubectl_genainet.trace.paths import LASTS_NS
from kubectl_genainet.trace.shown.groups import service_name

LIVE_SHOWN = 6
FINAL_SHOWN = 10
QUIET_NS = 2_500_000_000  # counters come once a second: a shorter silence may be none


def open_line(stream: OpenStream) -> Text:
    quiet = stream.quiet_ns or 0
    state = Text(f"quiet for {duration(quiet)}", style="bold yellow") if quiet >= QUIET_NS else Text("goes on")
    return _line(stream.flow, stream.backend, stream.stream, state)


def final_line(path: PacketPath, stream: Stream) -> Text:
    parts = []
    if path.http2 is not None:
        parts.append(counted(path.http2.streams, "HTTP/2 stream"))
    elif path.http is not None and path.http.requests:
        parts.append(counted(path.http.requests, "request"))
    if stream.silence is not None:
        parts.append(silence_text(stream.silence))
    parts.append(ending_text(stream))
    return _line(path.flow, path.backend, stream, Text(", ".join(parts)))


def _line(flow: Flow, backend: Party | None, stream: Stream, state: Text) -> Text:
    ends = [flow.client.pod or address_text(flow.client.ip, flow.client.port), service_name(flow.service)]
    ends.append((backend.pod or address_text(backend.ip, backend.port)) if backend else "no backend")
    carried = [f"{duration(stream.lasted_ns)}", f"{stream.request_bytes} bytes asked, {stream.reply_bytes} back"]
    if stream.first_reply_ns is not None:
        carried.append(f"the first after {duration(stream.first_reply_ns)}")
    if stream.gap_p50_ns is not None:
        carried.append(f"gaps {duration(stream.gap_p50_ns)} p50")
    who = Text(printable(" → ".join(end for end in ends if end)), style="bold")
    return line("~ ", who, f"  {', '.join(carried)}, ", state)


class LongStreams:
    """The longest of the streams that are over, or were open at the end."""

    def __init__(self) -> None:
        self._longest: list[tuple[PacketPath, Stream]] = []
        self._count = 0

    def add(self, path: PacketPath) -> None:
        if path.stream is None or path.stream.lasted_ns < LASTS_NS:
            return
        self._count += 1
        self._longest.append((path, path.stream))
        self._longest.sort(key=lambda pair: -pair[1].lasted_ns)
        del self._longest[FINAL_SHOWN:]

    def lines(self) -> Iterator[Text]:
        for path, stream in self._longest:
            yield final_line(path, stream)
        if self._count > len(self._longest):
            yield Text(f"… and {self._count - len(self._longest)} shorter streams", style="dim")


def open_lines(streams: Iterable[OpenStream]) -> list[Text]:
    return [open_line(stream) for stream in streams]
