"""Why the kernel dropped a packet: its reason, the node's rule behind it, the policies behind the rule.

One small function a kernel reason. What it says of the kernel is observed, what it concludes from the node's rules or
settings is derived, what it takes from the API objects alone is assumed. Where nothing is known it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kubectl_genainet.context.judging import policy_flow
from kubectl_genainet.model.diagnoses import BY_REASON
from kubectl_genainet.model.diagnoses.kernel import (
    DATA_PLANE,
    EBPF_DROP,
    NEIGHBOUR_FAILED,
    NO_ROUTE,
    PACKET_TOO_BIG,
    PEER_REFUSED,
    RP_FILTER,
    TTL_EXPIRED,
    UNEXPLAINED,
)
from kubectl_genainet.model.diagnoses.sockets import (
    CLOSED_PORT,
    LATE_ANSWER,
    REPEATED_SEGMENT,
    REPLY_NOT_TRANSLATED,
    UNKNOWN_CONNECTION,
)
from kubectl_genainet.model.events import PacketDropped
from kubectl_genainet.model.finding import Certainty, Evidence
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.reasons import NO_REASON, function_of
from kubectl_genainet.model.results.path import Drop
from kubectl_genainet.why.drop_context import DropContext, DropExplanation, assumed, derived, observed
from kubectl_genainet.why.netfilter import netfilter
from kubectl_genainet.why.policies import policy_statement
from kubectl_genainet.why.redirect import own_redirect


def no_socket(context: DropContext) -> DropExplanation:
    """The packet arrived and no socket takes it: a closed port, a connection that is not known here, or an answer that
    its client does not wait for (any more)."""
    if context.request is not None and context.request != context.flow:
        return _unwanted_answer(context)
    if context.established and context.flow.protocol is Protocol.TCP:
        return unknown_connection(context)
    words = f"nothing listens on {context.flow.protocol.value} port {context.flow.dport} in {context.place}"
    evidence = [observed(f"kernel reason {context.event.reason}", context.event.node)]
    redirected = own_redirect(context)
    if redirected is not None:
        return redirected
    pod = context.identity.pod_in(context.event.node, context.event.netns)
    if pod is not None and pod.ports:
        declared = sorted({p.container_port for p in pod.ports if p.protocol == context.flow.protocol.value})
        if declared and context.flow.dport not in declared:
            listed = ", ".join(map(str, declared))
            words += f"; its containers declare {listed}: is the Service's targetPort right?"
            evidence.append(assumed(f"containerPorts of the pod: {listed}"))
    return DropExplanation(CLOSED_PORT, words, Certainty.OBSERVED, evidence=tuple(evidence))


def _unwanted_answer(context: DropContext) -> DropExplanation:
    """An answer reached its client's namespace, and no socket there waits for it."""
    answer = f"an answer from {context.flow.source} reached {context.place}, where no socket waits for it"
    seen: tuple[Evidence, ...] = (observed(f"kernel reason {context.event.reason}", context.event.node),)
    asked = context.asked
    if asked is not None and (asked.dst, asked.dport) != (context.flow.src, context.flow.sport):
        words = (
            f"{answer}: the client had asked {asked.destination}, and the translation was not undone on the way back"
        )
        host = context.identity.host_of(context.event.node)
        invalid = context.identity.grown(context.event.node, host.inode, "conntrack_invalid") if host is not None else 0
        if invalid > 0:
            words += "; connection tracking translates no packet that it takes for INVALID (outside the window, a bad checksum)"
            seen = (*seen, observed(f"conntrack -S: invalid grew by {invalid}", context.event.node))
        return DropExplanation(REPLY_NOT_TRANSLATED, words, Certainty.DERIVED, evidence=seen)
    if asked is None and context.identity.is_endpoint(context.flow.src, context.flow.sport, context.flow.protocol):
        words = (
            f"{answer}: the client had closed it, or asked a Service whose translation was not undone on the way back"
        )
    else:
        words = f"{answer}: the client had closed it"
    return DropExplanation(LATE_ANSWER, words, Certainty.DERIVED, evidence=seen)


