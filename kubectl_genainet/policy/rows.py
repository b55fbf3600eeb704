"""Which classes a class may reach, or be reached by: the tiers run once for all peers, on bit sets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

from kubectl_genainet.policy.classes import PodClasses
from kubectl_genainet.policy.decide import Matcher, Selected, run_tiers
from kubectl_genainet.policy.model import Direction
from kubectl_genainet.policy.party import Party
from kubectl_genainet.policy.peers import AllOfPeer, AnyOfPeer, EntityPeer, NotPeer, Peer, SameLabelsPeer
from kubectl_genainet.policy.rules import NamedPortTerm, NotPorts, NumberedPorts, Policy, Ports, Rule, Tier

Plan = tuple[tuple[Tier, tuple[Selected, ...]], ...]
# By protocol and port, of any number of snapshots' flows: beyond this the memory is better spent otherwise.
_MOST_ROWS = 100_000


class Rows:
    """Rows of the matrix, each made when it is first asked for and shared by classes that have the same policies."""

    def __init__(
        self, classes: PodClasses, policies: Iterable[Policy], plan: Callable[[Party, Direction], Plan]
    ) -> None:
        self.classes = classes
        self._plan = plan
        self._port_edges = _port_edges(policies, classes)
        self._rows: dict[tuple[int, Direction, str, int], tuple[int, int]] = {}
        self._shared: dict[object, tuple[int, int]] = {}
        self._rule_sets: dict[tuple[int, str, int], tuple[int, int]] = {}

    def port_key(self, port: int) -> int:
        """Ports with the same key are alike to every policy."""
        return bisect_right(self._port_edges, port)

    def row(self, index: int, direction: Direction, protocol: str, port: int) -> tuple[int, int]:
        """The classes to (egress) or from (ingress) which a flow may be allowed, and those where it may be denied."""
        key = (index, direction, protocol, self.port_key(port))
        found = self._rows.get(key)
        if found is None:
            if len(self._rows) >= _MOST_ROWS:
                self._rows.clear()
                self._shared.clear()
                self._rule_sets.clear()
            found = self._rows[key] = self._row(index, direction, protocol, port)
        return found

    def _row(self, index: int, direction: Direction, protocol: str, port: int) -> tuple[int, int]:
        own = self.classes.classes[index].party
        plan = self._plan(own, direction)
        if not plan:
            return self.classes.all, 0
        shared = (
            direction,
            protocol,
            self.port_key(port),
            tuple((id(s.policy), s.certain) for _, selected in plan for s in selected),
            own.ports if direction is Direction.INGRESS else (),
            own.text if any(looks_at_own(s.policy, direction) for _, selected in plan for s in selected) else "",
        )
        found = self._shared.get(shared)
        if found is None:
            found = run_tiers(plan, direction, self.classes.all, self._matcher(own, direction, protocol, port))
            self._shared[shared] = found
        return found

    def _matcher(self, own: Party, direction: Direction, protocol: str, port: int) -> Matcher:
        if direction is Direction.EGRESS:
            return lambda policy, rule: self._egress(rule, own, protocol, port)
        return lambda policy, rule: self._ingress(rule, own, protocol, port)

    def _ingress(self, rule: Rule, own: Party, protocol: str, port: int) -> tuple[int, int]:
        if rule.match_ports(protocol, port, own).value is False:
            return 0, 0
        return self._sets(rule, own, self.classes.all)

    def _egress(self, rule: Rule, own: Party, protocol: str, port: int) -> tuple[int, int]:
        key = (id(rule), protocol, self.port_key(port))
        found = self._rule_sets.get(key)
        if found is not None:
            return found
        ports = self.classes.all
        for alternatives in rule.ports:
            fits = 0
            for term in alternatives:
                fits |= self.classes.port(term, protocol, port)
            ports &= fits
        found = self._sets(rule, own, ports) if ports else (0, 0)
        if not rule_looks_at_own(rule):
            self._rule_sets[key] = found
        return found

    def _sets(self, rule: Rule, own: Party, ports: int) -> tuple[int, int]:
        certain = not rule.not_evaluated
        if rule.own is not None:
            value = rule.own.match(own, own).value
            if value is False:
                return 0, 0
            certain = certain and value is True
        sure, unsure = self.classes.select(rule.peers, own)
        sure, unsure = sure & ports, unsure & ports
        return (sure, unsure) if certain else (0, sure | unsure)


def looks_at_own(policy: Policy, direction: Direction) -> bool:
    """Whether the rules compare with the pod's own side, so that their sets differ between pods."""
    return any(rule_looks_at_own(rule) for rule in policy.rules(direction))


def rule_looks_at_own(rule: Rule) -> bool:
    return rule.own is not None or any(_peer_looks_at_own(p) for p in rule.peers or ())


def _peer_looks_at_own(peer: Peer) -> bool:
    match peer:
        case SameLabelsPeer() | EntityPeer():
            return True
        case AllOfPeer(parts=parts) | AnyOfPeer(parts=parts):
            return any(map(_peer_looks_at_own, parts))
        case NotPeer(part=part):
            return _peer_looks_at_own(part)
        case _:
            return False


def _port_edges(policies: Iterable[Policy], classes: PodClasses) -> list[int]:
    """The ports at which some term begins or ends to match."""
    edges: set[int] = set()
    for one in classes.classes:
        for named in one.party.ports:
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
        case NamedPortTerm():
            return set()
        case _:
            return set()
