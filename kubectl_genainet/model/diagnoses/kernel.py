"""What the kernel itself does with packets: routes, neighbours, devices, headers."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.diagnosis import Diagnosis, Sentence, Suspect, Topic
from kubectl_genainet.model.finding import Severity

_REASONS = "include/net/dropreason-core.h"

RP_FILTER = Diagnosis(
    Topic.KERNEL,
    "rp-filter",
    Severity.ERROR,
    "the reverse path filter dropped the packet (IP_RPFILTER)",
    "The route back to the source does not use the device on which the packet arrived.",
    "Fix the route, or set net.ipv4.conf.DEVICE.rp_filter to 2 (loose).",
    "RFC 3704",
)
NO_ROUTE = Diagnosis(
    Topic.KERNEL,
    "no-route",
    Severity.ERROR,
    "there is no route to the destination",
    "The namespace's routing table has no entry for the address, or one that refuses it (unreachable, prohibit, blackhole).",
    "Look at the network plugin on that node: the pod network's route is missing.",
    "net/ipv4/route.c, net/ipv6/route.c",
    follows=frozenset({"stale-endpoint"}),
)
FORWARDING_OFF = Diagnosis(
    Topic.KERNEL,
    "forwarding-off",
    Severity.ERROR,
    "the namespace does not forward packets",
    "Forwarding is switched off there: a sysctl was reset by a boot script, a firewall's start or a security baseline.",
    "Set net.ipv4.ip_forward (net.ipv6.conf.all.forwarding) to 1, and find what resets it (/etc/sysctl.d, cloud-init).",
    "ip_error, net/ipv4/route.c; ip6_forward, net/ipv6/ip6_output.c",
)
NEIGHBOUR_FAILED = Diagnosis(
    Topic.KERNEL,
    "neighbour-failed",
    Severity.ERROR,
    "the next hop did not answer (ARP, Neighbor Discovery)",
    "The next hop is down, or the address belongs to a pod that is gone.",
    "Check that the next hop is up and on that link.",
    _REASONS,
    follows=frozenset({"stale-endpoint"}),
)
NEIGHBOUR_TABLE_FULL = Diagnosis(
    Topic.KERNEL,
    "neighbour-table-full",
    Severity.ERROR,
    "the kernel made no neighbour entry for the next hop",
    "The neighbour table is full, as on nodes with many pods or a large subnet, or the device is going away.",
    "Compare `ip -s neigh | wc -l` with net.ipv4.neigh.default.gc_thresh3 (net.ipv6 for IPv6), and raise it on the node.",
    "ip_finish_output2, net/ipv4/ip_output.c; neigh_alloc, net/core/neighbour.c",
    sentences=(
        Sentence(
            "{place} made no neighbour entry for the next hop: the table is full (gc_thresh3), or the device is going away",
            "NEIGH_CREATEFAIL",
        ),
    ),
)
PACKET_TOO_BIG = Diagnosis(
    Topic.KERNEL,
    "packet-too-big",
    Severity.ERROR,
    "the packet is larger than the next device's MTU and must not be fragmented",
    "An ICMP error tells the sender to send smaller packets.",
    "Set the pods' MTU to the nodes' MTU less the tunnel's overhead.",
    "RFC 1191, RFC 8201",
    symptom=True,
    blames=frozenset({Suspect.MTU}),
)
MTU_BLACKHOLE = Diagnosis(
    Topic.KERNEL,
    "mtu-blackhole",
    Severity.ERROR,
    "the packet is too big, and the ICMP error that would tell its sender is dropped too",
    "Connections open, then hang at the first large packet.",
    "Let ICMP errors pass, and set the pods' MTU to the nodes' MTU less the tunnel's overhead.",
    "RFC 2923",
    blames=frozenset({Suspect.MTU}),
)
TTL_EXPIRED = Diagnosis(
    Topic.KERNEL,
    "ttl-expired",
    Severity.ERROR,
    "the packet's TTL (hop limit) expired where it was forwarded",
    "There is a routing loop, or the sender allowed too few hops.",
    "Compare the routes of the nodes that the path shows.",
    "ip_forward, net/ipv4/ip_forward.c",
    follows=frozenset({"routing-loop"}),
)
EBPF_DROP = Diagnosis(
    Topic.KERNEL,
    "ebpf-drop",
    Severity.ERROR,
    "a tc, XDP or cgroup program dropped the packet",
    "An eBPF data plane decided: Cilium, the VPC CNI's policy agent.",
    "The row shows the policies' verdict beside it; the data plane's own tool knows its reason.",
    _REASONS,
    policies_judge=True,
)
DATA_PLANE = Diagnosis(
    Topic.KERNEL,
    "data-plane",
    Severity.ERROR,
    "a subsystem with reasons of its own dropped the packet (Open vSwitch)",
    "This data plane decided: OVN-Kubernetes, Antrea.",
    "The data plane's own tool knows what its reason means (ovs-appctl, ovn-trace).",
    _REASONS,
    policies_judge=True,
)
CHECKSUM = Diagnosis(
    Topic.KERNEL,
    "checksum",
    Severity.ERROR,
    "a checksum is wrong",
    "The packet was damaged on the way, or a device's offload is at fault.",
    "Turn the device's checksum offload off (`ethtool -K DEVICE tx off`, its name for DEVICE) and see whether drops stop.",
    _REASONS,
    sentences=(
        Sentence(
            "a checksum is wrong in {place}: the packet was damaged on the way, or an offload of {device} is at fault",
            "TCP_CSUM",
            "UDP_CSUM",
            "ICMP_CSUM",
            "IP_CSUM",
            "SKB_CSUM",
            "CSUM",
        ),
    ),
)
QUEUE_FULL = Diagnosis(
    Topic.KERNEL,
    "queue-full",
    Severity.ERROR,
    "the queue of a device, or the backlog of a CPU, has no room",
    "More is sent than the device, its rate limit or the CPU can take.",
    "Raise the limit that the drop names (a pod's bandwidth annotation, the network plugin's own), or look at the node's load.",
    _REASONS,
    sentences=(
        Sentence(
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
        Sentence(
            "the backlog of a CPU of the node is full (net.core.netdev_max_backlog): packets arrive faster than they are taken",
            "CPU_BACKLOG",
        ),
    ),
)
DEVICE_DOWN = Diagnosis(
    Topic.KERNEL,
    "device-down",
    Severity.ERROR,
    "the device is not ready to send",
    "It is down, or is being set up.",
    "Look at the pod or node that owns the device.",
    _REASONS,
    sentences=(
        Sentence("{device} in {place} is not ready to send", "DEV_READY", "DEV_HDR", "NO_TX_TARGET"),
        Sentence(
            "the port of a bridge in {place} does not forward: spanning tree has not put it into the forwarding state",
            "BRIDGE_INGRESS_STP_STATE",
        ),
    ),
)
MARTIAN_ADDRESS = Diagnosis(
    Topic.KERNEL,
    "martian-address",
    Severity.ERROR,
    "an address of the packet is not allowed there",
    "The source is a loopback, broadcast or the namespace's own address: a rule translated it wrongly, or it is forged.",
    "Look at the translation that the path shows.",
    _REASONS,
    sentences=(
        Sentence(
            "an address of the packet is not allowed in {place} (a martian: its source is loopback, broadcast or its own)",
            "IP_INVALID_SOURCE",
            "IP_LOCAL_SOURCE",
            "IP_LOCALNET",
            "IP_INVALID_DEST",
            "IP_INADDRERRORS",
            "MAC_INVALID_SOURCE",
            "LOCAL_MAC",
        ),
    ),
)
BAD_HEADER = Diagnosis(
    Topic.KERNEL,
    "bad-header",
    Severity.ERROR,
    "the packet's IP header is malformed",
    "Something on the way damaged it, or its sender built it that way.",
    "The hops of the packet show where it came from.",
    _REASONS,
    sentences=(
        Sentence("the packet's IP header is malformed", "IP_INHDR", "HDR_TRUNC", "PKT_TOO_SMALL", "IPV6_BAD_EXTHDR"),
    ),
)
NO_PROTOCOL = Diagnosis(
    Topic.KERNEL,
    "no-protocol",
    Severity.ERROR,
    "nothing accepts packets of this protocol",
    "That namespace does not handle the IP protocol.",
    "Look at what sends it.",
    _REASONS,
    sentences=(
        Sentence("nothing in {place} takes packets of this protocol", "IP_NOPROTO", "UNHANDLED_PROTO", "INVALID_PROTO"),
    ),
)
IPV6_DISABLED = Diagnosis(
    Topic.KERNEL,
    "ipv6-disabled",
    Severity.ERROR,
    "IPv6 is disabled on the device",
    "The cluster uses an address family that the namespace does not.",
    "Set net.ipv6.conf.DEVICE.disable_ipv6 to 0, or make the Service single-stack.",
    _REASONS,
    sentences=(Sentence("IPv6 is disabled on {device} in {place}", "IPV6DISABLED"),),
)
OTHER_HOST = Diagnosis(
    Topic.KERNEL,
    "other-host",
    Severity.ERROR,
    "the packet's MAC address is another machine's",
    "A bridge floods it, or a neighbour entry is stale.",
    "Nothing, as long as connections are established.",
    _REASONS,
    mild=True,
    sentences=(
        Sentence("the packet's MAC address is another machine's, but it still reached {device}", "OTHERHOST"),
        Sentence(
            "a packet for one address came as a multicast or broadcast frame to {device}", "UNICAST_IN_L2_MULTICAST"
        ),
    ),
)
NEIGHBOUR_DISCOVERY = Diagnosis(
    Topic.KERNEL,
    "neighbour-discovery",
    Severity.ERROR,
    "an IPv6 neighbour discovery message is not accepted",
    "It was forwarded (hop limit below 255), fragmented or malformed; its sender does not learn the link address.",
    "Look at what sends it: a proxy for neighbour discovery, a device that alters packets.",
    "ndisc_rcv, net/ipv6/ndisc.c",
    sentences=(
        Sentence(
            "{place} does not accept the neighbour discovery message: it is malformed, fragmented or was forwarded",
            "IPV6_NDISC_FRAG",
            "IPV6_NDISC_HOP_LIMIT",
            "IPV6_NDISC_BAD_CODE",
            "IPV6_NDISC_BAD_OPTIONS",
            "IPV6_NDISC_NS_OTHERHOST",
        ),
    ),
)
IPSEC_POLICY = Diagnosis(
    Topic.KERNEL,
    "ipsec-policy",
    Severity.ERROR,
    "an IPsec policy does not let the packet pass",
    "It arrived unencrypted where encryption is required, or no state matches.",
    "Compare `ip xfrm policy` and `ip xfrm state` on both nodes.",
    _REASONS,
    sentences=(Sentence("an IPsec policy of {place} does not let the packet pass", "XFRM_POLICY"),),
)
SECURITY_MODULE = Diagnosis(
    Topic.KERNEL,
    "security-module",
    Severity.ERROR,
    "a security module (SELinux, AppArmor) does not let the packet pass",
    "The node's policy for that process forbids it.",
    "Look at the node's audit log.",
    _REASONS,
    sentences=(Sentence("a security module (SELinux, AppArmor) of the node does not let it pass", "SECURITY_HOOK"),),
)
TUNNEL = Diagnosis(
    Topic.KERNEL,
    "tunnel",
    Severity.ERROR,
    "the tunnel device does not know the packet's network",
    "The nodes' tunnels are configured differently, or two overlays share a port.",
    "Compare the tunnels' VNI and port on both nodes.",
    _REASONS,
    sentences=(
        Sentence(
            "the tunnel device {device} in {place} does not know the packet's network, or has a header that it does not expect",
            "VXLAN_INVALID_HDR",
            "VXLAN_VNI_NOT_FOUND",
            "VXLAN_ENTRY_EXISTS",
            "TUNNEL_TXINFO",
            "IP_TUNNEL_ECN",
        ),
    ),
)
FRAGMENTS = Diagnosis(
    Topic.KERNEL,
    "fragments",
    Severity.ERROR,
    "not all fragments of a packet arrived in time",
    "One fragment is lost each time: a firewall that drops fragments, or a full link.",
    "Send packets that need no fragments: lower the MTU.",
    _REASONS,
    sentences=(
        Sentence("not all fragments of a packet arrived in time", "FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR", "DUP_FRAG"),
    ),
    follows=frozenset({"policy-drop", "policy-disagreement", "rule-drop", "netfilter-drop", "ebpf-drop"}),
)
UNEXPLAINED = Diagnosis(
    Topic.KERNEL,
    "unexplained",
    Severity.WARNING,
    "the kernel freed the packet; its reason has no explanation here",
    "Only the reason and the function that freed it are known.",
    "The kernel's source at `drop.location` says when.",
    _REASONS,
    symptom=True,
)
PEER_REFUSED = Diagnosis(
    Topic.KERNEL,
    "peer-refused",
    Severity.ERROR,
    "the other end of a veth did not take the packet (__dev_forward_skb)",
    "The packet is larger than that end's MTU, or that end is down. The sender is not informed: a black hole.",
    "Compare the MTU of both ends of the pair.",
    "net/core/dev.c (is_skb_forwardable)",
    blames=frozenset({Suspect.MTU}),
)
