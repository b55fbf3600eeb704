"""`trace`: the paths of real packets through a target."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import msgspec

from kubectl_genainet.context.context import Context
from kubectl_genainet.context.targets import Resolved, resolve, resolve_namespace
from kubectl_genainet.context.translations import Translations
from kubectl_genainet.errors import ExitStatus, InputError
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.events import AgentFailed, CheckConnectionResult, ClusterChanged, Event, PacketSeen
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.packet import ALL_KEPT
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.model.target import Target, TargetKind, parse_target, pod_named
from kubectl_genainet.run.as_used import AsUsed
from kubectl_genainet.run.lookups import is_lost_lookup, with_lookups
from kubectl_genainet.run.session import Watching, perform
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.target import HeldTarget
from kubectl_genainet.run.view import MakeView, TraceView
from kubectl_genainet.shell import command
from kubectl_genainet.trace.bypass import Bypass
from kubectl_genainet.trace.paths import PathCorrelator
from kubectl_genainet.trace.shown.filters import path_filter, unknown_end
from kubectl_genainet.trace.summary import SummaryBuilder, something_wrong
from kubectl_genainet.wire import CheckRequest, FilterEntry, TraceRequest

SETTLED_S = 2.5  # after a check connection's result, everything that it causes has settled


@dataclass(frozen=True, slots=True)
class CheckConnections:
    """Connections that the client pod opens to the target; with a `path` they carry HTTP GETs."""

    count: int = 3
    path: str = ""


@dataclass(frozen=True, slots=True)
class PathFilterTexts:
    """Which connections are told, as a command line says it: verdicts by name, ends as "deploy/NAME", "ns/NAME",
    "10.0.0.0/8" or "app=rag" (several are alternatives), and a selector for the pod at either end."""

    verdicts: tuple[str, ...] = ()
    clients: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    labels: str = ""


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """`from_pod` ("pod/NAME"): only this client's packets, and where `check` connections come from. `slow_s`: replies that
    begin later are slow. `http`: heads of clear HTTP/1.1 messages and numbers of clear HTTP/2 streams are read. `cpu_percent`
    of one core may be spent on following packets on each node. `only`: what other connections do is not told. `last`: of all
    connections only the last so many are."""

    from_pod: str = ""
    check: CheckConnections | None = None
    exact: bool = False
    timeout_s: float = 30.0
    node: str = ""
    record: str = ""
    slow_s: float = 1.0
    cpu_percent: float = 5.0
    http: bool = False
    last: int | None = None
    only: PathFilterTexts = field(default_factory=PathFilterTexts)


def trace(source: Source, target: Target | None, options: TraceOptions, make_view: MakeView[TraceView]) -> ExitStatus:
    """Tells the view the paths of the target's packets; without one, of the source's namespace, or of all.

    FOUND where something was dropped, refused or slow.

    Raises GenainetError, with what to do, for a target or a pod that does not exist and a source without packets.
    """
    run, watching = trace_run(source, target, options, make_view)
    return perform(run, source, watching)


def trace_run(
    source: Source,
    target: Target | None,
    options: TraceOptions,
    make_view: MakeView[TraceView],
    context: Context | None = None,
) -> tuple[TraceRun, Watching]:
    """The run, and how it watches. `context` may be shared with other runs over the same records."""
    if not source.live and (options.check is not None or options.exact):
        raise InputError(
            "--check and --exact need live nodes: a recording holds only what was seen then", hint="Leave them out."
        )
    snapshot = source.snapshot(whole=bool(options.record))
    resolved = _resolved(target, snapshot, source.scope_namespace if target is None else source.default_namespace)
    client = client_pod(options.from_pod, snapshot, resolved.namespace or source.default_namespace)
    request = TraceRequest(
        filters=resolved.filters,
        probes=("packet", "connections"),
        timeout_s=options.timeout_s,
        exact=options.exact,
        http=options.http,
        cpu_percent=options.cpu_percent,
        check=_check_request(options.check, resolved, snapshot, client),
    )
    name = str(resolved.target)
    view = make_view(name, live=source.live)
    for warning in resolved.warnings:
        view.warn(warning)
    watching = Watching(
        "trace",
        lambda node: _request_for(node, request, client),
        options.timeout_s,
        {"target": name, "timeout": options.timeout_s},
        node=options.node,
        nodes=frozenset({client.spec.node_name}) | resolved.nodes if client is not None else frozenset(),
        enough=lambda event: SETTLED_S if isinstance(event, CheckConnectionResult) else None,
        record=options.record,
    )
    held = HeldTarget(name, lambda now: _resolved(target, now, resolved.namespace), snapshot, view.warn)
    run = TraceRun(snapshot, held, client, view, options, source, context)
    run.further = watching_more(target, source)
    return run, watching


def watching_more(target: Target | None, source: Source) -> str:
    """The command that watches more of the same."""
    words = (str(target),) if target is not None else () if source.scope_namespace else ("-A",)
    return AsUsed(source.options).command(command("kubectl", "genainet", "diagnose", *words))


def _resolved(target: Target | None, snapshot: ClusterSnapshot, namespace: str) -> Resolved:
    if target is None:
        return resolve_namespace(namespace, snapshot)
    return with_lookups(resolve(target, snapshot, namespace), snapshot)


def client_pod(text: str, snapshot: ClusterSnapshot, namespace: str) -> Pod | None:
    """The pod that "pod/NAME" or "NAME" names; None for "". Raises InputError, with near matches, where there is none."""
    if not text:
        return None
    target = parse_target(text if "/" in text else f"pod/{text}")
    if target.kind is not TargetKind.POD:
        raise InputError(f"--from-pod takes a pod, not {text}")
    return pod_named(snapshot, target.namespace or namespace, target.name)


def _check_request(
    check: CheckConnections | None, resolved: Resolved, snapshot: ClusterSnapshot, client: Pod | None
) -> CheckRequest | None:
    if check is None:
        return None
    if client is None:
        candidates = [
            p for p in snapshot.pods if resolved.namespace in ("", p.metadata.namespace) and p.ips and not p.finished
        ]
        names = ", ".join(sorted(f"pod/{p.metadata.namespace}/{p.metadata.name}" for p in candidates)[:5])
        raise InputError(
            "--check needs --from-pod: where shall the connection come from?", hint=f"For example one of {names}."
        )
    if not client.ips:
        raise InputError(f"pod {client.metadata.name} has no address yet")
    client_ip, host, port = _check_addresses(resolved, snapshot, client)
    header = resolved.target.name if resolved.target.kind is TargetKind.SERVICE else ""
    return CheckRequest(
        from_ip=client_ip,
        host=host,
        port=port,
        path=check.path,
        host_header=header,
        count=check.count,
        name=_name_as_called(resolved, client),
    )


def _name_as_called(resolved: Resolved, client: Pod) -> str:
    """The Service's name as the client would spell it; "" for what has none."""
    if resolved.target.kind is not TargetKind.SERVICE:
        return ""
    name = resolved.target.name
    return name if client.metadata.namespace == resolved.namespace else f"{name}.{resolved.namespace}"


