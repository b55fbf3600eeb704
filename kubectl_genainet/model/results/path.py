"""What is made of the events: the path of a connection's first packet, its NAT, its end; JSON as docs/output.md says.

None is "unknown" everywhere; nothing is guessed.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from kubectl_genainet.model.finding import Certainty, Evidence, Finding, Remedy
from kubectl_genainet.model.packet import Protocol


class Verdict(Enum):
    """What the network did with the connection's packets."""

    FORWARDED = "forwarded"  # there and back; of datagrams: seen arriving in the destination's network namespace
    DROPPED = "dropped"  # the kernel freed them and told nobody, and the connection did not get over it
    REJECTED = "rejected"  # freed, and the sender was told (TCP RST or ICMP error)
    UNANSWERED = "unanswered"  # nothing came back, and no drop was seen
    RESET = "reset"  # a TCP reset ended it before its end
    UNKNOWN = "unknown"


class ConnectionOutcome(Enum):
    """What became of the connection itself."""

    ANSWERED = "answered"  # it came about, and ended in order or is still open
    UNANSWERED = "unanswered"
    REFUSED = "refused"
    RESET = "reset"
    DROPPED = "dropped"
    UNKNOWN = "unknown"


class Party(msgspec.Struct, frozen=True):
    """One end of a flow; everything that isn't known is None."""

    ip: str
    port: int | None = None
    namespace: str | None = None
    pod: str | None = None
    node: str | None = None
    workload: str | None = None


class ServiceRef(msgspec.Struct, frozen=True):
    namespace: str
    name: str
    port: int
    port_name: str
    ip: str


class Flow(msgspec.Struct, frozen=True):
    client: Party
    service: ServiceRef | None
    protocol: Protocol


BY_ENTRY = "conntrack"  # a `mode` of Nat


class Nat(msgspec.Struct, frozen=True):
    """The destination NAT from the Service to the backend. `hop` is the index of the hop after which it shows."""

    mode: str  # "iptables", "nftables", "ipvs", "unknown"; "conntrack": an entry of the connection table, and no rule
    service_chain: str | None
    endpoint_chain: str | None
    certainty: Certainty
    hop: int | None = None
    before: str = ""
    after: str = ""
    masqueraded: bool = False


class Hop(msgspec.Struct, frozen=True):
    """One sighting of the packet.

    `t_ns` is on the first hop's clock; `t_error_ns` its uncertainty (0: the same clock; None: clocks not aligned, and
    `t_ns` is the node's own).
    """

    node: str
    pod: str | None
    device: str
    point: str
    t_ns: int
    src: str
    dst: str
    t_error_ns: int | None = 0
    tunnel: str | None = None


class Drop(msgspec.Struct, frozen=True):
    """Where and why the kernel freed the packet. `policies` are "namespace/name" of those that isolate the pod.

    `check` is a kebab-case name of the explanation; `told` is how a rule that rejects answers the sender
    ("icmp-port-unreachable", "tcp-reset").
    """

    reason: str
    location: str
    hook: str | None
    device: str | None
    rule: str | None
    policies: tuple[str, ...]
    certainty: (
        Certainty  # of `policies` and `explanation`, and of `rule` without `rule_certainty`; the rest is observed
    )
    node: str | None = None
    pod: str | None = None
    explanation: str = ""
    evidence: tuple[Evidence, ...] = ()
    check: str = ""
    told: str | None = None
    remedy: Remedy | None = None  # the change of policies that was tried and would admit the flow
    rule_certainty: Certainty | None = None  # OBSERVED where the kernel itself named the rule (`--exact`)


class WaitedFor(Enum):
    """Whose turn it was."""

    SERVER = "server"
    CLIENT = "client"
    NETWORK = "network"
    UNKNOWN = "unknown"


