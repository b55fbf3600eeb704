"""Connections of the same workloads with the same outcome and cause, as one group: what a person reads of many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from kubectl_genainet.model.finding import Finding, Severity
from kubectl_genainet.model.results.measure import Quantiles, quantiles
from kubectl_genainet.model.results.path import PacketPath, Party, ServiceRef, Verdict

MAX_SAMPLES = 5_000  # times kept of a group, of each kind
ALIKE = 3  # groups that differ in the client only and are more than so many are told as one
FAILED = frozenset({Verdict.DROPPED, Verdict.REJECTED, Verdict.UNANSWERED, Verdict.RESET})

Key = tuple[object, ...]


def workload_name(party: Party | None) -> str:
    """ "namespace/workload", or the pod where no workload made it, "node NAME", or the address; "" for None."""
    if party is None:
        return ""
    if party.pod:
        return f"{party.namespace}/{party.workload or party.pod}"
    return f"node {party.node}" if party.node else party.ip


def service_name(service: ServiceRef | None) -> str:
    return f"svc/{service.name}:{service.port}" if service is not None else ""


def cause_of(path: PacketPath) -> tuple[str, ...]:
    """What tells one cause from another: the drop's kind and the policies behind it, else the findings' kinds."""
    if path.drop is not None:
        return (path.drop.check or path.drop.reason, *sorted(path.drop.policies))
    return tuple(sorted({f.check for f in path.findings if f.severity is not Severity.INFO}))


def _name_of(finding: Finding) -> str:
    ref = finding.object
    if ref is None:
        return ""
    return f"{ref.namespace}/{ref.name}" if ref.kind == "Pod" else str(ref)


@dataclass(slots=True)
class Group:
    """Connections with one key. `example` is the one that says most: of a drop the one with the most hops."""

    service: ServiceRef | None
    backend: str
    verdict: Verdict
    cause: tuple[str, ...]
    example: PacketPath
    clients: dict[str, None] = field(default_factory=dict)  # workloads, in order of sight
    client_pods: set[str] = field(default_factory=set)
    backend_pods: set[str] = field(default_factory=set)
    found_in: dict[str, dict[str, None]] = field(default_factory=dict)  # by a finding's check: what it was found of
    count: int = 0
    retransmits: int = 0
    first: str = ""  # RFC 3339
    last: str = ""
    handshakes: list[int] = field(default_factory=list)
    responses: list[int] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return self.verdict in FAILED

    @property
    def wrong(self) -> bool:
        """Whether it failed, or something else is wrong with it (it is slow, or passes against the policies)."""
        return self.failed or bool(self.cause) or self.verdict is Verdict.UNKNOWN

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from the others that are shown."""
        first = next(iter(self.clients), "")
        return (first, self.service, self.backend, self.verdict.value, self.cause)

    def elsewhere(self, finding: Finding) -> tuple[str, ...]:
        """What else the same was found of, besides the finding's own object."""
        own = _name_of(finding)
        return tuple(sorted(name for name in self.found_in.get(finding.check, ()) if name != own))

    @property
    def handshake(self) -> Quantiles:
        return quantiles(self.handshakes)

    @property
    def response(self) -> Quantiles:
        return quantiles(self.responses)

    def add(self, path: PacketPath) -> None:
        client, backend = path.flow.client, path.backend
        self.count += 1
        self.retransmits += path.retransmits
        self.clients[workload_name(client)] = None
        self.client_pods.add(client.pod or client.ip)
        if backend is not None:
            self.backend_pods.add(backend.pod or f"{backend.ip}:{backend.port}")
        for finding in path.findings:
            if name := _name_of(finding):
                self.found_in.setdefault(finding.check, {})[name] = None
        if path.time:
            self.first = min(self.first or path.time, path.time)
            self.last = max(self.last, path.time)
        for samples, value in ((self.handshakes, path.handshake_ns), (self.responses, path.response_ns)):
            if value is not None and len(samples) < MAX_SAMPLES:
                samples.append(value)
        if len(path.hops) > len(self.example.hops):
            self.example = path

    def merge(self, other: Group) -> None:
        """Takes in another that differs in the client only."""
        self.count += other.count
        self.retransmits += other.retransmits
        self.clients |= other.clients
        self.client_pods |= other.client_pods
        self.backend_pods |= other.backend_pods
        for check, names in other.found_in.items():
            self.found_in.setdefault(check, {}).update(names)
        self.first = min(t for t in (self.first, other.first) if t) if self.first or other.first else ""
        self.last = max(self.last, other.last)
        self.handshakes = [*self.handshakes, *other.handshakes][:MAX_SAMPLES]
        self.responses = [*self.responses, *other.responses][:MAX_SAMPLES]


class Grouping:
    """Takes in paths as they come."""

    def __init__(self) -> None:
        self._groups: dict[Key, Group] = {}
        self.connections = 0

    def add(self, path: PacketPath) -> None:
        backend, cause = workload_name(path.backend), cause_of(path)
        key = (workload_name(path.flow.client), path.flow.service, backend, path.verdict, cause)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(path.flow.service, backend, path.verdict, cause, path)
        group.add(path)
        self.connections += 1

    def copies(self) -> list[Group]:
        """The groups as they are now, for another thread: they do not change any more."""
        return [
            replace(
                group,
                clients=dict(group.clients),
                client_pods=set(group.client_pods),
                backend_pods=set(group.backend_pods),
                found_in={check: dict(names) for check, names in group.found_in.items()},
                handshakes=list(group.handshakes),
                responses=list(group.responses),
            )
            for group in self.groups
        ]

    @property
    def groups(self) -> list[Group]:
        """What went wrong first, then the most frequent; groups of very many clients together."""
        return sorted(_folded(self._groups.values()), key=lambda g: (not g.failed, not g.wrong, -g.count))


def _folded(groups: Iterable[Group]) -> list[Group]:
    alike: dict[Key, list[Group]] = {}
    for group in groups:
        alike.setdefault((group.service, group.backend, group.verdict, group.cause), []).append(group)
    shown: list[Group] = []
    for same in alike.values():
        if len(same) <= ALIKE:
            shown += same
            continue
        whole = Group(same[0].service, same[0].backend, same[0].verdict, same[0].cause, same[0].example)
        for group in same:
            whole.merge(group)
        shown.append(whole)
    return shown
