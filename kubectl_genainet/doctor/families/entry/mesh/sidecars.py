"""Service mesh: Istio with sidecars, Istio Ambient, Linkerd."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, on_node, seen
from kubectl_genainet.doctor.families.entry.ingress import backends, controller_marks, ingresses, service_field
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.nodes import netns_of
from kubectl_genainet.doctor.objects.raw import (
    annotate,
    annotation,
    items,
    mapping,
    restart,
    selector_matches,
    text,
)
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.inference import INFERENCE
from kubectl_genainet.doctor.predicates.labels import selecting_labels
from kubectl_genainet.doctor.predicates.load_balancers import TARGET_TYPE, TYPE, by_controller, load_balancers
from kubectl_genainet.doctor.predicates.mesh import (
    HBONE,
    PROXY_PORTS,
    Mesh,
    has_live_pods,
    mesh_of,
    no_mesh,
    opted_out,
)
from kubectl_genainet.doctor.predicates.policy_text import adding
from kubectl_genainet.doctor.settings import some_told, told_together
from kubectl_genainet.model.finding import Evidence, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service


def _proxy_listens(cluster: Cluster, workload: Workload, ports: Collection[int]) -> tuple[Evidence, ...]:
    """The first of a workload's pods in whose network namespace an agent saw the mesh's proxy listen."""
    reports = {r.node: r for r in cluster.reports}
    for live in workload.pods:
        netns = netns_of(reports[live.node], live) if live.node in reports else None
        listening = sorted({i.port for i in (netns.tcp_listeners or () if netns else ()) if i.port in ports})
        if listening:
            shown = ", ".join(map(str, listening))
            return (
                on_node(
                    live.node, f"a proxy listens on TCP {shown} inside it", listening, field="listeners", obj=live.ref
                ),
            )
    return ()


@check(Area.MESH, Severity.INFO, needs=("Pod",), applies=no_mesh)
def mesh_sidecar(cluster: Cluster) -> Problems:
    """A sidecar is in the path of a model server.

    Looks at the containers of the pods of model servers and vector databases; a proxy that listens in their network
    namespaces, and recorded packets to the proxies' ports (15001, 15006, 4140, 4143), are named as observed.

    Why: each request passes two more proxies, which count, retry and time out on their own: a stream of minutes
    needs the mesh's timeouts set too, and a trace shows a redirect to the pod itself. Information: nothing is
    wrong; it explains what a trace shows.

    Source: https://istio.io/latest/docs/ops/deployment/architecture/, https://linkerd.io/2/reference/architecture/
    """
    for workload, _ in cluster.genai_workloads:
        mesh, evidence = mesh_of(cluster, workload)
        if mesh not in (Mesh.ISTIO_SIDECAR, Mesh.LINKERD) or evidence is None:
            continue
        ips = {ip for p in workload.pods for ip in p.pod.ips}
        redirected = next(
            (
                p
                for p in cluster.packets
                if p.flow.dport in PROXY_PORTS and p.flow.dst in (*ips, "127.0.0.1", "127.0.0.6")
            ),
            None,
        )
        more = (on_node(redirected.node, f"redirect to the local proxy seen: {redirected.flow}"),) if redirected else ()
        yield Problem(
            f"requests pass the {mesh.value}",
            workload.ref,
            (evidence, *_proxy_listens(cluster, workload, PROXY_PORTS), *more),
            Remedy(
                "Where mTLS is all that is wanted, Ambient has no sidecar. Check the mesh's timeout and retries for this "
                "workload: retried prompts are computed twice."
            ),
        )


@check(Area.MESH, Severity.INFO, needs=("Pod", "Namespace"), applies=no_mesh)
def mesh_ambient(cluster: Cluster) -> Problems:
    """Traffic of a GenAI workload goes through ztunnel.

    Looks at the label istio.io/dataplane-mode of namespaces and pods; ztunnel's socket on TCP 15008 in the pods' network
    namespaces, and recorded packets to that port, are named as observed.

    Why: packets between pods are HBONE (TCP 15008) between the nodes' ztunnels; the application's port shows only
    inside the pod. It explains addresses and ports that a trace or a policy would otherwise get wrong. Information:
    nothing is wrong; it explains what a trace shows.

    Source: https://istio.io/latest/docs/ambient/architecture/data-plane/
    """
    for workload, _ in cluster.genai_workloads:
        mesh, evidence = mesh_of(cluster, workload)
        if mesh is Mesh.AMBIENT and evidence is not None:
            ips = {ip for p in workload.pods for ip in p.pod.ips}
            hop = next((p for p in cluster.packets if p.flow.dport == HBONE and p.flow.dst in ips), None)
            more = (on_node(hop.node, f"HBONE seen: {hop.flow}"),) if hop else ()
            yield Problem(
                "traffic goes through ztunnel (HBONE, TCP 15008)",
                workload.ref,
                (evidence, *_proxy_listens(cluster, workload, (HBONE,)), *more),
                Remedy("Nothing to change. Policies and traces of its traffic have to look at TCP 15008."),
            )


@check(Area.MESH, Severity.WARNING, needs=("Pod", "Namespace"), applies=no_mesh)
def mesh_sidecar_missing(cluster: Cluster) -> Problems:
    """A namespace asks for sidecars, and a GenAI pod has none.

    Looks at the labels istio-injection, istio.io/rev and the annotation linkerd.io/inject of the namespace, and at
    the containers of its pods. Pods that opt out are left alone.

    Why: pods that were made before the label, or while the injector was down, have none: they speak plain text, and
    STRICT peers refuse them. A warning: calls fail only where a peer insists on mTLS.

    Source: https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/
    """
    namespaces = {n.name: n for n in cluster.snapshot.of("Namespace", "")}
    for workload, _ in cluster.genai_workloads:
        obj = namespaces.get(workload.namespace)
        if obj is None or workload.template.host_network or not has_live_pods(cluster, workload):
            continue
        wanted = (
            (f"metadata.labels[{k}]", v)
            for k, v in obj.labels.items()
            if (k, v) == ("istio-injection", "enabled") or k == "istio.io/rev"
        )
        field, value = next(wanted, ("", ""))
        if obj.annotations.get("linkerd.io/inject") == "enabled":
            field, value = annotation("linkerd.io/inject"), "enabled"
        if field and not opted_out(workload) and mesh_of(cluster, workload)[0] is Mesh.NONE:
            yield Problem(
                "its pods have no sidecar",
                workload.ref,
                (
                    seen(obj.ref, field, value, f"{obj.ref} asks for injection"),
                    seen(workload.pods[0].ref, "spec.containers", None, "no istio-proxy or linkerd-proxy"),
                ),
                Remedy("Make the pods anew.", command=restart(workload.ref)),
            )


def _strict(cluster: Cluster, workload: Workload) -> tuple[KubeObject, str] | None:
    """The PeerAuthentication that makes mTLS STRICT for a workload, if one does; the narrowest decides."""
    best: tuple[int, KubeObject] | None = None
    for policy in cluster.snapshot.of("PeerAuthentication", "security.istio.io"):
        selector = mapping(policy.raw, "spec", "selector")
        if policy.namespace == workload.namespace and selector:
            rank = 3 if selector_matches(selector, workload.template.labels) else 0
        elif policy.namespace == workload.namespace:
            rank = 2
        else:
            rank = 1 if policy.namespace == "istio-system" and not selector else 0
        mode = text(policy.raw, "spec", "mtls", "mode")
        if rank and mode not in ("", "UNSET") and (best is None or rank > best[0]):
            best = rank, policy
    if best is None or text(best[1].raw, "spec", "mtls", "mode") != "STRICT":
        return None
    return best[1], "spec.mtls.mode"


@check(Area.MESH, Severity.ERROR, needs=("Pod", "PeerAuthentication"), applies=no_mesh)
def mesh_strict(cluster: Cluster) -> Problems:
    """mTLS is STRICT, and a client has no mesh.

    Looks at the PeerAuthentications that apply to the callee (the workload's own before the namespace's before the
    mesh's) and at who comes without a mesh: its configured callers, the controller of an Ingress that leads to it, an NLB
    with pod targets. A port that the policy exempts (portLevelMtls) is not reported, nor is an address that a ConfigMap tells
    several workloads of which one is in the mesh. An error: every request fails.

    Why: the callee's proxy resets plain connections: "connection reset by peer", before the application sees anything.

    Source: https://istio.io/latest/docs/reference/config/security/peer_authentication/
    """
    for service, client, evidence in _plain_clients(cluster):
        for workload in cluster.workloads_of(service):
            strict = _strict(cluster, workload)
            if strict is None or mesh_of(cluster, workload)[0] not in (Mesh.ISTIO_SIDECAR, Mesh.AMBIENT):
                continue
            ports = {str(cluster.target_port(workload, p)) for p in service.spec.ports}
            modes = {
                str(p): mode for p, mode in mapping(strict[0].raw, "spec", "portLevelMtls").items()
            }  # YAML has numbers
            if ports and all(text(modes, p, "mode") in ("PERMISSIVE", "DISABLE") for p in ports):
                continue
            yield Problem(
                f"{client} reaches it without mTLS, and mTLS is STRICT",
                workload.ref,
                (seen(strict[0].ref, strict[1], "STRICT", f"{strict[0].ref} admits mTLS only"), evidence),
                adding(
                    "Bring the client into the mesh, or admit plain connections to this workload alone.",
                    _permissive(workload),
                ),
                rests_on=(service.ref,),
            )


def _permissive(workload: Workload) -> dict[str, Any]:
    """A PeerAuthentication for one workload: the namespace's and the mesh's stay as they are."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": f"{workload.name}-permissive", "namespace": workload.namespace},
        "spec": {
            "selector": {"matchLabels": selecting_labels(workload)},
            "mtls": {"mode": "PERMISSIVE"},
        },
    }


