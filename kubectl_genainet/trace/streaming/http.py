"""What was read of a connection in clear HTTP (`trace --http`): by the heads of HTTP/1.1 messages what was asked, how it was
answered, and when the first of the body came; by frames of HTTP/2 how many streams it had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator

from kubectl_genainet.model.diagnoses.diagnosis import Diagnosis, Topic
from kubectl_genainet.model.events import Http2Streams, HttpHead
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, Severity
from kubectl_genainet.model.results.path import Http, Http2, PacketPath, Stream
from kubectl_genainet.trace.fate import seconds
from kubectl_genainet.trace.joining.connection import Connection

HTTP_ERROR = Diagnosis(
    Topic.CONNECTIONS,
    "http-error",
    Severity.WARNING,
    "a server answered requests with 429, or with 500 and above",
    "The network delivered: the server is overloaded, not ready, or asks another that fails.",
    "Look at the server's log for these requests; for 502, 503 and 504 at what it asks itself.",
    "RFC 9110",
)
_TOO_MANY = 429
_SERVER_ERROR = 500
Wall = Callable[[str, int], int]


def http_of(connection: Connection, stream: Stream | None, wall: Wall) -> Http | None:
    """None where no head was seen. Each message is taken where it was seen first."""
    messages: dict[tuple[int, bool], HttpHead] = {}
    for head in sorted(connection.heads.values(), key=lambda h: wall(h.node, h.t_ns)):
        messages.setdefault((head.seq, bool(head.status)), head)
    requests = [head for head in messages.values() if head.method]
    answers = [head for head in messages.values() if head.status]
    if not messages:
        return None
    asked, statuses = (_counted(connection, response=response) for response in (False, True))
    waits = [
        w for asked, answered in zip(requests, answers, strict=False) if (w := _between(asked, answered, wall)) > 0
    ]
    first = answers[0] if answers else None
    return Http(
        requests=asked.total(),
        method=requests[0].method if requests else "",
        path=requests[0].path if requests else "",
        statuses={str(status): count for status, count in statuses.items()},
        content_type=first.content_type if first is not None else "",
        slowest_answer_ns=max(waits, default=None),
        first_body_ns=_first_body(first, stream) if statuses.total() == 1 else None,
    )


def _counted(connection: Connection, *, response: bool) -> Counter[int]:
    """The messages one way by status, as the node counted them that saw most."""
    ways = [messages.counts for (_, way), messages in connection.messages.items() if way is response]
    return max(ways, key=Counter.total, default=Counter())


def http2_of(counts: Collection[Http2Streams]) -> Http2 | None:
    """None where no frame told that it is HTTP/2. Of the nodes on its way, the one that saw most tells."""
    if not counts:
        return None
    count = max(counts, key=lambda count: (count.last, count.last - count.first, count.seen))
    streams = (count.last - count.first) // 2 + 1 if count.last else 0
    whole = count.preface and count.seen == streams
    return Http2(streams=streams, last=count.last, certainty=Certainty.OBSERVED if whole else Certainty.DERIVED)


def requests_of(path: PacketPath) -> int | None:
    """How many requests, of HTTP/2 streams, the connection carried; None where that was not read."""
    if path.http2 is not None:
        return path.http2.streams
    return path.http.requests if path.http is not None else None


def _between(asked: HttpHead, answered: HttpHead, wall: Wall) -> int:
    return wall(answered.node, answered.t_ns) - wall(asked.node, asked.t_ns)


def _first_body(answer: HttpHead | None, stream: Stream | None) -> int | None:
    """From the request in to the first of the body out, at the server: with the head, or with the next data after it."""
    if answer is None or stream is None or stream.first_reply_ns is None or not answer.head_bytes:
        return None
    if answer.payload > answer.head_bytes:
        return stream.first_reply_ns
    return stream.first_reply_ns + stream.next_reply_ns if stream.next_reply_ns is not None else None


def http_findings(path: PacketPath, ref: ObjectRef | None, name: str) -> Iterator[Finding]:
    """Answers that say that the server failed."""
    http = path.http
    if http is None:
        return
    failed = {code: n for code, n in http.statuses.items() if int(code) == _TOO_MANY or int(code) >= _SERVER_ERROR}
    if failed:
        codes = ", ".join(f"{n} × {code}" for code, n in sorted(failed.items()))
        title = f"{name} answered with an error: {', '.join(sorted(failed))}"
        asked = f"{http.method} {http.path}: {codes} of {http.requests} requests"
        yield HTTP_ERROR.finding(title, (Evidence(asked, Certainty.OBSERVED),), object=ref)


def head_and_body(http: Http | None, stream: Stream) -> str:
    """When the head and when the first of the body left; "" where that was not read."""
    if http is None or http.first_body_ns is None or stream.first_reply_ns is None:
        return ""
    began = seconds(stream.first_reply_ns)
    return f"response header after {began}, the first of the body after {seconds(http.first_body_ns)}"
