"""DNS over TCP, read with a packet socket in the node's network namespace, as tcpdump would.

A filter in the kernel keeps all but DNS ports from it. It sees each pod's packets at the node's end of the pod's veth.
DNS over TCP is rare, so one record a message and device is affordable.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator, Mapping

from kubectl_genainet.agent.dns.stream import Streams
from kubectl_genainet.agent.dns.wire import message_id
from kubectl_genainet.agent.node.netns import inside
from kubectl_genainet.agent.node.segments import (
    FIN,
    OUTGOING,
    RST,
    SYN,
    Segment,
    arrival_ns,
    attach_filter,
    packet_socket,
    parse_segment,
    refused_by,
    segment_filter,
)
from kubectl_genainet.agent.probes.dns import message_of
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import DnsMessageSeen, PacketSeen, Point
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.wire import FilterEntry

_BUFFER = 1 << 16
_BATCH = 2000  # packets a poll: the other probes want their turn
_ANY = "::"


class TcpTap:
    """Reads the node's DNS over TCP from `poll`. Raises GenainetError where the socket is refused."""

    def __init__(self, node: str, host_netns: str, options: Mapping[str, str]) -> None:
        self.node, self._options = node, options
        self._namespace = os.open(host_netns, os.O_RDONLY | os.O_CLOEXEC)
        self._inode = os.fstat(self._namespace).st_ino
        self._indexes: dict[str, int] = {}
        self._streams = Streams()
        self._buffer = bytearray(_BUFFER)
        self._ports: frozenset[int] = frozenset()
        self._wanted: frozenset[tuple[str, int]] = frozenset()
        self.dropped: int = 0
        try:
            self._socket = inside(self._namespace, packet_socket)
        except OSError as error:
            os.close(self._namespace)
            raise GenainetError(
                f"DNS over TCP is not read: a packet socket needs CAP_NET_RAW ({error.strerror})"
            ) from None

    def configure(self, filters: Iterable[FilterEntry]) -> None:
        """Follows these from now on; the entries mean what they mean to the probe."""
        entries = [f for f in filters if f.protocol in ("", "TCP") and f.port]
        self._wanted = frozenset((f.ip, f.port) for f in entries)
        ports = frozenset(f.port for f in entries)
        if ports and ports != self._ports:
            self._ports = ports
            attach_filter(self._socket, segment_filter(ports))

    def poll(self) -> Iterator[DnsMessageSeen | PacketSeen]:
        """What has come since the last time."""
        for _ in range(_BATCH):
            try:
                size, extra, _, sender = self._socket.recvmsg_into([self._buffer], 64, socket.MSG_TRUNC)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENETDOWN, errno.EINTR):
                    return
                raise
            segment = parse_segment(bytes(self._buffer[: min(size, _BUFFER)]), size)
            if segment is not None and self._is_wanted(segment.flow):
                yield from self._segment(segment, sender, arrival_ns(extra))

    def _is_wanted(self, flow: FiveTuple) -> bool:
        response = flow.sport in self._ports and flow.dport not in self._ports
        port = flow.sport if response else flow.dport
        client, server = (flow.dst, flow.src) if response else (flow.src, flow.dst)
        ends = [_ANY, client] if self._options.get("side") == "client" else [_ANY, client, server]
        return any((end, port) in self._wanted for end in ends)

    def _segment(
        self, segment: Segment, sender: tuple[str, int, int, int, bytes], t_ns: int
    ) -> Iterator[DnsMessageSeen | PacketSeen]:
        device, point = sender[0], Point.TX if sender[2] == OUTGOING else Point.RX
        ifindex, flow, tcp = self._index(device), segment.flow, segment.tcp
        key = (ifindex, point, flow)
        if tcp.flags & (SYN | RST):
            if tcp.syn:
                self._streams.syn(key, tcp.seq)
            yield PacketSeen(
                node=self.node,
                t_ns=t_ns,
                netns=self._inode,
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
                    netns=self._inode,
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
            names = inside(self._namespace, socket.if_nameindex)
            self._indexes = {name: index for index, name in names}
        return self._indexes.get(device, 0)

    @property
    def lost(self) -> int:
        """Packets that the socket's buffer had no room for, and streams of which a part was not seen."""
        self.dropped += refused_by(self._socket)
        return self.dropped + self._streams.lost

    def close(self) -> None:
        self._socket.close()
        os.close(self._namespace)
