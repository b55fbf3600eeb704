"""Pods folded into classes that no policy can tell apart, and bit sets over them.

Two pods are of one class when they have the same namespace, labels, service account and named ports, and their first
addresses lie in the same blocks. Bit i of a set stands for class i. A class is judged by one of its pods.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

import msgspec

from kubectl_genainet.policy.identity import EntityPeer, IdentityPeer
from kubectl_genainet.policy.matching.cidr import Address
from kubectl_genainet.policy.matching.node_peers import ElsewherePeer, OnNodesPeer, OwnNodePeer
from kubectl_genainet.policy.matching.party import Parties, PartyKind, PolicyParty
from kubectl_genainet.policy.matching.peers import (
    AllOfPeer,
    AnyOfPeer,
    AnyPeer,
    BlockPeer,
    ExpressionPeer,
    NotPeer,
    Peer,
    PodsPeer,
    SameLabelsPeer,
)
from kubectl_genainet.policy.matching.selectors import NAMESPACE_NAME_LABEL, LabelIndex, Selector
from kubectl_genainet.policy.rules import NamedPortTerm, NotPorts, Policy, Ports

NO_ADDRESS = (0, 0)
Sets = tuple[int, int]  # (certainly selected, possibly selected beyond these)


NOBODY = PolicyParty(PartyKind.OUTSIDE, "")


class PodClass(msgspec.Struct, frozen=True):
    """Pods that all policies treat alike; `party` is the first of them."""

    index: int
    party: PolicyParty
    pods: tuple[tuple[str, str], ...]


def _folded(parties: Parties, edges: Edges) -> tuple[PodClass, ...]:
    """The classes in the order of their first pods. Of the other pods only the names are kept: 50,000 parties take 34 MB."""
    members: dict[object, tuple[PolicyParty, list[tuple[str, str]]]] = {}
    for pod in parties.snapshot.pods:
        if not pod.finished:
            party = parties.of_pod(pod)
            members.setdefault(_key(party, edges), (party, []))[1].append((party.namespace, party.name))
    return tuple(PodClass(i, first, tuple(pods)) for i, (first, pods) in enumerate(members.values()))


class PodClasses:
    """All classes of a snapshot's pods, with the sets of classes that terms of rules select."""

    def __init__(self, parties: Parties, edges: Edges) -> None:
        self.classes = _folded(parties, edges)
        self.all = (1 << len(self.classes)) - 1
        # IP version of a class of plain pods (0: no address); None for pods that use their node's network.
        self.plain = tuple(
            None if c.party.kind is PartyKind.HOST else c.party.address.version if c.party.address else 0
            for c in self.classes
        )
        self.pods = sum(1 << c.index for c in self.classes if c.party.kind is PartyKind.POD)
        self._hosts = tuple(c.index for c in self.classes if c.party.kind is PartyKind.HOST)
        self.of_pod = {pod: c.index for c in self.classes for pod in c.pods}
        self._by_size: dict[int, int] = {}
        for pod_class in self.classes:
            self._by_size[len(pod_class.pods)] = self._by_size.get(len(pod_class.pods), 0) | 1 << pod_class.index
        self._labels = LabelIndex()
        self._namespaces = LabelIndex()
        self._unread_namespaces = LabelIndex()
        self._all_unread = 0
        self._in_namespace: dict[str, int] = {}
        self._named_ports: dict[tuple[str, str, int], int] = {}
        self._sidecar_ports: dict[tuple[str, str, int], int] = {}
        self._by_address: dict[tuple[int, int], tuple[Address | None, int]] = {}
        self._edges = edges
        self._memo: dict[object, Sets] = {}
        for pod_class in self.classes:
            self._add(pod_class.party, 1 << pod_class.index)

    def _add(self, party: PolicyParty, bit: int) -> None:
        key = self._edges.key(party.address)
        self._by_address[key] = (party.address, self._by_address.get(key, (None, 0))[1] | bit)
        for port in party.ports:
            named = (port.name, port.protocol, port.port)
            ports = self._sidecar_ports if port.sidecar else self._named_ports
            ports[named] = ports.get(named, 0) | bit
        if party.kind is not PartyKind.POD:
            return
        self._labels.add(bit, party.labels)
        (self._namespaces if party.namespace_known else self._unread_namespaces).add(bit, party.namespace_labels)
        if not party.namespace_known:
            self._all_unread |= bit
        self._in_namespace[party.namespace] = self._in_namespace.get(party.namespace, 0) | bit

    def size(self, classes: int) -> int:
        """How many pods there are in a set of classes."""
        return sum(size * (members & classes).bit_count() for size, members in self._by_size.items())

    def select(self, peers: tuple[Peer, ...] | None, own: PolicyParty) -> Sets:
        """The classes that at least one of the peers selects; None selects all."""
        if peers is None:
            return self.all, 0
        sure = unsure = 0
        for peer in peers:
            one_sure, one_unsure = self.peer(peer, own)
            sure |= one_sure
            unsure |= one_unsure
        return sure, unsure & ~sure

    def peer(self, peer: Peer, own: PolicyParty) -> Sets:
        """The classes that a peer selects. Peers are kept by the policies, so their id names them."""
        match peer:
            case AnyPeer():
                return self.all, 0
            case PodsPeer():
                return self._memoised(id(peer), lambda: self._pods(peer))
            case BlockPeer():
                return self._memoised(id(peer), lambda: self._block(peer, own))
            case AllOfPeer(parts=parts):
                sure, maybe = self.all, self.all
                for part in parts:
                    part_sure, part_unsure = self.peer(part, own)
                    sure, maybe = sure & part_sure, maybe & (part_sure | part_unsure)
                return sure, maybe & ~sure
            case AnyOfPeer(parts=parts):
                return self.select(parts, own)
            case NotPeer(part=part):
                part_sure, part_unsure = self.peer(part, own)
                return self.all & ~(part_sure | part_unsure), part_unsure
            case SameLabelsPeer():
                return self._memoised((id(peer), own.namespace), lambda: self._scan(peer, own))
            case IdentityPeer() if not peer.looks_at_node:
                return self._memoised(id(peer), lambda: self._identity(peer, own))
            case OwnNodePeer() | ElsewherePeer():
                return self._memoised((id(peer), own.node), lambda: self._scan(peer, own))
            case EntityPeer() | IdentityPeer() if peer.looks_at_node:
                return self._memoised((id(peer), own.node), lambda: self._scan(peer, own))
            case _:
                return self._memoised(id(peer), lambda: self._scan(peer, own))

    def _memoised(self, key: object, compute: Callable[[], Sets]) -> Sets:
        known = self._memo.get(key)
        if known is None:
            known = self._memo[key] = compute()
        return known

    def _pods(self, peer: PodsPeer) -> Sets:
        if peer.namespace:
            in_namespace = self._in_namespace.get(peer.namespace, 0)
            return in_namespace and in_namespace & self._labels.select(peer.pods), 0
        sure = self._namespaces.select(peer.namespaces)
        by_name = tuple(r for r in peer.namespaces.requirements if r.key == NAMESPACE_NAME_LABEL)
        possible = self._unread_namespaces.select(Selector(by_name))
        if len(by_name) == len(peer.namespaces.requirements):
            sure, possible = sure | possible, 0
        pods = self._labels.select(peer.pods)
        return sure & pods, possible & pods

    def pods_in(self, peer: PodsPeer) -> int:
        """The classes that a peer made for the occasion selects for certain."""
        return self._pods(peer)[0]

    def _block(self, peer: BlockPeer, own: PolicyParty) -> Sets:
        if peer.outside_only or not self._edges.know(peer):
            return self._scan(peer, own)
        sure = 0
        for address, classes in self._by_address.values():
            if address is not None and peer.holds(address):
                sure |= classes
        return sure, self._by_address.get(NO_ADDRESS, (None, 0))[1]

    def _identity(self, peer: IdentityPeer, own: PolicyParty) -> Sets:
        """Pods by an index of their labels where the terms are about these, hosts one by one."""
        selectors = peer.by_labels()
        if selectors is None or (selectors[1].requirements and self._all_unread):
            return self._scan(peer, own)
        pods = self._in_namespace.get(peer.namespace, 0) if peer.namespace else self.pods
        if selectors[1].requirements:
            pods &= self._namespaces.select(selectors[1])
        sure, unsure = pods and pods & self._labels.select(selectors[0]), 0
        for index in self._hosts:
            value = peer.match(self.classes[index].party, own).value
            sure |= (value is True) << index
            unsure |= (value is None) << index
        return sure, unsure

    def _scan(self, peer: Peer, own: PolicyParty) -> Sets:
        sure = unsure = 0
        for pod_class in self.classes:
            value = peer.match(pod_class.party, own).value
            if value:
                sure |= 1 << pod_class.index
            elif value is None:
                unsure |= 1 << pod_class.index
        return sure, unsure

    def port(self, term: Ports, protocol: str, port: int) -> int:
        """The classes on which a port term selects this port."""
        if isinstance(term, NamedPortTerm):
            if term.protocol and term.protocol != protocol:
                return 0
            named = 0
            for ports in (self._named_ports, self._sidecar_ports) if term.of_sidecars else (self._named_ports,):
                named |= ports.get((term.name, protocol, port), 0)
                if term.last:
                    for (name, of, number), classes in ports.items():
                        if (name, of) == (term.name, protocol) and term.holds(number, port):
                            named |= classes
            return named if term.of_hosts else named & self.pods
        if isinstance(term, NotPorts):
            excepted = 0
            for part in term.ports:
                excepted |= self.port(part, protocol, port)
            return self.all & ~excepted
        return self.all if term.match(protocol, port, NOBODY).value else 0


