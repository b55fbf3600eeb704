"""The rules of a node as a model: Service port → addresses → chains → backends, the same for every mode."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.packet import address_text, split_endpoint
from kubectl_genainet.proxy.evaluator.ir import Chain, Table, address_of
from kubectl_genainet.proxy.iptables.read import IptablesTable, split_counters
from kubectl_genainet.proxy.ipvs.read import VirtualServer
from kubectl_genainet.proxy.names import parse_nftables_chain, service_in_comment
from kubectl_genainet.proxy.nftables.read import NftTable
from kubectl_genainet.proxy.ruleset import Ruleset


class RuleBackend(msgspec.Struct, frozen=True):
    """An endpoint as the rules have it. `connections` is the counter of its DNAT rule, where there is one.

    `probability` is over new connections; None where a scheduler decides by state.
    """

    ip: str
    port: int | None
    chain: str
    probability: float | None = None
    connections: int | None = None

    @property
    def address(self) -> str:
        return address_text(self.ip, self.port)


class RuleAddress(msgspec.Struct, frozen=True):
    """An address of a Service port that the rules take.

    `via`: clusterIP, externalIP, loadBalancer, nodePort, external (one of the two before), ipvs (any).
    `ip` is empty for a node port. `verdict` is DNAT, or what happens instead: REJECT, DROP. `chain` is where the
    rules send the packet (for IPVS: the scheduler).
    """

    ip: str
    port: int
    via: str
    verdict: str
    chain: str = ""
    packets: int | None = None
    backends: tuple[RuleBackend, ...] = ()

    @property
    def address(self) -> str:
        return address_text(self.ip or "*", self.port)


class ServiceRules(msgspec.Struct, frozen=True):
    """All rules of one Service port on one node, of one mode. `service` is "" where the rules don't name it (IPVS)."""

    service: str  # "ns/name:port"
    protocol: str  # "TCP"
    mode: str  # "iptables", "nftables", "ipvs"
    source: str  # the dump it is from
    addresses: tuple[RuleAddress, ...]

    @property
    def backends(self) -> tuple[RuleBackend, ...]:
        """The endpoints over all addresses, each once."""
        found: dict[tuple[str, int | None], RuleBackend] = {}
        for address in self.addresses:
            for backend in address.backends:
                found.setdefault((backend.ip, backend.port), backend)
        return tuple(found.values())

    @property
    def connections(self) -> int | None:
        """New connections that the rules have translated since they were written; None without counters."""
        counts = [b.connections for b in self.backends]
        return None if not counts or None in counts else sum(c for c in counts if c is not None)


_DESTINATION = re.compile(r"(?<!! )-d (\S+?)(?:/32|/128)? ")
_PROTOCOL = re.compile(r" -p (\w+) ")
_COMMENT = re.compile(r'--comment "?([^"]*?)"?(?: -|$)')
_DPORT = re.compile(r" --dports? (\d+)")
_JUMP = re.compile(r" -[jg] (\S+)")
_CLIENT = re.compile(r" -s |--src-type")
_PROBABILITY = re.compile(r" --probability ([\d.]+)")
_DNAT = re.compile(r" -j DNAT .*?--to-destination (\S+)")
_VIA = (("cluster IP", "clusterIP"), ("external IP", "externalIP"), ("loadbalancer IP", "loadBalancer"))
_SERVICE_CHAINS = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-XLB-", "KUBE-EXT-", "KUBE-FW-")


def service_rules(ruleset: Ruleset) -> tuple[ServiceRules, ...]:
    """Every Service port that the node's rules know, of every mode present."""
    found: list[ServiceRules] = []
    for table in ruleset.tables:
        if isinstance(table, IptablesTable):
            entries = _iptables(table)
            found += _grouped(entries, "iptables", table.source)
        elif isinstance(table, NftTable) and table.name == "kube-proxy":
            found += _grouped(_nftables(table), "nftables", f"nft {table.family_name}")
    found += [_ipvs(server) for server in ruleset.virtual_servers if server.fwmark is None]
    return tuple(_merged(found))


