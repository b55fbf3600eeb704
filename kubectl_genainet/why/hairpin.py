"""Packets that come back to the pod that sent them, because its own Service chose it."""

from __future__ import annotations

from kubectl_genainet.model.diagnoses.rules import HAIRPIN_NOT_MASQUERADED
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.why.drop_context import DropContext, DropExplanation, derived


def own_packet(context: DropContext) -> DropExplanation | None:
    """IP_LOCAL_SOURCE: the kernel takes no packet from a device that bears an address of the namespace itself
    (__fib_validate_source). None where the packet is not for the same namespace as well: then it is no hairpin."""
    event, flow = context.event, context.flow
    if not all(context.identity.owns(event.node, event.netns, address) for address in (flow.src, flow.dst)):
        return None
    asked, through = context.asked, "a Service"
    evidence = [derived(f"{flow.src} and {flow.dst} are addresses of {context.place}", event.node)]
    if asked is not None and (asked.dst, asked.dport) != (flow.dst, flow.dport):
        service = context.identity.service(asked)
        through = f"Service {service.namespace}/{service.name}" if service is not None else asked.destination
        evidence.append(derived(f"it had asked for {asked.destination}", event.node))
    statement = (
        f"{context.place} called {through}, which sent it to itself, and no rule masqueraded the packet (hairpin): it came "
        "back with the pod's own address as its source, and the kernel takes none such from a device"
    )
    return DropExplanation(HAIRPIN_NOT_MASQUERADED, statement, Certainty.DERIVED, evidence=tuple(evidence))
