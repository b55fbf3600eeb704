"""ExternalName Services: names of DNS and nothing else."""

from __future__ import annotations

import ipaddress
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.predicates.policy_text import adding
from kubectl_genainet.model.finding import Remedy, Severity
from kubectl_genainet.model.kube import Service


@check(Area.SERVICES, Severity.ERROR, needs=("Service",), own_namespace=True)
def external_name_address(cluster: Cluster) -> Problems:
    """An ExternalName Service names an address.

    Looks at spec.externalName.

    Why: it becomes a CNAME record; "10.1.2.3" is then looked up as a host name, and nobody has it. An error: the
    name never resolves.

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
        yield Problem(
            f"externalName is the address {name}",
            service.ref,
            (seen(service.ref, "spec.externalName", name, "ExternalName is a DNS name, this is an address"),),
            adding(
                "Use a Service without selector and an EndpointSlice with the address.",
                *_of_address(service, str(ip), "IPv6" if ip.version == 6 else "IPv4", ports),
            ),
        )


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

    Looks at spec.ports[].targetPort of ExternalName Services.

    Why: ExternalName is DNS only: no packet passes kube-proxy, so the client connects to the port it was given and
    the mapping does nothing. A warning: it works for clients that use the right port by themselves.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#externalname
    """
    for service in cluster.services:
        if service.spec.type != "ExternalName":
            continue
        for index, port in enumerate(service.spec.ports):
            if port.target_port not in (0, port.port):
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
                    ),
                    Remedy(f"Let the clients use port {port.target_port}, and take the ports off the Service."),
                )
