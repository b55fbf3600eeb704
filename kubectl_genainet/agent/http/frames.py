"""HTTP/2 as far as it tells how many streams a client has opened: the preface of a connection and the frames' headers of nine
bytes (RFC 9113, 3.4 and 4.1). What stands between them is never looked at.

A client numbers its streams upwards with odd numbers. The number in a HEADERS frame therefore tells how many there are by
then, whatever was not seen before.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
MAX_FRAME_BYTES = 16384  # SETTINGS_MAX_FRAME_SIZE, unless a peer raises it
LEAST_HEADERS_BYTES = 2  # of a request's fields, all in the table of those sent before
SURE_FROM = 3  # so many HEADERS frames in turn make a connection without a preface HTTP/2
_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    range(10)
)
_FLAGS = {_DATA: 0x09, _HEADERS: 0x2D, _SETTINGS: 0x01, _PING: 0x01, _CONTINUATION: 0x04}  # that are defined
_LENGTHS = {_PRIORITY: 5, _RST_STREAM: 4, _PING: 8, _WINDOW_UPDATE: 4}  # of types that have but one
_OF_A_STREAM = {_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _CONTINUATION}
_OF_THE_CONNECTION = {_SETTINGS, _PING, _GOAWAY}
_NUMBERS = 2**32


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of a segment: where in it each HEADERS frame begins, with the number of its stream, and where the last frame
    ends, which may be in a later segment."""

    preface: bool
    headers: tuple[tuple[int, int], ...]
    end: int


def read_frames(data: bytes) -> Frames | None:
    """The frames at the start of a segment's data, as far as it was taken; None where no client's frame begins there."""
    preface = PREFACE.startswith(data[: len(PREFACE)]) and len(data) >= 4
    at = len(PREFACE) if preface else 0
    headers = list[tuple[int, int]]()
    while at + HEADER_BYTES <= len(data):
        length, kind, stream = _frame(data[at : at + HEADER_BYTES])
        if kind is None:
            return None
        if kind == _HEADERS:
            headers.append((at, stream))
        at += HEADER_BYTES + length
    return Frames(preface, tuple(headers), at) if at else None


def _frame(header: bytes) -> tuple[int, int | None, int]:
    """(length, type, stream) of a frame that a client may send; the type is None for what can be none."""
    length, kind, flags = int.from_bytes(header[:3], "big"), header[3], header[4]
    stream = int.from_bytes(header[5:9], "big")
    sound = (
        length <= MAX_FRAME_BYTES
        and kind <= _CONTINUATION
        and kind != _PUSH_PROMISE  # a server's
        and not flags & ~_FLAGS.get(kind, 0)
        and length == _LENGTHS.get(kind, length)
        and stream < 2**31
        and (kind != _HEADERS or length >= LEAST_HEADERS_BYTES)
        and (kind != _SETTINGS or length % 6 == 0)
    )
    if kind in _OF_THE_CONNECTION:
        sound = sound and stream == 0
    else:
        sound = sound and (stream % 2 == 1 or (kind == _WINDOW_UPDATE and stream == 0))
    return length, kind if sound else None, stream


class StreamCount:
    """What the frames of one connection's client have told so far: `first` and `last` are numbers of streams, `seen` how many
    were seen to be opened.

    A segment is read only where it begins after the last frame that was read: so one that passes several devices, or is sent
    again, is read once, and what lies within a frame is taken for none. Between two frames no more streams can have been
    opened than HEADERS frames have room between them: what tells of more is a body that looks like a frame.
    """

    def __init__(self, seq: int) -> None:
        self.began = seq
        self.preface = False
        self.first = self.last = self.seen = 0
        self._end = self._last_at = seq
        self._gapless = True  # all since the first segment was read

    @property
    def known(self) -> bool:
        """Whether the connection is HTTP/2: by its preface, or by frames that fit each other."""
        return self.preface or self.seen >= SURE_FROM

    def take(self, seq: int, frames: Frames) -> bool:
        """Takes in a segment's frames; returns whether they told anything new."""
        if (seq - self._end) % _NUMBERS >= _NUMBERS // 2:
            return False
        before = (self.preface, self.last, self.seen)
        self._gapless = self._gapless and seq == self._end
        self.preface = self.preface or frames.preface
        self._end = (seq + frames.end) % _NUMBERS
        for at, stream in frames.headers:
            self._opened((seq + at) % _NUMBERS, stream)
        return (self.preface, self.last, self.seen) != before

    def _opened(self, seq: int, stream: int) -> None:
        room = (seq - self._last_at) % _NUMBERS // (HEADER_BYTES + LEAST_HEADERS_BYTES) + 1
        if self.last < stream <= self.last + 2 * room and (self.last or self.preface):
            first = stream if self._gapless else 1  # some clients begin with 3, or later
            self.first, self.last, self.seen = self.first or first, stream, self.seen + 1
        elif not self.known:
            self.first, self.last, self.seen = stream, stream, 1
        else:
            return  # trailers of a stream, or no frame
        self._last_at = seq
