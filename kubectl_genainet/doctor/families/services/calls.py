"""Calls that workloads are configured to make: whether what they name exists."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, assumed, check, derived, seen
from kubectl_genainet.doctor.objects.calls import Call
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, items, mapping, text
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import rewrite_value
from kubectl_genainet.doctor.predicates.labels import selecting_labels
from kubectl_genainet.doctor.predicates.policy_text import adding
from kubectl_genainet.doctor.predicates.replicas import replicas
from kubectl_genainet.doctor.predicates.selectors import alike, meant
from kubectl_genainet.model.finding import NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service, ServicePort


@check(Area.SERVICES, Severity.ERROR, needs=("Service",), own_namespace=True)
def call_port(cluster: Cluster) -> Problems:
    """A workload is configured to call a port that the Service does not have.

    Looks at URLs and HOST:PORT in variables, ConfigMaps, command lines and a mounted configuration of LiteLLM
    (api_base) that name a Service of the cluster: the port written, or that of the scheme where a path follows the
    host, against spec.ports. To a URL that ends with its host many clients add a port of their own (Qdrant's 6333,
    Elasticsearch's 9200): it is not checked. Headless Services, ExternalNames, a workload's own Service and ports of
    pods that stand behind the Service are left out. What one ConfigMap tells several workloads is reported once. An
    error where the port is written, else a warning.

    Why: kube-proxy has no rule for the port: the connection is refused, or hangs until the client's timeout. The pods' port
    behind another one of the Service is the usual slip.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#defining-a-service
    """
    for call, clients in _by_setting(_ports_without_a_service(cluster)):
        service = call.service
        if service is None:
            continue
        if not call.whole:
            where = f"{call.evidence.object} {call.evidence.field}"
            yield NotChecked(where, f"it names no port of {service.ref}; what the program adds is not seen")
            continue
        ports = [p.port for p in service.spec.ports]
        listed = ", ".join(map(str, ports))
        written = str(call.evidence.value).endswith(f":{call.port}")
        there = (service.metadata.namespace, service.metadata.name) in cluster.services_by_key
        has = (seen if there else derived)(service.ref, "spec.ports", ports, f"its ports are {listed}")
        yield Problem(
            f"{_who(clients)} configured to call port {call.port} of {service.ref}, which has {listed}",
            _told_by(call, clients),
            (call.evidence, has),
            Remedy("Name a port of the Service.", command=_other_port(cluster, call, service)),
            detail=_all_clients(clients),
            severity=None if written else Severity.WARNING,
        )


def _ports_without_a_service(cluster: Cluster) -> Iterator[Call]:
    """The calls of a port that their Service, which has a cluster IP, does not have."""
    for call in cluster.calls:
        service = call.service
        if service is None or not call.port or not cluster.in_scope(call.client.namespace):
            continue
        if service.spec.cluster_ip == "None" or service.spec.type == "ExternalName" or not service.spec.ports:
            continue
        if call.client not in cluster.workloads_of(service) and all(p.port != call.port for p in service.spec.ports):
            yield call


def _by_setting(calls: Iterable[Call]) -> Iterator[tuple[Call, list[Workload]]]:
    """Each setting once, with the workloads that have it: all that read a ConfigMap, or the one whose own it is."""
    clients: dict[tuple[str, str, str, int], tuple[Call, list[Workload]]] = {}
    for call in calls:
        key = (str(call.evidence.object), call.evidence.field, call.host, call.port)
        clients.setdefault(key, (call, []))[1].append(call.client)
    yield from clients.values()


def _who(clients: list[Workload]) -> str:
    return "it is" if len(clients) == 1 else f"{len(clients)} workloads that read it are"


def _told_by(call: Call, clients: list[Workload]) -> ObjectRef | None:
    """What has to change: the one client, or the ConfigMap that several read."""
    return call.client.ref if len(clients) == 1 else call.evidence.object


def _all_clients(clients: list[Workload]) -> str:
    return ", ".join(str(c.ref) for c in clients) if len(clients) > 1 else ""


def _other_port(cluster: Cluster, call: Call, service: Service) -> str:
    """The call with the Service's port, where it has one only."""
    ports = service.spec.ports
    known = len(ports) == 1 and str(call.evidence.value).endswith(f":{call.port}")
    old, new = (f"{call.host}:{call.port}", f"{call.host}:{ports[0].port}") if known else ("", "")
    return rewrite_value(call.client, _source(cluster, call), call.evidence, old, new)


def _other_host(cluster: Cluster, call: Call, near: str) -> str:
    """The call with the name of a Service that it nearly has, where there is one."""
    _, dot, domain = call.host.partition(".")
    old, new = (call.host, f"{near}{dot}{domain}") if near else ("", "")
    return rewrite_value(call.client, _source(cluster, call), call.evidence, old, new)


def _source(cluster: Cluster, call: Call) -> KubeObject | None:
    """The object in which a call is written: the client's own, or a ConfigMap."""
    where = call.evidence.object
    if where is not None and where.kind == "ConfigMap":
        return cluster.config_maps.get((where.namespace, where.name))
    return cluster.object_of(call.client)


def _named_here(call: Call) -> tuple[str, str] | None:
    """(namespace, name) of the Service that a host without one means; None for a host that is no Service's name."""
    labels = call.host.rstrip(".").split(".")
    if len(labels) == 1:
        return call.client.namespace, labels[0]
    if len(labels) > 2 and labels[2] == "svc":
        return labels[1], labels[0]
    return None


def _meant_together(cluster: Cluster, client: KubeObject, service: KubeObject) -> bool:
    """Whether manifests show a Service and its client as one application; an ExternalName stands for a Service elsewhere."""
    return text(service.raw, "spec", "type") != "ExternalName" and cluster.extent.together(client, service)


@check(Area.SERVICES, Severity.ERROR, needs=("Service",))
def call_host(cluster: Cluster) -> Problems:
    """A workload is configured to call a Service that does not exist.

    Looks at URLs in variables, ConfigMaps, command lines and a mounted configuration of LiteLLM (api_base) whose host is
    a name of the cluster (NAME, NAME.NAMESPACE.svc). In manifests that are not the whole cluster it is reported where
    another Service that is applied with the caller has nearly the name, or the name with a prefix that the caller's has too
    (a kustomization's namePrefix), or where a host without a namespace is that of one whose manifest names another
    namespace. What one ConfigMap tells several workloads is reported once. An error: the name does not resolve.

    Why: the client gets NXDOMAIN after all its search domains, and tells of a "connection error" that looks like a network's.

    Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#services
    """
    for call, clients in _by_setting(cluster.dangling_calls):
        key = _named_here(call)
        if key is None or key in cluster.services_by_key or not cluster.in_scope(call.client.namespace):
            continue
        namespace, name = key
        elsewhere = cluster.partial("Service", namespace)
        own = _services_beside(cluster, call, namespace, part=bool(elsewhere))
        near = "" if name in call.client.name.split("-") else alike(name, own) or _renamed(call.client, name, own)
        others = _namesakes(cluster, call, name, part=bool(elsewhere))
        if elsewhere and not near and not others:
            yield NotChecked(str(call.client.ref), f"Service {namespace}/{name} is not here: {elsewhere}")
            continue
        hint = f", but {near}" if near else f", but one in {', '.join(others)}" if others else ""
        problem = f"there is no Service {namespace}/{name}{hint}"
        yield Problem(
            f"{_who(clients)} configured to call Service {namespace}/{name}, which does not exist",
            _told_by(call, clients),
            (call.evidence, assumed(call.client.ref, call.evidence.field, call.host, problem)),
            Remedy("Name a Service that exists.", command=_other_host(cluster, call, near)),
            detail=_all_clients(clients),
            rests_on=(*meant("Service", near, namespace), *(ObjectRef("Service", name, ns) for ns in others[:1])),
        )


def _renamed(client: Workload, name: str, services: list[str]) -> str:
    """The Service that a kustomization's namePrefix has given another name, as it has the client's: the address in a variable
    stays as it was."""
    prefixed = ((s, s.removesuffix(name)) for s in services if s.endswith(f"-{name}"))
    return next((service for service, prefix in prefixed if client.name.startswith(prefix)), "")


def _services_beside(cluster: Cluster, call: Call, namespace: str, *, part: bool) -> list[str]:
    """The names of the Services of a namespace; of manifests that are a `part` of a cluster, of those that are applied with the
    caller."""
    client = cluster.object_of(call.client) if part else None
    services = (s for s in cluster.snapshot.of("Service", "") if s.namespace == namespace)
    return [s.name for s in services if client is None or cluster.extent.together(client, s)]


def _namesakes(cluster: Cluster, call: Call, name: str, *, part: bool) -> list[str]:
    """The namespaces of other Services of that name; of manifests that are a `part` of a cluster, those that show that the
    caller meant one of them."""
    client = cluster.object_of(call.client)
    if client is not None and client.unplaced:
        return []
    others = [s for s in cluster.snapshot.of("Service", "") if s.name == name and not s.unplaced]
    if part:
        bare = "." not in call.host  # a namespace that is written out was meant: what it holds may be elsewhere
        own_services = {s.ref for s in cluster.services_of(call.client)}
        together = [s for s in others if bare and (client is None or _meant_together(cluster, client, s))]
        others = [s for s in together if s.ref not in own_services]
    return sorted(s.namespace for s in others)


def _names_of_services(workload: Workload, cluster: Cluster) -> Iterator[tuple[str, str]]:
    """(field, name) of the headless Services by which a workload's pods get names."""
    subdomain = text(workload.template.spec, "subdomain")
    if subdomain:
        yield workload.field("subdomain"), subdomain
    if workload.ref.kind == "StatefulSet":
        obj = cluster.object_of(workload)
        name = text(obj.raw, "spec", "serviceName") if obj is not None else ""
        if name:
            yield "spec.serviceName", name


def _calls_a_pod(cluster: Cluster, workload: Workload, service: str) -> bool:
    """Whether a variable, a command line or a ConfigMap has the name that a headless Service would give one of the pods."""
    of_pods, domain = re.escape(workload.name), re.escape(service)
    pod = re.compile(rf"(?<![\w-]){of_pods}-[^.\s/]{{1,63}}\.{domain}(?![\w-])")
    told = (w for other in cluster.workloads for c in other.containers for w in (*c.words, *c.env.values()))
    configured = (str(v) for obj in cluster.config_maps.values() for v in mapping(obj.raw, "data").values())
    return any(pod.search(value) for value in itertools.chain(told, configured))


def _headless_service(workload: Workload, name: str) -> Remedy:
    """The Service that gives a workload's pods their names; a headless one needs ports only for those who ask for them."""
    ports = [
        {"name": port_name or f"port-{number}", "port": number, "protocol": protocol}
        for container in workload.containers
        for number, port_name, protocol in container.ports
    ]
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": selecting_labels(workload),
        "ports": ports,
    }
    return adding(
        "Make the headless Service (clusterIP: None), or name the one that exists.",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": workload.namespace},
            "spec": {key: value for key, value in spec.items() if value},
        },
    )


