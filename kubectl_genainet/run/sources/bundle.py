"""A bundle: what an earlier run recorded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from kubectl_genainet.bundle import Bundle, read_bundle
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import Source


class BundleSource(Source):
    """A recorded bundle. The file is read once, at the first question."""

    live = False

    def __init__(self, path: str | Path, *, namespace: str = "", all_namespaces: bool = False) -> None:
        super().__init__(namespace=namespace, all_namespaces=all_namespaces)
        self.path = path
        self._bundle: Bundle | None = None

    @property
    def recording(self) -> Bundle:
        if self._bundle is None:
            self._bundle = read_bundle(self.path)
        return self._bundle

    def _read(self) -> ClusterSnapshot:
        return self.recording.snapshot

    def node_reports(self, warn: Warn) -> Mapping[str, NodeReport]:
        """Of several reports of a node the last: its counters and queues are the newest."""
        return {event.node: event for event in self.recording.events if isinstance(event, NodeReport)}

    def rulesets(self, warn: Warn, *, conntrack: bool = False) -> Mapping[str, Sequence[RulesetDump]]:
        """Everything that was recorded. Raises GenainetError where no ruleset was."""
        dumps: dict[str, list[RulesetDump]] = {}
        for event in self.recording.events:
            if isinstance(event, RulesetDump):
                dumps.setdefault(event.node, []).append(event)
        if not dumps:
            raise GenainetError(
                f"the bundle {self.path} holds no rulesets",
                hint="Record one with `kubectl genainet trace TARGET --record FILE`.",
            )
        return dumps

    def node_addresses(self) -> Mapping[str, Sequence[str]]:
        """From the nodes' reports where there are any, else from the API objects."""
        reports = self.node_reports(lambda _: None)
        known = {r.node: [ip for ns in r.namespaces if ns.host for ip in ns.addresses] for r in reports.values()}
        return known or super().node_addresses()

    @property
    def _own_options(self) -> tuple[tuple[str, ...], ...]:
        return (("--from", shlex.quote(str(self.path))),)

    def __str__(self) -> str:
        return f"the bundle {self.path}"
