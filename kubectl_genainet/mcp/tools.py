"""The tools: each runs a verb that only reads, and answers with the records that `-o json` prints.

Nothing here changes a cluster or a node: no check connections (`trace --check`), no exact tracing, no files, no `deploy`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.doctor.registry import area_or_check
from kubectl_genainet.errors import ExitStatus, InputError
from kubectl_genainet.mcp import arguments as given
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.target import Target, parse_target
from kubectl_genainet.model.user import Impersonation
from kubectl_genainet.proxy.ruleset import parse_ruleset
from kubectl_genainet.records import RECORDS, RecordType
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
from kubectl_genainet.run.policies.explain import FlowsBetween, warn_of_unknown
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
    def records(self) -> tuple[RecordType, ...]:
        return RECORDS[self.name]


def _over_source(run: Callable[[Source, Any, Quiet], Outcome]) -> Callable[[SourceChoice, Any], Outcome]:
    """A tool over the facts of a source, in the scope that its arguments name."""

    def with_source(choice: SourceChoice, asked: given.ScopeArguments) -> Outcome:
        warnings = Quiet()
        source = choice.within(asked.namespace, asked.all_namespaces).open(warnings.warn)
        if asked.since_minutes or asked.until_minutes:
            source = past_of(source, _range(asked), warnings.warn)
        outcome = run(source, asked, warnings)
        missing = [f"the agent on node {node} did not answer" for node in sorted(source.failed_nodes)]
        status = outcome.status.with_failures(bool(missing))
        return Outcome(status, outcome.records, dict.fromkeys((*warnings.warnings, *outcome.warnings, *missing)))

    return with_source


def _range(asked: given.ScopeArguments) -> TimeRange:
    """Raises InputError for a time that ends before it begins."""
    if asked.until_minutes >= asked.since_minutes:
        raise InputError("since_minutes is how long ago the time began: more than until_minutes")
    now_ns = time.time_ns()
    return TimeRange(now_ns - int(asked.since_minutes * 60e9), now_ns - int(asked.until_minutes * 60e9))


def _target(text: str) -> Target | None:
    return parse_target(text) if text else None


def _diagnose(source: Source, asked: given.DiagnoseArguments, _: Quiet) -> Outcome:
    collected = DiagnoseCollector()
    options = diagnosing.DiagnoseOptions(asked.from_pod, asked.seconds, asked.node)
    status = diagnosing.diagnose(source, _target(asked.target), options, collected.for_target)
    return Outcome(status, (collected.conclusion,), collected.warnings)


def _timeline(source: Source, asked: given.TimelineArguments, _: Quiet) -> Outcome:
    collected = DoctorCollector()
    result = timelines.timeline(source, _target(asked.target), collected)
    return Outcome(timelines.status_of(result), (result,), collected.warnings)


def _trace(source: Source, asked: given.TraceArguments, _: Quiet) -> Outcome:
    collected = TraceCollector()
    options = TraceOptions(
        asked.from_pod,
        timeout_s=asked.seconds,
        node=asked.node,
        only=PathFilterTexts(verdicts=asked.verdicts),
        last=asked.last or None,
    )
    result = trace(source, _target(asked.target), options, collected.for_target)
    summary = collected.summary
    return Outcome(result, (*collected.paths, summary, *summary.lost), collected.warnings)


def _drops(source: Source, asked: given.DropsArguments, _: Quiet) -> Outcome:
    collected = DropsCollector()
    options = DropsOptions(asked.everything, asked.seconds, asked.node)
    result = drops(source, _target(asked.target), options, collected.for_target)
    return Outcome(result, (*collected.rows, collected.summary), collected.warnings)


def _dns(source: Source, asked: given.DnsArguments, _: Quiet) -> Outcome:
    collected = DnsCollector()
    options = DnsOptions(asked.as_server, timeout_s=asked.seconds, node=asked.node)
    result = dns(source, _target(asked.target), options, collected.for_target)
    return Outcome(result, (*collected.exchanges, collected.summary), collected.warnings)


def _explain(source: Source, asked: given.ExplainArguments, collected: Quiet) -> Outcome:
    between = FlowsBetween(source, asked.client, asked.destination, protocol=asked.protocol)
    warn_of_unknown(source, between.engine, collected.warn)
    enforcer = between.engine.enforcer
    records = []
    for flow in between.flows:
        patch = between.patch(flow.explanation.flow)
        why = between.why_no_patch(flow.explanation, patch)
        records.append(explained_json(flow.explanation, flow.service, enforcer, flow.deviations, flow.dns, patch, why))
    return Outcome(ExitStatus.OK if between.all_start else ExitStatus.FOUND, records)


def _matrix(source: Source, asked: given.MatrixArguments, collected: Quiet) -> Outcome:
    answer = matrix(source, MatrixOptions(asked.port or None, asked.protocol), collected.warn)
    return Outcome(ExitStatus.OK, (*grid_json(answer.grid), *beyond_json(answer.beyond)))


def _rules(source: Source, asked: given.RulesArguments, collected: Quiet) -> Outcome:
    options = RulesOptions(node=asked.node, conntrack=asked.connections)
    result = rules(source, _target(asked.target), options, collected.warn)
    rulesets = [parse_ruleset([d for d in dumps if d.source == "ipvs"]) for dumps in result.dumps.values()]
    status = ExitStatus.FOUND if result.report.found_something else ExitStatus.OK
    return Outcome(status, rules_records(result.report, rulesets))


def _fabric(source: Source, asked: given.FabricArguments, _: Quiet) -> Outcome:
    collected = DoctorCollector()
    summary = fabric(source, FabricOptions(asked.target, asked.seconds), collected)
    return Outcome(fabric_status(summary, failed=False), (summary,), (*collected.warnings, *summary.warnings))


def _doctor(source: Source, asked: given.DoctorArguments, _: Quiet) -> Outcome:
    only = tuple(map(area_or_check, asked.only))
    collected = DoctorCollector()
    examined = doctor(source, DoctorOptions(only, measure_s=asked.measure_seconds), collected)
    status = ExitStatus.FOUND if examined.report.worst(Severity.WARNING) else ExitStatus.OK
    return Outcome(status.with_failures(bool(examined.unread)), records_of(examined.report), collected.warnings)


def _status(choice: SourceChoice, asked: given.StatusArguments) -> Outcome:
    if choice.lab:
        answer = lab_fleet(choice.lab)
    else:
        choice.check_is_cluster()
        user = Impersonation(choice.user, choice.groups)
        namespace = asked.agents_namespace or NAMESPACE
        answer = status(namespace, context=choice.context, kubeconfig=choice.kubeconfig, user=user)
    return Outcome(ExitStatus.FOUND if answer.found_something else ExitStatus.OK, answer.nodes, answer.warnings)


def _version(choice: SourceChoice, _: given.NoArguments) -> Outcome:
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
            given.DiagnoseArguments,
            _over_source(_diagnose),
        ),
        Tool(
            "timeline",
            "What was felt and what changed over a recorded time, when it began, and what changed just before.",
            given.TimelineArguments,
            _over_source(_timeline),
        ),
        Tool(
            "trace",
            "The path of real packets through a Service, hop by hop, and where they died and why.",
            given.TraceArguments,
            _over_source(_trace),
        ),
        Tool("drops", "What the kernels drop, where and why.", given.DropsArguments, _over_source(_drops)),
        Tool("dns", "Who waits for DNS, for which names, at which hop.", given.DnsArguments, _over_source(_dns)),
        Tool(
            "explain",
            "Whether the policies admit a flow, why, and the smallest change that would admit it. Nothing is applied.",
            given.ExplainArguments,
            _over_source(_explain),
        ),
        Tool("matrix", "Who may reach whom by the policies.", given.MatrixArguments, _over_source(_matrix)),
        Tool(
            "rules",
            "What kube-proxy has programmed for a Service on each node, against what the API says.",
            given.RulesArguments,
            _over_source(_rules),
        ),
        Tool(
            "fabric",
            "Which GPU pods talk by RDMA and which by kernel TCP.",
            given.FabricArguments,
            _over_source(_fabric),
        ),
        Tool(
            "doctor",
            "The cluster's network checked against the practice for GenAI workloads.",
            given.DoctorArguments,
            _over_source(_doctor),
        ),
        Tool(
            "status", "The agents, node by node: whether they answer and what they see.", given.StatusArguments, _status
        ),
        Tool("version", "The versions of the client, the API server and the agents.", given.NoArguments, _version),
    )
}
