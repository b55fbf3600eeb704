"""The library: what other Python programs import. docs/library.md shows how.

A function a verb: it runs over a Source, returns when the run is over, and prints nothing. What went wrong in the cluster is
in the result; what limits the result is in its `warnings`; GenainetError says why there is none, and what to do.

Public are the names of `__all__` and the fields of the values that they return, under semantic versioning: a release that
removes or changes one has a new major version (before 1.0 a new minor version). Everything else may change any time.
"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from kubectl_genainet import __version__
from kubectl_genainet.api.results import (
    DiagnoseResult,
    DnsResult,
    DoctorResult,
    DropsResult,
    ExplainedFlow,
    FabricResult,
    RulesResult,
    TimelineResult,
    TraceResult,
)
from kubectl_genainet.doctor.accept import parse_ignore
from kubectl_genainet.doctor.check import Area
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import Report
from kubectl_genainet.errors import ExitStatus, GenainetError, InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, NotChecked, ObjectRef, Severity
from kubectl_genainet.model.results.diagnosis import Cause, Conclusion
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.model.results.drops import DropRow, DropSummary
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.fabric import FabricSummary
from kubectl_genainet.model.results.path import Drop, PacketPath, Verdict
from kubectl_genainet.model.results.timeline import Timeline
from kubectl_genainet.model.results.trace import TraceSummary
from kubectl_genainet.model.target import Target, not_found, parse_target
from kubectl_genainet.policy import Explanation, Patch
from kubectl_genainet.policy.reach.grid import Grid
from kubectl_genainet.proxy.report import RulesReport, RulesRow
from kubectl_genainet.run.collect import (
    DiagnoseCollector,
    DnsCollector,
    DoctorCollector,
    DropsCollector,
    Quiet,
    TraceCollector,
)
from kubectl_genainet.run.diagnose.diagnose import DiagnoseOptions, status_of
from kubectl_genainet.run.diagnose.diagnose import diagnose as run_diagnose
from kubectl_genainet.run.dns import DnsOptions
from kubectl_genainet.run.dns import dns as run_dns
from kubectl_genainet.run.doctor.doctor import DoctorOptions
from kubectl_genainet.run.doctor.doctor import doctor as run_doctor
from kubectl_genainet.run.drops import DropsOptions
from kubectl_genainet.run.drops import drops as run_drops
from kubectl_genainet.run.fabric import FabricOptions
from kubectl_genainet.run.fabric import fabric as run_fabric
from kubectl_genainet.run.fabric import status_of as fabric_status
from kubectl_genainet.run.policies.explain import FlowsBetween
from kubectl_genainet.run.policies.matrix import MatrixOptions
from kubectl_genainet.run.policies.matrix import matrix as run_matrix
from kubectl_genainet.run.rules import RulesOptions
from kubectl_genainet.run.rules import rules as run_rules
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.run.sources.clickhouse import ClickHouseSource
from kubectl_genainet.run.sources.cluster import ClusterSource
from kubectl_genainet.run.sources.history import TimeRange
from kubectl_genainet.run.sources.lab import LabSource
from kubectl_genainet.run.sources.manifests import ManifestsSource
from kubectl_genainet.run.sources.past import past_of
from kubectl_genainet.run.timeline import status_of as timeline_status
from kubectl_genainet.run.timeline import timeline as run_timeline
from kubectl_genainet.run.trace import CheckConnections, TraceOptions
from kubectl_genainet.run.trace import trace as run_trace

__all__ = [
    "BundleSource",
    "Cause",
    "Certainty",
    "CheckConnections",
    "ClickHouseSource",
    "ClusterSnapshot",
    "ClusterSource",
    "Conclusion",
    "DiagnoseResult",
    "DnsExchange",
    "DnsResult",
    "DnsSummary",
    "DoctorResult",
    "Drop",
    "DropRow",
    "DropSummary",
    "DropsResult",
    "Evidence",
    "ExplainedFlow",
    "Explanation",
    "FabricResult",
    "FabricSummary",
    "Finding",
    "GenainetError",
    "Grid",
    "InputError",
    "LabSource",
    "ManifestsSource",
    "NotChecked",
    "ObjectRef",
    "PacketPath",
    "Patch",
    "Report",
    "RulesReport",
    "RulesResult",
    "RulesRow",
    "Severity",
    "Source",
    "Timeline",
    "TimelineResult",
    "TraceResult",
    "TraceSummary",
    "Verdict",
    "__version__",
    "diagnose",
    "dns",
    "doctor",
    "drops",
    "explain",
    "fabric",
    "matrix",
    "past",
    "replay",
    "rules",
    "timeline",
    "trace",
]


_LONGEST_S, _PROTOCOLS = 3600, ("TCP", "UDP", "SCTP")


def past(source: Source, since: datetime, until: datetime) -> Source:
    """The source as its recorders kept it between two moments, for `trace`, `drops`, `dns`, `rules`, `explain`, `diagnose` and
    `timeline`. What limits it as a whole, such as objects that were not recorded, is a Python warning.

    Raises InputError for moments without a time zone, and for a source without recorders.
    """
    if since.tzinfo is None or until.tzinfo is None or since >= until:
        raise InputError("`since` and `until` need a time zone, and `since` is the earlier one")
    since_ns, until_ns = (int(moment.timestamp() * 1e6) * 1000 for moment in (since, until))
    return past_of(source, TimeRange(since_ns, until_ns), lambda text: python_warnings.warn(text, stacklevel=2))


def timeline(source: Source, target: str = "") -> TimelineResult:
    """What was felt and what changed over the time of `source`: a bundle, a ClickHouseSource, or what `past` gives."""
    heard = Quiet()
    result = run_timeline(source, _target(target), heard)
    return TimelineResult(result, timeline_status(result) is ExitStatus.FOUND, tuple(heard.warnings))


def diagnose(
    source: Source,
    target: str = "",
    *,
    from_pod: str = "",
    watch_s: float = 15.0,
    node: str = "",
    record: str = "",
) -> DiagnoseResult:
    """What is broken, for whom, because of what, and what to do: the paths, the drops and the DNS of `target` together.

    Without a target: of the source's namespace (of all with `all_namespaces`). `from_pod`: only what this client does.
    `record` is the file of a bundle to write, which `trace`, `drops` and `dns` can replay too.
    """
    collected = DiagnoseCollector()
    options = DiagnoseOptions(from_pod, _length("watch_s", watch_s), node, record)
    run_diagnose(source, _target(target), options, collected.for_target)
    is_found = status_of(collected.conclusion) is ExitStatus.FOUND
    return DiagnoseResult(collected.conclusion, is_found, tuple(collected.warnings))


def trace(
    source: Source,
    target: str,
    *,
    from_pod: str = "",
    check: CheckConnections | None = None,
    exact: bool = False,
    timeout_s: float = 30.0,
    node: str = "",
    record: str = "",
) -> TraceResult:
    """The paths of real packets through `target` (svc/NAME[:PORT], pod/NAME, deploy/NAME or IP[:PORT]).

    `from_pod`: only this client's; with `check` it opens connections itself. `exact` has the kernels name the rules, which
    changes the nodes while it runs. `record` is the file of a bundle to write.
    """
    collected = TraceCollector()
    options = TraceOptions(from_pod, check, exact, _length("timeout_s", timeout_s), node, record)
    status = run_trace(source, parse_target(target), options, collected.for_target)
    return TraceResult(tuple(collected.paths), collected.summary, status is ExitStatus.FOUND, tuple(collected.warnings))


def drops(
    source: Source,
    target: str = "",
    *,
    everything: bool = False,
    timeout_s: float = 30.0,
    node: str = "",
    record: str = "",
) -> DropsResult:
    """What is dropped, where and why: of `target`, or of the source's namespace (of all with `all_namespaces`).

    `everything`: also frees that lost nothing.
    """
    collected = DropsCollector()
    options = DropsOptions(everything, _length("timeout_s", timeout_s), node, record)
    status = run_drops(source, _target(target), options, collected.for_target)
    return DropsResult(tuple(collected.rows), collected.summary, status is ExitStatus.FOUND, tuple(collected.warnings))


def dns(
    source: Source,
    target: str = "",
    *,
    as_server: bool = False,
    redact: bool = False,
    timeout_s: float = 30.0,
    node: str = "",
    record: str = "",
) -> DnsResult:
    """The DNS queries of `target`'s clients, or of the whole cluster, and what became of them.

    `as_server`: the target is asked, not asking. `redact`: names are hashed, all but their public suffix.
    """
    collected = DnsCollector()
    options = DnsOptions(as_server, redact, _length("timeout_s", timeout_s), node, record)
    status = run_dns(source, _target(target), options, collected.for_target)
    return DnsResult(
        tuple(collected.exchanges), collected.summary, status is ExitStatus.FOUND, tuple(collected.warnings)
    )


def replay(path: str | Path, target: str = "") -> TraceResult | DropsResult | DnsResult | DiagnoseResult:
    """What the run that recorded a bundle found; by default of the target that it was recorded for."""
    source = BundleSource(path)
    header = source.recording.header
    recorded = str(header.arguments.get("target", ""))
    match header.command:
        case "trace":
            return trace(source, target or recorded)
        case "drops":
            if not target and recorded.startswith("namespace "):
                source.namespace = recorded.removeprefix("namespace ")
            elif not target and recorded == "all":
                source.all_namespaces = True
            else:
                target = target or recorded
            return drops(source, target, everything=bool(header.arguments.get("all")))
        case "dns":
            return dns(source, target or recorded, as_server=bool(header.arguments.get("server")))
        case "diagnose":
            return diagnose(source, target or recorded)
        case other:
            raise GenainetError(f"the bundle {path} was recorded by `{other}`, which can't be replayed")


def fabric(source: Source, target: str = "", *, seconds: float = 5.0) -> FabricResult:
    """Which GPU pods talk by RDMA and which by kernel TCP, from two readings of their nodes, `seconds` apart.

    `target` is pod/NAME, job/NAME (and the other kinds that make pods) or node/NAME; "" for every GPU pod in scope.
    """
    heard = Quiet()
    summary = run_fabric(source, FabricOptions(target, _length("seconds", seconds)), heard)
    is_found = fabric_status(summary, failed=False) is ExitStatus.FOUND
    return FabricResult(summary, is_found, (*heard.warnings, *summary.warnings))


def explain(source: Source, start: str, end: str, *, protocol: str = "") -> tuple[ExplainedFlow, ...]:
    """Whether the policies admit the flows from `start` to `end[:PORT]`, why, and what would admit them.

    Both are pod/NAME, deploy/NAME, svc/NAME or an IP address; `end` may be a domain name.
    """
    between = FlowsBetween(source, start, end, protocol=_protocol(protocol))
    return tuple(
        ExplainedFlow(flow.explanation, flow.service, None if flow.admitted else between.patch(flow.explanation.flow))
        for flow in between.flows
    )


def matrix(source: Source, *, port: int | None = None, protocol: str = "") -> Grid:
    """Who may reach whom by the policies, in the source's namespace or in all; by default on the ports that are declared."""
    if port is not None and not 0 < port < 65536:
        raise InputError(f"{port} is not a port", field="port", hint="Ports are 1 to 65535.")
    return run_matrix(source, MatrixOptions(port, _protocol(protocol))).grid


