"""IP exhaustion: addresses, prefixes, pod slots, subnets."""

from __future__ import annotations

import ipaddress

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen, shortened
from kubectl_genainet.doctor.families.addresses.vpc_cni import only_vpc_cni, set_env, vpc_cni_env
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import event_message, event_object, named, number, sh, text
from kubectl_genainet.doctor.predicates.load_balancers import only_on_aws
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity

# Message of a failed sandbox -> what it means. Sources: amazon-vpc-cni-k8s (cmd/routed-eni-cni-plugin, pkg/ipamd),
# containernetworking plugins (plugins/ipam/host-local), cilium (pkg/ipam), calico (libcalico-go/lib/ipam).
_EXHAUSTED = (
    ("InsufficientCidrBlocks", "prefix"),
    ("failed to assign an IP address to container", "address"),
    ("InsufficientFreeAddressesInSubnet", "address"),
    ("no IP addresses available in range set", "address"),
    ("no more IPs available", "address"),
    ("range is full", "address"),
    ("Unable to allocate IP", "address"),
    ("no available IPs", "address"),
    ("failed to allocate for range", "address"),
)


@check(Area.IP_SPACE, Severity.ERROR, needs=("Event",))
def ip_exhausted(cluster: Cluster) -> Problems:
    """Pods cannot start for want of an address.

    Looks at FailedCreatePodSandBox events whose message is that of an IPAM without free addresses (Amazon VPC CNI,
    host-local, Cilium, Calico); one finding a node.

    Why: the subnet (or the node's range) is used up: no new pod starts, also not in a rollout or after a node
    failure. An error: no new pod starts: a rollout or a failed node takes capacity for good.

    Source: https://docs.aws.amazon.com/eks/latest/best-practices/ip-opt.html
    """
    yield from _sandbox_failures(cluster, "address")


@check(Area.IP_SPACE, Severity.ERROR, needs=("Event",), applies=only_vpc_cni)
def prefix_fragmented(cluster: Cluster) -> Problems:
    """A subnet has free addresses, and no free /28 prefix.

    Looks for InsufficientCidrBlocks in the events of pods and nodes.

    Why: prefix delegation needs 16 addresses in a row; in a fragmented subnet there are none, however many are
    free. An error: no new pod starts on nodes that need a prefix.

    Source: https://docs.aws.amazon.com/eks/latest/best-practices/prefix-mode-linux.html
    """
    yield from _sandbox_failures(cluster, "prefix")


def _sandbox_failures(cluster: Cluster, what: str) -> Problems:
    reported_nodes = set()
    for event in cluster.event_objects:
        field, message = event_message(event)
        match = next((kind for phrase, kind in _EXHAUSTED if phrase in message), "")
        if match != what:
            continue
        about = event_object(event)
        pod = cluster.snapshot.pod(about.namespace, about.name) if about.kind == "Pod" else None
        node = (
            pod.spec.node_name if pod else (about.name if about.kind == "Node" else text(event.raw, "source", "host"))
        )
        if node in reported_nodes:
            continue
        reported_nodes.add(node)
        vpc = cluster.cni("Amazon VPC CNI") is not None
        if what == "prefix":
            remedy = Remedy(
                "Reserve room for prefixes in the subnet, or use a fresh one; put in its id for SUBNET and the range for CIDR.",
                command="aws ec2 create-subnet-cidr-reservation --subnet-id SUBNET --cidr CIDR "
                "--reservation-type prefix",
            )
        elif vpc:
            remedy = Remedy(
                "See what the subnets have left; then IPv6, prefix delegation, or custom networking with a "
                "secondary CIDR; put in the id of the cluster's VPC for VPC.",
                command="aws ec2 describe-subnets --query "
                "'Subnets[].[SubnetId,CidrBlock,AvailableIpAddressCount]' --output table\n"
                "aws ec2 associate-vpc-cidr-block --vpc-id VPC --cidr-block 100.64.0.0/16",
            )
        else:
            remedy = Remedy(
                "Give the node a larger range, or fewer pods.",
                command=f"kubectl describe {named('node', node)}" if node else "kubectl describe nodes",
            )
        yield Problem(
            f"no free {what} for pods{f' on node {node}' if node else ''}",
            about,
            (seen(event.ref, field, message, shortened(message)),),
            remedy,
        )


@check(Area.IP_SPACE, Severity.WARNING, needs=("Node", "Pod"))
def pod_cidr_fill(cluster: Cluster) -> Problems:
    """A node's pod range is nearly used up, or smaller than its pod limit.

    Looks at spec.podCIDR of nodes, the pods on the node with an address of their own, and status.allocatable.pods.
    Ranges matter only to CNIs that hand out addresses from them; the Amazon VPC CNI and Calico's own IPAM don't.

    Why: the scheduler goes by allocatable.pods; the range ends before, and pods are stuck without an address. A
    warning: running pods are served; the next ones may not start.

    Source: https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/
    (node-cidr-mask-size)
    """
    if cluster.cni_names & {"Amazon VPC CNI", "Calico"}:
        return
    for node in cluster.nodes:
        cidr = text(node.raw, "spec", "podCIDR")
        try:
            network = ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            continue
        usable = network.num_addresses - 3  # network, broadcast, and the bridge's own
        own = [p for p in cluster.pods_per_node.get(node.name, ()) if not p.pod.spec.host_network]
        allocatable = number(node.raw, "status", "allocatable", "pods")
        if usable > 0 and len(own) >= 0.9 * usable:
            usage = f"{len(own)} of {usable} addresses of {cidr} are used"
        elif allocatable and 0 < usable < allocatable:
            usage = f"{cidr} has {usable} addresses, the node takes {allocatable} pods"
        else:
            continue
        yield Problem(
            usage,
            node.ref,
            (seen(node.ref, "spec.podCIDR", cidr, usage),),
            Remedy(
                "Lower the kubelet's maxPods, or make nodes with a larger range (node-cidr-mask-size).",
                command=f"kubectl describe {named('node', node.name)}",
            ),
        )


