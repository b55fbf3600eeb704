"""`matrix`: who may reach whom, and what a change of policies would change."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.policy import PolicyEngine
from kubectl_genainet.policy.reach.grid import Difference, Grid, Port, declared_in, differences, grid_of, with_applied
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.explain import warn_of_unevaluated
from kubectl_genainet.run.sources.base import Source


@dataclass(frozen=True, slots=True)
class MatrixOptions:
    """`port` None: those that each destination declares. `protocol` "": TCP with a port, else all."""

    port: int | None = None
    protocol: str = ""

    @property
    def chosen_protocol(self) -> str:
        return (self.protocol or ("TCP" if self.port else "")).upper()


def matrix(source: Source, options: MatrixOptions, warn: Warn = lambda _: None) -> Grid:
    """Who may reach whom in the source's namespace, or in all."""
    engine = PolicyEngine(source.snapshot())
    warn_of_unevaluated(engine, warn)
    return grid_of(engine, namespace=source.scope_namespace, protocol=options.chosen_protocol, port=options.port)


def matrix_changes(
    source: Source, changed: Source, options: MatrixOptions, warn: Warn = lambda _: None
) -> list[Difference]:
    """The verdicts that differ with the objects of `changed`: applied on top, or, if they hold pods, by themselves."""
    before = PolicyEngine(source.snapshot())
    after = PolicyEngine(with_applied(before.snapshot, changed.snapshot()))
    warn_of_unevaluated(after, warn)
    namespace, port = source.scope_namespace, options.port
    ports: set[Port] = (
        {(options.chosen_protocol, port)} if port else declared_in((before, after), namespace, options.chosen_protocol)
    )
    return differences(before, after, namespace=namespace, ports=ports)
