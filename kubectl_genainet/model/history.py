"""What a recorder keeps beside the events themselves: gaps, totals, and what changed on the node or in the cluster.

Times that end in `_ns` and are called `since`, `until` or `at` are wall-clock nanoseconds since 1970; `t_ns` is the node's
monotonic clock, as in every event.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from kubectl_genainet.model.packet import ALL_KEPT, FiveTuple, Protocol
from kubectl_genainet.model.units import Nanoseconds

BUCKET_S = 10
LEFT_OUT = "left out by the recorder: they are in its totals"  # where a recorder's DNS exchanges are lost
# A histogram of times: element 4 * l + s counts those in [2**l * (1 + s / 4), 2**l * (1 + (s + 1) / 4)) µs, as the gaps of
# FlowCounters do; trailing zeros are left out.
Histogram = tuple[int, ...]
_MOST_POWER = 64  # a time in µs has 64 bits; what a node sends may have more elements


def histogram_index(microseconds: int) -> int:
    """Where a time is counted in a Histogram."""
    if microseconds < 2:
        return 0
    power = microseconds.bit_length() - 1
    quarter = (microseconds >> (power - 2)) & 3 if power >= 2 else 0
    return 4 * power + quarter


def histogram_bounds(index: int) -> tuple[float, float]:
    """The times in seconds that element `index` of a Histogram counts: from, up to."""
    power, quarter = divmod(index, 4)
    step = 2.0 ** min(power, _MOST_POWER) * 1e-6
    return step * (1 + quarter / 4), step * (1 + (quarter + 1) / 4)


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="gap"):
    """Nothing is known of this time on this node ("": of the cluster's objects), and why.

    `partial`: records of this time are missing, and others are there.
    """

    node: str
    since_ns: Nanoseconds
    until_ns: Nanoseconds
    why: str
    partial: bool = False


class ConnectionSums(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """TCP connections between two ends within a bucket, exact, by outcome; the fields are those of ConnectionCounts."""

    side: str
    client: str
    server: str
    port: int
    backend: str = ""
    backend_port: int = 0
    opened: int = 0
    established: int = 0
    refused: int = 0
    timed_out: int = 0
    given_up: int = 0
    ended: int = 0
    reset: int = 0
    sent: int = 0
    received: int = 0


ConnectionEnds = tuple[
    str, str, str, int, str, int
]  # the fields of a ConnectionSums that are not numbers of connections
ENDS = ("side", "client", "server", "port", "backend", "backend_port")
COUNTED = tuple(f for f in ConnectionSums.__struct_fields__ if f not in ENDS)


def ends_of(counts: Any) -> ConnectionEnds:
    """Of a ConnectionSums or a ConnectionCounts."""
    return counts.side, counts.client, counts.server, counts.port, counts.backend, counts.backend_port


class ConnectionTimes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How long the followed connections between two ends took, of those that ended in the bucket with one outcome.

    `server` is the address that the client asked for, `backend` where the node sent it ("": no other address was seen here).
    `outcome` is what a connection in trouble is kept for ("reset", "slow", "not answered", …), "" for all others. `followed`
    is how many they were (the exact number is in ConnectionSums). `connect`: SYN to SYN-ACK, `reply`: first request data to
    first reply data, `gaps`: silences between two segments of data.
    """

    client: str
    server: str
    port: int
    backend: str = ""
    backend_port: int = 0
    outcome: str = ""
    followed: int = 0
    connect: Histogram = ()
    reply: Histogram = ()
    gaps: Histogram = ()


class DropSums(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Packets that were dropped for one cause within a bucket; `at_first_ns` and `at_last_ns` say when."""

    reason: str
    location: str
    netns: int
    src: str
    dst: str
    dport: int
    protocol: Protocol
    packets: int
    bytes: int = 0
    at_first_ns: Nanoseconds = 0
    at_last_ns: Nanoseconds = 0


class DnsSums(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """DNS exchanges of one client for one name within a bucket. `rcode` is the answer's, or how the exchange ended without
    one ("repeated", "expired"). `name` is "" where names are not recorded, and "…" for all names beyond those that fit."""

    client: str
    server: str
    name: str
    rcode: str
    count: int
    times: Histogram = ()


class Bucket(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="bucket"):
    """Totals of BUCKET_S seconds on one node. `connections` and `drops` are exact, from the kernel's tables; `times` are of the
    followed connections, `dns` of the exchanges that were seen.

    `lost` counts events that did not reach the recorder; `followed` is the smallest share, in ALL_KEPT, that was followed.
    """

    node: str
    since_ns: Nanoseconds
    until_ns: Nanoseconds
    connections: tuple[ConnectionSums, ...] = ()
    times: tuple[ConnectionTimes, ...] = ()
    drops: tuple[DropSums, ...] = ()
    dns: tuple[DnsSums, ...] = ()
    lost: int = 0
    followed: int = ALL_KEPT


class ChangeOf(Enum):
    """What of a node changed."""

    POD = "pod"  # a pod's network namespace came or went
    ADDRESS = "address"
    DEVICE = "device"
    ROUTE = "route"
    RULES = "rules"
    COUNTER = "counter"  # of conntrack, the stack or a NIC
    UNKNOWN = "unknown"


class NodeChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="node_change"):
    """Something on the node changed. "" before: it was not there; "" after: it is gone.

    `subject` says of what ("eth0", "10.244.1.7", "iptables-nft"), `pod_uid` in whose network namespace ("": the node's own or
    not known). The change happened between `since_ns` and `at_ns`.
    """

    node: str
    at_ns: Nanoseconds
    since_ns: Nanoseconds
    what: ChangeOf
    subject: str
    before: str = ""
    after: str = ""
    pod_uid: str = ""
    netns: int = 0


class Edit(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A part of a new text, cut at a separator: `count` parts of the old one from `first` on, or `lines` that are new."""

    first: int = 0
    count: int = 0
    lines: tuple[str, ...] = ()


class RulesetChange(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="ruleset_change"
):
    """A RulesetDump as its difference from the last one of the same source (history/rules.py). `crc` is the CRC-32 of the text
    that the edits make."""

    node: str
    t_ns: Nanoseconds
    source: str
    edits: tuple[Edit, ...]
    crc: int
    separator: str = "\n"


class ConnectionKept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="kept"):
    """This node has recorded the connection whole, though it is not among those that are kept as examples: what it was kept for
    ("reset", "slow", …), and the tuples that it had here."""

    node: str
    t_ns: Nanoseconds
    why: str
    flows: tuple[FiveTuple, ...]


ObjectKey = tuple[str, str, str, str]  # kind, namespace, name, API group


def group_of(api_version: str) -> str:
    """The API group; empty for core/v1."""
    return api_version.rpartition("/")[0]


def object_key(raw: Mapping[str, Any]) -> ObjectKey:
    """Which object of the API it is, in whatever version: two groups may have kinds of one name (NetworkPolicy, Service)."""
    metadata = raw.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    return str(raw.get("kind", "")), namespace, name, group_of(str(raw.get("apiVersion", "")))


class ObjectChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="object_change"):
    """An object of the API came, changed (`after` is the whole object) or went (`after` is None). Written by the recorder of
    the cluster's objects."""

    at_ns: Nanoseconds
    object_kind: str
    namespace: str
    name: str
    api_version: str = ""
    after: dict[str, Any] | None = None
    before_version: str = ""  # metadata.resourceVersion that it replaces
    node: str = ""

    @property
    def key(self) -> ObjectKey:
        return self.object_kind, self.namespace, self.name, group_of(self.api_version)


Recorded = Gap | Bucket | NodeChange | RulesetChange | ConnectionKept | ObjectChanged
