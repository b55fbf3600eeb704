"""Ingress: backends, controllers, TLS, conflicting paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import (
    annotation,
    at,
    condition,
    items,
    json_in,
    kubectl,
    mapping,
    sh,
    strings,
    text,
)
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.predicates.backends import lacks_port
from kubectl_genainet.doctor.predicates.edits import name_instead, on_object, set_in
from kubectl_genainet.doctor.predicates.selectors import alike, meant, service_names
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service

NGINX = "nginx.ingress.kubernetes.io/"
ALB = "alb.ingress.kubernetes.io/"

# Controller (spec.controller of an IngressClass) -> words that its Deployment or DaemonSet is known by.
_CONTROLLERS = {
    "k8s.io/ingress-nginx": ("ingress-nginx",),
    "nginx.org/ingress-controller": ("nginx-ingress",),
    "ingress.k8s.aws/alb": ("aws-load-balancer-controller",),  # EKS Auto Mode's own is eks.amazonaws.com/alb
    "haproxy.org/ingress-controller": ("haproxy-ingress", "kubernetes-ingress"),
    "haproxy-ingress.github.io/controller": ("haproxy-ingress",),
    "istio.io/ingress-controller": ("istiod",),
    "traefik.io/ingress-controller": ("traefik",),
    "cilium.io/ingress-controller": ("cilium-operator",),
}


def ingresses(cluster: Cluster) -> list[KubeObject]:
    return [i for i in cluster.snapshot.of("Ingress", "networking.k8s.io") if cluster.in_scope(i.namespace)]


def backends(ingress: KubeObject) -> Iterator[tuple[str, dict[str, Any], str, str]]:
    """(field, backend, host, path) of every backend of an Ingress; for an action of an ALB those that it forwards to."""
    for field, backend, host, path in _written_backends(ingress):
        key = ALB + "actions." + text(backend, "service", "name")
        if text(backend, "service", "port", "name") != "use-annotation" or key not in ingress.annotations:
            yield field, backend, host, path
            continue
        for group in items(json_in(ingress.annotations[key]), "forwardConfig", "targetGroups"):
            port = text(group, "servicePort")
            named = {"number": int(port)} if port.isdecimal() else {"name": port}
            yield annotation(key), {"service": {"name": text(group, "serviceName"), "port": named}}, host, path


def _written_backends(ingress: KubeObject) -> Iterator[tuple[str, dict[str, Any], str, str]]:
    default = at(ingress.raw, "spec", "defaultBackend")
    if isinstance(default, dict):
        yield "spec.defaultBackend", default, "", ""
    for r, rule in enumerate(items(ingress.raw, "spec", "rules")):
        for p, path in enumerate(items(rule, "http", "paths")):
            field = f"spec.rules[{r}].http.paths[{p}].backend"
            yield field, mapping(path, "backend"), text(rule, "host"), text(path, "path")


def service_field(field: str, rest: str = "name") -> str:
    """The field of a backend's Service; the annotation of an ALB's action holds it all."""
    return field if field.startswith("metadata.") else f"{field}.service.{rest}"


def exact_fields(ingress: KubeObject) -> frozenset[str]:
    """The fields of backends whose path is matched as a whole; such a path goes before the same one as a prefix."""
    return frozenset(
        f"spec.rules[{r}].http.paths[{p}].backend"
        for r, rule in enumerate(items(ingress.raw, "spec", "rules"))
        for p, path in enumerate(items(rule, "http", "paths"))
        if text(path, "pathType") == "Exact"
    )


def ingress_class(ingress: KubeObject) -> tuple[str, str]:
    """(class, field) of an Ingress; empty for the default class."""
    name = text(ingress.raw, "spec", "ingressClassName")
    if name:
        return name, "spec.ingressClassName"
    old = "kubernetes.io/ingress.class"
    return ingress.annotations.get(old, ""), annotation(old) if old in ingress.annotations else "spec.ingressClassName"


def controller_of(cluster: Cluster, ingress: KubeObject) -> str:
    """The controller's name from the IngressClass; for a class that was not read, what its name suggests."""
    name, _ = ingress_class(ingress)
    for obj in cluster.snapshot.of("IngressClass", "networking.k8s.io"):
        default = obj.annotations.get("ingressclass.kubernetes.io/is-default-class") == "true"
        if obj.name == name or (not name and default):
            return text(obj.raw, "spec", "controller")
    return {
        "nginx": "k8s.io/ingress-nginx",
        "alb": "ingress.k8s.aws/alb",
        "gce": "ingress.gcp.kubernetes.io/gce",
        "gce-internal": "ingress.gcp.kubernetes.io/gce",
        "tailscale": "tailscale.com/ts-ingress",
        "haproxy": "haproxy.org/ingress-controller",
        "traefik": "traefik.io/ingress-controller",
    }.get(name, "")


