"""`matrix`: who may reach whom, and what a change of policies would change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubectl_genainet.policy import PolicyEngine
from kubectl_genainet.policy.enforcers import Enforcer, named_enforcer
from kubectl_genainet.policy.reach.grid import (
    Difference,
    Grid,
    Port,
    classes_in,
    declared_in,
    differences,
    grid_of,
    with_applied,
)
from kubectl_genainet.policy.reach.outside import BeyondCell, beyond_of
from kubectl_genainet.policy.reach.outside_changes import beyond_differences
from kubectl_genainet.policy.reach.reasons import reasons_of
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.policies.explain import warn_of_unevaluated
from kubectl_genainet.run.sources.base import Source


@dataclass(frozen=True, slots=True)
class MatrixOptions:
    """`port` None: those that each destination declares. `protocol` "": TCP with a port, else all."""

    port: int | None = None
    protocol: str = ""
    enforcer: str = ""
    reasons: bool = False

    @property
    def named_enforcer(self) -> Enforcer | None:
        return named_enforcer(self.enforcer) if self.enforcer else None

    @property
    def chosen_protocol(self) -> str:
        return (self.protocol or ("TCP" if self.port else "")).upper()


@dataclass(frozen=True, slots=True)
class MatrixAnswer:
    """Who may reach whom: pods among themselves (`grid`) and what is beyond them.

    `reasons` says why, for cells of the grid by the numbers of their groups, where they were asked for.
    """

    grid: Grid
    beyond: tuple[BeyondCell, ...]
    enforcer: Enforcer
    reasons: Mapping[tuple[int, int], str]


def matrix(source: Source, options: MatrixOptions, warn: Warn = lambda _: None) -> MatrixAnswer:
    """Who may reach whom in the source's namespace, or in all."""
    engine = PolicyEngine(source.snapshot(), options.named_enforcer)
    warn_of_unevaluated(engine, warn)
    grid = grid_of(engine, namespace=source.scope_namespace, protocol=options.chosen_protocol, port=options.port)
    reasons = reasons_of(engine, grid) if options.reasons else {}
    return MatrixAnswer(grid, beyond_of(engine, grid), engine.enforcer, reasons)


def matrix_changes(
    source: Source, changed: Source, options: MatrixOptions, warn: Warn = lambda _: None
) -> list[Difference]:
    """The verdicts that differ with the objects of `changed`: applied on top, or, if they hold pods, by themselves.

    Raises InputError where neither state has pods in the namespace.
    """
    before = PolicyEngine(source.snapshot(), options.named_enforcer)
    after = PolicyEngine(with_applied(before.snapshot, changed.snapshot()), before.enforcer)
    warn_of_unevaluated(after, warn)
    namespace, port = source.scope_namespace, options.port
    classes_in((before, after), namespace)
    ports: set[Port] = (
        {(options.chosen_protocol, port)} if port else declared_in((before, after), namespace, options.chosen_protocol)
    )
    between = differences(before, after, namespace=namespace, ports=ports, declared_only=port is None)
    asked_ports = tuple(ports) if port else ()
    differing = [*between, *beyond_differences(before, after, namespace=namespace, ports=asked_ports)]
    return sorted(differing, key=lambda d: (d.source, d.destination, d.protocol, d.port))
