"""Where Traefik's routes lead, and whether Traefik may follow them."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.entry.traefik.routes import KINDS, Backend, backends, middlewares_of, of_traefik
from kubectl_genainet.doctor.families.entry.traefik.settings import CROSS_NAMESPACE, EXTERNAL_NAMES, instances
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, items
from kubectl_genainet.doctor.predicates.backends import lacks_port
from kubectl_genainet.doctor.predicates.edits import name_instead, on_object, set_in
from kubectl_genainet.doctor.predicates.selectors import alike, meant, service_names
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service

_TRAEFIK_SERVICE = KINDS[2]


def _routes(cluster: Cluster) -> list[KubeObject]:
    return [r for kind in KINDS for r in of_traefik(cluster, kind) if cluster.in_scope(r.namespace)]


def _none_here(cluster: Cluster) -> str:
    there = any(of_traefik(cluster, kind) for kind in KINDS)
    return "" if there or cluster.unread(KINDS[0]) else "there is no route of Traefik"


@check(Area.INGRESS, Severity.ERROR, applies=_none_here)
def traefik_route_backend(cluster: Cluster) -> Problems:
    """A route of Traefik leads to a Service, a port or a Middleware that does not exist, or to one that it may not use.

    Looks at the services of IngressRoutes, IngressRouteTCPs and TraefikServices (name, namespace, port by number or name),
    at the Middlewares of the routes, and at the options allowCrossNamespace and allowExternalNameServices of the Traefik that
    runs here, both off by default. Names of other providers (NAME@PROVIDER) are left out.

    Why: Traefik drops a rule that it can't build, and says so in its log only: clients get 404, or 503 where a share of a
    rule's services is gone, while other routes work. An error: every request that this rule was for fails.

    Source: https://doc.traefik.io/traefik/reference/routing-configuration/kubernetes/crd/http/ingressroute/,
    https://doc.traefik.io/traefik/reference/install-configuration/providers/kubernetes/kubernetes-crd/
    """
    if unread := cluster.unread(KINDS[0]):
        yield NotChecked("", unread)
    for route in _routes(cluster):
        for backend in backends(route):
            if backend.kind == "Service" and "@" not in backend.name:
                yield from _to_service(cluster, backend)
            elif backend.kind == _TRAEFIK_SERVICE and "@" not in backend.name:
                there = any((o.namespace, o.name) == _key(backend) for o in of_traefik(cluster, _TRAEFIK_SERVICE))
                if not there:
                    yield _not_there(cluster, route, f"{backend.field}.name", _TRAEFIK_SERVICE, *_key(backend))
        for index, _ in enumerate(items(route.raw, "spec", "routes")):
            for named in middlewares_of(cluster, route, index):
                if named.obj is None:
                    kind = "MiddlewareTCP" if route.kind.endswith("TCP") else "Middleware"
                    yield _not_there(cluster, route, f"{named.field}.name", kind, named.namespace, named.name)


def _key(backend: Backend) -> tuple[str, str]:
    return backend.namespace, backend.name


def _not_there(
    cluster: Cluster, route: KubeObject, field: str, kind: str, namespace: str, name: str
) -> Problem | NotChecked:
    """What is said of a name for which there is no object here."""
    names = service_names(cluster, namespace) if kind == "Service" else [o.name for o in of_traefik(cluster, kind)]
    elsewhere, near = cluster.partial(kind, namespace), alike(name, names)
    if elsewhere and not near:
        return NotChecked(str(route.ref), f"{kind} {namespace}/{name} is not here: {elsewhere}")
    return Problem(
        f"it names {kind} {namespace}/{name}, which does not exist",
        route.ref,
        (seen(route.ref, field, name, f"there is no {kind} {namespace}/{name}"),),
        Remedy(f"Name an existing {kind}.", command=name_instead(route, field, near)),
        rests_on=meant(kind, near, namespace),
    )


def _to_service(cluster: Cluster, backend: Backend) -> Iterator[Problem | NotChecked]:
    route, service, port = backend.owner, cluster.service(*_key(backend)), at(backend.raw, "port")
    if service is None:
        yield _not_there(cluster, route, f"{backend.field}.name", "Service", *_key(backend))
        return
    if port is not None and service.spec.type != "ExternalName" and lacks_port(cluster, service, port):
        has = ", ".join(f"{p.port}{f' ({p.name})' if p.name else ''}" for p in service.spec.ports)
        only = service.spec.ports[0].port if len(service.spec.ports) == 1 else 0
        field = f"{backend.field}.port"
        yield Problem(
            f"it leads to port {port} of {service.ref}, which has {has}",
            route.ref,
            (
                seen(route.ref, field, port, f"{service.ref} has no port {port}"),
                seen(service.ref, "spec.ports", [p.port for p in service.spec.ports], f"its ports are {has}"),
            ),
            Remedy(
                "Name a port of the Service.",
                command=set_in(route, field, only, op="replace") if only else on_object(route, "edit"),
            ),
        )
    yield from _not_allowed(cluster, backend, service)


def _not_allowed(cluster: Cluster, backend: Backend, service: Service) -> Iterator[Problem | NotChecked]:
    """What of a Service Traefik follows only where an option says so."""
    route = backend.owner
    apart = backend.namespace != route.namespace and not route.unplaced
    asked = (
        (apart, CROSS_NAMESPACE, "namespace", "is in another namespace"),
        (service.spec.type == "ExternalName", EXTERNAL_NAMES, "name", "is of type ExternalName"),
    )
    for needed, option, field, why in asked:
        given = [(one.whole, one.settings.get(option)) for one in instances(cluster)] if needed else []
        if not needed or any(static is not None and static.value.lower() == "true" for _, static in given):
            continue
        if len(given) != 1 or not (given[0][0] or given[0][1] is not None):
            yield NotChecked(str(route.ref), f"{service.ref} {why}: no Traefik is here whose {option} could be read")
            continue
        static = given[0][1]
        value = static.value if static is not None else None
        yield Problem(
            f"it leads to {service.ref}, which {why}, and Traefik may not follow",
            route.ref,
            (
                seen(route.ref, f"{backend.field}.{field}", backend.raw.get(field), f"{service.ref} {why}"),
                seen(
                    static.object if static is not None else None,
                    static.field if static is not None else option,
                    value,
                    f"{option} is {'off by default' if value is None else value}",
                ),
            ),
            Remedy(f"Put the route beside its Service, or start Traefik with --{option}=true."),
        )