def leads_to_a_server(cluster: Cluster, service: Service) -> bool:
    """Whether a Service leads to a model server or a router itself, and not to an application that asks one."""
    roles = {cluster.role(w) for w in cluster.workloads_of(service)}
    return bool(roles & {Role.MODEL_SERVER, Role.ROUTER})


def controller_marks(cluster: Cluster, ingress: KubeObject) -> tuple[str, ...]:
    """The words that the controller of an Ingress is known by; none where it is no workload of the cluster."""
    controller = controller_of(cluster, ingress)
    return () if controller == "ingress.k8s.aws/alb" else _CONTROLLERS.get(controller, ())


@check(Area.INGRESS, Severity.ERROR, needs=("Ingress",))
def ingress_backend(cluster: Cluster) -> Problems:
    """An Ingress leads to a Service or port that does not exist.

    Looks at every backend.service.name and .port (by number or by name) of an Ingress, and at the target groups of an ALB's
    actions.

    Why: the controller answers 503 for that path, while the other models under the host work. An error: every
    request for that path fails.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/
    """
    for ingress in ingresses(cluster):
        for field, backend, host, path in backends(ingress):
            name = text(backend, "service", "name")
            if not name:
                continue
            where = f"{host or '*'}{path}"
            service = cluster.service(ingress.namespace, name)
            elsewhere = cluster.partial("Service", ingress.namespace)
            near = "" if service is not None else alike(name, service_names(cluster, ingress.namespace))
            if service is None and elsewhere and not near:
                yield NotChecked(str(ingress.ref), f"Service {ingress.namespace}/{name} is not here: {elsewhere}")
                continue
            if service is None:
                yield Problem(
                    f"{where} leads to Service {name}, which does not exist",
                    ingress.ref,
                    (seen(ingress.ref, service_field(field), name, f"no Service {ingress.namespace}/{name}"),),
                    Remedy("Name an existing Service.", command=_other_service(ingress, field, near)),
                    rests_on=meant("Service", near, ingress.namespace),
                )
                continue
            wanted = at(backend, "service", "port", "number") or at(backend, "service", "port", "name")
            if text(wanted) == "use-annotation" or wanted is None or service.spec.type == "ExternalName":
                continue
            if lacks_port(cluster, service, wanted):
                has = ", ".join(f"{p.port}{f' ({p.name})' if p.name else ''}" for p in service.spec.ports)
                kind = "number" if isinstance(wanted, int) else "name"
                yield Problem(
                    f"{where} leads to port {wanted} of Service {name}, which has {has}",
                    ingress.ref,
                    (
                        seen(ingress.ref, service_field(field, f"port.{kind}"), wanted, f"{name} has no port {wanted}"),
                        seen(service.ref, "spec.ports", [p.port for p in service.spec.ports], f"its ports are {has}"),
                    ),
                    Remedy(
                        "Name a port of the Service.",
                        command=set_in(ingress, f"{field}.service.port", {"number": service.spec.ports[0].port})
                        if len(service.spec.ports) == 1 and field.startswith("spec.")
                        else kubectl(ingress.ref, "edit"),
                    ),
                )


def _other_service(ingress: KubeObject, field: str, near: str) -> str:
    """Names a Service that was probably meant; what stands in an annotation is edited."""
    if field.startswith("metadata."):
        return kubectl(ingress.ref, "edit")
    return name_instead(ingress, service_field(field), near)


