"""kube-proxy's Services, from the compiled chains of its iptables mode.

Source: kubernetes pkg/proxy/iptables/proxier.go: KUBE-SERVICES and KUBE-NODEPORTS jump to a Service's chain, which jumps
to its endpoints' chains, which translate.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy.evaluator.ir import Act, Chain, Rule
from kubectl_genainet.proxy.evaluator.packet.state import address_of
from kubectl_genainet.proxy.iptables.read import IptablesTable, split_counters
from kubectl_genainet.proxy.names import ENDPOINT_CHAINS, SERVICE_CHAINS, service_in_comment
from kubectl_genainet.proxy.service_rules import RuleAddress, RuleBackend, RuleEntry

_VIA = (("cluster IP", "clusterIP"), ("external IP", "externalIP"), ("loadbalancer IP", "loadBalancer"))
_ENTRIES = {"nat": ("KUBE-SERVICES", "KUBE-NODEPORTS"), "filter": ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES")}
_REFUSALS = {Act.REJECT: "REJECT", Act.DROP: "DROP"}
_OF_CLIENTS = ("-s ", "! -s ", "--src-type ", "! --src-type ", "--rcheck")  # rules for some clients only
_LOCALHOST = "-d 127.0.0.0/8"  # the node's own clients of a node port


def service_entries(table: IptablesTable) -> Iterator[RuleEntry]:
    """The addresses that the table's rules take or refuse, each with its Service port and protocol."""
    backends: dict[str, tuple[tuple[RuleBackend, ...], str]] = {}
    node_ips = _node_port_addresses(table)
    for name in _ENTRIES.get(table.name, ()):
        chain = table.chains.get(name)
        for rule in chain.rules if chain is not None else ():
            entry = _entry(table, name, rule, backends, node_ips if name == "KUBE-NODEPORTS" else ())
            if entry is not None:
                yield entry


def _node_port_addresses(table: IptablesTable) -> tuple[str, ...]:
    """The addresses that the jumps to KUBE-NODEPORTS are limited to (nodePortAddresses); empty where one of them is not."""
    chain = table.chains.get("KUBE-SERVICES")
    rules = chain.rules if chain is not None else ()
    numbers = [rule.dst for rule in rules if rule.actions and rule.actions[0].chain == "KUBE-NODEPORTS"]
    limits = [canonical_ip(address_of(number, table.family)) for number in numbers if number is not None]
    return tuple(limits) if len(limits) == len(numbers) else ()


def _entry(
    table: IptablesTable,
    name: str,
    rule: Rule,
    backends: dict[str, tuple[tuple[RuleBackend, ...], str]],
    node_ips: tuple[str, ...],
) -> RuleEntry | None:
    action = rule.actions[0] if rule.actions else None
    if action is None or rule.dport is None or rule.proto is None or _LOCALHOST in rule.labels:
        return None
    refused = _REFUSALS.get(action.kind, "")
    if not refused and not action.chain.startswith(SERVICE_CHAINS):
        return None
    comment = table.describe(rule).comment
    service = service_in_comment(comment)
    if service is None:
        return None
    if not refused and action.chain not in backends:
        below = _Endpoints(table)
        backends[action.chain] = (tuple(below.below(action.chain)), below.unread)
    endpoints, unread = ((), "") if refused else backends[action.chain]
    address = RuleAddress(
        ip=canonical_ip(address_of(rule.dst, table.family)) if rule.dst is not None else "",
        port=rule.dport,
        via=_via(comment, rule.dst is None, name),
        verdict=refused or "DNAT",
        chain="" if refused else action.chain,
        packets=split_counters(rule.raw)[1],
        backends=endpoints,
        unread=unread,
        node_ips=node_ips,
    )
    return service, Protocol.from_number(rule.proto).value, address


def _via(comment: str, no_address: bool, chain: str) -> str:
    """Rules that refuse don't say what kind of address theirs is, but their chain tells cluster addresses."""
    if no_address:
        return "nodePort"
    other = "external" if chain == "KUBE-EXTERNAL-SERVICES" else "clusterIP"
    return next((via for text, via in _VIA if text in comment), other)


class _Endpoints:
    """The endpoints below a Service's chain. `unread` is why they are not all known."""

    def __init__(self, table: IptablesTable) -> None:
        self.table = table
        self.unread = ""

    def below(self, name: str, share: float = 1.0, depth: int = 0) -> Iterator[RuleBackend]:
        """Endpoints with their share of new connections from outside the cluster."""
        chain = self.table.chains.get(name)
        if chain is None or depth > 4:
            return
        unassigned = share
        seen: set[str] = set()
        for rule in chain.rules:
            target = rule.actions[0].chain if rule.actions else ""
            # Clients that were remembered, or pods and the node itself, are sent elsewhere first. A chain of source ranges has
            # no other way than that of the clients within them.
            is_of_clients = not name.startswith("KUBE-FW-") and any(x.startswith(_OF_CLIENTS) for x in rule.labels)
            if target in seen or is_of_clients:
                continue
            if target.startswith(ENDPOINT_CHAINS):
                part = unassigned * rule.probability if rule.probability is not None else unassigned
                unassigned -= part
                yield from self._endpoint(target, part)
            elif target.startswith(SERVICE_CHAINS):
                seen.add(target)
                yield from self.below(target, unassigned, depth + 1)

    def _endpoint(self, name: str, share: float) -> Iterator[RuleBackend]:
        chain: Chain | None = self.table.chains.get(name)
        for rule in chain.rules if chain is not None else ():
            action = rule.actions[0] if rule.actions else None
            if action is not None and action.kind is Act.UNKNOWN:
                self.unread = self.unread or f"a rule of {name} could not be read: {action.detail}"
            elif action is not None and action.kind is Act.DNAT and action.address is not None:
                ip = canonical_ip(address_of(action.address, self.table.family))
                yield RuleBackend(ip, action.port, name, round(share, 6), split_counters(rule.raw)[1])
                return
        if chain is None or not chain.rules:
            self.unread = self.unread or f"chain {name} is not in the dump"
