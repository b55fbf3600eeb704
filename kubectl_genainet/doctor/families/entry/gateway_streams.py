"""Gateways and the mesh's routes in front of model servers: timeouts and retries that cut or repeat a stream of tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, command, items, mapping, text
from kubectl_genainet.doctor.predicates.backends import behind
from kubectl_genainet.doctor.predicates.edits import on_object
from kubectl_genainet.model.finding import Evidence, NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.units import seconds

GROUP = "gateway.networking.k8s.io"
STREAM_S = 300
CONSIDERED_S = 60
ENVOY_GATEWAY = "gateway.envoyproxy.io/"
# Controllers with a timeout for the whole response where a route sets none.
# Sources: Envoy's RouteAction.timeout (15 s), https://gateway.envoyproxy.io/docs/tasks/traffic/http-timeouts/,
# https://cloud.google.com/kubernetes-engine/docs/how-to/configure-gateway-resources (30 s)
ENVOY_DEFAULT_S, GKE_DEFAULT_S = 15.0, 30.0
# Classes that their controllers make, and that set no timeout for the whole response.
_NO_DEFAULT = (
    "istio",
    "istio-waypoint",
    "istio-remote",
    "cilium",
    "kgateway",
    "agentgateway",
    "nginx",
    "traefik",
    "kong",
)
# Conditions and codes that are met after a model server has taken the prompt (Envoy, x-envoy-retry-on).
AFTER_THE_FACT = ("5xx", "gateway-error", "reset", "retriable-status-codes", "500", "502", "504")


@dataclass(frozen=True, slots=True)
class _Timeout:
    """A timeout for a response in force on a rule of a route."""

    seconds: float
    evidence: Evidence


def considered(limit: float, value: object) -> bool:
    """Whether somebody set more than a minute for a whole response: what the model needs is known to them."""
    return value is not None and limit > CONSIDERED_S


def backends_of(cluster: Cluster, route: KubeObject, rule: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(kind, namespace, name) of a rule's backends that serve models."""
    return [
        (kind, namespace, name)
        for b in items(rule, "backendRefs")
        if (kind := text(b, "kind") or "Service")
        and (namespace := text(b, "namespace") or route.namespace)
        and (name := text(b, "name"))
        and (kind == "InferencePool" or cluster.streams(cluster.service(namespace, name)))
    ]


@check(Area.GATEWAY, Severity.WARNING, needs=("HTTPRoute",))
def route_stream_timeout(cluster: Cluster) -> Problems:
    """A route's timeout is shorter than a token stream.

    Looks, for HTTPRoute rules that lead to model servers or InferencePools, at timeouts.request and
    timeouts.backendRequest, at requestTimeout of Envoy Gateway's BackendTrafficPolicy (15 s where nothing is set) and at
    timeoutSec of GKE's GCPBackendPolicy (30 s where nothing is set); five minutes is taken as enough. A Gateway that is
    not here is GKE's or Envoy Gateway's where a policy of theirs names the route or its backend; else a route that sets
    nothing is not checked. A warning: short answers pass. Information where somebody has set more than a minute, and where
    no server of the model is seen here, or the tokens come over a WebSocket (Open WebUI, Streamlit, Chainlit), which the
    timeout does not end.

    Why: the timeout covers the whole response: the Gateway cuts a stream in the middle, however fast the tokens come.

    Source: https://gateway-api.sigs.k8s.io/reference/spec/#httproutetimeouts,
    https://gateway.envoyproxy.io/docs/tasks/traffic/http-timeouts/,
    https://cloud.google.com/kubernetes-engine/docs/how-to/configure-gateway-resources
    """
    for route in cluster.snapshot.of("HTTPRoute", GROUP):
        if not cluster.in_scope(route.namespace):
            continue
        for index, rule in enumerate(items(route.raw, "spec", "rules")):
            backends = backends_of(cluster, route, rule)
            unsure = not any(_waits(cluster, *backend) for backend in backends)
            timeouts = list(_timeouts(cluster, route, index, rule, backends)) if backends else []
            if backends and not timeouts and (reason := _unknown(cluster, route)):
                yield NotChecked(str(route.ref), reason)
            for timeout in timeouts:
                if 0 < timeout.seconds < STREAM_S:
                    mild = unsure or considered(timeout.seconds, timeout.evidence.value)
                    yield Problem(
                        f"streams of a model are cut after {timeout.seconds:g} s",
                        route.ref,
                        (timeout.evidence,),
                        Remedy(
                            "Allow the longest answer in the rule's timeouts.request (0s switches it off).",
                            command=_longer(route, index, rule, timeout.evidence.field),
                        ),
                        severity=Severity.INFO if mild else None,
                        rests_on=tuple(ref for b in backends for ref in _led_to(cluster, *b)),
                    )