@check(Area.INGRESS, Severity.ERROR, needs=("Ingress",))
def ingress_controller(cluster: Cluster) -> Problems:
    """No controller serves an Ingress.

    Looks at the class of the Ingress, the IngressClass of that name (or the default class), and whether a controller
    known for it is installed.

    Why: an Ingress without a controller is only a wish: no load balancer, no route, no error either. An error:
    every request to the host fails.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#ingress-class
    """
    classes = {c.name: c for c in cluster.snapshot.of("IngressClass", "networking.k8s.io")}
    default = [
        c for c in classes.values() if c.annotations.get("ingressclass.kubernetes.io/is-default-class") == "true"
    ]
    for ingress in ingresses(cluster):
        name, field = ingress_class(ingress)
        ingress_class_object = classes.get(name) if name else (default[0] if default else None)
        if ingress_class_object is None:
            if field.startswith("metadata") and name:
                continue  # the annotation needs no IngressClass object
            elsewhere = cluster.partial("IngressClass")
            if elsewhere:
                yield NotChecked(str(ingress.ref), f"its class {name!r} is not here: {elsewhere}")
                continue
            has = ", ".join(sorted(classes)) or "none"
            yield Problem(
                f"its class {name!r} does not exist" if name else "it names no class and there is no default class",
                ingress.ref,
                (seen(ingress.ref, field, name or None, f"IngressClasses: {has}"),),
                Remedy(
                    "Name an existing class, or install the controller.",
                    command=kubectl(
                        ingress.ref,
                        "patch",
                        "--type=merge",
                        "-p",
                        f'{{"spec":{{"ingressClassName":"{next(iter(sorted(classes)), "nginx")}"}}}}',
                    ),
                ),
            )
            continue
        controller = text(ingress_class_object.raw, "spec", "controller")
        names = _CONTROLLERS.get(controller)
        missing = cluster.partial("Deployment")
        if names is None or missing:
            if names is None:
                yield NotChecked(str(ingress.ref), f"controller {controller} is not known, so it can't be looked for")
            else:
                yield NotChecked(str(ingress.ref), missing)
        elif cluster.running(*names) is None:
            yield _not_running(ingress, ingress_class_object, controller)


def _not_running(ingress: KubeObject, cls: KubeObject, controller: str) -> Problem:
    return Problem(
        f"the controller of its class ({controller}) is not installed",
        ingress.ref,
        (seen(cls.ref, "spec.controller", controller, f"no Deployment or DaemonSet of {controller} was found"),),
        Remedy("Install the controller, or use a class whose controller runs.", command="kubectl get ingressclass"),
    )


@check(Area.INGRESS, Severity.ERROR, needs=("Ingress",))
def ingress_tls(cluster: Cluster) -> Problems:
    """The TLS Secret of an Ingress does not exist, or its certificate is not issued.

    Looks at spec.tls[].secretName and the names of the Secrets (never at what is in them), where manifests or a bundle
    have them; from a live cluster Secrets are not read. There, cert-manager's Certificates tell: one that is Ready counts
    as its Secret, one that is not is reported, and a name without a Certificate is listed as not checked.

    Why: the controller serves its own self-signed certificate, and clients refuse it. An error: clients that verify
    certificates refuse the connection.

    Source: https://kubernetes.io/docs/concepts/services-networking/ingress/#tls
    """
    secrets = {(s.namespace, s.name) for s in cluster.snapshot.of("Secret", "")}
    certificates = {(c.namespace, text(c.raw, "spec", "secretName")): c for c in cluster.snapshot.of("Certificate")}
    unread = cluster.partial("Secret")
    for ingress in ingresses(cluster):
        for index, tls in enumerate(items(ingress.raw, "spec", "tls")):
            name = text(tls, "secretName")
            key = (ingress.namespace, name)
            certificate = certificates.get(key)
            ready = condition(certificate.raw, "Ready") if certificate is not None else {}
            if not name or key in secrets or ready.get("status") == "True":
                continue
            if certificate is None and unread:
                yield NotChecked(f"Secret {ingress.namespace}/{name} of {ingress.ref}", unread)
                continue
            if certificate is not None and not ready and not cluster.lives(text(certificate.raw, "metadata", "uid")):
                yield NotChecked(f"Secret {ingress.namespace}/{name} of {ingress.ref}", f"{certificate.ref} makes it")
                continue
            hosts = ", ".join(strings(tls, "hosts"))
            evidence = [seen(ingress.ref, f"spec.tls[{index}].secretName", name, f"for {hosts or 'all hosts'}")]
            if certificate is not None:
                reason = text(ready, "message") or "it has no condition Ready"
                evidence.append(seen(certificate.ref, "status.conditions[Ready]", ready.get("status"), reason))
                title = f"the certificate for its TLS Secret {name} is not ready"
                remedy = Remedy("See why it is not issued.", command=on_object(certificate, "describe"))
            else:
                title = f"its TLS Secret {name} does not exist"
                remedy = Remedy(
                    "Create it, or let cert-manager do so.",
                    command=f"kubectl -n {sh(ingress.namespace)} create secret tls --cert=tls.crt "
                    f"--key=tls.key -- {sh(name)}",
                )
            yield Problem(title, ingress.ref, tuple(evidence), remedy)
