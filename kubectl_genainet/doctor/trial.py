"""Remedies tried on a copy before they are given: the change is applied, the checks and the policies are run again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import msgspec

from kubectl_genainet.doctor.changed_flows import ChangedFlows, changed_flows, name_of
from kubectl_genainet.doctor.changes import CannotApplyError, applied, changes_something, untriable
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.finding import Finding, Remedy, Severity

# Trials run every check again: in a cluster of more objects, and beyond so many in all of them together, none is made.
_BUDGET = 40_000
_LARGEST = 3000
NOT_TRIED = "not tried"
_TOO_LARGE = "the cluster has too many objects to run every check again"
FindingKey = tuple[str, str, str]


def tried(cluster: Cluster, findings: Sequence[Finding], run: Callable[[Cluster], Iterable[Finding]]) -> list[Finding]:
    """The findings with remedies that were tried; `run` runs all checks over a cluster.

    A remedy that does not heal its finding, gives rise to an error, closes a flow, or opens one between workloads of which
    neither is named, loses what could be pasted.
    """
    size, remaining = len(cluster.snapshot.objects), _BUDGET
    known = {_key(f): f.severity for f in findings}
    judged_findings = []
    for finding in findings:
        remedy = finding.remedy
        if remedy is not None and changes_something(remedy):
            affordable = size <= min(remaining, _LARGEST)
            if affordable:
                remaining -= size
            judged = _tried(cluster, finding, remedy, known, run) if affordable else _untried(remedy, _TOO_LARGE)
            finding = msgspec.structs.replace(finding, remedy=judged)
        elif remedy is not None:
            finding = msgspec.structs.replace(finding, remedy=_said(remedy, ""))
        judged_findings.append(finding)
    return judged_findings


def _key(finding: Finding) -> FindingKey:
    return finding.check, str(finding.object), finding.evidence[0].field if finding.evidence else ""


def _said(remedy: Remedy, trial: str) -> Remedy:
    return Remedy(remedy.text, remedy.command, remedy.yaml, trial)


def _untried(remedy: Remedy, reason: str) -> Remedy:
    return _said(remedy, f"{NOT_TRIED}: {reason}")


def _tried(
    cluster: Cluster,
    finding: Finding,
    remedy: Remedy,
    known: dict[FindingKey, Severity],
    run: Callable[[Cluster], Iterable[Finding]],
) -> Remedy:
    reason = untriable(remedy)
    if reason:
        return _untried(remedy, reason)
    try:
        after = replace(cluster, snapshot=applied(cluster.snapshot, remedy))
        remaining = {_key(f): f for f in run(after)}
        flows = changed_flows(cluster, after)
    except CannotApplyError:
        return _untried(remedy, "an object that it changes was not read")
    except InputError as error:
        return _untried(remedy, error.message)
    stays = [
        f for key, f in remaining.items() if key[:2] == _key(finding)[:2] and (key == _key(finding) or key not in known)
    ]
    by_state = bool(stays) and stands_for_a_state(cluster, finding)
    if stays and not by_state:
        return Remedy(remedy.text, trial="tried: a change of this kind alone does not heal it, so none is given")
    new = [
        f
        for key, f in remaining.items()
        if key not in known and f not in stays and f.severity is not Severity.INFO and not stands_for_a_state(after, f)
    ]
    errors = [f for f in new if f.severity is Severity.ERROR and not by_state]
    if harm := _harm(cluster, flows, finding, remedy) or (_gives_rise(new[0]) if errors else ""):
        return Remedy(remedy.text, trial=f"tried: {harm}, so no change is given")
    compared = "" if flows.complete else "; of the flows that it may concern not all were compared"
    if by_state:
        more = f"{new[0].check} of {new[0].object} is found then" if new else "causes no other finding"
        return _said(remedy, f"tried: {more}{compared}; only the cluster shows whether it heals what was measured")
    more = f"; then {new[0].check} of {new[0].object} is found" if new else " and causes no other finding"
    return _said(remedy, f"tried: heals it{more}{compared}")


def _gives_rise(finding: Finding) -> str:
    return f"it gives rise to {finding.check} of {finding.object}"


def _harm(cluster: Cluster, flows: ChangedFlows, finding: Finding, remedy: Remedy) -> str:
    """The flow that a remedy closes, or opens without naming an end of it; "" where there is none."""
    if flows.closed and finding.check != "policy-none":
        return f"it closes {flows.closed[0]}"
    ends = {name_of(end) for flow in flows.opened for end in (flow.client, flow.server)}
    text = _all_text(cluster, finding, remedy) if ends else ""
    named = {name for name in ends if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)}
    unnamed = (f for f in flows.opened if not {name_of(f.client), name_of(f.server)} & named)
    return next((f"it opens {flow}" for flow in unnamed), "")


def stands_for_a_state(cluster: Cluster, finding: Finding) -> bool:
    """Whether a finding is about what nodes report or controllers have made, which a change of a copy does not alter."""
    made = finding.object is not None and finding.object.kind in ("Service", "Node") and not cluster.from_files
    return made or any(e.node or e.field.startswith(("status", "spec.nodeName")) for e in finding.evidence)


def _all_text(cluster: Cluster, finding: Finding, remedy: Remedy) -> str:
    """All that a user reads of a finding and its remedy, with the object that it is about."""
    evidence = (f"{e.object} {e.statement}" for e in finding.evidence)
    about = (json.dumps(o.raw) for o in cluster.snapshot.objects if o.ref == finding.object)
    texts = (str(finding.object), finding.title, finding.detail, remedy.text, remedy.yaml, remedy.command)
    return "\n".join((*texts, *evidence, *about))
