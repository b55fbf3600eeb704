"""`fabric`: which GPU pods talk by RDMA and which by kernel TCP, from two readings of their nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kubectl_genainet.errors import ExitStatus, GenainetError, InputError
from kubectl_genainet.fabric.judge import conclude
from kubectl_genainet.fabric.pods import WatchedPod, members
from kubectl_genainet.fabric.rates import ReportPair
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.fabric import FabricReport
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.results.fabric import FabricSummary
from kubectl_genainet.model.target import NODE_WORDS, TargetKind, not_found, parse_target
from kubectl_genainet.policy.flows.targets import pods_named
from kubectl_genainet.run.agents import read_fabrics
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.view import Reporter

MAX_PODS = 200  # of a node


@dataclass(frozen=True, slots=True)
class FabricOptions:
    """`target` is pod/NAME, job/NAME (and the other kinds that make pods) or node/NAME; "" for every GPU pod in scope.

    `seconds` are between the two readings."""

    target: str = ""
    seconds: float = 5.0


def fabric(source: Source, options: FabricOptions, reporter: Reporter) -> FabricSummary:
    """Raises GenainetError where the source has no agents, and for a target that is not there."""
    agents = source.agents()
    snapshot = source.snapshot()
    chosen, nodes = _chosen(source, snapshot, options.target)
    addresses = _addresses(chosen, nodes)
    for node in sorted(addresses.keys() - agents.dials.keys()):
        source.failed_nodes.add(node)
        reporter.warn(f"node {node} has no agent: what its pods do is not known")
    if not addresses.keys() & agents.dials.keys():
        raise GenainetError("there are no GPU pods here, or none of their nodes has an agent", _HINT)
    begun = begin(source, chosen, addresses, reporter.warn)
    reporter.say(f"watching {len(chosen)} pods on {len(begun.before)} nodes for {options.seconds:g} s")
    time.sleep(options.seconds)
    return begun.end(source, reporter.warn)


@dataclass(frozen=True, slots=True)
class Begun:
    """The first of the two readings; `addresses` are those asked of each node."""

    members: tuple[WatchedPod, ...]
    addresses: Mapping[str, Sequence[str]]
    before: Mapping[str, FabricReport]

    def end(self, source: Source, warn: Callable[[str], None]) -> FabricSummary:
        """Reads again. Raises GenainetError where no node answers any more."""
        after = read_fabrics(source.agents(), self.addresses, warn, source.failed_nodes)
        both = sorted(self.before.keys() & after.keys())
        return conclude(self.members, {node: ReportPair(self.before[node], after[node]) for node in both})


def begin(
    source: Source, chosen: Sequence[WatchedPod], addresses: Mapping[str, Sequence[str]], warn: Callable[[str], None]
) -> Begun:
    """Reads the nodes of `addresses` that have agents. Raises GenainetError where none answers."""
    return Begun(tuple(chosen), addresses, read_fabrics(source.agents(), addresses, warn, source.failed_nodes))


def begin_with_gpu_pods(source: Source, warn: Callable[[str], None]) -> Begun | None:
    """All GPU pods in scope whose nodes have agents; None where there are none."""
    snapshot, scope = source.snapshot(), source.scope_namespace
    dialled = source.agents().dials
    pods = [p for p in snapshot.pods if scope in ("", p.metadata.namespace) and p.spec.node_name in dialled]
    chosen = _gpu_pods(snapshot, pods)
    return begin(source, chosen, _addresses(chosen), warn) if chosen else None


def _addresses(chosen: Sequence[WatchedPod], nodes: Sequence[str] = ()) -> dict[str, list[str]]:
    """What each node is asked about: an address of each of its pods, up to a number."""
    by_node: dict[str, list[str]] = {node: [] for node in nodes}
    for member in chosen:
        by_node.setdefault(member.node, []).extend(member.addresses[:1])
    return {node: addresses[:MAX_PODS] for node, addresses in by_node.items()}


_HINT = "Name pods (pod/NAME, job/NAME) that ask for no GPU, look in all namespaces (-A), or `kubectl genainet status`."


def status_of(summary: FabricSummary, *, failed: bool) -> ExitStatus:
    return (ExitStatus.FOUND if summary.findings else ExitStatus.OK).with_failures(failed)


def _chosen(source: Source, snapshot: ClusterSnapshot, target: str) -> tuple[tuple[WatchedPod, ...], tuple[str, ...]]:
    """The pods to look at, and nodes that are looked at whether they have any."""
    kind, _, name = target.partition("/")
    if kind in NODE_WORDS and name:
        nodes = [node.metadata.name for node in snapshot.nodes]
        if name not in nodes:
            raise not_found("node", name, nodes)
        return _gpu_pods(snapshot, [p for p in snapshot.pods if p.spec.node_name == name]), (name,)
    if target:
        wanted = parse_target(target)
        if wanted.kind not in (TargetKind.POD, TargetKind.WORKLOAD):
            raise InputError(
                f"{target} is no pod, workload or node",
                hint="Give pod/NAME, pod/NAMESPACE/NAME, job/NAME, deploy/NAME or node/NAME.",
            )
        return members(snapshot, pods_named(snapshot, wanted, source.default_namespace)), ()
    scope = source.scope_namespace
    return _gpu_pods(snapshot, [p for p in snapshot.pods if scope in ("", p.metadata.namespace)]), ()


def _gpu_pods(snapshot: ClusterSnapshot, pods: Sequence[Pod]) -> tuple[WatchedPod, ...]:
    return tuple(member for member in members(snapshot, pods) if member.gpus)
