"""Traefik's routes: IngressRoutes, IngressRouteTCPs and Ingresses of its class, and the Middlewares on them.

Source: https://doc.traefik.io/traefik/reference/routing-configuration/kubernetes/crd/http/ingressroute/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.doctor.families.entry.ingress import backends as ingress_backends
from kubectl_genainet.doctor.families.entry.ingress import controller_of, ingresses
from kubectl_genainet.doctor.objects.calls import TRAEFIK_GROUPS
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import annotation, items, strings, text
from kubectl_genainet.model.kube import KubeObject, Service

CONTROLLER = "traefik.io/ingress-controller"
KINDS = ("IngressRoute", "IngressRouteTCP", "TraefikService")
_NOTES = "traefik.ingress.kubernetes.io/"
_OF_CRD = "@kubernetescrd"
_DEEP = 4  # chains of Middlewares, TraefikServices of TraefikServices


@dataclass(frozen=True, slots=True)
class Backend:
    """One entry of `services`: what a route, or a TraefikService, leads to."""

    owner: KubeObject
    field: str
    raw: dict[str, Any]

    @property
    def kind(self) -> str:
        return text(self.raw, "kind") or "Service"

    @property
    def name(self) -> str:
        return text(self.raw, "name")

    @property
    def namespace(self) -> str:
        return text(self.raw, "namespace") or self.owner.namespace


@dataclass(frozen=True, slots=True)
class Named:
    """A reference to a Middleware or a ServersTransport, where it stands, and the object; None for one that is not here."""

    field: str
    namespace: str
    name: str
    obj: KubeObject | None


@dataclass(frozen=True, slots=True)
class Way:
    """A way for requests to a Service: the object that makes it, the entry points that it names, and what is on it."""

    owner: KubeObject
    field: str
    service: Service
    entry_points: tuple[str, ...]
    middlewares: tuple[Named, ...]
    transport: Named | None


def of_traefik(cluster: Cluster, kind: str) -> list[KubeObject]:
    """Objects of a kind, in Traefik's group or the one that it had before."""
    return [o for group in TRAEFIK_GROUPS for o in cluster.snapshot.of(kind, group)]


def backends(owner: KubeObject) -> Iterator[Backend]:
    """What a route's rules lead to, or what a TraefikService spreads requests over."""
    for r, rule in enumerate(items(owner.raw, "spec", "routes")):
        for s, raw in enumerate(items(rule, "services")):
            yield Backend(owner, f"spec.routes[{r}].services[{s}]", raw)
    for place in (("weighted", "services"), ("mirroring", "mirrors")):
        for s, raw in enumerate(items(owner.raw, "spec", *place)):
            yield Backend(owner, f"spec.{'.'.join(place)}[{s}]", raw)


def middlewares_of(cluster: Cluster, route: KubeObject, index: int) -> Iterator[Named]:
    """The Middlewares of a route's rule, those of other providers left out."""
    for m, raw in enumerate(items(route.raw, "spec", "routes", index, "middlewares")):
        name, namespace = text(raw, "name"), text(raw, "namespace") or route.namespace
        if "@" not in name:
            found = _object(cluster, "MiddlewareTCP" if route.kind.endswith("TCP") else "Middleware", namespace, name)
            yield Named(f"spec.routes[{index}].middlewares[{m}]", namespace, name, found)


def _object(cluster: Cluster, kind: str, namespace: str, name: str) -> KubeObject | None:
    return next((o for o in of_traefik(cluster, kind) if (o.namespace, o.name) == (namespace, name)), None)


def _by_joined_name(cluster: Cluster, kind: str, joined: str) -> KubeObject | None:
    """The object that NAMESPACE-NAME@kubernetescrd means."""
    of_crd = (o for o in of_traefik(cluster, kind) if joined == f"{o.namespace}-{o.name}{_OF_CRD}")
    return next(of_crd, None)


def unchained(cluster: Cluster, named: Named, deep: int = _DEEP) -> Iterator[KubeObject]:
    """A Middleware, or those that it is a chain of."""
    if named.obj is None or not deep:
        return
    yield named.obj
    for raw in items(named.obj.raw, "spec", "chain", "middlewares"):
        namespace = text(raw, "namespace") or named.obj.namespace
        found = _object(cluster, "Middleware", namespace, text(raw, "name"))
        yield from unchained(cluster, Named(named.field, namespace, text(raw, "name"), found), deep - 1)


def ways_to(cluster: Cluster, wanted: Callable[[Service], bool]) -> Iterator[Way]:
    """The ways to those Services that are wanted: of IngressRoutes, and of Ingresses of Traefik's class."""
    for route in of_traefik(cluster, "IngressRoute"):
        if not cluster.in_scope(route.namespace):
            continue
        for r, rule in enumerate(items(route.raw, "spec", "routes")):
            on_it = tuple(middlewares_of(cluster, route, r))
            for s, raw in enumerate(items(rule, "services")):
                first = Backend(route, f"spec.routes[{r}].services[{s}]", raw)
                for backend in _services(cluster, first):
                    service = cluster.service(backend.namespace, backend.name)
                    if service is not None and wanted(service):
                        points = tuple(strings(route.raw, "spec", "entryPoints"))
                        yield Way(route, first.field, service, points, on_it, _transport(cluster, backend))
    for ingress in ingresses(cluster):
        if controller_of(cluster, ingress) == CONTROLLER:
            yield from _of_ingress(cluster, ingress, wanted)


def _services(cluster: Cluster, backend: Backend, deep: int = _DEEP) -> Iterator[Backend]:
    """The backends that are Services, those behind a TraefikService for it."""
    if backend.kind == "Service":
        yield backend
    spread = _object(cluster, "TraefikService", backend.namespace, backend.name) if backend.kind == KINDS[2] else None
    for below in backends(spread) if spread is not None and deep else ():
        yield from _services(cluster, below, deep - 1)


def _transport(cluster: Cluster, backend: Backend) -> Named | None:
    name, field = text(backend.raw, "serversTransport"), f"{backend.field}.serversTransport"
    if not name:
        return None
    if "@" in name:
        return Named(field, "", name, _by_joined_name(cluster, "ServersTransport", name))
    namespaces = (backend.owner.namespace, backend.namespace)
    found = next(filter(None, (_object(cluster, "ServersTransport", n, name) for n in namespaces)), None)
    return Named(field, backend.owner.namespace, name, found)


def _of_ingress(cluster: Cluster, ingress: KubeObject, wanted: Callable[[Service], bool]) -> Iterator[Way]:
    """Source: https://doc.traefik.io/traefik/reference/routing-configuration/kubernetes/ingress/#annotations"""
    field = annotation(f"{_NOTES}router.middlewares")
    joined = text(ingress.annotations, f"{_NOTES}router.middlewares").replace(" ", "").split(",")
    on_it = tuple(Named(field, "", name, _by_joined_name(cluster, "Middleware", name)) for name in joined if name)
    points = text(ingress.annotations, f"{_NOTES}router.entrypoints").replace(" ", "").split(",")
    for where, raw, _, _ in ingress_backends(ingress):
        service = cluster.service(ingress.namespace, text(raw, "service", "name"))
        if service is None or not wanted(service):
            continue
        name = text(service.metadata.annotations, f"{_NOTES}service.serverstransport")
        transport = Named(where, "", name, _by_joined_name(cluster, "ServersTransport", name)) if name else None
        yield Way(ingress, where, service, tuple(filter(None, points)), on_it, transport)
