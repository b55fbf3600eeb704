"""Why the kernel dropped a packet: its reason, the node's rule behind it, the policies behind the rule.

One small function a kernel reason. What it says of the kernel is observed, what it concludes from the node's rules or
settings is derived, what it takes from the API objects alone is assumed. Where nothing is known it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from kubectl_genainet.context.judging import policy_flow
from kubectl_genainet.model.diagnoses.kernel import (
    DATA_PLANE,
    EBPF_DROP,
    FORWARDING_OFF,
    NEIGHBOUR_FAILED,
    NO_ROUTE,
    PACKET_TOO_BIG,
    PEER_REFUSED,
    RP_FILTER,
    TTL_EXPIRED,
    UNEXPLAINED,
)
from kubectl_genainet.model.diagnoses.rules import NO_SUCH_PORT, OF_NO_ENFORCER, REDIRECT_WITHOUT_LISTENER
from kubectl_genainet.model.events import PacketDropped
from kubectl_genainet.model.finding import Certainty, Evidence, Remedy
from kubectl_genainet.model.reasons import NO_REASON, SOCKET_LOOKUPS, function_of
from kubectl_genainet.model.results.path import Drop
from kubectl_genainet.why.drop_context import DropContext, DropExplanation, assumed, derived, observed, sentence
from kubectl_genainet.why.hairpin import own_packet
from kubectl_genainet.why.netfilter import netfilter
from kubectl_genainet.why.policies import policy_statement
from kubectl_genainet.why.queues import QUEUE_REASONS, queue_full
from kubectl_genainet.why.remedies import Remedies
from kubectl_genainet.why.services import missing_port
from kubectl_genainet.why.sockets import no_socket, no_socket_perhaps, out_of_place, second_syn


def bad_header(context: DropContext) -> DropExplanation | None:
    """IP_INHDR: where packets are forwarded the TTL (hop limit) has run out, elsewhere the header is malformed
    (ip_forward, ip6_forward; ip_rcv_core)."""
    if function_of(context.event.location) not in ("ip_forward", "ip6_forward"):
        return sentence(context)
    statement = (
        f"the packet's TTL (hop limit) ran out in {context.place}: nodes or routers send it in a circle, or it came a longer "
        f"way than its sender allowed"
    )
    return DropExplanation(TTL_EXPIRED, statement, Certainty.OBSERVED)


def rp_filter(context: DropContext) -> DropExplanation:
    """The reverse path check failed: no route back to the source through the device it came in by."""
    netns = context.identity.namespaces.get((context.event.node, context.event.netns))
    names = (f"net.ipv4.conf.{context.event.device}.rp_filter", "net.ipv4.conf.all.rp_filter")
    set_to = {n: netns.sysctls[n] for n in names if netns is not None and n in netns.sysctls}
    device = context.event.device or "the device it came in by"
    way_back = f"the way back to {context.flow.src} does not go out by {device}"
    statement = f"the reverse path filter of {context.place} dropped it: {way_back}"
    evidence = tuple(observed(f"{name} = {value}", context.event.node) for name, value in set_to.items())
    return DropExplanation(RP_FILTER, statement, Certainty.OBSERVED, evidence=evidence)


def peer_refused(context: DropContext) -> DropExplanation:
    """A veth's other end takes no packet that is larger than its MTU, nor any while it is down (is_skb_forwardable)."""
    device = context.event.device or "a device"
    statement = (
        f"the other end of {device} in {context.place} did not take the packet ({context.event.length} bytes): it is larger than "
        "that end's MTU, or that end is down; the sender is not told"
    )
    return DropExplanation(PEER_REFUSED, statement, Certainty.DERIVED)


def too_big(context: DropContext) -> DropExplanation:
    """The packet is larger than the next device's MTU and may not be fragmented."""
    statement = (
        f"the packet ({context.event.length} bytes) is larger than the MTU of the way on and must not be fragmented"
    )
    netns = context.identity.namespaces.get((context.event.node, context.event.netns))
    devices = [d for d in netns.devices if d.name != "lo" and d.up] if netns is not None else []
    least = min(devices, key=lambda d: d.mtu, default=None)
    evidence = (
        (observed(f"smallest MTU in {context.place}: {least.mtu} on {least.name}", context.event.node),)
        if least
        else ()
    )
    return DropExplanation(PACKET_TOO_BIG, statement, Certainty.OBSERVED, evidence=evidence)


