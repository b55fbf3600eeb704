"""What stands around a verdict: who enforces the policies, which deviation of it decided, and the way to DNS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict

from rich.console import Console
from rich.text import Text

from kubectl_genainet.policy.enforcers import Deviation, Enforcer, EnforcerName
from kubectl_genainet.policy.flows.dns_way import DnsWay
from kubectl_genainet.policy.model import PolicyVerdict
from kubectl_genainet.render.paragraphs import print_prose
from kubectl_genainet.render.text import printable

_DNS_STYLE = {PolicyVerdict.ALLOW: "dim", PolicyVerdict.DENY: "bold red", PolicyVerdict.UNKNOWN: "yellow"}


class DeviationJson(TypedDict):
    text: str
    source: str


class EnforcerJson(TypedDict):
    """Who enforces the policies; `deviations` are those that decide this flow."""

    name: str
    evidence: str
    inert: bool
    says: str
    deviations: list[DeviationJson]


class DnsWayJson(TypedDict):
    """Whether the client may ask its resolver."""

    verdict: str
    resolver: str
    says: str


class CircumstancesJson(TypedDict):
    enforcer: EnforcerJson
    dns: NotRequired[DnsWayJson]


def enforcer_text(enforcer: Enforcer) -> str:
    """One sentence on who enforces the policies."""
    evidence = f" ({enforcer.evidence})" if enforcer.evidence else ""
    if enforcer.stopped:
        return f"{enforcer.title}{evidence} enforces no policy: {enforcer.stopped}. Every flow passes."
    if enforcer.inert:
        return f"Nothing enforces policies on this cluster{evidence}: every policy is inert, every flow passes."
    if enforcer.name is EnforcerName.UNKNOWN:
        return "The objects do not show who enforces the policies (--enforcer names it): judged by the API."
    return f"Policies are enforced by {enforcer.title}{evidence}."


def print_enforcer(console: Console, enforcer: Enforcer) -> None:
    style = "bold yellow" if enforcer.inert else "dim"
    print_prose(console, Text(printable(enforcer_text(enforcer)), style=style))


def print_circumstances(
    console: Console, enforcer: Enforcer, deviations: Sequence[Deviation], dns: DnsWay | None
) -> None:
    """The deviations that decided one flow, and whether its client can look up the name."""
    for deviation in deviations:
        text = f"decided by how {enforcer.title} deviates from the API: {deviation.text} ({deviation.source})"
        print_prose(console, Text(printable(text), style="yellow"), indent=2)
    if dns is not None:
        print_prose(console, Text(printable(dns.text), style=_DNS_STYLE[dns.verdict]), indent=2)


def circumstances_json(enforcer: Enforcer, deviations: Sequence[Deviation], dns: DnsWay | None) -> CircumstancesJson:
    value: CircumstancesJson = {
        "enforcer": {
            "name": enforcer.name.value,
            "evidence": enforcer.evidence,
            "inert": enforcer.inert,
            "says": enforcer_text(enforcer),
            "deviations": [{"text": d.text, "source": d.source} for d in deviations],
        }
    }
    if dns is not None:
        value["dns"] = {"verdict": dns.verdict.value, "resolver": dns.resolver, "says": dns.text}
    return value
