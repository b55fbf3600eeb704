"""What a probe saw of a packet at one place, and of packets of one tuple at one device."""

from __future__ import annotations

from enum import Enum

import msgspec

from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.units import Nanoseconds


class Point(Enum):
    """Where on a device a packet was seen."""

    RX = "rx"  # net:netif_receive_skb
    TX = "tx"  # net:net_dev_queue
    DROP = "drop"  # skb:kfree_skb
    DONE = "done"  # delivered to a socket

    __hash__ = object.__hash__  # Enum's hashes the name, in Python: places are looked up at every packet


class TcpFlags(msgspec.Struct, frozen=True, gc=False):
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


class PacketSighting(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What every packet observation has in common.

    `length` is skb->len in bytes (a GSO packet is one), `payload` the transport payload's length, `sig` a hash of
    the first bytes of a datagram's payload (0 for TCP). `flow` is the tuple as it was here, `tunnel` the outer tuple
    where the packet was inside VXLAN, Geneve or IPIP.
    `asked` is the tuple that the sending socket has, where the node's own rules had translated the packet before it was seen.
    `device` is empty where the packet had none (locally made, not yet routed). `ttl` is the TTL or hop limit; 0: not known.
    """

    node: str
    t_ns: Nanoseconds
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
    ttl: int = 0

    @property
    def opening(self) -> bool:
        """Whether it asks for a TCP connection."""
        return self.tcp is not None and self.tcp.syn and not self.tcp.is_ack


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
    `ct_state` is the connection tracking state by which rules match the packet ("NEW"; "" where it is not known).
    `fragment`: a later fragment, whose ports are those of the first.
    With `reason_derived` this kernel gives no reasons, and `reason` follows from `location`.
    """

    reason: str
    location: str
    stack: tuple[str, ...] = ()
    hook: str = ""
    ct_state: str = ""
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
    t_ns: Nanoseconds
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


class TcpRetransmit(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="retransmit"):
    """tcp:tcp_retransmit_skb: the sender's TCP sent segments again, as many at once as the sk_buff holds. `state` is the
    kernel's socket state name."""

    node: str
    t_ns: Nanoseconds
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
    t_ns: Nanoseconds
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


class Http2Streams(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="http2"):
    """What frames of a clear HTTP/2 connection's client have told until now, in the node's own namespace (`trace --http`).

    `preface`: the connection's start was seen. `first` and `last` are the numbers of the first stream that was seen to be opened
    and of the last (0: none yet), `seen` how many were: fewer than are between, where a frame did not begin a segment.
    """

    node: str
    t_ns: Nanoseconds
    netns: int
    flow: FiveTuple
    preface: bool
    first: int
    last: int
    seen: int


class Held(Enum):
    """What kept a TCP that has data to send, or had none (enum tcp_chrono)."""

    UNKNOWN = "unknown"  # its socket is not there where the data was seen
    NOTHING = "nothing"  # nothing was unsent or unacknowledged
    UNACKNOWLEDGED = "unacknowledged"  # something was, and neither of these held it back
    WINDOW = "window"  # the receiver's window had no room
    BUFFER = "buffer"  # its own send buffer was full of what was unacknowledged


class FlowSilence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was so at a device when data ended the longest silence. Times in ns.

    `asked_ns`: how long after the silence's beginning data last passed the other way; 0: none since. `closed_ns`: the same of
    the receiver's word that it takes no more (a window of 0); 0 also where another CPU saw it. `held` kept the sending TCP for
    the last `held_ns` of it, and `heard_ns` before its end an ACK last came to that TCP; both may be wrong by a tick of the
    kernel's clock (1 to 10 ms).
    """

    asked_ns: int = 0
    closed_ns: int = 0
    held: Held = Held.UNKNOWN
    held_ns: int = 0
    heard_ns: int = 0


class FlowCounters(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="flow"):
    """Packets of one tuple at one device that were counted and not reported one by one, and a FIN with data, which is both;
    totals since `began_ns`. Where a flow left the kernel's table and came back, `began_ns` is another, and the numbers are
    to be added to the earlier ones.

    `hop_ns` is a histogram of the time since the same packet's previous point: element i counts times in
    [2**i, 2**(i+1)) ns; trailing zeros are left out.

    Of TCP data, counted once however often it was sent: `data_bytes`, the times of the first, the second and the last that
    was new here (`first_ns`, `second_ns`, `last_ns`; 0: none), the longest silence between two and when it began
    (`silence_ns`, `silence_at_ns`), and `gaps`, a histogram of all silences: element 4 * l + s counts those in
    [2**l * (1 + s / 4), 2**l * (1 + (s + 1) / 4)) µs; `gap_us` has their sum in µs. `first_asked_ns` is when data had last passed
    the other way when the first came (0: never), `at_silence` what was so when the longest silence ended; None where it was
    short. `closed_ns` is when the sender of the packets last said that it takes no more data (a window of 0; 0: never).
    """

    node: str
    t_ns: Nanoseconds
    netns: int
    ifindex: int
    device: str
    point: Point
    flow: FiveTuple
    packets: int
    bytes: int
    began_ns: Nanoseconds = 0
    hop_ns: tuple[int, ...] = ()
    data_bytes: int = 0
    first_ns: Nanoseconds = 0
    second_ns: Nanoseconds = 0
    last_ns: Nanoseconds = 0
    silence_ns: Nanoseconds = 0
    silence_at_ns: Nanoseconds = 0
    gaps: tuple[int, ...] = ()
    gap_us: tuple[int, ...] = ()
    first_asked_ns: Nanoseconds = 0
    closed_ns: Nanoseconds = 0
    at_silence: FlowSilence | None = None
