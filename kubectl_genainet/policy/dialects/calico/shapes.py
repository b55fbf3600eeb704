"""The fields of Calico's objects, as its API has them."""

from __future__ import annotations

from typing import Any

import msgspec


class RawAccounts(msgspec.Struct, frozen=True):
    names: tuple[str, ...] = ()
    selector: str = ""


class RawEntity(msgspec.Struct, frozen=True, rename="camel"):
    nets: tuple[str, ...] = ()
    not_nets: tuple[str, ...] = ()
    selector: str = ""
    not_selector: str = ""
    namespace_selector: str = ""
    ports: tuple[int | str, ...] = ()
    not_ports: tuple[int | str, ...] = ()
    service_accounts: RawAccounts | None = None
    services: dict[str, Any] | None = None
    domains: tuple[str, ...] = ()


class RawCalicoRule(msgspec.Struct, frozen=True, rename="camel"):
    action: str
    protocol: str | int | None = None
    not_protocol: str | int | None = None
    ip_version: int | None = msgspec.field(default=None, name="ipVersion")
    icmp: dict[str, Any] | None = None
    not_icmp: dict[str, Any] | None = msgspec.field(default=None, name="notICMP")
    source: RawEntity = RawEntity()
    destination: RawEntity = RawEntity()
    http: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class RawCalicoSpec(msgspec.Struct, frozen=True, rename="camel"):
    tier: str = "default"
    order: float | None = None
    selector: str = ""
    namespace_selector: str = ""
    service_account_selector: str = ""
    types: tuple[str, ...] = ()
    ingress: tuple[RawCalicoRule, ...] = ()
    egress: tuple[RawCalicoRule, ...] = ()
    performance_hints: tuple[str, ...] = ()
    do_not_track: bool = False
    pre_dnat: bool = msgspec.field(default=False, name="preDNAT")
    apply_on_forward: bool = False


class RawCalicoPolicy(msgspec.Struct, frozen=True):
    spec: RawCalicoSpec = RawCalicoSpec()


class RawTierSpec(msgspec.Struct, frozen=True, rename="camel"):
    order: float | None = None
    default_action: str = "Deny"


class RawTier(msgspec.Struct, frozen=True):
    spec: RawTierSpec = RawTierSpec()
