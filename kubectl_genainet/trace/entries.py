"""Entries of the connection table that were made before the rules of today: the kernel asks the table first."""

from __future__ import annotations

from kubectl_genainet.context.rulesets import Rulesets
from kubectl_genainet.model.diagnoses.kube_proxy import STALE_CONNECTION
from kubectl_genainet.model.diagnoses.rules import CONNTRACK_INVALID
from kubectl_genainet.model.events import Point
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, Remedy, counted
from kubectl_genainet.model.packet import FiveTuple, address_text
from kubectl_genainet.model.results.path import PacketPath, Party, ServiceRef
from kubectl_genainet.proxy import Packet, evaluate
from kubectl_genainet.shell import sh
from kubectl_genainet.trace.joining.connection import Dropped

_AFTER_NAT = ("FORWARD", "POSTROUTING")


def stale_entry(path: PacketPath, service: ServiceRef, backend: Party, ref: ObjectRef) -> Finding:
    """No rule sends the packets to `backend`, which is no endpoint, so an entry does that was made before."""
    where = f"node {path.hops[path.nat.hop or 0].node}" if path.nat is not None and path.hops else "its node"
    to = address_text(backend.ip, backend.port)
    return STALE_CONNECTION.finding(
        f"an entry in the connection table of {where} sends {service.name} to {to}, which is no endpoint of it; no rule does",
        (
            Evidence(f"the packet was translated to {to}", Certainty.OBSERVED),
            Evidence(f"the rules of {where} send new connections elsewhere", Certainty.DERIVED),
            Evidence("no EndpointSlice of the Service has that address and port", Certainty.ASSUMED, object=ref),
        ),
        object=ref,
        remedy=_delete(path, service, where),
    )


def untranslated(path: PacketPath, asked: FiveTuple, dropped: Dropped | None, rulesets: Rulesets) -> Finding | None:
    """The first packet kept the Service's address, that of `asked`, beyond the place where its node's rules translate it.

    Nothing is said where a rule is not read, or where one of the versions that were read does not translate it.
    """
    service = path.flow.service
    if service is None or path.nat is not None or path.backend is not None:
        return None
    node, how = _passed(path, asked, dropped)
    ruleset, _ = rulesets.of(node)
    versions = (ruleset, *rulesets.earlier(node)) if ruleset is not None else ()
    ways = [evaluate(version, Packet.of(asked)) for version in versions]
    if not node or not ways or any(way.unknown or not way.backends for way in ways):
        return None
    endpoints, to = counted(len(ways[0].backends), "endpoint"), asked.destination
    return STALE_CONNECTION.finding(
        f"node {node} did not translate the packet for {service.name}, though its rules send new connections to {endpoints}: "
        "it, or the entry that it has in the connection table, came before the rules",
        (
            Evidence(f"a packet for {to} {how}", Certainty.OBSERVED, node=node),
            Evidence(f"the rules of node {node} translate new connections to {to}", Certainty.DERIVED, node=node),
        ),
        object=ObjectRef("Service", service.name, service.namespace),
        remedy=_delete(path, service, f"node {node}"),
    )


def _passed(path: PacketPath, asked: FiveTuple, dropped: Dropped | None) -> tuple[str, str]:
    """(The node that let the packet pass untranslated, where it was seen to); ("", "") where none is known to have, or where
    connection tracking took it for INVALID: it translates none such."""
    if path.drop is not None and path.drop.check == CONNTRACK_INVALID.name:
        return "", ""
    if dropped is not None:
        event = dropped.event
        if event.ct_state == "INVALID" or (event.flow.dst, event.flow.dport) != (asked.dst, asked.dport):
            return "", ""
        if event.hook in _AFTER_NAT:
            return event.node, f"died in {event.hook}"
        return (event.node, "waited in vain for a link address") if event.reason.startswith("NEIGH_") else ("", "")
    last = path.hops[-1] if path.hops else None
    left = last is not None and last.pod is None and last.point == Point.TX.value
    return (last.node, f"left by {last.device}") if last is not None and left else ("", "")


def _delete(path: PacketPath, service: ServiceRef, where: str) -> Remedy:
    client, protocol = path.flow.client, path.flow.protocol.value
    command = f"conntrack -D -p {protocol.lower()} --orig-src {sh(client.ip)} --orig-dst {sh(service.ip)}"
    command += f" --orig-port-dst {service.port}"
    command += f" --orig-port-src {client.port}" if client.port else ""
    return Remedy(f"Delete the entry on {where}: the next packet meets the rules.", command=command)
