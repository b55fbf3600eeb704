"""What is wrong with a stream: it stalls, it is cut off, it starts late, it is held up on its way."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.model.diagnoses.connections import (
    IDLE_TIME,
    NO_REPLY,
    SLOW_FIRST_REPLY,
    SLOW_FIRST_TOKEN,
    STREAM_HELD_UP,
    STREAM_SILENT,
    STREAM_STALLED,
)
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.path import ConnectionOutcome, PacketPath, Party, Silence, Stream, WaitedFor
from kubectl_genainet.trace.fate import seconds
from kubectl_genainet.trace.streaming.http import head_and_body, http_findings

STALL_NS = 3_000_000_000  # a silence in a reply that is told of, where the pace before was another
STALL_FACTOR = 20  # times the median of the gaps
SLOW_NS = 1_000_000_000  # the first reply data is late in itself
CLIENTS_GAVE_UP_NS = 1_000_000_000
STILL_WAITS_NS = 5_000_000_000
# Seconds after which well-known parts of the way close what is idle, by their documentation.
IDLE_TIMES = {
    15: "Envoy closes idle upstream connections of some set-ups after 15 s",
    60: "nginx and AWS ALB close idle connections after 60 s",
    75: "nginx closes idle client connections after 75 s (keepalive_timeout)",
    240: "Azure's load balancer and SNAT forget idle connections after 240 s",
    350: "AWS NLB and NAT gateways forget idle connections after 350 s",
    600: "some load balancers (Google Cloud) forget idle connections after 600 s",
}
_NEAR = 0.02
_FAILED = (ConnectionOutcome.RESET, ConnectionOutcome.UNANSWERED, ConnectionOutcome.DROPPED)
_SAME_SILENCE = 1.05  # at the client a silence is a little longer than at the server


def name_of(party: Party | None) -> str:
    if party is None:
        return "the server"
    return party.pod or address_text(party.ip, party.port)


def known_idle_time(ns: int) -> str:
    """What is known to close connections after about so long; "" for nothing."""
    for known, text in IDLE_TIMES.items():
        if abs(ns / 1e9 - known) <= max(0.5, _NEAR * known):
            return text
    return ""


def stream_findings(path: PacketPath, slow_ns: int = SLOW_NS) -> Iterator[Finding]:
    """Everything that is wrong with the path's stream; nothing is said of what may still come."""
    stream = path.stream
    ref = (
        ObjectRef("Pod", path.backend.pod, path.backend.namespace or "") if path.backend and path.backend.pod else None
    )
    yield from http_findings(path, ref, name_of(path.backend))
    if stream is None:
        return
    if _late_token(stream, slow_ns):
        yield _first_token(path, stream, ref)
    yield from _stalled(path, stream, ref, slow_ns)
    yield from _late(path, stream, ref, slow_ns)
    yield from _idle(path, stream)


def _carried(stream: Stream) -> Evidence:
    pace = f", gaps {seconds(stream.gap_p50_ns)} (p50)" if stream.gap_p50_ns is not None else ""
    text = f"{stream.request_bytes} bytes asked, {stream.reply_bytes} bytes back in {seconds(stream.lasted_ns)}{pace}"
    return Evidence(text, Certainty.OBSERVED)


def _late_token(stream: Stream, slow_ns: int) -> bool:
    """Whether the reply began with a piece after which nothing came for long, and then went on faster."""
    pause = stream.next_reply_ns
    if not slow_ns or pause is None or pause < slow_ns or stream.gap_p50_ns is None:
        return False
    silence = stream.silence
    if silence is not None and silence.length_ns <= pause * _SAME_SILENCE and not _may_be_the_servers(silence):
        return False
    return pause >= STALL_FACTOR * stream.gap_p50_ns


def _may_be_the_servers(silence: Silence) -> bool:
    """Whether the server was waited for, or nothing was told of that (by an older agent)."""
    return silence.waited_for is WaitedFor.SERVER or not silence.why


def _first_token(path: PacketPath, stream: Stream, ref: ObjectRef | None) -> Finding:
    began, pause = seconds(stream.first_reply_ns or 0), seconds(stream.next_reply_ns or 0)
    title = f"{name_of(path.backend)} is slow to its first token: after the first piece of its reply nothing came for {pause}"
    read = head_and_body(path.http, stream)
    if read:
        title = (
            f"{name_of(path.backend)} is slow to its first token: nothing came for {pause} after its response header"
        )
    guess = "the first piece is most likely a response header alone (--http reads it)"
    header = Evidence(read, Certainty.OBSERVED) if read else Evidence(guess, Certainty.DERIVED)
    between = Evidence(f"first reply data after {began}, the next {pause} later", Certainty.OBSERVED)
    evidence = (between, header, _carried(stream))
    return SLOW_FIRST_TOKEN.finding(title, evidence, object=ref)