def _led_to(cluster: Cluster, kind: str, namespace: str, name: str) -> tuple[ObjectRef, ...]:
    service = cluster.service(namespace, name) if kind == "Service" else None
    return (ObjectRef(kind, name, namespace),) if service is None else behind(cluster, service)


def _waits(cluster: Cluster, kind: str, namespace: str, name: str) -> bool:
    """Whether answers from a backend wait for a model that is served here."""
    service = cluster.service(namespace, name) if kind == "Service" else None
    return kind == "InferencePool" or (service is not None and cluster.waits_for_a_model(service))


def _longer(route: KubeObject, index: int, rule: dict[str, Any], field: str) -> str:
    """Sets the rule's own timeouts, where the Gateway reads them there."""
    own = mapping(rule, "timeouts")
    if not field.startswith("spec.rules"):
        return on_object(route, "edit")
    change = [
        {"op": "add", "path": f"/spec/rules/{index}/timeouts", "value": dict.fromkeys(("request", *own), "3600s")}
    ]
    name = f"httproute.{GROUP}/{route.name}"
    return command("kubectl", "-n", route.namespace, "patch", name, "--type=json", "-p", json.dumps(change))


def _timeouts(
    cluster: Cluster, route: KubeObject, index: int, rule: dict[str, Any], backends: list[tuple[str, str, str]]
) -> Iterator[_Timeout]:
    """The timeouts in force: those that the rule sets, else the policy's, else the controller's default."""
    classes = gateway_classes(cluster, route)
    field = f"spec.rules[{index}].timeouts"
    gke = any(name.startswith("gke-l7") for name, _ in classes) or (not classes and _by_gke(cluster, backends))
    policy = None if gke else _traffic_policy(cluster, route)
    own = [
        _Timeout(duration, seen(route.ref, f"{field}.{name}", value, "covers the whole response"))
        for name in ("request", "backendRequest")
        if (value := at(rule, "timeouts", name)) is not None and (duration := seconds(value)) is not None
    ]
    if own and not gke:
        yield from own
        return
    if gke:
        yield from _gke(cluster, backends, own, field, route)
    elif _by_envoy_gateway(classes, policy):
        value = text(policy.raw, "spec", "timeout", "http", "requestTimeout") if policy else ""
        duration = seconds(value) if value else None
        if policy is not None and duration is not None:
            yield _Timeout(
                duration, seen(policy.ref, "spec.timeout.http.requestTimeout", value, "covers the whole response")
            )
        else:
            yield _Timeout(
                ENVOY_DEFAULT_S,
                seen(route.ref, f"{field}.request", None, "absent: Envoy's default is 15 s for the whole response"),
            )


def _by_envoy_gateway(classes: set[tuple[str, str]], policy: KubeObject | None) -> bool:
    """Whether a controller is Envoy Gateway, by its class or, where that is not here, by a policy of Envoy Gateway."""
    controllers = [controller for _, controller in classes if controller]
    return any(c.startswith(ENVOY_GATEWAY) for c in controllers) or (policy is not None and not controllers)


