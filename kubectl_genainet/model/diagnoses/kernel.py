"""What the kernel itself does with packets: routes, neighbours, devices, sockets, headers."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.diagnosis import Diagnosis
from kubectl_genainet.model.finding import Severity

_REASONS = "include/net/dropreason-core.h"

CLOSED_PORT = Diagnosis(
    "closed-port",
    Severity.ERROR,
    "the packet reached a namespace where no socket takes it (NO_SOCKET)",
    "Nothing listens on the port; the sender is told by a reset or an ICMP error.",
    "Compare the Service's targetPort with the port that the application listens on.",
    _REASONS,
)
UNKNOWN_CONNECTION = Diagnosis(
    "unknown-connection",
    Severity.WARNING,
    "a segment of a running connection reached a namespace that has no such connection",
    "The connection was closed or lost there, or its entry in a node's connection table is gone and the rules chose anew.",
    "Look for idle timeouts shorter than the application's, and for endpoints that were replaced.",
)
REPLY_NOT_TRANSLATED = Diagnosis(
    "reply-not-translated",
    Severity.ERROR,
    "an answer came from another address than the one that the client had asked",
    "The Service's translation was not undone on the way back.",
    "The answer must pass the node that translated the request: look for asymmetric routes, and for hairpin traffic.",
)
LATE_ANSWER = Diagnosis(
    "late-answer",
    Severity.INFO,
    "an answer reached its client, whose socket was closed already",
    "The client had given up, or had what it wanted. No fault of the server.",
    "Nothing, unless the client's timeout is too short.",
    mild=True,
)
RP_FILTER = Diagnosis(
    "rp-filter",
    Severity.ERROR,
    "the reverse path filter dropped the packet (IP_RPFILTER)",
    "The way back to the source does not go out by the device that the packet came in by.",
    "Mend the route, or set net.ipv4.conf.DEVICE.rp_filter to 2 (loose).",
    "RFC 3704",
)
NO_ROUTE = Diagnosis(
    "no-route",
    Severity.ERROR,
    "there is no route to the destination",
    "The namespace's routing table does not know the address.",
    "Look at the network plugin on that node: the pod network's route is missing.",
    "net/ipv4/route.c, net/ipv6/route.c",
)
NEIGHBOUR_FAILED = Diagnosis(
    "neighbour-failed",
    Severity.ERROR,
    "the next hop did not answer (ARP, Neighbor Discovery)",
    "The next hop is down, or the address belongs to a pod that is gone.",
    "Check that the next hop is up and on that link.",
    _REASONS,
)
PACKET_TOO_BIG = Diagnosis(
    "packet-too-big",
    Severity.ERROR,
    "the packet is larger than the next device's MTU and must not be fragmented",
    "The sender is told to send smaller packets.",
    "Set the pods' MTU to what the tunnel leaves of the nodes' MTU.",
    "RFC 1191, RFC 8201",
)
MTU_BLACKHOLE = Diagnosis(
    "mtu-blackhole",
    Severity.ERROR,
    "the packet is too big, and the ICMP error that would tell its sender is dropped too",
    "Connections open, and hang at the first large packet.",
    "Let ICMP errors pass, and set the pods' MTU to what the tunnel leaves.",
    "RFC 2923",
)
TTL_EXPIRED = Diagnosis(
    "ttl-expired",
    Severity.ERROR,
    "the packet's TTL (hop limit) ran out where packets are forwarded",
    "Nodes or routers send it in a circle, or its sender allowed too few hops.",
    "Compare the routes of the nodes that the path shows.",
    "ip_forward, net/ipv4/ip_forward.c",
)
EBPF_DROP = Diagnosis(
    "ebpf-drop",
    Severity.ERROR,
    "a tc, XDP or cgroup program dropped the packet",
    "An eBPF data plane decides here: Cilium, the VPC CNI's policy agent.",
    "The policies' verdict is put beside it; the data plane's own tool knows its reason.",
    _REASONS,
)
DATA_PLANE = Diagnosis(
    "data-plane",
    Severity.ERROR,
    "a subsystem with reasons of its own dropped the packet (Open vSwitch)",
    "This data plane decides here: OVN-Kubernetes, Antrea.",
    "The data plane's own tool knows what its reason means (ovs-appctl, ovn-trace).",
    _REASONS,
)
CHECKSUM = Diagnosis(
    "checksum",
    Severity.ERROR,
    "a checksum is wrong",
    "The packet was damaged on the way, or a device's offload is at fault.",
    "Turn the device's checksum offload off (`ethtool -K DEVICE tx off`) and see whether it ends.",
    _REASONS,
)
SOCKET_BUFFER = Diagnosis(
    "socket-buffer",
    Severity.ERROR,
    "the receive buffer of a socket is full",
    "The application does not read fast enough.",
    "Look at the application's CPU limit and throttling.",
    _REASONS,
)
SOCKET_MEMORY = Diagnosis(
    "socket-memory",
    Severity.ERROR,
    "the memory that the kernel grants to sockets is used up",
    "Every socket of the node suffers.",
    "Find who holds it (`ss -m`); net.ipv4.tcp_mem and udp_mem set the limits.",
    _REASONS,
)
LISTEN_OVERFLOW = Diagnosis(
    "listen-overflow",
    Severity.ERROR,
    "the listen queue of a socket is full (ListenOverflows)",
    "The application does not accept connections fast enough, or no more at all.",
    "Look at the application; its backlog is bounded by net.core.somaxconn.",
    "tcp_v4_syn_recv_sock, net/ipv4/tcp_ipv4.c",
)
SYN_QUEUE_FULL = Diagnosis(
    "syn-queue-full",
    Severity.ERROR,
    "the queue of half-open connections is full (TCPReqQFullDrop)",
    "SYNs are dropped without a word while net.ipv4.tcp_syncookies is 0.",
    "Set net.ipv4.tcp_syncookies to 1; raise net.ipv4.tcp_max_syn_backlog and the application's backlog.",
    "tcp_conn_request, net/ipv4/tcp_input.c",
)
QUEUE_FULL = Diagnosis(
    "queue-full",
    Severity.ERROR,
    "the queue of a device, or the backlog of a CPU, has no room",
    "More is sent than the device, its rate limit or the CPU takes.",
    "Look for a bandwidth annotation of the pod, and at the node's load.",
    _REASONS,
)
DEVICE_DOWN = Diagnosis(
    "device-down",
    Severity.ERROR,
    "the device is not ready to send",
    "It is down, or is being set up.",
    "Look at the pod or node that owns the device.",
    _REASONS,
)
MARTIAN_ADDRESS = Diagnosis(
    "martian-address",
    Severity.ERROR,
    "an address of the packet may not be used there",
    "A loopback, a broadcast or the namespace's own address as source: a rule translated it wrongly, or it is forged.",
    "Look at the translation that the path shows.",
    _REASONS,
)
BAD_HEADER = Diagnosis(
    "bad-header",
    Severity.ERROR,
    "the packet's IP header is malformed",
    "Something on the way damaged it, or made it so.",
    "The hops of the packet show where it came from.",
    _REASONS,
)
NO_PROTOCOL = Diagnosis(
    "no-protocol",
    Severity.ERROR,
    "nothing takes packets of this protocol",
    "The IP protocol is not handled in that namespace.",
    "Look at what sends it.",
    _REASONS,
)
IPV6_DISABLED = Diagnosis(
    "ipv6-disabled",
    Severity.ERROR,
    "IPv6 is disabled on the device",
    "The cluster uses an address family that the namespace does not.",
    "Set net.ipv6.conf.DEVICE.disable_ipv6 to 0, or make the Service single-stack.",
    _REASONS,
)
OTHER_HOST = Diagnosis(
    "other-host",
    Severity.ERROR,
    "the packet's MAC address is another machine's",
    "A bridge floods it, or a neighbour entry is stale.",
    "Nothing, as long as connections come about.",
    _REASONS,
    mild=True,
)
IPSEC_POLICY = Diagnosis(
    "ipsec-policy",
    Severity.ERROR,
    "an IPsec policy does not let the packet pass",
    "It came in clear where encryption is required, or no state matches.",
    "Compare `ip xfrm policy` and `ip xfrm state` on both nodes.",
    _REASONS,
)
SOCKET_FILTER = Diagnosis(
    "socket-filter",
    Severity.ERROR,
    "a filter that the application set on its socket does not want the packet",
    "The application decided it.",
    "Look at the application.",
    _REASONS,
)
SECURITY_MODULE = Diagnosis(
    "security-module",
    Severity.ERROR,
    "a security module (SELinux, AppArmor) does not let the packet pass",
    "The node's policy for that process forbids it.",
    "Look at the node's audit log.",
    _REASONS,
)
TUNNEL = Diagnosis(
    "tunnel",
    Severity.ERROR,
    "the tunnel device does not know the packet's network",
    "The nodes' tunnels are set up differently, or two overlays share a port.",
    "Compare the tunnels' VNI and port on both nodes.",
    _REASONS,
)
FRAGMENTS = Diagnosis(
    "fragments",
    Severity.ERROR,
    "fragments of a packet did not all arrive in time",
    "One fragment is lost each time: a firewall that drops fragments, or a full link.",
    "Send packets that need no fragments: lower the MTU.",
    _REASONS,
)
TCP_OUT_OF_PLACE = Diagnosis(
    "tcp-out-of-place",
    Severity.ERROR,
    "TCP takes the segment for none of this connection",
    "Another connection's, too old, or out of the window.",
    "Nothing, as long as connections come about.",
    _REASONS,
    mild=True,
)
UNEXPLAINED = Diagnosis(
    "unexplained",
    Severity.WARNING,
    "the kernel freed the packet; its reason has no explanation here",
    "The reason and the function that freed it are all that is known.",
    "The kernel's source at `drop.location` says when.",
    _REASONS,
)
REPEATED_SEGMENT = Diagnosis(
    "repeated-segment",
    Severity.INFO,
    "TCP freed a segment without a reason, as it does with a repeated SYN of a half-open connection",
    "Its sender has not seen the answer: that was lost, or is late.",
    "Look for where the SYN-ACK went: `kubectl genainet trace`.",
    mild=True,
)
PEER_REFUSED = Diagnosis(
    "peer-refused",
    Severity.ERROR,
    "the other end of a veth did not take the packet (__dev_forward_skb)",
    "The packet is larger than that end's MTU, or that end is down. Nobody tells the sender: a black hole.",
    "Compare the MTU of both ends of the pair.",
    "net/core/dev.c (is_skb_forwardable)",
)
KERNEL: tuple[Diagnosis, ...] = (
    CLOSED_PORT,
    UNKNOWN_CONNECTION,
    REPLY_NOT_TRANSLATED,
    LATE_ANSWER,
    RP_FILTER,
    NO_ROUTE,
    NEIGHBOUR_FAILED,
    PACKET_TOO_BIG,
    MTU_BLACKHOLE,
    TTL_EXPIRED,
    EBPF_DROP,
    DATA_PLANE,
    CHECKSUM,
    SOCKET_BUFFER,
    SOCKET_MEMORY,
    LISTEN_OVERFLOW,
    SYN_QUEUE_FULL,
    QUEUE_FULL,
    DEVICE_DOWN,
    MARTIAN_ADDRESS,
    BAD_HEADER,
    NO_PROTOCOL,
    IPV6_DISABLED,
    OTHER_HOST,
    IPSEC_POLICY,
    SOCKET_FILTER,
    SECURITY_MODULE,
    TUNNEL,
    FRAGMENTS,
    TCP_OUT_OF_PLACE,
    UNEXPLAINED,
    REPEATED_SEGMENT,
    PEER_REFUSED,
)
