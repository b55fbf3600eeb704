"""How bad a drop is by what came of it, and what may be behind it."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.drops.groups import EventGroup, GroupKind
from kubectl_genainet.model.diagnoses import Diagnosis
from kubectl_genainet.model.diagnoses.kernel import OTHER_HOST, PACKET_TOO_BIG
from kubectl_genainet.model.diagnoses.rules import CONNTRACK_INVALID, POLICY_DISAGREEMENT, REJECTED_BY_RULE, RULE_DROP
from kubectl_genainet.model.diagnoses.sockets import REPEATED_SEGMENT
from kubectl_genainet.model.finding import Certainty, Evidence, Severity, counted
from kubectl_genainet.model.node import ICMP_LIMITS
from kubectl_genainet.model.reasons import HARMLESS_REASONS
from kubectl_genainet.model.results.path import Drop

LAG = "the policy enforcer on {node} lags behind the API, or has stopped"
_OLD = "the connection was established under other policies, or its entry in the connection table is gone"
_OTHER = "another enforcer: an eBPF data plane, a firewall of the node, a security agent"
AFTER_THE_END = (
    "they end connections that conntrack had forgotten, such as those that a reset ended: they had no data, and nobody sent data "
    "or a handshake again"
)
_WITHOUT_DATA = 100  # bytes of a packet: the headers of IPv6 and TCP with all its options
_CLOSING = {"FIN_WAIT1", "CLOSING", "LAST_ACK"}  # in which TCP sends its FIN again


def severity(group: EventGroup, diagnosis: Diagnosis, others: list[EventGroup], identity: Identity) -> Severity:
    """By what came of it: a mild reason is none where it kept a connection from coming about."""
    if group.reason in HARMLESS_REASONS:
        return Severity.INFO
    if diagnosis.mild:
        waits = any(
            o.kind is GroupKind.RETRANSMIT and (o.states["SYN_SENT"] or o.states["NEW_SYN_RECV"]) for o in others
        )
        # A repeated SYN is freed where its connection is about to open, a copy that a switch floods on every node but one:
        # that is no fault in itself.
        copied = diagnosis is OTHER_HOST and identity.party(group.flow.dst, None).node not in (None, group.node)
        fatal = (waits or (group.opens and not copied)) and diagnosis is not REPEATED_SEGMENT
        return Severity.ERROR if fatal else Severity.INFO
    if diagnosis is CONNTRACK_INVALID and came_after_the_end(group, others):
        return Severity.INFO
    if diagnosis is PACKET_TOO_BIG and any(o.kind is GroupKind.ICMP for o in others):
        # The sender was told, and sends smaller packets from then on, unless it goes on in vain.
        return Severity.ERROR if any(o.in_vain for o in others) else Severity.INFO
    return diagnosis.severity


def came_after_the_end(group: EventGroup, others: list[EventGroup]) -> bool:
    """Whether packets that conntrack took for no part of a connection are what is left of connections that had ended: a FIN or a
    reset without data, of which nobody missed anything. Who misses data or a handshake sends again in another state."""
    sample = group.sample
    if sample is None or sample.tcp is None or group.opens or not (sample.tcp.fin or sample.tcp.rst):
        return False
    if sample.payload or group.bytes > group.packets * _WITHOUT_DATA:
        return False
    missed = (set(other.states) - _CLOSING for other in others if other.kind is GroupKind.RETRANSMIT)
    return not any(missed)


def how_many_were_told(
    group: EventGroup, drop: Drop, others: list[EventGroup], identity: Identity
) -> Iterator[Evidence]:
    """A rule that rejects tells the sender, as far as the kernel's limit of ICMP errors lets it."""
    if drop.told is None or not drop.told.startswith("icmp"):
        return
    answered = max((o.packets for o in others if o.kind is GroupKind.ICMP), default=0)
    if answered >= group.packets:
        return
    text = f"of {counted(group.packets, 'packet')} the sender was told of {answered}"
    yield Evidence(text, Certainty.OBSERVED, node=group.node, value=answered)
    limited = {name: n for name in ICMP_LIMITS if (n := identity.grown(group.node, group.netns, name)) > 0}
    for name, grown in limited.items():
        text = f"the kernel's limit held ICMP errors back: {name} grew by {grown}"
        yield Evidence(text, Certainty.OBSERVED, node=group.node, value=grown)
    if not limited:
        text = "the kernel's limit of ICMP errors (net.ipv4.icmp_ratelimit, icmp_msgs_per_sec) may have held the others back"
        yield Evidence(text, Certainty.ASSUMED, node=group.node)


def mtu_text(group: EventGroup) -> str:
    return f", MTU {group.error.mtu}" if group.error is not None and group.error.mtu else ""


def causes(group: EventGroup, drop: Drop) -> tuple[str, ...]:
    """What may be behind a drop that the policies do not ask for. A rule that is no enforcer's is a cause of its own."""
    if drop.check in (RULE_DROP.name, REJECTED_BY_RULE.name):
        return ()
    lag, old = (LAG.format(node=group.node),), () if group.opening else (_OLD,)
    return (*lag, *old) if drop.check == POLICY_DISAGREEMENT.name else (*lag, *old, _OTHER)
