"""Services and endpoints."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, on_node, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import command, items, kubectl, patch, text
from kubectl_genainet.doctor.objects.recognise import container_stack
from kubectl_genainet.doctor.objects.stacks import Role, repository
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.backends import is_for_metrics
from kubectl_genainet.doctor.predicates.local_drops import local_drops
from kubectl_genainet.doctor.predicates.selectors import (
    added_by_a_controller,
    nearly_selected,
    of_a_chart,
    selected_when_placed,
)
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import Service, ServicePort


def _plain(service: Service) -> bool:
    """Whether the Service finds its endpoints by a selector."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


@check(Area.SERVICES, Severity.ERROR, needs=("Service", "Pod"), own_namespace=True)
def service_selector(cluster: Cluster) -> Problems:
    """A Service's selector matches no pod and no workload.

    Looks at spec.selector against the labels of the pods that are there, then of the pod templates of every kind. A
    selector on labels that a controller adds (job-name, a cluster's or a gateway's name) is not checked, and neither is
    one in manifests that are not the whole cluster, unless it misses a workload there by one label. One on the labels
    that charts give may be for a chart whose values lie beside it.

    Why: the Service has no endpoint and never will; kube-proxy rejects its connections. Mostly a label that was
    renamed on one side. An error: every request fails.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#services-in-kubernetes
    """
    for service in cluster.services:
        if not _plain(service) or cluster.workloads_of(service):
            continue
        wanted, namespace = service.spec.selector, service.metadata.namespace
        added = added_by_a_controller(cluster, namespace, wanted)
        near = None if added else nearly_selected(cluster, namespace, wanted, service.metadata.name)
        if near is not None and cluster.extent.varies(near[0].ref):
            yield NotChecked(str(service.ref), f"{near[0].ref} is given more than once")
            continue
        others = of_a_chart(cluster, service.ref, wanted, near[0] if near else None)
        if others := others or selected_when_placed(cluster, namespace, wanted):
            yield NotChecked(str(service.ref), others)
            continue
        if added or (near is None and cluster.partial("Pod", namespace)):
            reason = (
                f"a controller adds the label {added}" if added else "the pods that it selects may be made elsewhere"
            )
            yield NotChecked(str(service.ref), reason)
            continue
        shown = ",".join(f"{k}={v}" for k, v in sorted(wanted.items()))
        yield Problem(
            f"its selector matches no pod ({shown})",
            service.ref,
            (seen(service.ref, "spec.selector", dict(wanted), f"no pod in {namespace} has {shown}{_differs(near)}"),),
            _right_selector(service, near),
            rests_on=(near[0].ref,) if near is not None else (),
        )


def _right_selector(service: Service, near: tuple[Workload, str] | None) -> Remedy:
    advice = "Give the Service the labels that its pods have."
    if near is not None and near[1] in near[0].labels:
        workload, key = near
        return Remedy(advice, command=patch(service.ref, {"spec": {"selector": {key: workload.labels[key]}}}))
    look = command("kubectl", "-n", service.metadata.namespace, "get", "pods", "--show-labels")
    return Remedy(advice, command=f"{look}\n{kubectl(service.ref, 'edit')}")


def _differs(near: tuple[Workload, str] | None) -> str:
    if near is None:
        return ""
    workload, key = near
    value = workload.labels.get(key)
    return f"; {workload.ref} has {key}={value}" if value is not None else f"; {workload.ref} has no {key}"