def _by_gke(cluster: Cluster, backends: list[tuple[str, str, str]]) -> bool:
    """Whether a policy of GKE's load balancers names one of the backends."""
    kinds = ("HealthCheckPolicy", "GCPBackendPolicy", "GCPTrafficDistributionPolicy")
    policies = [p for kind in kinds for p in cluster.snapshot.of(kind, "networking.gke.io")]
    return any(attached_to(policy, *backend) for policy in policies for backend in backends)


def _unknown(cluster: Cluster, route: KubeObject) -> str:
    """Why it is not known whose default holds for a route: its Gateway or the class of that is not here."""
    gateways = {(g.namespace, g.name): g for g in cluster.snapshot.of("Gateway", GROUP)}
    classes = {c.name for c in cluster.snapshot.of("GatewayClass", GROUP)}
    for parent in items(route.raw, "spec", "parentRefs"):
        if (text(parent, "kind") or "Gateway") != "Gateway":
            continue
        key = (text(parent, "namespace") or route.namespace, text(parent, "name"))
        name = text(gateways[key].raw, "spec", "gatewayClassName") if key in gateways else ""
        if key not in gateways or name not in (*classes, *_NO_DEFAULT):
            missing = f"GatewayClass {name}" if key in gateways else f"Gateway {'/'.join(key)}"
            return f"{missing} is not here: its controller may cut a response where the route sets no timeout"
    return ""


def gateway_classes(cluster: Cluster, route: KubeObject) -> set[tuple[str, str]]:
    """(class, controller) of the Gateways that a route names, as far as they are here."""
    controllers = {c.name: text(c.raw, "spec", "controllerName") for c in cluster.snapshot.of("GatewayClass", GROUP)}
    gateways = {
        (g.namespace, g.name): text(g.raw, "spec", "gatewayClassName") for g in cluster.snapshot.of("Gateway", GROUP)
    }
    keys = ((text(p, "namespace") or route.namespace, text(p, "name")) for p in items(route.raw, "spec", "parentRefs"))
    return {(name, controllers.get(name, "")) for key in keys if (name := gateways.get(key, ""))}


def attached_to(policy: KubeObject, kind: str, namespace: str, name: str) -> bool:
    """Whether a policy attachment names an object (of its own namespace)."""
    refs = [*items(policy.raw, "spec", "targetRefs"), at(policy.raw, "spec", "targetRef") or {}]
    return policy.namespace == namespace and any((text(r, "kind"), text(r, "name")) == (kind, name) for r in refs)


def _traffic_policy(cluster: Cluster, route: KubeObject) -> KubeObject | None:
    """The BackendTrafficPolicy for a route, before that of one of its Gateways."""
    wanted = [("HTTPRoute", route.namespace, route.name)]
    wanted += [
        ("Gateway", text(p, "namespace") or route.namespace, text(p, "name"))
        for p in items(route.raw, "spec", "parentRefs")
    ]
    policies = cluster.snapshot.of("BackendTrafficPolicy", "gateway.envoyproxy.io")
    return next((p for target in wanted for p in policies if attached_to(p, *target)), None)


def _gke(
    cluster: Cluster, backends: list[tuple[str, str, str]], own: list[_Timeout], field: str, route: KubeObject
) -> Iterator[_Timeout]:
    """timeoutSec of the GCPBackendPolicy of each backend; the load balancer's own default is 30 s."""
    for kind, namespace, name in backends:
        policy = next(
            (p for p in cluster.snapshot.of("GCPBackendPolicy") if attached_to(p, kind, namespace, name)), None
        )
        value = text(policy.raw, "spec", "default", "timeoutSec") if policy else ""
        if policy is not None and value:
            meaning = "covers the whole response"
            yield _Timeout(seconds(value) or 0.0, seen(policy.ref, "spec.default.timeoutSec", value, meaning))
        elif own:
            yield from own
        else:
            meaning = f"absent: without a GCPBackendPolicy for {kind} {namespace}/{name} the load balancer waits 30 s"
            yield _Timeout(GKE_DEFAULT_S, seen(route.ref, f"{field}.request", None, meaning))
