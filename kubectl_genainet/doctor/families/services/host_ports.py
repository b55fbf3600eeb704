"""Ports of the nodes that pods ask for: one pod of a node has each."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import items, mapping, number, selector_matches, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import edit
from kubectl_genainet.doctor.predicates.replicas import replicas
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity

_SPREAD = ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController", "Rollout")


def _asked(workload: Workload) -> Iterator[tuple[ContainerSpec, int, int]]:
    """(container, index, number) of the ports of a node that a template asks for; with hostNetwork all that it declares."""
    for container in workload.containers:
        for index, port in enumerate(items(container.raw, "ports")):
            asked = number(port, "hostPort")
            if not asked and workload.template.host_network:
                asked = number(port, "containerPort")
            if asked:
                yield container, index, asked


def _nodes_for(cluster: Cluster, workload: Workload) -> int:
    """How many nodes have the labels that a template asks for, and may take pods."""
    labels = mapping(workload.template.spec, "nodeSelector")
    return sum(
        1
        for node in cluster.snapshot.of("Node", "")
        if selector_matches({"matchLabels": labels}, node.labels) and not mapping(node.raw, "spec").get("unschedulable")
    )


@check(Area.SERVICES, Severity.ERROR, needs=("Pod",))
def host_port_replicas(cluster: Cluster) -> Problems:
    """More pods ask for a port of the node than there are nodes for them.

    Looks at hostPort of containers (with hostNetwork at every port that they declare) of workloads with several replicas,
    against the nodes that have the labels of nodeSelector and take pods. Manifests without the nodes are not checked. An
    error: the pods beyond the number of nodes stay Pending, and what was to be served by them is not.

    Why: a port of a node, for one protocol, is one pod's. A rolling update that starts a new pod before the old one is gone
    (maxSurge) needs a node more; with as many replicas as nodes it stands still.

    Source: https://kubernetes.io/docs/concepts/configuration/overview/#services,
    https://kubernetes.io/docs/reference/scheduling/config/ (NodePorts)
    """
    for workload in cluster.workloads:
        if workload.ref.kind not in _SPREAD or not cluster.in_scope(workload.namespace):
            continue
        asked, pods = next(_asked(workload), None), replicas(cluster, workload)
        if asked is None or pods < 2:
            continue
        elsewhere = cluster.partial("Node")
        if elsewhere:
            yield NotChecked(str(workload.ref), f"how many nodes it may use: {elsewhere}")
            continue
        container, index, port = asked
        nodes = _nodes_for(cluster, workload)
        if pods <= nodes:
            continue
        field = "containerPort" if workload.template.host_network else "hostPort"
        name = text(items(container.raw, "ports")[index], "name") or str(port)
        yield Problem(
            f"{pods} pods ask for port {port} of their node, and {nodes} nodes may take them",
            workload.ref,
            (
                seen(
                    workload.ref,
                    workload.field(f"{container.field}.ports[{index}].{field}"),
                    port,
                    f"port {name} of container {container.name} is a port of the node",
                ),
                seen(workload.ref, "spec.replicas", pods, f"{pods} pods, each on a node of its own"),
            ),
            Remedy(
                "Put a Service in front instead of the node's port, use a DaemonSet, or ask for fewer pods.",
                command=edit(workload),
            ),
        )
