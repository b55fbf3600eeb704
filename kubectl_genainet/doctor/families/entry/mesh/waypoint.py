"""Layer 7 in Istio Ambient: waypoints, and what needs one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, kubectl, mapping, selector_matches, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import on_object
from kubectl_genainet.doctor.predicates.mesh import Mesh, mesh_of, no_mesh
from kubectl_genainet.doctor.predicates.selectors import alike, meant
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject

USE_WAYPOINT, WAYPOINT_NAMESPACE = "istio.io/use-waypoint", "istio.io/use-waypoint-namespace"
GATEWAYS = "gateway.networking.k8s.io"
# Attributes of an AuthorizationPolicy that only a proxy of layer 7 knows.
_HTTP_OPERATION = ("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")
_HTTP_SOURCE = ("requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks")


def _users(cluster: Cluster) -> Iterator[KubeObject]:
    """Namespaces, Services and pods that name a waypoint, in scope."""
    for kind in ("Namespace", "Service", "Pod"):
        for obj in cluster.snapshot.of(kind, ""):
            if obj.labels.get(USE_WAYPOINT, "none") == "none":
                continue
            if cluster.in_scope(obj.name if kind == "Namespace" else obj.namespace):
                yield obj


@check(Area.MESH, Severity.WARNING)
def mesh_waypoint(cluster: Cluster) -> Problems:
    """A namespace, Service or pod names a waypoint that does not exist.

    Looks at the label istio.io/use-waypoint (and -namespace) and at the Gateways of that name. A warning: ztunnel still
    carries the traffic, past every rule that the waypoint was to enforce.

    Why: routes, retries, timeouts and HTTP rules of AuthorizationPolicies are the waypoint's work. Without it nothing says
    that they are not in force.

    Source: https://istio.io/latest/docs/ambient/usage/waypoint/
    """
    gateways = {(g.namespace, g.name) for g in cluster.snapshot.of("Gateway", GATEWAYS)}
    for obj in _users(cluster):
        own = obj.name if obj.kind == "Namespace" else obj.namespace
        namespace, name = obj.labels.get(WAYPOINT_NAMESPACE) or own, obj.labels[USE_WAYPOINT]
        if (namespace, name) in gateways:
            continue
        elsewhere = cluster.partial("Gateway", namespace)
        near = alike(name, (n for ns, n in gateways if ns == namespace))
        if elsewhere and not near:
            yield NotChecked(str(obj.ref), f"waypoint {namespace}/{name} is not here: {elsewhere}")
            continue
        problem = f"there is no Gateway {namespace}/{name}"
        yield Problem(
            f"its waypoint {name} does not exist",
            obj.ref,
            (seen(obj.ref, f"metadata.labels[{USE_WAYPOINT}]", name, problem),),
            Remedy("Make the waypoint, or name one that exists.", command=_label(obj, near)),
            rests_on=meant("Gateway", near, namespace),
        )


def _label(obj: KubeObject, near: str) -> str:
    """The label with the waypoint that was probably meant."""
    return kubectl(obj.ref, "label", f"{USE_WAYPOINT}={near}", "--overwrite") if near else on_object(obj, "edit")


def _http_field(policy: KubeObject) -> tuple[str, Any] | None:
    """The first field of an AuthorizationPolicy that only a layer 7 proxy can judge, with its value."""
    action = text(policy.raw, "spec", "action")
    if action in ("CUSTOM", "AUDIT"):
        return "spec.action", action
    for index, rule in enumerate(items(policy.raw, "spec", "rules")):
        for t, to in enumerate(items(rule, "to")):
            for name in _HTTP_OPERATION:
                if mapping(to, "operation").get(name):
                    return f"spec.rules[{index}].to[{t}].operation.{name}", mapping(to, "operation")[name]
        for f, source in enumerate(items(rule, "from")):
            for name in _HTTP_SOURCE:
                if mapping(source, "source").get(name):
                    return f"spec.rules[{index}].from[{f}].source.{name}", mapping(source, "source")[name]
        for w, when in enumerate(items(rule, "when")):
            if text(when, "key").startswith("request."):
                return f"spec.rules[{index}].when[{w}].key", text(when, "key")
    return None


def _selected(policy: KubeObject, workload: Workload) -> bool:
    """Whether ztunnel judges a workload's connections by a policy: by its selector, or all of a namespace."""
    if items(policy.raw, "spec", "targetRefs") or mapping(policy.raw, "spec", "targetRef"):
        return False
    selector = mapping(policy.raw, "spec", "selector")
    own = policy.namespace == workload.namespace
    return (own or policy.namespace == "istio-system") and selector_matches(selector, workload.labels)


@check(Area.MESH, Severity.ERROR, needs=("AuthorizationPolicy",), applies=no_mesh)
def mesh_ambient_http(cluster: Cluster) -> Problems:
    """An AuthorizationPolicy asks ztunnel for what only a waypoint knows.

    Looks, for GenAI workloads in Ambient, at AuthorizationPolicies that select pods (no targetRefs) and have rules about
    HTTP: methods, paths, hosts, headers, request principals. An error: the calls fail.

    Why: ztunnel sees connections, not requests. A rule that it can't judge admits nobody where the action is ALLOW, and
    refuses everybody whom its other terms match where it is DENY.

    Source: https://istio.io/latest/docs/ambient/usage/l4-policy/
    """
    for policy in cluster.snapshot.of("AuthorizationPolicy", "security.istio.io"):
        http_field = _http_field(policy)
        if http_field is None:
            continue
        field, value = http_field
        for workload, _ in cluster.genai_workloads:
            mesh, evidence = mesh_of(cluster, workload)
            if mesh is Mesh.AMBIENT and evidence is not None and _selected(policy, workload):
                yield Problem(
                    f"{policy.ref} has a rule about HTTP, which ztunnel can't judge",
                    workload.ref,
                    (seen(policy.ref, field, value, f"{field.rpartition('.')[2]} is layer 7"), evidence),
                    Remedy(
                        "Attach the policy to a waypoint (targetRefs: the Service), or keep it to principals, namespaces "
                        "and ports.",
                        command=on_object(policy, "edit"),
                    ),
                )
