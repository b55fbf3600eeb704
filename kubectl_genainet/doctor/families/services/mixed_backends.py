"""Services whose selector takes in pods of workloads that they are not for."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.backends import backends_of, strangers
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import Service


@check(Area.SERVICES, Severity.ERROR, needs=("Service", "Pod"), own_namespace=True)
def service_selects_others(cluster: Cluster) -> Problems:
    """A Service selects pods that do not serve its port, beside those that do.

    Looks at Services (not headless ones) that select several workloads: one declares the port that a Service port leads to,
    another, which runs another program, declares ports, and this one is not among them. Jobs and parts of one object are left
    out, and so are ports that the Service names: a pod without the name is no endpoint of them. Two files of which each runs
    one image behind a Service of its own are not checked against each other: they deploy it in two ways. An error: one
    request in so many fails.

    Why: kube-proxy spreads connections over every pod that the selector matches. A label that all components carry (a
    chart's instance, a kustomization's common label) is no selector for one of them: some connections reach the database
    instead of the model server, and are refused.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#defining-a-service
    """
    for service in cluster.services:
        if service.spec.cluster_ip == "None" or service.spec.type == "ExternalName" or not service.spec.selector:
            continue
        if len(cluster.workloads_of(service)) < 2:
            continue
        for index, port in enumerate(service.spec.ports):
            meant = backends_of(cluster, service, port)
            others = [w for w in strangers(cluster, service, port) if w.ref not in {m.ref for m in meant}]
            if not others:
                continue
            other = others[0]
            if any(_in_another_way(cluster, service, m, other) for m in meant):
                yield NotChecked(
                    str(service.ref), f"{other.ref} runs the same image, and its file has a Service for it"
                )
                break
            declared = [n for c in other.containers for n, _, _ in c.ports]
            yield Problem(
                f"it selects {other.ref}, which does not serve port {port.port}, beside {meant[0].ref}",
                service.ref,
                (
                    seen(
                        service.ref, "spec.selector", dict(service.spec.selector), "the pods of both have these labels"
                    ),
                    seen(
                        service.ref,
                        f"spec.ports[{index}].targetPort",
                        port.target_port or port.port,
                        f"{meant[0].ref} declares it",
                    ),
                    seen(other.ref, other.field("containers[*].ports"), declared, f"{other.ref} does not declare it"),
                ),
                Remedy(f"Select a label that only the pods of {meant[0].ref} carry."),
                rests_on=(meant[0].ref,),
            )
            break


def _in_another_way(cluster: Cluster, service: Service, meant: Workload, other: Workload) -> bool:
    """Whether manifests of two files deploy one program in two ways: each with a Service of its own."""
    one, another = cluster.object_of(meant), cluster.object_of(other)
    if cluster.extent.of_a_cluster or one is None or another is None or cluster.extent.same_file(one, another):
        return False
    overlays = cluster.snapshot.overlays
    if overlays.get(str(one.ref), frozenset()) & overlays.get(str(another.ref), frozenset()):
        return False
    own = {s.ref for s in cluster.services_of(other)} - {service.ref}
    beside = any(o.ref in own and cluster.extent.same_file(o, another) for o in cluster.snapshot.of("Service", ""))
    return beside and bool({c.image for c in meant.containers} & {c.image for c in other.containers})
