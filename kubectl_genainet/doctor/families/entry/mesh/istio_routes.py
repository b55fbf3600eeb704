"""Istio's Gateway and VirtualService as an Ingress: where they lead, and what listens for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, command, items, mapping, number, strings, text
from kubectl_genainet.doctor.predicates.backends import lacks_port
from kubectl_genainet.doctor.predicates.edits import name_instead, on_object, set_in
from kubectl_genainet.doctor.predicates.selectors import alike, meant, service_names
from kubectl_genainet.model.finding import Evidence, NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service

GROUP = "networking.istio.io"
MESH = "mesh"  # the name that stands for all sidecars


def _virtual_services(cluster: Cluster) -> list[KubeObject]:
    return [v for v in cluster.snapshot.of("VirtualService", GROUP) if cluster.in_scope(v.namespace)]


def _destinations(virtual: KubeObject) -> Iterator[tuple[str, dict[str, Any]]]:
    """(field, destination) of every route of a VirtualService."""
    for kind in ("http", "tcp", "tls"):
        for r, route in enumerate(items(virtual.raw, "spec", kind)):
            for d, way in enumerate(items(route, "route")):
                yield f"spec.{kind}[{r}].route[{d}].destination", mapping(way, "destination")


def _service_key(host: str, namespace: str) -> tuple[str, str] | None:
    """(namespace, name) of the Service that a host means; None for a host that is no name of the cluster.

    A short name is of the VirtualService's own namespace; NAME.NAMESPACE[.svc[.DOMAIN]] is of that one.
    """
    labels = host.split(".")
    if len(labels) == 1:
        return namespace, labels[0]
    return (labels[1], labels[0]) if len(labels) > 2 and labels[2] == "svc" else None


@check(Area.INGRESS, Severity.ERROR, needs=("VirtualService",))
def virtual_service_backend(cluster: Cluster) -> Problems:
    """A VirtualService leads to a Service or port that does not exist.

    Looks at destination.host and destination.port.number of all routes, for names of the cluster; hosts that a ServiceEntry
    names are others. An error: the share of the requests that this route gets fails.

    Why: Istio's proxies answer 503 (no healthy upstream) for a host that is in no registry, and for a port that the Service
    does not have.

    Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#Destination
    """
    entries = {h for e in cluster.snapshot.of("ServiceEntry", GROUP) for h in strings(e.raw, "spec", "hosts")}
    for virtual in _virtual_services(cluster):
        for field, destination in _destinations(virtual):
            host = text(destination, "host")
            key = None if host in entries else _service_key(host, virtual.namespace)
            if key is None:
                continue
            service, port = cluster.service(*key), number(destination, "port", "number")
            named = f"Service {key[0]}/{key[1]}"
            if service is None:
                elsewhere, near = cluster.partial("Service", key[0]), alike(key[1], service_names(cluster, key[0]))
                if elsewhere and not near:
                    yield NotChecked(str(virtual.ref), f"{named} is not here: {elsewhere}")
                    continue
                about = meant("Service", near, key[0])
                evidence: tuple[Evidence, ...] = (seen(virtual.ref, f"{field}.host", host, f"there is no {named}"),)
                problem = "does not exist"
                mend = name_instead(virtual, f"{field}.host", near and host.replace(key[1], near, 1))
            elif port and lacks_port(cluster, service, port):
                has, about = ", ".join(str(p.port) for p in service.spec.ports), (service.ref,)
                evidence = (
                    seen(virtual.ref, f"{field}.port.number", port, f"the ports of {named} are {has}"),
                    seen(service.ref, "spec.ports", [p.port for p in service.spec.ports], f"its ports are {has}"),
                )
                problem, mend = f"has no port {port}", _only_port(virtual, field, service)
            else:
                continue
            yield Problem(
                f"a route leads to {named}, which {problem}",
                virtual.ref,
                evidence,
                Remedy("Name a Service of the cluster and a port of it.", command=mend),
                rests_on=about,
            )


def _only_port(virtual: KubeObject, field: str, service: Service) -> str:
    if len(service.spec.ports) != 1:
        return on_object(virtual, "edit")
    return set_in(virtual, f"{field}.port.number", service.spec.ports[0].port)


def _gateway_keys(virtual: KubeObject) -> list[tuple[str, str, str]]:
    """(namespace, name, as written) of the Gateways that a VirtualService is bound to; none for the mesh alone."""
    keys = []
    for name in strings(virtual.raw, "spec", "gateways"):
        namespace, _, plain = name.rpartition("/")
        if name != MESH:
            keys.append((namespace or virtual.namespace, plain, name))
    return keys


def _other_gateway(virtual: KubeObject, written: str, meant: str) -> str:
    """The Gateway that was probably meant, in the place of one that does not exist."""
    index = list(at(virtual.raw, "spec", "gateways")).index(written)
    return name_instead(virtual, f"spec.gateways[{index}]", meant)


def _with_host(gateway: KubeObject, host: str) -> str:
    """The host added to the only server of a Gateway. With the group: a Gateway of the Gateway API has the same name."""
    if len(items(gateway.raw, "spec", "servers")) != 1:
        return command("kubectl", "-n", gateway.namespace, "edit", f"gateway.{GROUP}/{gateway.name}")
    return set_in(gateway, "spec.servers[0].hosts[-]", host)


def _covers(pattern: str, host: str) -> bool:
    """Whether a Gateway's host ("*", "*.DOMAIN", a name; with "NAMESPACE/" before it) takes a VirtualService's host."""
    pattern = pattern.rpartition("/")[2]
    if pattern in ("*", host) or host == "*":
        return True
    return (pattern.startswith("*.") and host.endswith(pattern[1:])) or (
        host.startswith("*.") and pattern.endswith(host[1:])
    )


@check(Area.INGRESS, Severity.ERROR, needs=("VirtualService",))
def virtual_service_gateway(cluster: Cluster) -> Problems:
    """A VirtualService is bound to an Istio Gateway that does not exist, or that does not take its hosts.

    Looks at spec.gateways and spec.hosts of VirtualServices, and at servers[].hosts of the Gateways (networking.istio.io).
    An error: clients from outside get 404 from the gateway, though Service and pods are fine. A warning where manifests
    that are not the whole cluster hold one of that name in another namespace that its manifest names; there a
    VirtualService without a namespace may be applied beside it, and is not checked.

    Why: the gateway's proxy has a route only where both agree. A Gateway of another namespace has to be named with it.

    Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/,
    https://istio.io/latest/docs/reference/config/networking/gateway/#Server
    """
    gateways = {(g.namespace, g.name): g for g in cluster.snapshot.of("Gateway", GROUP)}
    for virtual in _virtual_services(cluster):
        for namespace, name, written in _gateway_keys(virtual):
            gateway = gateways.get((namespace, name))
            if gateway is None:
                elsewhere = cluster.partial("Gateway", namespace)
                near = alike(name, (n for ns, n in gateways if ns == namespace))
                there = next((g.namespace for g in gateways.values() if g.name == name and not g.unplaced), "")
                if elsewhere and not near and (not there or virtual.unplaced):
                    yield NotChecked(str(virtual.ref), f"Gateway {namespace}/{name} is not here: {elsewhere}")
                    continue
                problem = f"there is no Gateway {namespace}/{name}" + (f", but one in {there}" if there else "")
                yield Problem(
                    f"its Gateway {written} does not exist",
                    virtual.ref,
                    (seen(virtual.ref, "spec.gateways", written, problem),),
                    Remedy(
                        "Name an existing Gateway (NAMESPACE/NAME).",
                        command=_other_gateway(virtual, written, near or (there and f"{there}/{name}")),
                    ),
                    severity=Severity.WARNING if elsewhere and not near else None,
                    rests_on=meant("Gateway", near or (there and name), namespace if near else there),
                )
                continue
            taken = [h for s in items(gateway.raw, "spec", "servers") for h in strings(s, "hosts")]
            hosts = strings(virtual.raw, "spec", "hosts")
            refused = [host for host in hosts if taken and not any(_covers(pattern, host) for pattern in taken)]
            if "mesh" in strings(virtual.raw, "spec", "gateways") and refused != hosts:
                refused = []  # the Gateway's hosts are among them; the others are those of clients in the mesh
            if refused != hosts:
                refused = [host for host in refused if "." in host]  # a Service's own name is no client's from outside
            for host in refused:
                problem = f"{gateway.ref} takes {', '.join(taken)}"
                yield Problem(
                    f"its Gateway does not take the host {host}",
                    virtual.ref,
                    (
                        seen(virtual.ref, "spec.hosts", host, problem),
                        seen(gateway.ref, "spec.servers[*].hosts", taken, problem),
                    ),
                    Remedy("Add the host to a server of the Gateway.", command=_with_host(gateway, host)),
                )
