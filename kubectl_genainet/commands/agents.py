"""How the commands reach the agents: of a lab by unix sockets, of a cluster through the API server."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

import click

from kubectl_genainet.commands.options import Source
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import AgentFailed, LostEvents, Progress
from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.render.text import printable
from kubectl_genainet.stream import Dial, Streams, node_reports, rulesets
from kubectl_genainet.wire import FilterEntry, TraceRequest

T = TypeVar("T")


def _warn(text: str) -> None:
    click.echo(f"warning: {printable(text)}", err=True)


def _unix(path: str) -> Dial:
    def dial() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return sock

    return dial


def agents(source: Source) -> tuple[dict[str, Dial], str]:
    """A dialler for each node that has an agent, and the token to show them ("" in the lab)."""
    if source.lab:
        from kubectl_genainet.lab.state import lab_agents

        return {node: _unix(path) for node, path in lab_agents(source.lab).items()}, ""
    from kubectl_genainet.kube.agents.forward import cluster_agents

    return cluster_agents(context=source.context, kubeconfig=source.kubeconfig)


def read_rulesets(
    source: Source, warn: Callable[[str], None] = _warn, *, conntrack: bool = False
) -> dict[str, list[RulesetDump]]:
    """Every node's rulesets, live; nodes that fail are warned of and left out. Raises GenainetError where all fail."""
    return _whole(rulesets(*agents(source), conntrack=conntrack), warn)


def read_nodes(source: Source, warn: Callable[[str], None] = _warn) -> dict[str, NodeReport]:
    """Every node's namespaces, live; nodes that fail are warned of and left out. Raises GenainetError where all fail."""
    return _whole(node_reports(*agents(source)), warn)


def read_exact(source: Source, filters: tuple[FilterEntry, ...], seconds: float) -> list[RuleHit]:
    """The rules that the kernels of all nodes name for packets to these addresses within the time."""
    dials, token = agents(source)
    request = TraceRequest(filters=filters, probes=(), exact=True, rulesets=False, timeout_s=seconds)
    streams = Streams(dials, dict.fromkeys(dials, request), token)
    hits: list[RuleHit] = []
    failures: list[AgentFailed] = []
    deadline = time.monotonic() + seconds + 10
    try:
        while not streams.done and time.monotonic() < deadline:
            match streams.poll(0.2):
                case RuleHit() as hit:
                    hits.append(hit)
                case AgentFailed() as failure:
                    failures.append(failure)
                    _warn(f"node {failure.node}: {failure.message}")
                case Progress(stage="missing") as progress:
                    _warn(f"node {progress.node}: {progress.detail}")
                case LostEvents() as lost:
                    _warn(f"node {lost.node}: {lost.count} messages lost ({lost.where})")
    finally:
        streams.close()
    if failures and len(failures) == len(dials):
        raise GenainetError(failures[0].message, failures[0].hint)
    return hits


def _whole(answers: dict[str, T | GenainetError], warn: Callable[[str], None]) -> dict[str, T]:
    good = {}
    failures = []
    for node, answer in sorted(answers.items()):
        if isinstance(answer, GenainetError):
            failures.append(answer)
        else:
            good[node] = answer
    if failures and not good:
        raise failures[0]
    for failure in failures:
        warn(failure.message)
    return good
