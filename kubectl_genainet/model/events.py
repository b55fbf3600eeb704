"""Raw observations, as the agent's probes report them. A union matched by type; `kind` is the tag on the wire.

Times are CLOCK_MONOTONIC nanoseconds of the node (bpf_ktime_get_ns). `netns` is the inode number of a network
namespace. `skb` is the kernel address of the sk_buff: an identity while the packet lives, on one kernel only.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.dns import DnsMessage
from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.fabric import FabricReport
from kubectl_genainet.model.history import Bucket, ConnectionKept, Gap, NodeChange, ObjectChanged, RulesetChange
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump
from kubectl_genainet.model.packet import ALL_KEPT, FiveTuple


class Point(Enum):
    """Where on a device a packet was seen."""

    RX = "rx"  # net:netif_receive_skb
    TX = "tx"  # net:net_dev_queue
    DROP = "drop"  # skb:kfree_skb
    DONE = "done"  # delivered to a socket


class TcpFlags(msgspec.Struct, frozen=True):
    """TCP header fields that NAT leaves alone. `flags` is the header's: FIN 1, SYN 2, RST 4, PSH 8, ACK 16."""

    seq: int
    ack: int
    flags: int

    @property
    def syn(self) -> bool:
        return bool(self.flags & 2)

    @property
    def fin(self) -> bool:
        return bool(self.flags & 1)

    @property
    def rst(self) -> bool:
        return bool(self.flags & 4)

    @property
    def is_ack(self) -> bool:
        return bool(self.flags & 16)

    def __str__(self) -> str:
        names = [
            name for bit, name in ((2, "SYN"), (16, "ACK"), (1, "FIN"), (4, "RST"), (8, "PSH")) if self.flags & bit
        ]
        return ",".join(names) or "-"


class PacketSighting(msgspec.Struct, frozen=True, kw_only=True):
    """What every packet observation has in common.

    `length` is skb->len in bytes (a GSO packet is one), `payload` the transport payload's length, `sig` a hash of
    the first bytes of a datagram's payload (0 for TCP). `flow` is the tuple as it was here, `tunnel` the outer tuple
    where the packet was inside VXLAN, Geneve or IPIP.
    `asked` is the tuple that the sending socket has, where the node's own rules had translated the packet before it was seen.
    `device` is empty where the packet had none (locally made, not yet routed).
    """

    node: str
    t_ns: int
    netns: int
    ifindex: int
    device: str
    skb: int
    flow: FiveTuple
    length: int
    payload: int
    ip_id: int
    sig: int = 0
    tcp: TcpFlags | None = None
    tunnel: FiveTuple | None = None
    asked: FiveTuple | None = None
    cpu: int = 0


class PacketSeen(PacketSighting, frozen=True, kw_only=True, tag_field="kind", tag="packet"):
    """A packet passed a device."""

    point: Point


class Sightings(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="sightings"):
    """Many PacketSeen of one node as its kernel wrote them; on the wire only (wire/sightings.py reads them)."""

    node: str
    data: bytes


class PacketDropped(PacketSighting, frozen=True, kw_only=True, tag_field="kind", tag="drop"):
    """The kernel freed a packet with a reason.

    `reason` is the kernel's name without its prefix ("NETFILTER_DROP"; "" where the kernel gives none); `location`
    and `stack` are symbols, innermost first; `hook` is the netfilter hook read from the stack ("FORWARD"), or "".
    `fragment`: a later fragment, whose ports are those of the first.
    With `reason_derived` this kernel gives no reasons, and `reason` follows from `location`.
    """

    reason: str
    location: str
    stack: tuple[str, ...] = ()
    hook: str = ""
    fragment: bool = False
    reason_derived: bool = False


class DropSampled(PacketDropped, frozen=True, kw_only=True, tag_field="kind", tag="drop_sample"):
    """One of many packets that the drops probe counted in a `DropCount`; the packet probe may report the same packet."""


