"""What `doctor` is given to look at: the cluster's objects, what nodes know, DNS as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import click

from kubectl_genainet.commands.options import Source
from kubectl_genainet.doctor.inputs import NOTHING_MEASURED, DnsMeasurement
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import Event, Seen
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.render.text import printable


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Everything that the checks may look at."""

    snapshot: ClusterSnapshot
    reports: tuple[NodeReport, ...] = ()
    rulesets: tuple[RulesetDump, ...] = ()
    packets: tuple[Seen, ...] = ()
    measured: DnsMeasurement = NOTHING_MEASURED


def gather(source: Source, seconds: float, say: Callable[[str], None]) -> Knowledge:
    """Reads the source. Live, with agents, DNS is watched for `seconds`; 0 for not at all. `say` is told what goes on."""
    say("reading the cluster's state")
    if source.bundle:
        return _recorded(source.bundle)
    from kubectl_genainet.commands.source import load_snapshot

    snapshot = load_snapshot(source)
    if source.manifests:
        return Knowledge(snapshot)
    say("asking the agents")
    return _of_agents(source, snapshot, seconds, say)


def _recorded(path: str) -> Knowledge:
    from kubectl_genainet.bundle import read_bundle
    from kubectl_genainet.commands.dns_measured import dns_measured

    bundle = read_bundle(path)
    return Knowledge(
        bundle.snapshot,
        _latest(bundle.events),
        _first_rulesets(bundle.events),
        tuple(e for e in bundle.events if isinstance(e, Seen)),
        dns_measured(bundle),
    )


def _latest(events: Iterable[Event]) -> tuple[NodeReport, ...]:
    """A recording has several reports of a node: its counters and queues are those of the last."""
    return tuple({e.node: e for e in events if isinstance(e, NodeReport)}.values())


def _first_rulesets(events: Iterable[Event]) -> tuple[RulesetDump, ...]:
    """The rules of the moment that the snapshot is of: later ones would differ from it by what changed since."""
    found: dict[tuple[str, str], RulesetDump] = {}
    for event in events:
        if isinstance(event, RulesetDump):
            found.setdefault((event.node, event.source), event)
    return tuple(found.values())


def _of_agents(source: Source, snapshot: ClusterSnapshot, seconds: float, say: Callable[[str], None]) -> Knowledge:
    """What the agents tell; without agents only the objects, and the checks that need more say so."""
    from kubectl_genainet.commands.agents import read_nodes, read_rulesets

    def warn(text: str) -> None:
        click.echo(f"warning: {printable(text)}", err=True)

    try:
        reports = tuple(read_nodes(source, warn).values())
        dumps = tuple(dump for found in read_rulesets(source, warn).values() for dump in found)
    except GenainetError as error:
        warn(f"what nodes know is not checked: {error.message}")
        return Knowledge(snapshot)
    if seconds:
        from kubectl_genainet.commands.dns_measured import measure_dns

        say(f"measuring DNS for {seconds:g} s")
        measured = measure_dns(source, snapshot, seconds, say)
    else:
        measured = DnsMeasurement(absent="DNS was not measured (--measure 0)")
    return Knowledge(snapshot, reports, dumps, measured=measured)