@check(Area.SERVICES, Severity.ERROR, needs=("Service",), own_namespace=True)
def headless_missing(cluster: Cluster) -> Problems:
    """The headless Service by which pods find each other does not exist.

    Looks at serviceName of StatefulSets and at subdomain of pod templates, against the Services of the namespace. In
    manifests that are not the whole cluster it is reported where another Service there has nearly the name. Services that
    the job's own controller makes (JobSet, LeaderWorkerSet, Training Operator) are left out, and so are StatefulSets of one
    pod that nobody calls by its name. An error where pods of a job, a database or a model server look for each other, else
    a warning.

    Why: POD.SERVICE has no record without the Service: rendezvous, Raft and memberlist never find a peer.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#stable-network-id
    """
    for workload in cluster.workloads:
        if not cluster.in_scope(workload.namespace) or not workload.built_in:
            continue
        for field, name in _names_of_services(workload, cluster):
            if (workload.namespace, name) in cluster.services_by_key:
                continue
            own = [n for ns, n in cluster.services_by_key if ns == workload.namespace]
            elsewhere = cluster.partial("Service", workload.namespace)
            near = alike(name, own)
            if elsewhere and not near:
                yield NotChecked(str(workload.ref), f"Service {workload.namespace}/{name} is not here: {elsewhere}")
                continue
            problem = f"there is no Service {workload.namespace}/{name}"
            alone = workload.ref.kind == "StatefulSet" and replicas(cluster, workload) < 2
            if alone and not _calls_a_pod(cluster, workload, name):
                continue  # a pod without peers, which nobody looks up
            known = cluster.role(workload) is not Role.UNKNOWN
            yield Problem(
                f"its pods have no names: {problem}",
                workload.ref,
                (seen(workload.ref, field, name, problem),),
                _headless_service(workload, name),
                severity=None if known else Severity.WARNING,
                rests_on=meant("Service", near if elsewhere else "", workload.namespace),
            )