def unknown_connection(context: DropContext) -> DropExplanation:
    """A segment of a connection reached a namespace that has no such connection."""
    words = (
        f"a segment of a running connection reached {context.place}, whose TCP has no such connection: it was closed or lost "
        "there, or the connection's entry in a node's connection table was gone and the Service's rules chose anew"
    )
    return DropExplanation(
        UNKNOWN_CONNECTION,
        words,
        Certainty.DERIVED,
        evidence=(observed(f"kernel reason {context.event.reason}, no SYN", context.event.node),),
    )


def out_of_place(context: DropContext) -> DropExplanation | None:
    """TCP_FLAGS in the server's namespace: a segment without SYN met the listening socket (tcp_rcv_state_process)."""
    towards_server = context.request is None or context.request == context.flow
    pod = context.identity.pod_in(context.event.node, context.event.netns)
    if context.established and towards_server and pod is not None and context.flow.dst in pod.ips:
        return unknown_connection(context)
    return sentence(context)


def bad_header(context: DropContext) -> DropExplanation | None:
    """IP_INHDR: where packets are forwarded the TTL (hop limit) has run out, elsewhere the header is malformed
    (ip_forward, ip6_forward; ip_rcv_core)."""
    if function_of(context.event.location) not in ("ip_forward", "ip6_forward"):
        return sentence(context)
    words = (
        f"the packet's TTL (hop limit) ran out in {context.place}: nodes or routers send it in a circle, or it came a longer "
        f"way than its sender allowed"
    )
    return DropExplanation(TTL_EXPIRED, words, Certainty.OBSERVED)


def no_socket_perhaps(context: DropContext) -> DropExplanation | None:
    """A kernel without reasons (before 5.17) freed a datagram, or the packet of a connection, where it looks for a socket.

    One with reasons that gives none here (NOT_SPECIFIED) has freed a segment that a half-open or closing connection had no
    use for, as a repeated SYN (tcp_check_req). A reason that the kernel gives says more than the place.
    """
    if context.event.reason not in NO_REASON:
        return sentence(context)
    if context.event.reason:
        if context.flow.protocol is not Protocol.TCP:
            return None
        words = (
            f"TCP of {context.place} had no use for the segment and gives no reason, as with a repeated SYN of a connection that "
            "is half open: its SYN-ACK was lost, or is late"
        )
        return DropExplanation(REPEATED_SEGMENT, words, Certainty.DERIVED)
    certain = no_socket(context)
    words = f"most likely {certain.explanation}: this kernel gives no reason, and {function_of(context.event.location)} frees "
    words += "packets with a wrong checksum, or by an IPsec policy, as well"
    return DropExplanation(certain.diagnosis, words, Certainty.ASSUMED, evidence=tuple(e for e in certain.evidence[1:]))


def rp_filter(context: DropContext) -> DropExplanation:
    """The reverse path check failed: no route back to the source through the device it came in by."""
    netns = context.identity.namespaces.get((context.event.node, context.event.netns))
    names = (f"net.ipv4.conf.{context.event.device}.rp_filter", "net.ipv4.conf.all.rp_filter")
    set_to = {n: netns.sysctls[n] for n in names if netns is not None and n in netns.sysctls}
    device = context.event.device or "the device it came in by"
    way_back = f"the way back to {context.flow.src} does not go out by {device}"
    words = f"the reverse path filter of {context.place} dropped it: {way_back}"
    evidence = tuple(observed(f"{name} = {value}", context.event.node) for name, value in set_to.items())
    return DropExplanation(RP_FILTER, words, Certainty.OBSERVED, evidence=evidence)


def peer_refused(context: DropContext) -> DropExplanation:
    """A veth's other end takes no packet that is larger than its MTU, nor any while it is down (is_skb_forwardable)."""
    device = context.event.device or "a device"
    words = (
        f"the other end of {device} in {context.place} did not take the packet ({context.event.length} bytes): it is larger than "
        "that end's MTU, or that end is down; the sender is not told"
    )
    return DropExplanation(PEER_REFUSED, words, Certainty.DERIVED)


