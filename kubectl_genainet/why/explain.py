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


def no_socket(case: DropContext) -> DropExplanation:
    """The packet arrived and no socket takes it: a closed port, a connection that is not known here, or an answer that
    its client does not wait for (any more)."""
    if case.request is not None and case.request != case.flow:
        return _unwanted_answer(case)
    if case.established and case.flow.protocol is Protocol.TCP:
        return unknown_connection(case)
    words = f"nothing listens on {case.flow.protocol.value} port {case.flow.dport} in {case.place}"
    evidence = [observed(f"kernel reason {case.event.reason}", case.event.node)]
    redirected = own_redirect(case)
    if redirected is not None:
        return redirected
    pod = case.identity.pod_in(case.event.node, case.event.netns)
    if pod is not None and pod.ports:
        declared = sorted({p.container_port for p in pod.ports if p.protocol == case.flow.protocol.value})
        if declared and case.flow.dport not in declared:
            listed = ", ".join(map(str, declared))
            words += f"; its containers declare {listed}: is the Service's targetPort right?"
            evidence.append(assumed(f"containerPorts of the pod: {listed}"))
    return DropExplanation(CLOSED_PORT, words, Certainty.OBSERVED, evidence=tuple(evidence))


def _unwanted_answer(case: DropContext) -> DropExplanation:
    """An answer reached its client's namespace, and no socket there waits for it."""
    answer = f"an answer from {case.flow.source} reached {case.place}, where no socket waits for it"
    seen: tuple[Evidence, ...] = (observed(f"kernel reason {case.event.reason}", case.event.node),)
    asked = case.asked
    if asked is not None and (asked.dst, asked.dport) != (case.flow.src, case.flow.sport):
        words = (
            f"{answer}: the client had asked {asked.destination}, and the translation was not undone on the way back"
        )
        host = case.identity.host_of(case.event.node)
        invalid = case.identity.grown(case.event.node, host.inode, "conntrack_invalid") if host is not None else 0
        if invalid > 0:
            words += "; connection tracking translates no packet that it takes for INVALID (outside the window, a bad checksum)"
            seen = (*seen, observed(f"conntrack -S: invalid grew by {invalid}", case.event.node))
        return DropExplanation(REPLY_NOT_TRANSLATED, words, Certainty.DERIVED, evidence=seen)
    if asked is None and case.identity.is_endpoint(case.flow.src, case.flow.sport, case.flow.protocol):
        words = (
            f"{answer}: the client had closed it, or asked a Service whose translation was not undone on the way back"
        )
    else:
        words = f"{answer}: the client had closed it"
    return DropExplanation(LATE_ANSWER, words, Certainty.DERIVED, evidence=seen)


def unknown_connection(case: DropContext) -> DropExplanation:
    """A segment of a connection reached a namespace that has no such connection."""
    words = (
        f"a segment of a running connection reached {case.place}, whose TCP has no such connection: it was closed or lost "
        "there, or the connection's entry in a node's connection table was gone and the Service's rules chose anew"
    )
    return DropExplanation(
        UNKNOWN_CONNECTION,
        words,
        Certainty.DERIVED,
        evidence=(observed(f"kernel reason {case.event.reason}, no SYN", case.event.node),),
    )


def out_of_place(case: DropContext) -> DropExplanation | None:
    """TCP_FLAGS in the server's namespace: a segment without SYN met the listening socket (tcp_rcv_state_process)."""
    towards_server = case.request is None or case.request == case.flow
    pod = case.identity.pod_in(case.event.node, case.event.netns)
    if case.established and towards_server and pod is not None and case.flow.dst in pod.ips:
        return unknown_connection(case)
    return sentence(case)


