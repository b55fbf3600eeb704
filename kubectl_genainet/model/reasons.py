"""The kernel's words for dropped packets: reasons, the functions that free packets, and ICMP types.

What a reason means to an operator is in the registry of diagnoses (`model/diagnoses`).
"""

from __future__ import annotations

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
# (tcp_disconnect, inet_csk_destroy_sock), what a socket that goes away had received and nobody had read, as the peer's FIN
# (net/core/stream.c, net/ipv4/af_inet.c; kernels that have the reason call it QUEUE_PURGE), multicast that nobody here
# listens to (net/ipv6/ip6_input.c).
BACKGROUND_LOCATIONS = frozenset(
    {
        "tcp_v4_rcv",
        "tcp_v6_rcv",
        "skb_rbtree_purge",
        "sk_stream_kill_queues",
        "inet_sock_destruct",
        "ip6_mc_input",
        "ip_mc_validate_source",
        # A plain ACK that a closing connection has taken in: it had the other side's FIN already (net/ipv4/tcp_input.c).
        "tcp_rcv_state_process",
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


# Where the kernel looks for the socket that takes a packet; before 5.17 it gives no reason where there is none.
SOCKET_LOOKUPS = frozenset({"tcp_v4_rcv", "tcp_v6_rcv", "__udp4_lib_rcv", "__udp6_lib_rcv"})


def rules_may_explain(reason: str, location: str, *, opening: bool) -> bool:
    """Whether the packet rules of the namespace in which a packet died may be why: they dropped it, or sent it to a port
    where nothing listens."""
    if reason in ("NETFILTER_DROP", "NO_SOCKET"):
        return True
    return opening and not reason and function_of(location) in SOCKET_LOOKUPS


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
        "TCP_OFOMERGE",
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
