"""What the functions of the library return."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.doctor.report import Report
from kubectl_genainet.model.results.diagnosis import Conclusion
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.model.results.drops import DropRow, DropSummary
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.fabric import FabricSummary
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.model.results.timeline import Timeline
from kubectl_genainet.model.results.trace import TraceSummary
from kubectl_genainet.policy import Explanation, Patch
from kubectl_genainet.proxy.report import RulesReport


@dataclass(frozen=True, slots=True)
class TraceResult:
    """`found`: something was dropped, refused or slow."""

    paths: tuple[PacketPath, ...]
    summary: TraceSummary
    found: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DropsResult:
    """`found`: something that is wrong was dropped."""

    rows: tuple[DropRow, ...]
    summary: DropSummary
    found: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DnsResult:
    """`found`: a time-out, a failing or slow server, or a habit that costs queries."""

    exchanges: tuple[DnsExchange, ...]
    summary: DnsSummary
    found: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExplainedFlow:
    """What the policies say of a flow. `service` is the Service that it goes through, "" for none; `patch` is what would
    admit it, None where it is admitted or nothing helps."""

    explanation: Explanation
    service: str
    patch: Patch | None


@dataclass(frozen=True, slots=True)
class RulesResult:
    """`report.found_something`: the rules are not what the API says."""

    report: RulesReport
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DoctorResult:
    """The findings are `report.findings`; what could not be checked, and why, is in the report too."""

    report: Report
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DiagnoseResult:
    """`found`: something is broken; `conclusion.causes` says what, the worst first."""

    conclusion: Conclusion
    found: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TimelineResult:
    """`found`: something became worse; `timeline.onsets` says when, and what had changed just before."""

    timeline: Timeline
    found: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FabricResult:
    """`found`: pods talk over TCP where RDMA is there, or a device has trouble."""

    summary: FabricSummary
    found: bool
    warnings: tuple[str, ...] = ()
