"""What the API server and the agent refuse: a policy with such a field is not in force, in none of its parts.

Source: Cilium, pkg/policy/api/rule_validation.go, and the schema of the custom resource.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from kubectl_genainet.policy.dialects.cilium.shapes import (
    RawCidrRule,
    RawCiliumRule,
    RawFqdn,
    RawPortProtocol,
    RawPortRule,
)
from kubectl_genainet.policy.matching.cidr import AddressBlock, as_spelled, block_of
from kubectl_genainet.policy.matching.domains import MAX_DOMAIN
from kubectl_genainet.policy.model import Direction, RuleAction
from kubectl_genainet.policy.where import Where

ENTITIES = frozenset(
    (
        "all",
        "cluster",
        "cluster-mesh",
        "health",
        "host",
        "ingress",
        "init",
        "kube-apiserver",
        "none",
        "remote-node",
        "unmanaged",
        "world",
    )
)
PROTOCOLS = frozenset(["TCP", "UDP", "SCTP", "ANY", "VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH"])
_MOST_PORTS = 40
_SERVICE_NAME = re.compile(r"(?=.{1,15}$)([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*")
_NAME = re.compile(r"[-a-zA-Z0-9_]+([.][-a-zA-Z0-9_]+)*[.]?")
_PATTERN = re.compile(r"[-a-zA-Z0-9_*]+([.][-a-zA-Z0-9_*]+)*[.]?")


def check_rule(raw: RawCiliumRule, where: Where, direction: Direction, action: RuleAction) -> None:
    """Raises InputError for the first part of a rule that is refused."""
    _check_peers(raw, where)
    if raw.icmps and raw.to_ports:
        raise where.at("icmps").error("icmps can't be combined with toPorts: the agent refuses the policy")
    for i, ports in enumerate(raw.to_ports or ()):
        _check_ports(ports, where.at("toPorts").item(i), direction, action)
    for i, fqdn in enumerate(raw.to_fqdns or () if action is RuleAction.ALLOW else ()):
        check_fqdn(fqdn, where.at("toFQDNs").item(i))


def _check_peers(raw: RawCiliumRule, where: Where) -> None:
    fields = {
        "fromEndpoints": raw.from_endpoints,
        "toEndpoints": raw.to_endpoints,
        "fromCIDR": raw.from_cidr,
        "toCIDR": raw.to_cidr,
        "fromCIDRSet": raw.from_cidr_set,
        "toCIDRSet": raw.to_cidr_set,
        "fromEntities": raw.from_entities,
        "toEntities": raw.to_entities,
        "fromNodes": raw.from_nodes,
        "toNodes": raw.to_nodes,
        "fromGroups": raw.from_groups,
        "toGroups": raw.to_groups,
        "toServices": raw.to_services,
        "toFQDNs": raw.to_fqdns,
    }
    present = [name for name, value in fields.items() if value]
    if len(present) > 1:
        raise where.error(f"{present[0]} can't be combined with {present[1]} in a rule: the agent refuses the policy")
    for name, entities in (("fromEntities", raw.from_entities), ("toEntities", raw.to_entities)):
        for i, entity in enumerate(entities or ()):
            if entity not in ENTITIES:
                peer_field = where.at(name).item(i)
                raise peer_field.error(f"{entity!r} is no entity", f"Entities are {', '.join(sorted(ENTITIES))}.")


def _check_ports(raw: RawPortRule, where: Where, direction: Direction, action: RuleAction) -> None:
    if action is RuleAction.DENY:  # of a port rule that denies the schema knows the ports only
        raw = msgspec.structs.replace(raw, rules=None, listener=None, server_names=())
    rules = raw.rules or {}
    kinds = [name for name, value in rules.items() if value]
    if len(kinds) > 1:
        raise where.at("rules").error("a rule has layer 7 rules of one protocol only: the agent refuses the policy")
    kind = kinds[0] if kinds else ""
    ingress = direction is Direction.INGRESS
    if kind == "dns" and ingress:
        raise where.at("rules").error("DNS rules are for egress only: the agent refuses the policy")
    if kind == "dns" and not raw.ports:
        raise where.at("ports").error("DNS rules need port 53: the agent refuses the policy")
    if raw.server_names and kind and raw.terminating_tls is None:
        problem = "serverNames can't be combined with layer 7 rules without terminatingTLS"
        raise where.at("serverNames").error(f"{problem}: the agent refuses the policy")
    if raw.listener is not None and (ingress or kind):
        problem = "a listener is for egress only, without layer 7 rules"
        raise where.at("listener").error(f"{problem}: the agent refuses the policy")
    if len(raw.ports) > _MOST_PORTS:
        raise where.at("ports").error(f"more than {_MOST_PORTS} ports: the agent refuses the policy")
    for i, port in enumerate(raw.ports):
        _check_port(port, where.at("ports").item(i), kind)


def _check_port(raw: RawPortProtocol, where: Where, kind: str) -> None:
    if raw.protocol and raw.protocol not in PROTOCOLS:
        raise where.at("protocol").error(f"{raw.protocol!r} is no protocol", "Protocols are TCP, UDP, SCTP and ANY.")
    if not raw.port:
        raise where.at("port").error("a port must be given: the agent refuses the policy")
    number = port_number(raw.port)
    if number is None and not _SERVICE_NAME.fullmatch(raw.port):
        raise where.at("port").error(f"{raw.port!r} is neither a port number nor a port name")
    if not 0 <= raw.end_port <= 65535:
        raise where.at("endPort").error(f"endPort {raw.end_port} is not between 0 and 65535")
    if kind and number == 0:
        raise where.at("port").error("layer 7 rules can't be used with port 0: the agent refuses the policy")
    if kind == "dns" and number is not None and raw.end_port > number:
        raise where.at("endPort").error("DNS rules take no range of ports: the agent refuses the policy")
    if kind and kind != "dns" and raw.protocol != "TCP":
        problem = f"layer 7 rules ({kind}) need protocol TCP"
        raise where.at("protocol").error(f"{problem}: the agent refuses the policy")


def not_in_deny_rules(rules: Iterable[RawCiliumRule], where: Where) -> Iterator[tuple[str, str]]:
    """Fields that an allowing rule has and a denying one has not: the API server drops them, and the rule denies more."""
    why = "a deny rule has no such field: the API server drops it"
    for i, rule in enumerate(rules):
        rule_field = where.item(i)
        if rule.to_fqdns:
            yield rule_field.at("toFQDNs").field, why
        if rule.authentication:
            yield rule_field.at("authentication").field, why
        for j, ports in enumerate(rule.to_ports or ()):
            for name, value in (
                ("rules", ports.rules),
                ("listener", ports.listener),
                ("serverNames", ports.server_names),
                ("terminatingTLS", ports.terminating_tls),
                ("originatingTLS", ports.originating_tls),
            ):
                if value:
                    yield rule_field.at("toPorts").item(j).at(name).field, why


def port_number(text: str) -> int | None:
    """A port that is a number, None for a name. A leading 0 makes it octal, as the agent reads it."""
    if not text.isascii() or not text.isdigit():
        return None
    base = 8 if len(text) > 1 and text[0] == "0" else 10
    try:
        number = int(text, base)
    except ValueError:
        return None
    return number if number <= 65535 else None


def check_fqdn(raw: RawFqdn, where: Where) -> None:
    if bool(raw.match_name) == bool(raw.match_pattern):
        raise where.error("exactly one of matchName and matchPattern is needed")
    if raw.match_name and not (len(raw.match_name) <= MAX_DOMAIN and _NAME.fullmatch(raw.match_name)):
        raise where.at("matchName").error(f"{raw.match_name[:MAX_DOMAIN]!r} is not a domain name")
    if raw.match_pattern and not (len(raw.match_pattern) <= MAX_DOMAIN and _PATTERN.fullmatch(raw.match_pattern)):
        raise where.at("matchPattern").error(f"{raw.match_pattern[:MAX_DOMAIN]!r} is not a pattern of domain names")


def check_cidr_rule(raw: RawCidrRule, where: Where) -> None:
    present = [f for f in (raw.cidr, raw.cidr_group_ref, raw.cidr_group_selector) if f]
    if raw.cidr_group_selector is not None and not present:
        present = [raw.cidr_group_selector]
    if len(present) != 1:
        raise where.error("exactly one of cidr, cidrGroupRef and cidrGroupSelector is needed")


def excepts_in(block: AddressBlock | None, texts: Sequence[str], where: Where) -> tuple[AddressBlock, ...]:
    """Reads `except`: each must be a part of the block; the whole block may be excepted."""
    excepts = []
    for i, text in enumerate(texts):
        excepted = as_spelled(block_of(text, where.item(i)))
        if block is not None and not (
            excepted.version == block.version and block.first <= excepted.first and excepted.last <= block.last
        ):
            raise where.item(i).error(f"{text!r} is not a part of {block.text!r}")
        excepts.append(excepted)
    return tuple(excepts)


def dns_rules(raw: RawPortRule) -> list[dict[str, Any]]:
    rules = (raw.rules or {}).get("dns")
    return [r for r in rules if isinstance(r, dict)] if isinstance(rules, list) else []
