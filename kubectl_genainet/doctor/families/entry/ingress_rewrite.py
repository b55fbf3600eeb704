"""Ingresses that rewrite every path below one to the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.entry.ingress import (
    NGINX,
    backends,
    controller_of,
    exact_fields,
    ingresses,
    service_field,
)
from kubectl_genainet.doctor.families.entry.ingress_settings import INGRESS_NGINX
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import annotation, kubectl, text
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.predicates.backends import behind, is_for_metrics
from kubectl_genainet.model.finding import Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service

KEY = NGINX + "rewrite-target"
_SERVERS = (Role.MODEL_SERVER, Role.ROUTER, Role.VECTOR_DATABASE)
_ANSWER_AT_ROOT = ("TGI", "")  # POST / generates; a server that is not known may have no other path


def _lost(cluster: Cluster, ingress: KubeObject) -> Iterator[tuple[str, str, Service, bool]]:
    """(path, field, Service, whether it is a server of which nothing is at /) of GenAI backends whose paths are lost."""
    exact = exact_fields(ingress)
    for field, backend, _, path in backends(ingress):
        service = cluster.service(ingress.namespace, text(backend, "service", "name"))
        behind = cluster.workloads_of(service) if service is not None else ()
        roles = {cluster.role(w) for w in behind} - {Role.UNKNOWN, Role.ACCELERATED}
        if service is None or field in exact or path in ("", "/") or not path.strip("/").isascii() or not roles:
            continue
        if _leads_to_metrics(service, backend):
            continue
        if not any(sign in path for sign in "()[]*+?.^$|"):
            stacks = {s.name for w in behind if (s := cluster.stack(w))}
            known = bool(roles & set(_SERVERS)) and bool(stacks) and not stacks & set(_ANSWER_AT_ROOT)
            if known or Role.APPLICATION in roles:
                yield path, field, service, known


def _leads_to_metrics(service: Service, backend: dict[str, Any]) -> bool:
    named = {text(backend, "service", "port", "number"), text(backend, "service", "port", "name")} - {""}
    return any(is_for_metrics(service, p) for p in service.spec.ports if {str(p.port), p.name} & named)


@check(Area.INGRESS, Severity.ERROR, needs=("Ingress",))
def ingress_rewrite(cluster: Cluster) -> Problems:
    """An Ingress sends every request below a path to the server's root.

    Looks at nginx.ingress.kubernetes.io/rewrite-target: / of ingress-nginx's Ingresses, and at their paths that are prefixes
    other than / and lead to model servers, vector databases and applications that call one. TGI, which answers at /, is left
    out, and so are ports for metrics: Prometheus's own servers answer at every path.

    Why: since its version 0.22 ingress-nginx puts only what the path captures into the new one: /api/v1/chat becomes /, as
    does everything else. An error where a server is known that has nothing there: every request gets 404, or a page. A
    warning in front of an application.

    Source: https://kubernetes.github.io/ingress-nginx/examples/rewrite/#rewrite-target
    """
    for ingress in ingresses(cluster):
        if ingress.annotations.get(KEY) != "/" or controller_of(cluster, ingress) != INGRESS_NGINX:
            continue
        lost = list(_lost(cluster, ingress))
        if lost:
            paths = ", ".join(dict.fromkeys(path for path, *_ in lost))
            first = lost[0][0].rstrip("/")
            yield Problem(
                f"every request below {paths} arrives as /",
                ingress.ref,
                (
                    seen(ingress.ref, annotation(KEY), "/", "the rest of the path is not captured"),
                    *(
                        seen(ingress.ref, service_field(field), service.metadata.name, f"{path} leads to {service.ref}")
                        for path, field, service, _ in lost[:4]
                    ),
                ),
                Remedy(
                    f"Capture the rest: path {first}(/|$)(.*) of type ImplementationSpecific with use-regex, and rewrite-target "
                    f"/$2; or remove rewrite-target where the server itself has {first}.",
                    command=kubectl(ingress.ref, "edit"),
                ),
                rests_on=behind(cluster, lost[0][2]),
                severity=None if any(known for *_, known in lost) else Severity.WARNING,
            )
