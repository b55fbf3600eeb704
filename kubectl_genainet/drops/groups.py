"""What the drops probe reports, as groups: events of one client, server and place with one fate."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from kubectl_genainet.model.events import (
    DropCount,
    EstablishedCount,
    IcmpCount,
    IcmpError,
    PacketDropped,
    ResetCount,
    RetransmitCount,
    Tally,
)
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.policy import DirectionResult


class GroupKind(Enum):
    """What the events of a group are."""

    DROP = "drop"
    ICMP = "icmp"  # an ICMP error that arrived
    ICMP_DROPPED = "dropped icmp"  # an ICMP error that was dropped itself
    RESET = "reset"
    RETRANSMIT = "retransmit"
    ESTABLISHED = "established"


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What the events of a group have in common. `function` is the kernel function that freed the packets, "" for none."""

    kind: GroupKind
    client: str
    server: str
    server_port: int
    protocol: Protocol
    reply: bool
    node: str
    netns: int
    reason: str
    function: str


@dataclass(slots=True)
class EventGroup:
    """Events with one key, added up. `flow` is one of their tuples, in the packets' own direction."""

    id: int
    key: GroupKey
    flow: FiveTuple
    event: Tally | None = None
    packets: int = 0
    bytes: int = 0
    opening: bool = False
    sample: PacketDropped | None = None
    error: IcmpError | None = None
    states: Counter[str] = field(default_factory=Counter)
    in_vain: int = 0  # segments sent again after three timeouts in a row
    oriented: bool = True  # it is known which end is the server; else the sender stands for the client
    concerned: bool = True  # by its addresses and ports; else only if the pod's own rules redirect to its port
    denied: tuple[tuple[str, DirectionResult], ...] = ()  # directions in which policies do not admit what came about
    by_second: Counter[int] = field(default_factory=Counter)  # packets by the second of 1970
    since_ns: int = 0  # what was counted first happened after this, and until `first_ns`
    first_ns: int = 0
    last_ns: int = 0

    @property
    def kind(self) -> GroupKind:
        return self.key.kind

    @property
    def node(self) -> str:
        return self.key.node

    @property
    def netns(self) -> int:
        return self.key.netns

    @property
    def reply(self) -> bool:
        return self.key.reply

    @property
    def reason(self) -> str:
        return self.key.reason

    @property
    def request(self) -> FiveTuple:
        return self.flow.reversed if self.reply else self.flow

    @property
    def opens(self) -> bool:
        """Whether packets that open a connection are among them: a SYN, or the SYN-ACK that answers it."""
        tcp = self.sample.tcp if self.sample is not None else None
        return self.opening or (tcp is not None and tcp.syn)

    @property
    def pair(self) -> tuple[str, str]:
        return self.request.src, self.request.dst


def is_request(event: Tally) -> bool | None:
    """Whether the counted packets themselves say that they go to the server: those of a handshake do."""
    match event:
        case EstablishedCount():
            return True
        case DropCount() if event.opening or event.answering:
            return event.opening
        case ResetCount() if event.opening:
            return False
        case RetransmitCount() if event.state in ("SYN_SENT", "SYN_RECV"):
            return event.state == "SYN_SENT"
        case _:
            return None


def kind_of(event: Tally) -> tuple[GroupKind, str, str]:
    """(kind, reason, location) of a count."""
    match event:
        case DropCount():
            return GroupKind.DROP, event.reason, event.location
        case IcmpCount():
            kind = GroupKind.ICMP_DROPPED if event.reason else GroupKind.ICMP
            return kind, f"{event.type}/{event.code} {event.reason}".strip(), ""
        case ResetCount():
            active, way = "active " if event.active else "", "sent" if event.sent else "received"
            return GroupKind.RESET, f"{active}{way} {event.reason}", ""
        case RetransmitCount():
            return GroupKind.RETRANSMIT, "", ""
        case _:
            return GroupKind.ESTABLISHED, "", ""


def without_sample(group: EventGroup) -> PacketDropped:
    """What the counter alone knows, where no sample came: no device, no stack, no hook."""
    event = group.event
    location = event.location if isinstance(event, DropCount) else ""
    return PacketDropped(
        node=group.node,
        t_ns=event.t_ns if event else 0,
        netns=group.netns,
        ifindex=0,
        device="",
        skb=0,
        flow=group.flow,
        length=0,
        payload=0,
        ip_id=0,
        reason=group.reason,
        reason_derived=isinstance(event, DropCount) and event.reason_derived,
        location=location,
    )
