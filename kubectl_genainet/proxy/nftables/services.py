"""kube-proxy's Services, from the compiled rules of its nftables mode.

Source: kubernetes pkg/proxy/nftables/proxier.go. Three shapes: a chain for each endpoint (up to 1.35), a map of
destinations (1.36), a plain translation for a single endpoint (1.37).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy.evaluator.conditions import always_unknown
from kubectl_genainet.proxy.evaluator.ir import Act, Action, Rule
from kubectl_genainet.proxy.evaluator.packet.state import address_of
from kubectl_genainet.proxy.names import parse_nftables_chain
from kubectl_genainet.proxy.nftables.read import NftTable, counters_of
from kubectl_genainet.proxy.service_rules import RuleAddress, RuleBackend, RuleEntry

_MAPS = ("service-ips", "no-endpoint-services", "service-nodeports", "no-endpoint-nodeports")


def service_entries(table: NftTable) -> Iterator[RuleEntry]:
    """The addresses that the table's maps take or refuse, each with its Service port and protocol."""
    family = 6 if table.family_name == "ip6" else 4
    known: dict[str, tuple[tuple[RuleBackend, ...], str]] = {}
    accepting = table.declared("nodeport-ips")
    numbers = [key[0] for key in accepting.exact if isinstance(key[0], int)] if accepting is not None else []
    node_ips = tuple(address_of(number, family) for number in sorted(numbers))
    for name in _MAPS:
        lookup = table.declared(name)
        for key, value in lookup.exact.items() if lookup is not None else ():
            ip, protocol, port = key if len(key) == 3 else (None, *key) if len(key) == 2 else (None, None, None)
            if not isinstance(value, dict) or not isinstance(port, int) or not isinstance(protocol, int):
                continue
            service, target, verdict = _verdict(value)
            if verdict == "DNAT" and target not in known:
                endpoints = _Endpoints(table, family)
                known[target] = (tuple(endpoints.below(target)), endpoints.unread)
            backends, unread = known[target] if verdict == "DNAT" else ((), "")
            if not target and verdict == "DNAT":
                unread = f"an element of the map {name} could not be read"
            yield (
                service,
                Protocol.from_number(protocol).value,
                RuleAddress(
                    ip=address_of(ip, family) if isinstance(ip, int) else "",
                    port=port,
                    via="nodePort" if ip is None else "external" if target.startswith("external-") else "clusterIP",
                    verdict=verdict,
                    chain=target if verdict == "DNAT" else "",
                    backends=backends,
                    unread=unread,
                    node_ips=node_ips if ip is None else (),
                ),
            )


def _verdict(value: dict[str, Any]) -> tuple[str, str, str]:
    """(Service port, chain, verdict) of a verdict map's element."""
    element = value.get("element")
    comment = element.comment if element is not None else ""
    if "drop" in value:
        return comment, "", "DROP"
    jump = value.get("goto") or value.get("jump")
    target = str(jump.get("target", "")) if isinstance(jump, dict) else ""
    if not target:
        return comment, "", "DNAT"  # where to is not read
    parsed = parse_nftables_chain(target)
    if parsed is None:
        return comment, target, "REJECT"
    return parsed.service_port, target, "DNAT"


class _Endpoints:
    """The endpoints below a Service's chain. `unread` is why they are not all known."""

    def __init__(self, table: NftTable, family: int) -> None:
        self.table, self.family = table, family
        self.unread = ""

    def below(self, name: str, share: float = 1.0, depth: int = 0) -> Iterator[RuleBackend]:
        """Endpoints with their share of new connections of clients that are not remembered."""
        chain = self.table.chains.get(name)
        if chain is None or depth > 4:
            self.unread = self.unread or f"chain {name} is not in the dump"
            return
        for rule in chain.rules:
            if any("saddr" in label for label in rule.labels):
                continue  # for some clients only: those in an affinity set, pods, the node itself
            if always_unknown in rule.conditions:
                self.unread = self.unread or f"a rule of {name} could not be read: {'; '.join(rule.labels)}"
            for action in rule.actions:
                yield from self._action(name, rule, action, share, depth)

    def _action(self, name: str, rule: Rule, action: Action, share: float, depth: int) -> Iterator[RuleBackend]:
        if action.kind is Act.SPLIT:
            for part, choice in action.choices:
                yield from self._action(name, rule, choice, share * (part or 0), depth)
        elif action.kind in (Act.JUMP, Act.GOTO):
            if parse_nftables_chain(action.chain) is not None:
                yield from self.below(action.chain, share, depth + 1)
        elif action.kind is Act.DNAT and action.address is not None:
            ip = canonical_ip(address_of(action.address, self.family))
            yield RuleBackend(ip, action.port, name, round(share, 6), counters_of(rule.raw)[0])
        elif action.kind in (Act.UNKNOWN, Act.LOOKUP):
            what = action.detail or rule.ref.text
            self.unread = self.unread or f"a rule of {name} could not be read: {what}"
