"""Egress to the places where pods on AWS get their credentials."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import at, items, mapping, number, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.policy_text import adding, network_policy
from kubectl_genainet.model.finding import Evidence, NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.model import PolicyVerdict

POD_IDENTITY = "169.254.170.23"
IRSA = "eks.amazonaws.com/role-arn"
_BEFORE_AN_AGENT = {"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ACCESS_KEY_ID"}
_IDENTITY = {*_BEFORE_AN_AGENT, "AWS_CONTAINER_CREDENTIALS_FULL_URI"}
_AWS_USE = re.compile(r"\bs3://|\bAWS_(REGION|DEFAULT_REGION)\b|\.amazonaws\.com\b")


def _told(cluster: Cluster, workload: Workload) -> Evidence | None:
    """What shows that a workload asks EKS Pod Identity for credentials: the address in a variable, an association with
    its ServiceAccount, or AWS in use with the agent installed and neither a web identity nor keys of its own."""
    told = _named(cluster, workload) or _associated(cluster, workload)
    if told is not None or not cluster.daemonset("eks-pod-identity-agent"):
        return told
    return _aws_without_identity(cluster, workload)


def _named(cluster: Cluster, workload: Workload) -> Evidence | None:
    """A variable with the agent's address: of the template, or of a pod that is there, to which EKS has added it."""
    for container in workload.containers:
        for variable in cluster.variables(workload, container).values():
            if POD_IDENTITY in variable.value:
                return seen(variable.object, variable.field, variable.value, f"{variable.name}={variable.value}")
    for pod in workload.pods:
        for index, raw in enumerate(items(pod.obj.raw, "spec", "containers")):
            for name, value in ((text(e, "name"), text(e, "value")) for e in items(raw, "env")):
                if POD_IDENTITY in value:
                    return seen(pod.ref, f"spec.containers[{index}].env[{name}]", value, f"{name}={value}")
    return None


def _associated(cluster: Cluster, workload: Workload) -> Evidence | None:
    """The association (an object of ACK) that gives a workload its role by Pod Identity. None where it has a web identity
    or keys: an SDK asks for these first. Which cluster an association is made for, it says by a name that no object has.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
    """
    account = text(workload.template.spec, "serviceAccountName") or "default"
    for association in cluster.snapshot.of("PodIdentityAssociation", "eks.services.k8s.aws"):
        of = (text(association.raw, "spec", "namespace"), text(association.raw, "spec", "serviceAccount"))
        if of == (workload.namespace, account):
            first = any(_BEFORE_AN_AGENT & _names(cluster, workload, container) for container in workload.containers)
            first = first or any(IRSA in a.annotations for a in _accounts(cluster, workload))
            statement = f"gives the pods of ServiceAccount {account} their role by Pod Identity"
            return None if first else seen(association.ref, "spec.serviceAccount", account, statement)
    return None


def _aws_without_identity(cluster: Cluster, workload: Workload) -> Evidence | None:
    """A variable that shows AWS in use, of a workload with neither a web identity nor keys of its own."""
    set_here = (v for container in workload.containers for v in cluster.variables(workload, container).values())
    use = next((v for v in set_here if _AWS_USE.search(f"{v.name} {v.value}")), None)
    if use is None:
        return None
    for container in workload.containers:
        secrets = any("secretRef" in entry for entry in items(container.raw, "envFrom"))
        if _IDENTITY & _names(cluster, workload, container) or secrets:
            return None
    accounts = _accounts(cluster, workload)
    named = bool(text(workload.template.spec, "serviceAccountName"))
    elsewhere = named and not accounts and cluster.from_files
    if elsewhere or any(IRSA in a.annotations for a in accounts):
        return None
    return seen(use.object, use.field, use.value, f"{use.name}={use.value}")


def _accounts(cluster: Cluster, workload: Workload) -> list[KubeObject]:
    """The ServiceAccount of a workload, where it is here."""
    of = (workload.namespace, text(workload.template.spec, "serviceAccountName") or "default")
    return [a for a in cluster.snapshot.of("ServiceAccount", "") if (a.namespace, a.name) == of]


def _names(cluster: Cluster, workload: Workload, container: ContainerSpec) -> set[str]:
    """The names of a container's variables, those of the pods that are there too."""
    written = (text(e, "name") for e in items(container.raw, "env"))
    return {*cluster.variables(workload, container), *written, *_injected(workload)}


def _injected(workload: Workload) -> set[str]:
    """The variables of the pods that are there: IRSA's webhook adds its own."""
    return {
        text(e, "name") for p in workload.pods for c in items(p.obj.raw, "spec", "containers") for e in items(c, "env")
    }