@check(Area.SERVICES, Severity.ERROR, needs=("Service", "Pod"), own_namespace=True)
def service_selects_workers(cluster: Cluster) -> Problems:
    """A Service in front of a model server over several pods selects the workers too.

    Looks at Services (not headless ones) that select both the leader of a LeaderWorkerSet or a head, which serves, and
    workers that join it and have no readiness probe. An error: one request in so many fails.

    Why: only the leader listens. A worker without a readiness probe is ready as soon as it runs, becomes an endpoint, and
    refuses the connections that kube-proxy sends it.

    Source: https://lws.sigs.k8s.io/docs/examples/vllm/
    """
    for service in cluster.services:
        if service.spec.cluster_ip == "None" or service.spec.type == "ExternalName":
            continue
        workloads = cluster.workloads_of(service)
        leaders = [w for w in workloads if w.part in ("leader", "head") and cluster.role(w) is Role.MODEL_SERVER]
        for leader in leaders:
            workers = [w for w in workloads if w.ref == leader.ref and w.part.endswith("worker")]
            idle = [w for w in workers if not any(c.probe("readinessProbe") for c in w.containers)]
            if idle:
                yield Problem(
                    f"it selects the workers of {leader.ref} as well as the leader, and only the leader serves",
                    service.ref,
                    (
                        seen(service.ref, "spec.selector", dict(service.spec.selector), "leader and workers have it"),
                        seen(
                            idle[0].ref,
                            idle[0].field("containers[0].readinessProbe"),
                            at(idle[0].containers[0].raw, "readinessProbe") if idle[0].containers else None,
                            "the workers are ready as soon as they run",
                        ),
                    ),
                    Remedy(
                        "Select the leader alone: by a label of its template, or leaderworkerset.sigs.k8s.io/worker-index: "
                        '"0".'
                    ),
                )


