"""The head of an HTTP/1.1 message: its first line, its content type, where it ends. What follows is never looked at."""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS")
BEGINS = (b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"PATC", b"OPTI", b"HTTP")  # of a segment that begins a message
MAX_PATH, MAX_TYPE = 200, 100
_VERSIONS = ("HTTP/1.1", "HTTP/1.0")


@dataclass(frozen=True, slots=True)
class Head:
    """`status` is 0 for a request, `method` empty for a response. `length` in bytes, the empty line included; 0 where the
    head does not end in the segment."""

    method: str = ""
    path: str = ""
    status: int = 0
    content_type: str = ""
    length: int = 0


def read_head(segment: bytes) -> Head | None:
    """The head at the start of a segment's data; None where no message of HTTP/1.1 begins there. Of a path the query is
    left out: it may hold what people typed, or a key."""
    head, separator, _ = segment.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    length = len(head) + 4 if separator else 0
    parts = first.split(" ", 2)
    if len(parts) < 2:
        return None
    kind = _content_type(lines)
    if parts[0] in _VERSIONS and parts[1].isascii() and parts[1].isdigit() and len(parts[1]) == 3:
        return Head(status=int(parts[1]), content_type=kind, length=length)
    if parts[0] in METHODS and len(parts) == 3 and parts[2] in _VERSIONS:
        return Head(parts[0], _without_query(parts[1]), 0, kind, length)
    return None


def _without_query(target: str) -> str:
    path = target.partition("?")[0].partition("#")[0]
    if "://" in path:  # as a proxy is asked; what may stand before the host is a credential
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path[:MAX_PATH]


def _content_type(lines: list[str]) -> str:
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-type":
            return value.partition(";")[0].strip()[:MAX_TYPE]
    return ""
