"""Who and what belongs to a target: its Services, its pods and their workloads, who calls it, their nodes and namespaces."""

from __future__ import annotations

from dataclasses import dataclass, field

from kubectl_genainet.model.results.timeline import SeriesName, TimelineChangeKind
from kubectl_genainet.timeline.changes import Noted


@dataclass(slots=True)
class Circle:
    """Names are "namespace/name". Without a target everything of `namespaces` belongs (all: none are named)."""

    everything: bool = False
    services: set[str] = field(default_factory=set)
    workloads: set[str] = field(default_factory=set)
    pods: set[str] = field(default_factory=set)
    callers: set[str] = field(default_factory=set)  # workloads
    nodes: dict[str, str] = field(default_factory=dict)  # node -> whose
    namespaces: set[str] = field(default_factory=set)

    def touch(self, noted: Noted, rose: frozenset[SeriesName]) -> tuple[int, str]:
        """(how near the change is to the target, the nearest 0; what it touches, "" for nothing)."""
        about = noted.object
        name = f"{about.namespace}/{about.name}" if about is not None else ""
        if about is not None and about.kind == "Service" and name in self.services:
            return 0, "the Service" if noted.kind is TimelineChangeKind.SERVICE else "the Service's endpoints"
        for workloads, relation in ((self.workloads, "the backends"), (self.callers, "a caller")):
            if name in workloads or noted.workload in workloads or (name in self.pods and about is not None):
                return 0, relation
        if noted.kind is TimelineChangeKind.POLICY and about is not None:
            if not about.namespace:
                return 0, "policies of all namespaces"
            return (0, "policies of its namespace") if self._in_scope(about.namespace) else (2, "")
        if noted.kind is TimelineChangeKind.COREDNS:
            return (0 if SeriesName.DNS in rose else 1), "name lookup"
        if (
            noted.kind in (TimelineChangeKind.NODE, TimelineChangeKind.RULES, TimelineChangeKind.COUNTER)
            and noted.node in self.nodes
        ):
            return 1, f"the node of {self.nodes[noted.node]}"
        if self.everything and (about is None or self._in_scope(about.namespace)):
            return 1, "this namespace" if self.namespaces else "the cluster"
        if noted.kind is TimelineChangeKind.GATEWAY and about is not None and self._in_scope(about.namespace):
            return 1, "its namespace"
        return 2, ""

    def _in_scope(self, namespace: str) -> bool:
        return not self.namespaces or namespace in self.namespaces
