"""Cilium's rules: the peers and the ports of one rule.

Source: Cilium, pkg/policy/utils (mergeEndpointSelectors): an empty list of endpoints, entities, nodes or blocks selects
nobody, whatever stands beside it; other empty lists name no peer. Without a peer, a rule with ports is for everyone, and one
without ports for nobody.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.dialects.cilium.blocks import CidrGroup, GroupsPeer, UnreadBlocksPeer
from kubectl_genainet.policy.dialects.cilium.checks import check_cidr_rule, excepts_in, port_number
from kubectl_genainet.policy.dialects.cilium.names import Lookups, NamePeer, name_pattern
from kubectl_genainet.policy.dialects.cilium.options import Options
from kubectl_genainet.policy.dialects.cilium.ranges import Ranges
from kubectl_genainet.policy.dialects.cilium.selectors import endpoint_peer, label_terms
from kubectl_genainet.policy.dialects.cilium.services import service_peers
from kubectl_genainet.policy.dialects.cilium.shapes import (
    RawCidrRule,
    RawCiliumRule,
    RawPortProtocol,
)
from kubectl_genainet.policy.identity import EntityPeer, IdentityPeer, IdentityScheme, LabelTerm
from kubectl_genainet.policy.matching.cidr import as_spelled, block_of
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.matching.peers import BlockPeer, NobodyPeer, Peer
from kubectl_genainet.policy.matching.selectors import Operator, RawSelector
from kubectl_genainet.policy.model import Direction, RuleAction
from kubectl_genainet.policy.rules import NamedPortTerm, NoPorts, NumberedPorts, PolicyRule, Ports
from kubectl_genainet.policy.where import Where

_KINDS = {"nodes": PartyKind.HOST, "pods": PartyKind.POD}


class RuleReader:
    """Reads rules in the light of one cluster."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        options: Options,
        identities: IdentityScheme,
        lookups: Lookups,
        groups: dict[str, CidrGroup],
    ) -> None:
        self._snapshot, self._identities, self._lookups, self._groups = snapshot, identities, lookups, groups
        self.ranges = Ranges(snapshot)
        self._also = frozenset(_KINDS[m] for m in options.cidr_match_modes if m in _KINDS)

    def rule(
        self, index: int, raw: RawCiliumRule, where: Where, direction: Direction, action: RuleAction, *, init: bool
    ) -> PolicyRule:
        restricted = bool(raw.to_ports or raw.icmps)
        return PolicyRule(
            index + 1,
            action,
            where.field,
            peers=self._peers(raw, where, direction, restricted, init),
            ports=(tuple(self._ports(raw, where, direction)),) if restricted else (),
            not_evaluated=(
                *(_not_evaluated(raw, where) if action is RuleAction.ALLOW else _requirements(raw, where)),
                *(self._rival_ranges(raw, where) if direction is Direction.INGRESS else ()),
            ),
        )

    def _rival_ranges(self, raw: RawCiliumRule, where: Where) -> Iterator[tuple[str, str]]:
        """Named ports of which it is not known where the range ends."""
        for i, port_rule in enumerate(raw.to_ports or ()):
            for j, port in enumerate(port_rule.ports):
                if why := self.ranges.note(port.port):
                    yield where.at("toPorts").item(i).at("ports").item(j).at("endPort").field, why

    def _peers(
        self, raw: RawCiliumRule, where: Where, direction: Direction, restricted: bool, init: bool
    ) -> tuple[Peer, ...] | None:
        """The peers of a rule; None where it is for everyone."""
        out = direction is Direction.EGRESS
        side = "to" if out else "from"
        endpoints = raw.to_endpoints if out else raw.from_endpoints
        cidrs = raw.to_cidr if out else raw.from_cidr
        cidr_set = raw.to_cidr_set if out else raw.from_cidr_set
        entities = raw.to_entities if out else raw.from_entities
        nodes = raw.to_nodes if out else raw.from_nodes
        groups = raw.to_groups if out else raw.from_groups
        fields = {"Endpoints": endpoints, "CIDR": cidrs, "CIDRSet": cidr_set, "Entities": entities, "Nodes": nodes}
        peers: list[Peer] = []
        endpoints_field = where.at(f"{side}Endpoints")
        peers += [
            endpoint_peer(s, self._identities, endpoints_field.item(i), init=init)
            for i, s in enumerate(endpoints or ())
        ]
        endpoints_field = where.at(f"{side}CIDR")
        peers += [self.block(c, (), endpoints_field.item(i)) for i, c in enumerate(cidrs or ())]
        endpoints_field = where.at(f"{side}CIDRSet")
        peers += [p for i, c in enumerate(cidr_set or ()) for p in self._cidr_rule(c, endpoints_field.item(i))]
        endpoints_field = where.at(f"{side}Entities")
        peers += [EntityPeer(e, endpoints_field.item(i).field, self._identities) for i, e in enumerate(entities or ())]
        endpoints_field = where.at(f"{side}Nodes")
        peers += [self._node(s, endpoints_field.item(i)) for i, s in enumerate(nodes or ())]
        endpoints_field = where.at("toFQDNs")
        for i, fqdn in enumerate(raw.to_fqdns or ()):
            name = fqdn.match_name or fqdn.match_pattern
            peers.append(NamePeer(name, name_pattern(fqdn), self._lookups, endpoints_field.item(i).field))
        if groups:
            endpoints_field = where.at(f"{side}Groups")
            peers.append(
                UnreadBlocksPeer(f"a block of {side}Groups", endpoints_field.field, f"{side}Groups is not evaluated")
            )
        peers += service_peers(raw.to_services or (), self._snapshot, self._identities, where.at("toServices"))
        for name, value in fields.items():
            if value == ():
                return (NobodyPeer(where.at(side + name).field, "an empty list selects no peer"),)
        if peers:
            return tuple(peers)
        return None if restricted else (NobodyPeer(where.field, "a rule without peers and ports selects no peer"),)

    def block(self, text: str, excepts: tuple[str, ...], where: Where) -> Peer:
        block = as_spelled(block_of(text, where))
        return self.as_block(BlockPeer(block, excepts_in(block, excepts, where.at("except")), where.field))

    def as_block(self, peer: BlockPeer) -> Peer:
        """A block as it selects here; all addresses of a family are the world. To Cilium, mapped addresses are IPv6."""
        block = as_spelled(peer.block)
        peer = msgspec.structs.replace(peer, block=block, excepts=tuple(map(as_spelled, peer.excepts)))
        own_family = self._identities.dual_stack or block.version == self._identities.version
        if block.text.endswith("/0") and own_family and not peer.excepts and not self._also:
            world = f"world-ipv{block.version}" if self._identities.dual_stack else "world"
            return EntityPeer(world, peer.field, self._identities)
        return msgspec.structs.replace(peer, outside_only=True, also=self._also)

    def _cidr_rule(self, raw: RawCidrRule, where: Where) -> list[Peer]:
        check_cidr_rule(raw, where)
        if raw.cidr:
            return [self.block(raw.cidr, raw.except_, where)]
        if raw.cidr_group_selector is not None:
            terms = label_terms(raw.cidr_group_selector, "cidrgroup", where.at("cidrGroupSelector"))
            excepts = excepts_in(None, raw.except_, where.at("except"))
            return [GroupsPeer(terms, tuple(self._groups.values()), excepts, where.field)]
        group = self._groups.get(raw.cidr_group_ref)
        if group is None or group.unread:
            what = f"an address of CiliumCIDRGroup {raw.cidr_group_ref}"
            why = group.unread if group else f"CiliumCIDRGroup {raw.cidr_group_ref} is not among the objects"
            return [UnreadBlocksPeer(what, where.field, why)]
        excepts = excepts_in(None, raw.except_, where.at("except"))
        return [BlockPeer(b, excepts, where.field, True, self._also) for b in group.blocks] or [
            NobodyPeer(where.field, f"CiliumCIDRGroup {group.name} has no blocks")
        ]

    def _node(self, raw: RawSelector, where: Where) -> Peer:
        terms = (LabelTerm("reserved", "remote-node", Operator.EXISTS), *label_terms(raw, "any", where))
        return IdentityPeer(terms, self._identities, where.field)

    def _ports(self, raw: RawCiliumRule, where: Where, direction: Direction) -> list[Ports]:
        """The ports of a rule that has toPorts or icmps; ICMP is no port."""
        if raw.icmps:
            return [NoPorts(where.at("icmps").field, "the rule is for ICMP")]
        ports_field = where.at("toPorts")
        terms: list[Ports] = []
        for i, rule in enumerate(raw.to_ports or ()):
            if not rule.ports:
                terms.append(NoPorts(ports_field.item(i).field, "a port rule without ports admits nothing"))
            ports = ports_field.item(i).at("ports")
            terms += [self._port(port, ports.item(j), direction) for j, port in enumerate(rule.ports)]
        return terms

    def _port(self, raw: RawPortProtocol, where: Where, direction: Direction) -> Ports:
        """A port or a range; from a port by its name one begins for ingress only."""
        protocol = "" if raw.protocol in ("", "ANY") else raw.protocol
        first = port_number(raw.port)
        if first is None:
            named = NamedPortTerm(protocol, raw.port.lower(), where.field, of_hosts=False, of_sidecars=False)
            if direction is Direction.EGRESS:
                return named
            return self.ranges.widest(msgspec.structs.replace(named, last=raw.end_port))
        if first == 0:
            return NumberedPorts(protocol, 0, 65535, where.field)
        return NumberedPorts(protocol, first, max(first, raw.end_port), where.field)