def bad_header(case: DropContext) -> DropExplanation | None:
    """IP_INHDR: where packets are forwarded the TTL (hop limit) has run out, elsewhere the header is malformed
    (ip_forward, ip6_forward; ip_rcv_core)."""
    if function_of(case.event.location) not in ("ip_forward", "ip6_forward"):
        return sentence(case)
    words = (
        f"the packet's TTL (hop limit) ran out in {case.place}: nodes or routers send it in a circle, or it came a longer "
        f"way than its sender allowed"
    )
    return DropExplanation(TTL_EXPIRED, words, Certainty.OBSERVED)


def no_socket_perhaps(case: DropContext) -> DropExplanation | None:
    """A kernel without reasons (before 5.17) freed a datagram, or the packet of a connection, where it looks for a socket.

    One with reasons that gives none here (NOT_SPECIFIED) has freed a segment that a half-open or closing connection had no
    use for, as a repeated SYN (tcp_check_req). A reason that the kernel gives says more than the place.
    """
    if case.event.reason not in NO_REASON:
        return sentence(case)
    if case.event.reason:
        if case.flow.protocol is not Protocol.TCP:
            return None
        words = (
            f"TCP of {case.place} had no use for the segment and gives no reason, as with a repeated SYN of a connection that "
            "is half open: its SYN-ACK was lost, or is late"
        )
        return DropExplanation(REPEATED_SEGMENT, words, Certainty.DERIVED)
    certain = no_socket(case)
    words = (
        f"most likely {certain.explanation}: this kernel gives no reason, and {function_of(case.event.location)} frees "
    )
    words += "packets with a wrong checksum, or by an IPsec policy, as well"
    return DropExplanation(certain.diagnosis, words, Certainty.ASSUMED, evidence=tuple(e for e in certain.evidence[1:]))


def rp_filter(case: DropContext) -> DropExplanation:
    """The reverse path check failed: no route back to the source through the device it came in by."""
    netns = case.identity.namespaces.get((case.event.node, case.event.netns))
    names = (f"net.ipv4.conf.{case.event.device}.rp_filter", "net.ipv4.conf.all.rp_filter")
    set_to = {n: netns.sysctls[n] for n in names if netns is not None and n in netns.sysctls}
    device = case.event.device or "the device it came in by"
    words = f"the reverse path filter of {case.place} dropped it: the way back to {case.flow.src} does not go out by {device}"
    evidence = tuple(observed(f"{name} = {value}", case.event.node) for name, value in set_to.items())
    return DropExplanation(RP_FILTER, words, Certainty.OBSERVED, evidence=evidence)


def peer_refused(case: DropContext) -> DropExplanation:
    """A veth's other end takes no packet that is larger than its MTU, nor any while it is down (is_skb_forwardable)."""
    device = case.event.device or "a device"
    words = (
        f"the other end of {device} in {case.place} did not take the packet ({case.event.length} bytes): it is larger than "
        "that end's MTU, or that end is down; the sender is not told"
    )
    return DropExplanation(PEER_REFUSED, words, Certainty.DERIVED)


def too_big(case: DropContext) -> DropExplanation:
    """The packet is larger than the next device's MTU and may not be fragmented."""
    words = f"the packet ({case.event.length} bytes) is larger than the MTU of the way on and must not be fragmented"
    netns = case.identity.namespaces.get((case.event.node, case.event.netns))
    devices = [d for d in netns.devices if d.name != "lo" and d.up] if netns is not None else []
    least = min(devices, key=lambda d: d.mtu, default=None)
    evidence = (
        (observed(f"smallest MTU in {case.place}: {least.mtu} on {least.name}", case.event.node),) if least else ()
    )
    return DropExplanation(PACKET_TOO_BIG, words, Certainty.OBSERVED, evidence=evidence)


def unreachable(case: DropContext) -> DropExplanation:
    """There is no neighbour, or no route, for the address."""
    pod = case.identity.snapshot.pod_at(case.flow.dst)
    known = "the API knows no pod with that address" if pod is None else f"the API has it as {case.destination}'s"
    if case.event.reason.startswith("NEIGH_"):
        return _neighbour_failed(case, known)
    words = f"{case.place} has no route to {case.flow.dst}"
    return DropExplanation(NO_ROUTE, words, Certainty.OBSERVED, evidence=(assumed(known),))


