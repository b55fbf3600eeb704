"""What is behind Services and routes: which of the selected workloads a Service is for, and what a route means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import text
from kubectl_genainet.doctor.objects.recognise import BATCH
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import name_instead, set_in
from kubectl_genainet.doctor.predicates.selectors import alike
from kubectl_genainet.model.finding import Evidence, ObjectRef
from kubectl_genainet.model.kube import KubeObject, Service, ServicePort

_LARGE_INPUT = re.compile(r"whisper|speaches|(^|[^a-z])(vl|vision|llava|pixtral|parakeet|ocr)([^a-z]|$)")


def mend_backend(cluster: Cluster, route: KubeObject, backend: Mapping[str, Any], wrong: Evidence) -> str:
    """Names the only port of a route's Service, the API group that its InferencePool has, or the backend that was probably
    meant; else `kubectl edit`."""
    namespace, name = text(backend, "namespace") or route.namespace, text(backend, "name")
    service = cluster.service(namespace, name)
    if wrong.field.endswith(".port") and service is not None and len(service.spec.ports) == 1:
        return set_in(route, wrong.field, service.spec.ports[0].port)
    groups = {p.group for p in cluster.snapshot.of("InferencePool") if (p.namespace, p.name) == (namespace, name)}
    if wrong.field.endswith(".group") and len(groups) == 1:
        return set_in(route, wrong.field, groups.pop())
    kind = text(backend, "kind") or "Service"
    near = alike(name, (o.name for o in cluster.snapshot.of(kind) if o.namespace == namespace))
    return name_instead(route, wrong.field, near if wrong.field.endswith(".name") else "")


def lacks_port(cluster: Cluster, service: Service, port: object) -> bool:
    """Whether a Service has no port of a number or a name; one that an operator makes may not tell its ports."""
    key = (service.metadata.namespace, service.metadata.name)
    told = bool(service.spec.ports) or key in cluster.services_by_key
    return told and all(port not in (p.port, p.name) for p in service.spec.ports)


def declares(cluster: Cluster, workload: Workload, port: ServicePort) -> bool:
    """Whether a container of a workload declares the port that a Service's port leads to."""
    number = cluster.target_port(workload, port)
    return any(n == number for c in workload.template.all_containers for n, _, _ in c.ports)


def backends_of(cluster: Cluster, service: Service, port: ServicePort) -> tuple[Workload, ...]:
    """The workloads that a port of a Service is for: those that declare it, or all where none does."""
    selected = cluster.workloads_of(service)
    return tuple(w for w in selected if declares(cluster, w, port)) or selected


def _programs(workload: Workload) -> set[tuple[str, tuple[str, ...]]]:
    """What the containers of a workload run: image and command line."""
    return {(c.image, tuple(c.words)) for c in workload.containers}


def strangers(cluster: Cluster, service: Service, port: ServicePort) -> tuple[Workload, ...]:
    """The workloads that a Service selects and that declare ports, but not this one, while another selected one does.

    Of a port that is named, a pod without the name is no endpoint. Declared ports are information only: what runs the same
    program as one that declares the port listens there too.
    """
    if isinstance(port.target_port, str):
        return ()
    selected = [w for w in cluster.workloads_of(service) if w.ref.kind not in BATCH]
    serving = [w for w in selected if declares(cluster, w, port)]
    if not serving:
        return ()
    programs = {program for w in serving for program in _programs(w)}
    others = (w for w in selected if any(c.ports for c in w.containers) and not declares(cluster, w, port))
    return tuple(w for w in others if not programs & _programs(w))


def granted_by_aibrix(cluster: Cluster, namespace: str, name: str) -> bool:
    """Whether a Service is of a model that AIBrix's controller knows by its labels: it makes a ReferenceGrant for it."""
    service = cluster.service(namespace, name)
    behind = cluster.workloads_of(service) if service is not None else ()
    return any("model.aibrix.ai/name" in w.labels for w in behind)


def behind(cluster: Cluster, service: Service) -> tuple[ObjectRef, ...]:
    """A Service and what it leads to: what a problem of the way there rests on."""
    return service.ref, *(w.ref for w in cluster.workloads_of(service))


def is_for_metrics(service: Service, port: ServicePort) -> bool:
    """Whether a port of a Service is for Prometheus, by the names of the two."""
    names = f"{port.name} {service.metadata.name}"
    return any(word in names for word in ("metric", "prometheus", "monitor"))


def takes_large_input(cluster: Cluster, service: Service) -> bool:
    """Whether a model behind a Service is sent recordings or pictures, by the names of it, its image and its workload."""
    servers = cluster.workloads_of(service)
    words = [word for w in servers for c in w.containers for word in (c.image, *c.words)]
    return _LARGE_INPUT.search(" ".join((*(w.name for w in servers), *words)).lower()) is not None
