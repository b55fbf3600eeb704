"""The packet's way through all of a node's rules, for each address of a Service and each kind of client.

kube-proxy's own chains may be right and packets go elsewhere all the same: another program's translation takes them
first (portmap, a rule by hand), or a firewall refuses a part of them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.diagnoses.kube_proxy import (
    SERVICE_NOT_TRACKED,
    SERVICE_PARTLY_REFUSED,
    SERVICE_TAKEN_BY_OTHERS,
)
from kubectl_genainet.model.finding import Certainty, Evidence, Finding
from kubectl_genainet.model.kube import Service, ServicePort
from kubectl_genainet.model.packet import Protocol, address_text
from kubectl_genainet.proxy.authors import author_of, is_kube_proxys
from kubectl_genainet.proxy.batch import FlowPart, parts_of
from kubectl_genainet.proxy.drift.node_rules import NodeRules
from kubectl_genainet.proxy.enforcers import policy_behind
from kubectl_genainet.proxy.evaluator.evaluate import evaluate
from kubectl_genainet.proxy.evaluator.model import (
    REFUSALS,
    BackendChoice,
    Evaluation,
    Packet,
    RulesetVerdict,
    translates,
)
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.names import service_port_name

MAX_WAYS = 4000  # of all Services on one node that are looked at
OUTSIDE = {4: "192.0.2.1", 6: "2001:db8::1"}  # addresses of nobody (RFC 5737, RFC 3849)
CLIENTS = {"pod": "pods", "node": "the node itself", "outside": "outside"}
_NOT_TRACKED = re.compile(r"\bNOTRACK\b|--notrack\b|\bnotrack\b")


class ServiceWay(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="way"):
    """What becomes of the connections that one kind of client opens to an address of a Service, by a node's rules.

    `client`: "pod", "node" (the node itself) or "outside". `outcomes` are all ways that the connections go, each with its share.
    `by_policy`: an enforcer of policies refuses some; it may admit other clients of this kind.
    """

    node: str
    service: str
    protocol: str
    client: str
    address: str
    verdict: str
    outcomes: tuple[FlowPart, ...]
    unknown: tuple[str, ...] = ()
    by_policy: bool = False


@dataclass(frozen=True)
class FollowedWay:
    """One kind of client's first packet to an address of a Service port, and what a node's rules do with it."""

    node: NodeRules
    service: Service
    port: ServicePort
    client: str
    packet: Packet
    evaluation: Evaluation

    @property
    def name(self) -> str:
        return service_port_name(self.service.metadata.namespace, self.service.metadata.name, self.port.name)

    @property
    def address(self) -> str:
        return address_text(self.packet.dst, self.packet.dport)

    def told(self) -> ServiceWay:
        evaluation = self.evaluation
        return ServiceWay(
            node=self.node.node,
            service=self.name,
            protocol=self.port.protocol,
            client=self.client,
            address=self.address,
            verdict=evaluation.verdict.value,
            outcomes=parts_of(evaluation),
            unknown=evaluation.unknown,
            by_policy=any(p.verdict in REFUSALS and _is_policy(self.node, p.rule) for p in evaluation.parts),
        )


def ways_to(snapshot: ClusterSnapshot, node: NodeRules, services: Sequence[Service]) -> Iterator[FollowedWay]:
    """The ways of each kind of client's packets to each address of the Services: the first `MAX_WAYS` of them."""
    for service, port, client, packet in islice(_packets(snapshot, node, services), MAX_WAYS):
        yield FollowedWay(node, service, port, client, packet, evaluate(node.ruleset, packet))


def has_more_ways(snapshot: ClusterSnapshot, node: NodeRules, services: Sequence[Service]) -> bool:
    return next(islice(_packets(snapshot, node, services), MAX_WAYS, None), None) is not None


def way_findings(ways: Iterable[FollowedWay], snapshot: ClusterSnapshot) -> Iterator[Finding]:
    """Findings about connections that another program's rules take, or that are refused for a part."""
    seen: set[tuple[str, str]] = set()
    for way in ways:
        finding = _taken(way, snapshot) or _of_another_service(way) or _not_tracked(way) or _partly(way)
        if finding is not None and (finding.check, finding.title) not in seen:
            seen.add((finding.check, finding.title))
            yield finding