def _neighbour_failed(case: DropContext, known: str) -> DropExplanation:
    """The kernel asks for the next hop's link address: the gateway's, where the route has one."""
    device = f" on {case.event.device}" if case.event.device else ""
    tail = ", and more packets wait for it than there is room for" if case.event.reason == "NEIGH_QUEUEFULL" else ""
    seen = observed(f"kernel reason {case.event.reason}{device}: no link address of the next hop", case.event.node)
    hop = case.identity.next_hop(case.event.node, case.event.netns, case.flow.dst)
    if hop is None:
        words = f"{case.place} gets no answer{device} to who has the next hop towards {case.flow.dst} (ARP, ND){tail}"
        return DropExplanation(NEIGHBOUR_FAILED, words, Certainty.OBSERVED, evidence=(seen,))
    way = f", the next hop towards {case.flow.dst}" if hop != case.flow.dst else ""
    words = f"{case.place} gets no answer{device} to who has {hop}{way} (ARP, ND){tail}"
    about = assumed(known) if hop == case.flow.dst else derived(f"its route to {case.flow.dst} goes by {hop}")
    return DropExplanation(NEIGHBOUR_FAILED, words, Certainty.DERIVED, evidence=(seen, about))


def ebpf(case: DropContext) -> DropExplanation:
    """A tc, XDP or cgroup program dropped it: an eBPF data plane (Cilium, the VPC CNI's policy agent)."""
    policy = policy_statement(case)
    reason = case.event.reason if case.event.reason in REASONS else "XDP"
    words = f"an eBPF program dropped it ({reason}): an eBPF data plane decides here, not iptables"
    return DropExplanation(
        EBPF_DROP,
        f"{words}. {policy.said}" if policy.said else words,
        Certainty.ASSUMED if policy.said else Certainty.UNKNOWN,
        None,
        policy.policies,
        policy.evidence,
    )


def sentence(case: DropContext) -> DropExplanation | None:
    """The reasons that say all by themselves."""
    known = BY_REASON.get(case.event.reason)
    if known is None:
        return None
    diagnosis, text = known
    said = text.format(place=case.place, device=case.event.device or "a device")
    return DropExplanation(diagnosis, said, Certainty.OBSERVED)


def subsystem(case: DropContext) -> DropExplanation:
    """A data plane with reasons of its own: Open vSwitch (OVN-Kubernetes, Antrea), or another."""
    name, _, number = case.event.reason.rpartition("_")
    words = (
        f"the {name.replace('_', ' ').lower()} subsystem dropped it (its reason {number}): this data plane decides here"
    )
    return DropExplanation(DATA_PLANE, words, Certainty.OBSERVED)


def _unknown(case: DropContext) -> DropExplanation:
    reason = case.event.reason or "no reason"
    words = f"the kernel says {reason} in {case.event.location}; what caused it is not known"
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


def explain_drop(case: DropContext) -> Drop:
    """A drop with all that is known of it."""
    event = case.event
    read = REASONS.get(event.reason) or LOCATIONS.get(function_of(event.location))
    if read is None and event.reason.startswith(("OPENVSWITCH_", "MAC80211_UNUSABLE_", "SUBSYS_")):
        read = subsystem
    reading = (read(case) if read else sentence(case)) or _unknown(case)
    certainty = reading.certainty
    if event.reason_derived and certainty is Certainty.OBSERVED:
        certainty = Certainty.DERIVED
    pod = case.identity.pod_in(event.node, event.netns)
    stopped = bool(reading.policies) and case.remedies is not None
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
        remedy=case.remedies.of(policy_flow(case.judged, case.identity)) if stopped and case.remedies else None,
        rule_certainty=Certainty.OBSERVED if case.named is not None and reading.rule else None,
    )