@check(Area.SERVICES, Severity.ERROR, needs=("Service", "Pod"), own_namespace=True)
def service_target_port(cluster: Cluster) -> Problems:
    """A Service's target port is not a port of its pods.

    Looks at spec.ports[].targetPort against the container ports of all workloads that it selects: a name that none of
    them declares is an error. A number that none declares, where GenAI workloads declare others of that protocol, is a
    warning where no port of the Service leads to a declared one, else information: declaring ports is optional. It is
    not reported where the number stands in the command line, the variables, the annotations, labels or probes, where it is
    the database's own (Chroma's 8000), or where the port is for metrics, which are seldom declared. Proxies of Gateways are
    left out: they are told where to listen.
    Information for headless Services: their names lead to the pods, at the port that the client knows.

    Why: with an unknown name the endpoint has no port at all; with a wrong number connections are refused by the
    pod.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#field-spec-ports
    """
    for service in cluster.services:
        workloads = cluster.workloads_of(service) if _plain(service) else ()
        if not workloads or any(not w.metadata for w in workloads):  # an operator composes such pods, with their ports
            continue
        if any(_is_a_proxy(w) for w in workloads):
            yield NotChecked(str(service.ref), f"{workloads[0].ref} listens where its control plane tells it to")
            continue
        for index, port in enumerate(service.spec.ports):
            target = port.target_port or port.port
            declared = [p for w in workloads for c in w.template.all_containers for p in c.ports]
            same = sorted({n for n, _, protocol in declared if protocol == port.protocol})
            named = isinstance(target, str) and not target.isdecimal()
            if named and any(name == target and p == port.protocol for _, name, p in declared):
                continue
            if not named and (not same or int(target) in {n for n, _, _ in declared}):
                continue  # of another protocol: left to service-protocol
            if not named and (is_for_metrics(service, port) or any(_mentions(w, int(target)) for w in workloads)):
                continue
            if any(cluster.extent.varies(w.ref) for w in workloads):
                yield NotChecked(str(service.ref), f"{workloads[0].ref} is given more than once")
                continue
            if others := selected_when_placed(cluster, service.metadata.namespace, service.spec.selector):
                yield NotChecked(str(service.ref), others)
                continue
            counts = any(w.key in cluster.genai for w in workloads)  # of others, what they listen on is not known
            choices = sorted({name for _, name, _ in declared if name}) if named else [str(n) for n in same]
            harmless = service.spec.cluster_ip == "None" or (not named and (not counts or _meets(service, declared)))
            severity = Severity.INFO if harmless else None if named else Severity.WARNING
            yield _no_such_target(service, index, workloads[0], choices, severity)


def _no_such_target(
    service: Service, index: int, workload: Workload, choices: list[str], severity: Severity | None
) -> Problem:
    port = service.spec.ports[index]
    target = port.target_port or port.port
    declared = f"its containers declare {', '.join(choices) or 'no port with a name'} ({port.protocol})"
    return Problem(
        f"targetPort {target} is not a port of {workload.ref}",
        service.ref,
        (
            seen(service.ref, f"spec.ports[{index}].targetPort", target, f"port {port.port} goes to {target}"),
            seen(workload.ref, workload.field("containers[*].ports"), choices, declared),
        ),
        _name_a_port(service, index, choices, isinstance(target, str) and not target.isdecimal()),
        severity=severity,
    )


# Images of proxies that are told their listeners by Gateways and Ingresses.
_PROXY = re.compile(
    r"(^|/)(envoy(-distroless)?|envoy-proxy|envoy-wrapper|proxyv2|agentgateway|traefik|kong|apisix|pilot)($|[:@-])"
)


def _is_a_proxy(workload: Workload) -> bool:
    """Whether the pods are the data plane of a Gateway, whose listeners are no ports of a container."""
    marked = any(key.startswith("gateway.networking.k8s.io/") for key in workload.labels)
    return marked or any(_PROXY.search(repository(c.image)) for c in workload.containers)


def _mentions(workload: Workload, port: int) -> bool:
    """Whether a port's number stands in what a workload's containers run with, or in its labels or annotations, or is that of
    the database that one runs."""
    stacks = (found[0] for c in workload.containers if (found := container_stack(c)) is not None)
    if any(stack.role is Role.VECTOR_DATABASE and stack.port == port for stack in stacks):
        return True
    mentioned = (*workload.labels.values(), *workload.template.annotations.values())
    return any(c.mentions(port) for c in workload.containers) or any(
        str(port) in re.split(r"\D+", v) for v in mentioned
    )


def _meets(service: Service, declared: list[tuple[int, str, str]]) -> bool:
    """Whether some port of a Service leads to a declared one."""
    targets = {str(p.target_port or p.port) for p in service.spec.ports}
    return any(str(n) in targets or name in targets for n, name, _ in declared)


def _name_a_port(service: Service, index: int, choices: list[str], named: bool) -> Remedy:
    """A patch where there is one port to choose; else the choice is the user's."""
    if len(choices) != 1:
        return Remedy("Name a port that the containers declare.", command=kubectl(service.ref, "edit"))
    value = choices[0] if named else int(choices[0])
    change = [{"op": "replace", "path": f"/spec/ports/{index}/targetPort", "value": value}]
    return Remedy("Name the port that the containers declare.", command=patch(service.ref, change, kind="json"))


