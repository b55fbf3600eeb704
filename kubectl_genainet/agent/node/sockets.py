"""Which ports have a socket that receives: TCP in LISTEN, UDP bound and not connected. By sock_diag(7)."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from pyroute2 import DiagSocket
from pyroute2.netlink.exceptions import NetlinkError

from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.node import Listener

# include/net/tcp_states.h; an unconnected UDP socket is in TCP_CLOSE.
_TCP_LISTEN, _TCP_CLOSE = 10, 7
MAX_LISTENERS = 500  # a namespace and protocol


def listeners(protocol: int) -> tuple[Listener, ...] | None:
    """The receiving sockets of the namespace that the caller is in, without repeats, in order of port and address.

    `protocol` is IPPROTO_TCP or IPPROTO_UDP. None where the kernel can't tell (no tcp_diag or udp_diag), and where
    there are more than MAX_LISTENERS: a part of them would tell of none that it isn't there.
    """
    try:
        with DiagSocket() as diag:
            listening = {item for family in (socket.AF_INET, socket.AF_INET6) for item in _read(diag, family, protocol)}
    except (OSError, NetlinkError):
        return None
    return tuple(sorted(listening, key=lambda i: (i.port, i.ip))) if len(listening) <= MAX_LISTENERS else None


def _read(diag: DiagSocket, family: int, protocol: int) -> Iterator[Listener]:
    """Source: include/uapi/linux/inet_diag.h, struct inet_diag_msg; INET_DIAG_SKV6ONLY comes with listening sockets."""
    state = _TCP_LISTEN if protocol == socket.IPPROTO_TCP else _TCP_CLOSE
    for message in diag.get_sock_stats(family=family, states=1 << state, protocol=protocol):
        if message["idiag_sport"]:
            v6only = dict(message["attrs"]).get("INET_DIAG_SKV6ONLY")
            yield Listener(canonical_ip(message["idiag_src"]), message["idiag_sport"], bool(v6only))
