"""Health checks of network load balancers, beside the readiness of the pods behind them."""

from __future__ import annotations

from collections.abc import Mapping

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import ContainerProbe, ContainerSpec
from kubectl_genainet.doctor.objects.raw import annotate, annotation, named, number
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.inference import serving_container
from kubectl_genainet.doctor.predicates.load_balancers import PREFIX, by_controller, load_balancers
from kubectl_genainet.model.finding import Remedy, Severity
from kubectl_genainet.model.kube import Service
from kubectl_genainet.model.units import whole_number

HEALTHCHECK = PREFIX + "healthcheck-"


def _readiness(cluster: Cluster, service: Service) -> tuple[Workload, ContainerSpec, ContainerProbe] | None:
    """The model server behind a Service with its HTTP readiness probe."""
    for workload in cluster.workloads_of(service):
        container = serving_container(workload)
        probe = container.probe("readinessProbe") if container else None
        if container and probe and probe.handler == "httpGet":
            return workload, container, probe
    return None


@check(Area.HEALTH, Severity.WARNING, needs=("Service",), own_namespace=True)
def nlb_health_check(cluster: Cluster) -> Problems:
    """A load balancer's health check does not ask what the readiness probe asks.

    Looks at the healthcheck-protocol, -path and -port annotations of NLB Services in front of model servers, and at
    the HTTP readiness probe of the pods. The NLB's default is a TCP connect to the traffic port.

    Why: a TCP check passes while the model loads, so the NLB sends users there; a path that the pod does not have
    takes a healthy pod out. A warning: requests fail while a pod starts or stops.

    Source: https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/service/annotations/#health-check
    """
    for service, _, lb_class in load_balancers(cluster):
        if not by_controller(service, lb_class) or not cluster.serves_models(service):
            continue
        readiness = _readiness(cluster, service)
        if readiness is None:
            continue
        workload, container, probe = readiness
        notes = service.metadata.annotations
        probe_port = workload.template.port_number(probe.port)
        targets = {cluster.target_port(workload, p) for p in service.spec.ports}
        asked = whole_number(notes.get(HEALTHCHECK + "port", "traffic-port")) or next(iter(targets), 0)
        difference = _asks_otherwise(notes, probe, probe_port, asked)
        if difference is None:
            continue
        key, value, meaning = difference
        evidence_field = workload.field(f"{container.field}.readinessProbe.httpGet.path")
        yield Problem(
            f"the load balancer checks something else than readiness ({meaning})",
            service.ref,
            (
                seen(service.ref, annotation(key), value, meaning),
                seen(workload.ref, evidence_field, probe.path, f"readiness: GET {probe.path} on port {probe.port}"),
            ),
            Remedy(
                "Let both ask the same.",
                command="\n".join(
                    annotate(service.ref, HEALTHCHECK + name, wanted)
                    for name, wanted in (
                        ("protocol", "http"),
                        ("path", probe.path),
                        ("port", str(probe_port or "traffic-port")),
                    )
                ),
            ),
        )


def _asks_otherwise(
    notes: Mapping[str, str], probe: ContainerProbe, probe_port: int, asked: int
) -> tuple[str, str | None, str] | None:
    """The annotation that makes the health check another one than the probe, its value, and what that means."""
    protocol, path = notes.get(HEALTHCHECK + "protocol"), notes.get(HEALTHCHECK + "path")
    if (protocol or "tcp").lower() == "tcp":
        return HEALTHCHECK + "protocol", protocol, "a TCP connect passes while the model loads"
    if path != probe.path and (path or "/") != probe.path:
        return HEALTHCHECK + "path", path, f"the readiness probe asks {probe.path}"
    if asked and probe_port and asked != probe_port:
        return HEALTHCHECK + "port", notes.get(HEALTHCHECK + "port"), f"the readiness probe asks port {probe_port}"
    return None


@check(Area.HEALTH, Severity.WARNING, needs=("Service", "Namespace"))
def nlb_readiness_gate(cluster: Cluster) -> Problems:
    """A rollout does not wait until the load balancer takes the new pods.

    Looks at the label elbv2.k8s.aws/pod-readiness-gate-inject: enabled of namespaces whose model servers are
    behind an NLB with pod targets.

    Why: the NLB needs its healthy threshold (several checks, tens of seconds) before it sends to a pod; without the
    gate a rolling update takes the old pods away before the new ones are targets, longer so the longer the model
    loads. A warning: requests fail during a rollout only.

    Source: https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/deploy/pod_readiness_gate/
    """
    label = "elbv2.k8s.aws/pod-readiness-gate-inject"
    reported = set()
    for service, _, lb_class in load_balancers(cluster):
        namespace = service.metadata.namespace
        ip_targets = service.metadata.annotations.get(PREFIX + "nlb-target-type") == "ip"
        if not (by_controller(service, lb_class) and ip_targets and cluster.serves_models(service)):
            continue
        if namespace in reported or cluster.snapshot.namespace_labels(namespace).get(label) == "enabled":
            continue
        reported.add(namespace)
        obj = next((n for n in cluster.snapshot.of("Namespace", "") if n.name == namespace), None)
        if obj is None:
            continue
        yield Problem(
            "rollouts do not wait for the load balancer",
            obj.ref,
            (
                seen(obj.ref, f"metadata.labels[{label}]", obj.labels.get(label), "no readiness gate is injected"),
                seen(service.ref, annotation(PREFIX + "nlb-target-type"), "ip", f"{service.ref} registers pods"),
            ),
            Remedy(
                "Label the namespace; pods get the gate when they are made anew.",
                command=f"kubectl label {named('namespace', namespace)} {label}=enabled",
            ),
        )


@check(Area.HEALTH, Severity.WARNING, needs=("Service",), own_namespace=True)
def nlb_health_threshold(cluster: Cluster) -> Problems:
    """A load balancer gives a pod up faster than its readiness probe does.

    Looks at healthcheck-interval × healthcheck-unhealthy-threshold of NLB Services in front of model servers, against
    periodSeconds × failureThreshold of the readiness probe.

    Why: a model under load answers health checks late; the NLB takes the pod out, its load moves to the others, and
    they follow. The pod's own probe would have waited. A warning: it shows under load only.

    Source: https://docs.aws.amazon.com/elasticloadbalancing/latest/network/target-group-health-checks.html
    """
    for service, _, lb_class in load_balancers(cluster):
        readiness = _readiness(cluster, service) if by_controller(service, lb_class) else None
        if readiness is None or not cluster.serves_models(service):
            continue
        workload, container, probe = readiness
        notes = service.metadata.annotations
        annotated = [k for k in ("unhealthy-threshold", "interval") if HEALTHCHECK + k in notes]
        interval = number(notes, HEALTHCHECK + "interval", default=10)
        threshold = number(notes, HEALTHCHECK + "unhealthy-threshold", default=3)
        patience = probe.period * probe.failures
        if annotated and interval * threshold < patience:
            key = HEALTHCHECK + annotated[0]
            need = -(-patience // interval)
            yield Problem(
                f"the load balancer gives up after {interval * threshold} s, the pod's own probe after {patience} s",
                service.ref,
                (
                    seen(service.ref, annotation(key), notes[key], f"{threshold} failures {interval} s apart"),
                    seen(
                        workload.ref,
                        workload.field(f"{container.field}.readinessProbe"),
                        patience,
                        f"{probe.failures} failures {probe.period} s apart",
                    ),
                ),
                Remedy(
                    "Be at least as patient as the pod's probe.",
                    command=annotate(service.ref, HEALTHCHECK + "unhealthy-threshold", str(min(10, max(2, need)))),
                ),
            )
