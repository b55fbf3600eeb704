"""Health checks of load balancers that ask a server's root: an ALB's, and those of GKE's Gateways and Ingresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.entry.gateway_streams import attached_to, gateway_classes
from kubectl_genainet.doctor.families.entry.ingress import ALB, backends, controller_of, ingresses
from kubectl_genainet.doctor.families.entry.ingress_settings import AWS, GCE, backend_config
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import annotate, annotation, at, items, text
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import set_in
from kubectl_genainet.doctor.predicates.inference import serving_container
from kubectl_genainet.doctor.predicates.policy_text import adding
from kubectl_genainet.model.finding import Evidence, NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service

# Servers that answer GET / with 404, and nothing else: of others it is not certain.
_WITHOUT_ROOT = ("vLLM",)
_HTTP_PATH = ("spec", "default", "config", "httpHealthCheck", "requestPath")
GKE_GROUP = "networking.gke.io"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a load balancer asks of a Service's pods: the path, where that is set or would be, and how to set it."""

    entry: ObjectRef
    path: str
    evidence: Evidence
    remedy: Remedy
    severity: Severity


@check(Area.HEALTH, Severity.ERROR, needs=("Service", "Pod"))
def load_balancer_health_path(cluster: Cluster) -> Problems:
    """A load balancer asks a path that the model server does not have.

    Looks, for Services of vLLM, which answers GET / with 404, at what is asked of them: by an ALB (healthcheck-path of the
    Service or the Ingress, / by default, unless success-codes take 404), by a GKE Gateway (HealthCheckPolicy of the Service,
    / by default) and by a GKE Ingress (BackendConfig of the Service, else the pods' HTTP readiness probe, else /).

    Why: GKE's load balancers take every pod for unhealthy and answer 503 or 502, though the pods are Ready and the route is
    accepted. An ALB without a healthy target sends to all of them, those that still load their model too, and a rollout with
    readiness gates never ends. An error on GKE: every request fails. A warning for an ALB: requests are answered, some fail.

    Source: https://cloud.google.com/kubernetes-engine/docs/how-to/configure-gateway-resources#configure_health_check,
    https://cloud.google.com/kubernetes-engine/docs/concepts/ingress#health_checks,
    https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/ingress/annotations/#health-check,
    https://docs.vllm.ai/en/latest/serving/openai_compatible_server/
    """
    reported = set()
    for service, server, asked in _asked(cluster):
        if isinstance(asked, NotChecked):
            yield asked
            continue
        ready, stack = _ready(cluster, server), cluster.stack(server)
        if stack is None or asked.path != "/" or (asked.entry, service.ref) in reported:
            continue
        reported.add((asked.entry, service.ref))
        yield Problem(
            f"it asks / of {service.ref}, which {stack.name} answers with 404 (its own path is {ready})",
            asked.entry,
            (asked.evidence, seen(server.ref, server.field(), stack.name, f"{server.ref} runs {stack.name}")),
            asked.remedy,
            severity=asked.severity,
        )


def _asked(cluster: Cluster) -> Iterator[tuple[Service, Workload, _Asked | NotChecked]]:
    for ingress in ingresses(cluster):
        controller = controller_of(cluster, ingress)
        for _, backend, _, _ in backends(ingress) if controller in (AWS, GCE) else ():
            service = cluster.service(ingress.namespace, text(backend, "service", "name"))
            server = _server(cluster, service)
            if service is not None and server is not None:
                ask = _by_alb if controller == AWS else _by_gke_ingress
                yield service, server, ask(cluster, ingress, service, server)
    for route in cluster.snapshot.of("HTTPRoute", "gateway.networking.k8s.io"):
        by_gke = any(name.startswith("gke-l7") for name, _ in gateway_classes(cluster, route))
        for rule in items(route.raw, "spec", "rules") if by_gke and cluster.in_scope(route.namespace) else ():
            for ref in items(rule, "backendRefs"):
                namespace = text(ref, "namespace") or route.namespace
                service = (
                    cluster.service(namespace, text(ref, "name")) if text(ref, "kind") in ("", "Service") else None
                )
                server = _server(cluster, service)
                if service is not None and server is not None:
                    yield service, server, _by_gke_gateway(cluster, route, service, server)


