"""Jobs and model servers over several nodes: the names by which their parts find each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen, shortened
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import patch, text
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import edit_spec
from kubectl_genainet.model.finding import Evidence, Remedy, Severity
from kubectl_genainet.model.kube import Service

_CLUSTER_NAME = re.compile(r"[a-z0-9-]\.svc\b")
_OF_SEVERAL_PODS = (Role.TRAINING, Role.ACCELERATED, Role.MODEL_SERVER, Role.VECTOR_DATABASE)
_RENDEZVOUS = ("MASTER_ADDR", "PET_RDZV_ENDPOINT", "RAY_ADDRESS", "LEADER_ADDR", "COORDINATOR_ADDRESS")


def _settings(cluster: Cluster, workload: Workload, container: ContainerSpec) -> Iterator[Evidence]:
    """Every configured string of a container, as evidence."""
    for variable in cluster.variables(workload, container).values():
        setting = f"{variable.name}={variable.value}"
        yield seen(variable.object, variable.field, variable.value, setting)
    for key in ("command", "args"):
        for index, word in enumerate(container.raw.get(key) or ()):
            yield seen(
                workload.ref, workload.field(f"{container.field}.{key}[{index}]"), str(word), shortened(str(word), 200)
            )


def _asks_cluster_dns(cluster: Cluster, workload: Workload) -> Evidence | None:
    """A configured name that only the cluster's DNS knows."""
    names = {s.metadata.name for s in cluster.snapshot.services if s.metadata.namespace == workload.namespace}
    for container in workload.containers:
        for setting in _settings(cluster, workload, container):
            value = str(setting.value)
            last = value.rpartition("=")[2]
            host = (last.partition("://")[2] or last).partition("/")[0].partition(":")[0]
            service = host.partition(".")[2] or host  # POD.SERVICE by a headless Service
            if _CLUSTER_NAME.search(value) or host in names or service in names:
                return setting
    call = next((c for c in cluster.calls if c.client.key == workload.key and c.service is not None), None)
    return call.evidence if call is not None else None


@check(Area.LOOKUPS, Severity.WARNING)
def host_network_dns(cluster: Cluster) -> Problems:
    """A pod on the node's network asks for names that its resolver does not know.

    Looks at pods with hostNetwork and dnsPolicy ClusterFirst (the default) whose variables, ConfigMaps or command line
    hold the name of a Service, or of a pod behind one (POD.SERVICE). DaemonSets, which mostly talk to their own node, are
    left out. A warning: a node may itself use the cluster's DNS.

    Why: with hostNetwork the kubelet takes ClusterFirst for Default: the pod asks the node's resolver, for which the
    cluster's names do not exist. Rendezvous by MASTER_ADDR then never happens.

    Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-dns-policy
    """
    for workload in cluster.workloads:
        policy = text(workload.template.spec, "dnsPolicy")
        if not cluster.in_scope(workload.namespace) or workload.ref.kind == "DaemonSet":
            continue
        if not workload.template.host_network or policy not in ("", "ClusterFirst"):
            continue
        asked = _asks_cluster_dns(cluster, workload)
        if asked is None:
            continue
        setting = (
            f"dnsPolicy is {policy or 'ClusterFirst (the default)'} with hostNetwork: the node's resolver is asked"
        )
        yield Problem(
            "its resolver does not know the cluster's names",
            workload.ref,
            (seen(workload.ref, workload.field("dnsPolicy"), policy or None, setting), asked),
            Remedy(
                "Use dnsPolicy ClusterFirstWithHostNet.",
                command=edit_spec(workload, "dnsPolicy", "ClusterFirstWithHostNet"),
            ),
        )


# An option that names the place where the ranks of one program meet.
_MEETING = re.compile(
    r"--(?:dist-init-addr|nccl-init-addr|master[-_]addr|rdzv[-_]endpoint)[= ]+[\"']?([a-z0-9](?:[-a-z0-9.]*[a-z0-9])?)"
)


def _meets_at(workload: Workload, service: Service) -> Evidence | None:
    """What shows that the ranks of a workload meet at one of its own pods by the address of a Service."""
    for container in workload.containers:
        for match in _MEETING.finditer(" ".join(container.words)):
            if match[1].split(".")[0] == service.metadata.name:
                key = "args" if container.raw.get("args") else "command"
                return seen(
                    workload.ref, workload.field(f"{container.field}.{key}"), match[0], f"its ranks meet at {match[1]}"
                )
    return None


def _peers_by_name(cluster: Cluster, workload: Workload, service: Service) -> Evidence | None:
    """What shows that the pods of a workload find each other by a headless Service's names."""
    name = service.metadata.name
    if text(workload.template.spec, "subdomain") == name:
        return seen(workload.ref, workload.field("subdomain"), name, f"its pods have names below {name}")
    for container in workload.containers:
        for variable in cluster.variables(workload, container).values():
            if variable.name in _RENDEZVOUS and name in variable.value.partition(":")[0].split("."):
                setting = f"{variable.name}={variable.value}"
                return seen(variable.object, variable.field, variable.value, setting)
    of_a_pod = re.compile(rf"(^|[^a-z0-9.-])[a-z0-9$(){{}}_-]{{1,128}}\.{re.escape(name)}([.:/\s]|$)", re.I)
    settings = (s for container in workload.containers for s in _settings(cluster, workload, container))
    return next((s for s in settings if of_a_pod.search(str(s.value))), None)


@check(Area.SERVICES, Severity.WARNING, needs=("Service",), own_namespace=True)
def headless_not_ready(cluster: Cluster) -> Problems:
    """The parts of a distributed job can't look each other up before they are ready.

    Looks at headless Services without publishNotReadyAddresses whose pods find each other by its names (the template's
    subdomain, MASTER_ADDR and the like, POD.SERVICE in a command line or a variable) in a job, a model server or a vector
    database over several pods; and at Services with an address of their own at which the ranks of their own pods meet
    (--dist-init-addr, --master-addr, --rdzv-endpoint). With a readiness probe it is a warning: such a job waits for itself;
    without one, where pods are ready as soon as they run, information, or nothing where the Service has an address.

    Why: a pod that is not ready has no name yet. Where readiness waits for the others, and the others wait for the name,
    nobody starts; elsewhere the first look-ups fail and are cached as failures.

    Source: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#a-aaaa-records-1,
    https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/#ServiceSpec
    """
    for service in cluster.services:
        headless = service.spec.cluster_ip == "None"
        if service.spec.publish_not_ready_addresses:
            continue
        for workload in cluster.workloads_of(service):
            if cluster.role(workload) not in _OF_SEVERAL_PODS:
                continue
            waits = any(c.probe("readinessProbe") for c in workload.containers)
            shown = _peers_by_name(cluster, workload, service) if headless else _meets_at(workload, service)
            if shown is None or not (headless or waits):
                continue
            lack = "have no name" if headless else f"can't be reached by {service.ref}"
            rule = "names are given to ready pods only" if headless else "it leads to ready pods only"
            yield Problem(
                f"pods of {workload.ref} {lack} before they are ready",
                service.ref,
                (
                    seen(service.ref, "spec.publishNotReadyAddresses", None, rule),
                    shown,
                ),
                Remedy(
                    "Publish the pods that are not ready.",
                    command=patch(service.ref, {"spec": {"publishNotReadyAddresses": True}}),
                ),
                rests_on=(workload.ref,),
                severity=None if waits else Severity.INFO,
            )
