"""The matrix as people read it: alike pods folded into one row, each cell with its ports; and two states compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.target import must_be_read
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import PolicyVerdict
from kubectl_genainet.policy.patches.labels import lasting_labels
from kubectl_genainet.policy.reach.arriving import ArrivingMatrices
from kubectl_genainet.policy.reach.classes import PodClass
from kubectl_genainet.policy.reach.matrix import Matrix, transposed
from kubectl_genainet.policy.rules import PROTOCOLS

Port = tuple[str, int]  # protocol, number


class PodGroup(msgspec.Struct, frozen=True):
    """Pods of one row: the same namespace, labels and named ports, and the same verdicts."""

    name: str
    namespace: str
    pods: tuple[tuple[str, str], ...]
    host_network: bool
    class_index: int
    ports: tuple[Port, ...]


class Grid(msgspec.Struct, frozen=True):
    """`matrices` by port; without a given port, each destination is judged on the ports that it declares."""

    groups: tuple[PodGroup, ...]
    matrices: dict[Port, Matrix]
    given_port: bool

    def cell(self, source: PodGroup, destination: PodGroup) -> dict[Port, PolicyVerdict]:
        """The verdict on each port of the destination."""
        ports = self.matrices if self.given_port else destination.ports
        return {p: self.matrices[p].verdict(source.class_index, destination.class_index) for p in ports}

    def is_self(self, source: PodGroup, destination: PodGroup) -> bool:
        """Whether both are the one pod, which may always reach itself."""
        return source is destination and len(source.pods) == 1


class Difference(msgspec.Struct, frozen=True):
    """A verdict that differs between two states, for pods that are in both."""

    source: str
    destination: str
    protocol: str
    port: int
    before: PolicyVerdict
    after: PolicyVerdict
    source_pods: tuple[tuple[str, str], ...]
    destination_pods: tuple[tuple[str, str], ...]


def grid_of(engine: PolicyEngine, *, namespace: str, protocol: str, port: int | None) -> Grid:
    """The grid of a namespace, or of all where `namespace` is empty. Raises InputError for one without pods."""
    chosen = classes_in((engine,), namespace)
    ports = [(protocol, port)] if port else sorted({p for c in chosen for p in declared_ports(engine, c, protocol)})
    arriving = ArrivingMatrices(engine)
    matrices = {p: arriving.on(*p) for p in ports}
    groups = sorted(_groups(engine, chosen, matrices, protocol), key=lambda g: g.pods)
    return Grid(tuple(groups), matrices, port is not None)


def classes_in(engines: Iterable[PolicyEngine], namespace: str) -> list[PodClass]:
    """The classes of pods of a namespace (empty: of all) in some states. Raises InputError where there are none."""
    states = tuple(engines)
    classes = [c for engine in states for c in engine.rows.classes.classes]
    chosen = [c for c in classes if not namespace or c.party.namespace == namespace]
    if not chosen:
        for engine in states:
            must_be_read(engine.snapshot, "Pod", namespace)
        raise InputError(
            f"there are no pods in namespace {namespace}" if namespace else "there are no pods",
            hint="Is the namespace right? (-n, -A)",
        )
    return chosen


def declared_ports(engine: PolicyEngine, pod_class: PodClass, protocol: str = "") -> tuple[Port, ...]:
    """The ports that the containers of a class declare."""
    pod = engine.snapshot.pod(*pod_class.pods[0])
    ports = {(p.protocol, p.container_port) for p in pod.ports} if pod else set()
    return tuple(sorted(p for p in ports if p[0] in PROTOCOLS and (not protocol or p[0] == protocol)))


def declared_in(engines: Iterable[PolicyEngine], namespace: str, protocol: str) -> set[Port]:
    """Every port that a pod of the namespace (empty: of any) declares."""
    return {
        port
        for engine in engines
        for pod_class in engine.rows.classes.classes
        if not namespace or pod_class.party.namespace == namespace
        for port in declared_ports(engine, pod_class, protocol)
    }


def with_applied(state: ClusterSnapshot, other: ClusterSnapshot) -> ClusterSnapshot:
    """The state that `other` leads to: itself if it holds pods, else `state` with its objects applied."""
    if other.pods:
        return other
    objects = {(o.group, o.kind, o.namespace, o.name): o for o in (*state.objects, *other.objects)}
    return replace(state, objects=tuple(objects.values()))


def _groups(
    engine: PolicyEngine, chosen: Sequence[PodClass], matrices: dict[Port, Matrix], protocol: str
) -> Iterator[PodGroup]:
    """Classes that differ only by labels of one pod (and what has no effect here) are put together."""
    wanted = sum(1 << c.index for c in chosen)
    sides = (side for m in matrices.values() for side in (m.allowed, m.unknown))
    sets: list[Sequence[int]] = [[row * (wanted >> i & 1) for i, row in enumerate(side)] for side in sides]
    sets += [transposed(side) for side in sets]
    together: dict[object, list[PodClass]] = {}
    for pod_class in chosen:
        party = pod_class.party
        labels = tuple(sorted(lasting_labels(party).items()))
        ports = declared_ports(engine, pod_class, protocol)
        rows = tuple(side[pod_class.index] & wanted for side in sets)
        key = (party.namespace, labels, ports, frozenset(party.ports), party.kind, rows)
        together.setdefault(key, []).append(pod_class)
    for classes in together.values():
        pods = tuple(p for c in classes for p in c.pods)
        first = classes[0]
        host = first.party.kind is PartyKind.HOST
        ports = declared_ports(engine, first, protocol)
        yield PodGroup(group_name(pods), first.party.namespace, pods, host, first.index, ports)


def group_name(pods: Sequence[tuple[str, str]]) -> str:
    """ "namespace/pod" for one pod, "namespace/common-* (3)" for several."""
    namespace, name = pods[0]
    if len(pods) == 1:
        return f"{namespace}/{name}"
    first, last = min(pods)[1], max(pods)[1]
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    common = first[:same]
    stem = common.rpartition("-")[0] or common
    return f"{namespace}/{stem}-* ({len(pods)})" if stem else f"{namespace}/{name} and {len(pods) - 1} more"


def differences(
    before: PolicyEngine, after: PolicyEngine, *, namespace: str, ports: Collection[Port], declared_only: bool = False
) -> list[Difference]:
    """Every verdict between pods of both states that is not the same in both, alike pods folded.

    With `declared_only` a destination is judged on the ports that it declares, in one state or the other.
    """
    old, new = before.rows.classes, after.rows.classes
    shared: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for pod, index in old.of_pod.items():
        if pod in new.of_pod:
            shared.setdefault((index, new.of_pod[pod]), []).append(pod)
    changes: list[_Change] = []
    declared = {
        key: {
            *declared_ports(before, before.rows.classes.classes[key[0]]),
            *declared_ports(after, after.rows.classes.classes[key[1]]),
        }
        for key in shared
    }
    states = ArrivingMatrices(before), ArrivingMatrices(after)
    for protocol, port in sorted(ports):
        first, second = (state.on(protocol, port) for state in states)
        for source, source_pods in shared.items():
            for destination, pods in shared.items():
                if namespace and namespace not in (source_pods[0][0], pods[0][0]):
                    continue
                if declared_only and (protocol, port) not in declared[destination]:
                    continue
                was = first.verdict(source[0], destination[0])
                now = second.verdict(source[1], destination[1])
                if was is not now:
                    changes.append(_Change((protocol, port), was, now, tuple(source_pods), tuple(pods)))
    return [
        Difference(
            group_name(c.sources), group_name(c.destinations), *c.port, c.before, c.after, c.sources, c.destinations
        )
        for c in _folded(before, changes)
        if len(c.sources) > 1 or c.sources != c.destinations  # one pod may always reach itself
    ]


class _Change(NamedTuple):
    port: Port
    before: PolicyVerdict
    after: PolicyVerdict
    sources: tuple[tuple[str, str], ...]
    destinations: tuple[tuple[str, str], ...]


def _folded(engine: PolicyEngine, changes: Sequence[_Change]) -> list[_Change]:
    """Changes of pods that differ only by passing labels, put together: first destinations, then sources."""
    by_destination: dict[object, _Change] = {}
    for change in changes:
        key: object = (change.port, change.before, change.after, change.sources, kin(engine, change.destinations[0]))
        kept = by_destination.get(key)
        by_destination[key] = change._replace(destinations=kept.destinations + change.destinations) if kept else change
    by_source: dict[object, _Change] = {}
    for change in by_destination.values():
        key = (change.port, change.before, change.after, kin(engine, change.sources[0]), change.destinations)
        kept = by_source.get(key)
        by_source[key] = change._replace(sources=kept.sources + change.sources) if kept else change
    return list(by_source.values())


def kin(engine: PolicyEngine, pod: tuple[str, str]) -> object:
    """What the pods of one workload share."""
    classes = engine.rows.classes
    party = classes.classes[classes.of_pod[pod]].party
    return (party.namespace, tuple(sorted(lasting_labels(party).items())))
