"""`fabric` for a person: the pods and their ways, the devices, the findings."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from kubectl_genainet.model.finding import Finding, counted
from kubectl_genainet.model.results.fabric import FabricDevice, FabricPod, FabricSummary, Transport
from kubectl_genainet.model.units import rate_text
from kubectl_genainet.render.table import Column, table
from kubectl_genainet.render.text import SEVERITY_STYLE, printable

_STYLE = {Transport.RDMA: "green", Transport.TCP: "yellow", Transport.BOTH: "yellow", Transport.UNKNOWN: "dim"}


def _device_rate(port: FabricDevice) -> str:
    if port.sent_bytes_s is None or port.received_bytes_s is None:
        return "?"
    return rate_text(port.sent_bytes_s + port.received_bytes_s)


PODS: tuple[Column[FabricPod], ...] = (
    Column("POD", lambda p: f"{p.namespace}/{p.name}"),
    Column("NODE", lambda p: p.node),
    Column("JOB", lambda p: p.job, spare=1),
    Column("GPUS", lambda p: str(p.gpus), right=True),
    Column("BY", lambda p: p.transport.value, style=lambda p: _STYLE.get(p.transport, "")),
    Column("RDMA", lambda p: rate_text(p.rdma_bytes_s) + (" (shared)" if p.shared else ""), right=True),
    Column("TCP", lambda p: rate_text(p.tcp_bytes_s), right=True),
    Column("DEVICES", lambda p: ", ".join(p.devices) or "-", wide=True),
    Column("WITH", lambda p: ", ".join(p.peers) or "-", wide=True),
    Column("WHY", lambda p: p.reason or "-"),
)
DEVICES: tuple[Column[FabricDevice], ...] = (
    Column("NODE", lambda d: d.node),
    Column("DEVICE", lambda d: f"{d.device}/{d.port}"),
    Column("STATE", lambda d: d.state or "?", style=lambda d: "" if d.state == "ACTIVE" else "yellow"),
    Column("LINK", lambda d: d.link_layer or "?"),
    Column("SPEED", lambda d: d.rate or "?", wide=True),
    Column("GIDS", lambda d: str(d.gids), wide=True, right=True),
    Column("QUEUE PAIRS", lambda d: "?" if d.queue_pairs is None else str(d.queue_pairs), right=True),
    Column("RATE", _device_rate, right=True),
    Column("GREW", lambda d: ", ".join(f"{k} {v}" for k, v in d.grown.items()) or "-"),
)


def print_fabric(console: Console, summary: FabricSummary, *, wide: bool) -> None:
    shown = frozenset({"GPUS", "RDMA", "TCP"})
    console.print(table(PODS, summary.pods, wide=wide, always=shown) if summary.pods else "No GPU pods.")
    if summary.devices:
        console.print()
        console.print(table(DEVICES, summary.devices, wide=wide, always=frozenset({"RATE"})))
    for line in _findings(summary.findings):
        console.print(line)
    nodes = counted(len(summary.nodes), "node")
    console.print(Text(f"\n{nodes}, measured for {summary.seconds:.1f} s", style="dim"))


def _findings(findings: Iterable[Finding]) -> Iterable[Text]:
    for finding in findings:
        yield Text.assemble(
            "\n", (f"{finding.severity.value}: ", SEVERITY_STYLE[finding.severity]), printable(finding.title)
        )
        for evidence in finding.evidence:
            where = f"{evidence.node}: " if evidence.node else ""
            yield Text(f"  {printable(where + evidence.statement)} [{evidence.certainty.value}]")
