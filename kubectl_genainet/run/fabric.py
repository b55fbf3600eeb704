"""`fabric`: which GPU pods talk by RDMA and which by kernel TCP, from two readings of their nodes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from kubectl_genainet.errors import ExitStatus, GenainetError, InputError
from kubectl_genainet.fabric.judge import conclude
from kubectl_genainet.fabric.pods import Member, members
from kubectl_genainet.fabric.rates import Reading
from kubectl_genainet.model.cluster import ClusterSnapshot
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
    by_node: defaultdict[str, list[Member]] = defaultdict(list)
    for member in chosen:
        by_node[member.node].append(member)
    addresses = {node: [ip for m in by_node[node][:MAX_PODS] for ip in m.addresses[:1]] for node in (*nodes, *by_node)}
    for node in sorted(addresses.keys() - agents.dials.keys()):
        source.failed_nodes.add(node)
        reporter.warn(f"node {node} has no agent: what its pods do is not known")
    if not addresses.keys() & agents.dials.keys():
        raise GenainetError("there are no GPU pods here, or none of their nodes has an agent", _HINT)
    before = read_fabrics(agents, addresses, reporter.warn, source.failed_nodes)
    reporter.say(f"watching {len(chosen)} pods on {len(before)} nodes for {options.seconds:g} s")
    time.sleep(options.seconds)
    after = read_fabrics(agents, addresses, reporter.warn, source.failed_nodes)
    readings = {node: Reading(before[node], after[node]) for node in sorted(before.keys() & after.keys())}
    return conclude(chosen, readings)


_HINT = "Name pods (pod/NAME, job/NAME) that ask for no GPU, look in all namespaces (-A), or `kubectl genainet status`."


def status_of(summary: FabricSummary, *, failed: bool) -> ExitStatus:
    return (ExitStatus.FOUND if summary.findings else ExitStatus.OK).with_failures(failed)


def _chosen(source: Source, snapshot: ClusterSnapshot, target: str) -> tuple[tuple[Member, ...], tuple[str, ...]]:
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
                f"{target} is no pod, workload or node", hint="pod/NAME, job/NAME, deploy/NAME or node/NAME"
            )
        return members(snapshot, pods_named(snapshot, wanted, source.default_namespace)), ()
    scope = source.scope_namespace
    return _gpu_pods(snapshot, [p for p in snapshot.pods if scope in ("", p.metadata.namespace)]), ()


def _gpu_pods(snapshot: ClusterSnapshot, pods: Sequence[Pod]) -> tuple[Member, ...]:
    return tuple(member for member in members(snapshot, pods) if member.gpus)