def _server(cluster: Cluster, service: Service | None) -> Workload | None:
    """The server without a root behind a Service; None where others are behind it too."""
    behind = cluster.workloads_of(service) if service is not None else ()
    known = [
        w
        for w in behind
        if cluster.role(w) is Role.MODEL_SERVER and (s := cluster.stack(w)) is not None and s.name in _WITHOUT_ROOT
    ]
    return known[0] if known and len(known) == len(behind) else None


def _ready(cluster: Cluster, server: Workload) -> str:
    stack = cluster.stack(server)
    return stack.ready[0] if stack is not None and stack.ready else "/health"


def _by_alb(cluster: Cluster, ingress: KubeObject, service: Service, server: Workload) -> _Asked:
    """Of the two that may be annotated the Service counts."""
    key, codes = ALB + "healthcheck-path", ALB + "success-codes"
    of_service, of_ingress = service.metadata.annotations, ingress.annotations
    path = of_service.get(key) or of_ingress.get(key, "")
    taken = of_service.get(codes) or of_ingress.get(codes, "200")
    grpc = "GRPC" in (
        of_service.get(ALB + "backend-protocol-version"),
        of_ingress.get(ALB + "backend-protocol-version"),
    )
    ref = service.ref if key in of_service else ingress.ref
    asks = "/" if path in ("", "/") and not (_takes(taken, 404) or grpc) else path or "-"
    evidence = seen(ref, annotation(key), path or None, path or "absent: the default is /")
    remedy = Remedy("Ask the server's own path.", command=annotate(ref, key, _ready(cluster, server)))
    return _Asked(ingress.ref, asks, evidence, remedy, Severity.WARNING)


def _takes(codes: str, code: int) -> bool:
    """Whether an ALB takes an HTTP status for success: "200,404", "200-499"."""
    for part in codes.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal() and int(first) <= code <= int(last or first):
            return True
    return False


def _by_gke_ingress(cluster: Cluster, ingress: KubeObject, service: Service, server: Workload) -> _Asked | NotChecked:
    named, config = backend_config(cluster, service)
    if named and config is None:
        return NotChecked(str(ingress.ref), f"the BackendConfig of {service.ref} is not here")
    path = text(config.raw, "spec", "healthCheck", "requestPath") if config is not None else ""
    container = serving_container(server)
    probe = container.probe("readinessProbe") if container is not None else None
    inferred = probe.path if probe is not None and probe.handler == "httpGet" else ""
    field = server.field(f"{container.field}.readinessProbe.httpGet") if container is not None else server.field()
    return _Asked(
        ingress.ref,
        path or inferred or "/",
        seen(server.ref, field, None, "neither an HTTP readiness probe nor a BackendConfig: the load balancer asks /"),
        Remedy(
            f"Give the pods an HTTP readiness probe ({_ready(cluster, server)}), or the Service a BackendConfig with it."
        ),
        Severity.ERROR,
    )


def _by_gke_gateway(cluster: Cluster, route: KubeObject, service: Service, server: Workload) -> _Asked | NotChecked:
    namespace, name = service.metadata.namespace, service.metadata.name
    policies = cluster.snapshot.of("HealthCheckPolicy", GKE_GROUP)
    policy = next((p for p in policies if attached_to(p, "Service", namespace, name)), None)
    elsewhere = cluster.partial("HealthCheckPolicy", namespace) if policy is None else ""
    if elsewhere:
        return NotChecked(str(route.ref), f"a HealthCheckPolicy of {service.ref} may be elsewhere: {elsewhere}")
    other = policy is not None and at(policy.raw, *_HTTP_PATH[:-1]) is None  # of TCP, gRPC, or HTTP/2
    path = text(policy.raw, *_HTTP_PATH) if policy is not None else ""
    made = {
        "apiVersion": f"{GKE_GROUP}/v1",
        "kind": "HealthCheckPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "default": {"config": {"type": "HTTP", "httpHealthCheck": {"requestPath": _ready(cluster, server)}}},
            "targetRef": {"group": "", "kind": "Service", "name": name},
        },
    }
    what = f"absent: the default for {service.ref} is GET /" if policy is None else f"it asks {path or '/'}"
    evidence = seen(policy.ref if policy is not None else service.ref, ".".join(_HTTP_PATH), path or None, what)
    own_path = "Ask the server's own path."
    remedy: Remedy = adding(own_path, made)
    if policy is not None:
        remedy = Remedy(own_path, command=set_in(policy, ".".join(_HTTP_PATH), _ready(cluster, server)))
    return _Asked(route.ref, "-" if other else path or "/", evidence, remedy, Severity.ERROR)