# gRPC ports of stacks whose HTTP port is another one.
GRPC_PORTS = {"Triton": (8001,), "Qdrant": (6334,), "Weaviate": (50051,), "Milvus": (19530,), "MLServer": (8081,)}
_NGINX_PROTOCOL = "nginx.ingress.kubernetes.io/backend-protocol"


@check(Area.INGRESS, Severity.ERROR, needs=("Ingress", "Service"))
def ingress_grpc(cluster: Cluster) -> Problems:
    """An Ingress sends HTTP/1 to a gRPC port.

    Looks at backends of ingress-nginx whose pods' port is a stack's gRPC port (Triton 8001, Qdrant 6334, Weaviate 50051,
    Milvus 19530), or is named grpc, and at the annotation backend-protocol. An error: every call fails.

    Why: nginx speaks HTTP/1.1 to its backends unless it is told GRPC or GRPCS: the server closes the connection, the client
    gets 502 or "upstream sent too large http2 frame".

    Source: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#backend-protocol
    """
    for ingress in cluster.snapshot.of("Ingress", "networking.k8s.io"):
        name = text(ingress.raw, "spec", "ingressClassName") or ingress.annotations.get(
            "kubernetes.io/ingress.class", ""
        )
        spoken = ingress.annotations.get(_NGINX_PROTOCOL, "")
        if not cluster.in_scope(ingress.namespace) or name != "nginx" or spoken.upper() in ("GRPC", "GRPCS"):
            continue
        for field, service, port, wanted in _backends_of(cluster, ingress):
            workload = next(iter(cluster.workloads_of(service)), None)
            stack = cluster.stack(workload) if workload else None
            number = cluster.target_port(workload, port) if workload else 0
            if port.name.lower() == "grpc" or (stack is not None and number in GRPC_PORTS.get(stack.name, ())):
                yield Problem(
                    f"it sends HTTP/1 to port {port.port} of {service.ref}, which speaks gRPC",
                    ingress.ref,
                    (
                        seen(
                            ingress.ref,
                            f"metadata.annotations[{_NGINX_PROTOCOL}]",
                            spoken or None,
                            spoken or "absent: HTTP",
                        ),
                        seen(
                            ingress.ref,
                            field,
                            wanted,
                            f"leads to port {number or port.name} of {workload.ref if workload else service.ref}",
                        ),
                    ),
                    Remedy("Set backend-protocol to GRPC on an Ingress for this port alone."),
                )


def _backends_of(cluster: Cluster, ingress: KubeObject) -> Iterator[tuple[str, Service, ServicePort, Any]]:
    """The Service ports behind an Ingress's paths, each with the field that names it, and how."""
    for r, rule in enumerate(items(ingress.raw, "spec", "rules")):
        for p, path in enumerate(items(rule, "http", "paths")):
            service = cluster.services_by_key.get((ingress.namespace, text(path, "backend", "service", "name")))
            wanted = at(path, "backend", "service", "port", "number") or at(path, "backend", "service", "port", "name")
            port = next((o for o in service.spec.ports if wanted in (o.port, o.name)), None) if service else None
            if service is not None and port is not None:
                yield f"spec.rules[{r}].http.paths[{p}].backend.service.port", service, port, wanted