class Edges:
    """The points at which some block of some policy begins or ends: between two of them addresses are alike."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        points: dict[int, set[int]] = {4: set(), 6: set()}
        self.by_node = False  # whether some policy tells pods of different nodes apart
        for policy in policies:
            for rule in (*policy.egress, *policy.ingress):
                self.by_node = self.by_node or isinstance(rule.own, OnNodesPeer)
                for peer in (*(rule.peers or ()), *((rule.own,) if rule.own else ())):
                    for block_peer in _blocks(peer):
                        for block in (block_peer.block, *block_peer.excepts):
                            points[block.version] |= {block.first, block.last + 1}
        self._points = {version: sorted(of_version) for version, of_version in points.items()}
        self._known = frozenset((version, point) for version, of_version in points.items() for point in of_version)

    def know(self, peer: BlockPeer) -> bool:
        """Whether a block begins and ends at such points; another one may tell addresses apart that are alike here."""
        points = self._known
        return all(
            (b.version, b.first) in points and (b.version, b.last + 1) in points for b in (peer.block, *peer.excepts)
        )

    def hold(self, policies: Iterable[Policy]) -> bool:
        """Whether all blocks of some policies begin and end at such points."""
        rules = (rule for policy in policies for rule in (*policy.egress, *policy.ingress))
        peers = (peer for rule in rules for peer in (*(rule.peers or ()), *((rule.own,) if rule.own else ())))
        return all(self.know(block) for peer in peers for block in _blocks(peer))

    def samples(self) -> list[Address]:
        """The first address of each range that blocks tell apart."""
        return [Address(v, p) for v, points in self._points.items() for p in points if p < 1 << (32 if v == 4 else 128)]

    def key(self, address: Address | None) -> tuple[int, int]:
        if address is None:
            return NO_ADDRESS
        return (address.version, bisect_right(self._points[address.version], address.value))


def _blocks(peer: Peer) -> Iterable[BlockPeer]:
    match peer:
        case BlockPeer():
            yield peer
        case AllOfPeer(parts=parts) | AnyOfPeer(parts=parts):
            for part in parts:
                yield from _blocks(part)
        case NotPeer(part=part):
            yield from _blocks(part)
        case ExpressionPeer(sets=sets):
            for labelled_set in sets:
                yield from _blocks(labelled_set.blocks)
        case _:
            return


def _key(party: PolicyParty, edges: Edges) -> object:
    """What policies can tell pods apart by."""
    return (
        party.kind,
        party.namespace,
        frozenset(party.labels.items()),
        frozenset(party.ports),
        party.service_account,
        party.owned,
        party.platform,
        party.mesh,
        party.linkerd,
        edges.key(party.address),
        party.node if edges.by_node or party.kind is PartyKind.HOST else "",
    )
