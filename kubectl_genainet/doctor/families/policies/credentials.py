"""Egress to the places where pods on AWS get their credentials."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import mapping, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.policy_text import adding, network_policy
from kubectl_genainet.model.finding import Evidence, NotChecked, Remedy, Severity
from kubectl_genainet.policy.model import PolicyVerdict

POD_IDENTITY = "169.254.170.23"
IRSA = "eks.amazonaws.com/role-arn"
_AWS_USE = re.compile(r"\bs3://|\bAWS_(REGION|DEFAULT_REGION)\b|\.amazonaws\.com\b")


def _told(cluster: Cluster, workload: Workload) -> Evidence | None:
    """What shows that a workload asks EKS Pod Identity for credentials: the address in a variable, or AWS in use with
    the agent installed and neither a web identity nor keys of its own."""
    uses: Evidence | None = None
    for container in workload.containers:
        env = cluster.variables(workload, container)
        if {"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ACCESS_KEY_ID"} & env.keys():
            return None
        for variable in env.values():
            evidence = seen(variable.object, variable.field, variable.value, f"{variable.name}={variable.value}")
            if POD_IDENTITY in variable.value:
                return evidence
            if _AWS_USE.search(f"{variable.name} {variable.value}"):
                uses = uses or evidence
    by_role = any(
        a.namespace == workload.namespace
        and a.name == text(workload.template.spec, "serviceAccountName")
        and IRSA in a.annotations
        for a in cluster.snapshot.of("ServiceAccount", "")
    )
    return uses if uses and not by_role and cluster.daemonset("eks-pod-identity-agent") else None


@check(Area.POLICY, Severity.ERROR, needs=("NetworkPolicy", "Pod"))
def egress_to_credentials(cluster: Cluster) -> Problems:
    """A workload may not reach the agent that gives it its AWS credentials.

    Looks at workloads whose variables name EKS Pod Identity's address (169.254.170.23), or that use AWS where its agent
    is installed and they have no web identity (IRSA) and no keys of their own; asks the policy engine whether egress to
    TCP 80 of that address is admitted. Where only the use of AWS tells, it is a warning.

    Why: without credentials every call to S3 or Bedrock fails, mostly as a timeout at the start: a policy that closes
    169.254.0.0/16 against the instance's metadata closes this too.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html
    """
    for workload in cluster.workloads:
        if not cluster.in_scope(workload.namespace) or workload.template.host_network:
            continue
        asks = _told(cluster, workload)
        found = cluster.egress_to(workload, POD_IDENTITY, "TCP", 80) if asks else None
        if asks is None or found is None or found.verdict is PolicyVerdict.ALLOW:
            continue
        if found.verdict is PolicyVerdict.UNKNOWN:
            yield NotChecked(f"{workload.ref} → {POD_IDENTITY}", "; ".join(str(n) for n in found.not_evaluated[:2]))
            continue
        policies = cluster.snapshot.of("NetworkPolicy", "networking.k8s.io")
        policy = next((p for p in policies for ref in found.isolated_by if p.ref == ref), None)
        spec = {
            "podSelector": mapping(policy.raw, "spec", "podSelector") if policy else {},
            "policyTypes": ["Egress"],
            "egress": [
                {"to": [{"ipBlock": {"cidr": f"{POD_IDENTITY}/32"}}], "ports": [{"protocol": "TCP", "port": 80}]}
            ],
        }
        yield Problem(
            f"egress to {POD_IDENTITY}, which gives it its AWS credentials, is not admitted",
            workload.ref,
            (
                *(
                    derived(
                        p, "spec.egress", POD_IDENTITY, f"{p} isolates it for egress, and no rule admits {POD_IDENTITY}"
                    )
                    for p in found.isolated_by
                ),
                asks,
            ),
            adding(
                f"Admit TCP 80 of {POD_IDENTITY}/32 for the pods that {policy.name} isolates.",
                network_policy(f"{policy.name}-pod-identity", policy.namespace, spec),
            )
            if policy is not None
            else Remedy(f"Admit TCP 80 of {POD_IDENTITY}/32."),
            severity=None if POD_IDENTITY in str(asks.value) else Severity.WARNING,
        )
