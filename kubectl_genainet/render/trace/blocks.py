"""Groups of connections as blocks: who, how many, how long, why, and one example path; failures first."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group as Rows
from rich.console import RenderableType
from rich.text import Text

from kubectl_genainet.model.finding import Certainty, Evidence, Remedy, counted, listed
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.measure import Quantiles
from kubectl_genainet.model.results.path import Drop, PacketPath
from kubectl_genainet.render.paragraphs import command_lines, hanging
from kubectl_genainet.render.text import duration, moment, printable
from kubectl_genainet.render.trace.hops import hop_lines
from kubectl_genainet.render.trace.parts import VERDICT_STYLE, certainty, line
from kubectl_genainet.trace.shown.groups import Group, service_name

EVIDENCE = 4  # of a block; `--each` and `-o json` have all
NAMED = 4  # workloads by name
NARROW = 60
RULE = 20  # a rule is cut so that it stays on its line beside so many characters
HOPS_FOR = 2  # so many blocks show their example hop by hop, the others its ends


def blocks(groups: list[Group], total: int, width: int) -> list[RenderableType]:
    """A block a group; a blank line stands around those with which something is wrong."""
    shown: list[RenderableType] = []
    wrong = sum(group.wrong for group in groups)
    for number, group in enumerate(groups):
        hops = number < HOPS_FOR if group.wrong else not wrong and number < HOPS_FOR
        if shown and (group.wrong or groups[number - 1].wrong):
            shown.append(Text())
        shown.append(block(group, total, width, hops=hops))
    return shown


def block(group: Group, total: int, width: int, *, hops: bool) -> Rows:
    """One group; `total` is the number of all connections, `hops` shows the example device by device."""
    lines = [*hanging(_head(group, total), width, hang=2), *hanging(_ends(group), width, indent=2, hang=2)]
    if not group.wrong and not hops:
        lines = list(hanging(_in_one_line(group), width, hang=2))
    lines += [part for text in _times(group) for part in hanging(line(text), width, indent=2)]
    lines += _cause(group, width)
    if hops and group.example.hops and width >= NARROW:
        lines += hanging(_example(group.example), width, indent=2, hang=2)
        lines += [part for text in hop_lines(group.example, width - 4) for part in hanging(text, width, indent=4)]
    elif group.wrong:
        lines += hanging(_example(group.example), width, indent=2, hang=2)
    return Rows(*lines)


def _head(group: Group, total: int) -> Text:
    mark = "✗ " if group.failed else "! " if group.wrong else "✓ "
    style = VERDICT_STYLE[group.verdict] if group.failed or not group.wrong else "bold yellow"
    of = f" of {total}" if group.count != total else ""
    head = line(Text(f"{mark}{group.verdict.value.upper()}", style=style), f"  {counted(group.count, 'connection')}")
    if of:
        head = line(Text(f"{mark}{group.verdict.value.upper()}", style=style), f"  {group.count}{of} connections")
    return line(head, _when(group))


def _when(group: Group) -> Text:
    if not group.first:
        return Text()
    until = f" to {moment(group.last)}" if moment(group.last) != moment(group.first) else ""
    return Text(f"  {moment(group.first)}{until}", style="dim")


def _in_one_line(group: Group) -> Text:
    mark = Text(f"✓ {group.verdict.value.upper()}", style=VERDICT_STYLE[group.verdict])
    return line(mark, f"  {group.count}", _when(group), "  ", _ends(group))


def _ends(group: Group) -> Text:
    names = list(group.clients)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    clients = ", ".join(names[:NAMED]) + more
    pods = len(group.client_pods)
    clients += f" ({pods} pods)" if pods > len(names) else ""
    backends = group.backend or "no backend"
    if len(group.backend_pods) > 1:
        backends += f" ({len(group.backend_pods)} pods)"
    parts = [clients, service_name(group.service), backends]
    return Text(printable(" → ".join(part for part in parts if part)), style="bold")


def _times(group: Group) -> Iterator[str]:
    parts = [
        _quantiles(what, quantiles)
        for what, quantiles in (("handshake", group.handshake), ("response", group.response))
    ]
    parts.append(counted(group.retransmits, "retransmit") if group.retransmits else "")
    if group.failed and group.example.waited:
        parts.append(group.example.waited)
    if any(parts):
        yield "; ".join(part for part in parts if part)


def _quantiles(what: str, of: Quantiles) -> str:
    if not of.count:
        return ""
    return f"{what} {duration(of.p50)}" if of.count == 1 else f"{what} {duration(of.p50)} p50, {duration(of.p99)} p99"


def _cause(group: Group, width: int) -> Iterator[Text]:
    path, drop = group.example, group.example.drop
    for text in _reasons(drop, width) if drop is not None else ():
        yield from hanging(text, width, indent=2, hang=2)
    if drop is not None:
        yield from _remedy(drop.remedy, width, indent=2)
    for finding in path.findings:
        yield from hanging(line(Text("! ", style="bold yellow"), finding.title), width, indent=2, hang=2)
        for item in finding.evidence[:EVIDENCE]:
            yield from hanging(evidence(item), width, indent=4, hang=2)
        if elsewhere := group.elsewhere(finding):
            yield from hanging(line(f"the same in {listed(elsewhere)}"), width, indent=4, hang=2)
        yield from _remedy(finding.remedy, width, indent=4)


def _remedy(remedy: Remedy | None, width: int, *, indent: int) -> Iterator[Text]:
    if remedy is not None:
        yield from hanging(line(Text("do: ", style="green"), remedy.text), width, indent=indent, hang=4)
        yield from command_lines(remedy.command, width, indent=indent + 4)


def _reasons(drop: Drop, width: int) -> Iterator[Text]:
    if drop.explanation:
        yield line(Text(printable(drop.explanation), style="bold"), " ", certainty(drop.certainty))
    yield line(Text(drop_place(drop), style="red"), " ", certainty(Certainty.OBSERVED))
    yield from map(evidence, drop.evidence[1 : 1 + EVIDENCE])
    if drop.rule:
        room = max(RULE, width - RULE)
        rule = drop.rule if len(drop.rule) <= room else f"{drop.rule[:room]}…"
        yield line(Text(printable(rule), style="cyan"), " ", certainty(drop.rule_certainty or drop.certainty))


def drop_place(drop: Drop) -> str:
    """The kernel's reason, and where it freed the packet."""
    place = [
        f"hook {drop.hook}" if drop.hook else "",
        drop.device or "",
        drop.location,
    ]
    return printable(f"{drop.reason} in {drop.pod or drop.node or '?'} ({', '.join(p for p in place if p)})")


def evidence(item: Evidence) -> Text:
    return line(item.statement, " ", certainty(item.certainty))


def _example(path: PacketPath) -> Text:
    client, service, backend = path.flow.client, path.flow.service, path.backend
    ends = [address_text(client.ip, client.port)]
    if service is not None:
        ends.append(address_text(service.ip, service.port))
    if backend is not None:
        ends.append(address_text(backend.ip, backend.port))
    when = f", {moment(path.time, whole=False)}" if path.time else ""
    return line(Text(printable(f"for example {' → '.join(ends)}{when}"), style="dim"))
