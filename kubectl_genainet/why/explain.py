"""Why the kernel dropped a packet: its reason, the node's rule behind it, the policies behind the rule.

One small function a kernel reason. What it says of the kernel is observed, what it concludes from the node's rules or
settings is derived, what it takes from the API objects alone is assumed. Where nothing is known it says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from kubectl_genainet.context.judging import policy_flow
from kubectl_genainet.model.events import PacketDropped
from kubectl_genainet.model.finding import Certainty, Evidence
from kubectl_genainet.model.reasons import SENTENCES, function_of
from kubectl_genainet.model.results.path import Drop
from kubectl_genainet.proxy import Packet, RuleRef, evaluate_hook
from kubectl_genainet.proxy.enforcers import policy_behind
from kubectl_genainet.why.case import Case, Reading, assumed, derived, observed
from kubectl_genainet.why.policies import Words, policy_words


def netfilter(case: Case) -> Reading:
    """A netfilter hook said DROP: the node's rules are walked for this packet at that hook."""
    event = case.event
    words = policy_words(case)
    said, policies, evidence = words.said, words.policies, words.evidence
    if case.named is not None:
        return _named_rule(case, case.named, words)
    full = _conntrack_full(case)
    if case.ruleset is None or not event.hook:
        why = case.ruleset_error or (
            "the hook could not be read from the stack" if not event.hook else "no ruleset was read"
        )
        note = f"a netfilter rule dropped it; which one is not known ({why})"
        return Reading(
            "netfilter-drop",
            f"{note}. {said}" if said else note,
            Certainty.ASSUMED if said else Certainty.UNKNOWN,
            None,
            policies,
            evidence,
        )
    state = "RELATED" if case.icmp is not None else "ESTABLISHED" if case.established else "NEW"
    packet = msgspec.structs.replace(Packet.of(case.flow, ct_state=state), icmp=case.icmp)
    evaluation = evaluate_hook(case.ruleset, packet, event.hook)
    rule = next(iter(evaluation.dropping_rules), None)
    if rule is None:
        known = full or _lost_insertion(case)
        if known is not None:
            return known
        note = f"no rule that was read on {event.node} drops this packet in {event.hook}"
        return Reading(
            "netfilter-drop",
            f"{note}: another table, or rules that changed since. {said}".rstrip(),
            Certainty.UNKNOWN,
            None,
            policies,
            (*evidence, derived(note, event.node)),
        )
    return _named_rule(case, rule, words)


_REJECT_WITH = re.compile(r"--reject-with (\S+)|reject with (.+?)(?: comment|$)")


def told_by(rule: RuleRef) -> str | None:
    """How a rule answers the sender of what it takes: "icmp-port-unreachable", "tcp reset"; None for one that drops."""
    if "reject" not in rule.text.lower():
        return None
    found = _REJECT_WITH.search(rule.text)
    return (found[1] or found[2]).strip() if found else "icmp-port-unreachable"  # iptables-extensions(8), nft(8)


def _named_rule(case: Case, rule: RuleRef, policy: Words) -> Reading:
    text = f"{rule.table} {rule.chain} rule {rule.index}: {rule.text.removeprefix(f'-A {rule.chain} ')}"
    known = [(o.namespace, o.name) for o in case.identity.snapshot.of("NetworkPolicy")]
    behind = policy_behind(rule, case.ruleset, known)
    told = told_by(rule)
    certainty = Certainty.DERIVED if case.named is None else Certainty.OBSERVED
    how = f"ends the walk in {case.event.hook}" if case.named is None else "dropped this packet: the kernel names it"
    met = Evidence(f"rule {rule.index} of {rule.chain} {how}", certainty, node=case.event.node)

    def reading(check: str, words: str, policies: tuple[str, ...] = ()) -> Reading:
        return Reading(check, words, Certainty.DERIVED, text, policies, (met, *policy.evidence), told)

    empty = _service_without_endpoints(case)
    if empty and rule.chain.startswith(("KUBE-", "reject-", "endpoint", "services")):
        return reading("no-endpoints", empty)
    if policy.said and (behind is not None or not rule.chain.startswith("KUBE-")):
        return reading("policy-drop", policy.said, policy.policies)
    if behind is not None:
        names = ", ".join(behind.policies) or "no policy that could be named"
        whose = f"the rule is {behind.enforcer}'s, for {names}"
        if not policy.admits:
            return reading("policy-drop", whose, behind.policies)
        note = f"{whose}, but by the API's objects the flow is admitted: the node's rules and the objects disagree"
        return reading("policy-disagreement", note, behind.policies)
    verb = "rejects" if told else "drops"
    words = f"{case.event.node} {verb} it by a rule: {rule.comment or rule.text}"
    if not rule.chain.startswith("KUBE-") and policy.admits:
        words += "; by the API's objects the flow is admitted, so no NetworkPolicy is behind it"
    return reading("rejected-by-rule" if told else "rule-drop", words)


