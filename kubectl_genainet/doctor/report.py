"""The result of an examination, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

import msgspec

from kubectl_genainet.doctor import facts
from kubectl_genainet.doctor.accept import Acceptance, accepted_by
from kubectl_genainet.doctor.check import Area, Check, Problem
from kubectl_genainet.doctor.doubts import scattered, succeeded, switched_off
from kubectl_genainet.doctor.facts import Fact
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import unfilled, unnamed
from kubectl_genainet.doctor.objects.recognise import Recognised
from kubectl_genainet.doctor.picture import Picture, draw
from kubectl_genainet.doctor.trial import tried
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, NotChecked, Severity


class CheckOutcome(Enum):
    """What became of a check."""

    FOUND = "found"
    PASSED = "passed"
    NOT_APPLICABLE = "not-applicable"
    NOT_CHECKED = "not-checked"


class CheckResult(msgspec.Struct, frozen=True):
    """A check and its outcome. `reasons` say why it was not (or not wholly) checked, or why it does not apply."""

    check: str
    area: Area
    title: str
    outcome: CheckOutcome
    findings: int = 0
    reasons: tuple[str, ...] = ()


class Accepted(msgspec.Struct, frozen=True):
    """A finding that the user has accepted, and what says so ("--ignore …", "baseline")."""

    finding: Finding
    by: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything doctor says about a cluster."""

    findings: tuple[Finding, ...]
    accepted: tuple[Accepted, ...]
    not_checked: tuple[NotChecked, ...]
    checks: tuple[CheckResult, ...]
    workloads: tuple[Recognised, ...]
    facts: tuple[Fact, ...]
    picture: Picture
    namespace: str = ""
    taken_at: str = ""

    @property
    def wrong(self) -> tuple[object, ...]:
        """What was found about which objects, and what could not be looked at; not the numbers, which each look measures anew."""
        return [(f.check, f.severity, f.object) for f in self.findings], [item.what for item in self.not_checked]

    def worst(self, at_least: Severity) -> bool:
        """Whether there is a finding of a severity or worse."""
        return any(f.severity.rank >= at_least.rank for f in self.findings)


ProgressCallback = Callable[[int, int, str], None]


def _silent(done: int, total: int, what: str) -> None:
    return None


def examine(
    cluster: Cluster,
    checks: Sequence[Check],
    *,
    acceptances: Sequence[Acceptance] = (),
    progress: ProgressCallback = _silent,
) -> Report:
    """Runs checks over a cluster. `progress` is called with (done, total, what comes next)."""
    total = len(checks) + 1
    progress(0, total, "recognising workloads")
    workloads = tuple(r for _, r in cluster.genai_workloads)
    all_findings: list[Finding] = []
    results: list[CheckResult] = []
    not_checked: list[NotChecked] = []
    for done, item in enumerate(checks, start=1):
        progress(done, total, item.name)
        result, findings = _run(item, cluster)
        results.append(result)
        all_findings += findings
        if result.outcome is not CheckOutcome.NOT_APPLICABLE:
            not_checked += [NotChecked(item.name, reason) for reason in result.reasons]
    progress(total, total, "trying remedies")
    remaining, accepted = [], []
    for finding in tried(cluster, all_findings, lambda after: _findings(checks, after)):
        by = accepted_by(finding, acceptances)
        if by:
            accepted.append(Accepted(finding, by))
        else:
            remaining.append(finding)
    return Report(
        findings=tuple(remaining),
        accepted=tuple(accepted),
        not_checked=tuple(not_checked),
        checks=tuple(results),
        workloads=workloads,
        facts=facts.facts(cluster),
        picture=draw(cluster, remaining),
        namespace=cluster.namespace,
        taken_at=cluster.snapshot.taken_at,
    )


def _findings(checks: Sequence[Check], cluster: Cluster) -> list[Finding]:
    return [finding for item in checks for finding in _run(item, cluster)[1]]


