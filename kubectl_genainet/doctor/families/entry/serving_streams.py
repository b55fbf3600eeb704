"""Timeouts and retries of serving systems and AI gateways that cut or repeat a stream of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.entry.gateway_streams import (
    AFTER_THE_FACT,
    GROUP,
    STREAM_S,
    backends_of,
    considered,
)
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.made_services import KSERVE_MODE, KSERVE_WITHOUT_KNATIVE
from kubectl_genainet.doctor.objects.raw import at, items, mapping, number, strings, text
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.predicates.edits import set_in
from kubectl_genainet.model.finding import Evidence, NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.units import seconds

_KNATIVE = ("timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds")
_LONG_S = 600  # Knative's own upper limit, unless its configuration raises it
_AI_GATEWAY_DEFAULT_S = 60.0


def _limits(obj: KubeObject) -> Iterator[tuple[str, Any]]:
    """(field, value) of the timeouts for a response that an object of a serving system sets."""
    match obj.group, obj.kind:
        case "serving.knative.dev", "Service":
            for name in _KNATIVE:
                yield f"spec.template.spec.{name}", at(obj.raw, "spec", "template", "spec", name)
        case "serving.kserve.io", "InferenceService":
            for part in ("predictor", "transformer"):
                yield f"spec.{part}.timeout", at(obj.raw, "spec", part, "timeout")
        case "serving.kserve.io", "LLMInferenceService":
            rules = items(obj.raw, "spec", "router", "route", "http", "spec", "rules")
            for index, rule in enumerate(rules):
                for name in ("request", "backendRequest"):
                    field = f"spec.router.route.http.spec.rules[{index}].timeouts.{name}"
                    yield field, at(rule, "timeouts", name)
        case _:
            return


def _without_knative(obj: KubeObject) -> bool:
    """Whether an InferenceService runs as a plain Deployment that OpenShift AI gives no Route: KServe's Ingress takes no
    timeout, its HTTPRoute does."""
    return obj.annotations.get(KSERVE_MODE) in KSERVE_WITHOUT_KNATIVE and not _by_a_route(obj)


def _by_a_route(obj: KubeObject) -> bool:
    """Whether OpenShift AI gives a plain Deployment a Route, whose router ends what is silent for the timeout."""
    exposed = obj.labels.get("networking.kserve.io/visibility") == "exposed"
    return obj.annotations.get(KSERVE_MODE) in KSERVE_WITHOUT_KNATIVE and exposed


@check(Area.HEALTH, Severity.WARNING)
def serving_stream_timeout(cluster: Cluster) -> Problems:
    """A serving system cuts a token stream.

    Looks at timeoutSeconds, responseStartTimeoutSeconds and idleTimeoutSeconds of Knative Services that serve models, at
    timeout of a KServe InferenceService's components and at the timeouts of an LLMInferenceService's own routes; five
    minutes, Knative's default, is taken as enough. Models that answer at once (embeddings, rerankers, classifiers) are left
    out. Without Knative the cluster's kind of ingress decides whether it holds: not checked; OpenShift AI's Route ends what
    is silent for the timeout. A warning: short answers pass.
    Information where somebody has set more than a minute.

    Why: Knative's queue-proxy and the gateway end the request when the time is over, though tokens still come: the client
    sees an unexpected end, or 504 before the first token.

    Source: https://knative.dev/docs/serving/configuration/config-defaults/,
    https://kserve.github.io/website/docs/reference/crd-api
    """
    for workload, recognised in cluster.genai_workloads:
        if recognised.role not in (Role.MODEL_SERVER, Role.ROUTER) or not cluster.passes_tokens(workload):
            continue
        obj = cluster.object_of(workload)
        for field, value in _limits(obj) if obj is not None and workload.part in ("", "predictor", "main") else ():
            limit = seconds(f"{value}s" if isinstance(value, int) else value) if value is not None else None
            if limit is not None and 0 < limit < STREAM_S and obj is not None and _without_knative(obj):
                yield NotChecked(
                    str(obj.ref), f"{field}: without Knative the cluster's kind of ingress decides whether it holds"
                )
            elif limit is not None and 0 < limit < STREAM_S:
                silence = obj is not None and _by_a_route(obj)
                meaning = "the Route's timeout: of a silent connection" if silence else "covers the whole response"
                yield Problem(
                    f"streams of a model are cut after {limit:g} s{' without a token' if silence else ''}",
                    workload.ref,
                    (seen(workload.ref, field, value, meaning),),
                    Remedy(
                        "Allow the longest answer.",
                        command=set_in(obj, field, _LONG_S if isinstance(value, int) else f"{_LONG_S}s")
                        if obj is not None
                        else "",
                    ),
                    severity=Severity.INFO if considered(limit, value) else None,
                )


def _of_ai_gateway(route: KubeObject) -> Iterator[tuple[float, Evidence]]:
    """(seconds, evidence) of the timeouts in force on an AIGatewayRoute's rules."""
    for index, rule in enumerate(items(route.raw, "spec", "rules")):
        value = at(rule, "timeouts", "request")
        field = f"spec.rules[{index}].timeouts.request"
        limit = seconds(value) if value is not None else _AI_GATEWAY_DEFAULT_S
        meaning = "absent: the AI gateway's default is 60 s" if value is None else "covers the whole response"
        if limit is not None:
            yield limit, seen(route.ref, field, value, meaning)


