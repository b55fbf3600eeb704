"""The rules of a node as a model: Service port → addresses → chains → backends, the same for every mode."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_genainet.proxy.iptables.read import IptablesTable
from kubectl_genainet.proxy.iptables.services import service_entries as iptables_entries
from kubectl_genainet.proxy.ipvs.read import VirtualServer
from kubectl_genainet.proxy.names import SERVICE_CHAINS
from kubectl_genainet.proxy.nftables.read import NftTable
from kubectl_genainet.proxy.nftables.services import service_entries as nftables_entries
from kubectl_genainet.proxy.ruleset import Ruleset
from kubectl_genainet.proxy.service_rules import RuleAddress, RuleBackend, ServiceRules, grouped

__all__ = ["RuleAddress", "RuleBackend", "ServiceRules", "proxy_modes", "service_rules"]


def service_rules(ruleset: Ruleset) -> tuple[ServiceRules, ...]:
    """Every Service port that the node's rules know, of every mode present."""
    rules: list[ServiceRules] = []
    for table in ruleset.tables:
        if isinstance(table, IptablesTable):
            rules += grouped(iptables_entries(table), "iptables", table.source)
        elif isinstance(table, NftTable) and table.name == "kube-proxy":
            rules += grouped(nftables_entries(table), "nftables", f"nft {table.family_name}")
    rules += [_ipvs(server) for server in ruleset.virtual_servers if server.fwmark is None]
    return tuple(_merged(rules))


def _merged(rules: list[ServiceRules]) -> Iterator[ServiceRules]:
    """The filter table's refusals join the nat table's addresses of the same Service port and source."""
    merged: dict[tuple[str, ...], ServiceRules] = {}
    for entry in rules:
        unnamed = () if entry.service else (entry.addresses[0].address,)
        key = (entry.service, entry.protocol, entry.mode, entry.source, *unnamed)
        known = merged.get(key)
        if known is not None:
            addresses = tuple(dict.fromkeys((*known.addresses, *entry.addresses)))
            entry = msgspec.structs.replace(known, addresses=addresses)
        merged[key] = entry
    yield from merged.values()


def _ipvs(server: VirtualServer) -> ServiceRules:
    backends = tuple(
        RuleBackend(real.ip, real.port, server.title, share if share is None else round(share, 6))
        for real, share in server.probabilities()
    )
    address = RuleAddress(
        server.vip, server.port, "ipvs", "DNAT" if backends else "REJECT", server.scheduler, backends=backends
    )
    return ServiceRules("", server.protocol, "ipvs", "ipvs", (address,))


def proxy_modes(ruleset: Ruleset) -> dict[str, tuple[str, ...]]:
    """The modes of which the node has rules, each with the dumps they are in. An empty mode's chains don't count."""
    modes: dict[str, set[str]] = {}
    for table in ruleset.tables:
        if isinstance(table, NftTable) and table.name == "kube-proxy":
            modes.setdefault("nftables", set()).add(f"nft {table.family_name}")
        elif isinstance(table, IptablesTable) and table.name == "nat":
            chain = table.chains.get("KUBE-SERVICES")
            for raw in chain.raw if chain is not None else ():
                if any(f" {prefix}" in raw for prefix in SERVICE_CHAINS):
                    modes.setdefault("iptables", set()).add(table.source)
                    break
                if "--match-set KUBE-" in raw:
                    modes.setdefault("ipvs", set()).add(table.source)
                    break
    if ruleset.virtual_servers:
        modes.setdefault("ipvs", set()).add("ipvs")
    return {mode: tuple(sorted(sources)) for mode, sources in sorted(modes.items())}
