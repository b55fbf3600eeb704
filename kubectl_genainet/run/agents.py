"""What agents are asked once: their nodes' reports, their rulesets, the rules that the kernels name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import AgentFailed, Event, LostEvents, Progress
from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.fabric import FabricReport
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.stream import Dial, Streams, fabric_reports, node_reports, rulesets
from kubectl_genainet.wire import FilterEntry, TraceRequest

T = TypeVar("T")
Warn = Callable[[str], None]
LOAD_S = 40.0  # how long an agent may say nothing of how it loads its probes
# Stages that an agent reports every few seconds until its probes are attached.
PREPARING = frozenset({"loading", "compiling"})
GRACE_S = 10.0  # for agents to end by themselves when their time is over
GOODBYE_S = 5.0  # and, when they were asked to, to send their accounts, since their last record
LAST_S = 30.0  # and for all that
POLL_S = 0.2
UNREADABLE = 5  # things at most that are said of a node


@dataclass(frozen=True, slots=True)
class Agents:
    """How the agents are reached: a dialler a node, and the token to show them ("" for none)."""

    dials: Mapping[str, Dial]
    token: str = field(default="", repr=False)


def read_rulesets(
    agents: Agents, warn: Warn, failed: set[str], *, conntrack: bool = False
) -> dict[str, list[RulesetDump]]:
    """Every node's rulesets. A node that fails is warned of, left out and added to `failed`.

    Raises GenainetError where all fail.
    """
    return _answered(rulesets(agents.dials, agents.token, conntrack=conntrack), warn, failed)


def read_nodes(agents: Agents, warn: Warn, failed: set[str]) -> dict[str, NodeReport]:
    """Every node's report; failures as in `read_rulesets`. What a node could not read is warned of."""
    reports = _answered(node_reports(agents.dials, agents.token), warn, failed)
    for node, report in reports.items():
        for text in report.unreadable[:UNREADABLE]:
            warn(f"node {node}: unreadable: {text}")
        if len(report.unreadable) > UNREADABLE:
            warn(f"node {node}: unreadable: {len(report.unreadable) - UNREADABLE} other things")
    return reports


def read_fabrics(
    agents: Agents, addresses: Mapping[str, Sequence[str]], warn: Warn, failed: set[str]
) -> dict[str, FabricReport]:
    """The fabric of each node of `addresses` that has an agent; failures as in `read_rulesets`."""
    asked = {node: ips for node, ips in addresses.items() if node in agents.dials}
    return _answered(fabric_reports(agents.dials, asked, agents.token), warn, failed)


def read_exact(
    agents: Agents, filters: tuple[FilterEntry, ...], seconds: float, warn: Warn, failed: set[str]
) -> list[RuleHit]:
    """The rules that the kernels of all nodes name for packets to these addresses within the time."""
    request = TraceRequest(filters=filters, probes=(), exact=True, rulesets=False, timeout_s=seconds)
    streams = Streams(agents.dials, dict.fromkeys(agents.dials, request), agents.token)
    hits: list[RuleHit] = []
    failures: list[AgentFailed] = []
    try:
        for event in records(streams, len(agents.dials), seconds):
            match event:
                case RuleHit() as hit:
                    hits.append(hit)
                case AgentFailed() as failure:
                    failures.append(failure)
                case Progress(stage="missing") as progress:
                    warn(f"node {progress.node}: {progress.detail}")
                case LostEvents() as lost:
                    warn(f"node {lost.node}: {lost.count} messages lost ({lost.where})")
        failures += streams.overdue()
    finally:
        streams.close()
    for failure in failures:
        failed.add(failure.node)
        warn(f"node {failure.node}: {failure.message}")
    if failures and len(failures) == len(agents.dials):
        raise GenainetError(failures[0].message, failures[0].hint)
    return hits


def records(streams: Streams, nodes: int, seconds: float) -> Iterator[Event]:
    """What agents send within the time, which begins when all of them watch, or have failed: one that says that it is at work
    is waited for. Then they are asked to end."""
    deadline = time.monotonic() + LOAD_S + seconds
    settled: set[str] = set()
    while not streams.done and time.monotonic() < deadline:
        event = streams.poll(POLL_S)
        if event is None:
            continue
        yield event
        if not isinstance(event, Progress | AgentFailed) or len(settled) == nodes:
            continue
        if isinstance(event, AgentFailed) or event.stage == "attached":
            settled.add(event.node)
            deadline = time.monotonic() + seconds + GRACE_S if len(settled) == nodes else deadline
        elif event.stage in PREPARING:
            deadline = max(deadline, time.monotonic() + LOAD_S + seconds)
    streams.finish()
    begun = heard = time.monotonic()
    while not streams.done and (now := time.monotonic()) < begun + LAST_S and now < heard + GOODBYE_S:
        event = streams.poll(POLL_S)
        if event is not None:
            heard = time.monotonic()
            yield event


def _answered(answers: Mapping[str, T | GenainetError], warn: Warn, failed: set[str]) -> dict[str, T]:
    good: dict[str, T] = {}
    failures: list[GenainetError] = []
    for node, answer in sorted(answers.items()):
        if isinstance(answer, GenainetError):
            failures.append(answer)
            failed.add(node)
        else:
            good[node] = answer
    if failures and not good:
        raise failures[0]
    for failure in failures:
        warn(failure.message)
    return good
