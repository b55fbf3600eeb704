"""What a change of policies changes beyond the pods: from and to the nodes, the API server and the internet."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import Direction, pod_endpoint
from kubectl_genainet.policy.reach.grid import Difference, PodGroup, Port, declared_ports, group_name, kin
from kubectl_genainet.policy.reach.outside import Beyond, BeyondCell, BeyondJudge
from kubectl_genainet.policy.rules import PROTOCOLS, NumberedPorts

_MOST_PORTS = 32
_LAST_PORT = 65535
_Key = tuple[Beyond, Direction, Port]


def beyond_differences(
    before: PolicyEngine, after: PolicyEngine, *, namespace: str, ports: tuple[Port, ...]
) -> list[Difference]:
    """Every verdict beyond the pods that is not the same in both states, alike pods folded.

    Without `ports`, a destination is judged on those that it declares in either state, and what pods send on a port of
    each range that the changed policies tell apart.
    """
    changed = _changed_policies(before, after)
    leaving = _ports_left_by((before, after), changed)
    judges = BeyondJudge(before, ports, leaving), BeyondJudge(after, ports, leaving)
    folded: dict[object, tuple[Difference, list[tuple[str, str]]]] = {}
    for group in _groups(before, after, namespace, changed):
        old, new = (_cells(judge, group) for judge in judges)
        for key in old.keys() & new.keys():
            was, now = old[key].verdict, new[key].verdict
            if was is not now:
                alike = (key, was, now, kin(before, group.pods[0]))
                folded.setdefault(alike, (_difference(key, old[key], new[key]), []))[1].extend(group.pods)
    return [_named(difference, tuple(pods)) for difference, pods in folded.values()]


def _cells(judge: BeyondJudge, group: PodGroup) -> dict[_Key, BeyondCell]:
    return {(cell.beyond, cell.direction, cell.port): cell for cell in judge.cells(group)}


def _difference(key: _Key, old: BeyondCell, new: BeyondCell) -> Difference:
    beyond, direction, port = key
    ends = (beyond.value, "") if direction is Direction.INGRESS else ("", beyond.value)
    return Difference(*ends, *port, old.verdict, new.verdict, (), ())


def _named(difference: Difference, pods: tuple[tuple[str, str], ...]) -> Difference:
    name = group_name(pods)
    if difference.source:
        return Difference(
            difference.source, name, difference.protocol, difference.port, difference.before, difference.after, (), pods
        )
    return Difference(
        name,
        difference.destination,
        difference.protocol,
        difference.port,
        difference.before,
        difference.after,
        pods,
        (),
    )


def _groups(
    before: PolicyEngine, after: PolicyEngine, namespace: str, changed: frozenset[ObjectRef] | None
) -> Iterator[PodGroup]:
    """Pods of both states that are alike in each, where the change can bear on them."""
    old, new = before.rows.classes, after.rows.classes
    shared: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for pod, index in old.of_pod.items():
        if pod in new.of_pod and (not namespace or pod[0] == namespace):
            shared.setdefault((index, new.of_pod[pod]), []).append(pod)
    for (first, second), pods in shared.items():
        party = old.classes[first].party
        if party.kind is not PartyKind.POD or not _bears(before, after, pods[0], changed):
            continue
        ports = {*declared_ports(before, old.classes[first]), *declared_ports(after, new.classes[second])}
        yield PodGroup(group_name(pods), party.namespace, tuple(pods), False, first, tuple(sorted(ports)))


def _changed_policies(before: PolicyEngine, after: PolicyEngine) -> frozenset[ObjectRef] | None:
    """The policies that are not the same in both states; None where anything else is another."""
    states = [{(o.group, o.ref): o.raw for o in state.snapshot.objects} for state in (before, after)]
    keys = [key for key in states[0].keys() | states[1].keys() if states[0].get(key) != states[1].get(key)]
    if any(not key[1].kind.endswith("NetworkPolicy") for key in keys):
        return None
    return frozenset(ref for _, ref in keys)


def _ports_left_by(states: tuple[PolicyEngine, ...], changed: frozenset[ObjectRef] | None) -> tuple[Port, ...]:
    """One port of each range that rules for egress of the changed policies begin or end."""
    names = None if changed is None else {(ref.namespace, ref.name) for ref in changed}
    ports: set[Port] = set()
    for policy in (p for state in states for p in state.policies):
        if names is not None and (policy.ref.namespace, policy.ref.name) not in names:
            continue
        for term in (
            t for rule in policy.egress for terms in rule.ports for t in terms if isinstance(t, NumberedPorts)
        ):
            protocols = (term.protocol,) if term.protocol in PROTOCOLS else ("TCP", "UDP")
            ports |= {(protocol, number) for protocol in protocols for number in _samples(term)}
    return tuple(sorted(ports)[:_MOST_PORTS])


def _samples(term: NumberedPorts) -> Iterator[int]:
    """A port in the range, a well-known one where it holds one, and the port after it."""
    known = (port for port in (443, 53) if term.first <= port <= term.last)
    yield next(known, max(term.first, 1))
    if term.last < _LAST_PORT:
        yield term.last + 1


def _bears(
    before: PolicyEngine, after: PolicyEngine, pod: tuple[str, str], changed: frozenset[ObjectRef] | None
) -> bool:
    if changed is None:
        return True
    names = {(ref.namespace, ref.name) for ref in changed}
    for engine in (before, after):
        party = engine.parties.of(pod_endpoint(*pod))
        for direction in Direction:
            for _, tier in engine.plan(party, direction):
                if any((selected.policy.ref.namespace, selected.policy.ref.name) in names for selected in tier):
                    return True
    return False
