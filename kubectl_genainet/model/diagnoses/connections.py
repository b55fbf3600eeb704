"""What becomes of a connection, beyond a drop that was seen."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.diagnosis import Diagnosis, Suspect, Topic
from kubectl_genainet.model.finding import Severity

ICMP_ERROR = Diagnosis(
    Topic.CONNECTIONS,
    "icmp-error",
    Severity.ERROR,
    "an ICMP error reached the sender; the drop itself was not seen",
    "A router or a host on the way does not let the packet pass, and says so.",
    "The source of the error is what rejected the packet.",
    "RFC 792, RFC 4443",
    symptom=True,
    follows=frozenset({"closed-port", "rejected-by-rule", "no-route", "packet-too-big", "ttl-expired"}),
)
ICMP_DROPPED = Diagnosis(
    Topic.CONNECTIONS,
    "icmp-dropped",
    Severity.ERROR,
    "the ICMP error that would have informed the sender was itself dropped",
    "The sender waits for its timeout: a black hole.",
    "Let ICMP errors pass (RELATED connections).",
    "RFC 2923",
    symptom=True,
    blames=frozenset({Suspect.MTU}),
)
ICMP_LIMITED = Diagnosis(
    Topic.CONNECTIONS,
    "icmp-limited",
    Severity.WARNING,
    "a rule rejects by ICMP, no error for this connection was seen, and the kernel's limit of ICMP errors held some back",
    "The sender waits for its timeout although a rule refuses it: errors are sent to a host once a second, after a few at once.",
    "Mend what the rule refuses. The limits are net.ipv4.icmp_ratelimit and icmp_msgs_per_sec.",
    "icmpv4_xrlim_allow, net/ipv4/icmp.c",
    symptom=True,
)
RESET_BY_APP = Diagnosis(
    Topic.CONNECTIONS,
    "reset-by-app",
    Severity.ERROR,
    "the server's TCP reset an established connection; no rule and no closed port was the cause",
    "The application ended it: it closed with data unread, crashed, or hit a limit.",
    "Look at the server's log and restarts at that time.",
    "enum sk_rst_reason, include/net/rstreason.h",
    blames=frozenset({Suspect.ANSWERS}),
)
SENT_AFTER_CLOSE = Diagnosis(
    Topic.CONNECTIONS,
    "sent-after-close",
    Severity.WARNING,
    "the client sent data long after the server had closed the connection, and the server's TCP answered with a reset",
    "The server closes idle connections sooner than the client gives them up; a request on such a connection fails.",
    "Set the idle timeout of the client, or of its connection pool, below the server's; have it retry such requests.",
    "RFC 9112, 9.3 and 9.5",
    blames=frozenset({Suspect.ANSWERS}),
)
RESET_BY_CLIENT = Diagnosis(
    Topic.CONNECTIONS,
    "reset-by-client",
    Severity.WARNING,
    "the client's TCP reset the connection",
    "The client gave up: its timeout expired, or the answer came from an address that it had not called.",
    "Compare the client's timeout with the server's response time.",
    follows=frozenset({"reply-not-translated"}),
    downstream=True,
)
RESET_BY_KERNEL = Diagnosis(
    Topic.CONNECTIONS,
    "reset-by-kernel",
    Severity.INFO,
    "TCP answered a packet with a reset",
    "The packet belongs to no connection there.",
    "Nothing, unless clients complain.",
    "enum sk_rst_reason, include/net/rstreason.h",
)
RESET_FROM_OUTSIDE = Diagnosis(
    Topic.CONNECTIONS,
    "reset-from-outside",
    Severity.WARNING,
    "a reset reached a socket; it came from where no agent looks, or no agent that looked saw it sent",
    "Another machine sent it, or a load balancer or a firewall on the way.",
    "Look at the devices between; idle timeouts of load balancers are a usual cause.",
)
RESET_ON_PATH = Diagnosis(
    Topic.CONNECTIONS,
    "reset-on-path",
    Severity.ERROR,
    "a reset that neither end was seen to send",
    "Something on the way made it: a proxy, a firewall, a policy enforcer that rejects.",
    "Look at the node where it was first seen.",
)
RESET_UNATTRIBUTED = Diagnosis(
    Topic.CONNECTIONS,
    "reset-unattributed",
    Severity.WARNING,
    "a connection was reset; whether its other end sent the reset is not known",
    "Records that would tell are missing: they were lost, or the sender's network namespace was not followed at that moment.",
    "Repeat the command; the finding says what was missing.",
    symptom=True,
)
CONNECTION_MOVED = Diagnosis(
    Topic.CONNECTIONS,
    "connection-moved",
    Severity.ERROR,
    "later packets of a connection went to another backend than its first, without a SYN",
    "Its entry in a node's connection table was gone: it expired while the connection was idle, was evicted or flushed.",
    "Send keepalives below nf_conntrack_tcp_timeout_established; look for early_drop in `conntrack -S`, and for what flushes.",
    "net/netfilter/nf_conntrack_proto_tcp.c",
)
DATAGRAMS_LOST = Diagnosis(
    Topic.CONNECTIONS,
    "datagrams-lost",
    Severity.WARNING,
    "some datagrams of a flow were dropped, others were answered",
    "The application sends them again, or lives without them; each costs a timeout.",
    "The path's drop says where and why.",
    symptom=True,
)
DETOUR = Diagnosis(
    Topic.CONNECTIONS,
    "detour",
    Severity.ERROR,
    "packets of a connection died on a node that neither end is on",
    "Another machine answers for the address of the next hop (an address used twice, a stale neighbour entry), or a route leads "
    "the wrong way.",
    "Compare `ip neigh` of the node before with the link addresses of both nodes; look for the address on every node.",
    "RFC 5227",
)
ROUTING_LOOP = Diagnosis(
    Topic.CONNECTIONS,
    "routing-loop",
    Severity.ERROR,
    "one packet passed the same device more than once, unchanged",
    "Nodes or routers send it to each other until its TTL (hop limit) runs out.",
    "Look at the routes of the places that it passed; a node's pod range needs a blackhole route for addresses without a pod.",
)
RETRANSMITS = Diagnosis(
    Topic.CONNECTIONS,
    "retransmits",
    Severity.INFO,
    "TCP retransmitted segments; where they were lost was not seen",
    "They were lost where no agent saw it, or were only late.",
    "Nothing, unless the connection is slow.",
    symptom=True,
)
UNACKNOWLEDGED = Diagnosis(
    Topic.CONNECTIONS,
    "unacknowledged",
    Severity.WARNING,
    "TCP retransmitted the same data after three timeouts in a row and more, and no drop was seen",
    "Packets or their acknowledgements are lost where no agent saw it: something forgot an idle connection, or a path is cut.",
    "`kubectl genainet trace` says between which places; compare idle times with those of load balancers and NAT gateways.",
    "RFC 6298; icsk_retransmits, include/net/inet_connection_sock.h",
    symptom=True,
)
STALE_ENDPOINT = Diagnosis(
    Topic.CONNECTIONS,
    "stale-endpoint",
    Severity.ERROR,
    "the rules sent the packet to an address that no EndpointSlice of the Service has",
    "The node's rules are older than the API's objects.",
    "Look at kube-proxy on that node; `kubectl genainet rules` compares its rules with the API's objects.",
    blames=frozenset({Suspect.ENDPOINTS, Suspect.RULES}),
)
STOPPED_ARRIVING = Diagnosis(
    Topic.CONNECTIONS,
    "stopped-arriving",
    Severity.ERROR,
    "packets of an established connection stopped arriving, and no drop was seen",
    "They are lost between the two places that the finding names, or where no agent looks.",
    "Look at what is between the two places: a cloud network, a tunnel, an MTU.",
)
UNANSWERED = Diagnosis(
    Topic.CONNECTIONS,
    "unanswered",
    Severity.WARNING,
    "first packets were not answered, and no drop was seen",
    "They were lost after the last place that saw them, or the server did not answer.",
    "Start from the last place that saw them.",
    symptom=True,
)
SLOW_BACKEND = Diagnosis(
    Topic.CONNECTIONS,
    "slow-backend",
    Severity.WARNING,
    "a backend's responses take five times the others' median and 50 ms or more",
    "One pod of the Service is slow: its node, its load, its GPU.",
    "Compare the pod with the others.",
    symptom=True,
    blames=frozenset({Suspect.ANSWERS}),
)
STREAM_STALLED = Diagnosis(
    Topic.CONNECTIONS,
    "stream-stalled",
    Severity.WARNING,
    "a reply paused for 3 s or more, and the server's TCP had nothing to send during that time",
    "The server had written nothing: it waited for a GPU, a queue, another service, or its garbage collector.",
    "Look at the server's own metrics for that time; compare with the other backends.",
    downstream=True,
    blames=frozenset({Suspect.ANSWERS}),
)
STREAM_HELD_UP = Diagnosis(
    Topic.CONNECTIONS,
    "stream-held-up",
    Severity.ERROR,
    "a reply paused for 3 s or more at the client, although the server had data to send",
    "Packets, or what acknowledges them, were lost on the way and sent again, or waited in a queue on it.",
    "Look for a rule, a policy, a queue or a device that changed at that time: `kubectl genainet drops`.",
)
STREAM_SILENT = Diagnosis(
    Topic.CONNECTIONS,
    "stream-silent",
    Severity.WARNING,
    "a reply paused for 3 s or more, and the packets do not show who was waited for",
    "The server's socket is out of sight, or it had data on its way all the time and may have had more to send.",
    "Watch the server's node as well, if it is not; compare with the server's own metrics for that time.",
    downstream=True,
    blames=frozenset({Suspect.ANSWERS}),
)
SLOW_HANDSHAKE = Diagnosis(
    Topic.CONNECTIONS,
    "slow-handshake",
    Severity.WARNING,
    "a SYN or SYN-ACK took 200 ms or more from one place to the next, between two nodes or inside one",
    "Packets wait there: in a queue that more is sent to than it lets through, for a node without CPU time, or on a long way.",
    "Look at that device's queue (`tc -s qdisc`), at its rate limits and what else it sends, and at the node's load.",
    blames=frozenset({Suspect.NODES}),
)
SLOW_FIRST_REPLY = Diagnosis(
    Topic.CONNECTIONS,
    "slow-first-reply",
    Severity.WARNING,
    "the first data of a reply left the server more than --slow (1 s) after the first data of the request arrived",
    "The network delivered. The application took its time, for example because a model's queue is full.",
    "Compare with the queue and the load of the server; --slow sets what is slow.",
    downstream=True,
    blames=frozenset({Suspect.ANSWERS}),
)
SLOW_FIRST_TOKEN = Diagnosis(
    Topic.CONNECTIONS,
    "slow-first-token",
    Severity.WARNING,
    "after the first piece of a reply nothing came for --slow (1 s) and more, then the rest came quickly",
    "The server sends its response header at once and computes then: the time to the first token is hidden behind it.",
    "Compare with the queue and the load of the server; `kubectl genainet trace --http` tells the header from the first token.",
    downstream=True,
    blames=frozenset({Suspect.ANSWERS}),
)
NO_REPLY = Diagnosis(
    Topic.CONNECTIONS,
    "no-reply",
    Severity.WARNING,
    "the client closed a connection that had carried a request but no reply",
    "The client gave up, or the protocol has no replies.",
    "Compare the client's timeout with the time that the server needs.",
    downstream=True,
    follows=frozenset({"listen-overflow"}),  # the kernel establishes what nobody accepts
    blames=frozenset({Suspect.ANSWERS}),
)
EARLY_END = Diagnosis(
    Topic.CONNECTIONS,
    "early-end",
    Severity.WARNING,
    "none of a backend's streams has a third of the bytes that are usual with the Service's other backends; so with their times",
    "The server closes them in order: it has a lower limit of tokens or time, fails and hides it, or is asked for less.",
    "Compare its settings and its log with those of the others (max_tokens, timeouts, memory).",
    blames=frozenset({Suspect.ANSWERS}),
)
IDLE_TIME = Diagnosis(
    Topic.CONNECTIONS,
    "idle-time",
    Severity.WARNING,
    "a connection was lost after a silence as long as a well-known idle time (15, 60, 350, 600 s)",
    "Something on the way forgets connections that have been idle that long.",
    "Have the server send something in between, or set keepalives below that time.",
)
PINNED_CONNECTION = Diagnosis(
    Topic.CONNECTIONS,
    "pinned-connection",
    Severity.WARNING,
    "one connection carries 80 % or more of what a Service is asked, though several backends are ready",
    "HTTP/2 and gRPC reuse one connection, and a Service chooses once per connection: the other backends idle.",
    "Balance requests, not connections: an HTTP/2 proxy, a headless Service with client-side balancing, a limit on age.",
)