class IcmpError(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="icmp"):
    """An ICMP error about a followed flow was seen. `quoted` is the tuple inside it, as its sender had it.

    `type` and `code` are the header's; `mtu` is the next-hop MTU of "fragmentation needed" / "packet too big", else 0.
    With `point` DROP the error itself was dropped, for `reason`, in `hook`, by `location`: its addressee was not told.
    """

    node: str
    t_ns: int
    netns: int
    ifindex: int
    device: str
    point: Point
    src: str
    dst: str
    family: int  # 4 or 6
    type: int
    code: int
    mtu: int
    quoted: FiveTuple
    hook: str = ""
    reason: str = ""
    location: str = ""


class IcmpSampled(IcmpError, frozen=True, kw_only=True, tag_field="kind", tag="icmp_sample"):
    """One of many ICMP errors that the drops probe counted in an `IcmpCount`."""


class DnsPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a DNS message was seen on its way. `flow` is an index into the record's `flows`."""

    t_ns: int
    netns: int
    ifindex: int
    point: Point
    flow: int


class DnsEnd(Enum):
    """Why a record of an exchange was sent."""

    ANSWERED = "answered"  # the response came back to the device where the query was seen first
    REPEATED = "repeated"  # the same query was sent again from the same socket
    EXPIRED = "expired"  # no response got that far within EXPIRES_NS
    STOPPED = "stopped"  # the session ended while the exchange was still open


class DnsTransaction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="dns"):
    """A query over UDP and its response as one node saw them.

    `flows` are the tuples that they had, all in the direction from client to server, the one as sent first. `query` and
    `response` are the sightings in order of time; `asked` and `answer` the messages, None where not seen.
    """

    node: str
    t_ns: int
    id: int
    end: DnsEnd
    flows: tuple[FiveTuple, ...]
    query: tuple[DnsPlace, ...]
    response: tuple[DnsPlace, ...] = ()
    asked: DnsMessage | None = None
    answer: DnsMessage | None = None


class DnsMessageSeen(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="dns_message"
):
    """One sighting of a DNS message: of those over TCP (reassembled; `t_ns` is its last segment's), of responses over
    UDP whose query was not seen, and of what can't be decoded. `flow` is as in the packet."""

    node: str
    t_ns: int
    netns: int
    ifindex: int
    point: Point
    flow: FiveTuple
    id: int
    message: DnsMessage


class DnsDropped(PacketDropped, frozen=True, kw_only=True, tag_field="kind", tag="dns_drop"):
    """The kernel freed a packet to or from a DNS port. `message` is None for TCP, and for what is no DNS message."""

    id: int = 0
    message: DnsMessage | None = None


class DnsConnection(PacketSeen, frozen=True, kw_only=True, tag_field="kind", tag="dns_connection"):
    """A SYN, SYN-ACK or RST to or from a DNS port."""


class TcpRetransmit(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="retransmit"):
    """tcp:tcp_retransmit_skb: the sender's TCP sent segments again, as many at once as the sk_buff holds. `state` is the
    kernel's socket state name."""

    node: str
    t_ns: int
    netns: int
    flow: FiveTuple
    state: str
    segments: int = 1


class HttpHead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="http"):
    """The head of a clear HTTP/1.1 message passed a device of the node's own namespace (`trace --http`).

    A request has a `method` and a `path` (without its query), a response a `status`. `head_bytes` is the head's length, 0
    where it goes on in the next segment; `payload` the segment's, so what is more is the start of the body.
    """

    node: str
    t_ns: int
    netns: int
    device: str
    point: Point
    flow: FiveTuple
    seq: int
    payload: int
    head_bytes: int = 0
    method: str = ""
    path: str = ""
    status: int = 0
    content_type: str = ""


