"""What the parts of a `diagnose` run saw, as ranked causes and what else was looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from kubectl_genainet.context.account import gap_text
from kubectl_genainet.context.context import Context
from kubectl_genainet.context.identity import workload_of
from kubectl_genainet.context.targets import resolve
from kubectl_genainet.diagnose.causes import Gathering
from kubectl_genainet.diagnose.checked import Watched, checked, drift_of
from kubectl_genainet.diagnose.endpoints import without_endpoints
from kubectl_genainet.diagnose.felt import (
    DNS_PORT,
    is_lookup,
    name_of,
    of_drift,
    of_exchange,
    of_finding,
    of_path,
    of_row,
)
from kubectl_genainet.diagnose.reach import reach_of
from kubectl_genainet.diagnose.timeline import TimelineBuilder
from kubectl_genainet.diagnose.watchtime import WatchTime
from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.diagnoses.connections import EARLY_END, PINNED_CONNECTION, SLOW_BACKEND
from kubectl_genainet.model.diagnoses.dns import DNS_DROPPED, DNS_NDOTS_WASTE, DNS_NXDOMAIN_STORM, DNS_POLICY
from kubectl_genainet.model.events import ClusterChanged, Event, Hello
from kubectl_genainet.model.finding import Finding, ObjectRef
from kubectl_genainet.model.kube import Service
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.results.diagnosis import Activity, Conclusion
from kubectl_genainet.model.results.drops import DropRow
from kubectl_genainet.model.results.exchange import DnsExchange, QueryOutcome
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.model.target import Target, TargetKind
from kubectl_genainet.run.diagnose.next_steps import next_steps
from kubectl_genainet.run.diagnose.watching import MAX_KEPT, Collected
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.target import HeldTarget
from kubectl_genainet.trace.shown.groups import FAILED
from kubectl_genainet.trace.summary import forgotten_text

HABITS = frozenset({DNS_NDOTS_WASTE.name, DNS_NXDOMAIN_STORM.name})
RULES_READ_S = 20.0  # agents read their node's rules every 15 s, and say nothing where they are as before
COSTLY_PER_S = 20  # NXDOMAIN responses to one client from which its habits are a fault, and not only worth knowing
# findings over queries whose drop was seen: the drops say more
_COVERED = frozenset({DNS_POLICY.name, DNS_DROPPED.name})

_OF_SEVERAL_PATHS = {SLOW_BACKEND.name, PINNED_CONNECTION.name, EARLY_END.name}  # the others are of single ones


class DiagnosedTarget:
    """What a run was asked about, while the cluster's objects change below it."""

    def __init__(
        self, name: str, target: Target | None, held: HeldTarget[OfTarget], just_changed: Mapping[str, int]
    ) -> None:
        """`just_changed`: as Source.endpoints_just_changed has them."""
        self.name, self.target, self.held = name, target, held
        names = (f"{s.metadata.namespace}/{s.metadata.name}" for s in held.current.services)
        # When the Services' endpoints last changed, in seconds since 1970; 0: not seen.
        self._changed_s = max((just_changed.get(service, 0) for service in names), default=0) / 1e9
        self._read_since: set[str] = set()  # nodes that told new rules after that
        self._nodes: set[str] = set()

    def before(self, event: Event, known: ClusterSnapshot) -> None:
        """Looks at a record before others learn it; `known` are the objects until now."""
        match event:
            case ClusterChanged(taken_at=at):
                services = self.held.current.services
                if at and _sent_to(services, known) != _sent_to(services, event.snapshot):
                    self._changed_s, self._read_since = datetime.fromisoformat(at).timestamp(), set()
            case RulesetDump(node=node):
                self._read_since.add(node)
            case _:
                pass

    def learn(self, event: Event) -> None:
        match event:
            case ClusterChanged(snapshot=snapshot):
                self.held.update(snapshot)
            case Hello(node=node):
                self._nodes.add(node)
            case _:
                pass

    def drift(self, context: Context, watch: WatchTime) -> tuple[Finding, ...]:
        """What the nodes' rules, as far as they were read since, do otherwise than the API says."""
        unread = self.unread(self._nodes, watch)
        nodes = [node for node in sorted(self._nodes) if node not in unread]
        return drift_of(context, nodes, self.held.current.services)

    def unread(self, nodes: Iterable[str], watch: WatchTime) -> tuple[str, ...]:
        """Those whose rules may not have been read since the Services' endpoints changed: they tell nothing of a lag."""
        if not self._changed_s or watch.began_s is None:
            return ()
        if watch.began_s + watch.seconds - self._changed_s > RULES_READ_S:
            return ()
        return tuple(node for node in nodes if node not in self._read_since)


