"""Placement groups and zones."""

from __future__ import annotations

from collections import Counter, defaultdict

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived, seen
from kubectl_genainet.doctor.families.nodes.unplaced import (
    jobs_without_nodes,
    kept_together,
    node_classes,
    spreads,
    zones_are_racks,
)
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.installed import ZONE
from kubectl_genainet.doctor.objects.raw import items, mapping, patch, sh, text
from kubectl_genainet.doctor.objects.workloads import LivePod, Workload
from kubectl_genainet.doctor.predicates.edits import edit, edit_spec
from kubectl_genainet.model.finding import Evidence, NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject

# EC2's network topology: nodes with the same layer-3 value share the lowest network node (a cluster placement group's
# instances do). Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/how-ec2-instance-topology-works.html
LAYERS = (
    "topology.k8s.aws/network-node-layer-1",
    "topology.k8s.aws/network-node-layer-2",
    "topology.k8s.aws/network-node-layer-3",
)
GROUP_LABELS = (
    "topology.k8s.aws/placement-group",
    "placement-group",
    "node.kubernetes.io/placement-group",
    "cloud.google.com/gke-placement-group",
    "karpenter.k8s.aws/placement-group",
)


def distributed_jobs(cluster: Cluster) -> list[tuple[Workload, list[LivePod]]]:
    """Jobs whose pods with accelerators run on more than one node: (a workload of the job, its pods).

    Pods belong to one job by the job labels of Kubeflow, LeaderWorkerSet, JobSet, Ray and Job, or by their workload;
    Deployments and DaemonSets are not jobs.
    """
    groups: dict[tuple[str, str], list[tuple[Workload, LivePod]]] = defaultdict(list)
    for workload in cluster.workloads:
        if not cluster.in_scope(workload.namespace) or not workload.template.accelerated:
            continue
        if workload.ref.kind in ("Deployment", "DaemonSet", "ReplicaSet"):
            continue
        for live in workload.pods:
            if live.node:
                groups[(workload.namespace, workload.job)].append((workload, live))
    return [
        (members[0][0], [p for _, p in members]) for members in groups.values() if len({p.node for _, p in members}) > 1
    ]


def _group_of(cluster: Cluster, node: str) -> tuple[str, str] | None:
    """(label, value) that tells a node's common placement; None where neither a label does nor what made the node."""
    obj = cluster.node(node)
    for label in (*GROUP_LABELS, LAYERS[2]):
        if obj is not None and obj.labels.get(label):
            return label, obj.labels[label]
    return _group_of_maker(cluster, obj) if obj is not None else None


NODE_CLASS, LAUNCH_TEMPLATE = "karpenter.k8s.aws/ec2nodeclass", "eks.amazonaws.com/sourceLaunchTemplateId"


def _group_of_maker(cluster: Cluster, node: KubeObject) -> tuple[str, str] | None:
    """(label of the node, placement group) by Karpenter's EC2NodeClass, or by an EC2 LaunchTemplate that is an object."""
    for made in cluster.snapshot.of("EC2NodeClass"):
        group = _group_of_class(made)
        if group and node.labels.get(NODE_CLASS) == made.name:
            return NODE_CLASS, group
    for made in cluster.snapshot.of("LaunchTemplate"):
        group = text(made.raw, "spec", "data", "placement", "groupName")
        known = (text(made.raw, "status", "id"), text(made.raw, "status", "launchTemplateID"))
        if group and node.labels.get(LAUNCH_TEMPLATE) in known:
            return LAUNCH_TEMPLATE, group
    return None


def _group_of_class(made: KubeObject) -> str:
    selected = mapping(made.raw, "spec", "placementGroupSelector") or mapping(made.raw, "spec", "placementGroup")
    return text(selected, "name") or text(selected, "id")


def _reserved(made: KubeObject) -> bool:
    """Whether a class's instances come from a capacity reservation, which may be in a placement group."""
    return bool(items(made.raw, "spec", "capacityReservationSelectorTerms"))


_SELECT_GROUP = "Make a cluster placement group, and select it in the EC2NodeClass (placementGroupSelector)."


def _create_group(workload: Workload) -> str:
    return f"aws ec2 create-placement-group --group-name {sh(workload.name)} --strategy cluster"