Entry = tuple[str, str, RuleAddress]  # Service port, protocol, address


def _grouped(entries: Iterable[Entry], mode: str, source: str) -> list[ServiceRules]:
    grouped: dict[tuple[str, str], list[RuleAddress]] = {}
    for service, protocol, address in entries:
        grouped.setdefault((service, protocol.upper()), []).append(address)
    return [ServiceRules(s, p, mode, source, tuple(addresses)) for (s, p), addresses in grouped.items()]


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


def _iptables(table: IptablesTable) -> Iterator[Entry]:
    names = {"nat": ("KUBE-SERVICES", "KUBE-NODEPORTS"), "filter": ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES")}
    backends: dict[str, tuple[RuleBackend, ...]] = {}
    for name in names.get(table.name, ()):
        chain = table.chains.get(name)
        for raw in chain.raw if chain is not None else ():
            text, packets, _ = split_counters(raw)
            jump = _JUMP.search(text)
            target = jump.group(1) if jump else ""
            if not target.startswith(_SERVICE_CHAINS) and target not in ("REJECT", "DROP"):
                continue
            comment, dport = _COMMENT.search(text), _DPORT.search(text)
            service = service_in_comment(comment.group(1)) if comment else None
            protocol = _PROTOCOL.search(text)
            if service is None or dport is None or protocol is None:
                continue
            refused = target in ("REJECT", "DROP")
            destination = _DESTINATION.search(text + " ")
            if not refused and target not in backends:
                backends[target] = tuple(_iptables_backends(table, target))
            yield (
                service,
                protocol.group(1),
                RuleAddress(
                    ip=canonical_ip(destination.group(1)) if destination else "",
                    port=int(dport.group(1)),
                    via=_via(comment.group(1) if comment else "", destination is None, name),
                    verdict=target if refused else "DNAT",
                    chain="" if refused else target,
                    packets=packets,
                    backends=() if refused else backends[target],
                ),
            )


def _via(comment: str, no_address: bool, chain: str) -> str:
    """Rules that refuse don't say what kind of address theirs is, but their chain tells cluster addresses."""
    if no_address:
        return "nodePort"
    other = "external" if chain == "KUBE-EXTERNAL-SERVICES" else "clusterIP"
    return next((via for text, via in _VIA if text in comment), other)


def _iptables_backends(table: Table, name: str, share: float = 1.0, depth: int = 0) -> Iterator[RuleBackend]:
    """Endpoints below a Service's chain, with their share of new connections from outside the cluster."""
    chain = table.chains.get(name)
    if chain is None or depth > 4:
        return
    rest = share
    seen: set[str] = set()
    by_client = name.startswith(("KUBE-EXT-", "KUBE-XLB-"))  # pods and the node itself are sent elsewhere first
    for raw in chain.raw:
        jump = _JUMP.search(raw)
        target = jump.group(1) if jump else ""
        if " --rcheck " in raw or target in seen or (by_client and _CLIENT.search(raw)):
            continue
        if target.startswith("KUBE-SEP-"):
            match = _PROBABILITY.search(raw)
            part = rest * float(match.group(1)) if match else rest
            rest -= part
            backend = _endpoint(table, target, part)
            if backend is not None:
                yield backend
        elif target.startswith(_SERVICE_CHAINS):
            seen.add(target)
            yield from _iptables_backends(table, target, rest, depth + 1)


def _endpoint(table: Table, name: str, share: float) -> RuleBackend | None:
    chain = table.chains.get(name)
    for raw in chain.raw if chain is not None else ():
        match = _DNAT.search(raw)
        if match:
            ip, port = split_endpoint(match.group(1))
            packets = split_counters(raw)[1]
            return RuleBackend(canonical_ip(ip), int(port) if port else None, name, round(share, 6), packets)
    return None


_NFT_MAPS = {
    "service-ips": "DNAT",
    "no-endpoint-services": "",
    "service-nodeports": "DNAT",
    "no-endpoint-nodeports": "",
}
_PROTOCOL_NAMES = {6: "TCP", 17: "UDP", 132: "SCTP"}


def _nftables(table: NftTable) -> Iterator[Entry]:
    family = 6 if table.family_name == "ip6" else 4
    for name in _NFT_MAPS:
        lookup = table.declared(name)
        for key, value in lookup.exact.items() if lookup is not None else ():
            assert isinstance(value, dict)
            ip, protocol, port = key if len(key) == 3 else (None, *key)
            service, target, verdict = _nft_verdict(value)
            yield (
                service,
                _PROTOCOL_NAMES.get(_int(protocol), str(protocol)),
                RuleAddress(
                    ip=address_of(_int(ip), family) if ip is not None else "",
                    port=_int(port),
                    via="nodePort" if ip is None else "external" if target.startswith("external-") else "clusterIP",
                    verdict=verdict,
                    chain=target if verdict == "DNAT" else "",
                    backends=tuple(_nft_backends(table, target)) if verdict == "DNAT" else (),
                ),
            )


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _nft_verdict(value: dict[str, Any]) -> tuple[str, str, str]:
    """(Service port, chain, verdict) of a verdict map's element."""
    element = value.get("element")
    comment = element.comment if element is not None else ""
    if "drop" in value:
        return comment, "", "DROP"
    target = str((value.get("goto") or value.get("jump") or {}).get("target", ""))
    parsed = parse_nftables_chain(target)
    if parsed is None:
        return comment, target, "REJECT"
    return parsed.service_port, target, "DNAT"


def _nft_backends(table: NftTable, name: str, depth: int = 0) -> Iterator[RuleBackend]:
    chain = table.chains.get(name)
    if chain is None or depth > 4:
        return
    last = ""
    for raw in chain.raw:
        for expression in raw.get("expr", []):
            vmap = expression.get("vmap")
            if vmap and "numgen" in vmap.get("key", {}):
                elements = vmap["data"]["set"]
                for _, verdict in elements:
                    yield from _nft_endpoint(table, _target(verdict), 1 / vmap["key"]["numgen"]["mod"])
                return
            last = _target(expression) or last
    if last:
        yield from _nft_backends(table, last, depth + 1)


def _target(verdict: dict[str, Any]) -> str:
    return str((verdict.get("goto") or {}).get("target", ""))


def _nft_endpoint(table: NftTable, name: str, share: float) -> Iterator[RuleBackend]:
    chain: Chain | None = table.chains.get(name)
    for raw in chain.raw if chain is not None else ():
        counter: dict[str, Any] = next((e["counter"] for e in raw["expr"] if isinstance(e.get("counter"), dict)), {})
        for expression in raw["expr"]:
            dnat = expression.get("dnat")
            if dnat:
                ip, port = str(dnat.get("addr", "")), dnat.get("port")
                yield RuleBackend(canonical_ip(ip), port, name, round(share, 6), counter.get("packets"))


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
    found: dict[str, set[str]] = {}
    for table in ruleset.tables:
        if isinstance(table, NftTable) and table.name == "kube-proxy":
            found.setdefault("nftables", set()).add(f"nft {table.family_name}")
        elif isinstance(table, IptablesTable) and table.name == "nat":
            chain = table.chains.get("KUBE-SERVICES")
            for raw in chain.raw if chain is not None else ():
                if " KUBE-SVC-" in raw or " KUBE-EXT-" in raw or " KUBE-FW-" in raw:
                    found.setdefault("iptables", set()).add(table.source)
                    break
                if "--match-set KUBE-" in raw:
                    found.setdefault("ipvs", set()).add(table.source)
                    break
    if ruleset.virtual_servers:
        found.setdefault("ipvs", set()).add("ipvs")
    return {mode: tuple(sorted(sources)) for mode, sources in sorted(found.items())}