def rules(source: Source, target: str = "", *, node: str = "", conntrack: bool = False) -> RulesResult:
    """What kube-proxy has programmed for a Service (or for all) on each node, against what the API says."""
    warnings: list[str] = []
    options = RulesOptions(node=node, conntrack=conntrack)
    result = run_rules(source, _target(target), options, warnings.append)
    return RulesResult(result.report, tuple(warnings))


def doctor(
    source: Source,
    *,
    areas: Sequence[str] = (),
    ignore: Sequence[str] = (),
    workloads: Sequence[str] = (),
    measure_s: float = 0.0,
) -> DoctorResult:
    """Checks the source's network; `areas` limits the checks, `ignore` ("CHECK[:OBJECT]") accepts findings.

    `workloads` ("deploy/NAME=ROLE") are taken for the GenAI workloads. `measure_s`: how long to watch the cluster's DNS.
    """
    names = [check.name for check in all_checks()]
    accepted = tuple(parse_ignore(value, names) for value in ignore)
    watched_s = _length("measure_s", measure_s) if measure_s else 0.0
    options = DoctorOptions(tuple(map(_area, areas)), accepted, tuple(workloads), watched_s)
    collected = DoctorCollector()
    return DoctorResult(run_doctor(source, options, collected).report, tuple(collected.warnings))


def _target(text: str) -> Target | None:
    return parse_target(text) if text else None


def _length(name: str, value: float) -> float:
    if not 0 < value <= _LONGEST_S:
        raise InputError(f"{value:g} s is no time to watch", field=name, hint=f"It is up to {_LONGEST_S} s.")
    return value


def _protocol(text: str) -> str:
    if text and text.upper() not in _PROTOCOLS:
        raise not_found("protocol", text, _PROTOCOLS)
    return text


def _area(name: str) -> Area:
    names = [area.value for area in Area]
    if name not in names:
        raise not_found("area", name, names)
    return Area(name)