class Silence(msgspec.Struct, frozen=True):
    """The longest time without anything new of a reply. `at_ns` counts from the connection's first packet (or from the first
    data that was seen of one older than the trace); `why` is what shows who was waited for, or why it is not known. `is_last`:
    no data ended it until the end."""

    length_ns: int
    at_ns: int
    waited_for: WaitedFor
    why: str = ""
    is_last: bool = False


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """What a TCP connection carried, from sizes and times alone: bytes once each, however often they were sent.

    `first_reply_ns` is from the first request data in to the first reply data out, at the server, `request_took_ns` how much of
    that the request still came in, `next_reply_ns` from there to the next reply data, where nothing was asked in between. Gaps
    are between new data of the reply there; a quantile is the mean of those within a quarter of a power of two. `ended` is
    "fin", "reset", "idle" (open, and nothing new for 10 s after the last of the reply) or "open", `ended_by` "client", "server",
    "network" (a reset that neither end sent) or "", and `lasted_ns` from the first packet to the end. `idle_ns` is how long
    neither side had sent anything new before the last who did, or before the reset where that came later.
    """

    request_bytes: int
    reply_bytes: int
    first_reply_ns: int | None
    next_reply_ns: int | None
    silence: Silence | None
    gap_p50_ns: int | None
    gap_p99_ns: int | None
    ended: str
    ended_by: str
    lasted_ns: int
    older: bool = False  # than the trace: times count from the first packet that was seen
    idle_ns: int | None = None
    request_took_ns: int | None = None


class OpenStream(msgspec.Struct, frozen=True, kw_only=True):
    """A TCP connection that goes on, as far as it has come. `quiet_ns`: since the last new data of its reply; None before any."""

    flow: Flow
    backend: Party | None
    stream: Stream
    quiet_ns: int | None


class Http(msgspec.Struct, frozen=True, kw_only=True):
    """The heads of clear HTTP/1.1 messages of a connection (`--http`). `method` and `path` (without its query) are the first
    request's, `content_type` the first response's; `statuses` counts responses by status.

    `slowest_answer_ns` is the longest time from a request's head to its response's, of the first some hundreds; `first_body_ns`
    from the request in to the first of the response's body out, at the server: None where there were several responses, or it
    was not seen.
    """

    requests: int
    method: str
    path: str
    statuses: dict[str, int]
    content_type: str
    slowest_answer_ns: int | None
    first_body_ns: int | None


class Http2(msgspec.Struct, frozen=True, kw_only=True):
    """What the frames of a clear HTTP/2 connection tell of its streams (`--http`).

    `streams` is how many the client was seen to open, or by its numbers has opened in between; `last` the number of the last of
    them, by which it has opened (last + 1) / 2 at most since the connection began. Both are as of the last HEADERS frame that
    was seen, at the start of a segment or behind other frames there. OBSERVED where each was seen, DERIVED where numbers tell.
    """

    streams: int
    last: int
    certainty: Certainty


class PacketPath(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="path"):
    """One connection (or one datagram's flow) as its first packet went. Times in ns; None where not observed.

    `t_ns` is when its first packet was seen first, on that node's clock, and `time` the same as wall-clock time (RFC 3339, UTC;
    "" where the node's wall clock is not known).
    """

    flow: Flow
    backend: Party | None
    nat: Nat | None
    hops: tuple[Hop, ...]
    verdict: Verdict
    drop: Drop | None = None
    findings: tuple[Finding, ...] = ()
    handshake_ns: int | None = None  # first SYN out to SYN-ACK in, at the first device
    response_ns: int | None = None  # first request data in to first response data out, at the backend's device
    established: bool | None = None  # TCP: the handshake was seen to end; None for other protocols
    outcome: ConnectionOutcome = ConnectionOutcome.UNKNOWN
    waited: str = ""  # what the outcome waited for, and how long
    recovered_drops: int = 0  # packets of it that the kernel freed, and that were sent again with success
    incomplete: bool = False  # records of a node on its way were lost meanwhile: nothing is judged from what is missing
    drop_direction: str = ""  # which way the packet of `drop` went: "request", "reply"
    back: tuple[Hop, ...] = ()  # the answer's hops: of the SYN-ACK, or of the first datagram or data back
    back_data: tuple[Hop, ...] = ()  # of TCP: the hops of the first data back
    stream: Stream | None = None  # of TCP, where data passed
    http: Http | None = None  # of clear HTTP/1.1, with `--http`
    http2: Http2 | None = None  # of clear HTTP/2, with `--http`
    attempts: int = 1  # first packets sent (a repeated SYN has the same sequence number)
    retransmits: int = 0
    t_ns: int = 0
    time: str = ""
