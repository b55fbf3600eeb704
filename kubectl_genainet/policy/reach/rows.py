"""Which classes a class may reach, or be reached by: the tiers run once for all peers, on bit sets."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from kubectl_genainet.policy.decide import Matcher, Selected, run_tiers
from kubectl_genainet.policy.identity import EntityPeer, IdentityPeer
from kubectl_genainet.policy.matching.node_peers import OwnNodePeer
from kubectl_genainet.policy.matching.party import PolicyParty
from kubectl_genainet.policy.matching.peers import AllOfPeer, AnyOfPeer, NotPeer, Peer, SameLabelsPeer
from kubectl_genainet.policy.model import Direction
from kubectl_genainet.policy.reach.classes import NOBODY, PodClasses
from kubectl_genainet.policy.rules import NamedPortTerm, NotPorts, NumberedPorts, Policy, PolicyRule, Ports, Tier

Plan = tuple[tuple[Tier, tuple[Selected, ...]], ...]
# Protocols and ports whose rows are kept; then they are made anew.
_MOST_TABLES = 1024


class _Table(NamedTuple):
    """The rows made so far, by class, and once they were asked for, the classes by their rows."""

    egress: list[tuple[int, int] | None]
    ingress: list[tuple[int, int] | None]
    alike: dict[Direction, dict[tuple[int, int], int]]


class MatrixRows:
    """Rows of the matrix, each made when it is first asked for and shared by classes that have the same policies."""

    def __init__(
        self, classes: PodClasses, policies: Sequence[Policy], in_tiers: Callable[[Sequence[Selected]], Plan]
    ) -> None:
        self.classes = classes
        self._in_tiers = in_tiers
        self._kept: list[Policy] = []
        self._isolated: dict[Direction, int] = {}
        self._port_edges = _port_edges(policies, classes)
        self._egress = _Side(Direction.EGRESS, classes, policies, in_tiers)
        self._ingress = _Side(Direction.INGRESS, classes, policies, in_tiers)
        self._tables: dict[tuple[str, int], _Table] = {}
        self._by_key: dict[tuple[str, int], _Table] = {}
        self._rule_sets: dict[tuple[int, str, int], tuple[int, int]] = {}

    def changed(self, removed: Sequence[Policy], added: Sequence[Policy]) -> MatrixRows:
        """The rows without some policies and with others; what these don't bear on is shared or copied.

        The blocks of the policies that are added must begin and end where others do.
        """
        rows = copy.copy(self)
        rows._kept = [*self._kept, *removed, *added]  # sets are kept by the identity of rules and peers
        edges = set(self._port_edges) | set(_port_edges(added, None))
        alike = len(edges) == len(self._port_edges)
        rows._port_edges = self._port_edges if alike else sorted(edges)
        rows._egress, egress = self._egress.changed(removed, added, keep=alike)
        rows._ingress, ingress = self._ingress.changed(removed, added, keep=alike)
        rows._isolated = {}
        for direction, side, touched in (
            (Direction.EGRESS, rows._egress, egress),
            (Direction.INGRESS, rows._ingress, ingress),
        ):
            if direction in self._isolated:
                mask = sum(1 << index for index in touched)
                rows._isolated[direction] = self._isolated[direction] & ~mask | side.isolated(touched)
        rows._rule_sets = self._rule_sets.copy() if alike else {}
        rows._by_key = {key: _without(table, egress, ingress) for key, table in self._by_key.items()} if alike else {}
        rows._tables = {key: rows._by_key[key[0], self.port_key(key[1])] for key in self._tables} if alike else {}
        return rows

    def port_key(self, port: int) -> int:
        """Ports with the same key are alike to every policy."""
        return bisect_right(self._port_edges, port)

    def row(self, index: int, direction: Direction, protocol: str, port: int) -> tuple[int, int]:
        """The classes to (egress) or from (ingress) which a flow may be allowed, and those where it may be denied."""
        table = self._table(protocol, port)
        rows = table.egress if direction is Direction.EGRESS else table.ingress
        known = rows[index]
        if known is None:
            side = self._egress if direction is Direction.EGRESS else self._ingress
            known = rows[index] = self._row(side, index, protocol, port)
        return known

    def alike(self, direction: Direction, protocol: str, port: int) -> Mapping[tuple[int, int], int]:
        """The classes that have the same row, by it."""
        table = self._table(protocol, port)
        known = table.alike.get(direction)
        if known is None:
            known = table.alike[direction] = {}
            side = self._egress if direction is Direction.EGRESS else self._ingress
            for index, members in side.groups:
                row = self.row(index, direction, protocol, port)
                known[row] = known.get(row, 0) | members
        return known

    def treated_alike(self, index: int, direction: Direction) -> object:
        """The same for classes of which policies say the same in a direction, but for ports by name and nodes."""
        side = self._egress if direction is Direction.EGRESS else self._ingress
        plan = side.plans[index]
        return plan.number, self.classes.classes[index].party.text if plan.looks_at_own else ""

    def may(self, source: int, destination: int, protocol: str, port: int) -> tuple[bool, bool]:
        """Whether a flow between two classes may be allowed, and whether it may be denied."""
        table = self._tables.get((protocol, port)) or self._table(protocol, port)
        leave = table.egress[source] or self.row(source, Direction.EGRESS, protocol, port)
        enter = table.ingress[destination] or self.row(destination, Direction.INGRESS, protocol, port)
        to, of = 1 << destination, 1 << source
        return bool(leave[0] & to and enter[0] & of), bool(leave[1] & to or enter[1] & of)

    def row_with(
        self,
        index: int,
        direction: Direction,
        protocol: str,
        port: int,
        *,
        removed: Sequence[Policy],
        added: Sequence[Policy],
    ) -> tuple[int, int]:
        """The row as it would be without some policies and with others; nothing of it is kept."""
        self._kept += added  # sets of classes are kept by the identity of rules and peers: these must not be reused
        side = self._egress if direction is Direction.EGRESS else self._ingress
        gone = {id(policy) for policy in removed}
        chosen = [s for _, tier in side.plans[index].tiers for s in tier if id(s.policy) not in gone]
        for policy in added:
            if policy.applies(direction):
                sure, unsure = self.classes.peer(policy.subject, NOBODY)
                if (sure | unsure) >> index & 1:
                    chosen.append(Selected(policy, bool(sure >> index & 1) and not policy.not_evaluated))
        if not chosen:
            return self.classes.all, 0
        own = self.classes.classes[index].party
        matcher = self._matcher(own, direction, protocol, port)
        return run_tiers(self._in_tiers(chosen), direction, self.classes.all, matcher)

    def _table(self, protocol: str, port: int) -> _Table:
        """The rows of a protocol and port; ports that are alike share them."""
        table = self._tables.get((protocol, port))
        if table is None:
            key = self.port_key(port)
            if len(self._tables) >= _MOST_TABLES:
                self._tables.clear()
                self._by_key.clear()
                self._egress.shared.clear()
                self._ingress.shared.clear()
                self._rule_sets.clear()
            table = self._by_key.get((protocol, key))
            if table is None:
                size = len(self.classes.classes)
                table = self._by_key[(protocol, key)] = _Table([None] * size, [None] * size, {})
            self._tables[(protocol, port)] = table
        return table

    def isolated(self, direction: Direction) -> int:
        """The classes that some policy isolates."""
        if direction not in self._isolated:
            side = self._egress if direction is Direction.EGRESS else self._ingress
            self._isolated[direction] = side.isolated(range(len(side.plans)))
        return self._isolated[direction]

    def _row(self, side: _Side, index: int, protocol: str, port: int) -> tuple[int, int]:
        plan = side.plans[index]
        if not plan.tiers:
            return self.classes.all, 0
        own = self.classes.classes[index].party
        shared = (side.treats_alike(index), protocol, self.port_key(port))
        known = side.shared.get(shared)
        if known is None:
            matcher = self._matcher(own, side.direction, protocol, port)
            known = side.shared[shared] = run_tiers(plan.tiers, side.direction, self.classes.all, matcher)
        return known

    def _matcher(self, own: PolicyParty, direction: Direction, protocol: str, port: int) -> Matcher:
        if direction is Direction.EGRESS:
            return lambda policy, rule: self._egress_sets(rule, own, protocol, port)
        return lambda policy, rule: self._ingress_sets(rule, own, protocol, port)

    def _ingress_sets(self, rule: PolicyRule, own: PolicyParty, protocol: str, port: int) -> tuple[int, int]:
        if rule.match_ports(protocol, port, own).value is False:
            return 0, 0
        return self._sets(rule, own, self.classes.all)

    def _egress_sets(self, rule: PolicyRule, own: PolicyParty, protocol: str, port: int) -> tuple[int, int]:
        key = (id(rule), protocol, self.port_key(port))
        known = self._rule_sets.get(key)
        if known is not None:
            return known
        ports = self.classes.all
        for alternatives in rule.ports:
            fits = 0
            for term in alternatives:
                fits |= self.classes.port(term, protocol, port)
            ports &= fits
        known = self._sets(rule, own, ports) if ports else (0, 0)
        if not rule_looks_at_own(rule):
            self._rule_sets[key] = known
        return known

    def _sets(self, rule: PolicyRule, own: PolicyParty, ports: int) -> tuple[int, int]:
        certain = not rule.not_evaluated
        if rule.own is not None:
            value = rule.own.match(own, own).value
            if value is False:
                return 0, 0
            certain = certain and value is True
        sure, unsure = self.classes.select(rule.peers, own)
        sure, unsure = sure & ports, unsure & ports
        return (sure, unsure) if certain else (0, sure | unsure)


class _ClassPlan(NamedTuple):
    """The tiers for a class; classes with the same policies have the same `number`."""

    number: int
    tiers: Plan
    looks_at_own: bool


class _Side:
    """One direction: the plan of each class, and the rows made so far."""

    def __init__(
        self,
        direction: Direction,
        classes: PodClasses,
        policies: Sequence[Policy],
        in_tiers: Callable[[Sequence[Selected]], Plan],
    ) -> None:
        self.direction = direction
        self._classes, self._in_tiers = classes, in_tiers
        self.shared: dict[object, tuple[int, int]] = {}
        self._groups: list[tuple[int, int]] | None = None
        selected: list[list[int]] = [[] for _ in classes.classes]
        choices: list[Selected] = []
        for policy in policies:
            if not policy.applies(direction):
                continue
            sure, unsure = classes.peer(policy.subject, NOBODY)
            if policy.not_evaluated:
                sure, unsure = 0, sure | unsure
            for selected_classes, certain in ((sure, True), (unsure, False)):
                if selected_classes:
                    choices.append(Selected(policy, certain))
                    for index in bits(selected_classes & classes.pods):
                        selected[index].append(len(choices) - 1)
        plans: dict[tuple[int, ...], _ClassPlan] = {}
        self.plans: list[_ClassPlan] = []
        for chosen in map(tuple, selected):
            plan = plans.get(chosen)
            if plan is None:
                tiers = in_tiers([choices[i] for i in chosen])
                own = any(looks_at_own(choices[i].policy, direction) for i in chosen)
                plan = plans[chosen] = _ClassPlan(len(plans), tiers, own)
            self.plans.append(plan)
        self._numbers = len(plans)

    def treats_alike(self, index: int) -> object:
        """The same for classes that have the same rows."""
        plan, own = self.plans[index], self._classes.classes[index].party
        ports = own.ports if self.direction is Direction.INGRESS and plan.tiers else ()
        return plan.number, ports, own.text if plan.looks_at_own else ""

    @property
    def groups(self) -> Collection[tuple[int, int]]:
        """The first of the classes that have the same rows, and all of these; made when first needed."""
        if self._groups is None:
            groups: dict[object, tuple[int, list[int]]] = {}
            for index in range(len(self.plans)):
                groups.setdefault(self.treats_alike(index), (index, []))[1].append(index)
            self._groups = [(first, bits_at(indices)) for first, indices in groups.values()]
        return self._groups

    def isolated(self, indices: Iterable[int]) -> int:
        """Those of some classes that a policy isolates."""
        isolated_pods = 0
        for index in indices:
            if any(
                selected.policy.isolates(self.direction) for _, tier in self.plans[index].tiers for selected in tier
            ):
                isolated_pods |= 1 << index
        return isolated_pods

    def changed(self, removed: Sequence[Policy], added: Sequence[Policy], *, keep: bool) -> tuple[_Side, list[int]]:
        """The side with other policies, and the classes that these bear on; with `keep`, the rows made so far."""
        side = copy.copy(self)
        side.shared = self.shared.copy() if keep else {}
        side.plans = self.plans.copy()
        side._groups = None
        gone = {id(policy) for policy in removed}
        choices, touched = [], 0
        for policy in (*removed, *added):
            if policy.applies(self.direction):
                sure, unsure = self._classes.peer(policy.subject, NOBODY)
                touched |= sure | unsure
                if id(policy) not in gone:
                    choices.append((policy, 0 if policy.not_evaluated else sure, sure | unsure))
        affected = list(bits(touched & self._classes.pods))
        plans: dict[object, _ClassPlan] = {}
        for index in affected:
            new = tuple(Selected(p, bool(sure >> index & 1)) for p, sure, may in choices if may >> index & 1)
            key = self.plans[index].number, tuple((id(selected.policy), selected.certain) for selected in new)
            plan = plans.get(key)
            if plan is None:
                kept = [
                    selected
                    for _, tier in self.plans[index].tiers
                    for selected in tier
                    if id(selected.policy) not in gone
                ]
                chosen = (*kept, *new)
                own = any(looks_at_own(selected.policy, self.direction) for selected in chosen)
                plan = plans[key] = _ClassPlan(side._numbers, self._in_tiers(chosen), own)
                side._numbers += 1
            side.plans[index] = plan
        return side, affected


def bits(mask: int) -> Iterator[int]:
    """The positions of the bits that are set, lowest first."""
    text = bin(mask)[:1:-1]
    position = text.find("1")
    while position >= 0:
        yield position
        position = text.find("1", position + 1)


def bits_at(positions: Sequence[int]) -> int:
    """The set with these bits; positions in their order."""
    if not positions:
        return 0
    octets = bytearray(positions[-1] // 8 + 1)
    for position in positions:
        octets[position // 8] |= 1 << position % 8
    return int.from_bytes(octets, "little")


def looks_at_own(policy: Policy, direction: Direction) -> bool:
    """Whether the rules compare with the pod's own side, so that their sets differ between pods."""
    return any(rule_looks_at_own(rule) for rule in policy.rules(direction))