def unreachable(context: DropContext) -> DropExplanation:
    """There is no neighbour, or no route, for the address."""
    pod = context.identity.snapshot.pod_at(context.flow.dst)
    known = "the API knows no pod with that address" if pod is None else f"the API has it as {context.destination}'s"
    of_neighbour = (
        context.event.reason.startswith("NEIGH_") or function_of(context.event.location) in _NEIGHBOUR_LOCATIONS
    )
    died = _neighbour_failed(context, known) if of_neighbour else _no_route(context, known)
    missing = missing_port(context)
    if not missing:
        return died
    # In iptables mode no rule of kube-proxy takes such a packet, and it goes wherever the node's routes lead.
    statement = f"{missing}. No rule of kube-proxy took the packet, and it found nobody with that address"
    where = derived(died.explanation, context.event.node)
    return DropExplanation(NO_SUCH_PORT, statement, Certainty.DERIVED, evidence=(where,))


def _no_route(context: DropContext, known: str) -> DropExplanation:
    statement = (
        f"{context.place} has no route to {context.flow.dst}, or one that refuses it (unreachable, prohibit, blackhole)"
    )
    return DropExplanation(NO_ROUTE, statement, Certainty.OBSERVED, evidence=(assumed(known),))


def bad_address(context: DropContext) -> DropExplanation | None:
    """IP_INADDRERRORS in ip_error: the packet is for another host, and the device by which it came does not forward."""
    if function_of(context.event.location) != "ip_error":
        return sentence(context)
    return _forwarding_off(context, Certainty.OBSERVED)


def not_forwarded(context: DropContext) -> DropExplanation | None:
    """ip6_forward gives no reason where IPv6 forwarding is off, nor for other things."""
    netns = context.identity.namespaces.get((context.event.node, context.event.netns))
    if netns is not None and netns.sysctls.get("net.ipv6.conf.all.forwarding") == "0":
        return _forwarding_off(context, Certainty.DERIVED)
    if context.event.reason not in NO_REASON:
        return sentence(context)
    statement = (
        f"{context.place} did not forward it, and the kernel gives no reason: an IPsec policy (`ip xfrm policy`), a frame for "
        "another link address, or an address that does not leave its link"
    )
    return DropExplanation(UNEXPLAINED, statement, Certainty.UNKNOWN)


def _forwarding_off(context: DropContext, certainty: Certainty) -> DropExplanation:
    netns = context.identity.namespaces.get((context.event.node, context.event.netns))
    sysctl = "net.ipv6.conf.all.forwarding" if ":" in context.flow.dst else "net.ipv4.ip_forward"
    value = netns.sysctls.get(sysctl) if netns is not None else None
    evidence = (observed(f"{sysctl} = {value}", context.event.node),) if value is not None else ()
    statement = (
        f"{context.place} does not forward packets that come in by {context.event.device or 'that device'}: "
        f"forwarding is off ({sysctl}, or the device's own setting)"
    )
    return DropExplanation(FORWARDING_OFF, statement, certainty, evidence=evidence)


def _neighbour_failed(context: DropContext, known: str) -> DropExplanation:
    """The kernel asks for the next hop's link address: the gateway's, where the route has one."""
    device = f" on {context.event.device}" if context.event.device else ""
    tail = ", and more packets wait for it than there is room for" if context.event.reason == "NEIGH_QUEUEFULL" else ""
    reason = context.event.reason or "none"
    evidence = observed(f"kernel reason {reason}{device}: no link address of the next hop", context.event.node)
    hop = context.identity.next_hop(context.event.node, context.event.netns, context.flow.dst)
    if hop is None:
        statement = (
            f"{context.place} gets no answer{device} to who has the next hop towards {context.flow.dst} (ARP, ND){tail}"
        )
        return DropExplanation(NEIGHBOUR_FAILED, statement, Certainty.OBSERVED, evidence=(evidence,))
    way = f", the next hop towards {context.flow.dst}" if hop != context.flow.dst else ""
    statement = f"{context.place} gets no answer{device} to who has {hop}{way} (ARP, ND){tail}"
    about = assumed(known) if hop == context.flow.dst else derived(f"its route to {context.flow.dst} goes by {hop}")
    return DropExplanation(NEIGHBOUR_FAILED, statement, Certainty.DERIVED, evidence=(evidence, about))


def ebpf(context: DropContext) -> DropExplanation:
    """A tc, XDP or cgroup program dropped it: an eBPF data plane (Cilium, the VPC CNI's policy agent)."""
    policy = policy_statement(context)
    reason = context.event.reason if context.event.reason in REASONS else "XDP"
    statement = f"an eBPF program dropped it ({reason}): an eBPF data plane decides here, not iptables"
    return DropExplanation(
        EBPF_DROP,
        f"{statement}. {policy.said}" if policy.said else statement,
        Certainty.ASSUMED if policy.said else Certainty.UNKNOWN,
        None,
        policy.policies,
        policy.evidence,
    )


