"""One path as a tree: client → Service → rule → backend, and under it the hops, the NAT where it happens, the end."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from kubectl_genainet.model.finding import Certainty, counted
from kubectl_genainet.model.packet import Protocol, address_text
from kubectl_genainet.model.results.path import BY_ENTRY, PacketPath, Stream, Verdict
from kubectl_genainet.render.paragraphs import command_lines
from kubectl_genainet.render.text import duration, moment, printable
from kubectl_genainet.render.trace.blocks import drop_place, evidence
from kubectl_genainet.render.trace.hops import hop_lines
from kubectl_genainet.render.trace.http import http2_text, http_text
from kubectl_genainet.render.trace.parts import VERDICT_STYLE, certainty, ending_text, line, party_text, silence_text


def path_tree(path: PacketPath, count: int, width: int) -> RenderableType:
    """The tree of one path; `count` connections went the same way. The command of a remedy stands below it: between the lines
    of a tree it could not be pasted."""
    times = f"  ×{count}" if count > 1 else ""
    began = f"  {moment(path.time, whole=False)}" if path.time else ""
    root = Tree(line(Text(party_text(path.flow.client), style="bold"), f"  {path.flow.protocol.value}{times}{began}"))
    branch = root
    if path.flow.service is not None:
        service = path.flow.service
        port = f"{service.port} ({service.port_name})" if service.port_name else str(service.port)
        name = f"svc/{service.name}:{port}"
        branch = branch.add(line(Text(printable(name), style="cyan"), f"  {address_text(service.ip, service.port)}"))
    if path.nat is not None:
        chains = " → ".join(c for c in (path.nat.service_chain, path.nat.endpoint_chain) if c) or (
            "an entry of the connection table" if path.nat.mode == BY_ENTRY else "a rule that is not known"
        )
        branch = branch.add(line(f"{path.nat.mode} {chains} ", certainty(path.nat.certainty)))
    verdict = Text(path.verdict.value.upper(), style=VERDICT_STYLE[path.verdict])
    branch = branch.add(line(Text(party_text(path.backend), style="bold"), "  ", verdict, _times(path)))
    if path.stream is not None:
        branch.add(line(Text(stream_text(path.stream), style="dim")))
    if path.http is not None:
        branch.add(line(Text(http_text(path.http), style="dim")))
    if path.http2 is not None:
        branch.add(line(Text(http2_text(path.http2), style="dim")))
    if path.hops:
        branch.add(Group(*hop_lines(path, max(20, width - 20))))
    _add_ending(branch, path)
    remedy = path.drop.remedy if path.drop is not None else None
    if remedy is None:
        return root
    return Group(root, Text("prints the YAML of what would admit it:"), *command_lines(remedy.command, width, indent=2))


def _times(path: PacketPath) -> str:
    parts = []
    if path.handshake_ns is not None:
        parts.append(f"handshake {duration(path.handshake_ns)}")
    if path.response_ns is not None:
        parts.append(f"response {duration(path.response_ns)}")
    if path.attempts > 1:
        parts.append(counted(path.attempts, "attempt"))
    if path.retransmits:
        parts.append(counted(path.retransmits, "retransmit"))
    if path.recovered_drops and path.flow.protocol is Protocol.TCP:
        parts.append(f"{counted(path.recovered_drops, 'drop')} made good")
    if path.incomplete:
        parts.append("incomplete: records were lost")
    if path.waited and path.verdict is not Verdict.FORWARDED:
        parts.append(path.waited)
    return "  " + ", ".join(parts) if parts else ""


def stream_text(stream: Stream) -> str:
    """What a connection carried, in a line."""
    parts = [f"{stream.request_bytes} bytes asked, {stream.reply_bytes} back"]
    if stream.first_reply_ns is not None:
        parts.append(f"the first after {duration(stream.first_reply_ns)}")
    if stream.gap_p50_ns is not None:
        parts.append(f"gaps {duration(stream.gap_p50_ns)} (p50), {duration(stream.gap_p99_ns or 0)} (p99)")
    if stream.silence is not None:
        parts.append(silence_text(stream.silence))
    parts.append(f"{ending_text(stream)} after {duration(stream.lasted_ns)}")
    return ", ".join(parts)


def _add_ending(branch: Tree, path: PacketPath) -> None:
    """Why the path ended where it did, each statement with how it is known."""
    drop = path.drop
    if drop is not None:
        end = branch.add(
            line(Text("✗ ", style="bold red"), Text(drop_place(drop), style="red"), " ", certainty(Certainty.OBSERVED))
        )
        if drop.explanation:
            end.add(line(drop.explanation, " ", certainty(drop.certainty)))
        if drop.rule:
            end.add(
                line(Text(printable(drop.rule), style="cyan"), " ", certainty(drop.rule_certainty or drop.certainty))
            )
        for item in drop.evidence[1:8]:
            end.add(evidence(item))
        if drop.remedy is not None:
            end.add(line(Text("what would admit it: ", style="green"), drop.remedy.text))
    for finding in path.findings:
        end = branch.add(line(Text("! ", style="bold yellow"), finding.title))
        for item in finding.evidence:
            end.add(evidence(item))