def _not_evaluated(raw: RawCiliumRule, where: Where) -> tuple[tuple[str, str], ...]:
    """The parts of an allowing rule that may stop a connection that its L3 and L4 terms select."""
    unread: list[tuple[str, str]] = []
    for i, port_rule in enumerate(raw.to_ports or ()):
        port_field = where.at("toPorts").item(i)
        kinds = [k for k, v in (port_rule.rules or {}).items() if v and k != "dns"]
        if kinds:
            unread.append(
                (port_field.at("rules").field, f"layer 7 rules ({', '.join(sorted(kinds))}) are not evaluated")
            )
        if port_rule.server_names:
            unread.append((port_field.at("serverNames").field, "the TLS server name is not evaluated"))
        if port_rule.listener or port_rule.terminating_tls or port_rule.originating_tls:
            unread.append((port_field.field, "the redirection to a proxy is not evaluated"))
    if raw.authentication and raw.authentication.get("mode") not in (None, "disabled"):
        unread.append((where.at("authentication").field, "mutual authentication is not evaluated"))
    return (*unread, *_requirements(raw, where))


def _requirements(raw: RawCiliumRule, where: Where) -> tuple[tuple[str, str], ...]:
    if not (raw.from_requires or raw.to_requires):
        return ()
    name = "fromRequires" if raw.from_requires else "toRequires"
    return ((where.at(name).field, f"{name} is evaluated by Cilium before 1.20 only, and not here"),)
