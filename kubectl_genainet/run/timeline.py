"""`timeline`: what was felt and what changed over a time that was recorded, and when it began."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from kubectl_genainet.bundle import Bundle
from kubectl_genainet.context.account import warning_of
from kubectl_genainet.context.identity import workload_of
from kubectl_genainet.context.targets import resolve, resolve_namespace
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.errors import ExitStatus, GenainetError, InputError
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.events import (
    ClusterChanged,
    DropCount,
    Event,
    Hello,
    PacketDropped,
    Progress,
    Tick,
)
from kubectl_genainet.model.history import BUCKET_S, Bucket, ChangeOf, Gap, NodeChange, ObjectChanged
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.model.results.timeline import SeriesName, Timeline
from kubectl_genainet.model.target import Target
from kubectl_genainet.model.units import rfc3339
from kubectl_genainet.run.collect import DnsCollector, TraceCollector
from kubectl_genainet.run.dns import DnsOptions, dns
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.recorded import HISTORY
from kubectl_genainet.run.trace import TraceOptions, trace
from kubectl_genainet.run.view import Reporter
from kubectl_genainet.timeline import build
from kubectl_genainet.timeline.changes import Changes
from kubectl_genainet.timeline.circle import Circle
from kubectl_genainet.timeline.series import Buckets, SeriesBuilder, is_loss

_DAY_NS = 86_400 * 1_000_000_000
LONGEST_NS = 31 * _DAY_NS
# Of a longer time the recorders' totals are read, and no single packets: those of an hour take a minute of CPU.
DETAILED_NS = 900 * 1_000_000_000
_TOTALS_ONLY = (
    f"longer than {DETAILED_NS // 60_000_000_000} min: the recorders' totals, in which a connection that nobody answers fails "
    "when its client gives it up"
)
_READS = "changes"  # what of a recording is read beside the packets and the queries
_WITHOUT_DROPS = "dns"  # the command whose bundles have no drops


def timeline(source: Source, target: Target | None, reporter: Reporter) -> Timeline:
    """Of the target, without one of the source's namespace (or of all).

    Raises GenainetError for a target that was not there, and for a source that is no recording.
    """
    bundle = source.replayed(_READS, ())
    if bundle is None:
        raise GenainetError(
            f"{source} is not the past: a timeline needs a recording",
            hint="Say when (--since 6h, with agents that record), or --from BUNDLE.",
        )
    clock = _Clock.of(bundle)
    members = _Members(source, target)
    members.learn(source.snapshot(whole=True))
    for event in bundle.events:
        if isinstance(event, ClusterChanged):
            members.learn(event.snapshot)
    if clock.until_ns - clock.since_ns > DETAILED_NS and any(isinstance(event, Bucket) for event in bundle.events):
        watched = _Watched.as_totals(bundle, reporter)
    else:
        watched = _Watched.of(source, target, reporter)
    if bundle.header.command == _WITHOUT_DROPS:
        watched.missing("drops", f"the bundle was recorded by `{_WITHOUT_DROPS}`", SeriesName.DROPS)
    members.called_by(_clients_seen(bundle, watched.paths, members))
    grid = Buckets.of(clock.since_ns, clock.until_ns)
    felt = SeriesBuilder(grid, members.concerns)
    for path in watched.paths:
        if (at_ns := _wall(path.time)) is not None:
            felt.path(at_ns, path)
    for exchange in watched.exchanges:
        if (at_ns := _wall(exchange.time)) is not None and members.asks(exchange.client.ip):
            felt.exchange(at_ns, exchange)
    reading = _Reading(bundle, clock, grid, felt, members)
    reading.read()
    named = (
        str(target) if target else f"namespace {source.scope_namespace}" if source.scope_namespace else "the cluster"
    )
    unread = () if felt.has_totals else watched.unread
    changes, gaps = reading.changes.noted, reading.gaps
    return build.timeline(
        named, grid, felt.series(unread), changes, members.circle, gaps, (*watched.notes, *felt.notes)
    )


def timeline_of_recording(source: Source, target: Target | None, reporter: Reporter) -> Timeline | None:
    """Where the source is a range that recorders kept; None for others. Raises GenainetError as `timeline` does."""
    header = source.recorded_header
    return timeline(source, target, reporter) if header is not None and header.command == HISTORY else None


def _clients_seen(bundle: Bundle, paths: Iterable[PacketPath], members: _Members) -> set[str]:
    totals = (sums for event in bundle.events if isinstance(event, Bucket) for sums in event.connections)
    return {path.flow.client.ip for path in paths} | {sums.client for sums in totals if members.has(sums.server)}


def status_of(result: Timeline) -> ExitStatus:
    """FOUND where something became worse; TIMED_OUT where nothing at all is known."""
    if result.onsets:
        return ExitStatus.FOUND
    is_known = any(value is not None for series in result.series for value in series.values)
    return ExitStatus.OK if is_known or result.changes else ExitStatus.TIMED_OUT


@dataclass(slots=True)
class _Watched:
    """What the verbs make of the recording. `unread` are series whose records it does not have; `notes` say why."""

    paths: list[PacketPath] = field(default_factory=list)
    exchanges: list[DnsExchange] = field(default_factory=list)
    unread: list[SeriesName] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, source: Source, target: Target | None, reporter: Reporter) -> _Watched:
        watched = cls()
        packets, queries = TraceCollector(), DnsCollector()
        try:
            trace(source, target, TraceOptions(), packets.for_target)
            watched.paths = packets.paths
        except InputError:
            raise
        except GenainetError as error:
            watched.missing("packets", error.message, SeriesName.FAILURES, SeriesName.LATENCY, SeriesName.STALLS)
        try:
            dns(source, None, DnsOptions(), queries.for_target)
            watched.exchanges = queries.exchanges
        except GenainetError as error:
            watched.missing("name lookups", error.message, SeriesName.DNS)
        for warning in dict.fromkeys((*packets.warnings, *queries.warnings)):
            reporter.warn(warning)
        return watched

    @classmethod
    def as_totals(cls, bundle: Bundle, reporter: Reporter) -> _Watched:
        """Nothing but what limits the recording."""
        for warning in dict.fromkeys(filter(None, map(warning_of, bundle.events))):
            reporter.warn(warning)
        return cls(notes=[_TOTALS_ONLY])

    def missing(self, what: str, why: str, *series: SeriesName) -> None:
        self.unread += series
        self.notes.append(f"{what} are not in it: {why}")


@dataclass(slots=True)
class _Clock:
    """The nodes' clocks as wall-clock time, and the time that the recording stands for."""

    since_ns: int
    until_ns: int
    ahead: dict[str, int]

    @classmethod
    def of(cls, bundle: Bundle) -> _Clock:
        """Raises GenainetError where no record has a time, and where the times are further apart than a timeline is long."""
        ahead: dict[str, int] = {}
        times: list[int] = []
        for event in bundle.events:
            if isinstance(event, Hello):
                ahead[event.node] = event.realtime_ns - event.t_ns
            node, t_ns = getattr(event, "node", ""), getattr(event, "t_ns", 0)
            if isinstance(event, Progress | Tick) and t_ns and node in ahead:
                times.append(t_ns + ahead[node])
        arguments = bundle.header.arguments
        since, until = _wall(str(arguments.get("since", ""))), _wall(str(arguments.get("until", "")))
        if since is None or until is None:
            if not times:
                raise GenainetError("no record of the recording has a wall-clock time", hint="Record it anew.")
            since, until = min(times), max(times)
        if until - since > LONGEST_NS:
            raise GenainetError(
                f"the recording goes from {rfc3339(since)} to {rfc3339(until)}: "
                f"a timeline shows {LONGEST_NS // _DAY_NS} days at most",
                hint="Ask for a shorter time. A bundle whose times are so far apart is damaged.",
            )
        return cls(since, max(until, since + BUCKET_S * 1_000_000_000), ahead)

    def wall(self, event: Event) -> int | None:
        node, t_ns = getattr(event, "node", ""), getattr(event, "t_ns", 0)
        return t_ns + self.ahead[node] if t_ns and node in self.ahead else None


