"""EFA and NCCL."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.nodes.placement import distributed_jobs
from kubectl_genainet.doctor.families.nodes.unplaced import jobs_without_nodes, types_asked
from kubectl_genainet.doctor.objects.cluster import INSTANCE_TYPE, Cluster
from kubectl_genainet.doctor.objects.instance_types import EFA_TYPES
from kubectl_genainet.doctor.objects.podspec import EFA_RESOURCE, ContainerSpec
from kubectl_genainet.doctor.objects.raw import items, kubectl, mapping, number, sh, text
from kubectl_genainet.doctor.objects.variables import Variable
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.devices import instance_types, tells_its_devices
from kubectl_genainet.doctor.predicates.edits import edit, edit_resources
from kubectl_genainet.doctor.predicates.load_balancers import only_on_aws
from kubectl_genainet.model.finding import Evidence, NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.units import quantity


def _efa_nodes(cluster: Cluster) -> list[KubeObject]:
    return [n for n in cluster.nodes if n.labels.get(INSTANCE_TYPE, "") in EFA_TYPES and tells_its_devices(n)]


def _plugin(cluster: Cluster) -> KubeObject | None:
    return next((o for o in cluster.snapshot.of("DaemonSet", "apps") if "efa" in o.name and "plugin" in o.name), None)


@check(Area.EFA, Severity.WARNING, needs=("Node", "Pod"), applies=only_on_aws)
def efa_advertised(cluster: Cluster) -> Problems:
    """A node with EFA and accelerators does not offer it to pods.

    Looks at nodes of EFA instance types on which a distributed job runs: does status.allocatable have
    vpc.amazonaws.com/efa?

    Why: NCCL falls back to TCP over the ordinary interface: a tenth of the bandwidth, and nobody is told. A
    warning: the job runs, on TCP.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/node-efa.html
    """
    used = {p.node for _, pods in distributed_jobs(cluster) for p in pods}
    for node in _efa_nodes(cluster):
        if node.name in used and not quantity(mapping(node.raw, "status", "allocatable").get(EFA_RESOURCE, 0)):
            kind = node.labels[INSTANCE_TYPE]
            yield Problem(
                f"{kind} has EFA, and the node offers none",
                node.ref,
                (seen(node.ref, f"status.allocatable[{EFA_RESOURCE}]", None, f"{kind} supports EFA"),),
                Remedy(
                    "Make the node group with EFA interfaces (eksctl: efaEnabled, Terraform: enable_efa_support), and "
                    "install the device plugin.",
                    command="helm upgrade -i aws-efa-k8s-device-plugin eks/aws-efa-k8s-device-plugin -n kube-system",
                ),
            )


@check(Area.EFA, Severity.ERROR, needs=("DaemonSet", "Pod", "Node"), applies=only_on_aws)
def efa_plugin(cluster: Cluster) -> Problems:
    """The EFA device plugin is missing or not ready.

    Looks for DaemonSet aws-efa-k8s-device-plugin and its status.numberReady where pods request
    vpc.amazonaws.com/efa.

    Why: without it no node advertises EFA and the pods stay Pending; not ready, they do so on the new nodes. An
    error: the pods that ask for EFA never start.

    Source: https://github.com/aws/eks-charts/tree/master/stable/aws-efa-k8s-device-plugin
    """
    wanting = next((w for w in cluster.workloads if cluster.in_scope(w.namespace) and w.template.efas), None)
    if wanting is None:
        return
    plugin = _plugin(cluster)
    container = next(c for c in wanting.containers if c.amount(EFA_RESOURCE))
    request = seen(
        wanting.ref,
        wanting.field(f"{container.field}.resources.limits[{EFA_RESOURCE}]"),
        container.requests.get(EFA_RESOURCE),
        f"{wanting.ref} requests EFA",
    )
    if plugin is None:
        if any(quantity(mapping(n.raw, "status", "allocatable").get(EFA_RESOURCE, 0)) for n in cluster.nodes):
            return
        if elsewhere := cluster.partial("DaemonSet"):
            yield NotChecked("", elsewhere)
            return
        yield Problem(
            "pods request EFA, and there is no device plugin",
            wanting.ref,
            (request,),
            Remedy(
                "Install it.",
                command="helm upgrade -i aws-efa-k8s-device-plugin eks/aws-efa-k8s-device-plugin -n kube-system",
            ),
        )
        return
    old = cluster.extent.old_status(plugin)
    if old:
        yield NotChecked(str(plugin.ref), old)
        return
    wanted, ready = number(plugin.raw, "status", "desiredNumberScheduled"), number(plugin.raw, "status", "numberReady")
    if ready < wanted or not wanted:
        yield Problem(
            f"the EFA device plugin is ready on {ready} of {wanted} nodes",
            plugin.ref,
            (seen(plugin.ref, "status.numberReady", ready, f"{ready} ready of {wanted}"), request),
            Remedy("See why; mostly a taint it does not tolerate.", command=kubectl(plugin.ref, "describe")),
        )


_VERSION = re.compile(r":v?([0-9]+)\.([0-9]+)\.([0-9]+)")
_KNOWS_P6 = (0, 5, 10)


def _with_nvlink_controllers(cluster: Cluster, plugin: KubeObject) -> Evidence | None:
    """What shows that the plugin runs on p6-b200 nodes: a node, or in manifests the types that it, or a workload, asks for."""
    for node in cluster.nodes:
        if (kind := node.labels.get(INSTANCE_TYPE, "")).startswith("p6-b200"):
            return seen(node.ref, f"metadata.labels[{INSTANCE_TYPE}]", kind, "a p6-b200 node")
    for workload in cluster.workloads if cluster.partial("Node") else ():
        asks = workload.ref == plugin.ref or workload.template.efas
        kinds = [t for t in instance_types(workload) if t.removeprefix("ml.").startswith("p6-b200")] if asks else []
        if kinds:
            return seen(
                workload.ref, workload.field("nodeSelector"), kinds[0], f"{workload.ref} is for {kinds[0]} nodes"
            )
    return None


@check(Area.EFA, Severity.ERROR, needs=("DaemonSet",), applies=only_on_aws)
def efa_plugin_version(cluster: Cluster) -> Problems:
    """The EFA device plugin takes NVLink controllers for EFA devices.

    Looks at the version in the plugin's image where there are p6-b200 nodes: before 0.5.10 it counts their two ibp*
    devices. An error: jobs that get one of them fail. A warning in manifests whose plugin, or whose pods with EFA, are for
    such nodes: whether there are any is not seen.

    Why: the node offers ten devices instead of eight. A pod with an NVLink controller for an EFA device has NCCL fail at
    its first collective, or time out.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/node-efa.html
    """
    plugin = _plugin(cluster)
    shown = _with_nvlink_controllers(cluster, plugin) if plugin is not None else None
    if plugin is None:
        return
    if shown is None:
        if elsewhere := cluster.partial("Node"):
            yield NotChecked(str(plugin.ref), f"whether there are p6-b200 nodes is not known: {elsewhere}")
        return
    for index, container in enumerate(items(plugin.raw, "spec", "template", "spec", "containers")):
        image = text(container, "image")
        match = _VERSION.search(image)
        if match is not None and tuple(map(int, match.groups())) < _KNOWS_P6:
            field = f"spec.template.spec.containers[{index}].image"
            yield Problem(
                f"version {'.'.join(match.groups())} takes NVLink controllers for EFA devices",
                plugin.ref,
                (
                    seen(plugin.ref, field, image, "before 0.5.10"),
                    shown,
                ),
                Remedy(
                    "Install 0.5.10 or later.",
                    command="helm upgrade -i aws-efa-k8s-device-plugin eks/aws-efa-k8s-device-plugin -n kube-system",
                ),
                severity=Severity.WARNING if cluster.partial("Node") else None,
            )


def _no_efa_nodes(cluster: Cluster) -> str:
    for_efa = any(t in EFA_TYPES for w in jobs_without_nodes(cluster) for t, _ in types_asked(cluster, w))
    return "" if for_efa else only_on_aws(cluster)


@check(Area.EFA, Severity.WARNING, needs=("Pod",), applies=_no_efa_nodes)
def efa_requested(cluster: Cluster) -> Problems:
    """A distributed job on EFA nodes does not request EFA.

    Looks at jobs with accelerators on several nodes that offer vpc.amazonaws.com/efa, and at their requests. Of a job without
    nodes, as in manifests, at the instance types that its template, or the NodePool that it names, asks for: information
    where neither a device plugin nor another request shows that nodes are made with EFA interfaces.

    Why: without the request the device is not in the container: NCCL talks TCP through the kernel, at a tenth of
    the bandwidth. A warning: the job runs, on TCP.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/node-efa.html
    """
    for workload, pods in distributed_jobs(cluster):
        if all(cluster.node(p.node) is None for p in pods):
            yield NotChecked(str(workload.ref), f"its nodes are not here: {cluster.partial('Node') or 'they are gone'}")
        offering = [
            p.node
            for p in pods
            if (n := cluster.node(p.node)) and quantity(mapping(n.raw, "status", "allocatable").get(EFA_RESOURCE, 0))
        ]
        if offering and not workload.template.efas:
            container = next((c for c in workload.containers if c.amount("nvidia.com/", "aws.amazon.com/")), None)
            index = container.field if container else "containers[0]"
            yield Problem(
                f"it runs on {len(set(offering))} nodes with EFA and requests none",
                workload.ref,
                (
                    seen(
                        workload.ref,
                        workload.field(f"{index}.resources.limits[{EFA_RESOURCE}]"),
                        None,
                        f"{offering[0]} offers {EFA_RESOURCE}",
                    ),
                ),
                Remedy(
                    "Request the node's EFA devices and huge pages.",
                    command=_request(workload, container, {EFA_RESOURCE: "1", **_HUGE_PAGES})
                    if container
                    else edit(workload),
                ),
            )
    yield from _for_types_with_efa(cluster)


def _for_types_with_efa(cluster: Cluster) -> Problems:
    in_use = _plugin(cluster) is not None or any(w.template.efas for w in cluster.workloads)
    for workload in jobs_without_nodes(cluster):
        asked = types_asked(cluster, workload)
        container = next((c for c in workload.containers if c.accelerators), None)
        if workload.template.efas or container is None:
            continue
        if not asked or any(kind not in EFA_TYPES for kind, _ in asked):
            yield NotChecked(str(workload.ref), "it has no node yet, and nothing says that its nodes will have EFA")
            continue
        field = workload.field(f"{container.field}.resources.limits[{EFA_RESOURCE}]")
        yield Problem(
            f"it is for nodes with EFA ({asked[0][0]}) and requests none",
            workload.ref,
            (seen(workload.ref, field, None, f"{asked[0][0]} supports EFA"), asked[0][1]),
            Remedy(
                "Make the nodes with EFA interfaces, and request them with huge pages.",
                command=_request(workload, container, {EFA_RESOURCE: "1", **_HUGE_PAGES}),
            ),
            severity=None if in_use else Severity.INFO,
        )


_HUGE_PAGES = {"hugepages-2Mi": "5120Mi"}
_HUGE_PAGES_VARIABLE = "FI_EFA_USE_HUGE_PAGE"


def _request(workload: Workload, container: ContainerSpec, amounts: dict[str, str]) -> str:
    """Huge pages are granted only beside a request for memory or CPU."""
    beside = {} if container.amount("memory", "cpu") else {"memory": "8Gi"}
    return edit_resources(workload, container, limits=amounts, requests={**amounts, **beside})


@check(Area.EFA, Severity.WARNING, needs=("Pod",), applies=only_on_aws)
def efa_hugepages(cluster: Cluster) -> Problems:
    """A pod with EFA requests no huge pages.

    Looks at containers with GPUs that request vpc.amazonaws.com/efa and not hugepages-2Mi. One that sets
    FI_EFA_USE_HUGE_PAGE to 0 asks for none. Many images set it in their Dockerfile, which no object shows: a warning where
    an object sets it to 1, else information.

    Why: libfabric's EFA provider allocates its buffers from 2 MiB pages; without them it fails to open the device
    or falls back to small pages. A warning: the job may run with small pages.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/node-efa.html,
    https://ofiwg.github.io/libfabric/main/man/fi_efa.7.html (FI_EFA_USE_HUGE_PAGE)
    """
    for workload in cluster.workloads:
        for container in workload.containers if cluster.in_scope(workload.namespace) else ():
            gpus = container.amount("nvidia.com/gpu")
            if gpus and container.amount(EFA_RESOURCE) and not container.amount("hugepages-2Mi"):
                told = cluster.variables(workload, container).get(_HUGE_PAGES_VARIABLE)
                if told is not None and told.value.lower() in ("0", "false", "no", "off"):
                    continue
                yield Problem(
                    "it requests EFA without huge pages",
                    workload.ref,
                    (
                        seen(
                            workload.ref,
                            workload.field(f"{container.field}.resources.limits[hugepages-2Mi]"),
                            None,
                            f"{container.name} requests {EFA_RESOURCE}",
                        ),
                        _huge_pages_wanted(workload, container, told),
                    ),
                    Remedy(
                        "Request them; the nodes must reserve them at start (vm.nr_hugepages=5128).",
                        command=_request(workload, container, _HUGE_PAGES),
                    ),
                    severity=Severity.INFO if told is None else None,
                )


def _huge_pages_wanted(workload: Workload, container: ContainerSpec, told: Variable | None) -> Evidence:
    """Whether libfabric asks for huge pages: it does unless it is told otherwise."""
    if told is not None:
        return seen(told.object, told.field, told.value, f"{told.name}={told.value}")
    unseen = f"{_HUGE_PAGES_VARIABLE} is not set here; whether the image sets it is not seen"
    return seen(workload.ref, workload.field(f"{container.field}.env"), None, unseen)


@check(Area.EFA, Severity.INFO, needs=("Pod",), applies=only_on_aws)
def efa_invisible(cluster: Cluster) -> Problems:
    """A pod's EFA traffic cannot be seen.

    Looks at requests for vpc.amazonaws.com/efa.

    Why: EFA bypasses the kernel: no probe, no NetworkPolicy and no flow log of the node sees NCCL's packets. Only
    the device's counters and the security group do. Information: nothing is wrong; it says what can't be seen.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa.html
    """
    for workload in cluster.workloads:
        for container in workload.containers if cluster.in_scope(workload.namespace) else ():
            if container.amount(EFA_RESOURCE):
                field = workload.field(f"{container.field}.resources.limits[{EFA_RESOURCE}]")
                yield Problem(
                    "its EFA traffic bypasses the kernel and cannot be traced",
                    workload.ref,
                    (
                        seen(
                            workload.ref, field, container.requests.get(EFA_RESOURCE), f"{container.name} requests EFA"
                        ),
                    ),
                    Remedy(
                        "Nothing to change. Read the device's counters.",
                        command="rdma -p statistic show   # on the node",
                    ),
                )


@check(Area.EFA, Severity.ERROR, needs=("Pod",), applies=only_on_aws)
def efa_security_group(cluster: Cluster) -> Problems:
    """The security group of EFA nodes does not admit its own members.

    Looks at SecurityGroup objects of the AWS controllers for Kubernetes that are named or tagged for EFA: ingress and
    egress rules for all protocols from and to the group itself. Elsewhere only the AWS API tells, and the check is
    listed as not checked with the command that asks it; only where pods request EFA.

    Why: EFA's OS-bypass traffic passes only between members of a group that admits all traffic from and to itself;
    a rule by CIDR is not enough. NCCL then hangs at its start. An error: NCCL hangs or stops at its first message.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-start.html#efa-start-security
    """
    if not any(w.template.efas for w in cluster.workloads if cluster.in_scope(w.namespace)):
        return
    groups = [
        g
        for g in cluster.snapshot.of("SecurityGroup", "ec2.services.k8s.aws")
        if "efa" in g.name.lower() or any("efa" in text(t, "value").lower() for t in items(g.raw, "spec", "tags"))
    ]
    if not groups:
        yield NotChecked(
            "",
            "rules of security groups are known to the AWS API only: aws ec2 describe-security-groups "
            "--group-ids GROUP "
            "--query 'SecurityGroups[].[IpPermissions,IpPermissionsEgress]'",
        )
    for group in groups:
        own = {text(group.raw, "status", "id"), text(group.raw, "spec", "name"), group.name} - {""}
        for direction in ("ingressRules", "egressRules"):
            itself = any(
                text(rule, "ipProtocol") == "-1"
                and any(
                    {text(p, "groupID"), text(p, "groupRef", "from", "name"), text(p, "groupName")} & own
                    for p in items(rule, "userIDGroupPairs")
                )
                for rule in items(group.raw, "spec", direction)
            )
            if not itself:
                way = "authorize-security-group-" + ("ingress" if direction == "ingressRules" else "egress")
                name = text(group.raw, "status", "id") or "GROUP"
                permissions = f"IpProtocol=-1,UserIdGroupPairs=[{{GroupId={name}}}]"
                yield Problem(
                    f"{direction} do not admit the group itself",
                    group.ref,
                    (seen(group.ref, f"spec.{direction}", None, "no rule for all protocols with the group itself"),),
                    Remedy(
                        "Admit all traffic between its members.",
                        command=f"aws ec2 {way} --group-id {sh(name)} --ip-permissions {sh(permissions)}",
                    ),
                )
