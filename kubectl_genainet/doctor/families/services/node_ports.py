"""Ports of the nodes that Services ask for: one Service of a cluster has each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, number
from kubectl_genainet.model.finding import Remedy, Severity
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


@check(Area.SERVICES, Severity.ERROR, needs=("Service",))
def node_port_twice(cluster: Cluster) -> Problems:
    """Two Services ask for the same port of the nodes.

    Looks at spec.ports[].nodePort and spec.healthCheckNodePort of all Services, whatever the protocol. An error: the API
    server refuses the second one, which is then missing.

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
            first = next((t for t in before if cluster.extent.together(t[0], taker[0])), before[0])
            if any(cluster.in_scope(service.namespace) for service, _ in (first, taker)):
                yield _problem(node_port, first, taker)


def _problem(node_port: int, first: _Taker, second: _Taker) -> Problem:
    (other, other_field), (service, field) = first, second
    twice = "twice" if other.ref == service.ref else f"like {other.ref}"
    return Problem(
        f"it asks for node port {node_port}, {twice}",
        service.ref,
        (
            seen(service.ref, field, node_port, f"node port {node_port}"),
            seen(other.ref, other_field, node_port, f"{other.ref} asks for it too"),
        ),
        Remedy("Give one of them another node port, or none: the API server then picks a free one."),
    )
