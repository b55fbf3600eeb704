"""The report for programs: JSON lines, YAML, SARIF."""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from kubectl_genainet import __version__
from kubectl_genainet.doctor.accept import object_key
from kubectl_genainet.doctor.check import Check
from kubectl_genainet.doctor.report import CheckOutcome, Report
from kubectl_genainet.model.finding import Finding, ObjectRef, Severity
from kubectl_genainet.render import data_text

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVEL = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}


def records_of(report: Report) -> Iterator[dict[str, Any]]:
    """The report as records; `kind` is fact, workload, finding, accepted, not_checked, check, or summary (the last)."""
    for kind, values in (
        ("fact", report.facts),
        ("workload", report.workloads),
        ("finding", report.findings),
        ("accepted", report.accepted),
        ("not_checked", report.not_checked),
        ("check", report.checks),
    ):
        for value in values:
            yield {"kind": kind, **msgspec.to_builtins(value)}
    yield {"kind": "summary", **_counts(report)}


class SummaryJson(TypedDict):
    """The last line: findings by severity, checks by outcome."""

    findings: dict[str, int]
    accepted: int
    checks: dict[str, int]
    namespace: str
    taken_at: str


def _counts(report: Report) -> SummaryJson:
    return {
        "findings": {s.value: sum(f.severity is s for f in report.findings) for s in Severity},
        "accepted": len(report.accepted),
        "checks": {o.value: sum(r.outcome is o for r in report.checks) for o in CheckOutcome},
        "namespace": report.namespace,
        "taken_at": report.taken_at,
    }


def yaml_text(report: Report) -> str:
    """The whole report as one YAML document."""
    return data_text.yaml_text([report], width=120)


def sarif(report: Report, checks: Sequence[Check], sources: Mapping[ObjectRef, tuple[str, int]]) -> bytes:
    """SARIF 2.1.0, for code scanning in CI. `sources` are the file and line of objects that came from manifests.

    Source: OASIS, Static Analysis Results Interchange Format 2.1.0.
    """
    index = {c.name: i for i, c in enumerate(checks)}
    results = [_result(f, index, sources) for f in report.findings]
    for item in report.accepted:
        suppressed = {"kind": "external", "justification": item.by}
        results.append({**_result(item.finding, index, sources), "suppressions": [suppressed]})
    notes = [
        {"level": "note", "message": {"text": f"not checked: {n.reason}"}, "associatedRule": {"id": n.what}}
        for n in report.not_checked
    ]
    run = {
        "tool": {
            "driver": {
                "name": "kubectl-genainet",
                "version": __version__,
                "informationUri": "https://github.com/kubectl-genainet/kubectl-genainet",
                "rules": [_rule(c) for c in checks],
            }
        },
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
        "results": results,
    }
    text = data_text.json_text({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]})
    return msgspec.json.format(text.encode(), indent=2)


def _rule(check: Check) -> dict[str, Any]:
    return {
        "id": check.name,
        "shortDescription": {"text": check.title},
        "fullDescription": {"text": check.doc},
        "help": {"text": check.doc},
        "defaultConfiguration": {"level": _LEVEL[check.severity]},
        "properties": {"tags": [check.area.value]},
    }


def _result(finding: Finding, index: Mapping[str, int], sources: Mapping[ObjectRef, tuple[str, int]]) -> dict[str, Any]:
    field = finding.evidence[0].field if finding.evidence else ""
    key = object_key(finding)
    fingerprint = hashlib.sha256(f"{finding.check}\0{key}\0{field}".encode()).hexdigest()[:32]
    paragraphs = [f"{finding.object}: {finding.title}" if finding.object else finding.title]
    paragraphs += [f"({e.certainty.value}) {e.statement}" for e in finding.evidence]
    if finding.remedy is not None:
        trial = f"({finding.remedy.trial})" if finding.remedy.trial else ""
        paragraphs += [finding.remedy.text, trial, finding.remedy.command, finding.remedy.yaml]
    location: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": f"{key}:{field}" if field else key, "kind": "resource"}]
    }
    source = sources.get(finding.object) if finding.object else None
    if source:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": _uri(source[0])},
            "region": {"startLine": max(source[1], 1)},
        }
    return {
        "ruleId": finding.check,
        "ruleIndex": index.get(finding.check, -1),
        "level": _LEVEL[finding.severity],
        "message": {"text": "\n".join(filter(None, paragraphs))},
        "locations": [location],
        "partialFingerprints": {"checkObjectField/v1": fingerprint},
    }


def _uri(source: str) -> str:
    """A URI reference of an object's file: what is no letter of RFC 3986 is percent-encoded; a path stays relative.

    A source is "FILE, document N", with what follows for items of lists and pods of workloads.
    """
    path = re.split(r", (?=(?:document|item|pod of) )", source, maxsplit=1)[0]
    return urllib.parse.quote(path.replace("\\", "/"), safe="/")
