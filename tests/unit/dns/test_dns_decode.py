"""The decoder, the reassembly and the redaction take whatever a packet holds: nothing raises, nothing grows without bound.

A few seconds in CI; GENAINET_FUZZ_SECONDS=300 runs for about so long in all.
"""

from __future__ import annotations

import os
import re
import struct

import dns.message
import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_genainet.agent.dns.redact import Redactor, new_key
from kubectl_genainet.agent.dns.stream import MAX_WAITING, TcpDirection, TcpStreams
from kubectl_genainet.agent.dns.wire import MAX_ANSWERS, MAX_QUESTIONS, decode_message
from kubectl_genainet.agent.node.segments import parse_segment
from kubectl_genainet.model.dns import Answer, DnsMessage, Question

SECONDS = float(os.environ.get("GENAINET_FUZZ_SECONDS", "0"))
EXAMPLES_PER_SECOND = 150
FUZZ = settings(
    max_examples=int(SECONDS * EXAMPLES_PER_SECOND / 5) or 300,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

names = st.lists(st.binary(min_size=0, max_size=20), max_size=8).map(
    lambda labels: b"".join(bytes([len(x)]) + x for x in labels) + b"\0"
)
pointers = st.integers(0, 0x3FFF).map(lambda n: struct.pack("!H", 0xC000 | n))
records = st.tuples(
    st.one_of(names, pointers, st.binary(max_size=6)),
    st.sampled_from([1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 46, 64, 255]),
    st.sampled_from([1, 3, 255, 512, 4096]),
    st.integers(0, 2**32 - 1),
    st.one_of(st.binary(max_size=40), names, pointers),
    st.integers(-3, 3),
).map(lambda r: r[0] + struct.pack("!HHIH", r[1], r[2], r[3], max(0, len(r[4]) + r[5])) + r[4])
headers = st.tuples(*[st.integers(0, 65535)] * 2, *[st.integers(0, 40)] * 4).map(lambda h: struct.pack("!6H", *h))
messages = st.one_of(
    st.binary(max_size=600),
    st.tuples(headers, st.lists(st.one_of(names, pointers, records, st.binary(max_size=8)), max_size=12)).map(
        lambda m: m[0] + b"".join(m[1])
    ),
)


@FUZZ
@given(messages, st.integers(0, 70000), st.booleans())
def test_decoder_never_raises_and_keeps_its_bounds(data: bytes, more: int, answers: bool) -> None:
    message = decode_message(data, len(data) + more, answers=answers)
    assert isinstance(message, DnsMessage)
    assert len(message.questions) <= MAX_QUESTIONS
    assert len(message.answers or ()) <= MAX_ANSWERS
    assert message.captured == len(data)
    redacted = Redactor("00" * 16).message(message)
    assert len(redacted.questions) == len(message.questions)


@FUZZ
@given(messages)
def test_what_dnspython_reads_whole_the_decoder_reads_too(data: bytes) -> None:
    try:
        theirs = dns.message.from_wire(data, ignore_trailing=True)
    except Exception:
        return
    mine = decode_message(data)
    assert mine.error == ""
    assert [q.name for q in mine.questions] == [rrset.name.to_text() for rrset in theirs.question][
        : len(mine.questions)
    ]


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=200), st.integers(0, 100)), max_size=30))
def test_reassembly_never_raises_and_holds_a_bounded_amount(segments: list[tuple[int, bytes, int]]) -> None:
    streams = TcpStreams()
    for seq, payload, more in segments:
        list(streams.feed("key", seq, payload, len(payload) + more))
    stream = streams.end("key")
    assert stream is None or stream.waiting <= MAX_WAITING