def _client_pods(snapshot: ClusterSnapshot) -> dict[int, str]:
    """An address of a pod in a network of its own, by family, that is no endpoint where there is such a one."""
    slices = {canonical_ip(ip) for s in snapshot.endpoint_slices for e in s.endpoints for ip in e.addresses}
    clients: dict[int, str] = {}
    for free in (True, False):
        for pod in snapshot.pods:
            for ip in pod.ips if not pod.spec.host_network else ():
                if (canonical_ip(ip) not in slices) is free:
                    clients.setdefault(6 if ":" in ip else 4, canonical_ip(ip))
    return clients


def _packets(
    snapshot: ClusterSnapshot, node: NodeRules, services: Sequence[Service]
) -> Iterator[tuple[Service, ServicePort, str, Packet]]:
    """Each address of each Service port with the first packet of each kind of client that asks for it."""
    pods = _client_pods(snapshot)
    own = node.ruleset.node_ips or ()
    for service in services:
        outside = (*service.spec.external_ips, *(i.ip for i in service.status.load_balancer.ingress if i.ip))
        for port in service.spec.ports:
            places: list[tuple[str, int, tuple[str, ...]]] = [
                (canonical_ip(ip), port.port, ("pod", "node")) for ip in service.cluster_ips
            ]
            places += [(canonical_ip(ip), port.port, ("outside",)) for ip in outside]
            places += [(ip, port.node_port, _clients_of(ip)) for ip in own if port.node_port]
            families = node.families & {6 if ":" in ip else 4 for ip in service.cluster_ips}
            for ip, number, clients in places:
                family = 6 if ":" in ip else 4
                if family not in families:
                    continue
                sources = {
                    "pod": pods.get(family) or OUTSIDE[family],
                    "node": _own_source(ip, own),
                    "outside": OUTSIDE[family],
                }
                for client in clients:
                    if sources[client]:
                        packet = Packet(
                            src=sources[client],
                            dst=ip,
                            dport=number,
                            protocol=Protocol(port.protocol),
                            bridged=None if client == "pod" else False,
                        )
                        yield service, port, client, packet


def _own_source(ip: str, own: Sequence[str]) -> str:
    """The address that the node itself sends to `ip` from: to a loopback address from the same one."""
    if ipaddress.ip_address(ip).is_loopback:
        return ip
    same_family = (a for a in own if (":" in a) is (":" in ip))
    return next((a for a in same_family if not ipaddress.ip_address(a).is_loopback), "")


def _clients_of(ip: str) -> tuple[str, ...]:
    """Who may send to the node port at an address of the node; IPv4's link-local ones are those of a CNI's veth pairs."""
    address = ipaddress.ip_address(ip)
    return ("node",) if address.is_loopback else () if address.is_link_local else ("outside",)


def packets_to(snapshot: ClusterSnapshot, node: NodeRules, service: Service) -> Iterator[tuple[str, Packet]]:
    """(kind of client, packet) for each address of a Service and each kind of client: "pod", "node", "outside"."""
    for _, _, client, packet in _packets(snapshot, node, [service]):
        yield client, packet


def translations(evaluation: Evaluation) -> dict[RuleRef, list[BackendChoice]]:
    """The destinations that packets get, by the rule that gives them."""
    by_rule: dict[RuleRef, list[BackendChoice]] = {}
    for outcome in evaluation.tell_parts():
        rule = next((rule for rule in reversed(outcome.rules) if translates(rule)), None)
        if outcome.backend is not None and rule is not None:
            backends = by_rule.setdefault(rule, [])
            if outcome.backend not in backends:
                backends.append(outcome.backend)
    return by_rule


def _taken(way: FollowedWay, snapshot: ClusterSnapshot) -> Finding | None:
    """Another program's translation takes the packets before kube-proxy's rules."""
    for rule, backends in translations(way.evaluation).items():
        if is_kube_proxys(rule) or rule.table == "ipvs":
            continue
        where = ", ".join(f"{b.address}{holder(snapshot, b.ip)}" for b in backends)
        return SERVICE_TAKEN_BY_OTHERS.finding(
            f"{way.node.title}: packets to {way.address} of {way.name} go to {where} by {rule.table} {rule.chain}"
            f"{written_by(rule)}, before kube-proxy's rules",
            evidence_of(way.node, rule, way.packet),
            way.service.ref,
            detail="Who translates a connection first decides: kube-proxy's rules are not met by these packets.",
        )
    return None