def _run(item: Check, cluster: Cluster) -> tuple[CheckResult, list[Finding]]:
    def result(outcome: CheckOutcome, findings: int = 0, reasons: tuple[str, ...] = ()) -> CheckResult:
        return CheckResult(item.name, item.area, item.title, outcome, findings, reasons)

    try:
        why_not = item.applies(cluster)
        if why_not:
            return result(CheckOutcome.NOT_APPLICABLE, reasons=(why_not,)), []
        missing = tuple(
            dict.fromkeys(
                reason for need in item.needs if (reason := cluster.missing(need, own_namespace=item.own_namespace))
            )
        )
        if missing:
            return result(CheckOutcome.NOT_CHECKED, reasons=missing), []
        findings, reasons = [], []
        for answer in item.run(cluster):
            if isinstance(answer, Problem) and (reason := _set_aside(cluster, answer)):
                reasons.append(f"{answer.object}: {reason}")
            elif isinstance(answer, Problem):
                findings.append(_finding(item, answer, cluster))
            else:
                reasons.append(f"{answer.what}: {answer.reason}" if answer.what else answer.reason)
    except InputError as error:
        return result(CheckOutcome.NOT_CHECKED, reasons=(error.message,)), []
    findings.sort(key=lambda f: (-f.severity.rank, str(f.object), f.evidence[0].field if f.evidence else ""))
    outcome = CheckOutcome.FOUND if findings else CheckOutcome.NOT_CHECKED if reasons else CheckOutcome.PASSED
    return result(outcome, len(findings), tuple(dict.fromkeys(reasons))), findings


def _set_aside(cluster: Cluster, problem: Problem) -> str:
    """Why a problem is no finding: the objects that it is about exclude each other, or a placeholder is what it rests on."""
    return cluster.extent.apart(problem.about) or _unfilled(cluster, problem)


def _unfilled(cluster: Cluster, problem: Problem) -> str:
    """Why manifests do not say what a problem rests on: its object is a template, or a placeholder stands in a value's place.
    Command lines are left out, where a shell's variables look the same."""
    if cluster.from_files and problem.object and unnamed(problem.object.name):
        return "its name is a placeholder that is not filled in: a template"
    for evidence in problem.evidence if cluster.from_files else ():
        commands = ".command" in evidence.field or ".args" in evidence.field
        if not commands and (placeholder := unfilled(evidence.value, evidence.object.name if evidence.object else "")):
            return f"{evidence.field} has {placeholder}, a placeholder that is not filled in"
    return ""


def _finding(item: Check, problem: Problem, cluster: Cluster) -> Finding:
    evidence = problem.evidence
    if cluster.from_files:  # nobody observed a file's objects in a cluster
        evidence = tuple(_as_assumed(e) for e in evidence)
    elsewhere = _elsewhere(cluster, problem)
    doubt = next((why for ask in (switched_off, succeeded, scattered) if (why := ask(cluster, problem))), "")
    severity = problem.severity or item.severity
    if elsewhere and severity is Severity.ERROR:
        severity = Severity.WARNING
    return Finding(
        check=item.name,
        title=problem.title,
        severity=Severity.INFO if doubt else severity,
        evidence=evidence,
        object=problem.object,
        detail="; ".join(part for part in (problem.detail, elsewhere, doubt) if part),
        remedy=problem.remedy,
    )


def _elsewhere(cluster: Cluster, problem: Problem) -> str:
    """Why what would refute a problem may be in objects that were not read; empty where it is not, or nothing would."""
    if problem.refuted_by is None:
        return ""
    kind, namespace = problem.refuted_by
    reason = cluster.partial(kind, namespace)
    return f"another {kind} of namespace {namespace} may admit it: {reason}" if reason else ""


def _as_assumed(evidence: Evidence) -> Evidence:
    if evidence.node or evidence.certainty is not Certainty.OBSERVED:
        return evidence
    return msgspec.structs.replace(evidence, certainty=Certainty.ASSUMED)