def _service_without_endpoints(case: Case) -> str:
    """A sentence where the packet's destination is an address of a Service that has no ready endpoint."""
    found = case.identity.snapshot.service_at(case.flow.dst, case.flow.dport, case.flow.protocol.value)
    if found is None or any(b.ready for b in case.identity.snapshot.backends(found.service, found.port)):
        return ""
    meta = found.service.metadata
    return f"Service {meta.namespace}/{meta.name} has no ready endpoint, so kube-proxy refuses its connections"


def _conntrack_full(case: Case) -> Reading | None:
    """The connection tracking table of the namespace was full when it was last looked at."""
    netns = case.identity.namespaces.get((case.event.node, case.event.netns))
    if netns is None or netns.conntrack_count is None or netns.conntrack_max is None:
        return None
    if netns.conntrack_count < netns.conntrack_max * 0.95 or case.event.hook not in ("PRE_ROUTING", "OUTPUT"):
        return None
    fill = f"nf_conntrack_count {netns.conntrack_count} of nf_conntrack_max {netns.conntrack_max}"
    return Reading(
        "conntrack-full",
        f"the connection tracking table of {case.place} is full, so a new connection can't be entered ({fill})",
        Certainty.DERIVED,
        evidence=(observed(fill, case.event.node), derived("no rule explains the drop", case.event.node)),
    )


def _lost_insertion(case: Case) -> Reading | None:
    """Another packet of the same flow entered the connection table between this one's lookup and its confirmation, which
    is the last thing that happens in POST_ROUTING and INPUT (nf_confirm, net/netfilter/nf_conntrack_proto.c)."""
    grown = case.identity.grown(case.event.node, case.event.netns, "conntrack_insert_failed")
    if case.event.hook not in ("POST_ROUTING", "INPUT") or case.established or grown <= 0:
        return None
    return Reading(
        "conntrack-race",
        f"two packets of one flow raced for its entry in the connection table of {case.place}, and this one lost: typical "
        "of A and AAAA queries from one socket",
        Certainty.DERIVED,
        evidence=(
            observed(f"conntrack -S: insert_failed grew by {grown}", case.event.node),
            derived("no rule explains the drop", case.event.node),
        ),
    )


def no_socket(case: Case) -> Reading:
    """The packet arrived and nothing listens there: a closed port, or an answer to a client that has gone."""
    if case.request is not None and case.request != case.flow:
        words = f"an answer reached {case.place} after its client had closed the socket: it was late, or not waited for"
        return Reading("late-answer", words, Certainty.OBSERVED)
    words = f"nothing listens on {case.flow.protocol.value} port {case.flow.dport} in {case.place}"
    evidence = [observed(f"kernel reason {case.event.reason}", case.event.node)]
    pod = case.identity.pod_in(case.event.node, case.event.netns)
    if pod is not None and pod.ports:
        declared = sorted({p.container_port for p in pod.ports if p.protocol == case.flow.protocol.value})
        if declared and case.flow.dport not in declared:
            listed = ", ".join(map(str, declared))
            words += f"; its containers declare {listed}: is the Service's targetPort right?"
            evidence.append(assumed(f"containerPorts of the pod: {listed}"))
    return Reading("closed-port", words, Certainty.OBSERVED, evidence=tuple(evidence))


def no_socket_perhaps(case: Case) -> Reading:
    """A kernel without reasons (before 5.17) freed a datagram, or the packet of a connection, where it looks for a socket."""
    certain = no_socket(case)
    words = (
        f"most likely {certain.explanation}: this kernel gives no reason, and {function_of(case.event.location)} frees "
    )
    words += "packets with a wrong checksum, or by an IPsec policy, as well"
    return Reading(certain.check, words, Certainty.ASSUMED, evidence=tuple(e for e in certain.evidence[1:]))


def rp_filter(case: Case) -> Reading:
    """The reverse path check failed: no route back to the source through the device it came in by."""
    netns = case.identity.namespaces.get((case.event.node, case.event.netns))
    names = (f"net.ipv4.conf.{case.event.device}.rp_filter", "net.ipv4.conf.all.rp_filter")
    set_to = {n: netns.sysctls[n] for n in names if netns is not None and n in netns.sysctls}
    device = case.event.device or "the device it came in by"
    words = f"the reverse path filter of {case.place} dropped it: the way back to {case.flow.src} does not go out by {device}"
    evidence = tuple(observed(f"{name} = {value}", case.event.node) for name, value in set_to.items())
    return Reading("rp-filter", words, Certainty.OBSERVED, evidence=evidence)


