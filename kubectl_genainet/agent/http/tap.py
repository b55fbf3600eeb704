"""Heads of HTTP/1.1 messages, read with a packet socket in the node's network namespace, as tcpdump would.

A filter in the kernel keeps all from it but segments of the traced ports that begin as a message does, and of these it
takes the first bytes only. Encrypted connections never begin so.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator

from kubectl_genainet.agent.http.head import BEGINS, read_head
from kubectl_genainet.agent.node.netns import inside
from kubectl_genainet.agent.node.segments import (
    OUTGOING,
    arrival_ns,
    attach_filter,
    packet_socket,
    parse_segment,
    refused_by,
    segment_filter,
)
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import HttpHead, Point
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.wire import FilterEntry

MOST = 4096  # bytes of a packet that are taken
_BATCH = 500  # packets a poll: the other probes want their turn


class HttpTap:
    """Gives the heads since the last time from `poll`. Raises GenainetError where the socket is refused."""

    def __init__(self, node: str, host_netns: str) -> None:
        self.node = node
        self._namespace = os.open(host_netns, os.O_RDONLY | os.O_CLOEXEC)
        self._inode = os.fstat(self._namespace).st_ino
        self._buffer = bytearray(MOST)
        self._ends: frozenset[tuple[str, int]] = frozenset()
        self._refused = 0
        try:
            self._socket = inside(self._namespace, packet_socket)
        except OSError as error:
            os.close(self._namespace)
            raise GenainetError(f"HTTP is not read: a packet socket needs CAP_NET_RAW ({error.strerror})") from None

    def configure(self, filters: Iterable[FilterEntry]) -> None:
        """Follows these ends from now on. An entry without a port is left out: of a whole address nothing is read."""
        ends = frozenset((f.ip, f.port) for f in filters if f.protocol in ("", "TCP") and f.port)
        if ends != self._ends:
            self._ends = ends
            attach_filter(self._socket, segment_filter({port for _, port in ends}, BEGINS, MOST))

    def poll(self) -> Iterator[HttpHead]:
        """The heads that have passed since the last time."""
        for _ in range(_BATCH):
            try:
                size, extra, _, sender = self._socket.recvmsg_into([self._buffer], 64, socket.MSG_TRUNC)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENETDOWN, errno.EINTR):
                    return
                raise
            segment = parse_segment(bytes(self._buffer[: min(size, MOST)]), size)
            if segment is None or not self._concerns(segment.flow):
                continue
            head = read_head(segment.payload)
            if head is not None:
                yield HttpHead(
                    node=self.node,
                    t_ns=arrival_ns(extra),
                    netns=self._inode,
                    device=sender[0],
                    point=Point.TX if sender[2] == OUTGOING else Point.RX,
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
        self._refused += refused_by(self._socket)
        return self._refused

    def close(self) -> None:
        self._socket.close()
        os.close(self._namespace)
