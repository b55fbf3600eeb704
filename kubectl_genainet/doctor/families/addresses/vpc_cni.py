"""The Amazon VPC CNI: prefix delegation, warm pools, custom networking, IPv6."""

from __future__ import annotations

from collections import Counter

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived, seen
from kubectl_genainet.doctor.objects.cluster import INSTANCE_TYPE, Cluster
from kubectl_genainet.doctor.objects.instance_types import max_pods
from kubectl_genainet.doctor.objects.platform import container_env
from kubectl_genainet.doctor.objects.raw import number, q, sh
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.units import whole_number


def vpc_cni_env(cluster: Cluster) -> dict[str, tuple[str, str]]:
    cni = cluster.cni("Amazon VPC CNI")
    return container_env(cni.daemonset, "aws-node") if cni else {}


def only_vpc_cni(cluster: Cluster) -> str:
    return "" if cluster.cni("Amazon VPC CNI") else "the Amazon VPC CNI is not installed"


def set_env(name: str, value: str) -> str:
    return f"kubectl -n kube-system set env daemonset/aws-node {sh(name)}={sh(value)}"


@check(Area.IP_SPACE, Severity.ERROR, needs=("Node", "DaemonSet"), applies=only_vpc_cni)
def max_pods_eni(cluster: Cluster) -> Problems:
    """A node takes more pods than its network interfaces have addresses for.

    Looks at status.allocatable.pods, the instance type's interfaces and addresses, and the VPC CNI's settings (prefix
    delegation, custom networking, which leaves the first interface to the node).

    Why: the scheduler fills the node up to maxPods; the pods beyond the limit are stuck in ContainerCreating. An
    error: the pods beyond the limit never start.

    Source: https://github.com/awslabs/amazon-eks-ami (eni-max-pods.txt),
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/AvailableIpPerENI.html
    """
    env = vpc_cni_env(cluster)
    if env.get("ENABLE_PREFIX_DELEGATION", ("", ""))[0] == "true" or env.get("ENABLE_IPv6", ("", ""))[0] == "true":
        return
    custom = env.get("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", ("", ""))[0] == "true"
    unknown: Counter[str] = Counter()
    for node in cluster.nodes:
        kind = node.labels.get(INSTANCE_TYPE, "")
        limit, allocatable = max_pods(kind, custom), number(node.raw, "status", "allocatable", "pods")
        if limit is None:
            if kind:
                unknown[kind] += 1
        elif allocatable > limit:
            yield Problem(
                f"it takes {allocatable} pods; {kind} has addresses for {limit}",
                node.ref,
                (
                    seen(node.ref, "status.allocatable.pods", allocatable, f"maxPods is {allocatable}"),
                    derived(
                        node.ref,
                        f"metadata.labels[{INSTANCE_TYPE}]",
                        kind,
                        f"{kind} has addresses for {limit} pods" + (" with custom networking" if custom else ""),
                    ),
                ),
                Remedy(
                    "Switch prefix delegation on, or lower the kubelet's maxPods.",
                    command=set_env("ENABLE_PREFIX_DELEGATION", "true"),
                ),
            )
    for kind, count in sorted(unknown.items()):
        yield NotChecked("", f"the ENI limits of {kind} ({count} nodes) are not in the table")


@check(Area.IP_SPACE, Severity.WARNING, needs=("DaemonSet", "Node"), applies=only_vpc_cni)
def warm_targets(cluster: Cluster) -> Problems:
    """The VPC CNI's warm pool does not fit the cluster.

    Looks at WARM_IP_TARGET, MINIMUM_IP_TARGET, WARM_PREFIX_TARGET and WARM_ENI_TARGET of aws-node:
    WARM_IP_TARGET without MINIMUM_IP_TARGET on 50 nodes or more, a warm pool of nothing, and several spare
    interfaces.

    Why: a small WARM_IP_TARGET calls the EC2 API for every few pods; under churn the calls are throttled, and pods
    wait for addresses. Several spare interfaces a node eat the subnet. A warning: pods start late under churn.

    Source: https://github.com/aws/amazon-vpc-cni-k8s/blob/master/docs/eni-and-ip-target.md
    """
    cni = cluster.cni("Amazon VPC CNI")
    env = vpc_cni_env(cluster)
    if cni is None:
        return
    warm_ip, ip_field = env.get("WARM_IP_TARGET", ("", ""))
    if warm_ip and "MINIMUM_IP_TARGET" not in env and len(cluster.nodes) >= 50:
        yield Problem(
            f"WARM_IP_TARGET={warm_ip} without MINIMUM_IP_TARGET on {len(cluster.nodes)} nodes",
            cni.daemonset.ref,
            (seen(cni.daemonset.ref, ip_field, warm_ip, "every few pods cost a call to the EC2 API"),),
            Remedy(
                "Keep as many addresses at hand as a node usually has pods.",
                command=set_env("MINIMUM_IP_TARGET", "30"),
            ),
        )
    prefix = env.get("ENABLE_PREFIX_DELEGATION", ("false", ""))[0] == "true"
    for name, zero_is_bad in (("WARM_PREFIX_TARGET", prefix), ("WARM_ENI_TARGET", not prefix and not warm_ip)):
        value, field = env.get(name, ("", ""))
        if value == "0" and zero_is_bad:
            yield Problem(
                f"{name}=0: no address is at hand when a pod starts",
                cni.daemonset.ref,
                (seen(cni.daemonset.ref, field, value, "each pod waits for the EC2 API"),),
                Remedy("Keep one.", command=set_env(name, "1")),
            )
    warm_eni, eni_field = env.get("WARM_ENI_TARGET", ("", ""))
    if (whole_number(warm_eni) or 0) > 1 and not prefix and not warm_ip:
        yield Problem(
            f"WARM_ENI_TARGET={warm_eni}: each node holds {warm_eni} spare interfaces with all their addresses",
            cni.daemonset.ref,
            (seen(cni.daemonset.ref, eni_field, warm_eni, "spare addresses count against the subnet"),),
            Remedy(
                "Use WARM_IP_TARGET and MINIMUM_IP_TARGET, or prefix delegation.",
                command=set_env("WARM_ENI_TARGET", "1"),
            ),
        )


