"""The administrator's policies of policy.networking.k8s.io: AdminNetworkPolicy and BaselineAdminNetworkPolicy
(v1alpha1) and ClusterNetworkPolicy (v1alpha2), validated and compiled.

Source: network-policy-api, apis/v1alpha1 and apis/v1alpha2; KEP-2091. Selectors never select pods that use their
node's network. The shapes of v0.1.0 (`namespaces: {namespaceSelector: …}`, `pods: {namespaces: …}`) are read too.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.matching.cidr import block_of
from kubectl_genainet.policy.matching.domains import MAX_DOMAIN
from kubectl_genainet.policy.matching.peers import (
    BlockPeer,
    DomainsPeer,
    NodesPeer,
    Peer,
    PodsPeer,
    SameLabelsPeer,
    UnknownPeer,
)
from kubectl_genainet.policy.matching.ports import check_port, check_port_name, check_protocol
from kubectl_genainet.policy.matching.selectors import EVERYTHING, RawExpression, RawSelector, selector_of
from kubectl_genainet.policy.model import PolicyFamily, RuleAction
from kubectl_genainet.policy.rules import (
    ADMIN_TIER,
    BASELINE_TIER,
    NamedPortTerm,
    NumberedPorts,
    Policy,
    PolicyRule,
    Ports,
    Tier,
)
from kubectl_genainet.policy.where import Where, unknown_fields

_DOMAIN_NAME = re.compile(r"(\*\.)?([a-z0-9]([-a-z0-9_]*[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class RawNamespaces(msgspec.Struct, frozen=True, rename="camel"):
    """A label selector (v0.1.1 and later), or v0.1.0's NamespacedPeer."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[RawExpression, ...] = ()
    namespace_selector: RawSelector | None = None
    same_labels: tuple[str, ...] | None = None
    not_same_labels: tuple[str, ...] | None = None


class RawPods(msgspec.Struct, frozen=True, rename="camel"):
    namespace_selector: RawSelector = RawSelector()
    pod_selector: RawSelector = RawSelector()
    namespaces: RawNamespaces | None = None


class RawSubject(msgspec.Struct, frozen=True):
    namespaces: RawSelector | None = None
    pods: RawPods | None = None


class RawAdminPeer(msgspec.Struct, frozen=True, rename="camel"):
    namespaces: RawNamespaces | None = None
    pods: RawPods | None = None
    nodes: RawSelector | None = None
    networks: tuple[str, ...] | None = None
    domain_names: tuple[str, ...] | None = None


class RawPortNumber(msgspec.Struct, frozen=True):
    port: int
    protocol: str = "TCP"


class RawPortRange(msgspec.Struct, frozen=True):
    start: int
    end: int
    protocol: str = "TCP"


class RawAdminPort(msgspec.Struct, frozen=True, rename="camel"):
    port_number: RawPortNumber | None = None
    port_range: RawPortRange | None = None
    named_port: str | None = None


class RawRange(msgspec.Struct, frozen=True):
    start: int
    end: int


class RawDestinationPort(msgspec.Struct, frozen=True):
    number: int | None = None
    range: RawRange | None = None


class RawTransport(msgspec.Struct, frozen=True, rename="camel"):
    destination_port: RawDestinationPort | None = None


class RawProtocol(msgspec.Struct, frozen=True, rename="camel"):
    tcp: RawTransport | None = None
    udp: RawTransport | None = None
    sctp: RawTransport | None = None
    destination_named_port: str | None = None


class RawAdminRule(msgspec.Struct, frozen=True):
    action: str
    name: str = ""
    from_: tuple[RawAdminPeer, ...] = msgspec.field(default=(), name="from")
    to: tuple[RawAdminPeer, ...] = ()
    ports: tuple[RawAdminPort, ...] | None = None
    protocols: tuple[RawProtocol, ...] | None = None


class RawAdminSpec(msgspec.Struct, frozen=True):
    subject: RawSubject
    priority: int | None = None
    tier: str | None = None
    ingress: tuple[RawAdminRule, ...] = ()
    egress: tuple[RawAdminRule, ...] = ()


class RawAdminPolicy(msgspec.Struct, frozen=True):
    spec: RawAdminSpec


_ACTIONS = {"Allow": RuleAction.ALLOW, "Accept": RuleAction.ALLOW, "Deny": RuleAction.DENY, "Pass": RuleAction.PASS}


