"""The kernel's words for dropped packets: reasons, and ICMP types.

SENTENCES holds the reasons that need no more than a sentence: the check, and what it means to an operator.

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
        "TCP_CSUM",
        "UDP_CSUM",
        "ICMP_CSUM",
        "IP_CSUM",
        "SKB_CSUM",
    ),
    **_each(
        "socket-buffer",
        "the receive buffer of the socket in {place} is full: its application does not read fast enough",
        "SOCKET_RCVBUFF",
        "SOCKET_BACKLOG",
        "TCP_OFO_QUEUE_PRUNE",
        "TCP_OFO_DROP",
    ),
    **_each(
        "socket-memory", "the memory that the kernel grants to sockets is used up in {place}", "PROTO_MEM", "NOMEM"
    ),
    **_each(
        "listen-overflow",
        "the listen queue of the socket in {place} is full: its application does not accept connections",
        "TCP_LISTEN_OVERFLOW",
    ),
    **_each(
        "queue-full",
        "the queue of {device} in {place} has no room: more is sent than the device (or its rate limit) takes",
        "QDISC_DROP",
        "QDISC_OVERLIMIT",
        "QDISC_CONGESTED",
        "FULL_RING",
        "CAKE_FLOOD",
        "FQ_BAND_LIMIT",
        "FQ_HORIZON_LIMIT",
        "FQ_FLOW_LIMIT",
        "DUALPI2_STEP_DROP",
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
        "IP_INVALID_SOURCE",
        "IP_LOCAL_SOURCE",
        "IP_LOCALNET",
        "IP_INVALID_DEST",
        "IP_INADDRERRORS",
        "MAC_INVALID_SOURCE",
    ),
    **_each(
        "bad-header", "the packet's IP header is malformed", "IP_INHDR", "HDR_TRUNC", "PKT_TOO_SMALL", "IPV6_BAD_EXTHDR"
    ),
    **_each(
        "no-protocol",
        "nothing in {place} takes packets of this protocol",
        "IP_NOPROTO",
        "UNHANDLED_PROTO",
        "INVALID_PROTO",
    ),
    **_each("ipv6-disabled", "IPv6 is disabled on {device} in {place}", "IPV6DISABLED"),
    **_each(
        "other-host", "the packet's MAC address is another machine's, and it reached {device} all the same", "OTHERHOST"
    ),
    **_each("ipsec-policy", "an IPsec policy of {place} does not let the packet pass", "XFRM_POLICY"),
    **_each(
        "socket-filter", "a filter that the application set on its socket in {place} does not want it", "SOCKET_FILTER"
    ),
    **_each(
        "security-module", "a security module (SELinux, AppArmor) of the node does not let it pass", "SECURITY_HOOK"
    ),
    **_each(
        "tunnel",
        "the tunnel device {device} in {place} does not know the packet's network, or has a header that it does not expect",
        "VXLAN_INVALID_HDR",
        "VXLAN_VNI_NOT_FOUND",
        "VXLAN_ENTRY_EXISTS",
        "TUNNEL_TXINFO",
        "IP_TUNNEL_ECN",
    ),
    **_each(
        "fragments",
        "fragments of a packet did not all arrive in time",
        "FRAG_REASM_TIMEOUT",
        "FRAG_TOO_FAR",
        "DUP_FRAG",
    ),
    **_each(
        "tcp-out-of-place",
        "TCP in {place} takes the segment for none of this connection: another connection's, too old, or out of the window",
        "TCP_RFC7323_PAWS",
        "TCP_RFC7323_PAWS_ACK",
        "TCP_RFC7323_TW_PAWS",
        "TCP_RFC7323_TSECR",
        "TCP_OVERWINDOW",
        "TCP_INVALID_SEQUENCE",
        "TCP_INVALID_END_SEQUENCE",
        "TCP_INVALID_ACK_SEQUENCE",
        "TCP_FLAGS",
        "TCP_INVALID_SYN",
    ),
}

# Kernels before 5.17 give no reasons. These functions of theirs free a packet for one reason only (net/netfilter/core.c,
# net/ipv4/arp.c, net/ipv6/ndisc.c, net/core/dev.c, net/ipv4/ip_output.c).
REASON_OF_LOCATION = {
    "nf_hook_slow": "NETFILTER_DROP",
    "arp_error_report": "NEIGH_FAILED",
    "ndisc_error_report": "NEIGH_FAILED",
    "enqueue_to_backlog": "CPU_BACKLOG",
    "ip_fragment": "PKT_TOO_BIG",
}

# Before 6.3 an ICMPv6 packet that was taken ends here as one that was not (net/ipv6/icmp.c).
TAKEN_AT = {"icmpv6_rcv": "CONSUMED"}

# Where a packet without a reason is freed in the normal course of things: the last packets of a closed connection
# (TIME_WAIT, net/ipv4/tcp_ipv4.c), segments out of order that a closed socket still held
# (tcp_disconnect, inet_csk_destroy_sock), multicast that nobody here listens to (net/ipv6/ip6_input.c).
BACKGROUND_LOCATIONS = frozenset(
    {
        "tcp_v4_rcv",
        "tcp_v6_rcv",
        "skb_rbtree_purge",
        "ip6_mc_input",
        "ip_mc_validate_source",
        # A GSO packet that was cut into segments, each of which has a fate of its own (tbf_segment, net/sched/sch_tbf.c).
        "tbf_enqueue",
        "tbf_segment",
    }
)
NO_REASON = frozenset({"", "NOT_SPECIFIED"})


def is_background(reason: str, location: str, *, opening: bool, multicast: bool) -> bool:
    """Whether a drop is one of those that a healthy network always has, and that mean nothing was lost."""
    if multicast:
        return reason in NO_REASON or reason in ("OTHERHOST", "IP_NOPROTO", "NO_SOCKET")
    return reason in NO_REASON and location in BACKGROUND_LOCATIONS and not opening


def function_of(symbol: str) -> str:
    """ "ip_error+0x12" and "ip_error.isra.0" as "ip_error"."""
    return symbol.partition("+")[0].partition(".")[0]


# Reasons for which the kernel frees packets in the normal course of a connection, at its socket: nothing was lost.
# Names are the kernel's (include/net/dropreason-core.h); a name that a kernel does not know simply never comes.
HARMLESS_REASONS = frozenset(
    {
        "CONSUMED",
        "QUEUE_PURGE",
        "SOCKET_CLOSE",
        "SOCKET_DESTROYED",
        "TCP_CLOSE",
        "TCP_TIMEWAIT",
        "TCP_OLD_DATA",
        "TCP_OLD_ACK",
        "TCP_OLD_SEQUENCE",
        "TCP_OVERLAP",
        "TCP_ZEROWINDOW",
        "TCP_ACK_UNSENT_DATA",
        "TCP_RESET",
        "TCP_ABORT_ON_DATA",
        "TCP_ABORT_ON_CLOSE",
        "TCP_ABORT_ON_LINGER",
        "TCP_FASTOPEN",
        "TCP_TOO_OLD_ACK",
        "SKB_GSO_SEG",
    }
)

# RFC 792, RFC 1812 5.2.7.1, RFC 4443
_ICMP4 = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed",
    (3, 9): "network prohibited",
    (3, 10): "host prohibited",
    (3, 13): "administratively prohibited",
    (11, 0): "TTL exceeded",
}
_ICMP6 = {
    (1, 0): "no route",
    (1, 1): "administratively prohibited",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (1, 5): "policy",
    (2, 0): "packet too big",
    (3, 0): "hop limit exceeded",
}


def icmp_meaning(family: int, kind: int, code: int) -> str:
    """What an ICMP error of `family` (4 or 6) means; its type and code where it has no name here."""
    return (_ICMP4 if family == 4 else _ICMP6).get((kind, code), f"type {kind} code {code}")