def _stalled(path: PacketPath, stream: Stream, ref: ObjectRef | None, slow_ns: int) -> Iterator[Finding]:
    silence = stream.silence
    if silence is None or silence.is_last or silence.length_ns < STALL_NS or stream.gap_p99_ns is None:
        return
    if _is_before_token(stream, silence, slow_ns) or silence.waited_for is WaitedFor.CLIENT:
        return
    if stream.gap_p50_ns is not None and silence.length_ns < STALL_FACTOR * stream.gap_p50_ns:
        return
    length = seconds(silence.length_ns)
    moment = f"{seconds(silence.at_ns)} after {'the trace saw it first' if stream.older else 'the start'}"
    evidence = tuple(Evidence(text, Certainty.OBSERVED) for text in (silence.why,) if text)
    if silence.waited_for is WaitedFor.NETWORK:
        lost = f"{path.retransmits} retransmits, {path.recovered_drops} drops of it seen"
        title = f"the reply was held up on its way for {length}, {moment}: the client got nothing new"
        yield STREAM_HELD_UP.finding(title, (*evidence, _carried(stream), Evidence(lost, Certainty.OBSERVED)))
    elif silence.waited_for is WaitedFor.SERVER:
        title = f"{name_of(path.backend)} stalled: {length} of silence in the middle of its reply, {moment}"
        yield STREAM_STALLED.finding(title, (*evidence, _carried(stream)), object=ref)
    else:
        title = f"{length} of silence in the middle of a reply, {moment}; who was waited for is not known"
        unknown = tuple(Evidence(text, Certainty.UNKNOWN) for text in (silence.why,) if text)
        yield STREAM_SILENT.finding(title, (*unknown, _carried(stream)), object=ref)


def _is_before_token(stream: Stream, silence: Silence, slow_ns: int) -> bool:
    """Whether the silence is the one before the first token."""
    return _late_token(stream, slow_ns) and silence.length_ns <= (stream.next_reply_ns or 0) * _SAME_SILENCE


def _late(path: PacketPath, stream: Stream, ref: ObjectRef | None, slow_ns: int) -> Iterator[Finding]:
    if stream.first_reply_ns is None:
        title = _no_reply(path, stream, slow_ns)
        if title:
            yield NO_REPLY.finding(title, (_carried(stream),), object=ref)
        return
    asked_ns = stream.request_took_ns or 0  # while the request still comes in, its client is waited for
    if slow_ns and stream.first_reply_ns - asked_ns >= slow_ns and not path.incomplete:
        title = f"{name_of(path.backend)} is slow: its replies begin after {slow_ns / 1e9:g} s and more"
        upload = f", {seconds(asked_ns)} of which its request came in" if asked_ns >= slow_ns else ""
        first = Evidence(f"first reply data after {seconds(stream.first_reply_ns)}{upload}", Certainty.OBSERVED)
        yield SLOW_FIRST_REPLY.finding(title, (first,), object=ref)


def _no_reply(path: PacketPath, stream: Stream, slow_ns: int) -> str:
    """That the server did not reply to what it was asked; "" where it did, or may still, or that was lost."""
    if path.incomplete or path.outcome is not ConnectionOutcome.ANSWERED or not stream.request_bytes:
        return ""
    if stream.ended_by == "client" and stream.lasted_ns >= CLIENTS_GAVE_UP_NS:
        after = seconds(stream.lasted_ns)
        return f"the client closed the connection after {after}, without a reply from {name_of(path.backend)}"
    if not stream.ended_by and slow_ns and stream.lasted_ns >= max(slow_ns, STILL_WAITS_NS) and not stream.older:
        since = seconds(stream.lasted_ns)
        return (
            f"{name_of(path.backend)} has sent nothing in the {since} since the connection began, which is still open"
        )
    return ""


def _idle(path: PacketPath, stream: Stream) -> Iterator[Finding]:
    """The connection died after a silence as long as a well-known idle time."""
    if path.outcome not in _FAILED or stream.idle_ns is None:
        return
    known = known_idle_time(stream.idle_ns)
    if known:
        title = f"the connection was lost after {seconds(stream.idle_ns)} without data: {known}"
        yield IDLE_TIME.finding(title, (_carried(stream),))
