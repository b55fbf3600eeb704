"""The report as one HTML file without outside references."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2

from kubectl_genainet import __version__
from kubectl_genainet.doctor.accept import object_key
from kubectl_genainet.doctor.report import CheckResult, Outcome, Report
from kubectl_genainet.model.finding import Finding, ObjectRef, Severity
from kubectl_genainet.render.doctor.picture import HEIGHT, WIDTH, layout
from kubectl_genainet.render.doctor.table import by_reason, findings_by_area, plural
from kubectl_genainet.render.text import printable


def _asset(name: str) -> str:
    return resources.files("kubectl_genainet.render").joinpath("templates", name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    """Every value is escaped by jinja2, and control and bidi characters are made visible first."""
    env = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    env.filters["ref"] = _ref
    env.filters["lines"] = _lines
    return env


def _finalize(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, _Kept) and not hasattr(value, "__html__"):
        return printable(value)
    return value


def _lines(text: str) -> str:
    """A command or YAML: control characters visible, line breaks kept."""
    return _Kept("\n".join(printable(line) for line in text.rstrip("\n").split("\n")))


class _Kept(str):
    """A string whose line breaks `finalize` leaves alone; it is escaped like any other."""

    __slots__ = ()


def _ref(ref: ObjectRef) -> str:
    return str(ref)


def _hash(text: str) -> str:
    """A content security policy source for an inline script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _anchor(finding: Finding, index: int) -> str:
    return f"f{index}-{finding.check}"


def html(report: Report) -> str:
    """The report. Scripts and styles are inline and named by hash in the page's content security policy."""
    script, style = _asset("doctor.js"), _asset("doctor.css")
    areas = []
    index = 0
    for area, findings in findings_by_area(report):
        shown = []
        for finding in findings:
            shown.append({"id": _anchor(finding, index), "finding": finding, "key": object_key(finding)})
            index += 1
        areas.append({"area": area, "findings": shown})
    groups: dict[Outcome, list[CheckResult]] = {o: [r for r in report.checks if r.outcome is o] for o in Outcome}
    return (
        _environment()
        .get_template("doctor.html.j2")
        .render(
            report=report,
            version=__version__,
            script=script,
            style=style,
            script_hash=_hash(script),
            style_hash=_hash(style),
            areas=areas,
            counts=[(s, sum(f.severity is s for f in report.findings)) for s in reversed(Severity)],
            picture=layout(report.picture),
            box_width=WIDTH,
            box_height=HEIGHT,
            titles={b.id: f"{b.object or b.title}" for b in report.picture.boxes},
            not_checked=by_reason(report.not_checked),
            groups=groups,
            Outcome=Outcome,
            plural=plural,
        )
    )
