"""How long a connection's handshake and first answer took, from sightings on one clock."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.model.events import PacketSeen
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.trace.connection import Connection


def established(connection: Connection) -> bool | None:
    """Whether the handshake was seen to end; None for what has none."""
    if connection.protocol is not Protocol.TCP:
        return None
    return bool(connection.answer or connection.reply_data or connection.mid_stream)


def handshake_ns(connection: Connection, ordered: Sequence[PacketSeen]) -> int | None:
    """From the SYN at the first device to the SYN-ACK back at it, in ns."""
    if not ordered or not connection.answer or connection.mid_stream or len(connection.attempts) > 1:
        return None
    start = ordered[0]
    back = [a.t_ns for a in connection.answer if (a.node, a.netns) == (start.node, start.netns)]
    return min(back) - start.t_ns if back else None


def response_ns(connection: Connection) -> int | None:
    """From the first request data into a namespace to the first reply data out of it, at the server's end, in ns."""
    arrivals = {(n, ns): t for (n, ns, _, point), t in connection.request_data.items() if point == "rx"}
    leavings = {(n, ns): t for (n, ns, _, point), t in connection.reply_data.items() if point == "tx"}
    both = [(leavings[k] - arrivals[k]) for k in arrivals.keys() & leavings.keys() if leavings[k] > arrivals[k]]
    return min(both) if both else None
