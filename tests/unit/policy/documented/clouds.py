"""What the VPC CNI and GKE document of their policies."""

from __future__ import annotations

from tests.unit.policy.documented.base import (
    CHAT,
    CLOSED_IN,
    CLOSED_OUT,
    DB,
    DENY_B,
    SUBJECT_A,
    WEB,
    WORLD,
    Documented,
    kind,
)
from tests.unit.policy.policy_cluster import (
    Raw,
    daemon_set,
    labels,
    netpol,
    pod,
)

VPC = "vpc-cni"


def aws_node(*environment: tuple[str, str]) -> Raw:
    raw = daemon_set("602401143452.dkr.ecr.eu-west-1.amazonaws.com/amazon-k8s-cni:v1.21.0", "aws-node", name="aws-node")
    spec = raw["spec"]["template"]["spec"]
    spec["containers"][0]["env"] = [{"name": n, "value": v} for n, v in environment]
    agent = {
        "name": "aws-eks-nodeagent",
        "image": "amazon/aws-network-policy-agent:v1.3.0",
        "args": ["--enable-network-policy=true"],
    }
    spec["containers"].append(agent)
    return raw


STRICT = aws_node(("NETWORK_POLICY_ENFORCING_MODE", "strict"))
OPEN_A = netpol("a/open", policyTypes=["Ingress", "Egress"], ingress=[{}], egress=[{}])
OPEN_B = netpol("b/open", policyTypes=["Ingress", "Egress"], ingress=[{}], egress=[{}])
BARE = pod("a/bare", "10.0.0.9", node="n1")
# Amazon VPC CNI: Network policy (EKS best practices), NETWORK_POLICY_ENFORCING_MODE.
VPC_CASES = [
    Documented("strict mode denies what no policy admits", VPC, (STRICT,), CHAT, WEB, "deny"),
    Documented("and egress", VPC, (STRICT,), WEB, WORLD, "deny"),
    Documented("a policy of both ends admits there", VPC, (STRICT, OPEN_A, OPEN_B), CHAT, WEB, "allow"),
    Documented("a policy of one end does not", VPC, (STRICT, OPEN_A), CHAT, WEB, "deny"),
    Documented("standard mode starts open", VPC, (aws_node(),), CHAT, WEB, "allow"),
    Documented(
        "policies of pods without a controller are not enforced for certain",
        VPC,
        (aws_node(), BARE, CLOSED_IN),
        CHAT,
        "a/bare",
        "unknown",
    ),
    Documented(
        "its own cluster policies are not evaluated",
        *(
            VPC,
            (
                aws_node(),
                kind(
                    "networking.k8s.aws/v1alpha1",
                    "ClusterNetworkPolicy",
                    tier="Admin",
                    priority=1,
                    subject=SUBJECT_A,
                    ingress=[DENY_B],
                ),
            ),
            CHAT,
            WEB,
            "unknown",
        ),
    ),
    Documented(
        "nor its application policies",
        *(
            VPC,
            (
                aws_node(),
                kind(
                    "networking.k8s.aws/v1alpha1",
                    "ApplicationNetworkPolicy",
                    where="a",
                    podSelector={},
                    policyTypes=["Egress"],
                    egress=[{"to": [{"domainNames": ["x.example"]}]}],
                ),
            ),
            WEB,
            WORLD,
            "unknown",
        ),
    ),
    Documented(
        "which are for the pods that they select",
        *(
            VPC,
            (
                aws_node(),
                kind(
                    "networking.k8s.aws/v1alpha1",
                    "ApplicationNetworkPolicy",
                    where="b",
                    podSelector={},
                    policyTypes=["Egress"],
                    egress=[],
                ),
            ),
            WEB,
            WORLD,
            "allow",
        ),
    ),
    Documented(
        "a PolicyEndpoint is made of policies",
        VPC,
        (aws_node(), kind("networking.k8s.aws/v1alpha1", "PolicyEndpoint", where="a", podSelector={})),
        CHAT,
        WEB,
        "allow",
    ),
]

FQDN = kind(
    "networking.gke.io/v1alpha1",
    "FQDNNetworkPolicy",
    where="a",
    podSelector=labels(app="web"),
    egress=[{"matches": [{"name": "x.example"}]}],
)
# GKE: Control Pod egress traffic using FQDN network policies: they are additive, and isolate the pods that they select.
GKE_CASES = [
    Documented("an FQDN policy isolates its pods for egress", "cilium", (FQDN,), WEB, WORLD, "unknown"),
    Documented("also from pods of the cluster", "cilium", (FQDN,), WEB, CHAT, "unknown"),
    Documented("not other pods", "cilium", (FQDN,), DB, WORLD, "allow"),
    Documented("nor ingress", "cilium", (FQDN,), CHAT, WEB, "allow"),
    Documented("it may admit what a NetworkPolicy does not", "cilium", (FQDN, CLOSED_OUT), WEB, WORLD, "unknown"),
]
