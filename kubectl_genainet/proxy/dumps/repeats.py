"""The same rules in several dumps: read once. Dumps of one table that differ are of two nodes, or of two times: that is said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kubectl_genainet.proxy.iptables.ipset import IpSet
from kubectl_genainet.proxy.iptables.read import IptablesTable, split_counters
from kubectl_genainet.proxy.ipvs.read import VirtualServer
from kubectl_genainet.proxy.nftables.read import NftTable
from kubectl_genainet.proxy.unread import Unread

_DIFFER = "is in the dumps twice, and differs: they are of two nodes or of two times; give one of each"


@dataclass(frozen=True, slots=True)
class IptablesDump:
    """What one dump of iptables gave. `is_listed`: from `iptables -L` or `-S`, which says less than iptables-save."""

    tables: Sequence[IptablesTable]
    unread: Sequence[Unread]
    is_listed: bool


def distinct_iptables(dumps: Iterable[IptablesDump]) -> tuple[list[IptablesTable], list[Unread]]:
    """Each table once, and what is not read. A listing, or an excerpt, of a table that was saved is left out."""
    kept: list[IptablesTable] = []
    unread: list[Unread] = []
    for dump in sorted(dumps, key=lambda d: (d.is_listed, any(t.is_excerpt for t in d.tables))):
        used = not dump.tables
        for table in dump.tables:
            others = [t for t in kept if t.family == table.family and not t.is_excerpt]
            same = next(
                (t for t in others if t.name == table.name and (dump.is_listed or t.source == table.source)), None
            )
            if table.is_excerpt and any(_is_part_of(table, other) for other in others):
                continue
            if table.is_excerpt and any(other.name == table.name for other in others):
                unread.append(Unread(table.source, _DIFFER, f"table {table.name}"))
            elif same is None or table.is_excerpt:
                kept.append(table)
                used = True
            elif not dump.is_listed and _rules_of(same) != _rules_of(table):
                unread.append(Unread(table.source, _DIFFER, f"table {table.name}"))
                kept.append(table)  # what it has is still shown
        if used:
            unread += dump.unread
    return kept, unread


def _is_part_of(excerpt: IptablesTable, table: IptablesTable) -> bool:
    counts = {name: len(chain.raw) for name, chain in table.chains.items()}
    return all(len(chain.raw) <= counts.get(name, 0) for name, chain in excerpt.chains.items())


def _rules_of(table: IptablesTable) -> dict[str, tuple[str, list[str]]]:
    return {
        name: (chain.policy, [split_counters(line)[0].rstrip() for line in chain.raw])
        for name, chain in table.chains.items()
    }


def distinct_nft(tables: Sequence[NftTable]) -> tuple[list[NftTable], list[Unread]]:
    kept: dict[str, NftTable] = {}
    unread = []
    for table in tables:
        first = kept.setdefault(table.title, table)
        if first is not table and _sizes_of(first) != _sizes_of(table):
            unread.append(Unread("nft", _DIFFER, f"table {table.title}"))
    return list(kept.values()), unread


def _sizes_of(table: NftTable) -> dict[str, int]:
    return {name: len(chain.raw) for name, chain in table.chains.items()}


def distinct_servers(servers: Iterable[VirtualServer]) -> tuple[list[VirtualServer], list[Unread]]:
    """Each virtual server once, from a dump that has its scheduler where there is one."""
    kept: dict[tuple[str, str, int, int | None], VirtualServer] = {}
    unread = []
    for server in servers:
        first = kept.setdefault(server.identity, server)
        if not first.scheduler and server.scheduler:
            kept[server.identity] = server
        elif first.scheduler and server.scheduler and _weights_of(first) != _weights_of(server):
            unread.append(Unread("ipvs", _DIFFER, server.title))
    return list(kept.values()), unread


def _weights_of(server: VirtualServer) -> set[tuple[str, int, int]]:
    return {(real.ip, real.port, real.weight) for real in server.real_servers}


def distinct_sets(sets: Iterable[IpSet]) -> tuple[tuple[IpSet, ...], list[Unread]]:
    """Each ipset once, a whole one before one that is cut short."""
    kept: dict[str, IpSet] = {}
    differing: dict[str, Unread] = {}
    for ipset in sets:
        first = kept.setdefault(ipset.name, ipset)
        if first.unread and not ipset.unread:
            kept[ipset.name] = ipset
        elif not first.unread and not ipset.unread and set(first.members) != set(ipset.members):
            differing[ipset.name] = Unread("ipset", _DIFFER, f"set {ipset.name}")
    return tuple(kept.values()), list(differing.values())