def _made_without_group(cluster: Cluster, node: str) -> Evidence | None:
    """What shows that a node is in no placement group: the EC2NodeClass that it is made by names none. An instance of a
    capacity reservation may be in the reservation's."""
    obj = cluster.node(node)
    for made in cluster.snapshot.of("EC2NodeClass") if obj is not None else ():
        if obj is not None and obj.labels.get(NODE_CLASS) == made.name and not _reserved(made):
            return seen(made.ref, "spec.placementGroupSelector", None, f"it makes {node} in no placement group")
    return None


_RACKS = "its nodes are CoreWeave's, where a zone may be a rack of one fabric"


@check(Area.PLACEMENT, Severity.WARNING, needs=("Pod",))
def training_zones(cluster: Cluster) -> Problems:
    """A distributed job is spread over zones.

    Looks at the zones of the nodes that a job's pods with accelerators run on. Of a job without nodes, as in manifests, at its
    template: topology spread constraints, and anti-affinity between its own pods, by zone; information where the scheduler
    only prefers that. One that nothing keeps in a zone (node selector, affinity, an exclusive or required topology of
    JobSet, LeaderWorkerSet, Kueue or Volcano) is not checked, nor is one on nodes of CoreWeave, where a zone may be a rack.

    Why: every all-reduce waits for the slowest link; between zones that is ten times the latency, a fraction of the
    bandwidth, and billed. A warning: the job runs, slowly.

    Source: https://docs.aws.amazon.com/eks/latest/best-practices/aiml-networking.html
    """
    for workload, pods in distributed_jobs(cluster):
        zones = Counter(cluster.zone(p.node) for p in pods)
        if "" in zones:
            yield NotChecked(str(workload.ref), "the nodes of its pods have no zone label")
        elif len(zones) > 1 and zones_are_racks(cluster, workload):
            yield NotChecked(str(workload.ref), _RACKS)
        elif len(zones) > 1:
            common = zones.most_common(1)[0][0]
            selector = {**mapping(workload.template.spec, "nodeSelector"), ZONE: common}
            yield Problem(
                f"its {len(pods)} pods are spread over {', '.join(sorted(zones))}",
                workload.ref,
                tuple(
                    seen(p.ref, "spec.nodeName", p.node, f"{p.ref.name} in {cluster.zone(p.node)}") for p in pods[:6]
                ),
                Remedy("Keep the job in one zone.", command=edit_spec(workload, "nodeSelector", selector)),
            )
    yield from _zones_of_templates(cluster)


def _zones_of_templates(cluster: Cluster) -> Problems:
    for workload in jobs_without_nodes(cluster):
        terms = list(spreads(cluster, workload))
        if terms and zones_are_racks(cluster, workload):
            yield NotChecked(str(workload.ref), _RACKS)
        elif terms:
            forced = any(term.forced for term in terms)
            yield Problem(
                f"its template {'spreads' if forced else 'prefers to spread'} its pods over zones",
                workload.ref,
                tuple(term.evidence for term in terms),
                Remedy(
                    "Take the term out, and keep the job in one zone: affinity between its pods, or a zone in its nodeSelector.",
                    command=edit(workload),
                ),
                severity=None if forced else Severity.INFO,
            )
        elif not kept_together(cluster, workload):
            yield NotChecked(
                str(workload.ref), "it has no node yet, and nothing in its template keeps its pods in one zone"
            )


