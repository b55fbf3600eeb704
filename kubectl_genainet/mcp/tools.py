"""The tools: each runs a verb that only reads, and answers with the records that `-o json` prints.

Nothing here changes a cluster or a node: no check connections (`trace --check`), no exact tracing, no files, no `deploy`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.doctor.check import Area
from kubectl_genainet.errors import ExitStatus, InputError
from kubectl_genainet.mcp import arguments as given
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.target import Target, parse_target
from kubectl_genainet.model.user import Impersonation
from kubectl_genainet.proxy.ruleset import parse_ruleset
from kubectl_genainet.records import RECORDS, Record
from kubectl_genainet.render.doctor.data import records_of
from kubectl_genainet.render.policy.beyond import beyond_json
from kubectl_genainet.render.policy.json import explained_json
from kubectl_genainet.render.policy.matrix import grid_json
from kubectl_genainet.render.rules.table import rules_records
from kubectl_genainet.run import timeline as timelines
from kubectl_genainet.run.collect import (
    DiagnoseCollector,
    DnsCollector,
    DoctorCollector,
    DropsCollector,
    Quiet,
    TraceCollector,
)
from kubectl_genainet.run.diagnose import diagnose as diagnosing
from kubectl_genainet.run.dns import DnsOptions, dns
from kubectl_genainet.run.doctor.doctor import DoctorOptions, doctor
from kubectl_genainet.run.drops import DropsOptions, drops
from kubectl_genainet.run.fabric import FabricOptions, fabric
from kubectl_genainet.run.fabric import status_of as fabric_status
from kubectl_genainet.run.fleet.deploy import NAMESPACE
from kubectl_genainet.run.fleet.status import lab_fleet, status, versions
from kubectl_genainet.run.policies.explain import FlowsBetween, warn_of_unevaluated
from kubectl_genainet.run.policies.matrix import MatrixOptions, matrix
from kubectl_genainet.run.rules import RulesOptions, rules
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.choice import SourceChoice
from kubectl_genainet.run.sources.history import TimeRange
from kubectl_genainet.run.sources.past import past_of
from kubectl_genainet.run.trace import PathFilterTexts, TraceOptions, trace


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tool found: the records of the verb, and what limits what they say."""

    status: ExitStatus
    records: Iterable[Any]
    warnings: Iterable[str] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """`run` takes where the facts come from and an `arguments`."""

    name: str
    description: str
    arguments: type[Any]
    run: Callable[[SourceChoice, Any], Outcome]

    @property
    def records(self) -> tuple[Record, ...]:
        return RECORDS[self.name]


def _over_source(run: Callable[[Source, Any, Quiet], Outcome]) -> Callable[[SourceChoice, Any], Outcome]:
    """A tool over the facts of a source, in the scope that its arguments name."""

    def with_source(choice: SourceChoice, asked: given.Scope) -> Outcome:
        told = Quiet()
        source = choice.within(asked.namespace, asked.all_namespaces).open(told.warn)
        if asked.since_minutes:
            source = past_of(source, _range(asked), told.warn)
        outcome = run(source, asked, told)
        missing = [f"the agent on node {node} did not answer" for node in sorted(source.failed_nodes)]
        status = outcome.status.with_failures(bool(missing))
        return Outcome(status, outcome.records, dict.fromkeys((*told.warnings, *outcome.warnings, *missing)))

    return with_source


def _range(asked: given.Scope) -> TimeRange:
    """Raises InputError for a time that ends before it begins."""
    if asked.until_minutes >= asked.since_minutes:
        raise InputError("since_minutes is how long ago the time began: more than until_minutes")
    now_ns = time.time_ns()
    return TimeRange(now_ns - int(asked.since_minutes * 60e9), now_ns - int(asked.until_minutes * 60e9))


def _target(text: str) -> Target | None:
    return parse_target(text) if text else None


def _diagnose(source: Source, asked: given.Diagnose, _: Quiet) -> Outcome:
    collected = DiagnoseCollector()
    options = diagnosing.DiagnoseOptions(asked.from_pod, asked.seconds, asked.node)
    status = diagnosing.diagnose(source, _target(asked.target), options, collected.for_target)
    return Outcome(status, (collected.conclusion,), collected.warnings)


def _timeline(source: Source, asked: given.Timeline, _: Quiet) -> Outcome:
    collected = DoctorCollector()
    result = timelines.timeline(source, _target(asked.target), collected)
    return Outcome(timelines.status_of(result), (result,), collected.warnings)


def _trace(source: Source, asked: given.Trace, _: Quiet) -> Outcome:
    collected = TraceCollector()
    options = TraceOptions(
        asked.from_pod,
        timeout_s=asked.seconds,
        node=asked.node,
        only=PathFilterTexts(verdicts=asked.verdicts),
        last=asked.last or None,
    )
    found = trace(source, _target(asked.target), options, collected.for_target)
    summary = collected.summary
    return Outcome(found, (*collected.paths, summary, *summary.lost), collected.warnings)


def _drops(source: Source, asked: given.Drops, _: Quiet) -> Outcome:
    collected = DropsCollector()
    options = DropsOptions(asked.everything, asked.seconds, asked.node)
    found = drops(source, _target(asked.target), options, collected.for_target)
    return Outcome(found, (*collected.rows, collected.summary), collected.warnings)