class _Members:
    """The target's addresses and names over the whole time: what came and went in it belongs to it all the time."""

    def __init__(self, source: Source, target: Target | None) -> None:
        self._source, self._target = source, target
        self._addresses: set[str] = set()
        self._clients: set[str] = set()
        self._pods: dict[str, Pod] = {}
        self._found = False
        scope = source.scope_namespace
        self.circle = Circle(everything=target is None, namespaces={scope} if target is None and scope else set())

    def learn(self, snapshot: ClusterSnapshot) -> None:
        """Raises InputError where the target does not exist in the first snapshot, nor in this one."""
        self._pods |= {canonical_ip(ip): pod for pod in snapshot.pods for ip in pod.ips if not pod.spec.host_network}
        try:
            self._learn(snapshot)
            self._found = True
        except InputError:
            if not self._found:
                raise

    def _learn(self, snapshot: ClusterSnapshot) -> None:
        if self._target is None:
            scope = self._source.scope_namespace
            filters = resolve_namespace(scope, snapshot).filters if scope else ()
        else:
            filters = resolve(self._target, snapshot, self._source.default_namespace).filters
        addresses = {entry.ip for entry in filters}
        if self._target is None and not self._source.scope_namespace:
            addresses = set(self._pods)
        self._addresses |= addresses
        circle = self.circle
        for service in snapshot.services:
            if addresses & set(map(canonical_ip, service.cluster_ips)):
                circle.services.add(f"{service.metadata.namespace}/{service.metadata.name}")
                if self._target is not None:
                    circle.namespaces.add(service.metadata.namespace)
        for ip in addresses & self._pods.keys():
            self._belongs(self._pods[ip], circle.workloads, "a backend")
            if self._target is not None:
                circle.namespaces.add(self._pods[ip].metadata.namespace)
        for call in Cluster(snapshot).calls:
            if call.service is not None and f"{call.service.ref.namespace}/{call.service.ref.name}" in circle.services:
                circle.callers.add(f"{call.client.namespace}/{call.client.ref.name}")

    def _belongs(self, pod: Pod, workloads: set[str], whose: str) -> None:
        workloads.add(f"{pod.metadata.namespace}/{workload_of(pod) or pod.metadata.name}")
        self.circle.pods.add(f"{pod.metadata.namespace}/{pod.metadata.name}")
        if pod.spec.node_name:
            self.circle.nodes.setdefault(pod.spec.node_name, whose)

    def called_by(self, clients: Iterable[str]) -> None:
        """`clients` are the addresses that connections to the target came from."""
        for ip in clients:
            pod = self._pods.get(ip)
            if pod is not None:
                self._belongs(pod, self.circle.callers, "a caller")
        for ip, pod in self._pods.items():
            if f"{pod.metadata.namespace}/{workload_of(pod) or pod.metadata.name}" in self.circle.callers:
                self._clients.add(ip)

    def has(self, ip: str) -> bool:
        return ip in self._addresses

    def concerns(self, src: str, dst: str) -> bool:
        """Whether traffic is of the target; without a destination: whether a client's name lookups are felt by it."""
        if not dst:
            return self.asks(src)
        return src in self._addresses or dst in self._addresses

    def asks(self, client: str) -> bool:
        return client in self._addresses or client in self._clients


