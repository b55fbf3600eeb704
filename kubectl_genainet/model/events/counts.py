"""Totals that the kernel kept, each since the last record about the same."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.units import Nanoseconds


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """A count that the kernel kept: `packets` since the last record about the same.

    `flow` is the tuple, inside a tunnel the inner one. Where the kernel's table was full, `flow.src` is empty and
    `flow.sport` 0: the count is of all sources.
    """

    node: str
    t_ns: Nanoseconds
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


# What a node says that does not see every reset which it sends (Progress, stage "missing").
RESETS_NOT_COUNTED = "resets are not counted"
SOME_RESETS_NOT_COUNTED = (
    "resets by closed ports and for closed connections are not counted (a kprobe does, before Linux 6.10)"
)


class ResetCount(Tally, frozen=True, kw_only=True, tag_field="kind", tag="reset_count"):
    """TCP resets, `flow` in their direction. `sent`: by this namespace, else received in it.

    `active`: no packet provoked it, the socket's owner closed it so. `opening`: it answers a SYN, so its receiver is the
    client. `reason` is the kernel's (enum sk_rst_reason, without its prefix), "" where the kernel gives none.
    """

    sent: bool
    active: bool = False
    opening: bool = False
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

    `side` is the end: of "client", `server` and `port` are what the client asked for (a Service's address), `backend` and
    `backend_port` where its node sent it ("": there, or it is not known); of "server", `client` is who it saw. A connection
    is `opened` when its client sends a SYN, which is counted without a backend: it is known when the handshake is over. It is
    `established`, and over when it was
    `refused`, `timed_out`, `given_up` before it was established, `ended` in order, or `reset`. `sent` and `received` are
    bytes of those that are over: sent ones were acknowledged.
    """

    node: str
    t_ns: Nanoseconds
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
