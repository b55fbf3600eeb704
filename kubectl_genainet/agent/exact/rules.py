"""The rules that make the kernel tell: what goes into nft and iptables, from values that were parsed only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.packet import parse_address
from kubectl_genainet.wire import FilterEntry

TABLE = "genainet-exact"
MAX_FILTERS = 1000
_PRIORITY = -500  # before conntrack, defragmentation and every other chain
_WITH_PORTS = ("tcp", "udp", "sctp")


def nft_commands(filters: Sequence[FilterEntry]) -> Iterator[str]:
    """Lines for `nft -j -i`. What a client chose is inside JSON only, as values that were parsed (exact_filters).

    The table is made by a constant line of nft's own language: its JSON has no owner flag before nftables 1.1.
    """
    yield f"add table inet {TABLE} {{ flags owner; }}"
    commands: list[dict[str, Any]] = []
    for hook in ("prerouting", "output"):
        place = {"family": "inet", "table": TABLE}
        chain = {**place, "name": hook, "type": "filter", "hook": hook, "prio": _PRIORITY, "policy": "accept"}
        commands.append({"add": {"chain": chain}})
        for matches in _nft_matches(filters):
            mark = {"mangle": {"key": {"meta": {"key": "nftrace"}}, "value": 1}}
            commands.append({"add": {"rule": {**place, "chain": hook, "expr": [*matches, mark]}}})
    yield msgspec.json.encode({"nftables": commands}).decode()


def _nft_matches(filters: Sequence[FilterEntry]) -> Iterator[list[dict[str, Any]]]:
    """One rule for all addresses of a family that share port and protocol."""
    addresses: defaultdict[tuple[int, int, str], list[str]] = defaultdict(list)
    for entry in filters:
        addresses[parse_address(entry.ip).version, entry.port, entry.protocol.lower()].append(entry.ip)
    for (version, port, protocol), ips in addresses.items():
        family = "ip6" if version == 6 else "ip"
        protocols = [protocol] if protocol else list(_WITH_PORTS) if port else []
        yield [
            _nft_match({"payload": {"protocol": family, "field": "daddr"}}, ips),
            *([_nft_match({"meta": {"key": "l4proto"}}, protocols)] if protocols else []),
            *([_nft_match({"payload": {"protocol": "th", "field": "dport"}}, [port])] if port else []),
        ]


def _nft_match(expression: dict[str, Any], values: Sequence[str | int]) -> dict[str, Any]:
    right = values[0] if len(values) == 1 else {"set": list(values)}
    return {"match": {"op": "==", "left": expression, "right": right}}


def exact_filters(filters: Sequence[FilterEntry]) -> tuple[FilterEntry, ...]:
    """The filters with canonical addresses, and ports only where packets have some. Raises GenainetError.

    Checked here too, not only where requests come in: this is where they become rules of the node.
    """
    if len(filters) > MAX_FILTERS:
        raise GenainetError(f"{len(filters)} addresses are more than the {MAX_FILTERS} that can be traced exactly")
    narrowed: dict[FilterEntry, None] = {}
    for entry in filters:
        protocol = entry.protocol.lower()
        try:
            ip = str(parse_address(entry.ip))
        except ValueError:
            raise GenainetError(f"{entry.ip[:64]!r} is not an IP address") from None
        if protocol not in ("", *_WITH_PORTS, "icmp", "icmpv6") or not 0 <= entry.port <= 65535:
            raise GenainetError(f"{entry.protocol[:16]!r} and {entry.port} are no protocol and port")
        port = entry.port if protocol in ("", *_WITH_PORTS) else 0
        narrowed[FilterEntry(ip, port, protocol)] = None
    return tuple(narrowed)


def legacy_rules(filters: Sequence[FilterEntry], mark: str) -> Iterator[list[str]]:
    for entry in filters:
        tool = "ip6tables-legacy" if ":" in entry.ip else "iptables-legacy"
        any_protocol = _WITH_PORTS if entry.port else ("",)
        for protocol in (entry.protocol.lower(),) if entry.protocol else any_protocol:
            match = ["-d", entry.ip, *(["-p", protocol] if protocol else [])]
            if entry.port:
                match += ["--dport", str(entry.port)]
            for chain in ("PREROUTING", "OUTPUT"):
                yield [tool, chain, *match, "-m", "comment", "--comment", mark, "-j", "TRACE"]