def compile_admin_policy(obj: KubeObject) -> Policy:
    """Compiles any of the three kinds. Raises InputError with file, object and field."""
    spec = obj.decode(RawAdminPolicy).spec
    where = Where(obj).at("spec")
    tier, priority = _tier_and_priority(obj.kind, spec, where)
    unknown = unknown_fields(obj.raw.get("spec", {}), RawAdminSpec, "spec")
    return Policy(
        ref=obj.ref,
        family=PolicyFamily.ADMIN,
        tier=tier.name,
        subject=_subject(spec.subject, where.at("subject")),
        order=(priority, obj.name),
        egress=_rules(obj.kind, spec.egress, where.at("egress"), "to"),
        ingress=_rules(obj.kind, spec.ingress, where.at("ingress"), "from"),
        not_evaluated=tuple((one.field, one.why(obj.kind)) for one in unknown),
    )


def _tier_and_priority(kind: str, spec: RawAdminSpec, where: Where) -> tuple[Tier, int]:
    if kind == "BaselineAdminNetworkPolicy":
        if where.obj.name != "default":
            name_field = Where(where.obj, "metadata.name")
            raise name_field.error(
                f"{where.obj.name!r} is not default: the API takes one policy of this kind, of that name"
            )
        return BASELINE_TIER, 0
    if spec.priority is None:
        raise where.at("priority").error("priority is missing")
    if not 0 <= spec.priority <= 1000:
        raise where.at("priority").error(f"priority {spec.priority} is not between 0 and 1000")
    if kind == "AdminNetworkPolicy":
        return ADMIN_TIER, spec.priority
    if spec.tier not in ("Admin", "Baseline"):
        raise where.at("tier").error(f"{spec.tier!r} is neither Admin nor Baseline")
    return (ADMIN_TIER if spec.tier == "Admin" else BASELINE_TIER), spec.priority


def _subject(raw: RawSubject, where: Where) -> Peer:
    if (raw.namespaces is None) == (raw.pods is None):
        raise where.error("a subject needs exactly one of namespaces and pods")
    if raw.namespaces is not None:
        field = where.at("namespaces")
        return PodsPeer(namespaces=selector_of(raw.namespaces, field), namespaces_field=field.field)
    assert raw.pods is not None
    return _pods(raw.pods, where.at("pods"))


def _pods(raw: RawPods, where: Where) -> Peer:
    pods = selector_of(raw.pod_selector, where.at("podSelector"))
    pods_field = where.at("podSelector").field
    if raw.namespaces is not None:
        return _namespaces(raw.namespaces, where.at("namespaces"), pods, pods_field)
    field = where.at("namespaceSelector")
    return PodsPeer(
        pods, selector_of(raw.namespace_selector, field), pods_field=pods_field, namespaces_field=field.field
    )


def _namespaces(raw: RawNamespaces, where: Where, pods: Any = EVERYTHING, pods_field: str = "") -> Peer:
    for keys, same, name in ((raw.same_labels, True, "sameLabels"), (raw.not_same_labels, False, "notSameLabels")):
        if keys is not None:
            return SameLabelsPeer(keys, same, pods, where.at(name).field, pods_field)
    if raw.namespace_selector is not None:
        field = where.at("namespaceSelector")
        selector = selector_of(raw.namespace_selector, field)
    else:
        field = where
        selector = selector_of(RawSelector(raw.match_labels, raw.match_expressions), field)
    return PodsPeer(pods, selector, pods_field=pods_field or field.field, namespaces_field=field.field)


def _rules(kind: str, raw: tuple[RawAdminRule, ...], where: Where, side: str) -> tuple[PolicyRule, ...]:
    return tuple(_rule(kind, i, rule, where.item(i), side) for i, rule in enumerate(raw))


def _rule(kind: str, index: int, raw: RawAdminRule, where: Where, side: str) -> PolicyRule:
    action = _ACTIONS.get(raw.action)
    if action is None or (kind == "BaselineAdminNetworkPolicy" and action is RuleAction.PASS):
        raise where.at("action").error(f"{raw.action!r} is no action of {kind}")
    peers = raw.from_ if side == "from" else raw.to
    if not peers:
        raise where.at(side).error("a rule needs at least one peer")
    return PolicyRule(
        number=index + 1,
        action=action,
        field=where.field,
        name=raw.name,
        peers=tuple(p for i, raw_peer in enumerate(peers) for p in _peers(raw_peer, where.at(side).item(i), side)),
        ports=_ports(raw, where),
    )