def _check_addresses(resolved: Resolved, snapshot: ClusterSnapshot, client: Pod) -> tuple[str, str, int]:
    """(the client's address, the target's address and port), of the first family that both have."""
    service = (
        snapshot.service(resolved.namespace, resolved.target.name)
        if resolved.target.kind is TargetKind.SERVICE
        else None
    )
    if resolved.target.kind is TargetKind.ADDRESS:
        addresses = {canonical_ip(resolved.target.name)}
    else:
        addresses = set(map(canonical_ip, service.cluster_ips)) if service else {ip for ip, _ in resolved.servers}
    usable = [e for e in resolved.filters if e.ip in addresses and e.port and e.protocol in ("", "TCP")]
    for client_ip in client.ips:
        for entry in usable:
            if (":" in entry.ip) == (":" in client_ip):
                return client_ip, entry.ip, entry.port
    raise InputError(
        f"{resolved.target} has no TCP address and port that pod {client.metadata.name} could connect to",
        hint="Name the port: TARGET:PORT." if not usable else "They have no address family in common.",
    )


def _request_for(node: str, request: TraceRequest, client: Pod | None) -> TraceRequest:
    """Only the node of the client pod opens connections."""
    here = client is not None and client.spec.node_name == node
    return request if here or request.check is None else msgspec.structs.replace(request, check=None)


class LastPaths:
    """The paths that began last, whatever the order in which they became known."""

    def __init__(self) -> None:
        self._heap: list[tuple[str, int, PacketPath]] = []
        self._added = 0

    def add(self, path: PacketPath, most: int) -> None:
        self._added += 1
        heapq.heappush(self._heap, (path.time, self._added, path))
        if len(self._heap) > most:
            heapq.heappop(self._heap)

    def in_order(self) -> list[PacketPath]:
        return [path for _, _, path in sorted(self._heap)]


