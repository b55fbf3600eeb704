"""One node's rules beside the API's objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from kubectl_genainet.model.kube import ServicePort
from kubectl_genainet.proxy.ruleset import Ruleset
from kubectl_genainet.proxy.service_rules import ServiceRules
from kubectl_genainet.proxy.services import proxy_modes, service_rules
from kubectl_genainet.proxy.unread import Affects, Unread


@dataclass(frozen=True)
class NodeRules:
    """One node's rules as they are compared: its Service ports by name and by address."""

    node: str
    ruleset: Ruleset

    @cached_property
    def rules(self) -> tuple[ServiceRules, ...]:
        return service_rules(self.ruleset)

    @cached_property
    def modes(self) -> Mapping[str, tuple[str, ...]]:
        return proxy_modes(self.ruleset)

    @property
    def title(self) -> str:
        """How a finding names the node: saved rules have no node's name."""
        return f"node {self.node}" if self.node else "the node"

    @cached_property
    def families(self) -> set[int]:
        listed = {6 if ":" in s.vip else 4 for s in self.ruleset.virtual_servers}
        return {t.family for t in self.ruleset.tables} | listed

    @cached_property
    def gaps(self) -> tuple[Unread, ...]:
        """Parts that were not read, without which what is absent is not known."""
        return tuple(p for p in self.ruleset.unread if p.scope in (Affects.EVERYTHING, Affects.RULE, Affects.EXCERPT))

    @cached_property
    def by_name(self) -> Mapping[tuple[str, str], list[ServiceRules]]:
        rules_by_name: dict[tuple[str, str], list[ServiceRules]] = {}
        for rules in self.rules:
            rules_by_name.setdefault((rules.service, rules.protocol), []).append(rules)
        return rules_by_name

    @cached_property
    def unnamed(self) -> Mapping[tuple[str, int, str], ServiceRules]:
        """Rules of the modes that don't name Services (IPVS), by address."""
        return {(a.ip, a.port, r.protocol): r for r in self.rules if not r.service for a in r.addresses}

    def entries(self, name: str, port: ServicePort, vips: list[str]) -> list[ServiceRules]:
        """The rules of a Service port: by name, and by address where the mode has no names."""
        named = self.by_name.get((name, port.protocol), [])
        return named + [r for ip in vips if (r := self.unnamed.get((ip, port.port, port.protocol))) is not None]

    def takes(self, entries: list[ServiceRules], ip: str, port: int, protocol: str) -> bool:
        """Whether a rule takes (or refuses) an address; `ip` "" is any of the node's own, for a node port."""
        if any(a.ip == ip and a.port == port for e in entries for a in e.addresses):
            return True
        if ip:
            return (ip, port, protocol) in self.unnamed
        return any((p, proto) == (port, protocol) for _, p, proto in self.unnamed)
