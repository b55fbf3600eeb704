"""The matrix beyond the pods: the API server, the nodes, a client that comes through a node, and the internet.

Each is judged against every row of pods, in both directions where both have a meaning. Addresses are judged by samples: one
from each range that some policy tells apart; where these differ, it depends on the address.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

import msgspec

from kubectl_genainet.model.kube import Service
from kubectl_genainet.policy.enforcers import EnforcerName
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.flows.arrival import is_published
from kubectl_genainet.policy.flows.dns_way import DnsWays
from kubectl_genainet.policy.matching.api_servers import api_servers
from kubectl_genainet.policy.matching.cidr import Address, address_of
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.model import Direction, DirectionResult, PolicyEndpoint, PolicyFlow, PolicyVerdict
from kubectl_genainet.policy.reach.grid import Grid, PodGroup, Port

_MOST_SAMPLES = 48
_MOST_GROUPS = 1000
_MOST_NAMED = 3
_SOME_NODE = "(a node)"
_KUBELET: Port = ("TCP", 10250)
_HTTPS: Port = ("TCP", 443)
_DNS: Port = ("UDP", 53)


class Beyond(Enum):
    """What is judged besides pods, as output names it."""

    OWN_NODE = "its own node"
    OTHER_NODES = "other nodes"
    API_SERVER = "API server"
    CLIENT = "client outside, through a node"
    INTERNET = "internet"
    DNS = "DNS"


class BeyondCell(msgspec.Struct, frozen=True):
    """What policies say between a row of pods and something beyond, on one port."""

    beyond: Beyond
    group: PodGroup
    direction: Direction  # of the pods: INGRESS is from beyond
    port: Port
    verdict: PolicyVerdict
    why: str


def beyond_of(engine: PolicyEngine, grid: Grid) -> tuple[BeyondCell, ...]:
    """The cells of a grid beyond its pods; none for a grid that is too large for a page."""
    if len(grid.groups) > _MOST_GROUPS:
        return ()
    judge = BeyondJudge(engine, tuple(grid.matrices) if grid.given_port else ())
    return tuple(cell for group in grid.groups if not group.host_network for cell in judge.cells(group))


class BeyondJudge:
    """Judges what is beyond the pods, on the ports `ports` or, without, on those that pods declare.

    `leaving` are further ports for what pods send.
    """

    def __init__(self, engine: PolicyEngine, ports: tuple[Port, ...], leaving: tuple[Port, ...] = ()) -> None:
        self._engine, self._given, self._leaving = engine, ports, leaving
        self._dns_ways = DnsWays(engine)
        self._published: dict[str, list[Service]] = defaultdict(list)
        for service in filter(is_published, engine.snapshot.services):
            self._published[service.metadata.namespace].append(service)
        self._nodes = [n for n in map(engine.parties.of_address, _addresses(engine)) if n.kind is PartyKind.HOST]
        self._internet = [PolicyParty(PartyKind.OUTSIDE, str(a), address=a) for a in _public_samples(engine)]
        self._api_servers, self._api_port = _api_servers(engine)

    def cells(self, group: PodGroup) -> Iterable[BeyondCell]:
        """All cells of pods that are alike."""
        namespace, name = group.pods[0]
        own = self._engine.parties.of(PolicyEndpoint(namespace, name))
        if not own.node:
            own = msgspec.structs.replace(own, node=_SOME_NODE)
        into = self._given or group.ports
        for beyond in Beyond:
            if beyond is Beyond.DNS:
                yield from self._dns(group)
                continue
            peers = self._peers(beyond, own)
            for port in into:
                yield self._cell(beyond, group, Direction.INGRESS, port, own, peers)
            if beyond is Beyond.CLIENT:
                continue  # a way in only
            for port in self._given or dict.fromkeys((self._port_of(beyond), *self._leaving)):
                yield self._cell(beyond, group, Direction.EGRESS, port, own, peers)

    def _dns(self, group: PodGroup) -> Iterator[BeyondCell]:
        """The way to the resolver, which every connection by name needs first."""
        way = self._dns_ways.of(PolicyEndpoint(*group.pods[0])) if self._given in ((), (_DNS,)) else None
        if way is not None:
            yield BeyondCell(Beyond.DNS, group, Direction.EGRESS, _DNS, way.verdict, way.text)

    def _port_of(self, beyond: Beyond) -> Port:
        match beyond:
            case Beyond.API_SERVER:
                return self._api_port
            case Beyond.INTERNET:
                return _HTTPS
            case _:
                return _KUBELET

    def _peers(self, beyond: Beyond, own: PolicyParty) -> Sequence[PolicyParty]:
        others = [n for n in self._nodes if n.node != own.node] or [
            PolicyParty(PartyKind.HOST, "another node", node="(other)")
        ]
        match beyond:
            case Beyond.OWN_NODE:
                return [PolicyParty(PartyKind.HOST, "its own node", address=own.host_ip, node=own.node)]
            case Beyond.OTHER_NODES:
                return others
            case Beyond.API_SERVER:
                return self._api_servers
            case Beyond.CLIENT:
                return self._clients(own, others)
            case _:
                return self._internet

    def _clients(self, own: PolicyParty, others: Sequence[PolicyParty]) -> Sequence[PolicyParty]:
        """Whom a client outside appears as: a node that masquerades it, or itself where the Services keep its address."""
        pod = self._engine.snapshot.pod(own.namespace, own.name)
        labels = pod.metadata.labels.items() if pod is not None else set()
        published = self._published.get(own.namespace, ())
        policies = {s.spec.external_traffic_policy for s in published if s.spec.selector.items() <= labels}
        nodes = [*others, PolicyParty(PartyKind.HOST, "its own node", address=own.host_ip, node=own.node)]
        if policies == {"Local"}:
            return self._internet
        kept = "Local" in policies or self._engine.enforcer.name is EnforcerName.CILIUM
        return [*nodes, *self._internet] if kept else nodes

    def _cell(
        self,
        beyond: Beyond,
        group: PodGroup,
        direction: Direction,
        port: Port,
        own: PolicyParty,
        peers: Sequence[PolicyParty],
    ) -> BeyondCell:
        flow = PolicyFlow(PolicyEndpoint(own.namespace, own.name), PolicyEndpoint(ip="0.0.0.0"), *port)
        results = [self._engine.direction_of(flow, direction, own, peer) for peer in peers]
        verdicts = {r.verdict for r in results}
        if len(verdicts) == 1:
            return BeyondCell(beyond, group, direction, port, verdicts.pop(), _why(results[0]))
        named = {v: [p.text for p, r in zip(peers, results, strict=True) if r.verdict is v] for v in PolicyVerdict}
        which = "; ".join(f"{v.value} for {_some(texts)}" for v, texts in named.items() if texts)
        return BeyondCell(beyond, group, direction, port, PolicyVerdict.UNKNOWN, f"it depends on the address: {which}")


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - _MOST_NAMED
    return ", ".join(texts[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _why(result: DirectionResult) -> str:
    if result.verdict is PolicyVerdict.UNKNOWN:
        return "; ".join(map(str, result.not_evaluated))
    if result.isolated_by and result.verdict is PolicyVerdict.DENY:
        return "isolated by " + ", ".join(map(str, result.isolated_by))
    deciding = [str(p.ref) for p in result.policies]
    return ", ".join(deciding) or result.reason.value


def _addresses(engine: PolicyEngine) -> list[Address]:
    addresses = [address_of(ip) for node in engine.snapshot.nodes for ip in node.ips[:1]]
    return [a for a in addresses if a is not None]


def _public_samples(engine: PolicyEngine) -> list[Address]:
    """One public address of each range that blocks of policies tell apart; IPv4, and IPv6 where pods have it."""
    versions = {a.version for pod in engine.snapshot.pods for a in map(address_of, pod.ips) if a is not None}
    samples = [Address(4, int(ipaddress.IPv4Address("8.8.8.8")))]
    if 6 in versions:
        samples.append(Address(6, int(ipaddress.IPv6Address("2001:4860:4860::8888"))))
    for address in engine.edges.samples():
        text = ipaddress.ip_address(str(address))
        if text.is_global and not text.is_multicast and (address.version == 4 or 6 in versions):
            samples.append(address)
    return samples[:_MOST_SAMPLES]


def _api_servers(engine: PolicyEngine) -> tuple[list[PolicyParty], Port]:
    """The API servers behind the Service default/kubernetes; one at an unknown address where that was not read."""
    known = [(a, port) for text, port in api_servers(engine.snapshot).items() if (a := address_of(text)) is not None]
    if known:
        return [engine.parties.of_address(address) for address, _ in known], ("TCP", known[0][1])
    return [PolicyParty(PartyKind.HOST, "API server", node="(control plane)")], ("TCP", 6443)