def _plain_clients(cluster: Cluster) -> Iterator[tuple[Service, str, Evidence]]:
    """(Service, client, evidence) of everything in scope that reaches a Service's pods without a mesh."""
    together = told_together(cluster.calls)
    for call in cluster.calls:
        if call.service is None or not cluster.in_scope(call.service.metadata.namespace):
            continue
        told = (call, *some_told(together, call))
        if all(mesh_of(cluster, other.client)[0] is Mesh.NONE for other in told):
            yield call.service, str(call.client.ref), call.evidence
    for service, _, lb_class in load_balancers(cluster):
        notes = service.metadata.annotations
        if by_controller(service, lb_class) and (notes.get(TARGET_TYPE) == "ip" or notes.get(TYPE) == "nlb-ip"):
            evidence = seen(
                service.ref, annotation(TARGET_TYPE), "ip", f"the NLB of {service.ref} connects to the pods"
            )
            yield service, "its NLB", evidence
    for ingress in ingresses(cluster):
        controller = (
            cluster.running(*controller_marks(cluster, ingress)) if controller_marks(cluster, ingress) else None
        )
        front = cluster.workload(controller.ref) if controller is not None else None
        if front is None or mesh_of(cluster, front)[0] is not Mesh.NONE:
            continue
        for field, backend, _, _ in backends(ingress):
            callee = cluster.services_by_key.get((ingress.namespace, text(backend, "service", "name")))
            if callee is not None:
                problem = f"{front.ref} serves {ingress.ref} and has no sidecar"
                yield callee, str(front.ref), seen(ingress.ref, service_field(field), callee.metadata.name, problem)


