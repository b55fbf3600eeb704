"""Raw observations, as the agent's probes report them. A union matched by type; `kind` is the tag on the wire.

Times are CLOCK_MONOTONIC nanoseconds of the node (bpf_ktime_get_ns). `netns` is the inode number of a network
namespace. `skb` is the kernel address of the sk_buff: an identity while the packet lives, on one kernel only.
"""

from __future__ import annotations

from kubectl_genainet.model.events.counts import (
    RESETS_NOT_COUNTED,
    SOME_RESETS_NOT_COUNTED,
    ConnectionCounts,
    DropCount,
    EstablishedCount,
    IcmpCount,
    ResetCount,
    RetransmitCount,
    Tally,
)
from kubectl_genainet.model.events.dns import (
    DnsConnection,
    DnsDropped,
    DnsEnd,
    DnsMessageSeen,
    DnsPlace,
    DnsTransaction,
)
from kubectl_genainet.model.events.packets import (
    DropSampled,
    FlowCounters,
    FlowSilence,
    Held,
    Http2Streams,
    HttpHead,
    IcmpError,
    IcmpSampled,
    PacketDropped,
    PacketSeen,
    PacketSighting,
    Point,
    Sightings,
    TcpFlags,
    TcpRetransmit,
)
from kubectl_genainet.model.events.session import (
    AgentFailed,
    Bye,
    CheckConnectionResult,
    ClusterChanged,
    Hello,
    LostEvents,
    NameLookup,
    Progress,
    Sampled,
    Tick,
)
from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.fabric import FabricReport
from kubectl_genainet.model.history import Bucket, ConnectionKept, Gap, NodeChange, ObjectChanged, RulesetChange
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump

__all__ = [
    "RESETS_NOT_COUNTED",
    "SOME_RESETS_NOT_COUNTED",
    "AgentFailed",
    "Bye",
    "CheckConnectionResult",
    "ClusterChanged",
    "ConnectionCounts",
    "DnsConnection",
    "DnsDropped",
    "DnsEnd",
    "DnsMessageSeen",
    "DnsPlace",
    "DnsTransaction",
    "DropCount",
    "DropSampled",
    "EstablishedCount",
    "Event",
    "FlowCounters",
    "FlowSilence",
    "Held",
    "Hello",
    "Http2Streams",
    "HttpHead",
    "IcmpCount",
    "IcmpError",
    "IcmpSampled",
    "LostEvents",
    "NameLookup",
    "PacketDropped",
    "PacketSeen",
    "PacketSighting",
    "Point",
    "Progress",
    "ResetCount",
    "RetransmitCount",
    "Sampled",
    "Sightings",
    "Tally",
    "TcpFlags",
    "TcpRetransmit",
    "Tick",
]

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
    | Http2Streams
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
