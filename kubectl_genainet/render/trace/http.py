"""What was read of HTTP, in a line."""

from __future__ import annotations

from kubectl_genainet.model.finding import Certainty, counted
from kubectl_genainet.model.results.path import Http, Http2
from kubectl_genainet.render.text import duration, printable


def http_text(http: Http) -> str:
    """ "POST /v1/chat/completions: 200 text/event-stream, the first of the body after 3.00 s"."""
    parts = [
        ", ".join(code if n == 1 else f"{n} × {code}" for code, n in sorted(http.statuses.items())) or "no response"
    ]
    parts[0] += f" {printable(http.content_type)}" if http.content_type else ""
    if http.first_body_ns is not None:
        parts.append(f"the first of the body after {duration(http.first_body_ns)}")
    if http.requests > 1:
        parts.append(
            f"{counted(http.requests, 'request')}, the slowest answered after {duration(http.slowest_answer_ns or 0)}"
        )
    asked = f"{http.method} {http.path}" if http.method else "request not seen"
    return f"{printable(asked)}: {', '.join(parts)}"


def http2_text(http2: Http2) -> str:
    """ "HTTP/2: 40 streams"."""
    derived = " by their numbers" if http2.certainty is Certainty.DERIVED else ""
    return f"HTTP/2: {counted(http2.streams, 'stream')}{derived}"