def too_big(case: Case) -> Reading:
    """The packet is larger than the next device's MTU and may not be fragmented."""
    words = f"the packet ({case.event.length} bytes) is larger than the MTU of the way on and must not be fragmented"
    netns = case.identity.namespaces.get((case.event.node, case.event.netns))
    devices = [d for d in netns.devices if d.name != "lo" and d.up] if netns is not None else []
    least = min(devices, key=lambda d: d.mtu, default=None)
    evidence = (
        (observed(f"smallest MTU in {case.place}: {least.mtu} on {least.name}", case.event.node),) if least else ()
    )
    return Reading("packet-too-big", words, Certainty.OBSERVED, evidence=evidence)


def unreachable(case: Case) -> Reading:
    """There is no neighbour, or no route, for the address."""
    pod = case.identity.snapshot.pod_at(case.flow.dst)
    known = "the API knows no pod with that address" if pod is None else f"the API has it as {case.destination}'s"
    if case.event.reason.startswith("NEIGH_"):
        device = f" on {case.event.device}" if case.event.device else ""
        check, words = "neighbour-failed", f"{case.place} gets no answer{device} to who has {case.flow.dst} (ARP, ND)"
        if case.event.reason == "NEIGH_QUEUEFULL":
            words += ", and more packets wait for it than there is room for"
    else:
        check, words = "no-route", f"{case.place} has no route to {case.flow.dst}"
    return Reading(check, words, Certainty.OBSERVED, evidence=(assumed(known),))


def ebpf(case: Case) -> Reading:
    """A tc, XDP or cgroup program dropped it: an eBPF data plane (Cilium, the VPC CNI's policy agent)."""
    policy = policy_words(case)
    reason = case.event.reason if case.event.reason in REASONS else "XDP"
    words = f"an eBPF program dropped it ({reason}): an eBPF data plane decides here, not iptables"
    return Reading(
        "ebpf-drop",
        f"{words}. {policy.said}" if policy.said else words,
        Certainty.ASSUMED if policy.said else Certainty.UNKNOWN,
        None,
        policy.policies,
        policy.evidence,
    )


def sentence(case: Case) -> Reading | None:
    """The reasons that say all by themselves."""
    found = SENTENCES.get(case.event.reason)
    if found is None:
        return None
    text = found.text.format(place=case.place, device=case.event.device or "a device")
    return Reading(found.check, text, Certainty.OBSERVED)


def subsystem(case: Case) -> Reading:
    """A data plane with reasons of its own: Open vSwitch (OVN-Kubernetes, Antrea), or another."""
    name, _, number = case.event.reason.rpartition("_")
    words = (
        f"the {name.replace('_', ' ').lower()} subsystem dropped it (its reason {number}): this data plane decides here"
    )
    return Reading("data-plane", words, Certainty.OBSERVED)


def _unknown(case: Case) -> Reading:
    reason = case.event.reason or "no reason"
    words = f"the kernel says {reason} in {case.event.location}; what caused it is not known"
    return Reading("unexplained", words, Certainty.UNKNOWN)


REASONS: Mapping[str, Callable[[Case], Reading]] = {
    "NETFILTER_DROP": netfilter,
    "NO_SOCKET": no_socket,
    "IP_RPFILTER": rp_filter,
    "PKT_TOO_BIG": too_big,
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
LOCATIONS: Mapping[str, Callable[[Case], Reading]] = {
    **dict.fromkeys(
        ("ip_error", "ip6_pkt_discard", "ip6_pkt_discard_out", "ip6_pkt_prohibit", "dst_discard"), unreachable
    ),
    **dict.fromkeys(("do_xdp_generic", "netif_receive_generic_xdp", "bpf_prog_run_generic_xdp"), ebpf),
    **dict.fromkeys(("tcp_v4_rcv", "tcp_v6_rcv", "__udp4_lib_rcv", "__udp6_lib_rcv"), no_socket_perhaps),
}


def _freed(event: PacketDropped) -> Evidence:
    if event.reason_derived:
        return derived(
            f"{event.reason}: what {event.location} frees packets for (this kernel gives no reasons)", event.node
        )
    return observed(f"{event.reason or 'no reason'} in {event.location}", event.node)


def explain_drop(case: Case) -> Drop:
    """A drop with all that is known of it."""
    event = case.event
    read = REASONS.get(event.reason) or LOCATIONS.get(function_of(event.location))
    if read is None and event.reason.startswith(("OPENVSWITCH_", "MAC80211_UNUSABLE_", "SUBSYS_")):
        read = subsystem
    reading = read(case) if read else sentence(case) or _unknown(case)
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
        check=reading.check,
        told=reading.told,
        evidence=(_freed(event), *reading.evidence),
        remedy=case.remedies.of(policy_flow(case.judged, case.identity)) if stopped and case.remedies else None,
        rule_certainty=Certainty.OBSERVED if case.named is not None and reading.rule else None,
    )
