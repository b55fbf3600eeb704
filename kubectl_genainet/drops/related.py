"""Which groups tell of the same client and server: a drop, and the ICMP errors, resets and retransmissions beside it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from kubectl_genainet.context.ends import KnownServers
from kubectl_genainet.context.identity import Identity
from kubectl_genainet.drops.groups import EventGroup, GroupKind
from kubectl_genainet.model.packet import FiveTuple


class Related:
    """The groups of one moment, by their ends."""

    def __init__(self, groups: list[EventGroup], identity: Identity, ends: KnownServers) -> None:
        self._identity, self._ends = identity, ends
        self._by_pair: dict[tuple[str, str], list[EventGroup]] = defaultdict(list)
        for group in groups:
            for pair in self._pairs(group):
                self._by_pair[pair].append(group)

    def to(self, group: EventGroup) -> list[EventGroup]:
        """The other groups of the same client and server."""
        others = (other for pair in self._pairs(group) for other in self._by_pair[pair])
        return list({id(other): other for other in others if self._is_related(group, other)}.values())

    def _pairs(self, group: EventGroup) -> Iterator[tuple[str, str]]:
        """(client, server) of the group: by address; by Service, so that both sides of its translation meet; by the client's
        node for what leaves the cluster, as a masqueraded client has the node's address."""
        request = group.request
        yield group.pair
        if self._leaves_cluster(group):
            yield f"a client on {self._identity.party(request.src, None).node}", request.dst
        service = self._ends.service(request.dst, request.dport, request.protocol.value)
        if service is not None:
            yield request.src, f"{service.namespace}/{service.name}"

    def _leaves_cluster(self, group: EventGroup) -> bool:
        """Whether a node, or a pod of one, asks an address that is no node's, pod's or Service's."""
        request = group.request
        server = self._identity.party(request.dst, None)
        if (
            server.pod
            or server.node
            or self._ends.service(request.dst, request.dport, request.protocol.value) is not None
        ):
            return False
        return self._identity.party(request.src, None).node is not None

    def _is_related(self, group: EventGroup, other: EventGroup) -> bool:
        """Whether both are of one client and server. A Service's address and an endpoint of it may be the same server, two
        endpoints are not. An ICMP error is about one port; other packets may have been redirected to another within the pod."""
        about_a_port = any(g.kind in (GroupKind.ICMP, GroupKind.ICMP_DROPPED) for g in (group, other))
        if other is group or (about_a_port and not self._same_port(group.request, other.request)):
            return False
        if other.pair == group.pair or self._masqueraded(group, other):
            return True
        snapshot = self._identity.snapshot
        ends = (group.request, other.request)
        return any(snapshot.service_at(r.dst, r.dport, r.protocol.value) is not None for r in ends)

    def _masqueraded(self, group: EventGroup, other: EventGroup) -> bool:
        """Whether one is of a node's address and the other of a pod on it, and both ask the same address outside the cluster."""
        if group.request.dst != other.request.dst or not self._leaves_cluster(group):
            return False
        party, other_party = (self._identity.party(g.request.src, None) for g in (group, other))
        return party.node == other_party.node and (party.pod is None) != (other_party.pod is None)

    def _same_port(self, request: FiveTuple, other: FiveTuple) -> bool:
        """Whether both ask one port of the server: the Service's, its endpoints', or the same number. 0 stands for any."""
        if request.dport == other.dport or not (request.dport and other.dport):
            return True
        services = [self._ends.service(r.dst, r.dport, r.protocol.value) for r in (request, other)]
        ports = [(s.namespace, s.name, s.port) for s in services if s is not None]
        return len(ports) == 2 and ports[0] == ports[1]
