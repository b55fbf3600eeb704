"""What Calico's API refuses of a policy for pods: such a policy is not in force.

Source: Calico 3.34 (in development), libcalico-go/lib/validator/v3 and the rules (CEL) of its CRDs, with which tests/oracles
compares.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.model.units import whole_number
from kubectl_genainet.policy.dialects.calico.shapes import RawCalicoRule, RawCalicoSpec, RawEntity
from kubectl_genainet.policy.matching.cidr import block_of
from kubectl_genainet.policy.model import RuleAction
from kubectl_genainet.policy.rules import PROTOCOLS
from kubectl_genainet.policy.where import Where, did_you_mean

ACTIONS = {"Allow": RuleAction.ALLOW, "Deny": RuleAction.DENY, "Pass": RuleAction.PASS, "Log": RuleAction.LOG}
_NUMBERS = {6: "TCP", 17: "UDP", 132: "SCTP", 1: "ICMP", 58: "ICMPv6"}
_NAMES = ("TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite")
_VERSION_OF = {"ICMP": 4, "ICMPv6": 6}
_EVERYTHING = ("0.0.0.0/0", "::/0")


def check_policy(spec: RawCalicoSpec, where: Where) -> None:
    """Raises InputError for the first thing that the API refuses."""
    for i, name in enumerate(spec.types):
        if name not in ("Ingress", "Egress"):
            meant = did_you_mean(name, ("Ingress", "Egress"))
            raise where.at("types").item(i).error(f"{name!r} is neither Ingress nor Egress{meant}")
        if name in spec.types[:i]:
            raise where.at("types").item(i).error(f"{name} is there twice")
    for field, selector in (
        ("selector", spec.selector),
        ("serviceAccountSelector", spec.service_account_selector),
        ("namespaceSelector", spec.namespace_selector),
    ):
        if "global(" in selector:
            raise where.at(field).error("global() is only for the namespaceSelector of a rule")
    for i, rule in enumerate(spec.ingress):
        _check_rule(rule, where.at("ingress").item(i), "source")
    for i, rule in enumerate(spec.egress):
        _check_rule(rule, where.at("egress").item(i), "destination")
        if rule.http is not None:
            raise where.at("egress").item(i).at("http").error("it is only for rules of ingress")


def protocol_of(value: str | int | None) -> str:
    """The API's name of a protocol that is given by name or number; "" for none."""
    if value is None:
        return ""
    number = whole_number(str(value))
    return str(value) if number is None else _NUMBERS.get(number, str(value))


def _check_rule(rule: RawCalicoRule, where: Where, peer_side: str) -> None:
    """`peer_side` is the side of the rule where Services may stand."""
    if rule.action not in ACTIONS:
        raise where.at("action").error(f"{rule.action!r} is none of {', '.join(ACTIONS)}")
    for field, value in (("protocol", rule.protocol), ("notProtocol", rule.not_protocol)):
        _check_protocol(value, rule.ip_version, where.at(field))
    sides = (("source", rule.source), ("destination", rule.destination))
    for name, entity in sides:
        _check_ports(entity, rule, where.at(name))
        _check_services(entity, where.at(name), allowed=name == peer_side)
    _check_nets(sides, rule.ip_version, where)
    if rule.http is not None and (rule.action != "Allow" or protocol_of(rule.protocol) not in ("", "TCP")):
        raise where.at("http").error("it is only for rules that allow, of TCP")
    if rule.icmp is not None and protocol_of(rule.protocol) not in _VERSION_OF:
        raise where.at("icmp").error("it needs the protocol ICMP or ICMPv6")
    destination = rule.destination
    if destination.services is not None and (destination.ports or destination.not_ports):
        raise where.at("destination").at("services").error("ports and notPorts do not go with it")


def _check_protocol(value: str | int | None, version: int | None, where: Where) -> None:
    if value is None:
        return
    number = whole_number(str(value))
    if number is None and value not in _NAMES:
        raise where.error(f"{value!r} is none of {', '.join(_NAMES)} and no number")
    if number is not None and not 1 <= number <= 255:
        raise where.error(f"{value} is not between 1 and 255")
    needed = _VERSION_OF.get(protocol_of(value))
    if needed and version not in (None, needed):
        raise where.error(f"{protocol_of(value)} needs ipVersion {needed}")


def _check_ports(entity: RawEntity, rule: RawCalicoRule, where: Where) -> None:
    """Numbers need a protocol that has ports; a name has one of its own, so that it may stand without."""
    for field, ports in (("ports", entity.ports), ("notPorts", entity.not_ports)):
        protocol = protocol_of(rule.protocol)
        if protocol not in PROTOCOLS and any(protocol or _is_number(port) for port in ports):
            raise where.at(field).error("a rule with ports needs the protocol TCP, UDP or SCTP")
        for i, port in enumerate(ports):
            if any(whole_number(part) == 0 for part in str(port).split(":")):
                raise where.at(field).item(i).error(f"{port!r} is not between 1 and 65535")


def _is_number(port: int | str) -> bool:
    return all(whole_number(part) is not None for part in str(port).split(":"))


def _check_services(entity: RawEntity, where: Where, *, allowed: bool) -> None:
    if entity.services is None:
        return
    services_field = where.at("services")
    if not allowed:
        raise services_field.error("Services stand in the source of ingress and in the destination of egress")
    if not entity.services.get("name"):
        raise services_field.at("name").error("it is missing")
    if not (services_field.obj.namespace or entity.services.get("namespace")):
        raise services_field.at("namespace").error("a global policy must give it")
    others = {
        "namespaceSelector": entity.namespace_selector,
        "serviceAccounts": entity.service_accounts is not None,
        "selector": entity.selector,
        "notSelector": entity.not_selector,
        "nets": entity.nets,
        "notNets": entity.not_nets,
    }
    for field, present in others.items():
        if present:
            raise where.at(field).error("it does not go with services")


def _check_nets(sides: Sequence[tuple[str, RawEntity]], version: int | None, where: Where) -> None:
    """All blocks of a rule are of one IP version, that of the rule."""
    first = version
    for side, entity in sides:
        for field, nets in (("nets", entity.nets), ("notNets", entity.not_nets)):
            for i, net in enumerate(nets):
                net_field = where.at(side).at(field).item(i)
                if "/" not in net:
                    raise net_field.error(f"{net!r} is no block: a single address is {_single(net)}")
                block = block_of(net, net_field)
                if first not in (None, block.version):
                    raise net_field.error(f"{net} is IPv{block.version}, and the rule has IPv{first} already")
                if field == "notNets" and net in _EVERYTHING:
                    raise net_field.error(f"{net} leaves nothing")
                first = block.version


def _single(net: str) -> str:
    return f"{net}/{128 if ':' in net else 32}"
