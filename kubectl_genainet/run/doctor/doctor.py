"""`doctor`: the network of GenAI workloads, checked against everything that a source knows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from kubectl_genainet.bundle import Bundle
from kubectl_genainet.collector import collector_paused
from kubectl_genainet.context.unread import unread_kinds, unread_of
from kubectl_genainet.doctor.accept import Acceptance
from kubectl_genainet.doctor.check import Area, Check, Need
from kubectl_genainet.doctor.families.services.kube_proxy import MODE_FINDINGS
from kubectl_genainet.doctor.inputs import NO_FABRIC, NOTHING_MEASURED, DnsMeasurement, FabricMeasurement
from kubectl_genainet.doctor.nodes_rules import NodesRules
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.installed import Installed
from kubectl_genainet.doctor.objects.recognise import Override
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.predicates.kube_proxy import replaced
from kubectl_genainet.doctor.registry import chosen
from kubectl_genainet.doctor.report import Report, examine
from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import Event, PacketSighting
from kubectl_genainet.model.finding import Finding, counted
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.model.target import TargetKind, must_be_read, not_found, parse_target
from kubectl_genainet.run.as_used import AsUsed
from kubectl_genainet.run.doctor.measure import measure_dns, recorded_dns
from kubectl_genainet.run.fabric import begin_with_gpu_pods
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.view import Reporter
from kubectl_genainet.run.watch import seen_twice

MEASURED = frozenset({Need.DNS, Need.FABRIC})
MEASURE_S = 8.0  # longer than a resolver's 5 s, so that a query that was lost shows


class DoctorReporter(Reporter, Protocol):
    def advance(self, done: int, total: int, what: str) -> None:
        """So many checks of so many are done."""


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """`only`: the checks of these areas, and those of these names (empty: all). `measure_s`: how long to watch the cluster's
    DNS and the GPU pods' traffic with each other; 0 for not at all. `workloads` ("deploy/NAME=ROLE") are taken for the GenAI
    workloads instead of recognising them. `complete`: manifests are the whole cluster."""

    only: tuple[Area | str, ...] = ()
    acceptances: tuple[Acceptance, ...] = ()
    workloads: tuple[str, ...] = ()
    measure_s: float = MEASURE_S
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Examined:
    """The report, and what it is about. `unread`: kinds without which the checks did not see all that they were asked about."""

    report: Report
    snapshot: ClusterSnapshot
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Everything that the checks may look at."""

    snapshot: ClusterSnapshot
    reports: tuple[NodeReport, ...] = ()
    rules: NodesRules = field(default_factory=NodesRules)
    packets: tuple[PacketSighting, ...] = ()
    measured: DnsMeasurement = NOTHING_MEASURED
    fabric: FabricMeasurement = NO_FABRIC


def doctor(source: Source, options: DoctorOptions, reporter: DoctorReporter) -> Examined:
    """Runs the checks. Raises GenainetError for a namespace or a workload that does not exist."""
    with collector_paused():
        checks: Sequence[Check] = chosen(options.only)
        overrides = tuple(map(parse_override, options.workloads))
        measured = frozenset(n for c in checks for n in c.needs if isinstance(n, Need)) & MEASURED
        known = gather(source, options.measure_s, reporter, measured)
        cluster = Cluster(
            known.snapshot,
            reports=known.reports,
            rules=known.rules,
            packets=known.packets,
            measured=known.measured,
            fabric=known.fabric,
            namespace=source.judged_namespace,
            overrides=overrides,
            complete=options.complete,
        )
        _check_names(cluster)
        if refused := unread_kinds(cluster.snapshot, source.judged_namespace):
            reporter.warn(refused)
        report = examine(cluster, checks, acceptances=list(options.acceptances), progress=reporter.advance)
    used = AsUsed(source.options, watched=source.live)
    report = msgspec.structs.replace(report, findings=used.findings(report.findings))
    unread = unread_of(cluster.snapshot, source.judged_namespace)
    missed = {word for item in report.not_checked for word in item.reason.split()}  # "Pod could not be read: …"
    return Examined(report, cluster.snapshot, tuple(kind for kind in unread if kind in missed))


def gather(source: Source, seconds: float, reporter: Reporter, measured: frozenset[Need] = MEASURED) -> Knowledge:
    """Reads the source. Live, with agents, what is `measured` is watched for `seconds`; 0 for not at all."""
    reporter.say("reading the cluster's state")
    if source.recording is not None:
        return _recorded(source.recording)
    snapshot = source.snapshot(whole=True)
    if not source.live:
        return Knowledge(snapshot)
    if not snapshot.objects:
        must_be_read(snapshot, "Pod", source.judged_namespace)
    reporter.say("asking the agents")
    return _asked(source, snapshot, seconds, reporter, measured)


def _recorded(bundle: Bundle) -> Knowledge:
    return Knowledge(
        bundle.snapshot,
        _latest_reports(bundle.events),
        NodesRules(_first_rulesets(bundle.events)),
        tuple(e for e in bundle.events if isinstance(e, PacketSighting)),
        recorded_dns(bundle),
    )