def too_big(context: DropContext) -> DropExplanation:
    """The packet is larger than the next device's MTU and may not be fragmented."""
    words = f"the packet ({context.event.length} bytes) is larger than the MTU of the way on and must not be fragmented"
    netns = context.identity.namespaces.get((context.event.node, context.event.netns))
    devices = [d for d in netns.devices if d.name != "lo" and d.up] if netns is not None else []
    least = min(devices, key=lambda d: d.mtu, default=None)
    evidence = (
        (observed(f"smallest MTU in {context.place}: {least.mtu} on {least.name}", context.event.node),)
        if least
        else ()
    )
    return DropExplanation(PACKET_TOO_BIG, words, Certainty.OBSERVED, evidence=evidence)


def unreachable(context: DropContext) -> DropExplanation:
    """There is no neighbour, or no route, for the address."""
    pod = context.identity.snapshot.pod_at(context.flow.dst)
    known = "the API knows no pod with that address" if pod is None else f"the API has it as {context.destination}'s"
    if context.event.reason.startswith("NEIGH_"):
        return _neighbour_failed(context, known)
    words = (
        f"{context.place} has no route to {context.flow.dst}, or one that refuses it (unreachable, prohibit, blackhole)"
    )
    return DropExplanation(NO_ROUTE, words, Certainty.OBSERVED, evidence=(assumed(known),))


def _neighbour_failed(context: DropContext, known: str) -> DropExplanation:
    """The kernel asks for the next hop's link address: the gateway's, where the route has one."""
    device = f" on {context.event.device}" if context.event.device else ""
    tail = ", and more packets wait for it than there is room for" if context.event.reason == "NEIGH_QUEUEFULL" else ""
    seen = observed(
        f"kernel reason {context.event.reason}{device}: no link address of the next hop", context.event.node
    )
    hop = context.identity.next_hop(context.event.node, context.event.netns, context.flow.dst)
    if hop is None:
        words = (
            f"{context.place} gets no answer{device} to who has the next hop towards {context.flow.dst} (ARP, ND){tail}"
        )
        return DropExplanation(NEIGHBOUR_FAILED, words, Certainty.OBSERVED, evidence=(seen,))
    way = f", the next hop towards {context.flow.dst}" if hop != context.flow.dst else ""
    words = f"{context.place} gets no answer{device} to who has {hop}{way} (ARP, ND){tail}"
    about = assumed(known) if hop == context.flow.dst else derived(f"its route to {context.flow.dst} goes by {hop}")
    return DropExplanation(NEIGHBOUR_FAILED, words, Certainty.DERIVED, evidence=(seen, about))


def ebpf(context: DropContext) -> DropExplanation:
    """A tc, XDP or cgroup program dropped it: an eBPF data plane (Cilium, the VPC CNI's policy agent)."""
    policy = policy_statement(context)
    reason = context.event.reason if context.event.reason in REASONS else "XDP"
    words = f"an eBPF program dropped it ({reason}): an eBPF data plane decides here, not iptables"
    return DropExplanation(
        EBPF_DROP,
        f"{words}. {policy.said}" if policy.said else words,
        Certainty.ASSUMED if policy.said else Certainty.UNKNOWN,
        None,
        policy.policies,
        policy.evidence,
    )


def sentence(context: DropContext) -> DropExplanation | None:
    """The reasons that say all by themselves."""
    known = BY_REASON.get(context.event.reason)
    if known is None:
        return None
    diagnosis, text = known
    said = text.format(place=context.place, device=context.event.device or "a device")
    return DropExplanation(diagnosis, said, Certainty.OBSERVED)