@check(Area.POLICY, Severity.ERROR, needs=("NetworkPolicy", "Pod"))
def egress_to_credentials(cluster: Cluster) -> Problems:
    """A workload may not reach the agent that gives it its AWS credentials.

    Looks at workloads whose variables name EKS Pod Identity's address (169.254.170.23), whose ServiceAccount has a
    PodIdentityAssociation (an object of ACK), or that use AWS where its agent is installed, the latter two if they have no
    web identity (IRSA) and no keys of their own; asks the policy engine whether egress to TCP 80 of that address is
    admitted. Where no variable tells, it is a warning.

    Why: without credentials every call to S3 or Bedrock fails, mostly as a timeout at the start: a policy that
    closes 169.254.0.0/16 against the instance's metadata closes this too. An error: every call to AWS fails. A warning in
    manifests that are not the whole cluster: a policy that is not among them may admit it.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html
    """
    for workload in cluster.workloads:
        if not cluster.in_scope(workload.namespace) or workload.template.host_network:
            continue
        asks = _told(cluster, workload)
        verdict = cluster.egress_to(workload, POD_IDENTITY, "TCP", 80) if asks else None
        if asks is None or verdict is None or verdict.verdict is PolicyVerdict.ALLOW:
            continue
        if verdict.verdict is PolicyVerdict.UNKNOWN:
            yield NotChecked(f"{workload.ref} → {POD_IDENTITY}", "; ".join(str(n) for n in verdict.not_evaluated[:2]))
            continue
        policies = cluster.snapshot.of("NetworkPolicy", "networking.k8s.io")
        policy = next((p for p in policies for ref in verdict.isolated_by if p.ref == ref), None)
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
                    for p in verdict.isolated_by
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
            refuted_by=("NetworkPolicy", workload.namespace),
        )


IMDS = "169.254.169.254"
NODE_CLASS = "karpenter.k8s.aws/ec2nodeclass"


def _uses_instance_role(cluster: Cluster, workload: Workload) -> Evidence | None:
    """What shows that a workload takes its AWS credentials from the instance: AWS in use, and no identity of its own."""
    if workload.template.host_network or cluster.daemonset("eks-pod-identity-agent") or cluster.partial("DaemonSet"):
        return None
    if _associated(cluster, workload) is not None:
        return None
    return _aws_without_identity(cluster, workload)


def _node_classes(cluster: Cluster, workload: Workload) -> list[KubeObject]:
    """The EC2NodeClasses of the nodes that a workload runs on; all, where its pods have no node yet."""
    names = {n.labels.get(NODE_CLASS, "") for name in workload.nodes if (n := cluster.node(name)) is not None}
    return [c for c in cluster.snapshot.of("EC2NodeClass") if not workload.nodes or c.name in names]


@check(Area.POLICY, Severity.WARNING, needs=("Pod",))
def imds_hop_limit(cluster: Cluster) -> Problems:
    """A workload takes its AWS credentials from the instance, and can't reach its metadata.

    Looks at workloads that use AWS (s3:// or AWS_REGION in a variable) without IRSA, keys or EKS Pod Identity: at
    metadataOptions.httpPutResponseHopLimit of the Karpenter EC2NodeClass (1 where nothing is set), and at the policies for
    egress to 169.254.169.254. A warning: the SDK may have another source of credentials.

    Why: the answer with the token has a TTL of the hop limit; a pod is one hop behind the node, so that with 1 it never
    arrives. Calls to S3 or Bedrock then hang for seconds and fail with "Unable to locate credentials".

    Source: https://karpenter.sh/docs/concepts/nodeclasses/#specmetadataoptions,
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    """
    for workload in cluster.workloads:
        uses = _uses_instance_role(cluster, workload) if cluster.in_scope(workload.namespace) else None
        if uses is None:
            continue
        path = ("spec", "metadataOptions", "httpPutResponseHopLimit")
        classes = _node_classes(cluster, workload)
        if classes and all(number(c.raw, *path, default=1) < 2 for c in classes):
            obj = classes[0]
            yield Problem(
                "the instance's metadata can't answer a pod: the hop limit is 1",
                workload.ref,
                (seen(obj.ref, ".".join(path), at(obj.raw, *path), "1 hop reaches the node, not its pods"), uses),
                Remedy(
                    "Give the workload an identity of its own (IRSA, EKS Pod Identity); a higher limit serves all pods."
                ),
            )
            continue
        verdict = cluster.egress_to(workload, IMDS, "TCP", 80) if not cluster.missing("NetworkPolicy") else None
        if verdict is not None and verdict.verdict is PolicyVerdict.DENY:
            yield Problem(
                f"egress to {IMDS}, from which it takes its AWS credentials, is not admitted",
                workload.ref,
                (
                    *(derived(p, "spec.egress", IMDS, f"{p} admits no egress to {IMDS}") for p in verdict.isolated_by),
                    uses,
                ),
                Remedy(
                    "Give the workload an identity of its own (IRSA, EKS Pod Identity): the instance's role is all pods'."
                ),
            )
