"""DNS messages from bytes, by dnspython's parser and with bounds around it. Nothing that a packet holds raises here.

Source: RFC 1035 4.1 (header, question), RFC 6891 6.1 (OPT, extended response codes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import dns.exception
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.wire

from kubectl_genainet.model.dns import Answer, DnsMessage, Edns, Question

HEADER = struct.Struct("!6H")
MAX_QUESTIONS = 32
MAX_RECORDS = 512
MAX_ANSWERS = 20
MAX_TEXT = 512  # characters of one record's data
MAX_QUESTION = 255 + 4  # bytes: the longest name (RFC 1035 2.3.4), type and class
_FIRST_NAME = b"\xc0\x0c"  # a pointer to the name right behind the header
_MALFORMED = (dns.exception.DNSException, ValueError, struct.error, IndexError, KeyError, OverflowError)


def message_id(data: bytes) -> int:
    return int.from_bytes(data[:2], "big")


@dataclass(slots=True)
class _Parts:
    """What has been read so far: kept where the rest can't be."""

    questions: list[Question] = field(default_factory=list)
    answers: dict[tuple[str, str], tuple[int, list[str]]] = field(default_factory=dict)
    edns: Edns | None = None
    rcode_high: int = 0


def decode_message(data: bytes, length: int | None = None, *, answers: bool = False) -> DnsMessage:
    """Decodes `data`, the beginning of a message of `length` bytes (default: all of it). Never raises.

    Without `answers` the records are walked for the OPT record, not decoded.
    """
    length = len(data) if length is None else length
    if len(data) < HEADER.size:
        return DnsMessage(
            qr=False, length=length, captured=len(data), counts=(0, 0, 0, 0), error="shorter than a DNS header"
        )
    _, flags, *counts = HEADER.unpack_from(data)
    parts, error = _Parts(), ""
    try:
        _read(dns.wire.Parser(data, HEADER.size), counts, parts, answers)
    except _MALFORMED as problem:
        # What ends before it should is no error where only a part was captured.
        if len(data) >= length or not isinstance(problem, dns.exception.FormError) or _points_forward(problem):
            error = f"{type(problem).__name__}: {problem}"[:200]
    return DnsMessage(
        qr=bool(flags & 0x8000),
        opcode=flags >> 11 & 15,
        aa=bool(flags & 0x400),
        tc=bool(flags & 0x200),
        rd=bool(flags & 0x100),
        ra=bool(flags & 0x80),
        rcode=_rcode(flags & 15 | parts.rcode_high),
        counts=(counts[0], counts[1], counts[2], counts[3]),
        questions=tuple(parts.questions),
        answers=_answers(parts) if answers else None,
        edns=parts.edns,
        length=length,
        captured=len(data),
        error=error,
    )


def _points_forward(problem: Exception) -> bool:
    return isinstance(problem, dns.name.BadPointer)


@lru_cache(maxsize=256)
def _type(number: int) -> str:
    return str(dns.rdatatype.to_text(number))


@lru_cache(maxsize=64)
def _class(number: int) -> str:
    return str(dns.rdataclass.to_text(number))


def _question(parser: dns.wire.Parser) -> Question:
    name = dns.name.from_wire_parser(parser)
    kind, klass = parser.get_struct("!HH")
    return Question(_text(name), _type(kind), _class(klass))


@lru_cache(maxsize=16384)
def _lone_question(wire: bytes) -> Question | None:
    """A question that is just these bytes; None for one that is not. What is read without the bytes around it has no
    pointer, so that it means the same in every message: a response repeats its query's."""
    parser = dns.wire.Parser(wire)
    try:
        question = _question(parser)
    except _MALFORMED:
        return None
    return None if parser.remaining() else question


def _first_question(parser: dns.wire.Parser) -> Question:
    start = parser.current
    end = parser.wire.find(b"\0", start) + 5  # the name's end, type and class
    known = _lone_question(parser.wire[start:end]) if 5 <= end - start <= MAX_QUESTION else None
    if known is None:
        return _question(parser)
    parser.get_bytes(end - start)
    return known


def _read(parser: dns.wire.Parser, counts: list[int], parts: _Parts, answers: bool) -> None:
    for number in range(counts[0]):
        if number >= MAX_QUESTIONS:
            raise ValueError(f"more than {MAX_QUESTIONS} questions")
        parts.questions.append(_question(parser) if number else _first_question(parser))
    for number in range(counts[1] + counts[2] + counts[3]):
        if number >= MAX_RECORDS:
            raise ValueError(f"more than {MAX_RECORDS} records")
        _read_record(parser, parts, answers and number < counts[1])


def _read_record(parser: dns.wire.Parser, parts: _Parts, wanted: bool) -> None:
    if not wanted and parser.wire[parser.current : parser.current + 2] == _FIRST_NAME and parts.questions:
        parser.get_bytes(2)  # the question's name, which has been read
        name = None
    else:
        name = dns.name.from_wire_parser(parser)
    kind, klass, ttl, size = parser.get_struct("!HHIH")
    if kind == dns.rdatatype.OPT:
        parts.rcode_high = ttl >> 24 << 4
        with parser.restrict_to(size):
            parts.edns = Edns(ttl >> 16 & 255, klass, bool(ttl & 0x8000), tuple(_options(parser)))
    elif not wanted:
        parser.get_bytes(size)
    else:
        with parser.restrict_to(size):
            data = dns.rdata.from_wire_parser(klass, kind, parser).to_text()[:MAX_TEXT]
        assert name is not None
        key = (_text(name), _type(kind))
        if key in parts.answers:
            ttl_before, records = parts.answers[key]
            parts.answers[key] = (min(ttl, ttl_before), records if data in records else [*records, data])
        elif len(parts.answers) < MAX_ANSWERS:
            parts.answers[key] = (ttl, [data])


def _options(parser: dns.wire.Parser) -> Iterator[int]:
    while parser.remaining():
        code, size = parser.get_struct("!HH")
        parser.get_bytes(size)
        yield code


def _answers(parts: _Parts) -> tuple[Answer, ...]:
    return tuple(Answer(name, kind, ttl, tuple(data)) for (name, kind), (ttl, data) in parts.answers.items())


def _text(name: dns.name.Name) -> str:
    return str(name.to_text())


@lru_cache(maxsize=64)
def _rcode(number: int) -> str:
    return str(dns.rcode.to_text(dns.rcode.Rcode.make(number)))
