"""What kube-proxy and others have programmed on the nodes, as it was read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Finding
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.proxy.drift import compare
from kubectl_genainet.proxy.ruleset import Ruleset, parse_ruleset


class NodesRules:
    """The nodes' dumps, which are parsed once, and compared once with the same objects."""

    def __init__(self, dumps: Iterable[RulesetDump] = ()) -> None:
        self.dumps = tuple(dumps)
        self._compared: tuple[ClusterSnapshot, tuple[Finding, ...]] | None = None

    @cached_property
    def by_node(self) -> Mapping[str, tuple[RulesetDump, ...]]:
        index: dict[str, list[RulesetDump]] = defaultdict(list)
        for dump in self.dumps:
            index[dump.node].append(dump)
        return {node: tuple(dumps) for node, dumps in sorted(index.items())}

    @cached_property
    def parsed(self) -> Mapping[str, Ruleset]:
        return {node: parse_ruleset(dumps) for node, dumps in self.by_node.items()}

    def drift(self, snapshot: ClusterSnapshot) -> tuple[Finding, ...]:
        """What the rules engine says of the rules against the API."""
        if self._compared is None or self._compared[0] is not snapshot:
            self._compared = snapshot, tuple(compare(snapshot, self.parsed))
        return self._compared[1]