def rule_looks_at_own(rule: PolicyRule) -> bool:
    return rule.own is not None or any(_peer_looks_at_own(p) for p in rule.peers or ())


def _peer_looks_at_own(peer: Peer) -> bool:
    match peer:
        case SameLabelsPeer() | OwnNodePeer():
            return True
        case EntityPeer() | IdentityPeer():
            return peer.looks_at_node
        case AllOfPeer(parts=parts) | AnyOfPeer(parts=parts):
            return any(map(_peer_looks_at_own, parts))
        case NotPeer(part=part):
            return _peer_looks_at_own(part)
        case _:
            return False


def _without(table: _Table, egress: Iterable[int], ingress: Iterable[int]) -> _Table:
    """A copy of a table in which the rows of some classes are to be made anew."""
    rows = _Table(table.egress.copy(), table.ingress.copy(), {})
    for side_rows, indices in ((rows.egress, egress), (rows.ingress, ingress)):
        for index in indices:
            side_rows[index] = None
    return rows


def _port_edges(policies: Iterable[Policy], classes: PodClasses | None) -> list[int]:
    """The ports at which some term begins or ends to match, and those that pods name."""
    edges: set[int] = set()
    for pod_class in classes.classes if classes is not None else ():
        for named in pod_class.party.ports:
            edges |= {named.port, named.port + 1}
    for policy in policies:
        for rule in (*policy.egress, *policy.ingress):
            for alternatives in rule.ports:
                for term in alternatives:
                    edges |= _edges_of(term)
    return sorted(edges)


def _edges_of(term: Ports) -> set[int]:
    match term:
        case NumberedPorts(first=first, last=last):
            return {first, last + 1}
        case NotPorts(ports=ports):
            return set().union(*map(_edges_of, ports)) if ports else set()
        case NamedPortTerm(last=last):
            return {last + 1} if last else set()
        case _:
            return set()
