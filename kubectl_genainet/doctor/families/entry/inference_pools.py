"""Pools of model servers, and who chooses their endpoints (Gateway API's inference extension)."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, items, mapping, number, sh, text
from kubectl_genainet.doctor.predicates.edits import edit, on_object, set_in
from kubectl_genainet.doctor.predicates.inference import pool_labels, pools
from kubectl_genainet.doctor.predicates.selectors import added_by_a_controller, alike, meant, nearly_selected
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service


def _picker(pool: KubeObject) -> tuple[str, dict[str, Any]]:
    """The endpoint picker's reference: endpointPickerRef in v1, extensionRef in v1alpha2."""
    for field in ("endpointPickerRef", "extensionRef"):
        if at(pool.raw, "spec", field) is not None:
            return f"spec.{field}", mapping(pool.raw, "spec", field)
    return "spec.endpointPickerRef", {}


@check(Area.GATEWAY, Severity.ERROR, needs=("InferencePool", "Pod"))
def inference_pool(cluster: Cluster) -> Problems:
    """An InferencePool has no pods, a port its pods don't have, or no endpoint picker.

    Looks at spec.selector, spec.targetPorts (v1alpha2: targetPortNumber) and spec.endpointPickerRef (v1alpha2:
    extensionRef) with the Service it names, its endpoints, and the pool that the picker's arguments name (--pool-name,
    --pool-namespace, --pool-group).

    Why: the Gateway asks the endpoint picker for a pod on every request; without it (FailClose is the default) all
    requests fail, and without matching pods it has none to pick. An error: every request for the pool fails.

    Source: https://gateway-api-inference-extension.sigs.k8s.io/reference/spec/
    """
    for pool in pools(cluster):
        if not cluster.in_scope(pool.namespace):
            continue
        labels = pool_labels(pool)
        workloads = cluster.selected(pool.namespace, labels)
        elsewhere = cluster.partial("Pod", pool.namespace) or added_by_a_controller(cluster, pool.namespace, labels)
        if not workloads and elsewhere and nearly_selected(cluster, pool.namespace, labels, pool.name) is None:
            yield NotChecked(str(pool.ref), "the pods that it selects may be made elsewhere")
        elif not workloads:
            near = nearly_selected(cluster, pool.namespace, labels, pool.name)
            shown = ",".join(f"{k}={v}" for k, v in labels.items())
            yield Problem(
                f"its selector matches no pod ({shown})",
                pool.ref,
                (seen(pool.ref, "spec.selector", labels, f"no pod in {pool.namespace} has {shown}"),),
                Remedy("Use the labels of the model servers.", command=on_object(pool, "edit")),
                rests_on=(near[0].ref,) if near is not None else (),
            )
        ports = [number(p, "number") for p in items(pool.raw, "spec", "targetPorts")]
        field = "spec.targetPorts[0].number" if ports else "spec.targetPortNumber"
        for port in ports or [number(pool.raw, "spec", "targetPortNumber")]:
            for workload in workloads:
                declared = [n for c in workload.template.all_containers for n, _, _ in c.ports]
                if (
                    port
                    and declared
                    and port not in declared
                    and not any(c.mentions(port) for c in workload.containers)
                ):
                    has = ", ".join(map(str, declared))
                    yield Problem(
                        f"target port {port} is not a port of {workload.ref}",
                        pool.ref,
                        (seen(pool.ref, field, port, f"the containers of {workload.ref} declare {has}"),),
                        Remedy(
                            "Name the port that the model server listens on.",
                            command=set_in(pool, field, declared[0]) if len(declared) == 1 else on_object(pool, "edit"),
                        ),
                        rests_on=(workload.ref,),
                    )
        yield from _picker_problems(cluster, pool)


_TOLD = (
    ("name", ("--pool-name", "--poolName", "-poolName")),
    ("namespace", ("--pool-namespace", "--poolNamespace", "-poolNamespace")),
    ("group", ("--pool-group", "--poolGroup", "-poolGroup")),
)


