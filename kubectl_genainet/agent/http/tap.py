"""Heads of HTTP/1.1 messages, read with a packet socket in the node's network namespace, as tcpdump would.

A filter in the kernel keeps all from it but segments of the traced ports that begin as a message does, and of these it
takes the first bytes only. Encrypted connections never begin so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kubectl_genainet.agent.http.head import BEGINS, read_head
from kubectl_genainet.agent.node.segments import SegmentSocket, segment_filter
from kubectl_genainet.model.events import HttpHead
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.wire import FilterEntry

MOST = 4096  # bytes of a packet that are taken
_BATCH = 500  # packets a poll: the other probes want their turn


class HttpTap:
    """Gives the heads since the last time from `poll`. Raises GenainetError where the socket is refused."""

    def __init__(self, node: str, host_netns: str) -> None:
        self.node = node
        self._segments = SegmentSocket("HTTP", host_netns, MOST)
        self._ends: frozenset[tuple[str, int]] = frozenset()

    def configure(self, filters: Iterable[FilterEntry]) -> None:
        """Follows these ends from now on. An entry without a port is left out: of a whole address nothing is read."""
        ends = frozenset((f.ip, f.port) for f in filters if f.protocol in ("", "TCP") and f.port)
        if ends != self._ends:
            self._ends = ends
            self._segments.filter(segment_filter({port for _, port in ends}, BEGINS, MOST))

    def poll(self) -> Iterator[HttpHead]:
        """The heads that have passed since the last time."""
        for segment, device, point, t_ns in self._segments.arrivals(_BATCH):
            if not self._concerns(segment.flow):
                continue
            head = read_head(segment.payload)
            if head is not None:
                yield HttpHead(
                    node=self.node,
                    t_ns=t_ns,
                    netns=self._segments.inode,
                    device=device,
                    point=point,
                    flow=segment.flow,
                    seq=segment.tcp.seq,
                    method=head.method,
                    path=head.path,
                    status=head.status,
                    content_type=head.content_type,
                    head_bytes=head.length,
                    payload=segment.length,
                )

    def _concerns(self, flow: FiveTuple) -> bool:
        return (flow.dst, flow.dport) in self._ends or (flow.src, flow.sport) in self._ends

    @property
    def lost(self) -> int:
        """Packets that the socket's buffer had no room for."""
        return self._segments.refused

    def close(self) -> None:
        self._segments.close()