class FlowCounters(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="flow"):
    """Packets of one tuple at one device that were counted and not reported one by one, and a FIN with data, which is both;
    totals since the start.

    `hop_ns` is a histogram of the time since the same packet's previous point: element i counts times in
    [2**i, 2**(i+1)) ns; trailing zeros are left out.

    Of TCP data, counted once however often it was sent: `data_bytes`, the times of the first, the second and the last that
    was new here (`first_ns`, `second_ns`, `last_ns`; 0: none), the longest silence between two and when it began
    (`silence_ns`, `silence_at_ns`), and `gaps`, a histogram of all silences: element 4 * l + s counts those in
    [2**l * (1 + s / 4), 2**l * (1 + (s + 1) / 4)) µs; `gap_us` has their sum in µs.
    """

    node: str
    t_ns: int
    netns: int
    ifindex: int
    device: str
    point: Point
    flow: FiveTuple
    packets: int
    bytes: int
    hop_ns: tuple[int, ...] = ()
    data_bytes: int = 0
    first_ns: int = 0
    second_ns: int = 0
    last_ns: int = 0
    silence_ns: int = 0
    silence_at_ns: int = 0
    gaps: tuple[int, ...] = ()
    gap_us: tuple[int, ...] = ()


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """A count that the kernel kept: `packets` since the last record about the same.

    `flow` is the tuple, inside a tunnel the inner one. Where the kernel's table was full, `flow.src` is empty and
    `flow.sport` 0: the count is of all sources.
    """

    node: str
    t_ns: int
    netns: int
    flow: FiveTuple
    packets: int


class DropCount(Tally, frozen=True, kw_only=True, tag_field="kind", tag="drop_count"):
    """Packets that the kernel freed for `reason` in the function `location` (as in PacketDropped).

    A packet here is an sk_buff; a GSO packet is one. `opening`: TCP SYNs; `answering`: SYN-ACKs. For a packet that is no IP
    packet, the flow's addresses are "::".
    """

    reason: str
    location: str
    bytes: int
    opening: bool = False
    answering: bool = False
    reason_derived: bool = False


class IcmpCount(Tally, frozen=True, kw_only=True, tag_field="kind", tag="icmp_count"):
    """ICMP errors about `flow` (as their sender had it), received in the namespace or, with `reason`, dropped in it."""

    family: int  # 4 or 6
    type: int
    code: int
    reason: str = ""


class ResetCount(Tally, frozen=True, kw_only=True, tag_field="kind", tag="reset_count"):
    """TCP resets, `flow` in their direction. `sent`: by this namespace, else received in it.

    `active`: no packet provoked it, the socket's owner closed it so. `reason` is the kernel's (enum sk_rst_reason,
    without its prefix), "" where the kernel gives none.
    """

    sent: bool
    active: bool = False
    reason: str = ""


class RetransmitCount(Tally, frozen=True, kw_only=True, tag_field="kind", tag="retransmit_count"):
    """Segments that a TCP sent again. `state` is the kernel's name of its socket's state. `in_vain` of them came after three
    timeouts in a row, without an acknowledgement between them."""

    state: str
    in_vain: int = 0


class EstablishedCount(Tally, frozen=True, kw_only=True, tag_field="kind", tag="established_count"):
    """TCP connections that were accepted in the namespace; `flow` is the client's direction, with source port 0."""


class ConnectionCounts(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="connection_count"
):
    """TCP connections that the kernel counted at one end's sockets since the trace began, each of them: totals, not samples.

    `side` is the end: of "client", `server` and `port` are what the client asked for (a Service's address); of "server",
    `client` is who it saw. A connection is `opened` when its client sends a SYN, and `established`; it is over when it was
    `refused`, `timed_out`, `given_up` before it was established, `ended` in order, or `reset`. `sent` and `received` are
    bytes of those that are over: sent ones were acknowledged.
    """

    node: str
    t_ns: int
    side: str
    client: str
    server: str
    port: int
    opened: int = 0
    established: int = 0
    refused: int = 0
    timed_out: int = 0
    given_up: int = 0
    ended: int = 0
    reset: int = 0
    sent: int = 0
    received: int = 0


class LostEvents(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="lost"):
    """Events of a probe that did not reach the reader since the last such record, and where they were lost."""

    node: str
    probe: str
    count: int
    where: str  # "ring buffer", "event budget", "agent queue", "slow client"


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="hello"):
    """The first record of a stream. `realtime_ns` - `t_ns` turns the node's monotonic times into wall-clock times.

    `boot_id` names the running kernel: nodes with the same one share a clock and sk_buff addresses.
    """

    node: str
    protocol: int
    version: str
    kernel: str
    boot_id: str
    t_ns: int
    realtime_ns: int
    tier: str  # "tracepoint", "kprobe", "exact"
    probes: tuple[str, ...] = ()


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="progress"):
    """What the agent is doing: stage "loading", "compiling" (a probe for this kernel, once: tens of seconds on a slow
    node), "attached", "missing" (a feature that this kernel lacks), "detached".

    The probes look at packets from the `t_ns` of "attached" until that of "detached"; 0 with other stages.
    """

    node: str
    stage: str
    detail: str = ""
    t_ns: int = 0


