"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy (cilium.io/v2) as they are written.

Source: Cilium, pkg/policy/api. A list that is there and empty is not the same as none, so lists default to None.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kubectl_genainet.policy.matching.selectors import RawSelector


class RawPortProtocol(msgspec.Struct, frozen=True, rename="camel"):
    port: str = ""
    protocol: str = "ANY"
    end_port: int = 0


class RawPortRule(msgspec.Struct, frozen=True, rename="camel"):
    ports: tuple[RawPortProtocol, ...] = ()
    rules: dict[str, Any] | None = None
    listener: dict[str, Any] | None = None
    terminating_tls: dict[str, Any] | None = msgspec.field(default=None, name="terminatingTLS")
    originating_tls: dict[str, Any] | None = msgspec.field(default=None, name="originatingTLS")
    server_names: tuple[str, ...] = ()


class RawCidrRule(msgspec.Struct, frozen=True, rename="camel"):
    cidr: str = ""
    except_: tuple[str, ...] = msgspec.field(default=(), name="except")
    cidr_group_ref: str = ""
    cidr_group_selector: RawSelector | None = None


class RawFqdn(msgspec.Struct, frozen=True, rename="camel"):
    match_name: str = ""
    match_pattern: str = ""


class RawCiliumRule(msgspec.Struct, frozen=True, rename="camel"):
    """Ingress and egress rules, allowing and denying: the fields differ by the prefix from or to only."""

    from_endpoints: tuple[RawSelector, ...] | None = None
    to_endpoints: tuple[RawSelector, ...] | None = None
    from_cidr: tuple[str, ...] | None = msgspec.field(default=None, name="fromCIDR")
    to_cidr: tuple[str, ...] | None = msgspec.field(default=None, name="toCIDR")
    from_cidr_set: tuple[RawCidrRule, ...] | None = msgspec.field(default=None, name="fromCIDRSet")
    to_cidr_set: tuple[RawCidrRule, ...] | None = msgspec.field(default=None, name="toCIDRSet")
    from_entities: tuple[str, ...] | None = None
    to_entities: tuple[str, ...] | None = None
    from_nodes: tuple[RawSelector, ...] | None = None
    to_nodes: tuple[RawSelector, ...] | None = None
    from_groups: tuple[dict[str, Any], ...] | None = None
    to_groups: tuple[dict[str, Any], ...] | None = None
    from_requires: tuple[RawSelector, ...] | None = None
    to_requires: tuple[RawSelector, ...] | None = None
    to_services: tuple[dict[str, Any], ...] | None = None
    to_fqdns: tuple[RawFqdn, ...] | None = msgspec.field(default=None, name="toFQDNs")
    to_ports: tuple[RawPortRule, ...] | None = None
    icmps: tuple[dict[str, Any], ...] | None = None
    authentication: dict[str, Any] | None = None


class RawDefaultDeny(msgspec.Struct, frozen=True):
    ingress: bool | None = None
    egress: bool | None = None


class RawCiliumSpec(msgspec.Struct, frozen=True, rename="camel"):
    endpoint_selector: RawSelector | None = None
    node_selector: RawSelector | None = None
    ingress: tuple[RawCiliumRule, ...] = ()
    ingress_deny: tuple[RawCiliumRule, ...] = ()
    egress: tuple[RawCiliumRule, ...] = ()
    egress_deny: tuple[RawCiliumRule, ...] = ()
    enable_default_deny: RawDefaultDeny = RawDefaultDeny()
    description: str = ""
    labels: tuple[dict[str, Any], ...] = ()
    log: dict[str, Any] = {}


class RawCiliumPolicy(msgspec.Struct, frozen=True):
    spec: RawCiliumSpec | None = None
    specs: tuple[RawCiliumSpec, ...] | None = None
