"""Kernel reasons that need no more than a sentence: the reason's name, the check, and what it means to an operator.

Names are those of include/net/dropreason-core.h without their prefix; one that a kernel does not know never comes.
`{place}` is the pod or node in whose namespace the packet was, `{device}` the device.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sentence:
    check: str
    text: str


def _each(check: str, text: str, *reasons: str) -> dict[str, Sentence]:
    return dict.fromkeys(reasons, Sentence(check, text))


SENTENCES: dict[str, Sentence] = {
    **_each(
        "checksum",
        "a checksum is wrong in {place}: the packet was damaged on the way, or an offload of {device} is at fault",
        "TCP_CSUM", "UDP_CSUM", "ICMP_CSUM", "IP_CSUM", "SKB_CSUM",
    ),
    **_each(
        "socket-buffer",
        "the receive buffer of the socket in {place} is full: its application does not read fast enough",
        "SOCKET_RCVBUFF", "SOCKET_BACKLOG", "TCP_OFO_QUEUE_PRUNE", "TCP_OFO_DROP",
    ),
    **_each("socket-memory", "the memory that the kernel grants to sockets is used up in {place}", "PROTO_MEM", "NOMEM"),
    **_each(
        "listen-overflow",
        "the listen queue of the socket in {place} is full: its application does not accept connections",
        "TCP_LISTEN_OVERFLOW",
    ),
    **_each(
        "queue-full",
        "the queue of {device} in {place} has no room: more is sent than the device (or its rate limit) takes",
        "QDISC_DROP", "QDISC_OVERLIMIT", "QDISC_CONGESTED", "FULL_RING", "CAKE_FLOOD", "FQ_BAND_LIMIT", "FQ_HORIZON_LIMIT",
        "FQ_FLOW_LIMIT", "DUALPI2_STEP_DROP",
    ),
    **_each(
        "queue-full",
        "the backlog of a CPU of the node is full (net.core.netdev_max_backlog): packets arrive faster than they are taken",
        "CPU_BACKLOG",
    ),
    **_each("device-down", "{device} in {place} is not ready to send", "DEV_READY", "DEV_HDR", "NO_TX_TARGET"),
    **_each(
        "martian-address",
        "an address of the packet may not be used so in {place} (a martian: loopback, broadcast or its own address as source)",
        "IP_INVALID_SOURCE", "IP_LOCAL_SOURCE", "IP_LOCALNET", "IP_INVALID_DEST", "IP_INADDRERRORS", "MAC_INVALID_SOURCE",
    ),
    **_each("bad-header", "the packet's IP header is malformed", "IP_INHDR", "HDR_TRUNC", "PKT_TOO_SMALL", "IPV6_BAD_EXTHDR"),
    **_each("no-protocol", "nothing in {place} takes packets of this protocol", "IP_NOPROTO", "UNHANDLED_PROTO", "INVALID_PROTO"),
    **_each("ipv6-disabled", "IPv6 is disabled on {device} in {place}", "IPV6DISABLED"),
    **_each("other-host", "the packet's MAC address is another machine's, and it reached {device} all the same", "OTHERHOST"),
    **_each("ipsec-policy", "an IPsec policy of {place} does not let the packet pass", "XFRM_POLICY"),
    **_each("socket-filter", "a filter that the application set on its socket in {place} does not want it", "SOCKET_FILTER"),
    **_each("security-module", "a security module (SELinux, AppArmor) of the node does not let it pass", "SECURITY_HOOK"),
    **_each(
        "tunnel",
        "the tunnel device {device} in {place} does not know the packet's network, or has a header that it does not expect",
        "VXLAN_INVALID_HDR", "VXLAN_VNI_NOT_FOUND", "VXLAN_ENTRY_EXISTS", "TUNNEL_TXINFO", "IP_TUNNEL_ECN",
    ),
    **_each("fragments", "fragments of a packet did not all arrive in time", "FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR", "DUP_FRAG"),
    **_each(
        "tcp-out-of-place",
        "TCP in {place} takes the segment for none of this connection: another connection's, too old, or out of the window",
        "TCP_RFC7323_PAWS", "TCP_RFC7323_PAWS_ACK", "TCP_RFC7323_TW_PAWS", "TCP_RFC7323_TSECR", "TCP_OVERWINDOW",
        "TCP_INVALID_SEQUENCE", "TCP_INVALID_END_SEQUENCE", "TCP_INVALID_ACK_SEQUENCE", "TCP_FLAGS", "TCP_INVALID_SYN",
    ),
}  # fmt: skip

# Where a packet without a reason is freed in the normal course of things: the last packets of a closed connection
# (TIME_WAIT, net/ipv4/tcp_ipv4.c), segments out of order that a closed socket still held
# (tcp_disconnect, inet_csk_destroy_sock), multicast that nobody here listens to (net/ipv6/ip6_input.c).
BACKGROUND_LOCATIONS = frozenset(
    {"tcp_v4_rcv", "tcp_v6_rcv", "skb_rbtree_purge", "ip6_mc_input", "ip_mc_validate_source"}
)
NO_REASON = frozenset({"", "NOT_SPECIFIED"})


def is_background(reason: str, location: str, *, opening: bool, multicast: bool) -> bool:
    """Whether a drop is one of those that a healthy network always has, and that mean nothing was lost."""
    if multicast:
        return reason in NO_REASON or reason in ("OTHERHOST", "IP_NOPROTO", "NO_SOCKET")
    return reason in NO_REASON and location in BACKGROUND_LOCATIONS and not opening