class Sampled(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="sampled"):
    """The agent keeps within its budget: it follows `kept` in ALL_KEPT connections, the same as other nodes with that number
    (`followed`). In force since the last Tick at the latest. Older agents said one in 2**level."""

    node: str
    t_ns: int
    level: int = 0
    kept: int | None = None

    @property
    def share(self) -> int:
        """How many in ALL_KEPT."""
        return ALL_KEPT >> self.level if self.kept is None else self.kept


class Tick(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="tick"):
    """The agent is alive and has sent all that it saw until `t_ns`, and what it counted until `counted_ns` (0: not said).
    Once a second; a reader's clock.

    Where the session has a budget: `cpu_ns` is the CPU time of the agent's processes since it began to watch, `kernel_ns`
    that of its BPF programs (None where the kernel does not tell), `budget` what it may take, in per cent of a core.
    """

    node: str
    t_ns: int
    counted_ns: int = 0
    cpu_ns: int | None = None
    kernel_ns: int | None = None
    budget: float | None = None


class NameLookup(msgspec.Struct, frozen=True):
    """What a name resolved to, looked up as the pod's resolver does: by its resolv.conf(5), before a check connection.

    `outcome` is "answered", "no address", "timeout", a response code ("NXDOMAIN") or an error; `asked` the name that was asked
    for last, `server` whom. `took_ns` is of all `queries` together.
    """

    name: str
    outcome: str
    asked: str = ""
    server: str = ""
    addresses: tuple[str, ...] = ()
    queries: int = 0
    took_ns: int = 0


class CheckConnectionResult(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="probe_result"):
    """The outcome of one connection that the agent opened (`--check`). Times in ns, None where not reached."""

    node: str
    pod: str
    url: str
    outcome: str  # "connected", "refused", "timeout", "unreachable", "http 200", …
    connect_ns: int | None = None
    total_ns: int | None = None
    lookup: NameLookup | None = None  # None where no name was asked for


class AgentFailed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="failed"):
    """The agent could not go on, or could not start: what is wrong and what to do."""

    node: str
    message: str
    hint: str = ""


class ClusterChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="cluster"):
    """The API's objects changed while a trace ran: all of them, as they are now. Written by the client, not an agent."""

    objects: list[dict[str, Any]]
    left_out: tuple[LeftOut, ...] = ()
    taken_at: str = ""

    @classmethod
    def of(cls, snapshot: ClusterSnapshot) -> ClusterChanged:
        return cls(objects=[o.raw for o in snapshot.objects], left_out=snapshot.left_out, taken_at=snapshot.taken_at)

    @property
    def snapshot(self) -> ClusterSnapshot:
        return ClusterSnapshot(tuple(KubeObject(raw) for raw in self.objects), self.left_out, self.taken_at)


class Bye(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="bye"):
    """The last record of a stream. `emitted` counts what the probes tried to report: emitted = sent + lost."""

    node: str
    emitted: int
    sent: int
    lost: int
    reason: str  # "timeout", "client went away", "stopped", "limit"


Event = (
    PacketSeen
    | Sightings
    | PacketDropped
    | IcmpError
    | IcmpSampled
    | DnsTransaction
    | DnsMessageSeen
    | DnsDropped
    | DnsConnection
    | TcpRetransmit
    | HttpHead
    | FlowCounters
    | DropCount
    | IcmpCount
    | ResetCount
    | RetransmitCount
    | EstablishedCount
    | ConnectionCounts
    | LostEvents
    | Hello
    | Progress
    | Sampled
    | Tick
    | CheckConnectionResult
    | RuleHit
    | AgentFailed
    | NodeReport
    | FabricReport
    | RulesetDump
    | NetnsRules
    | ClusterChanged
    | DropSampled
    | Gap
    | Bucket
    | NodeChange
    | RulesetChange
    | ConnectionKept
    | ObjectChanged
    | Bye
)
