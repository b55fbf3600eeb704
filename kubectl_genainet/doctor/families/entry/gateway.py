"""Gateway API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import condition, items, number, text
from kubectl_genainet.doctor.predicates.backends import granted_by_aibrix, lacks_port, mend_backend
from kubectl_genainet.doctor.predicates.edits import on_object
from kubectl_genainet.doctor.predicates.inference import INFERENCE, pools
from kubectl_genainet.doctor.predicates.policy_text import adding
from kubectl_genainet.doctor.predicates.selectors import alike, meant
from kubectl_genainet.model.finding import Evidence, NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject

GROUP = "gateway.networking.k8s.io"
ROUTES = ("HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute")


def _routes(cluster: Cluster) -> list[KubeObject]:
    return [r for kind in ROUTES for r in cluster.snapshot.of(kind, GROUP) if cluster.in_scope(r.namespace)]


def _backend_refs(route: KubeObject) -> Iterator[tuple[str, dict[str, Any]]]:
    for r, rule in enumerate(items(route.raw, "spec", "rules")):
        for b, backend in enumerate(items(rule, "backendRefs")):
            yield f"spec.rules[{r}].backendRefs[{b}]", backend


def _failed(
    obj: KubeObject, where: tuple[str | int, ...], field: str, kinds: tuple[str, ...]
) -> tuple[Evidence, str] | None:
    """The first condition of the kinds that is False, as evidence, with its message."""
    for kind in kinds:
        unmet = condition(obj.raw, kind, *where)
        if unmet.get("status") == "False":
            reason = f"{text(unmet, 'reason')}: {text(unmet, 'message')}".strip(": ")
            return seen(obj.ref, f"{field}[{kind}].status", "False", reason or f"{kind} is False"), reason
    return None


def _not_in_effect(obj: KubeObject, failed: tuple[Evidence, str]) -> Problem:
    evidence, reason = failed
    remedy = Remedy("Read its conditions.", command=on_object(obj, "describe"))
    return Problem(f"not in effect: {reason}", obj.ref, (evidence,), remedy)


@check(Area.GATEWAY, Severity.ERROR, needs=("Gateway",))
def gateway_accepted(cluster: Cluster) -> Problems:
    """A Gateway is not accepted or not programmed.

    Looks at the conditions Accepted and Programmed of Gateways and Accepted, Programmed and ResolvedRefs of their
    listeners. A Gateway without any condition has no controller.

    Why: nothing listens for it; its routes lead nowhere. An error: every request fails.

    Source: https://gateway-api.sigs.k8s.io/reference/spec/#gatewaystatus
    """
    for gateway in cluster.snapshot.of("Gateway", GROUP):
        if not cluster.in_scope(gateway.namespace):
            continue
        if cluster.from_files and "status" not in gateway.raw:
            yield NotChecked(str(gateway.ref), "the manifest has no status")
            continue
        failed = _failed(gateway, ("status", "conditions"), "status.conditions", ("Accepted", "Programmed"))
        for index, listener in enumerate(items(gateway.raw, "status", "listeners")):
            failed = failed or _failed(
                gateway,
                ("status", "listeners", index, "conditions"),
                f"status.listeners[{index}].conditions",
                ("Accepted", "ResolvedRefs", "Programmed"),
            )
            if failed and failed[0].field.startswith(f"status.listeners[{index}]"):
                failed = (failed[0], f"listener {text(listener, 'name')}: {failed[1]}")
        taken_up = items(gateway.raw, "status", "conditions") or not cluster.lives(text(gateway.raw, "metadata", "uid"))
        if failed is None and not taken_up:
            name = text(gateway.raw, "spec", "gatewayClassName")
            failed = (
                seen(gateway.ref, "status.conditions", None, f"no controller took it up (class {name})"),
                "no controller",
            )
        if failed is not None:
            yield _not_in_effect(gateway, failed)


@check(Area.GATEWAY, Severity.ERROR, needs=("HTTPRoute", "Gateway"))
def route_accepted(cluster: Cluster) -> Problems:
    """A route is not accepted by its Gateway.

    Looks at spec.parentRefs (does the Gateway exist?) and at Accepted and ResolvedRefs in status.parents.

    Why: the Gateway answers 404 for what the route should serve. A namespace that the listener does not allow, a
    host name that does not match, or a backend that cannot be resolved are the usual reasons. An error: every
    request for the route fails.

    Source: https://gateway-api.sigs.k8s.io/reference/spec/#routestatus
    """
    gateways = {(g.namespace, g.name) for g in cluster.snapshot.of("Gateway", GROUP)}
    for route in _routes(cluster):
        for index, parent in enumerate(items(route.raw, "spec", "parentRefs")):
            kind = text(parent, "kind") or "Gateway"
            key = (text(parent, "namespace") or route.namespace, text(parent, "name"))
            if kind == "Gateway" and key not in gateways:
                elsewhere = cluster.partial("Gateway")
                if elsewhere:
                    yield NotChecked(str(route.ref), f"its Gateway {key[0]}/{key[1]} is not here: {elsewhere}")
                    continue
                yield Problem(
                    f"its Gateway {key[0]}/{key[1]} does not exist",
                    route.ref,
                    (seen(route.ref, f"spec.parentRefs[{index}].name", key[1], f"no Gateway {key[0]}/{key[1]}"),),
                    Remedy("Name an existing Gateway.", command=on_object(route, "edit")),
                )
        for index, _ in enumerate(items(route.raw, "status", "parents")):
            failed = _failed(
                route,
                ("status", "parents", index, "conditions"),
                f"status.parents[{index}].conditions",
                ("Accepted", "ResolvedRefs"),
            )
            if failed is not None:
                yield _not_in_effect(route, failed)


@check(Area.GATEWAY, Severity.ERROR, needs=("HTTPRoute",))
def route_backend(cluster: Cluster) -> Problems:
    """A route leads to a Service, port or InferencePool that does not exist.

    Looks at spec.rules[].backendRefs of HTTPRoutes, GRPCRoutes, TCPRoutes and TLSRoutes.

    Why: the Gateway answers 500 for the share of requests that this backend should get. An error: that share of the
    requests fails.

    Source: https://gateway-api.sigs.k8s.io/reference/spec/#httpbackendref
    """
    for route in _routes(cluster):
        for field, backend in _backend_refs(route):
            problem = _missing_backend(cluster, route, field, backend)
            if isinstance(problem, NotChecked):
                yield problem
            elif problem is not None:
                yield Problem(
                    f"a backend is missing: {problem.statement}",
                    route.ref,
                    (problem,),
                    Remedy("Name an existing backend.", command=mend_backend(cluster, route, backend, problem)),
                    rests_on=_meant_by(cluster, route, backend),
                )


def _meant_by(cluster: Cluster, route: KubeObject, backend: dict[str, Any]) -> tuple[ObjectRef, ...]:
    """The object that a backend of a route names, or nearly names."""
    kind, name = text(backend, "kind") or "Service", text(backend, "name")
    namespace = text(backend, "namespace") or route.namespace
    names = [o.name for o in cluster.snapshot.of(kind) if o.namespace == namespace]
    return meant(kind, name if name in names else alike(name, names), namespace)


def _missing_backend(
    cluster: Cluster, route: KubeObject, field: str, backend: dict[str, Any]
) -> Evidence | NotChecked | None:
    """What is wrong with a backend of a route, or why that can't be told."""
    kind, group = text(backend, "kind") or "Service", text(backend, "group")
    namespace, name = text(backend, "namespace") or route.namespace, text(backend, "name")
    if kind == "Service" and not group:
        service = cluster.service(namespace, name)
        port = number(backend, "port")
        if service is not None:
            if not port or not lacks_port(cluster, service, port):
                return None
            has = ", ".join(str(p.port) for p in service.spec.ports)
            if cluster.extent.varies(service.ref):
                return NotChecked(str(route.ref), f"{service.ref} is given more than once")
            return seen(route.ref, f"{field}.port", str(port), f"{service.ref} has no port {port}, but {has or 'none'}")
    elif kind == "InferencePool":
        namesakes = [p for p in pools(cluster) if (p.namespace, p.name) == (namespace, name)]
        if any(p.group == group for p in namesakes):
            return None
        if namesakes:
            mismatch = (
                f"InferencePool {namespace}/{name} is of {namesakes[0].group}, and the route names {group or 'core'}"
            )
            return seen(route.ref, f"{field}.group", group, mismatch)
        if group not in INFERENCE:
            return seen(
                route.ref, f"{field}.group", group, f"there is no kind InferencePool in group {group or 'core'}"
            )
    else:
        return NotChecked(str(route.ref), f"a backend of kind {kind} ({group or 'core'}) is not known")
    elsewhere = cluster.partial(kind, namespace)
    if elsewhere and not alike(name, (o.name for o in cluster.snapshot.of(kind) if o.namespace == namespace)):
        return NotChecked(str(route.ref), f"{kind} {namespace}/{name} is not here: {elsewhere}")
    return seen(route.ref, f"{field}.name", name, f"{kind} {namespace}/{name} does not exist")


