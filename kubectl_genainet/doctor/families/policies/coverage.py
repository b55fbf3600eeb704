"""NetworkPolicy: which workloads it covers, and which policies cover nobody."""

from __future__ import annotations

from collections import defaultdict

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import mapping, selector_matches, sh
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.objects.workloads import Workload, WorkloadKey
from kubectl_genainet.doctor.predicates.labels import selecting_labels
from kubectl_genainet.doctor.predicates.policy_text import adding, network_policy, peer
from kubectl_genainet.doctor.predicates.selectors import added_by_a_controller, nearly_selected
from kubectl_genainet.model.finding import NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.policy.model import Direction

GROUP = "networking.k8s.io"
_NOT_CALLED = (Role.TRAINING, Role.ACCELERATED, Role.ENDPOINT_PICKER)  # by those that ask for tokens or vectors


@check(Area.POLICY, Severity.WARNING, needs=("Pod",), own_namespace=True)
def policy_none(cluster: Cluster) -> Problems:
    """A GenAI workload is isolated by no policy.

    Asks the policy engine which policies (NetworkPolicy, and the cluster-wide kinds that it evaluates) isolate the
    pods of model servers, vector databases and the applications between them, for ingress; one finding a namespace.
    A front end that no other workload calls is left out: the outside is its client. Manifests that are not the whole
    cluster are judged, as information, where they make the namespace and hold both ends of a call in it: a whole
    application without a policy.

    Why: every pod of the cluster may reach the model's unauthenticated API and the vector database's contents.
    Segment by component, ingress first. A warning: users notice nothing until somebody reads or asks what is not
    theirs.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#the-two-sorts-of-pod-isolation
    """
    called = {w.ref for c in cluster.calls if c.service for w in cluster.workloads_of(c.service)}
    open_workloads: dict[str, list[Workload]] = defaultdict(list)
    for workload, recognised in cluster.genai_workloads:
        live = next((p for p in workload.pods if not p.terminating), None)
        if live is None or workload.template.host_network or recognised.role in _NOT_CALLED:
            continue
        if recognised.role is Role.APPLICATION and workload.ref not in called:
            continue
        key = (live.ref.namespace, live.ref.name)
        if not cluster.policy.isolating(key, Direction.INGRESS):
            open_workloads[workload.namespace].append(workload)
    for namespace, workloads in open_workloads.items():
        elsewhere = cluster.partial("NetworkPolicy", namespace)
        if elsewhere and (
            cluster.extent.unread("NetworkPolicy", namespace) or not _whole_application(cluster, namespace)
        ):
            yield NotChecked(f"namespace {namespace}", elsewhere)
            continue
        yield Problem(
            f"no policy isolates {len(workloads)} GenAI workload{'s' if len(workloads) > 1 else ''} for ingress",
            ObjectRef("Namespace", namespace),
            tuple(
                derived(
                    w.ref,
                    w.label_field("*"),
                    selecting_labels(w),
                    f"no policy that isolates for ingress selects {w.ref}",
                )
                for w in workloads[:5]
            ),
            _isolate(cluster, namespace, workloads),
            severity=Severity.INFO if elsewhere else None,
        )


def _whole_application(cluster: Cluster, namespace: str) -> bool:
    """Whether the objects make a namespace and hold a GenAI workload in it with a caller."""
    made = any(n.name == namespace for n in cluster.snapshot.of("Namespace", ""))
    return made and any(c.service is not None and c.client.namespace == namespace for c in cluster.genai_calls)


def _isolate(cluster: Cluster, namespace: str, workloads: list[Workload]) -> Remedy:
    """Policies that admit the callers known from configuration, for the workloads that nothing else reaches."""
    policies = []
    for workload in workloads:
        callers, ports = _callers(cluster, workload)
        if not callers or _entered_from_outside(cluster, workload):
            continue
        rule = {
            "from": [peer(namespace, caller) for caller in callers],
            "ports": [{"protocol": "TCP", "port": p} for p in ports],
        }
        spec = {
            "podSelector": {"matchLabels": selecting_labels(workload)},
            "policyTypes": ["Ingress"],
            "ingress": [rule],
        }
        policies.append(network_policy(f"{workload.name}-ingress", namespace, spec))
    if not policies:
        return Remedy("Write a policy for each that admits its callers, and those only.")
    return adding(
        "Admit the callers that are configured; everything else is then closed to these workloads, so add callers that "
        "no configuration shows.",
        *policies,
    )


def _callers(cluster: Cluster, workload: Workload) -> tuple[list[Workload], list[int]]:
    """Who is configured to call a workload, and on which of its ports."""
    callers: dict[WorkloadKey, Workload] = {}
    ports = set()
    for call in (c for s in cluster.services_of(workload) for c in cluster.calls_to.get(s.ref, ())):
        if call.service_port is not None:
            callers[call.client.key] = call.client
            ports.add(cluster.target_port(workload, call.service_port))
    return list(callers.values()), sorted(ports - {0})


def _entered_from_outside(cluster: Cluster, workload: Workload) -> bool:
    return any(
        s.spec.type in ("LoadBalancer", "NodePort")
        or (s.metadata.namespace, s.metadata.name) in cluster.ingress_backends
        for s in cluster.services_of(workload)
    )


@check(Area.POLICY, Severity.WARNING, needs=("NetworkPolicy", "Pod"), own_namespace=True)
def policy_selects_nothing(cluster: Cluster) -> Problems:
    """A NetworkPolicy selects no pod.

    Looks at spec.podSelector against the labels of pods and of workloads' templates in its namespace. The empty
    selector, which means all pods, is not reported.

    Why: the policy does nothing, and the pods that it was meant for are as open (or as closed) as before. A
    warning: nothing fails; what was to be closed is open.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
    """
    for policy in (p for p in cluster.snapshot.of("NetworkPolicy", GROUP) if cluster.in_scope(p.namespace)):
        selector = mapping(policy.raw, "spec", "podSelector")
        if not selector or cluster.templates_matching(policy.namespace, selector):
            continue
        workloads = cluster.workloads_in.get(policy.namespace, ())
        if any(selector_matches(selector, p.obj.labels) for w in workloads for p in w.pods):
            continue
        labels = {k: str(v) for k, v in mapping(selector, "matchLabels").items()}
        added = added_by_a_controller(cluster, policy.namespace, labels)
        near = None if added else nearly_selected(cluster, policy.namespace, labels, policy.name)
        if added or (near is None and cluster.partial("Pod", policy.namespace)):
            reason = (
                f"a controller adds the label {added}" if added else "the pods that it selects may be made elsewhere"
            )
            yield NotChecked(str(policy.ref), reason)
            continue
        yield Problem(
            "it selects no pod",
            policy.ref,
            (seen(policy.ref, "spec.podSelector", selector, f"no pod in {policy.namespace} has these labels"),),
            Remedy(
                "Use the labels that the pods have.",
                command=f"kubectl -n {sh(policy.namespace)} get pods --show-labels",
            ),
            rests_on=(near[0].ref,) if near is not None else (),
        )