@check(Area.PLACEMENT, Severity.WARNING, needs=("Pod",))
def training_placement(cluster: Cluster) -> Problems:
    """The nodes of a distributed job do not share a placement.

    Looks at the nodes' labels: a placement group, or EC2's network topology (topology.k8s.aws/network-node-layer-3); else
    at the placement group of Karpenter's EC2NodeClass (placementGroupSelector; without one and without a capacity
    reservation its nodes are in none) or of the launch template (an object of ACK) that the node is made by. Nodes of which
    none of these tells are listed as not checked. Of a job without nodes, as in manifests, at the EC2NodeClass of the NodePool
    that its template names.

    Why: instances of one cluster placement group are close in the network: full bandwidth for a single flow, lowest
    latency. Elsewhere NCCL pays for every hop. A warning: the job runs, slower than it could.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/placement-strategies.html#placement-groups-cluster
    """
    for workload, pods in distributed_jobs(cluster):
        groups = {p.node: _group_of(cluster, p.node) for p in pods}
        alone = [_made_without_group(cluster, name) for name, group in sorted(groups.items()) if group is None]
        if alone and all(alone):
            yield Problem(
                "its nodes are in no common placement group",
                workload.ref,
                tuple(evidence for evidence in alone if evidence is not None)[:6],
                Remedy(_SELECT_GROUP, command=_create_group(workload)),
            )
            continue
        if alone:
            yield NotChecked(
                str(workload.ref),
                "no label of its nodes tells the placement group: aws ec2 describe-instances "
                "--query 'Reservations[].Instances[].[InstanceId,Placement.GroupName]'",
            )
            continue
        values = {g for g in groups.values() if g is not None}
        if len(values) > 1:
            yield Problem(
                f"its pods run in {len(values)} placements",
                workload.ref,
                tuple(
                    derived(node.ref, f"metadata.labels[{g[0]}]", g[1], f"{name}: {g[1]}")
                    for name, g in sorted(groups.items())
                    if g is not None and (node := cluster.node(name)) is not None
                ),
                Remedy(
                    "Make a cluster placement group, name it in the node group's launch template, and use one "
                    "node group "
                    "for the job.",
                    command=_create_group(workload),
                ),
            )
    yield from _placements_of_templates(cluster)


def _placements_of_templates(cluster: Cluster) -> Problems:
    for workload in jobs_without_nodes(cluster):
        classes = node_classes(cluster, workload)
        alone = [c for c in classes if not _group_of_class(c) and not _reserved(c)]
        if classes and len(alone) == len(classes):
            yield Problem(
                "its nodes will be made in no placement group",
                workload.ref,
                tuple(
                    seen(c.ref, "spec.placementGroupSelector", None, "it makes nodes in no placement group")
                    for c in alone
                ),
                Remedy(_SELECT_GROUP, command=_create_group(workload)),
            )
        elif not classes:
            yield NotChecked(
                str(workload.ref), "it has no node yet, and its template names no EC2NodeClass that is here"
            )


@check(Area.PLACEMENT, Severity.INFO, needs=("Pod", "Node", "Service", "EndpointSlice"))
def cross_zone_calls(cluster: Cluster) -> Problems:
    """Calls between GenAI workloads cross zones.

    Looks at the zones of the callers' pods and of the Service's ready endpoints, where the Service has neither
    trafficDistribution nor the annotation service.kubernetes.io/topology-mode.

    Why: kube-proxy chooses any endpoint; a call to another zone costs about a millisecond each way and is billed.
    Information: calls are answered, a little later, and billed.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#traffic-distribution
    """
    objects = {(o.namespace, o.name): o for o in cluster.snapshot.of("Service", "")}
    for call in cluster.genai_calls:
        service, port = call.service, call.service_port
        if service is None or port is None:
            continue
        obj = objects.get((service.metadata.namespace, service.metadata.name))
        if (
            obj is None
            or text(obj.raw, "spec", "trafficDistribution")
            or any(
                k in service.metadata.annotations
                for k in ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")
            )
        ):
            continue
        theirs = {cluster.zone(b.node) for b in cluster.snapshot.backends(service, port) if b.ready and b.node} - {""}
        mine = {cluster.zone(n) for n in call.client.nodes} - {""}
        if mine and theirs and mine != theirs:
            far = ", ".join(sorted(theirs - mine or theirs))
            title = f"{call.client.ref} in {', '.join(sorted(mine))} is sent to endpoints in {far}"
        elif len(mine) > 1 and len(theirs) > 1:
            title = f"{call.client.ref} is sent to endpoints of any of {len(theirs)} zones"
        else:
            continue
        yield Problem(
            title,
            service.ref,
            (
                seen(service.ref, "spec.trafficDistribution", None, f"endpoints in {', '.join(sorted(theirs))}"),
                call.evidence,
            ),
            Remedy(
                "Prefer near endpoints.",
                command=patch(service.ref, {"spec": {"trafficDistribution": "PreferClose"}}),
            ),
        )
