"""Calls that workloads are configured to make: whether what they name exists."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, assumed, check, seen
from kubectl_genainet.doctor.objects.calls import Call
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, items, text
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import edit
from kubectl_genainet.doctor.predicates.selectors import alike
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity


@check(Area.SERVICES, Severity.ERROR, needs=("Service",), own_namespace=True)
def call_port(cluster: Cluster) -> Problems:
    """A workload is configured to call a port that the Service does not have.

    Looks at URLs and HOST:PORT in variables, ConfigMaps and command lines that name a Service of the cluster: the port
    written, or that of the scheme, against spec.ports. Headless Services, ExternalNames, a workload's own Service and ports
    of pods that stand behind the Service are left out. An error where the port is written, else a warning.

    Why: kube-proxy has no rule for the port: the connection is refused, or hangs until the client's timeout. The pods' port
    behind another one of the Service is the usual slip.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#defining-a-service
    """
    for call in cluster.calls:
        service = call.service
        if service is None or not call.port or not cluster.in_scope(call.client.namespace):
            continue
        behind = cluster.workloads_of(service)
        if service.spec.cluster_ip == "None" or service.spec.type == "ExternalName" or call.client in behind:
            continue
        if not service.spec.ports or any(p.port == call.port for p in service.spec.ports):
            continue
        has = ", ".join(str(p.port) for p in service.spec.ports)
        written = str(call.evidence.value).endswith(f":{call.port}")
        yield Problem(
            f"it is configured to call port {call.port} of {service.ref}, which has {has}",
            call.client.ref,
            (
                call.evidence,
                seen(service.ref, "spec.ports", [p.port for p in service.spec.ports], f"its ports are {has}"),
            ),
            Remedy("Name a port of the Service.", command=edit(call.client)),
            severity=None if written else Severity.WARNING,
        )


def _named_here(call: Call) -> tuple[str, str] | None:
    """(namespace, name) of the Service that a host without one means; None for a host that is no Service's name."""
    labels = call.host.rstrip(".").split(".")
    if len(labels) == 1:
        return call.client.namespace, labels[0]
    if len(labels) > 2 and labels[2] == "svc":
        return labels[1], labels[0]
    return None


@check(Area.SERVICES, Severity.ERROR, needs=("Service",))
def call_host(cluster: Cluster) -> Problems:
    """A workload is configured to call a Service that does not exist.

    Looks at URLs in variables, ConfigMaps and command lines whose host is a name of the cluster (NAME, NAME.NAMESPACE.svc).
    In manifests that are not the whole cluster it is reported where another Service there has nearly the name, or has it in
    another namespace that its manifest names. An error: the name does not resolve.

    Why: the client gets NXDOMAIN after all its search domains, and tells of a "connection error" that looks like a network's.

    Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#services
    """
    for call in cluster.dangling_calls:
        key = _named_here(call)
        if key is None or key in cluster.services_by_key or not cluster.in_scope(call.client.namespace):
            continue
        namespace, name = key
        own = [n for ns, n in cluster.services_by_key if ns == namespace]
        near = alike(name, own)
        client = cluster.object_of(call.client)
        placed = client is None or not client.unplaced
        others = [
            s.namespace for s in cluster.snapshot.of("Service", "") if placed and s.name == name and not s.unplaced
        ]
        elsewhere = cluster.partial("Service", namespace)
        if elsewhere and not near and not others:
            yield NotChecked(str(call.client.ref), f"Service {namespace}/{name} is not here: {elsewhere}")
            continue
        hint = f", but {near}" if near else f", but one in {', '.join(sorted(others))}" if others else ""
        said = f"there is no Service {namespace}/{name}{hint}"
        yield Problem(
            f"it is configured to call Service {namespace}/{name}, which does not exist",
            call.client.ref,
            (call.evidence, assumed(call.client.ref, call.evidence.field, call.host, said)),
            Remedy("Name a Service that exists.", command=edit(call.client)),
        )


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


@check(Area.SERVICES, Severity.ERROR, needs=("Service",), own_namespace=True)
def headless_missing(cluster: Cluster) -> Problems:
    """The headless Service by which pods find each other does not exist.

    Looks at serviceName of StatefulSets and at subdomain of pod templates, against the Services of the namespace. In
    manifests that are not the whole cluster it is reported where another Service there has nearly the name. Services that
    the job's own controller makes (JobSet, LeaderWorkerSet, Training Operator) are left out. An error where pods of a job,
    a database or a model server look for each other, else a warning.

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
            if elsewhere and not alike(name, own):
                yield NotChecked(str(workload.ref), f"Service {workload.namespace}/{name} is not here: {elsewhere}")
                continue
            said = f"there is no Service {workload.namespace}/{name}"
            known = cluster.role(workload) is not Role.UNKNOWN
            yield Problem(
                f"its pods have no names: {said}",
                workload.ref,
                (seen(workload.ref, field, name, said),),
                Remedy(
                    "Make the headless Service (clusterIP: None), or name the one that exists.", command=edit(workload)
                ),
                severity=None if known else Severity.WARNING,
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
        found = cluster.workloads_of(service)
        leaders = [w for w in found if w.part in ("leader", "head") and cluster.role(w) is Role.MODEL_SERVER]
        for leader in leaders:
            workers = [w for w in found if w.ref == leader.ref and w.part.endswith("worker")]
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
_GRPC = {"Triton": (8001,), "Qdrant": (6334,), "Weaviate": (50051,), "Milvus": (19530,), "MLServer": (8081,)}
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
        for r, rule in enumerate(items(ingress.raw, "spec", "rules")):
            for p, path in enumerate(items(rule, "http", "paths")):
                service = cluster.services_by_key.get((ingress.namespace, text(path, "backend", "service", "name")))
                wanted = at(path, "backend", "service", "port", "number") or at(
                    path, "backend", "service", "port", "name"
                )
                port = next((q for q in service.spec.ports if wanted in (q.port, q.name)), None) if service else None
                if service is None or port is None:
                    continue
                workload = next(iter(cluster.workloads_of(service)), None)
                stack = cluster.stack(workload) if workload else None
                number = cluster.target_port(workload, port) if workload else 0
                if port.name.lower() == "grpc" or (stack is not None and number in _GRPC.get(stack.name, ())):
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
                                f"spec.rules[{r}].http.paths[{p}].backend.service.port",
                                wanted,
                                f"leads to port {number or port.name} of {workload.ref if workload else service.ref}",
                            ),
                        ),
                        Remedy("Set backend-protocol to GRPC on an Ingress for this port alone."),
                    )
