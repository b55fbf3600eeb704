"""What sockets, and TCP behind them, do with packets."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.diagnosis import Diagnosis, Sentence, Suspect, Topic
from kubectl_genainet.model.finding import Severity

_REASONS = "include/net/dropreason-core.h"

CLOSED_PORT = Diagnosis(
    Topic.SOCKETS,
    "closed-port",
    Severity.ERROR,
    "the packet reached a namespace where no socket accepts it (NO_SOCKET)",
    "Nothing listens on the port; the sender gets a reset or an ICMP error.",
    "Compare the Service's targetPort with the port that the application listens on.",
    _REASONS,
    blames=frozenset({Suspect.ENDPOINTS}),
    follows=frozenset({"no-endpoints", "stale-endpoint"}),
)
UNKNOWN_CONNECTION = Diagnosis(
    Topic.SOCKETS,
    "unknown-connection",
    Severity.WARNING,
    "a segment of a running connection reached a namespace that has no such connection",
    "The connection was closed or lost there, or its entry in a node's connection table is gone and another backend was chosen.",
    "Look for idle timeouts shorter than the application's, and for endpoints that were replaced.",
)
REPLY_NOT_TRANSLATED = Diagnosis(
    Topic.SOCKETS,
    "reply-not-translated",
    Severity.ERROR,
    "an answer came from an address that the client had not called",
    "The Service's translation was not undone on the way back.",
    "The answer must pass through the node that translated the request: look for asymmetric routes and hairpin traffic.",
)
LATE_ANSWER = Diagnosis(
    Topic.SOCKETS,
    "late-answer",
    Severity.INFO,
    "an answer reached its client after the client had closed its socket",
    "The client had given up, or had what it needed. The server is not at fault.",
    "Nothing, unless the client's timeout is too short.",
    mild=True,
    symptom=True,
    follows=frozenset({"reply-not-translated"}),
)
SOCKET_BUFFER = Diagnosis(
    Topic.SOCKETS,
    "socket-buffer",
    Severity.ERROR,
    "the receive buffer of a socket is full",
    "The application does not read fast enough.",
    "Look at the application's CPU limit and throttling.",
    _REASONS,
    sentences=(
        Sentence(
            "the receive buffer of the socket in {place} is full: its application does not read fast enough",
            "SOCKET_RCVBUFF",
            "SOCKET_BACKLOG",
            "TCP_OFO_QUEUE_PRUNE",
            "TCP_OFO_DROP",
        ),
    ),
    blames=frozenset({Suspect.ANSWERS}),
)
SOCKET_MEMORY = Diagnosis(
    Topic.SOCKETS,
    "socket-memory",
    Severity.ERROR,
    "the memory that the kernel grants to sockets is used up",
    "Every socket of the node suffers.",
    "Find who holds it (`ss -m`); net.ipv4.tcp_mem and udp_mem set the limits.",
    _REASONS,
    sentences=(
        Sentence(
            "the memory that the kernel grants to sockets is used up in {place}", "PROTO_MEM", "NOMEM", "PFMEMALLOC"
        ),
    ),
)
LISTEN_OVERFLOW = Diagnosis(
    Topic.SOCKETS,
    "listen-overflow",
    Severity.ERROR,
    "the listen queue of a socket is full (ListenOverflows)",
    "The application accepts connections too slowly, or not at all.",
    "Look at the application; its backlog is bounded by net.core.somaxconn.",
    "tcp_v4_syn_recv_sock, net/ipv4/tcp_ipv4.c",
    sentences=(
        Sentence(
            "the listen queue of the socket in {place} is full: its application does not accept connections",
            "TCP_LISTEN_OVERFLOW",
        ),
    ),
    blames=frozenset({Suspect.ANSWERS}),
)
SYN_QUEUE_FULL = Diagnosis(
    Topic.SOCKETS,
    "syn-queue-full",
    Severity.ERROR,
    "the queue of half-open connections is full (TCPReqQFullDrop)",
    "SYNs are dropped silently while net.ipv4.tcp_syncookies is 0.",
    "Set net.ipv4.tcp_syncookies to 1; raise net.ipv4.tcp_max_syn_backlog and the application's backlog.",
    "tcp_conn_request, net/ipv4/tcp_input.c",
    blames=frozenset({Suspect.ANSWERS}),
)
SOCKET_FILTER = Diagnosis(
    Topic.SOCKETS,
    "socket-filter",
    Severity.ERROR,
    "a filter that the application attached to its socket rejects the packet",
    "The application decided so.",
    "Look at the application.",
    _REASONS,
    sentences=(
        Sentence("a filter that the application set on its socket in {place} rejects the packet", "SOCKET_FILTER"),
        Sentence(
            "the packet's TTL (hop limit) is below what the application in {place} asks for (IP_MINTTL)", "TCP_MINTTL"
        ),
    ),
)
TCP_SIGNATURE = Diagnosis(
    Topic.SOCKETS,
    "tcp-signature",
    Severity.ERROR,
    "the segment's TCP signature is missing, unexpected or wrong (MD5, TCP-AO)",
    "One end signs its segments and the other does not, or their keys differ. Address translation breaks the signature too.",
    "Compare the keys of both ends, and see whether the connection passes NAT.",
    _REASONS,
    sentences=(
        Sentence(
            "the socket in {place} wants TCP segments that are signed (MD5, TCP-AO), and the segment is not",
            "TCP_MD5NOTFOUND",
            "TCP_AONOTFOUND",
        ),
        Sentence(
            "the segment is signed (MD5, TCP-AO), and the socket in {place} has no key for it, or another",
            "TCP_AUTH_HDR",
            "TCP_MD5UNEXPECTED",
            "TCP_MD5FAILURE",
            "TCP_AOUNEXPECTED",
            "TCP_AOKEYNOTFOUND",
            "TCP_AOFAILURE",
        ),
    ),
)
TCP_OUT_OF_PLACE = Diagnosis(
    Topic.SOCKETS,
    "tcp-out-of-place",
    Severity.ERROR,
    "TCP does not accept the segment as part of this connection",
    "It belongs to another connection, is too old, or is outside the window.",
    "Nothing, as long as connections are established.",
    _REASONS,
    mild=True,
    sentences=(
        Sentence(
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
    ),
    symptom=True,
)
REPEATED_SEGMENT = Diagnosis(
    Topic.SOCKETS,
    "repeated-segment",
    Severity.INFO,
    "TCP freed a segment of a handshake that came again: a SYN of a half-open connection, or a SYN-ACK of an open one",
    "Its sender has not seen the answer, which was lost or is late.",
    "Look for where the SYN-ACK went: `kubectl genainet trace`.",
    mild=True,
)