def _peers(raw: RawAdminPeer, where: Where, side: str) -> list[Peer]:
    outside = {"nodes": raw.nodes, "networks": raw.networks, "domainNames": raw.domain_names}
    wrong = [name for name, value in outside.items() if value is not None and side == "from"]
    if wrong:
        why = f"peers of an ingress rule have no field {wrong[0]}"
        return [UnknownPeer(where.at(wrong[0]).field, why)]
    fields = [f for f in (raw.namespaces, raw.pods, raw.nodes, raw.networks, raw.domain_names) if f is not None]
    if len(fields) != 1:
        raise where.error("a peer needs exactly one of namespaces, pods, nodes, networks and domainNames")
    if raw.namespaces is not None:
        return [_namespaces(raw.namespaces, where.at("namespaces"))]
    if raw.pods is not None:
        return [_pods(raw.pods, where.at("pods"))]
    if raw.nodes is not None:
        nodes_field = where.at("nodes")
        return [NodesPeer(selector_of(raw.nodes, nodes_field), nodes_field.field)]
    if raw.networks is not None:
        nodes_field = where.at("networks")
        return [
            BlockPeer(block_of(n, nodes_field.item(i)), (), nodes_field.item(i).field)
            for i, n in enumerate(raw.networks)
        ]
    names = raw.domain_names or ()
    nodes_field = where.at("domainNames")
    return [
        DomainsPeer(
            names, tuple(_domain_pattern(n, nodes_field.item(i)) for i, n in enumerate(names)), nodes_field.field
        )
    ]


def _domain_pattern(name: str, where: Where) -> str:
    """A pattern (policy/domains.py) for a domain name; a leading `*.` stands for one label or more."""
    plain = name.lower().rstrip(".")  # the API takes upper case; DNS compares without regard to case
    if len(plain) > MAX_DOMAIN or not _DOMAIN_NAME.fullmatch(plain):
        raise where.error(
            f"{name[:MAX_DOMAIN]!r} is not a domain name", 'A name like "example.com", or "*.example.com".'
        )
    return f"*{plain}" if plain.startswith("*.") else plain


def _ports(raw: RawAdminRule, where: Where) -> tuple[tuple[Ports, ...], ...]:
    ports: list[Ports] = []
    for i, port in enumerate(raw.ports or ()):
        ports.append(_port(port, where.at("ports").item(i)))
    for i, protocol in enumerate(raw.protocols or ()):
        ports.append(_protocol(protocol, where.at("protocols").item(i)))
    return (tuple(ports),) if ports else ()


def _port(raw: RawAdminPort, where: Where) -> Ports:
    fields = [f for f in (raw.port_number, raw.port_range, raw.named_port) if f is not None]
    if len(fields) != 1:
        raise where.error("a port needs exactly one of portNumber, portRange and namedPort")
    if raw.named_port is not None:
        field = where.at("namedPort")
        check_port_name(raw.named_port, field)
        return NamedPortTerm("", raw.named_port, field.field)
    if raw.port_number is not None:
        field = where.at("portNumber")
        check_protocol(raw.port_number.protocol, field.at("protocol"))
        check_port(raw.port_number.port, field.at("port"))
        return NumberedPorts(raw.port_number.protocol, raw.port_number.port, raw.port_number.port, field.field)
    assert raw.port_range is not None
    field = where.at("portRange")
    check_protocol(raw.port_range.protocol, field.at("protocol"))
    return _range(raw.port_range.protocol, raw.port_range.start, raw.port_range.end, field)


def _range(protocol: str, start: int, end: int, where: Where) -> NumberedPorts:
    check_port(start, where.at("start"))
    check_port(end, where.at("end"))
    if end < start:
        raise where.at("end").error(f"end {end} is below start {start}")
    return NumberedPorts(protocol, start, end, where.field)


def _protocol(raw: RawProtocol, where: Where) -> Ports:
    transports = [(n, t) for n, t in (("tcp", raw.tcp), ("udp", raw.udp), ("sctp", raw.sctp)) if t is not None]
    if len(transports) + (raw.destination_named_port is not None) != 1:
        raise where.error("a protocol needs exactly one of tcp, udp, sctp and destinationNamedPort")
    if raw.destination_named_port is not None:
        field = where.at("destinationNamedPort")
        check_port_name(raw.destination_named_port, field)
        return NamedPortTerm("", raw.destination_named_port, field.field)
    name, transport = transports[0]
    field = where.at(name)
    port = transport.destination_port
    if port is None:
        return NumberedPorts(name.upper(), 0, 65535, field.field)
    field = field.at("destinationPort")
    if (port.number is None) == (port.range is None):
        raise field.error("a destination port needs exactly one of number and range")
    if port.number is not None:
        check_port(port.number, field.at("number"))
        return NumberedPorts(name.upper(), port.number, port.number, field.at("number").field)
    assert port.range is not None
    return _range(name.upper(), port.range.start, port.range.end, field.at("range"))