class TraceRun:
    """Records in, paths to the view, an exit status out. `further` is the command that watches more."""

    further = ""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        target: HeldTarget[Resolved],
        client: Pod | None,
        view: TraceView,
        options: TraceOptions,
        source: Source,
        context: Context | None = None,
    ) -> None:
        self.target, self.client, self.view, self.only = target, client, view, path_filter(**asdict(options.only))
        self._options = options
        servers, slow_ns = set(target.current.servers), int(options.slow_s * 1e9)
        self.correlator = PathCorrelator(snapshot, servers, slow_ns=slow_ns, context=context)
        self._translations = Translations(self.correlator.context)
        self._followed = target.current
        view.open_streams = self.correlator.open_streams
        self._bypass = Bypass(self.correlator.context)
        self._as_used = AsUsed(source.options)
        self._lookup_failed = False  # of a check connection
        self._failed = False  # some node could not be watched, or not to the end
        self._not_shown = self._other_verdicts = 0  # how many the filters left out, and how many --verdict alone did
        self._most, self._last = options.last, LastPaths()
        self.summary = SummaryBuilder(target.name, self.correlator.identity.ready_endpoints)

    @property
    def filters(self) -> tuple[FilterEntry, ...]:
        return self._followed.filters

    def take(self, event: Event) -> None:
        if not isinstance(event, PacketSeen):  # of which most records are: they count as parts of their connections
            self._take_in(event)
        self._show(self.correlator.feed(event))
        if not isinstance(event, PacketSeen):
            self._tell_all(self._bypass.feed(event))
        if isinstance(event, RulesetDump):
            self._learn_translations(event)

    def _take_in(self, event: Event) -> None:
        self.summary.event(event)
        if isinstance(event, CheckConnectionResult) and event.lookup is not None and not event.lookup.addresses:
            self._lookup_failed = True
        self._failed = self._failed or isinstance(event, AgentFailed)
        if isinstance(event, ClusterChanged):
            self.target.update(event.snapshot)
            self._follow()
        self.view.event(event)

    def _learn_translations(self, dump: RulesetDump) -> None:
        target = self.target.current
        if target.pods:
            return  # of the Services in front of a pod only what reaches the pod itself is told
        self._translations.learn(dump, target.filters)
        self._follow()

    def _follow(self) -> None:
        """The target's addresses are others by now, or the nodes' rules send its packets elsewhere."""
        self._followed = self._translations.added_to(self.target.current)
        self.correlator.connections.servers = set(self._followed.servers)

    def _show(self, paths: Iterable[PacketPath]) -> None:
        for path in paths:
            if self._concerns(path):
                if self._most is None:
                    self._tell(path)
                else:
                    self._last.add(path, self._most)

    def _tell(self, path: PacketPath) -> None:
        self._tell_all(self._bypass.hold(path))

    def _tell_all(self, paths: Iterable[PacketPath]) -> None:
        for path in map(self._as_used.path, paths):
            self.summary.path(path)
            self.view.path(path)

    def _concerns(self, path: PacketPath) -> bool:
        if is_lost_lookup(path, self.target.current):
            return self._is_asked_for(path)
        if not self.target.current.concerns(path):
            return False
        if not self._is_asked_for(path):
            self._not_shown += 1
            self._other_verdicts += self._is_between(path)
            return False
        return True

    def _is_asked_for(self, path: PacketPath) -> bool:
        return self.only.has_verdict(path) and self._is_between(path)

    def _is_between(self, path: PacketPath) -> bool:
        client = path.flow.client
        if self.client is not None:
            only_client = self.client.metadata
            if (client.namespace, client.pod) != (only_client.namespace, only_client.name):
                return False
        return self.only.is_between(path, self.correlator.identity.snapshot)

    def finish(self, *, live: bool) -> ExitStatus:
        self._show(self.correlator.finish(self.summary.account.unfinished))
        for path in self._last.in_order():
            self._tell(path)
        self._tell_all(self._bypass.finish())
        summary = self.summary.build(
            self.correlator.identity,
            self.correlator.half_seen,
            self.correlator.left_out,
            round(ALL_KEPT / self.correlator.sampling.fewest),
            not_shown=self._not_shown,
            forgotten=self.correlator.forgotten,
        )
        self.view.finish(summary)
        if not summary.connections:
            self._tell_unknown_ends()
            if live and summary.nodes:
                self._tell_other_ports()
        if something_wrong(summary) or self._lookup_failed:
            return ExitStatus.FOUND
        if live and summary.nodes and self.further and not self._failed:
            self.view.note(
                f"nothing failed; answers of DNS servers, and drops of other flows, are watched by: {self.further}"
            )
        if summary.connections or self._other_verdicts:
            return ExitStatus.OK
        return ExitStatus.TIMED_OUT if live else ExitStatus.OK

    def _tell_unknown_ends(self) -> None:
        for text in (*self._options.only.clients, *self._options.only.servers):
            unknown = unknown_end(text, self.correlator.identity.snapshot)
            if unknown is not None:
                self.view.note(f"{unknown.message}. {unknown.hint}")

    def _tell_other_ports(self) -> None:
        """Nobody called a port that the Service has: who calls another is not followed, as packets to any port are too many."""
        target, resolved = self.target.current.target, self.target.current
        if target.kind is not TargetKind.SERVICE or target.port is not None:
            return
        watching = self._as_used.command(command("kubectl", "genainet", "drops", str(target)))
        service = self.correlator.identity.snapshot.service(resolved.namespace, target.name)
        ports = ", ".join(str(port.port) for port in service.spec.ports) if service is not None else ""
        self.view.note(
            f"only its own ports ({ports}) were followed; clients of a port that it does not have: {watching}"
        )