def _watches_another_pool(cluster: Cluster, pool: KubeObject, service: Service) -> Problems:
    """The endpoint picker is told to watch a pool of another name, namespace or API group: it never has an endpoint."""
    own = {"name": pool.name, "namespace": pool.namespace, "group": pool.group}
    for workload in cluster.workloads_of(service):
        for container in workload.containers:
            for what, names in _TOLD:
                value = container.option(*names)
                if not value or value == own[what] or "$" in value or "{" in value:
                    continue
                if what == "namespace" and pool.unplaced:
                    yield NotChecked(str(pool.ref), "neither the manifest nor -n names its namespace")
                    continue
                difference = f"it is told {names[0]} {value}, and the pool's {what} is {own[what]}"
                yield Problem(
                    f"{workload.ref}, its endpoint picker, watches another pool",
                    pool.ref,
                    (
                        seen(workload.ref, workload.field(f"{container.field}.args"), value, difference),
                        seen(
                            pool.ref, "spec.endpointPickerRef.name", service.metadata.name, f"{service.ref} leads to it"
                        ),
                    ),
                    Remedy(
                        "Name this pool, with its namespace and group, in the picker's arguments.",
                        command=edit(workload),
                    ),
                    rests_on=(service.ref,),
                )


def _picker_problems(cluster: Cluster, pool: KubeObject) -> Problems:
    field, picker = _picker(pool)
    name, kind = text(picker, "name"), text(picker, "kind") or "Service"
    if kind != "Service":
        yield NotChecked(str(pool.ref), f"its endpoint picker is a {kind}, which its gateway knows")
        return
    service = cluster.services_by_key.get((pool.namespace, name))
    elsewhere = cluster.partial("Service", pool.namespace)
    near = alike(name, (n for namespace, n in cluster.services_by_key if namespace == pool.namespace)) if name else ""
    if service is None and name and elsewhere and not near:
        yield NotChecked(str(pool.ref), f"its endpoint picker {name} is not here: {elsewhere}")
        return
    if service is None:
        problem = f"no Service {pool.namespace}/{name}" if name else "no endpoint picker is named"
        problem += f", but {near}" if near else ""
        yield Problem(
            f"its endpoint picker {name} does not exist" if name else "it names no endpoint picker",
            pool.ref,
            (seen(pool.ref, f"{field}.name", name or None, problem),),
            Remedy("Install the endpoint picker.", command=on_object(pool, "describe")),
            rests_on=meant("Service", near, pool.namespace),
        )
        return
    yield from _port_of_picker(pool, service)
    yield from _watches_another_pool(cluster, pool, service)
    yield from _picker_is_ready(cluster, pool, service)


def _port_of_picker(pool: KubeObject, service: Service) -> Problems:
    field, picker = _picker(pool)
    port = number(picker, "port", "number") or number(picker, "portNumber")
    if port and not any(p.port == port for p in service.spec.ports):
        has = ", ".join(str(p.port) for p in service.spec.ports)
        yield Problem(
            f"{service.ref}, its endpoint picker, has no port {port}",
            pool.ref,
            (seen(pool.ref, f"{field}.port", port, f"the ports of {service.ref} are {has}"),),
            Remedy("Name the port on which the endpoint picker serves gRPC.", command=on_object(pool, "edit")),
            rests_on=(service.ref,),
        )


def _picker_is_ready(cluster: Cluster, pool: KubeObject, service: Service) -> Problems:
    field, picker = _picker(pool)
    if cluster.missing("EndpointSlice"):
        yield NotChecked(str(pool.ref), cluster.missing("EndpointSlice"))
        return
    if not any(b.ready for p in service.spec.ports for b in cluster.snapshot.backends(service, p)):
        mode = text(picker, "failureMode") or "FailClose"
        problem = "requests fail" if mode == "FailClose" else "the Gateway balances blindly"
        yield Problem(
            f"its endpoint picker has no ready endpoint: {problem}",
            pool.ref,
            (
                seen(pool.ref, f"{field}.name", service.metadata.name, f"failureMode {mode}"),
                seen(service.ref, "endpoints", 0, "no ready endpoint"),
            ),
            Remedy(
                "See why the endpoint picker is not ready.", command=f"kubectl -n {sh(pool.namespace)} get pods -o wide"
            ),
        )