def _latest_reports(events: Iterable[Event]) -> tuple[NodeReport, ...]:
    """A recording has several reports of a node: its counters and queues are those of the last."""
    return tuple({e.node: e for e in events if isinstance(e, NodeReport)}.values())


def _first_rulesets(events: Iterable[Event]) -> tuple[RulesetDump, ...]:
    """The rules of the moment that the snapshot is of: later ones would differ from it by what changed since."""
    first: dict[tuple[str, str], RulesetDump] = {}
    for event in events:
        if isinstance(event, RulesetDump):
            first.setdefault((event.node, event.source), event)
    return tuple(first.values())


def _asked(
    source: Source, snapshot: ClusterSnapshot, seconds: float, reporter: Reporter, measured: frozenset[Need]
) -> Knowledge:
    """What the agents tell; without agents only the objects, and the checks that need more say so."""

    def read() -> Knowledge:
        reports = tuple(source.node_reports(reporter.warn).values())
        dumps = (dump for of_node in source.rulesets(reporter.warn).values() for dump in of_node)
        return Knowledge(source.snapshot(whole=True), reports, NodesRules(dumps))

    def again() -> Knowledge:
        reporter.say("reading the nodes' rules again: they differ from the API")
        source.forget()
        return read()

    try:
        known = seen_twice(read(), again, _drift)
    except GenainetError as error:
        reporter.warn(f"what nodes know is not checked: {error.message}")
        return Knowledge(snapshot)
    dns = DnsMeasurement(absent="DNS was not measured (--measure 0)")
    fabric = FabricMeasurement(absent="by which way GPU pods talk was not measured (--measure 0)")
    if seconds and measured:
        dns, fabric = _measured(source, seconds, reporter, measured)
    return replace(known, measured=dns, fabric=fabric)


def _drift(known: Knowledge) -> tuple[Finding, ...]:
    """What the nodes' rules say otherwise than the API, where kube-proxy writes them."""
    if replaced(Installed(known.snapshot)):
        return ()
    return tuple(f for f in known.rules.drift(known.snapshot) if f.check not in MODE_FINDINGS)


def _measured(
    source: Source, seconds: float, reporter: Reporter, measured: frozenset[Need]
) -> tuple[DnsMeasurement, FabricMeasurement]:
    """DNS and the GPU pods' ways in the same time: the nodes' counters are read before and after DNS is watched."""
    fabric = FabricMeasurement(absent="no GPU pod runs on a node with an agent")
    begun = None
    try:
        begun = begin_with_gpu_pods(source, reporter.warn) if Need.FABRIC in measured else None
    except GenainetError as error:
        fabric = FabricMeasurement(absent=f"by which way GPU pods talk could not be measured: {error.message}")
    started = time.monotonic()
    dns = NOTHING_MEASURED
    if Need.DNS in measured:
        reporter.say(f"measuring DNS for {seconds:g} s")
        dns = measure_dns(source, seconds, reporter)
    if begun is not None:
        reporter.say(f"measuring by which way {counted(len(begun.members), 'GPU pod')} talk for {seconds:g} s")
        time.sleep(max(0.0, seconds - (time.monotonic() - started)))
        try:
            fabric = FabricMeasurement(begun.end(source, reporter.warn))
        except GenainetError as error:
            fabric = FabricMeasurement(absent=f"by which way GPU pods talk could not be measured: {error.message}")
    return dns, fabric


def parse_override(value: str) -> Override:
    """Reads KIND/NAME[=ROLE]. Raises InputError for what is no workload or no role."""
    name, _, role = value.partition("=")
    target = parse_target(name)
    if target.kind not in (TargetKind.WORKLOAD, TargetKind.POD) or target.port is not None:
        raise InputError(
            f"--workload {value}: not a workload",
            hint="Give deploy/NAME, sts/NAME, ds/NAME, job/NAME, pod/NAME or pod/NAMESPACE/NAME.",
        )
    roles = {r.value: r for r in Role if r is not Role.UNKNOWN}
    if role and role not in roles:
        raise InputError(f"--workload {value}: there is no role {role!r}", hint="Roles are " + ", ".join(roles) + ".")
    return Override(target.name, roles[role] if role else Role.MODEL_SERVER, target.api_kind, target.namespace)


def _check_names(cluster: Cluster) -> None:
    """Raises InputError for a workload or a namespace that does not exist, where that can be told."""
    for override in cluster.overrides:
        if not any(override.matches(w.ref) for w in cluster.workloads):
            known = (w.name for w in cluster.workloads if override.kind in ("", w.ref.kind))
            raise not_found("workload", override.name, known, namespace=override.namespace)
    named = {n.name for n in cluster.snapshot.of("Namespace", "")}
    if cluster.namespace and named and not cluster.missing("Namespace"):
        used = {o.namespace for o in cluster.snapshot.objects}
        if cluster.namespace not in named | used:
            raise not_found("namespace", cluster.namespace, named | used - {""})