@check(Area.IP_SPACE, Severity.WARNING, needs=("Node", "Pod"))
def node_pod_slots(cluster: Cluster) -> Problems:
    """A node's pod slots are nearly used up.

    Looks at the pods on each node against status.allocatable.pods; from 90 %.

    Why: the next pods stay Pending although CPU and GPUs are free; on EC2 mostly because of the ENI limits without
    prefix delegation. A warning: running pods are served; the next ones may not start.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/cni-increase-ip-addresses.html
    """
    for node in cluster.nodes:
        limit, pods = number(node.raw, "status", "allocatable", "pods"), len(cluster.pods_per_node.get(node.name, ()))
        if limit and pods >= 0.9 * limit:
            env = vpc_cni_env(cluster)
            prefix = env.get("ENABLE_PREFIX_DELEGATION", ("false", ""))[0] == "true"
            yield Problem(
                f"{pods} of {limit} pod slots are used",
                node.ref,
                (seen(node.ref, "status.allocatable.pods", limit, f"{pods} pods are on it"),),
                Remedy(
                    "Give nodes 16 addresses at a time (Nitro instances), and raise maxPods.",
                    command=set_env("ENABLE_PREFIX_DELEGATION", "true"),
                )
                if env and not prefix
                else Remedy(
                    "Add nodes, or raise the kubelet's maxPods.", command=f"kubectl describe {named('node', node.name)}"
                ),
            )


@check(Area.IP_SPACE, Severity.WARNING, needs=("Service", "EndpointSlice"))
def ip_family(cluster: Cluster) -> Problems:
    """A Service has an address family for which it has no endpoint.

    Looks at spec.ipFamilies and the addressType of the Service's EndpointSlices with endpoints.

    Why: clients that prefer IPv6 take the AAAA record, are rejected, and fall back slowly or not at all. A warning:
    clients fall back to the other family, late or not at all.

    Source: https://kubernetes.io/docs/concepts/services-networking/dual-stack/
    """
    kinds: dict[tuple[str, str], set[str]] = {}
    for endpoint_slice in cluster.snapshot.endpoint_slices:
        if endpoint_slice.endpoints:
            kinds.setdefault((endpoint_slice.metadata.namespace, endpoint_slice.service), set()).add(
                endpoint_slice.address_type
            )
    for service in cluster.services:
        have = kinds.get((service.metadata.namespace, service.metadata.name), set())
        families = service.spec.ip_families
        missing = [f for f in families if f not in have]
        if have and missing and len(families) > 1:
            index = families.index(missing[0])
            yield Problem(
                f"its {missing[0]} address has no endpoint",
                service.ref,
                (
                    seen(
                        service.ref,
                        f"spec.ipFamilies[{index}]",
                        missing[0],
                        f"endpoints are {', '.join(sorted(have))} only",
                    ),
                ),
                Remedy(
                    "Make it single-stack, or give the pods both families.",
                    command=f"kubectl -n {sh(service.metadata.namespace)} patch {named('service', service.metadata.name)} "
                    "--type=merge "
                    """-p '{"spec":{"ipFamilyPolicy":"SingleStack"}}'""",
                ),
            )


@check(Area.IP_SPACE, Severity.WARNING, needs=("Node",), applies=only_on_aws)
def subnet_free_addresses(cluster: Cluster) -> Problems:
    """A subnet that the cluster uses has few free addresses.

    Looks at Subnet objects of the AWS controllers for Kubernetes
    (status.availableIPAddressCount), where they are installed; fewer than 16 times the nodes is reported. Otherwise
    only the AWS API tells, and the check is listed as not checked with the command that asks it.

    Why: a subnet runs out at the worst time: when a rollout or an autoscaler wants more pods. A warning: running
    pods are served; the next ones may not start.

    Source: https://docs.aws.amazon.com/eks/latest/best-practices/ip-opt.html
    """
    subnets = [s for s in cluster.snapshot.of("Subnet", "ec2.services.k8s.aws") if "status" in s.raw]
    if not subnets:
        yield NotChecked(
            "",
            "free addresses of subnets are known to the AWS API only: aws ec2 describe-subnets --query "
            "'Subnets[].[SubnetId,AvailableIpAddressCount]'",
        )
    for subnet in subnets:
        free = number(subnet.raw, "status", "availableIPAddressCount", default=-1)
        if 0 <= free < 16 * max(1, len(cluster.nodes)):
            yield Problem(
                f"{free} addresses are left for {len(cluster.nodes)} nodes",
                subnet.ref,
                (seen(subnet.ref, "status.availableIPAddressCount", free, f"{text(subnet.raw, 'spec', 'cidrBlock')}"),),
                Remedy(
                    "Add a secondary CIDR and custom networking, or prefix delegation.",
                    command="aws ec2 associate-vpc-cidr-block --vpc-id VPC --cidr-block 100.64.0.0/16",
                ),
            )
