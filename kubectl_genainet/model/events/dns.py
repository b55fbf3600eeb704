"""What a probe saw of DNS: exchanges over UDP, messages, drops and connections."""

from __future__ import annotations

from enum import Enum

import msgspec

from kubectl_genainet.model.dns import DnsMessage
from kubectl_genainet.model.events.packets import PacketDropped, PacketSeen, Point
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.units import Nanoseconds


class DnsPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a DNS message was seen on its way. `flow` is an index into the record's `flows`."""

    t_ns: Nanoseconds
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
    t_ns: Nanoseconds
    id: int
    end: DnsEnd
    flows: tuple[FiveTuple, ...]
    query: tuple[DnsPlace, ...]
    response: tuple[DnsPlace, ...] = ()
    asked: DnsMessage | None = None
    answer: DnsMessage | None = None

    def __post_init__(self) -> None:
        if not self.query:
            raise ValueError("a DNS transaction without a sighting of its query")
        if not all(0 <= place.flow < len(self.flows) for place in (*self.query, *self.response)):
            raise ValueError("a sighting of a flow that the DNS transaction does not have")


class DnsMessageSeen(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="dns_message"
):
    """One sighting of a DNS message: of those over TCP (reassembled; `t_ns` is its last segment's), of responses over
    UDP whose query was not seen, and of what can't be decoded. `flow` is as in the packet."""

    node: str
    t_ns: Nanoseconds
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