def subsystem(context: DropContext) -> DropExplanation:
    """A data plane with reasons of its own: Open vSwitch (OVN-Kubernetes, Antrea), or another."""
    name, _, number = context.event.reason.rpartition("_")
    statement = (
        f"the {name.replace('_', ' ').lower()} subsystem dropped it (its reason {number}): this data plane decides here"
    )
    return DropExplanation(DATA_PLANE, statement, Certainty.OBSERVED)


def _unknown(context: DropContext) -> DropExplanation:
    reason = context.event.reason or "no reason"
    statement = f"the kernel says {reason} in {context.event.location}; what caused it is not known"
    return DropExplanation(UNEXPLAINED, statement, Certainty.UNKNOWN)


REASONS: Mapping[str, Callable[[DropContext], DropExplanation | None]] = {
    "NETFILTER_DROP": netfilter,
    "NO_SOCKET": no_socket,
    "IP_LOCAL_SOURCE": own_packet,
    "IP_RPFILTER": rp_filter,
    "PKT_TOO_BIG": too_big,
    "IP_INHDR": bad_header,
    "IP_INADDRERRORS": bad_address,
    "TCP_FLAGS": out_of_place,
    "TCP_INVALID_SYN": second_syn,
    **dict.fromkeys(
        (
            "NEIGH_FAILED",
            "NEIGH_DEAD",
            "NEIGH_QUEUEFULL",
            "NEIGH_HH_FILLFAIL",
            "IP_OUTNOROUTES",
            "IP_INNOROUTES",
        ),
        unreachable,
    ),
    **dict.fromkeys(QUEUE_REASONS, queue_full),
    **dict.fromkeys(("TC_INGRESS", "TC_EGRESS", "XDP", "BPF_CGROUP_EGRESS", "TC_CLS"), ebpf),
}


# IPv6 gives no reason where neighbour discovery fails (ndisc_error_report, net/ipv6/ndisc.c; inlined in neigh_invalidate).
_NEIGHBOUR_LOCATIONS = ("neigh_invalidate", "ndisc_error_report", "arp_error_report")

# Where the kernel gives no reason, the function that freed the packet tells (net/ipv4/route.c, net/ipv6/route.c; generic
# XDP in net/core/dev.c).
LOCATIONS: Mapping[str, Callable[[DropContext], DropExplanation | None]] = {
    **dict.fromkeys(
        ("ip_error", "ip6_pkt_discard", "ip6_pkt_discard_out", "ip6_pkt_prohibit", "dst_discard", "dst_discard_out"),
        unreachable,
    ),
    **dict.fromkeys(_NEIGHBOUR_LOCATIONS, unreachable),
    "ip6_forward": not_forwarded,
    **dict.fromkeys(("__dev_forward_skb2", "__dev_forward_skb", "dev_forward_skb", "veth_xmit"), peer_refused),
    **dict.fromkeys(("do_xdp_generic", "netif_receive_generic_xdp", "bpf_prog_run_generic_xdp"), ebpf),
    **dict.fromkeys(SOCKET_LOOKUPS, no_socket_perhaps),
}


def _freed(event: PacketDropped) -> Evidence:
    if event.reason_derived:
        return derived(
            f"{event.reason}: what {event.location} frees packets for (this kernel gives no reasons)", event.node
        )
    return observed(f"{event.reason or 'no reason'} in {event.location}", event.node)


def lacks_explanation(drop: Drop) -> bool:
    """Whether more of the node's rules may explain the drop: why is not known, or which rule sent it there."""
    return drop.certainty is Certainty.UNKNOWN or (drop.check == REDIRECT_WITHOUT_LISTENER.name and drop.rule is None)


def explain_drop(context: DropContext) -> Drop:
    """A drop with all that is known of it."""
    event = context.event
    read = REASONS.get(event.reason) or LOCATIONS.get(function_of(event.location))
    if read is None and event.reason.startswith(("OPENVSWITCH_", "MAC80211_UNUSABLE_", "SUBSYS_")):
        read = subsystem
    reading = (read(context) if read else None) or sentence(context) or _unknown(context)
    certainty = reading.certainty
    if event.reason_derived and certainty is Certainty.OBSERVED:
        certainty = Certainty.DERIVED
    pod = context.identity.pod_in(event.node, event.netns)
    stopped = bool(reading.policies)
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
        remedy=_remedy(context, context.remedies, reading) if stopped and context.remedies else None,
        rule_certainty=Certainty.OBSERVED if context.named is not None and reading.rule else None,
    )


def _remedy(context: DropContext, remedies: Remedies, reading: DropExplanation) -> Remedy | None:
    remedy = remedies.of(policy_flow(context.judged, context.identity.snapshot))
    if remedy is None or reading.diagnosis.name not in OF_NO_ENFORCER:
        return remedy
    return msgspec.structs.replace(remedy, text=f"once the rule is gone: {remedy.text}")