@check(Area.GATEWAY, Severity.WARNING)
def ai_gateway_timeout(cluster: Cluster) -> Problems:
    """A route of the Envoy AI Gateway cuts a token stream.

    Looks at timeouts.request of the rules of AIGatewayRoutes, 60 s where nothing is set; five minutes is taken as enough. A
    warning, since short answers pass; the default alone, and more than a minute that somebody has set, is information.

    Why: the timeout covers the whole response. Models that reason, or that are slow, need minutes for one.

    Source: https://aigateway.envoyproxy.io/docs/api/
    """
    for route in cluster.snapshot.of("AIGatewayRoute", "aigateway.envoyproxy.io"):
        for limit, evidence in _of_ai_gateway(route) if cluster.in_scope(route.namespace) else ():
            if 0 < limit < STREAM_S:
                where = evidence.field.removesuffix(".request")
                yield Problem(
                    f"streams of a model are cut after {limit:g} s",
                    route.ref,
                    (evidence,),
                    Remedy(
                        "Allow the longest answer in the rule's timeouts.request.",
                        command=set_in(route, where, {"request": f"{_LONG_S}s"}),
                    ),
                    severity=Severity.INFO if evidence.value is None or considered(limit, evidence.value) else None,
                )


@check(Area.GATEWAY, Severity.WARNING, needs=("HTTPRoute",))
def route_retries(cluster: Cluster) -> Problems:
    """A Gateway sends a prompt again though the model may be at work on it.

    Looks at retry.retryOn.triggers of Envoy Gateway's BackendTrafficPolicies for Gateways and routes that lead to model
    servers or InferencePools, and at retry.codes (500, 502, 504) of the HTTPRoute rules that lead to them, unless
    retry.attempts is 0. A warning: it costs, and only where something fails.

    Why: 5xx, reset and gateway-error are met after the server has taken the prompt. Under load, when a server is slow to
    answer, every retry is one more prompt to compute, and the others get slower still.

    Source: https://gateway.envoyproxy.io/docs/tasks/traffic/retry/, https://gateway-api.sigs.k8s.io/geps/gep-1731/
    """
    targets = {("HTTPRoute", r.namespace, r.name) for r in _model_routes(cluster)}
    targets |= {
        ("Gateway", text(p, "namespace") or r.namespace, text(p, "name"))
        for r in _model_routes(cluster)
        for p in items(r.raw, "spec", "parentRefs")
    }
    for policy in cluster.snapshot.of("BackendTrafficPolicy"):
        refs = [*items(policy.raw, "spec", "targetRefs"), mapping(policy.raw, "spec", "targetRef")]
        about = any((text(r, "kind"), policy.namespace, text(r, "name")) in targets for r in refs)
        path = ("spec", "retry", "retryOn", "triggers")
        if about and cluster.in_scope(policy.namespace):
            remedy = Remedy("Retry only what failed to connect: triggers connect-failure and refused-stream.")
            yield from _repeats(policy, ".".join(path), strings(policy.raw, *path), remedy)
    for route in cluster.snapshot.of("HTTPRoute", GROUP):
        for index, rule in enumerate(items(route.raw, "spec", "rules") if cluster.in_scope(route.namespace) else ()):
            retry, field = mapping(rule, "retry"), f"spec.rules[{index}].retry.codes"
            if number(retry, "attempts", default=1) and backends_of(cluster, route, rule):
                refused = set_in(route, field, [503], op="replace")
                remedy = Remedy("Retry only what the server refused (codes: 503).", command=refused)
                yield from _repeats(route, field, strings(retry, "codes"), remedy)


def _repeats(obj: KubeObject, field: str, conditions: list[str], remedy: Remedy) -> Problems:
    """A retry on conditions that are met though the model may be at work on the prompt."""
    met = [c for c in conditions if c in AFTER_THE_FACT]
    if met:
        evidence = seen(obj.ref, field, conditions, "is met after the model has begun, too")
        yield Problem(f"a prompt is sent again on {', '.join(met)}", obj.ref, (evidence,), remedy)


def _model_routes(cluster: Cluster) -> list[KubeObject]:
    """HTTPRoutes with a backend that serves models."""

    def serves(route: KubeObject, backend: dict[str, Any]) -> bool:
        key = (text(backend, "namespace") or route.namespace, text(backend, "name"))
        return text(backend, "kind") == "InferencePool" or cluster.streams(cluster.service(*key))

    return [
        route
        for route in cluster.snapshot.of("HTTPRoute", "gateway.networking.k8s.io")
        if any(serves(route, b) for rule in items(route.raw, "spec", "rules") for b in items(rule, "backendRefs"))
    ]
