"""Ports of the nodes that Services ask for: one Service of a cluster has each."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, number
from kubectl_genainet.doctor.predicates.labels import without_environment
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject

_Taker = tuple[KubeObject, str]  # a Service, and the field that asks for a node port


def _asked(service: KubeObject) -> Iterator[tuple[str, int]]:
    """(field, node port) of what a Service asks for. Its ports of one number (TCP and UDP) share a node port."""
    shared = set()
    for index, port in enumerate(items(service.raw, "spec", "ports")):
        node_port = number(port, "nodePort")
        if node_port and (node_port, number(port, "port")) not in shared:
            shared.add((node_port, number(port, "port")))
            yield f"spec.ports[{index}].nodePort", node_port
    health = number(service.raw, "spec", "healthCheckNodePort")
    if health:
        yield "spec.healthCheckNodePort", health


_EXAMPLES = re.compile(r"(^|/)(examples?|samples?|demos?|tutorials?)/", re.I)


def _is_example(obj: KubeObject) -> bool:
    """Whether an object is in a folder of examples, which are applied one by one."""
    return _EXAMPLES.search(obj.source) is not None


def _apart(cluster: Cluster, first: KubeObject, second: KubeObject) -> str:
    """Why two Services of manifests may be for two clusters; empty where nothing speaks for it."""
    if first.ref == second.ref or cluster.extent.of_a_cluster:
        return ""
    if first.source == second.source:
        return f"one manifest gives it and {first.ref}: they may be for two clusters"
    if cluster.extent.same_folder(first, second):
        return f"{first.ref} is another example beside it" if _is_example(second) else ""
    if first.unplaced or second.unplaced or without_environment(first.name) == without_environment(second.name):
        return f"{first.ref} of another folder asks for the same node port, and may be for another cluster"
    return ""


@check(Area.SERVICES, Severity.ERROR, needs=("Service",))
def node_port_twice(cluster: Cluster) -> Problems:
    """Two Services ask for the same port of the nodes.

    Looks at spec.ports[].nodePort and spec.healthCheckNodePort of all Services, whatever the protocol. An error: the API
    server refuses the second one, which is then missing. A warning in manifests where the two stand in different folders:
    both may never be applied to one cluster. Not checked there where one names no namespace, or both have one name (but for
    the environment in it: api, api-dev), nor between files of one folder of examples.

    Why: a node port is given to one Service of the cluster ("provided port is already allocated"), TCP and UDP alike; only
    ports of one number in one Service share it.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#type-nodeport
    """
    takers: dict[int, list[_Taker]] = defaultdict(list)
    for service in cluster.snapshot.of("Service", ""):
        for field, node_port in _asked(service):
            takers[node_port].append((service, field))
    for node_port, found in sorted(takers.items()):
        for index, taker in enumerate(found[1:], start=1):
            before = found[:index]
            first = next((t for t in before if cluster.extent.same_folder(t[0], taker[0])), before[0])
            if not any(cluster.in_scope(service.namespace) for service, _ in (first, taker)):
                continue
            reason = _apart(cluster, first[0], taker[0])
            yield NotChecked(str(taker[0].ref), reason) if reason else _problem(cluster, node_port, first, taker)


def _problem(cluster: Cluster, node_port: int, first: _Taker, second: _Taker) -> Problem:
    (other, other_field), (service, field) = first, second
    twice = "twice" if other.ref == service.ref else f"like {other.ref}"
    beside = cluster.extent.of_a_cluster or cluster.extent.same_folder(other, service)
    return Problem(
        f"it asks for node port {node_port}, {twice}",
        service.ref,
        (
            seen(service.ref, field, node_port, f"node port {node_port}"),
            seen(other.ref, other_field, node_port, f"{other.ref} asks for it too"),
        ),
        Remedy("Give one of them another node port, or none: the API server then picks a free one."),
        severity=None if beside else Severity.WARNING,
    )