def _of_another_service(way: FollowedWay) -> Finding | None:
    """Two Services with one external address and port: kube-proxy has rules of both, and the first one takes all."""
    owner = (way.evaluation.service or "").removesuffix(":")  # kube-proxy before 1.17 ends a port without a name so
    rule = next((part.rule for part in way.evaluation.parts if part.verdict is RulesetVerdict.DNAT), None)
    if not owner or owner == way.name or rule is None:
        return None
    return SERVICE_TAKEN_BY_OTHERS.finding(
        f"{way.node.title}: packets to {way.address} of {way.name} go to {owner}, which has the same address and port",
        evidence_of(way.node, rule, way.packet),
        way.service.ref,
        detail="Of two Services with one external address and port, the one whose rule stands first gets every packet.",
    )


def _not_tracked(way: FollowedWay) -> Finding | None:
    """A rule takes the packets out of connection tracking, which every translation needs."""
    rule = next((rule for rule in way.evaluation.rules if _NOT_TRACKED.search(rule.bare_text)), None)
    if rule is None or way.evaluation.backends:
        return None
    return SERVICE_NOT_TRACKED.finding(
        f"{way.node.title}: packets from {CLIENTS[way.client]} to {way.address} of {way.name} are not translated:"
        f" {rule.table} {rule.chain} {rule.index}{written_by(rule)} takes them out of connection tracking",
        evidence_of(way.node, rule, way.packet),
        way.service.ref,
        detail="What has the address on the node answers them, or nothing does; the Service's endpoints do not.",
    )


def _partly(way: FollowedWay) -> Finding | None:
    """A part of the connections is refused: one endpoint of three, or at random."""
    parts = way.evaluation.parts
    refused = [part for part in parts if part.verdict in REFUSALS and not _is_policy(way.node, part.rule)]
    if way.evaluation.verdict is not RulesetVerdict.MIXED or not refused or len(refused) == len(parts):
        return None
    shares = [part.share for part in refused]
    known = [share for share in shares if share is not None]
    share = f"{sum(known):.0%}" if len(known) == len(shares) else "a part"
    rules = "; ".join(
        f"{p.verdict.value} by {p.rule.table} {p.rule.chain} {p.rule.index}{written_by(p.rule)}"
        for p in refused
        if p.rule
    )
    return SERVICE_PARTLY_REFUSED.finding(
        f"{way.node.title}: {share} of the connections from {CLIENTS[way.client]} to {way.address} of {way.name} fail: {rules}",
        tuple(
            Evidence(f"rule {p.rule.index} of {p.rule.chain}: {p.rule.text}", Certainty.OBSERVED, node=way.node.node)
            for p in refused
            if p.rule
        ),
        way.service.ref,
    )


def holder(snapshot: ClusterSnapshot, ip: str) -> str:
    """Whose address a translation gives, in brackets; empty where no pods were read."""
    pod = snapshot.pod_at(ip)
    if pod is not None:
        return f" (pod {pod.metadata.namespace}/{pod.metadata.name})"
    if not snapshot.pods or snapshot.node_at(ip) is not None or ipaddress.ip_address(ip).is_loopback:
        return ""
    return " (an address of no pod that was read)"


def evidence_of(node: NodeRules, rule: RuleRef, packet: Packet) -> tuple[Evidence, ...]:
    return (
        Evidence(f"rule {rule.index} of {rule.chain}: {rule.text}", Certainty.OBSERVED, node=node.node),
        Evidence(f"a packet from {packet.src} was followed through the rules", Certainty.DERIVED),
    )


def _is_policy(node: NodeRules, rule: RuleRef | None) -> bool:
    """Whether a policy's enforcer refuses: which clients it admits is for the policies to say, not for these rules."""
    return rule is not None and policy_behind(rule, node.ruleset) is not None


def written_by(rule: RuleRef) -> str:
    author = author_of(rule)
    return f" ({author})" if author else ""
