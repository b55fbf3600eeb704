"""What a node's firewall refuses of a Service, and the commands that let it through, for a person."""

from __future__ import annotations

from rich.text import Text

from kubectl_genainet.proxy.firewall.opening import HostFirewall, Refusal
from kubectl_genainet.render.text import printable

_WHO = {"pod": "pods", "node": "the node itself", "outside": "outside"}


def host_firewall_text(firewall: HostFirewall) -> Text:
    """One paragraph a Service and node: what is refused by which rule, then the commands and what their trial gave."""
    node = f" on {firewall.node}" if firewall.node else ""
    out = Text(f"{printable(firewall.service)}{printable(node)}: ", style="bold")
    out.append(_headline(firewall))
    for refusal in firewall.refusals:
        out.append(f"\n  {_refusal(refusal)}")
    for what in firewall.unknown:
        out.append(f"\n  not known: {printable(what)}", style="yellow")
    for change in firewall.changes:
        where = "at its end" if change.position < 0 else f"as rule {change.position + 1}"
        out.append(f"\n  {change.firewall}: {printable(change.rule)}, in {change.table} {change.chain} {where}")
        for command in change.commands:
            out.append(f"\n    {printable(command)}", style="bold")
    if firewall.trial:
        out.append(f"\n  {firewall.trial}", style="green")
    return out


def _headline(firewall: HostFirewall) -> str:
    match firewall.verdict:
        case "passes":
            return "the node's rules let all of it through"
        case "other":
            return "refused, by what is no firewall of the host"
        case "unknown":
            return "it can't be told whether the node's rules let it through"
    return "refused by the node's firewall" + ("" if firewall.changes else "; no change was found that lets it through")


def _refusal(refusal: Refusal) -> str:
    what = "replies to connections" if refusal.replies else "connections"
    author = f" ({refusal.author})" if refusal.author else ""
    rule = f"{refusal.table} {refusal.chain} {refusal.index or 'policy'}{author}: {refusal.rule}"
    verdict = refusal.verdict.lower()
    return f"{what} from {_WHO[refusal.client]} to {refusal.address}: {verdict} by {printable(rule)}"
