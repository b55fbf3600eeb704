"""The ends of a DNS query: what answers it (a pod, or a cache on the node itself), and for whom a server asks upstream.

NodeLocal DNSCache runs on the nodes' own network and has the address of the DNS Service on each of them.
Source: https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.context.clocks import Clocks
from kubectl_genainet.context.identity import Identity
from kubectl_genainet.dns.join import EXPIRES_NS, Pending, Remembered, Sighting
from kubectl_genainet.model.events import Point
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import Party

REMEMBERED = 10_000

AlignedSighting = tuple[Sighting, int, int | None]  # a sight, its time on the reference's clock, that time's error


class ServerEnds:
    """What came to a server, and which of the queries from a node's own addresses are its cache's."""

    def __init__(self, identity: Identity, clocks: Clocks) -> None:
        self._identity, self._clocks = identity, clocks
        self._served = Remembered(REMEMBERED)  # by node, what its own cache was asked

    def owns_server(self, sight: Sighting) -> bool:
        return self._identity.owns(sight.node, sight.netns, sight.flow.dst)

    def arrival(self, query: Sequence[AlignedSighting], response: Sequence[AlignedSighting]) -> AlignedSighting | None:
        """Where the query came to what answers it.

        With IPVS every node has the Service's address, and translates there: a query to it that was neither translated
        nor answered has come to no server.
        """
        last = query[-1][0].flow if query else None
        for item in query:
            sight = item[0]
            if last is None or sight.point is not Point.RX or sight.flow.dst != last.dst or not self.owns_server(sight):
                continue
            if response or self._identity.service(sight.flow) is None:
                return item
        return None

    def server(self, last: FiveTuple, arrival: AlignedSighting | None) -> Party:
        if arrival is None or arrival[0].flow.dst != last.dst:
            return self._identity.party(last.dst, last.dport)
        return self._identity.party_at(arrival[0].node, arrival[0].netns, last.dst, last.dport)

    def home_of(self, ip: str) -> str:
        """The node whose own address it is, else the address."""
        party = self._identity.party(ip, None)
        return _node_key(party.node) if party.node is not None and party.pod is None else ip

    def home_at(self, sight: Sighting) -> str:
        """The same for the server that a query has come to."""
        is_host = self._identity.is_host(sight.node, sight.netns)
        return _node_key(sight.node) if is_host else sight.flow.dst

    def learn_served(self, pending: Pending | None) -> None:
        for sight in pending.query if pending is not None else ():
            is_host = sight.point is Point.RX and self._identity.is_host(sight.node, sight.netns)
            if pending is not None and is_host and self.owns_server(sight):
                self._served.add(_node_key(sight.node), pending)

    def is_forwarded(self, client: Party, pending: Pending) -> bool:
        """Whether a node asks on behalf of a query that its own cache got, and has not answered yet."""
        if client.pod is not None or client.node is None:
            return False
        offset = self._clocks.offset(pending.client_node, client.node)
        asked_ns = pending.first_ns + (offset.add_ns if offset is not None else 0)
        for served in self._served.of(_node_key(client.node), pending.question):
            arrived = min(sight.t_ns for sight in served.query if sight.node == client.node)
            answered = [sight.t_ns for sight in served.response if sight.node == client.node]
            if served is not pending and arrived <= asked_ns <= max(answered, default=arrived + EXPIRES_NS):
                return True
        return False


def _node_key(node: str) -> str:
    return f"node/{node}"  # no address has a slash


def asker_name(exchange: DnsExchange) -> str:
    """The client's name; a node's DNS cache is told from the node's other programs."""
    client = exchange.client
    is_cache = exchange.upstream and client.pod is None and client.node is not None
    return f"DNS cache of {client.node}" if is_cache else client_name(client)


def client_name(party: Party) -> str:
    """The workload of a client as "namespace/name"; its node or address where it is no pod."""
    if party.pod is not None:
        return f"{party.namespace}/{party.workload or party.pod}"
    return f"node {party.node}" if party.node else party.ip
