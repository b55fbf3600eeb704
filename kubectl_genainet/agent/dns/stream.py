"""DNS messages out of TCP segments, each with two bytes of length before it (RFC 1035 4.2.2, RFC 7766)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_STREAMS = 4096
MAX_WAITING = 128 << 10  # bytes out of order, or of an unfinished message, that one stream may hold
MAX_SEGMENTS = 64  # out of order, of one stream
_HALF = 1 << 31


def _after(a: int, b: int) -> int:
    """By how much sequence number `a` is behind `b`; negative where it comes before (RFC 1982)."""
    return ((a - b + _HALF) & 0xFFFFFFFF) - _HALF


@dataclass(slots=True)
class TcpDirection:
    """One direction of one connection. `broken`: a part of it was not seen, and the rest can't be cut into messages."""

    following: int  # sequence number that comes next
    data: bytearray = field(default_factory=bytearray)
    ahead: dict[int, bytes] = field(default_factory=dict)
    broken: bool = False

    @property
    def waiting(self) -> int:
        return len(self.data) + sum(map(len, self.ahead.values()))

    def feed(self, seq: int, payload: bytes, length: int) -> Iterator[bytes]:
        """Takes in a segment of `length` bytes of which `payload` was captured; yields the messages that are complete."""
        if self.broken:
            return
        if len(payload) < length and _after(seq + length, self.following) > 0:
            self.give_up()
            return
        if payload:
            known = self.ahead.get(seq, b"")
            if len(payload) > len(known):
                self.ahead[seq] = payload
        self._join()
        yield from self._messages()
        if self.waiting > MAX_WAITING or len(self.ahead) > MAX_SEGMENTS:
            self.give_up()

    def _join(self) -> None:
        moved = True
        while moved:
            moved = False
            for seq in list(self.ahead):
                behind = _after(self.following, seq)
                if behind < 0:
                    continue
                part = self.ahead.pop(seq)[behind:]
                self.data += part
                self.following = (self.following + len(part)) & 0xFFFFFFFF
                moved = True

    def _messages(self) -> Iterator[bytes]:
        while len(self.data) >= 2:
            size = int.from_bytes(self.data[:2], "big")
            if len(self.data) < 2 + size:
                return
            message = bytes(self.data[2 : 2 + size])
            del self.data[: 2 + size]
            yield message

    def give_up(self) -> None:
        self.broken = True
        self.data.clear()
        self.ahead.clear()

    @property
    def incomplete(self) -> bool:
        """Whether bytes are left that make no whole message, or some are missing."""
        return self.broken or bool(self.data or self.ahead)


class TcpStreams:
    """Streams by any key; the longest unused goes when there are too many. `lost` counts those given up."""

    def __init__(self) -> None:
        self._streams: dict[object, TcpDirection] = {}
        self.lost = 0

    def syn(self, key: object, seq: int) -> None:
        """A connection begins: its first byte has the number after the SYN's."""
        self._streams.pop(key, None)
        self._put(key, TcpDirection((seq + 1) & 0xFFFFFFFF))

    def _put(self, key: object, stream: TcpDirection) -> None:
        if len(self._streams) >= MAX_STREAMS:
            del self._streams[next(iter(self._streams))]
        self._streams[key] = stream

    def feed(self, key: object, seq: int, payload: bytes, length: int) -> Iterator[bytes]:
        """The messages that the segment completes. A stream whose beginning was not seen is taken to begin here."""
        stream = self._streams.pop(key, None)
        self._put(key, stream := stream or TcpDirection(seq))
        broken = stream.broken
        yield from stream.feed(seq, payload, length)
        self.lost += stream.broken and not broken

    def end(self, key: object) -> TcpDirection | None:
        """The connection is over; returns what is known of it."""
        return self._streams.pop(key, None)