@check(Area.GATEWAY, Severity.ERROR, needs=("HTTPRoute",))
def reference_grant(cluster: Cluster) -> Problems:
    """A route or a Gateway leads into another namespace without a ReferenceGrant.

    Looks at backendRefs of routes and certificateRefs of Gateways' listeners with a namespace other than their own, and at the
    ReferenceGrants there. In manifests that are not the whole cluster it is a warning where what they name is among them
    (a certificate also where cert-manager makes it), else not checked. A route that is a backend (delegation, an extension
    of kgateway and others) is left alone: its Gateway decides who may delegate.

    Why: the Gateway refuses the reference (RefNotPermitted): it answers 500, and a listener without its certificate
    takes no connection. An error: every request fails.

    Source: https://gateway-api.sigs.k8s.io/api-types/referencegrant/
    """
    for reference in _references(cluster):
        source, namespace, name = reference.source, reference.namespace, reference.name
        if namespace in ("", source.namespace) or reference.kind in ROUTES:
            continue
        granted = any(_grants(g, reference) for g in cluster.snapshot.of("ReferenceGrant", GROUP))
        elsewhere = "" if granted else cluster.partial("ReferenceGrant", namespace)
        if elsewhere and granted_by_aibrix(cluster, namespace, name):
            yield NotChecked(str(source.ref), f"AIBrix grants what leads to its models in {namespace}")
        elif elsewhere and (source.unplaced or not _held(cluster, reference)):
            yield NotChecked(str(source.ref), f"{source.ref} names no namespace" if source.unplaced else elsewhere)
        elif not granted:
            what = "route" if source.kind in ROUTES else source.kind
            yield Problem(
                f"no ReferenceGrant in {namespace} lets it use {reference.kind} {name}",
                source.ref,
                (seen(source.ref, f"{reference.field}.namespace", namespace, f"the {what} is in {source.namespace}"),),
                _grant(source, reference.group, reference.kind, namespace, name),
                severity=Severity.WARNING if elsewhere else None,
                rests_on=(ObjectRef(reference.kind, name, namespace),),
            )