def _sent_to(services: Iterable[Service], snapshot: ClusterSnapshot) -> list[object]:
    """Where the Services' connections go."""
    now = [snapshot.service(service.metadata.namespace, service.metadata.name) for service in services]
    return [[(p.port, snapshot.backends(s, p)) for p in s.spec.ports] if s is not None else None for s in now]


def conclude(
    asked: DiagnosedTarget, collected: Collected, context: Context, watch: WatchTime, drift: tuple[Finding, ...]
) -> Conclusion:
    """What was seen, as ranked causes and what else was looked at. `drift` is what `asked.drift` found."""
    about = _about(context, asked, collected)
    queries = [e for e in collected.exchanges if not e.upstream and (about.all or name_of(e.client) in about.asking)]
    gathering = Gathering()
    _gather_packets(gathering, collected, about, watch)
    habits = _gather_dns(gathering, queries, collected, context, watch)
    unready = without_endpoints(context.identity.snapshot, about.services, _wanted(asked, collected, context))
    for finding in (*drift, *unready):
        gathering.add(of_drift(finding))
    causes = gathering.causes()
    connections = [path for path in collected.paths if not is_lookup(path)]
    watched = _watched(asked, about, collected, queries, context, watch, drift)
    snapshot = context.identity.snapshot
    return Conclusion(
        target=asked.name,
        began=watch.began,
        seconds=round(watch.seconds, 1),
        connections=len(connections),
        failed=sum(path.verdict in FAILED for path in connections),
        queries=None if "dns" in collected.failures else watched.queries,
        causes=causes,
        checked=checked(watched, causes),
        notes=(*habits, *notes(about.callers, queries, collected, gathering.forgotten)),
        callers=about.callers,
        next=tuple(next_steps(causes, asked.target, about.services, snapshot, seen=bool(collected.paths))),
        nodes=watched.nodes,
        silent_nodes=watched.silent_nodes,
        lost=watched.lost,
        timeline=_timeline(collected, connections, queries, watch),
    )


def _watched(
    asked: DiagnosedTarget,
    about: _About,
    collected: Collected,
    queries: list[DnsExchange],
    context: Context,
    watch: WatchTime,
    drift: tuple[Finding, ...],
) -> Watched:
    summary = collected.trace or collected.drops or collected.dns
    nodes = summary.nodes if summary else ()
    return Watched(
        context,
        about.services,
        nodes=nodes,
        silent_nodes=summary.silent_nodes if summary else (),
        lost=summary.events.get("lost") if summary else None,
        reach=reach_of(path for path in collected.paths if not is_lookup(path)),
        queries=len(queries),
        unanswered=sum(query.outcome is QueryOutcome.TIMEOUT for query in queries),
        failures=collected.failures,
        drift=drift,
        gaps=tuple(collected.gaps),
        failed_nodes=tuple(sorted(collected.failed_nodes)),
        unread=asked.unread(nodes, watch),
    )


def _wanted(asked: DiagnosedTarget, collected: Collected, context: Context) -> frozenset[ObjectRef]:
    """The Services that the run was asked about, that pods are configured to call, or that packets were sent to."""
    called = (path.flow.service for path in collected.paths)
    return frozenset(
        (
            *(service.ref for service in asked.held.current.services if asked.target is not None),
            *(call.service.ref for call in Cluster(context.identity.snapshot).calls if call.service is not None),
            *(ObjectRef("Service", ref.name, ref.namespace) for ref in called if ref is not None),
        )
    )


def _timeline(
    collected: Collected, connections: list[PacketPath], queries: list[DnsExchange], watch: WatchTime
) -> Activity | None:
    builder = TimelineBuilder()
    for path in connections:
        builder.path(path)
    for exchange in queries:
        builder.exchange(exchange)
    if collected.drops is not None:
        builder.counted(collected.drops.timeline)
    return builder.build(watch)


@dataclass(frozen=True, slots=True)
class _About:
    """Whom a run is about: everybody, or the target's own pods and Services (by `name_of`) and who calls them."""

    all: bool
    services: tuple[Service, ...]
    own: frozenset[str]
    callers: dict[str, int]

    @property
    def asking(self) -> frozenset[str]:
        return self.own | self.callers.keys()

    def concerns(self, row: DropRow) -> bool:
        """Whether a row is about the target, or a caller's name lookup; a row without ends is a node's, and concerns all."""
        if self.all or (row.client is None and row.server is None):
            return True
        service = f"{row.service.namespace}/{row.service.name}" if row.service else ""
        client = name_of(row.client)
        if {client, name_of(row.server), service} & self.own:
            return True
        return client in self.callers and row.server is not None and row.server.port == DNS_PORT


def _about(context: Context, asked: DiagnosedTarget, collected: Collected) -> _About:
    services, pods = asked.held.current.services, asked.held.current.pods
    own = pods | {name_of(path.backend) for path in collected.paths if path.backend}
    own |= {f"{s.metadata.namespace}/{s.metadata.name}" for s in services}
    callers = _callers(context.identity.snapshot, services, collected.paths)
    return _About(asked.target is None, services, frozenset(own), callers)