def subsystem(context: DropContext) -> DropExplanation:
    """A data plane with reasons of its own: Open vSwitch (OVN-Kubernetes, Antrea), or another."""
    name, _, number = context.event.reason.rpartition("_")
    words = (
        f"the {name.replace('_', ' ').lower()} subsystem dropped it (its reason {number}): this data plane decides here"
    )
    return DropExplanation(DATA_PLANE, words, Certainty.OBSERVED)


def _unknown(context: DropContext) -> DropExplanation:
    reason = context.event.reason or "no reason"
    words = f"the kernel says {reason} in {context.event.location}; what caused it is not known"
    return DropExplanation(UNEXPLAINED, words, Certainty.UNKNOWN)


REASONS: Mapping[str, Callable[[DropContext], DropExplanation | None]] = {
    "NETFILTER_DROP": netfilter,
    "NO_SOCKET": no_socket,
    "IP_RPFILTER": rp_filter,
    "PKT_TOO_BIG": too_big,
    "IP_INHDR": bad_header,
    "TCP_FLAGS": out_of_place,
    **dict.fromkeys(
        (
            "NEIGH_FAILED",
            "NEIGH_DEAD",
            "NEIGH_QUEUEFULL",
            "NEIGH_CREATEFAIL",
            "NEIGH_HH_FILLFAIL",
            "IP_OUTNOROUTES",
            "IP_INNOROUTES",
        ),
        unreachable,
    ),
    **dict.fromkeys(("TC_INGRESS", "TC_EGRESS", "XDP", "BPF_CGROUP_EGRESS", "TC_CLS"), ebpf),
}


# Where the kernel gives no reason, the function that freed the packet tells (net/ipv4/route.c, net/ipv6/route.c; generic
# XDP in net/core/dev.c).
LOCATIONS: Mapping[str, Callable[[DropContext], DropExplanation | None]] = {
    **dict.fromkeys(
        ("ip_error", "ip6_pkt_discard", "ip6_pkt_discard_out", "ip6_pkt_prohibit", "dst_discard"), unreachable
    ),
    **dict.fromkeys(("__dev_forward_skb2", "__dev_forward_skb", "dev_forward_skb", "veth_xmit"), peer_refused),
    **dict.fromkeys(("do_xdp_generic", "netif_receive_generic_xdp", "bpf_prog_run_generic_xdp"), ebpf),
    **dict.fromkeys(("tcp_v4_rcv", "tcp_v6_rcv", "__udp4_lib_rcv", "__udp6_lib_rcv"), no_socket_perhaps),
}


def _freed(event: PacketDropped) -> Evidence:
    if event.reason_derived:
        return derived(
            f"{event.reason}: what {event.location} frees packets for (this kernel gives no reasons)", event.node
        )
    return observed(f"{event.reason or 'no reason'} in {event.location}", event.node)


def explain_drop(context: DropContext) -> Drop:
    """A drop with all that is known of it."""
    event = context.event
    read = REASONS.get(event.reason) or LOCATIONS.get(function_of(event.location))
    if read is None and event.reason.startswith(("OPENVSWITCH_", "MAC80211_UNUSABLE_", "SUBSYS_")):
        read = subsystem
    reading = (read(context) if read else sentence(context)) or _unknown(context)
    certainty = reading.certainty
    if event.reason_derived and certainty is Certainty.OBSERVED:
        certainty = Certainty.DERIVED
    pod = context.identity.pod_in(event.node, event.netns)
    stopped = bool(reading.policies) and context.remedies is not None
    return Drop(
        reason=event.reason or "UNKNOWN",
        location=event.location,
        hook=event.hook or None,
        device=event.device or None,
        rule=reading.rule,
        policies=reading.policies,
        certainty=certainty,
        node=event.node,
        pod=pod.metadata.name if pod else None,
        explanation=reading.explanation,
        check=reading.diagnosis.name,
        told=reading.told,
        evidence=(_freed(event), *reading.evidence),
        remedy=context.remedies.of(policy_flow(context.judged, context.identity))
        if stopped and context.remedies
        else None,
        rule_certainty=Certainty.OBSERVED if context.named is not None and reading.rule else None,
    )
