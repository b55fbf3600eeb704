"""A Service port's endpoints in a node's rules, against those that traffic policies and topology hints leave to the node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kubectl_genainet.model.cluster import Backend, ClusterSnapshot
from kubectl_genainet.model.diagnoses import Diagnosis
from kubectl_genainet.model.diagnoses.kube_proxy import (
    MISSING_ENDPOINT_RULES,
    STALE_ENDPOINT_RULES,
    TOPOLOGY_HINTS_IGNORED,
    TRAFFIC_POLICY_IGNORED,
)
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, Severity
from kubectl_genainet.model.kube import Service, ServicePort
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.proxy.drift.expected import Slices, expected, is_local, usable
from kubectl_genainet.proxy.drift.node_rules import NodeRules
from kubectl_genainet.proxy.drift.nodes import remedy
from kubectl_genainet.proxy.names import service_port_name
from kubectl_genainet.proxy.service_rules import RuleAddress, ServiceRules

Key = tuple[str, int | None]  # an endpoint's address and port


@dataclass
class _Differences:
    """Endpoints by how they differ, each once, over all addresses of a Service port."""

    missing: dict[Key, None] = field(default_factory=dict)
    beyond_hints: dict[Key, None] = field(default_factory=dict)
    beyond_policy: dict[Key, None] = field(default_factory=dict)
    has_address_without_any: bool = False  # of those that it must have


def endpoint_findings(
    snapshot: ClusterSnapshot,
    slices: Slices,
    node: NodeRules,
    service: Service,
    port: ServicePort,
    entries: list[ServiceRules],
) -> Iterator[Finding]:
    known = snapshot.backends(service, port)
    in_use = {(b.ip, b.port) for b in known if b.ready or b.serving}
    stale = {(b.ip, b.port): None for e in entries for b in e.backends if (b.ip, b.port) not in in_use}
    differences = _Differences()
    for entry in entries:
        families = {":" in address.ip for address in entry.addresses if address.ip}
        of_family = [b for b in known if (":" in b.ip) in families]
        for address, programmed in by_address(entry):
            _compare(differences, service, address, programmed, of_family, node.node, slices, entry.mode)
    kinds = (
        (STALE_ENDPOINT_RULES, "still sends to", "which no EndpointSlice has ready or serving", stale),
        (MISSING_ENDPOINT_RULES, "does not send to", "ready in the EndpointSlices", differences.missing),
        (
            TOPOLOGY_HINTS_IGNORED,
            "also sends to",
            "which the topology hints keep for other zones or nodes",
            differences.beyond_hints,
        ),
        (
            TRAFFIC_POLICY_IGNORED,
            "also sends to",
            "which the traffic policy Local keeps for their own nodes",
            differences.beyond_policy,
        ),
    )
    for diagnosis, verb, why, endpoints in kinds:
        if endpoints:
            is_worse = diagnosis is MISSING_ENDPOINT_RULES and differences.has_address_without_any
            addresses = [address_text(*key) for key in endpoints]
            severity = Severity.ERROR if is_worse else None
            yield _finding(diagnosis, verb, why, node, service, port, addresses, slices.age(service), severity)


def by_address(entry: ServiceRules) -> Iterator[tuple[RuleAddress, set[Key]]]:
    """Each address with its endpoints; it may stand both among what is translated and among what is refused."""
    grouped: dict[tuple[str, int], tuple[RuleAddress, set[Key]]] = {}
    for address in entry.addresses:
        _, programmed = grouped.setdefault((address.ip, address.port), (address, set()))
        programmed |= {(b.ip, b.port) for b in address.backends}
    yield from grouped.values()


def _compare(
    differences: _Differences,
    service: Service,
    address: RuleAddress,
    programmed: set[Key],
    known: Iterable[Backend],
    node: str,
    slices: Slices,
    mode: str,
) -> None:
    options = [{(b.ip, b.port) for b in wanted} for wanted in expected(service, address, known, node, slices)]
    if not options or programmed in options:
        return
    wanted = options[0]
    missing = _listed(key for key in wanted if key not in programmed)
    differences.missing |= missing
    differences.has_address_without_any |= bool(wanted) and len(missing) == len(wanted)
    if mode == "ipvs" and not wanted:  # which falls back to the endpoints of other nodes
        return
    beyond = _listed((b.ip, b.port) for b in usable(known) if (b.ip, b.port) in programmed - wanted)
    if is_local(service, address):
        differences.beyond_policy |= beyond
    elif slices.hints(service):
        differences.beyond_hints |= beyond


def _listed(keys: Iterable[Key]) -> dict[Key, None]:
    """A set that keeps its order."""
    return dict.fromkeys(keys)


def _finding(
    diagnosis: Diagnosis,
    verb: str,
    why: str,
    node: NodeRules,
    service: Service,
    port: ServicePort,
    addresses: list[str],
    age: str,
    severity: Severity | None,
) -> Finding:
    shown = ", ".join(addresses[:5]) + (f" and {len(addresses) - 5} more" if len(addresses) > 5 else "")
    name = service_port_name(service.metadata.namespace, service.metadata.name, port.name)
    evidence = [
        Evidence(
            f"{node.title} {verb} {shown} for {name}, by its rules", Certainty.OBSERVED, value=addresses, node=node.node
        ),
        Evidence(f"{why.removeprefix('which ')}: {shown}", Certainty.DERIVED, service.ref),
    ]
    if age:
        evidence.append(Evidence(f"the endpoints last changed {age} before the snapshot", Certainty.OBSERVED))
    return diagnosis.finding(
        f"{node.title} {verb} {shown} for {name}, {why}" + (f"; the last change is {age} old" if age else ""),
        tuple(evidence),
        service.ref,
        severity=severity,
        remedy=remedy(node.node),
    )