def _dns(source: Source, asked: given.Dns, _: Quiet) -> Outcome:
    collected = DnsCollector()
    options = DnsOptions(asked.as_server, timeout_s=asked.seconds, node=asked.node)
    found = dns(source, _target(asked.target), options, collected.for_target)
    return Outcome(found, (*collected.exchanges, collected.summary), collected.warnings)


def _explain(source: Source, asked: given.Explain, told: Quiet) -> Outcome:
    between = FlowsBetween(source, asked.client, asked.destination, protocol=asked.protocol)
    warn_of_unevaluated(between.engine, told.warn)
    enforcer = between.engine.enforcer
    records = [
        explained_json(
            flow.explanation, flow.service, enforcer, flow.deviations, flow.dns, between.patch(flow.explanation.flow)
        )
        for flow in between.flows
    ]
    return Outcome(ExitStatus.OK if between.all_admitted else ExitStatus.FOUND, records)


def _matrix(source: Source, asked: given.Matrix, told: Quiet) -> Outcome:
    answer = matrix(source, MatrixOptions(asked.port or None, asked.protocol), told.warn)
    return Outcome(ExitStatus.OK, (*grid_json(answer.grid), *beyond_json(answer.beyond)))


def _rules(source: Source, asked: given.Rules, told: Quiet) -> Outcome:
    options = RulesOptions(node=asked.node, conntrack=asked.connections)
    result = rules(source, _target(asked.target), options, told.warn)
    rulesets = [parse_ruleset([d for d in dumps if d.source == "ipvs"]) for dumps in result.dumps.values()]
    found = ExitStatus.FOUND if result.report.found_something else ExitStatus.OK
    return Outcome(found, rules_records(result.report, rulesets))


def _fabric(source: Source, asked: given.Fabric, _: Quiet) -> Outcome:
    collected = DoctorCollector()
    summary = fabric(source, FabricOptions(asked.target, asked.seconds), collected)
    return Outcome(fabric_status(summary, failed=False), (summary,), (*collected.warnings, *summary.warnings))


def _doctor(source: Source, asked: given.Doctor, _: Quiet) -> Outcome:
    areas = {area.value: area for area in Area}
    only = tuple(areas.get(name, name) for name in asked.only)
    collected = DoctorCollector()
    report = doctor(source, DoctorOptions(only, measure_s=asked.measure_seconds), collected).report
    found = ExitStatus.FOUND if report.worst(Severity.WARNING) else ExitStatus.OK
    return Outcome(found, records_of(report), collected.warnings)


def _status(choice: SourceChoice, asked: given.Status) -> Outcome:
    if choice.lab:
        answer = lab_fleet(choice.lab)
    else:
        choice.check_is_cluster()
        user = Impersonation(choice.user, choice.groups)
        namespace = asked.agents_namespace or NAMESPACE
        answer = status(namespace, context=choice.context, kubeconfig=choice.kubeconfig, user=user)
    return Outcome(ExitStatus.FOUND if answer.found_something else ExitStatus.OK, answer.nodes, answer.warnings)


def _version(choice: SourceChoice, _: given.Nothing) -> Outcome:
    user = Impersonation(choice.user, choice.groups)
    answer, warnings = versions(
        client_only=not choice.is_cluster, context=choice.context, kubeconfig=choice.kubeconfig, user=user
    )
    return Outcome(ExitStatus.OK, (answer,), warnings)


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "diagnose",
            "What is broken, for whom, because of what, and what to do: the paths, drops and DNS of a target together. "
            "Ask this first.",
            given.Diagnose,
            _over_source(_diagnose),
        ),
        Tool(
            "timeline",
            "What was felt and what changed over a recorded time, when it began, and what changed just before.",
            given.Timeline,
            _over_source(_timeline),
        ),
        Tool(
            "trace",
            "The path of real packets through a Service, hop by hop, and where they died and why.",
            given.Trace,
            _over_source(_trace),
        ),
        Tool("drops", "What the kernels drop, where and why.", given.Drops, _over_source(_drops)),
        Tool("dns", "Who waits for DNS, for which names, at which hop.", given.Dns, _over_source(_dns)),
        Tool(
            "explain",
            "Whether the policies admit a flow, why, and the smallest change that would admit it. Nothing is applied.",
            given.Explain,
            _over_source(_explain),
        ),
        Tool("matrix", "Who may reach whom by the policies.", given.Matrix, _over_source(_matrix)),
        Tool(
            "rules",
            "What kube-proxy has programmed for a Service on each node, against what the API says.",
            given.Rules,
            _over_source(_rules),
        ),
        Tool("fabric", "Which GPU pods talk by RDMA and which by kernel TCP.", given.Fabric, _over_source(_fabric)),
        Tool(
            "doctor",
            "The cluster's network checked against the practice for GenAI workloads.",
            given.Doctor,
            _over_source(_doctor),
        ),
        Tool("status", "The agents, node by node: whether they answer and what they see.", given.Status, _status),
        Tool("version", "The versions of the client, the API server and the agents.", given.Nothing, _version),
    )
}