def _under_both(cluster: Cluster, port: ServicePort, workload: Workload) -> bool:
    """Whether Services send both protocols to one number of a workload: it speaks both, and declares one of them."""
    ports = [p for s in cluster.services_of(workload) for p in s.spec.ports]
    same = [p for p in ports if isinstance(port.target_port, int) and p.target_port == port.target_port]
    return len({p.protocol for p in same}) > 1


def _declares_for_sure(cluster: Cluster, port: ServicePort, workload: Workload) -> bool:
    """Whether the declared protocol is the one that is spoken: a port is found by its name and protocol, a server of models
    or vectors speaks TCP, or the protocol is written out. Otherwise TCP is a default that nobody need have meant."""
    numbers = [p for c in workload.template.all_containers for p in items(c.raw, "ports") if text(p, "protocol")]
    written = any(p.get("containerPort") == cluster.target_port(workload, port) for p in numbers)
    return isinstance(port.target_port, str) or cluster.role(workload) is not Role.UNKNOWN or written


@check(Area.SERVICES, Severity.ERROR, needs=("Service", "Pod"), own_namespace=True)
def service_protocol(cluster: Cluster) -> Problems:
    """A Service port has another protocol than the container port it leads to.

    Looks at spec.ports[].protocol and the protocol of the declared container port with the same number. A number that
    Services have under both protocols is left out: a container need not declare its ports. Information where the container
    port's TCP is a default, and what speaks there is not known.

    Why: TCP and UDP port 8080 are different ports: nothing listens on the one the Service sends to. An error: every
    request to the port fails.

    Source: https://kubernetes.io/docs/reference/networking/service-protocols/
    """
    for service in cluster.services:
        workloads = cluster.workloads_of(service) if _plain(service) else ()
        for index, port in enumerate(service.spec.ports):
            for workload in workloads:
                number = cluster.target_port(workload, port)
                protocols = {p for c in workload.template.all_containers for n, _, p in c.ports if n == number}
                if number and protocols and port.protocol not in protocols and not _under_both(cluster, port, workload):
                    other = sorted(protocols)[0]
                    yield Problem(
                        f"port {port.port} is {port.protocol}, port {number} of {workload.ref} is {other}",
                        service.ref,
                        (
                            seen(
                                service.ref, f"spec.ports[{index}].protocol", port.protocol, f"protocol {port.protocol}"
                            ),
                            seen(
                                workload.ref, workload.field("containers[*].ports"), other, f"port {number} is {other}"
                            ),
                        ),
                        Remedy(
                            "Use the protocol that the container speaks.",
                            command=patch(
                                service.ref,
                                [{"op": "replace", "path": f"/spec/ports/{index}/protocol", "value": other}],
                                kind="json",
                            ),
                        ),
                        severity=None if _declares_for_sure(cluster, port, workload) else Severity.INFO,
                    )
                    break


@check(Area.SERVICES, Severity.ERROR, needs=("Service", "EndpointSlice"), own_namespace=True)
def service_endpoints(cluster: Cluster) -> Problems:
    """A Service has no ready endpoint.

    Looks at the Service's EndpointSlices. A Service whose selector matches nothing is left to service-selector, one
    whose workloads are scaled to zero is not reported.

    Why: kube-proxy rejects connections (ICMP port unreachable) or, for traffic policy Local, drops them. An error:
    every request to the port fails. A warning where endpoints still serve while they terminate, since kube-proxy uses
    those: requests fail once they end.

    Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
    """
    for service in cluster.services:
        if service.spec.type == "ExternalName" or service.spec.publish_not_ready_addresses:
            continue
        workloads = cluster.workloads_of(service)
        if service.spec.selector and not any(w.pods for w in workloads):
            continue
        if reason := cluster.partial("EndpointSlice", service.metadata.namespace):
            yield NotChecked(str(service.ref), reason)
            continue
        for index, port in enumerate(service.spec.ports):
            backends = cluster.snapshot.backends(service, port)
            if any(b.ready for b in backends):
                continue
            state = f"{len(backends)} endpoints, none ready" if backends else "no endpoint"
            leaving = sum(b.is_used_at_last for b in backends)
            state += f"; {leaving} still serve while they terminate" if leaving else ""
            first = next((p for w in workloads for p in w.pods if not p.pod.ready), None)
            evidence = [seen(service.ref, f"spec.ports[{index}]", port.port, f"port {port.port}: {state}")]
            if first is not None:
                evidence.append(seen(first.ref, "status.conditions[Ready]", "False", f"{first.ref} is not ready"))
            look = kubectl(first.ref, "describe") if first else _show_slices(service)
            yield Problem(
                f"no ready endpoint for port {port.port}",
                service.ref,
                tuple(evidence),
                Remedy("See why its pods are not ready.", command=look),
                severity=Severity.WARNING if leaving else None,
            )