def _gather_packets(gathering: Gathering, collected: Collected, about: _About, watch: WatchTime) -> None:
    for path in collected.paths:
        for felt in of_path(path):
            gathering.add(felt, watch.at(path.time))
    for row in collected.rows:
        felt_row = of_row(row)
        if felt_row is not None and about.concerns(row):
            gathering.add(felt_row, watch.at(row.time))
    for finding in collected.trace.findings if collected.trace is not None else ():
        if finding.check in _OF_SEVERAL_PATHS:
            gathering.add(of_finding(finding))


def _gather_dns(
    gathering: Gathering, queries: list[DnsExchange], collected: Collected, context: Context, watch: WatchTime
) -> list[str]:
    """Adds what is wrong with name lookup, client by client. Returns habits that cost too little to be felt."""
    habits: list[str] = []
    by_client: dict[str, list[DnsExchange]] = defaultdict(list)
    for exchange in queries:
        by_client[name_of(exchange.client)].append(exchange)
        felt = of_exchange(exchange)
        if felt is not None:
            gathering.add(felt, watch.at(exchange.time))
    upstream = [e for e in collected.exchanges if e.upstream]  # the servers' own queries: their time is the clients'
    for client, asked in by_client.items():
        builder = DnsSummaryBuilder("", context.identity, {})
        for exchange in (*asked, *upstream):
            builder.exchange(exchange)
        missing = sum(e.rcode == "NXDOMAIN" for e in asked)
        span_s = max(1.0, (max(e.t_ns for e in asked) - min(e.t_ns for e in asked)) / 1e9)
        for finding in builder.findings():
            if finding.check in HABITS and missing < COSTLY_PER_S * span_s:
                habits.append(finding.title)
            elif finding.check not in _COVERED:
                gathering.add(of_finding(finding, client=client))
    return habits


@dataclass(frozen=True, slots=True)
class OfTarget:
    """The target's Services (without a target: those of the namespace), and its pods by the names of `name_of`."""

    services: tuple[Service, ...]
    pods: frozenset[str]


def of_target(snapshot: ClusterSnapshot, target: Target | None, source: Source) -> OfTarget:
    """Raises InputError for a target that does not exist."""
    if target is None:
        namespace = source.scope_namespace
        return OfTarget(
            tuple(s for s in snapshot.services if not namespace or s.metadata.namespace == namespace), frozenset()
        )
    addresses = {ip for ip, _ in resolve(target, snapshot, source.default_namespace).servers}
    service = (
        snapshot.service(target.namespace or source.default_namespace, target.name)
        if target.kind is TargetKind.SERVICE
        else None
    )
    pods = frozenset(
        f"{pod.metadata.namespace}/{workload_of(pod) or pod.metadata.name}"
        for pod in snapshot.pods
        if target.kind is not TargetKind.ADDRESS and addresses & set(pod.ips)
    )
    return OfTarget((service,) if service is not None else (), pods)


def _callers(snapshot: ClusterSnapshot, services: tuple[Service, ...], paths: list[PacketPath]) -> dict[str, int]:
    """Who calls the Services: workloads configured to, and those whose packets were seen, with their connections."""
    refs = {service.ref for service in services}
    callers = {
        f"{call.client.namespace}/{call.client.ref.name}": 0
        for call in Cluster(snapshot).calls
        if call.service is not None and call.service.ref in refs
    }
    for path in paths:
        name = name_of(path.flow.client)
        callers[name] = callers.get(name, 0) + (not is_lookup(path))
    return callers


def notes(callers: dict[str, int], queries: list[DnsExchange], collected: Collected, forgotten: int) -> Iterator[str]:
    """What limits the answer. That a client called nobody is said only where all nodes were watched all the time."""
    for gap in dict.fromkeys(collected.gaps):
        yield gap_text(gap)
    asked = {name_of(query.client) for query in queries}
    has_holes = bool(collected.failed_nodes) or any(gap.node for gap in collected.gaps)
    for name in (name for name, connections in callers.items() if not connections):
        if has_holes:
            yield f"{name} is configured to call the target: none of its connections was seen, and not all was watched"
            continue
        looked = "it asked DNS for names" if name in asked else "it asked DNS for nothing either"
        yield f"{name} is configured to call the target and did not connect to it; {looked}"
    if forgotten:
        yield f"{forgotten} more things that went wrong found no room among the causes"
    if collected.trace is not None and collected.trace.forgotten:
        yield forgotten_text(collected.trace.forgotten)
    if collected.not_kept:
        yield f"{collected.not_kept} paths and queries beyond the first {MAX_KEPT} were not kept"
