"""Heads of HTTP/1.1 messages and the numbers of HTTP/2 streams, read with a packet socket in the node's network namespace, as
tcpdump would.

A filter in the kernel keeps all from it but segments of the traced ports that begin as a message or a client's frame does, and
of these it takes the first bytes only. Encrypted connections never begin so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from kubectl_genainet.agent.http.frames import StreamCount, read_frames
from kubectl_genainet.agent.http.head import BEGINS, read_head
from kubectl_genainet.agent.node.segments import Arrival, SegmentSocket, segment_filter
from kubectl_genainet.model.events import Http2Streams, HttpHead
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.wire import FilterEntry

MOST = 4096  # bytes of a packet that are taken
BEGINS_OF_ALL = (*BEGINS, b"PRI ")  # HTTP/2's preface too
MAX_CONNECTIONS = 4096  # of which the streams are counted; the one that was silent longest makes room
_BATCH = 500  # packets a poll: the other probes want their turn


class HttpTap:
    """Gives what was seen since the last time from `poll`. Raises GenainetError where the socket is refused."""

    def __init__(self, node: str, host_netns: str) -> None:
        self.node = node
        self._segments = SegmentSocket("HTTP", host_netns, MOST)
        self._ends: frozenset[tuple[str, int]] = frozenset()
        self._streams: OrderedDict[FiveTuple, StreamCount] = OrderedDict()
        self._news: dict[FiveTuple, int] = {}  # with streams that were not reported: when the last was seen

    def configure(self, filters: Iterable[FilterEntry]) -> None:
        """Follows these ends from now on. An entry without a port is left out: of a whole address nothing is read."""
        ends = frozenset((f.ip, f.port) for f in filters if f.protocol in ("", "TCP") and f.port)
        if ends != self._ends:
            self._ends = ends
            self._segments.filter(segment_filter({port for _, port in ends}, BEGINS_OF_ALL, MOST, frames=True))

    def poll(self) -> Iterator[HttpHead | Http2Streams]:
        """The heads that have passed since the last time, and of HTTP/2 the streams of connections that opened some."""
        for arrival in self._segments.arrivals(_BATCH):
            flow = arrival.segment.flow
            to_server = (flow.dst, flow.dport) in self._ends
            if not to_server and (flow.src, flow.sport) not in self._ends:
                continue
            head = self._head(arrival)
            if head is not None:
                yield head
            elif to_server:
                yield from self._frames(arrival)
        for flow, t_ns in self._news.items():
            yield self._counted(flow, t_ns)
        self._news.clear()

    def _head(self, arrival: Arrival) -> HttpHead | None:
        segment = arrival.segment
        head = read_head(segment.payload)
        if head is None:
            return None
        return HttpHead(
            node=self.node,
            t_ns=arrival.t_ns,
            netns=self._segments.inode,
            device=arrival.device,
            point=arrival.point,
            flow=segment.flow,
            seq=segment.tcp.seq,
            method=head.method,
            path=head.path,
            status=head.status,
            content_type=head.content_type,
            head_bytes=head.length,
            payload=segment.length,
        )

    def _frames(self, arrival: Arrival) -> Iterator[Http2Streams]:
        """Takes in the frames of a segment. Gives what was counted of the connection that had its tuple before."""
        flow, seq = arrival.segment.flow, arrival.segment.tcp.seq
        frames = read_frames(arrival.segment.payload)
        if frames is None:
            return
        count = self._streams.get(flow)
        if count is None or (frames.preface and count.began != seq):
            if flow in self._news:
                yield self._counted(flow, self._news.pop(flow))
            count = self._streams[flow] = StreamCount(seq)
        self._streams.move_to_end(flow)
        if count.take(seq, frames) and count.known:
            self._news[flow] = arrival.t_ns
        if len(self._streams) > MAX_CONNECTIONS:
            silent, count = self._streams.popitem(last=False)
            if silent in self._news:
                yield self._counted(silent, self._news.pop(silent), count)

    def _counted(self, flow: FiveTuple, t_ns: int, count: StreamCount | None = None) -> Http2Streams:
        count = count or self._streams[flow]
        return Http2Streams(
            node=self.node,
            t_ns=t_ns,
            netns=self._segments.inode,
            flow=flow,
            preface=count.preface,
            first=count.first,
            last=count.last,
            seen=count.seen,
        )

    @property
    def lost(self) -> int:
        """Packets that the socket's buffer had no room for."""
        return self._segments.refused

    def close(self) -> None:
        self._segments.close()
