"""DNS over TCP, read with a packet socket in the node's network namespace, as tcpdump would.

A filter in the kernel keeps all but DNS ports from it. It sees each pod's packets at the node's end of the pod's veth.
DNS over TCP is rare, so one record a message and device is affordable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kubectl_genainet.agent.dns.stream import TcpStreams
from kubectl_genainet.agent.dns.wire import message_id
from kubectl_genainet.agent.node.segments import FIN, RST, SYN, Arrival, SegmentSocket, segment_filter
from kubectl_genainet.agent.probes.dns import message_of
from kubectl_genainet.model.events import DnsConnection, DnsMessageSeen
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.wire import FilterEntry

_BUFFER = 1 << 16
_BATCH = 2000  # packets a poll: the other probes want their turn
_ANY = "::"


class TcpTap:
    """Reads the node's DNS over TCP from `poll`. Raises GenainetError where the socket is refused."""

    def __init__(self, node: str, host_netns: str, options: Mapping[str, str]) -> None:
        self.node, self._options = node, options
        self._segments = SegmentSocket("DNS over TCP", host_netns, _BUFFER)
        self._indexes: dict[str, int] = {}
        self._streams = TcpStreams()
        self._ports: frozenset[int] = frozenset()
        self._wanted: frozenset[tuple[str, int]] = frozenset()

    def configure(self, filters: Iterable[FilterEntry]) -> None:
        """Follows these from now on; the entries mean what they mean to the probe."""
        entries = [f for f in filters if f.protocol in ("", "TCP") and f.port]
        self._wanted = frozenset((f.ip, f.port) for f in entries)
        ports = frozenset(f.port for f in entries)
        if ports and ports != self._ports:
            self._ports = ports
            self._segments.filter(segment_filter(ports))

    def poll(self) -> Iterator[DnsConnection | DnsMessageSeen]:
        """What has come since the last time."""
        for arrival in self._segments.arrivals(_BATCH):
            if self._is_wanted(arrival.segment.flow):
                yield from self._seen(arrival)

    def _is_wanted(self, flow: FiveTuple) -> bool:
        response = flow.sport in self._ports and flow.dport not in self._ports
        port = flow.sport if response else flow.dport
        client, server = (flow.dst, flow.src) if response else (flow.src, flow.dst)
        ends = [_ANY, client] if self._options.get("side") == "client" else [_ANY, client, server]
        return any((end, port) in self._wanted for end in ends)

    def _seen(self, arrival: Arrival) -> Iterator[DnsConnection | DnsMessageSeen]:
        segment, device, point, t_ns = arrival
        ifindex, flow, tcp, netns = self._index(device), segment.flow, segment.tcp, self._segments.inode
        key = (ifindex, point, flow)
        if tcp.flags & (SYN | RST):
            if tcp.syn:
                self._streams.syn(key, tcp.seq)
            yield DnsConnection(
                node=self.node,
                t_ns=t_ns,
                netns=netns,
                ifindex=ifindex,
                device=device,
                skb=0,
                flow=flow,
                point=point,
                length=segment.length,
                payload=segment.length,
                ip_id=segment.ip_id,
                tcp=tcp,
            )
        elif segment.length:
            for message in self._streams.feed(key, tcp.seq, segment.payload, segment.length):
                yield DnsMessageSeen(
                    node=self.node,
                    t_ns=t_ns,
                    netns=netns,
                    ifindex=ifindex,
                    point=point,
                    flow=flow,
                    id=message_id(message),
                    message=message_of(message, len(message), self._options),
                )
        if tcp.flags & (FIN | RST):
            self._streams.end(key)

    def _index(self, device: str) -> int:
        if device not in self._indexes:
            self._indexes = self._segments.device_indexes()
        return self._indexes.get(device, 0)

    @property
    def lost(self) -> int:
        """Packets that the socket's buffer had no room for, and streams of which a part was not seen."""
        return self._segments.refused + self._streams.lost

    def close(self) -> None:
        self._segments.close()