@dataclass(frozen=True, slots=True)
class _Reference:
    """What a route or a Gateway names, maybe in another namespace."""

    source: KubeObject
    field: str
    group: str
    kind: str
    namespace: str
    name: str


def _references(cluster: Cluster) -> Iterator[_Reference]:
    """The backends of routes, and the certificates of Gateways."""

    def made(source: KubeObject, field: str, raw: dict[str, Any], kind: str) -> _Reference:
        own = text(raw, "kind") or kind
        return _Reference(source, field, text(raw, "group"), own, text(raw, "namespace"), text(raw, "name"))

    for route in _routes(cluster):
        for field, backend in _backend_refs(route):
            yield made(route, field, backend, "Service")
    for gateway in cluster.snapshot.of("Gateway", GROUP):
        for index, listener in enumerate(items(gateway.raw, "spec", "listeners")):
            if cluster.in_scope(gateway.namespace):
                for c, certificate in enumerate(items(listener, "tls", "certificateRefs")):
                    yield made(gateway, f"spec.listeners[{index}].tls.certificateRefs[{c}]", certificate, "Secret")


def _grants(grant: KubeObject, reference: _Reference) -> bool:
    """Whether a ReferenceGrant lets a reference be used."""
    source = (GROUP, reference.source.kind, reference.source.namespace)
    target = (reference.group, reference.kind)
    return (
        grant.namespace == reference.namespace
        and any(
            (text(f, "group"), text(f, "kind"), text(f, "namespace")) == source
            for f in items(grant.raw, "spec", "from")
        )
        and any(
            (text(t, "group"), text(t, "kind")) == target and text(t, "name") in ("", reference.name)
            for t in items(grant.raw, "spec", "to")
        )
    )


def _held(cluster: Cluster, reference: _Reference) -> bool:
    """Whether what is named is here, or a Certificate of cert-manager that makes it."""
    key = (reference.namespace, reference.name)
    made = [(c.namespace, text(c.raw, "spec", "secretName")) for c in cluster.snapshot.of("Certificate")]
    here = [(o.namespace, o.name) for o in cluster.snapshot.of(reference.kind)]
    return key in here or (reference.kind == "Secret" and key in made)


def _grant(route: KubeObject, group: str, kind: str, namespace: str, name: str) -> Remedy:
    return adding(
        f"Grant it in namespace {namespace}.",
        {
            "apiVersion": f"{GROUP}/v1beta1",
            "kind": "ReferenceGrant",
            "metadata": {"name": f"{route.namespace}-to-{name}", "namespace": namespace},
            "spec": {
                "from": [{"group": GROUP, "kind": route.kind, "namespace": route.namespace}],
                "to": [{"group": group, "kind": kind, "name": name}],
            },
        },
    )