@FUZZ
@given(st.lists(st.binary(min_size=12, max_size=300), min_size=1, max_size=5), st.data())
def test_messages_come_out_whole_whatever_the_segments(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(struct.pack("!H", len(p)) + p for p in parts)
    first = data.draw(st.integers(0, 2**32 - 1))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(stream) - 1)), max_size=6)))
    pieces = [(a, stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    order = data.draw(st.permutations(pieces))
    half = TcpDirection(first)
    out = [m for at, piece in [*order, *order[:2]] for m in half.feed((first + at) & 0xFFFFFFFF, piece, len(piece))]
    assert out == parts
    assert not half.incomplete


@FUZZ
@given(st.binary(max_size=120), st.integers(0, 200))
def test_segments_of_any_bytes_are_parsed_or_left(packet: bytes, more: int) -> None:
    parse_segment(packet, len(packet) + more)


def test_a_message_has_so_many_questions_and_answers_and_so_much_text() -> None:
    """What nobody asks for at once, and what somebody may send all the same."""
    question = b"\1a\0" + struct.pack("!HH", 1, 1)
    many = struct.pack("!6H", 7, 0x8180, 9_000, 0, 0, 0) + question * 9_000
    assert len(decode_message(many, answers=True).questions) == 32
    text = bytes([200]) + b"x" * 200
    record = b"\xc0\x0c" + struct.pack("!HHIH", 16, 1, 60, len(text) * 20) + text * 20
    answers = struct.pack("!6H", 7, 0x8180, 1, 60, 0, 0) + question + record * 60
    message = decode_message(answers, answers=True)
    assert message.answers is not None and len(message.answers) <= MAX_ANSWERS
    assert all(len(value) <= 520 for answer in message.answers for value in answer.data)


def test_pointer_loop_is_an_error_and_the_rest_is_kept() -> None:
    data = struct.pack("!6H", 7, 0x8180, 2, 0, 0, 0) + b"\3foo\0\0\1\0\1" + b"\xc0\x15\0\1\0\1"
    message = decode_message(data)
    assert message.error.startswith("BadPointer")
    assert [q.name for q in message.questions] == ["foo."]


def test_a_message_of_which_only_a_part_was_captured_is_no_error() -> None:
    query = dns.message.make_query("models.example.com", "AAAA", use_edns=0)
    whole = query.to_wire()
    message = decode_message(whole[:40], len(whole))
    assert message.error == ""
    assert message.cut
    assert message.question is not None
    assert (message.question.name, message.question.type) == ("models.example.com.", "AAAA")


def test_redaction_keeps_the_public_suffix_and_the_search_domain_apart() -> None:
    redactor = Redactor(new_key(), ["default.svc.cluster.local"])
    plain, searched = (
        redactor.name("models.example.co.uk."),
        redactor.name("models.example.co.uk.default.svc.cluster.local."),
    )
    assert plain.endswith(".co.uk.")
    assert "example" not in plain
    assert searched.startswith(plain.rstrip(".") + ".")
    assert searched.endswith(redactor.name("default.svc.cluster.local") + ".")
    assert "default" not in searched
    assert redactor.name("www.example.co.uk.").endswith(plain.partition(".")[2])
    assert Redactor(new_key()).name("models.example.co.uk.") != plain


def test_redaction_leaves_no_name_in_an_answer() -> None:
    redactor = Redactor(new_key())
    answers = (
        Answer("models.corp.", "CNAME", 5, ("secret.corp.",)),
        Answer("secret.corp.", "A", 5, ("10.0.0.1",)),
        Answer("secret.corp.", "TXT", 5, ("secret words",)),
        Answer("secret.corp.", "SRV", 5, ("0 0 80 secret.corp.",)),
    )
    question = Question("models.corp.", "A")
    message = DnsMessage(qr=True, length=90, captured=90, questions=(question,), answers=answers)
    hidden = redactor.message(message)
    text = msgspec.json.encode(hidden).decode()
    assert not re.search("secret|corp|models|words", text) and "10.0.0.1" in text
    assert hidden.answers is not None and hidden.answers[0].data == (hidden.answers[1].name,), (
        "names that are one still are"
    )


def test_redaction_leaves_no_private_label() -> None:
    redactor = Redactor(new_key(), ["default.svc.cluster.local"])
    for name in ("app.", "my-llama-svc.default.svc.cluster.local.", "db.corp.", "dev.default.svc.cluster.local."):
        hidden = redactor.name(name)
        assert hidden.endswith(".")
        assert not set(name.strip(".").split(".")) & set(hidden.strip(".").split("."))
        assert len(hidden.split(".")) == len(name.split("."))
    assert redactor.name("app.") == redactor.name("app.default.svc.cluster.local.").partition(".")[0] + "."
    assert redactor.name("10.0.96.10.in-addr.arpa.").endswith(".in-addr.arpa.")