@check(Area.IP_SPACE, Severity.ERROR, needs=("DaemonSet", "Node", "ENIConfig"), applies=only_vpc_cni)
def eniconfig(cluster: Cluster) -> Problems:
    """Custom networking is on, and a node has no ENIConfig.

    Looks at AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG, ENI_CONFIG_LABEL_DEF (or ENI_CONFIG_ANNOTATION_DEF) of aws-node, the
    nodes' labels and the ENIConfigs.

    Why: without an ENIConfig of that name (mostly the zone's) the node's pods get no address. An error: no pod of
    the node gets an address.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/cni-custom-network-tutorial.html
    """
    env = vpc_cni_env(cluster)
    if env.get("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", ("", ""))[0] != "true":
        return
    label = env.get("ENI_CONFIG_LABEL_DEF", ("k8s.amazonaws.com/eniConfig", ""))[0]
    mark = env.get("ENI_CONFIG_ANNOTATION_DEF", ("k8s.amazonaws.com/eniConfig", ""))[0]
    names = {c.name for c in cluster.snapshot.of("ENIConfig")}
    for node in cluster.nodes:
        wanted = node.annotations.get(mark) or node.labels.get(label) or "default"
        if wanted not in names:
            yield Problem(
                f"no ENIConfig {wanted!r} for its pods",
                node.ref,
                (
                    seen(
                        node.ref,
                        f"metadata.labels[{label}]",
                        node.labels.get(label),
                        f"ENIConfigs: {', '.join(sorted(names)) or 'none'}",
                    ),
                ),
                Remedy(
                    "Make one for the zone, with a subnet of the secondary CIDR.",
                    yaml=f"apiVersion: crd.k8s.amazonaws.com/v1alpha1\nkind: ENIConfig\nmetadata:\n  name: "
                    f"{q(wanted)}\n"
                    "spec:\n  subnet: SUBNET\n  securityGroups: [SECURITY_GROUP]\n",
                ),
            )


@check(Area.IP_SPACE, Severity.ERROR, needs=("DaemonSet",), applies=only_vpc_cni)
def vpc_cni_ipv6(cluster: Cluster) -> Problems:
    """The VPC CNI's IPv6 mode lacks what it needs.

    Looks at ENABLE_IPv6 with ENABLE_PREFIX_DELEGATION, and with AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG.

    Why: IPv6 addresses come from /80 prefixes only, so it needs prefix delegation; it does not go with custom
    networking. aws-node does not start otherwise. An error: no pod of the nodes gets an address.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/cni-ipv6.html
    """
    cni, env = cluster.cni("Amazon VPC CNI"), vpc_cni_env(cluster)
    value, field = env.get("ENABLE_IPv6", ("false", ""))
    if value != "true" or cni is None:
        return
    if env.get("ENABLE_PREFIX_DELEGATION", ("false", ""))[0] != "true":
        yield Problem(
            "IPv6 without prefix delegation",
            cni.daemonset.ref,
            (seen(cni.daemonset.ref, field, value, "ENABLE_PREFIX_DELEGATION is not true"),),
            Remedy("Switch it on.", command=set_env("ENABLE_PREFIX_DELEGATION", "true")),
        )
    if env.get("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", ("false", ""))[0] == "true":
        yield Problem(
            "IPv6 together with custom networking",
            cni.daemonset.ref,
            (seen(cni.daemonset.ref, field, value, "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG is true"),),
            Remedy("Switch custom networking off.", command=set_env("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "false")),
        )
