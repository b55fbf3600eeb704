"""Routes and the listeners of their Gateways, by what both say: namespaces, names of listeners, hosts, kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.entry.gateway import GROUP, ROUTES
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import (
    command,
    condition,
    items,
    mapping,
    number,
    selector_matches,
    strings,
    text,
    unfilled,
)
from kubectl_genainet.model.finding import Evidence, NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject

_KINDS = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute", "TCPRoute"),
    "TCP": ("TCPRoute",),
    "UDP": ("UDPRoute",),
}


def _hosts_meet(host: str, other: str) -> bool:
    """Whether two hosts, of which each may begin with "*.", have a name in common; an empty one stands for all, and one
    with a placeholder may be any."""
    if not host or not other or host == other or unfilled(host) or unfilled(other):
        return True
    if host.startswith("*."):
        return other.endswith(host[1:]) or (other.startswith("*.") and host.endswith(other[1:]))
    return other.startswith("*.") and host.endswith(other[1:])


def _refused(
    cluster: Cluster, route: KubeObject, gateway: KubeObject, index: int, listener: Mapping[str, Any]
) -> Evidence | None:
    """Why a listener does not take a route; None where it does, or where that can't be told."""
    field = f"spec.listeners[{index}]"
    allowed = mapping(listener, "allowedRoutes", "namespaces")
    source = text(allowed, "from") or "Same"
    if source == "Same" and route.namespace != gateway.namespace:
        reason = f"listener {text(listener, 'name')} takes routes of {gateway.namespace} only"
        return seen(gateway.ref, f"{field}.allowedRoutes.namespaces.from", text(allowed, "from") or None, reason)
    if source == "Selector" and route.namespace in cluster.snapshot.namespaces:
        labels = cluster.snapshot.namespace_labels(route.namespace)
        if not selector_matches(mapping(allowed, "selector"), labels):
            reason = (
                f"namespace {route.namespace} does not have the labels that listener {text(listener, 'name')} selects"
            )
            return seen(gateway.ref, f"{field}.allowedRoutes.namespaces.selector", mapping(allowed, "selector"), reason)
    kinds = [text(k, "kind") for k in items(listener, "allowedRoutes", "kinds")]
    taken = tuple(kinds) or _KINDS.get(text(listener, "protocol"), (route.kind,))
    if route.kind not in taken:
        reason = f"listener {text(listener, 'name')} ({text(listener, 'protocol')}) takes {', '.join(taken)}"
        return seen(gateway.ref, f"{field}.protocol", text(listener, "protocol"), reason)
    hosts, own = strings(route.raw, "spec", "hostnames"), text(listener, "hostname")
    if hosts and not any(_hosts_meet(own, host) for host in hosts):
        reason = f"listener {text(listener, 'name')} is for {own}"
        return seen(gateway.ref, f"{field}.hostname", own, reason)
    return None


def _is_accepted(route: KubeObject, gateway: KubeObject) -> bool:
    """Whether the Gateway's controller says that it has accepted a route."""
    return any(
        text(p, "parentRef", "name") == gateway.name and condition(p, "Accepted", "conditions").get("status") == "True"
        for p in items(route.raw, "status", "parents")
    )


@check(Area.GATEWAY, Severity.ERROR, needs=("Gateway",))
def route_listener(cluster: Cluster) -> Problems:
    """No listener of the Gateway takes a route.

    Compares parentRefs (sectionName, port), the namespace, the kind and spec.hostnames of routes with the listeners of the
    Gateway that they name: allowedRoutes.namespaces (Same where nothing is set), allowedRoutes.kinds, protocol, hostname.

    Why: the Gateway does not accept the route and answers 404, though both objects are there and valid. A Gateway in a
    namespace of its own takes no route of another one unless it says so. Routes that a controller has accepted are left
    out. An error: every request for the route fails.

    Source: https://gateway-api.sigs.k8s.io/reference/spec/#allowedroutes
    """
    gateways = {(g.namespace, g.name): g for g in cluster.snapshot.of("Gateway", GROUP)}
    for route in (r for kind in ROUTES for r in cluster.snapshot.of(kind, GROUP) if cluster.in_scope(r.namespace)):
        for index, parent in enumerate(items(route.raw, "spec", "parentRefs")):
            gateway = gateways.get((text(parent, "namespace") or route.namespace, text(parent, "name")))
            listeners = list(enumerate(items(gateway.raw, "spec", "listeners"))) if gateway is not None else []
            if gateway is None or not listeners or _is_accepted(route, gateway):
                continue
            if cluster.extent.varies(gateway.ref) or route.unplaced != gateway.unplaced:
                guess = route if route.unplaced else gateway
                several = cluster.extent.varies(gateway.ref)
                reason = f"{gateway.ref} is given more than once" if several else f"{guess.ref} names no namespace"
                yield NotChecked(str(route.ref), reason)
                continue
            section, port = text(parent, "sectionName"), number(parent, "port")
            meant = [
                (i, listener)
                for i, listener in listeners
                if section in ("", text(listener, "name")) and port in (0, number(listener, "port"))
            ]
            field = f"spec.parentRefs[{index}]"
            if not meant:
                names = ", ".join(
                    f"{text(listener, 'name')} (port {number(listener, 'port')})" for _, listener in listeners
                )
                listeners_text = f"the listeners of {gateway.ref} are {names}"
                why = [
                    seen(route.ref, f"{field}.{'sectionName' if section else 'port'}", section or port, listeners_text)
                ]
            else:
                reasons = [_refused(cluster, route, gateway, i, listener) for i, listener in meant]
                why = [r for r in reasons if r is not None]
                if len(why) < len(reasons):
                    continue
            yield Problem(
                f"no listener of {gateway.ref} takes it: {why[0].statement}",
                route.ref,
                (*why[:3], seen(route.ref, f"{field}.name", gateway.name, f"it is in namespace {route.namespace}")),
                Remedy(
                    "Let the listener take it (allowedRoutes, hostname), or name the listener that does.",
                    command=command("kubectl", "-n", gateway.namespace, "edit", f"gateway.{GROUP}/{gateway.name}"),
                ),
                rests_on=(gateway.ref,),
            )