@check(Area.MESH, Severity.WARNING, needs=("Pod", "Service"), applies=no_mesh)
def mesh_double_balancing(cluster: Cluster) -> Problems:
    """Two balancers choose the endpoint one after the other.

    Looks for ingress-nginx with a sidecar in front of meshed backends without
    nginx.ingress.kubernetes.io/service-upstream: "true" (nginx picks a pod, the sidecar cannot balance), and for
    InferencePools whose pods have sidecars beside an Istio mesh (the endpoint picker's choice can be overruled).

    Why: queue-aware balancing of prompts is undone, retries double, and telemetry names the wrong peer. A warning:
    requests are answered, by pods that are busier than others.

    Source: https://linkerd.io/2/tasks/using-ingress/#nginx,
    https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#service-upstream
    """
    yield from _nginx_before_a_mesh(cluster)
    yield from _picker_before_a_mesh(cluster)


def _nginx_before_a_mesh(cluster: Cluster) -> Problems:
    key = "nginx.ingress.kubernetes.io/service-upstream"
    nginx = next((w for w in cluster.workloads if "ingress-nginx" in w.name and w.pods), None)
    if nginx is None or mesh_of(cluster, nginx)[0] not in (Mesh.ISTIO_SIDECAR, Mesh.LINKERD):
        return
    for ingress in cluster.snapshot.of("Ingress", "networking.k8s.io"):
        chosen = ingress.annotations.get(key)
        if not cluster.in_scope(ingress.namespace) or chosen == "true":
            continue
        for rule in items(ingress.raw, "spec", "rules"):
            names = {text(p, "backend", "service", "name") for p in items(rule, "http", "paths")}
            services = [s for n in names if (s := cluster.services_by_key.get((ingress.namespace, n)))]
            meshed = [w for s in services for w in cluster.workloads_of(s) if mesh_of(cluster, w)[0] is not Mesh.NONE]
            if meshed:
                yield Problem(
                    f"nginx and the mesh both balance towards {meshed[0].ref}",
                    ingress.ref,
                    (seen(ingress.ref, annotation(key), chosen, "nginx sends to pod addresses"),),
                    Remedy(
                        "Let nginx send to the Service, and the mesh balance.",
                        command=annotate(ingress.ref, key, "true"),
                    ),
                )
                break


def _picker_before_a_mesh(cluster: Cluster) -> Problems:
    for group in INFERENCE:
        for pool in cluster.snapshot.of("InferencePool", group):
            selector = mapping(pool.raw, "spec", "selector")
            labels = {k: str(v) for k, v in (mapping(selector, "matchLabels") or selector).items()}
            for workload in cluster.selected(pool.namespace, labels) if cluster.in_scope(pool.namespace) else ():
                mesh, evidence = mesh_of(cluster, workload)
                if mesh is Mesh.ISTIO_SIDECAR and evidence is not None:
                    yield Problem(
                        f"the endpoint picker and the mesh both choose a pod of {workload.ref}",
                        pool.ref,
                        (seen(pool.ref, "spec.selector", labels, f"picks pods of {workload.ref}"), evidence),
                        Remedy("Keep the sidecar off the pool's pods, or use the mesh's own Gateway for the pool."),
                    )