class _Reading:
    """One pass over the records: totals, drops, what was watched and what changed."""

    def __init__(self, bundle: Bundle, clock: _Clock, grid: Buckets, felt: SeriesBuilder, members: _Members) -> None:
        self._bundle, self._clock, self._grid, self._felt, self._members = bundle, clock, grid, felt, members
        self._attached: dict[str, int] = {}
        self._last_ns = clock.since_ns
        self._are_counted = any(isinstance(event, DropCount | Bucket) for event in bundle.events)
        self._are_rules_told = any(isinstance(e, NodeChange) and e.what is ChangeOf.RULES for e in bundle.events)
        self.changes = Changes(o.raw for o in bundle.snapshot.objects)
        self.gaps: list[Gap] = []

    def read(self) -> None:
        for event in self._bundle.events:
            at_ns = self._clock.wall(event)
            self._last_ns = at_ns or self._last_ns
            self._take(event, at_ns if at_ns is not None else self._last_ns)
        for began_ns in self._attached.values():
            self._grid.cover(began_ns, self._clock.until_ns)

    def _take(self, event: Event, at_ns: int) -> None:
        match event:
            case Bucket():
                self._felt.bucket(event)
            case Gap():
                self.gaps.append(event)
            case NodeChange():
                self.changes.node_changed(event)
            case ObjectChanged():
                self.changes.object_changed(event)
            case ClusterChanged():
                taken_ns = _wall(event.taken_at)
                self.changes.all_objects(taken_ns if taken_ns is not None else at_ns, event.objects)
            case RulesetDump() if not self._are_rules_told:
                self.changes.rules(at_ns, event)
            case DropCount():
                self._drop(event.reason, event.location, event.flow, at_ns, event.packets, opening=event.opening)
            case PacketDropped() if not self._are_counted:
                opening = event.tcp is not None and event.tcp.syn
                self._drop(event.reason, event.location, event.flow, at_ns, 1, opening=opening)
            case Progress(stage="attached"):
                self._attached.setdefault(event.node, at_ns)
            case Progress(stage="detached"):
                self._grid.cover(self._attached.pop(event.node, at_ns), at_ns)
            case _:
                pass

    def _drop(self, reason: str, location: str, flow: FiveTuple, at_ns: int, packets: int, *, opening: bool) -> None:
        if is_loss(reason, location, flow.dst, opening=opening) and self._members.concerns(flow.src, flow.dst):
            self._felt.drop(at_ns, packets)


def _wall(text: str) -> int | None:
    """An RFC 3339 time in ns since 1970; None for what is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(moment.timestamp() * 1_000_000) * 1000 if moment.tzinfo is not None else None
