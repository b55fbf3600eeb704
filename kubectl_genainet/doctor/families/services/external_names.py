"""ExternalName Services: names of DNS and nothing else."""

from __future__ import annotations

import ipaddress
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived, seen
from kubectl_genainet.doctor.objects.calls import ENTRIES, TRAEFIK_GROUPS, services_behind
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.predicates.policy_text import adding
from kubectl_genainet.model.finding import Evidence, NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import Service


@check(Area.SERVICES, Severity.ERROR, needs=("Service",), own_namespace=True)
def external_name_address(cluster: Cluster) -> Problems:
    """An ExternalName Service names an address.

    Looks at spec.externalName, at the configured calls of the Service, and at the Ingresses and Traefik routes that name it.

    Why: it becomes a CNAME record; "10.1.2.3" is then looked up as a host name, and nobody has it. An error: the
    name never resolves. A warning where nothing is known to call the Service; information where only an Ingress or a
    route of Traefik names it, whose proxy takes the text for an address and asks no DNS.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#externalname
    """
    for service in cluster.services:
        if service.spec.type != "ExternalName":
            continue
        name = service.spec.external_name
        try:
            ip = ipaddress.ip_address(name.rstrip("."))
        except ValueError:
            continue
        ports = [{"name": p.name or f"p{p.port}", "port": p.port, "protocol": p.protocol} for p in service.spec.ports]
        severity, users = _users(cluster, service)
        yield Problem(
            f"externalName is the address {name}",
            service.ref,
            (seen(service.ref, "spec.externalName", name, "ExternalName is a DNS name, this is an address"), *users),
            severity=severity,
            remedy=adding(
                "Use a Service without selector and an EndpointSlice with the address.",
                *_of_address(service, str(ip), "IPv6" if ip.version == 6 else "IPv4", ports),
            ),
        )


def _users(cluster: Cluster, service: Service) -> tuple[Severity, tuple[Evidence, ...]]:
    """(how bad it is, who calls the Service or leads to it)."""
    calls = cluster.calls_to.get(service.ref, ())
    if calls:
        return Severity.ERROR, (calls[0].evidence,)
    wanted = (service.metadata.namespace, service.metadata.name)
    routes = (o for kind, group in ENTRIES if group in TRAEFIK_GROUPS for o in cluster.snapshot.of(kind, group))
    route = next((o for o in routes if wanted in set(services_behind(o))), None)
    if route is not None:
        return Severity.INFO, (seen(route.ref, "spec", None, "only a route of Traefik leads to it, by its address"),)
    if wanted in cluster.ingress_backends:
        return Severity.INFO, (derived(service.ref, "", None, "only Ingresses lead to it, by its address"),)
    return Severity.WARNING, ()


def _of_address(
    service: Service, ip: str, family: str, ports: list[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(Service, EndpointSlice) that lead to an address outside under the Service's name."""
    name, namespace = service.metadata.name, service.metadata.namespace
    served = ports or [{"name": "http", "port": 80, "protocol": "TCP"}]
    labels = {"kubernetes.io/service-name": name}
    return (
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "ClusterIP", "ports": served},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-1", "namespace": namespace, "labels": labels},
            "addressType": family,
            "ports": served,
            "endpoints": [{"addresses": [ip]}],
        },
    )


@check(Area.SERVICES, Severity.WARNING, needs=("Service",), own_namespace=True)
def external_name_port(cluster: Cluster) -> Problems:
    """An ExternalName Service maps a port.

    Looks at spec.ports[].targetPort of ExternalName Services. One that an Ingress leads to is not checked: ingress-nginx
    connects to targetPort, other controllers to the port.

    Why: ExternalName is DNS only: no packet passes kube-proxy, so the client connects to the port it was given and
    the mapping does nothing. A warning where a workload is configured to call the port that is not mapped, else information:
    it works for clients that use the right port by themselves.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#externalname
    """
    for service in cluster.services:
        if service.spec.type != "ExternalName":
            continue
        for index, port in enumerate(service.spec.ports):
            if port.target_port not in (0, port.port):
                if (service.metadata.namespace, service.metadata.name) in cluster.ingress_backends:
                    yield NotChecked(str(service.ref), "an Ingress leads to it, and some controllers use targetPort")
                    break
                calls = [c.evidence for c in cluster.calls if c.service == service and c.port == port.port]
                yield Problem(
                    f"port {port.port} → {port.target_port} has no effect",
                    service.ref,
                    (
                        seen(
                            service.ref,
                            f"spec.ports[{index}].targetPort",
                            port.target_port,
                            "ExternalName maps no ports",
                        ),
                        *calls[:2],
                    ),
                    Remedy(f"Let the clients use port {port.target_port}, and take the ports off the Service."),
                    severity=None if calls else Severity.INFO,
                )
