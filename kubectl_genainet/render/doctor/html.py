"""The report as one HTML file without outside references."""

from __future__ import annotations

from kubectl_genainet import __version__
from kubectl_genainet.doctor.accept import object_key
from kubectl_genainet.doctor.report import CheckOutcome, CheckResult, Report
from kubectl_genainet.model.finding import Finding, Severity
from kubectl_genainet.render.doctor.picture import HEIGHT, WIDTH, layout
from kubectl_genainet.render.doctor.table import by_reason, findings_by_area, plural
from kubectl_genainet.render.page import asset, environment, source_hash


def _anchor(finding: Finding, index: int) -> str:
    return f"f{index}-{finding.check}"


def html(report: Report) -> str:
    """The report. Scripts and styles are inline and named by hash in the page's content security policy."""
    script, style = asset("doctor.js"), asset("report.css")
    areas = []
    index = 0
    for area, findings in findings_by_area(report):
        shown = []
        for finding in findings:
            shown.append({"id": _anchor(finding, index), "finding": finding, "key": object_key(finding)})
            index += 1
        areas.append({"area": area, "findings": shown})
    groups: dict[CheckOutcome, list[CheckResult]] = {
        o: [r for r in report.checks if r.outcome is o] for o in CheckOutcome
    }
    return (
        environment()
        .get_template("doctor.html.j2")
        .render(
            report=report,
            version=__version__,
            script=script,
            style=style,
            script_hash=source_hash(script),
            style_hash=source_hash(style),
            areas=areas,
            counts=[(s, sum(f.severity is s for f in report.findings)) for s in reversed(Severity)],
            picture=layout(report.picture),
            box_width=WIDTH,
            box_height=HEIGHT,
            titles={b.id: f"{b.object or b.title}" for b in report.picture.boxes},
            not_checked=by_reason(report.not_checked),
            groups=groups,
            CheckOutcome=CheckOutcome,
            plural=plural,
        )
    )