def _show_slices(service: Service) -> str:
    label = f"kubernetes.io/service-name={service.metadata.name}"
    return command("kubectl", "-n", service.metadata.namespace, "get", "endpointslices", "-l", label, "-o", "yaml")


@check(Area.SERVICES, Severity.WARNING, needs=("Service", "EndpointSlice", "Node"))
def external_policy_local(cluster: Cluster) -> Problems:
    """externalTrafficPolicy Local, and nodes without an endpoint.

    Looks at NodePort and LoadBalancer Services: which nodes have no endpoint of theirs that is ready, or that still
    serves while it terminates. Where a load balancer checks the nodes' health (healthCheckNodePort) it is information
    only, unless a node's kube-proxy rule "has no local endpoints" has counted packets.

    Why: such a node drops what comes in on the node port. A load balancer with a health check keeps away from it; a
    client that was given the node's address does not. A warning: only clients that were given such a node's address
    are dropped.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#external-traffic-policy
    """
    for service in cluster.services:
        spec = service.spec
        if spec.external_traffic_policy != "Local" or spec.type not in ("NodePort", "LoadBalancer"):
            continue
        checked = spec.type == "LoadBalancer" and bool(spec.health_check_node_port)
        for port in spec.ports[:1]:
            local = {b.node for b in cluster.snapshot.backends(service, port) if b.is_used_at_last}
            without = sorted(n.name for n in cluster.nodes if n.name not in local)
            if local and without:
                dropped = [d for d in local_drops(cluster, service.ref) if d[0] in without]
                yield Problem(
                    f"{len(without)} of {len(cluster.nodes)} nodes have no local endpoint and drop its traffic",
                    service.ref,
                    (
                        seen(
                            service.ref, "spec.externalTrafficPolicy", "Local", "traffic stays on the node it reaches"
                        ),
                        seen(service.ref, "endpoints", sorted(local), f"no ready endpoint on {', '.join(without[:5])}"),
                        *(
                            on_node(node, f"kube-proxy dropped {packets} packets: no local endpoints", packets)
                            for node, packets in dropped
                        ),
                    ),
                    Remedy(
                        "Accept the extra hop, or put an endpoint on every node (a DaemonSet).",
                        command=patch(service.ref, {"spec": {"externalTrafficPolicy": "Cluster"}}),
                    ),
                    severity=Severity.INFO if checked and not dropped else None,
                )


@check(Area.SERVICES, Severity.ERROR, needs=("Service", "EndpointSlice", "Pod"))
def internal_policy_local(cluster: Cluster) -> Problems:
    """internalTrafficPolicy Local, and clients on nodes without an endpoint.

    Looks at Services with internalTrafficPolicy Local that a workload is configured to call, and at the nodes of
    that workload's pods.

    Why: on those nodes the packets are dropped, although other nodes have ready endpoints. An error: every request
    of the clients on those nodes fails.

    Source: https://kubernetes.io/docs/concepts/services-networking/service-traffic-policy/
    """
    for call in cluster.calls:
        service = call.service
        if service is None or service.spec.internal_traffic_policy != "Local" or call.service_port is None:
            continue
        if not cluster.in_scope(service.metadata.namespace):
            continue
        local = {b.node for b in cluster.snapshot.backends(service, call.service_port) if b.is_used_at_last}
        without = sorted(call.client.nodes - local)
        if local and without:
            yield Problem(
                f"{call.client.ref} runs on {len(without)} nodes without a local endpoint",
                service.ref,
                (
                    seen(
                        service.ref, "spec.internalTrafficPolicy", "Local", f"no endpoint on {', '.join(without[:5])}"
                    ),
                    call.evidence,
                ),
                Remedy(
                    "Let the clients reach every endpoint; prefer near ones with trafficDistribution.",
                    command=patch(
                        service.ref,
                        {"spec": {"internalTrafficPolicy": "Cluster", "trafficDistribution": "PreferClose"}},
                    ),
                ),
            )
