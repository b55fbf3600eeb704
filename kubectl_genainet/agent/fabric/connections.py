"""The established TCP connections of a network namespace, with how many bytes each has carried. By sock_diag(7)."""

from __future__ import annotations

import heapq
import socket
from collections.abc import Iterator

from pyroute2 import DiagSocket

from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.fabric import NamespaceConnections, TcpConnection

_ESTABLISHED = 1  # include/net/tcp_states.h
_INFO = 1 << 1  # INET_DIAG_INFO, as a bit of idiag_ext (include/uapi/linux/inet_diag.h)
MAX_CONNECTIONS = 500  # of a namespace: those that have carried most
MAX_READ = 50_000


def connections(inode: int) -> NamespaceConnections:
    """Of the namespace that the caller is in, whose number is `inode`; the loopback's are left out."""
    measured = []
    left_out = 0
    with DiagSocket() as diag:
        for family in (socket.AF_INET, socket.AF_INET6):
            for number, connection in enumerate(_read(diag, family)):
                if number < MAX_READ:
                    measured.append(connection)
                else:
                    left_out += 1
    kept = heapq.nlargest(MAX_CONNECTIONS, measured, key=lambda c: c.sent + c.received)
    return NamespaceConnections(inode, tuple(kept), left_out + len(measured) - len(kept))


def _read(diag: DiagSocket, family: int) -> Iterator[TcpConnection]:
    answers = diag.get_sock_stats(
        family=family, states=1 << _ESTABLISHED, protocol=socket.IPPROTO_TCP, extensions=_INFO
    )
    for message in answers:
        local, remote = canonical_ip(message["idiag_src"]), canonical_ip(message["idiag_dst"])
        info = dict(message["attrs"]).get("INET_DIAG_INFO")
        if info is None or local.startswith("127.") or local == "::1":
            continue
        yield TcpConnection(
            local,
            message["idiag_sport"],
            remote,
            message["idiag_dport"],
            info["tcpi_bytes_acked"],
            info["tcpi_bytes_received"],
        )
