"""Services towards the outside: node ports, load balancers, what should stay inside."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen, shortened
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import kubectl, patch
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.load_balancers import load_balancers
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import Service


@check(Area.SERVICES, Severity.INFO, needs=("Service",), own_namespace=True)
def service_node_port(cluster: Cluster) -> Problems:
    """A GenAI workload is exposed by a NodePort.

    Looks at spec.type of the Services in front of recognised workloads to which no Ingress leads.

    Why: every request takes a second hop through kube-proxy on whichever node it reaches, with source address
    translation, and clients depend on node addresses. Inside the cluster ClusterIP is enough, outside a
    LoadBalancer with pod targets is direct. Information: the Service has an address of the cluster as well, and whether
    clients use the nodes' port is not seen; those that do are answered, with a detour.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#type-nodeport
    """
    for service in cluster.services:
        if service.spec.type != "NodePort":
            continue
        workload = next((w for w in cluster.workloads_of(service) if cluster.role(w) is not Role.UNKNOWN), None)
        if workload is not None and (service.metadata.namespace, service.metadata.name) not in cluster.ingress_backends:
            yield Problem(
                f"{workload.ref} is exposed on a port of every node",
                service.ref,
                (seen(service.ref, "spec.type", "NodePort", f"node port {service.spec.ports[0].node_port or 'any'}"),),
                Remedy(
                    "Use ClusterIP inside the cluster, an Ingress, a Gateway or a LoadBalancer outside.",
                    command=patch(service.ref, {"spec": {"type": "ClusterIP"}}),
                ),
                rests_on=(workload.ref,),
            )


# Annotations, with a value in lower case, by which each cloud keeps a load balancer inside its network.
_INTERNAL = {
    "service.beta.kubernetes.io/aws-load-balancer-scheme": "internal",
    "service.beta.kubernetes.io/aws-load-balancer-internal": "true",
    "networking.gke.io/load-balancer-type": "internal",
    "cloud.google.com/load-balancer-type": "internal",
    "service.beta.kubernetes.io/azure-load-balancer-internal": "true",
    "service.beta.kubernetes.io/oci-load-balancer-internal": "true",
    "service.beta.kubernetes.io/openstack-internal-load-balancer": "true",
    "service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type": "private",
    "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type": "intranet",
}


def _internal(service: Service, lb_class: str) -> bool:
    """Whether a load balancer can be reached from a private network only."""
    notes = service.metadata.annotations
    return lb_class == "tailscale" or any(notes.get(key, "").lower() == value for key, value in _INTERNAL.items())


# Variables by which a database is told to ask its clients for a key: Qdrant's, Weaviate's, Chroma's, Elasticsearch's.
_AUTHENTICATION = re.compile(r"API_?KEY|AUTHN?_|AUTHENTICATION|_PASSWORD$")


def _asks_who_calls(workload: Workload) -> bool:
    return any(_AUTHENTICATION.search(name) for c in workload.containers for name in c.env_names)


@check(Area.SERVICES, Severity.WARNING, needs=("Service",), own_namespace=True)
def vector_database_exposed(cluster: Cluster) -> Problems:
    """A vector database is behind a load balancer.

    Looks at LoadBalancer Services in front of recognised vector databases. A load balancer that is annotated as
    internal, or that only the members of a private network reach (Tailscale), is not reported.

    Why: only the RAG application needs it; most vector databases listen without authentication by default. A
    warning: users notice nothing until the data is read by others. Information where its variables set up authentication.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types,
    https://qdrant.tech/documentation/guides/security/
    """
    for service, _, lb_class in load_balancers(cluster):
        workload = next((w for w in cluster.workloads_of(service) if cluster.role(w) is Role.VECTOR_DATABASE), None)
        if workload is not None and not _internal(service, lb_class):
            yield Problem(
                f"{workload.ref} can be reached from outside the cluster",
                service.ref,
                (seen(service.ref, "spec.type", "LoadBalancer", "not annotated as internal"),),
                Remedy("Make it a ClusterIP.", command=patch(service.ref, {"spec": {"type": "ClusterIP"}})),
                severity=Severity.INFO if _asks_who_calls(workload) else None,
                rests_on=(workload.ref,),
            )


@check(Area.SERVICES, Severity.WARNING, needs=("Service",), own_namespace=True)
def load_balancer_pending(cluster: Cluster) -> Problems:
    """A LoadBalancer Service has no address.

    Looks at status.loadBalancer.ingress and at the Service's events. A Service that was saved from a cluster among manifests
    that people wrote is not checked: its status is of that day.

    Why: no controller took it up, or the cloud refused it (subnet tags, quotas, rights). A warning: clients inside
    are served; those outside may still be given another way.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#loadbalancer
    """
    written = cluster.from_files and any(not s.metadata.uid for s in cluster.services)
    for service in cluster.services:
        lives = cluster.lives(service.metadata.uid)
        if service.spec.type != "LoadBalancer" or service.status.load_balancer.ingress or not lives:
            continue
        if written:
            yield NotChecked(str(service.ref), "its status is of the day it was saved")
            continue
        evidence = [seen(service.ref, "status.loadBalancer.ingress", None, "no address was assigned")]
        for event in cluster.event_objects:
            about = event.raw.get("involvedObject") or event.raw.get("regarding") or {}
            mine = (about.get("kind"), about.get("namespace"), about.get("name")) == (
                "Service",
                service.metadata.namespace,
                service.metadata.name,
            )
            if mine and event.raw.get("type") == "Warning":
                message = str(event.raw.get("message") or event.raw.get("note") or "")
                evidence.append(seen(event.ref, "message", message, shortened(message)))
        yield Problem(
            "the load balancer has no address yet",
            service.ref,
            tuple(evidence[:3]),
            Remedy("Read the Service's events.", command=kubectl(service.ref, "describe")),
        )
