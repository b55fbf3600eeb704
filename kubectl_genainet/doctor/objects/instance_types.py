"""What EC2 instance types have, as far as GenAI clusters use them. A type that is not here is unknown, never guessed."""

from __future__ import annotations

from collections.abc import Mapping

# Interfaces and IPv4 addresses each.
# Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/AvailableIpPerENI.html, and vpc_ip_resource_limit.go of
# amazon-vpc-resource-controller-k8s.
_BY_SIZE = {
    "large": (3, 10),
    "xlarge": (4, 15),
    "2xlarge": (4, 15),
    "4xlarge": (8, 30),
    "8xlarge": (8, 30),
    "12xlarge": (8, 30),
    "16xlarge": (15, 50),
    "24xlarge": (15, 50),
}
_GENERAL = (
    "m5",
    "c5",
    "r5",
    "m6i",
    "c6i",
    "r6i",
    "m6a",
    "c6a",
    "r6a",
    "m6g",
    "c6g",
    "r6g",
    "m7i",
    "c7i",
    "r7i",
    "m7g",
    "c7g",
    "r7g",
    "m7a",
    "c7a",
    "r7a",
)
_LIMITS = {
    "t3.medium": (3, 6),
    "t3.large": (3, 12),
    "t3.xlarge": (4, 15),
    "t3.2xlarge": (4, 15),
    "g4dn.xlarge": (3, 10),
    "g4dn.2xlarge": (3, 10),
    "g4dn.4xlarge": (3, 10),
    "g4dn.8xlarge": (4, 15),
    "g4dn.12xlarge": (8, 30),
    "g4dn.16xlarge": (4, 15),
    "g4dn.metal": (15, 50),
    "g5.xlarge": (4, 15),
    "g5.2xlarge": (4, 15),
    "g5.4xlarge": (8, 30),
    "g5.8xlarge": (8, 30),
    "g5.12xlarge": (15, 50),
    "g5.16xlarge": (8, 30),
    "g5.24xlarge": (15, 50),
    "g5.48xlarge": (7, 50),
    "g6.xlarge": (4, 15),
    "g6.2xlarge": (4, 15),
    "g6.4xlarge": (8, 30),
    "g6.8xlarge": (8, 30),
    "g6.12xlarge": (8, 30),
    "g6.16xlarge": (8, 30),
    "g6.24xlarge": (15, 50),
    "g6.48xlarge": (15, 50),
    "p3.2xlarge": (4, 15),
    "p3.8xlarge": (8, 30),
    "p3.16xlarge": (8, 30),
    "p3dn.24xlarge": (15, 50),
    "inf1.xlarge": (4, 10),
    "inf1.2xlarge": (4, 10),
    "inf1.6xlarge": (8, 30),
    "inf1.24xlarge": (11, 30),
    "inf2.xlarge": (4, 15),
    "inf2.8xlarge": (8, 30),
    "inf2.24xlarge": (15, 50),
    "inf2.48xlarge": (15, 50),
    "trn1.2xlarge": (4, 15),
}
# Types with several network cards: the VPC CNI uses the interfaces of the first.
_LIMITS |= {f"{family}.{size}": limits for family in _GENERAL for size, limits in _BY_SIZE.items()}

# Instance types with Elastic Fabric Adapter among those with accelerators.
# Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa.html#efa-instance-types
EFA_TYPES = frozenset(
    (
        "p3dn.24xlarge",
        "p4d.24xlarge",
        "p4de.24xlarge",
        "p5.48xlarge",
        "p5e.48xlarge",
        "p5en.48xlarge",
        "p6-b200.48xlarge",
        "trn1.32xlarge",
        "trn1n.32xlarge",
        "trn2.48xlarge",
        "g4dn.8xlarge",
        "g4dn.12xlarge",
        "g4dn.metal",
        "g5.8xlarge",
        "g5.12xlarge",
        "g5.16xlarge",
        "g5.24xlarge",
        "g5.48xlarge",
        "g6.8xlarge",
        "g6.12xlarge",
        "g6.16xlarge",
        "g6.24xlarge",
        "g6.48xlarge",
        "g6e.8xlarge",
        "g6e.12xlarge",
        "g6e.16xlarge",
        "g6e.24xlarge",
        "g6e.48xlarge",
        "dl1.24xlarge",
        "dl2q.24xlarge",
        "vt1.24xlarge",
        "inf1.24xlarge",
    )
)

# Accelerators.
# Source: https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html
_ONE = ("xlarge", "2xlarge", "4xlarge", "8xlarge", "16xlarge")
_FOUR = ("12xlarge", "24xlarge")
GPUS: Mapping[str, int] = {
    "p2.xlarge": 1,
    "p2.8xlarge": 8,
    "p2.16xlarge": 16,
    "p3.2xlarge": 1,
    "p3.8xlarge": 4,
    "p3.16xlarge": 8,
    "p3dn.24xlarge": 8,
    "p4d.24xlarge": 8,
    "p4de.24xlarge": 8,
    "p5.4xlarge": 1,
    "p5.48xlarge": 8,
    "p5e.48xlarge": 8,
    "p5en.48xlarge": 8,
    "p6-b200.48xlarge": 8,
    "g4dn.12xlarge": 4,
    "g4dn.metal": 8,
    **{f"g4dn.{size}": 1 for size in _ONE},
    **{f"{family}.{size}": 1 for family in ("g5", "g6", "g6e") for size in _ONE},
    **{f"{family}.{size}": 4 for family in ("g5", "g6", "g6e") for size in _FOUR},
    **{f"{family}.48xlarge": 8 for family in ("g5", "g6", "g6e")},
}
NEURON_DEVICES: Mapping[str, int] = {
    "inf1.xlarge": 1,
    "inf1.2xlarge": 1,
    "inf1.6xlarge": 4,
    "inf1.24xlarge": 16,
    "inf2.xlarge": 1,
    "inf2.8xlarge": 1,
    "inf2.24xlarge": 6,
    "inf2.48xlarge": 12,
    "trn1.2xlarge": 1,
    "trn1.32xlarge": 16,
    "trn1n.32xlarge": 16,
    "trn2.48xlarge": 16,
}


def max_pods(instance_type: str, custom_networking: bool = False) -> int | None:
    """Pods that a node has secondary addresses for: ENIs × (addresses - 1) + 2; None for an unknown type.

    The two are aws-node and kube-proxy, which use the host's network. With custom networking the first interface
    serves no pods.
    """
    limits = _LIMITS.get(instance_type)
    if limits is None:
        return None
    interfaces, addresses = limits
    return (interfaces - (1 if custom_networking else 0)) * (addresses - 1) + 2
