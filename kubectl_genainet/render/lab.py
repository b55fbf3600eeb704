"""How labs are shown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from kubectl_genainet.model.results.lab import LabPod, LabStatus
from kubectl_genainet.render.table import Column, table
from kubectl_genainet.render.text import make_console, printable

POD_COLUMNS: tuple[Column[LabPod], ...] = (
    Column("NAMESPACE", lambda p: p.namespace),
    Column("NAME", lambda p: p.name),
    Column("READY", lambda p: "yes" if p.ready else "no", style=lambda p: "" if p.ready else "yellow"),
    Column("NODE", lambda p: p.node),
    Column("IP", lambda p: ", ".join(p.ips)),
    Column("NETNS", lambda p: p.netns, wide=True),
)
LAB_COLUMNS: tuple[Column[LabStatus], ...] = (
    Column("NAME", lambda lab: lab.name),
    Column("STATE", lambda lab: lab.state, style=lambda lab: "green" if lab.state == "up" else "red"),
    Column("NODES", lambda lab: str(len(lab.nodes)), right=True),
    Column("PROXY", lambda lab: lab.proxy_mode),
    Column("OVERLAY", lambda lab: lab.overlay),
    Column("FAMILIES", lambda lab: ", ".join(lab.ip_families)),
    Column("INCIDENTS", lambda lab: ", ".join(lab.incidents)),
)

INCIDENT_COLUMNS: tuple[Column[tuple[str, str]], ...] = (
    Column("INCIDENT", lambda i: i[0]),
    Column("FAULT", lambda i: i[1]),
)


def print_incidents(incidents: Sequence[tuple[str, str]]) -> None:
    """(name, summary) of each."""
    make_console().print(table(INCIDENT_COLUMNS, incidents))


def print_labs(labs: Sequence[LabStatus]) -> None:
    console = make_console()
    if labs:
        console.print(table(LAB_COLUMNS, labs))
    else:
        make_console(stderr=True).print("No lab is up. Bring one up: kubectl genainet lab up")


def print_status(lab: LabStatus, *, wide: bool = False) -> None:
    """Its modes, agents, problems and pods."""
    console = make_console()
    console.print(table(LAB_COLUMNS, [lab]))
    console.print(f"\nNetworkPolicies are enforced by {lab.policy_enforcer}.", markup=False)
    agents = f"on {', '.join(lab.agents)}" if lab.agents else "none runs"
    console.print(Text(f"Agents: {printable(agents)}."))
    for problem in lab.problems:
        console.print(Text(f"Problem: {printable(problem)}.", style="red"))
    if lab.pods:
        console.print()
        console.print(table(POD_COLUMNS, lab.pods, wide=wide))
