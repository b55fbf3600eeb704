"""A mesh's own ports against the cluster's NetworkPolicies."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.labels import selecting_labels
from kubectl_genainet.doctor.predicates.mesh import HBONE, LINKERD_INBOUND, XDS, Mesh, mesh_of, no_mesh
from kubectl_genainet.doctor.predicates.policy_text import adding, network_policy, peer
from kubectl_genainet.doctor.settings import some_told, told_together
from kubectl_genainet.model.finding import ObjectRef, Remedy, Severity
from kubectl_genainet.policy.model import Direction, PolicyVerdict


def _mesh_port(mesh: Mesh) -> int:
    return {Mesh.AMBIENT: HBONE, Mesh.LINKERD: LINKERD_INBOUND}.get(mesh, 0)


@check(Area.MESH, Severity.ERROR, needs=("Pod", "NetworkPolicy"), applies=no_mesh)
def mesh_policy_ports(cluster: Cluster) -> Problems:
    """A NetworkPolicy blocks the mesh's own ports.

    Asks the policy engine: for every configured call between workloads of an Ambient or Linkerd mesh, whether the
    callee admits TCP 15008 (HBONE) or 4143; for every workload with an Istio sidecar, whether it may reach istiod on
    TCP 15012.

    Why: the policy names the application's port, but on the wire it is the mesh's: the call is dropped although the
    policy "allows" it. Without istiod a new sidecar gets no certificate and never becomes ready. An error: every
    such call fails. A warning in manifests that are not the whole cluster: a policy that is not among them may admit it.
    Information where a ConfigMap tells several workloads the address, and another of them is admitted.

    Source: https://istio.io/latest/docs/ambient/usage/networkpolicy/,
    https://istio.io/latest/docs/ops/deployment/application-requirements/
    """
    together = told_together(cluster.calls)
    for call in cluster.genai_calls:
        if call.service is None:
            continue
        for workload in cluster.workloads_of(call.service):
            mesh, evidence = mesh_of(cluster, workload)
            port = _mesh_port(mesh)
            if not port or mesh_of(cluster, call.client)[0] is not mesh or evidence is None:
                continue
            verdict = cluster.admits(call.client, workload, "TCP", port)
            if verdict is not None and verdict.verdict is PolicyVerdict.DENY:
                others = (cluster.admits(o.client, workload, "TCP", port) for o in some_told(together, call))
                shared = any(o is not None and o.verdict is PolicyVerdict.ALLOW for o in others)
                direction = Direction.INGRESS if verdict.ingress.verdict is PolicyVerdict.DENY else Direction.EGRESS
                policies = verdict.direction(direction).isolated_by
                yield Problem(
                    f"TCP {port} of the mesh is not admitted from {call.client.ref}",
                    workload.ref,
                    (
                        *(
                            derived(
                                p, f"spec.{direction.value}", port, f"{p} isolates it, and no rule admits TCP {port}"
                            )
                            for p in policies
                        ),
                        evidence,
                    ),
                    _admit_mesh_port(policies, call.client, workload, port, direction),
                    refuted_by=("NetworkPolicy", _isolated(direction, call.client, workload).namespace),
                    severity=Severity.INFO if shared else None,
                    rests_on=(call.client.ref,),
                )
    yield from _istiod_blocked(cluster)


def _isolated(direction: Direction, client: Workload, server: Workload) -> Workload:
    """The one of two workloads whose policies do not admit a connection."""
    return client if direction is Direction.EGRESS else server


def _istiod_blocked(cluster: Cluster) -> Problems:
    istiod = next((w for w in cluster.workloads if w.name.startswith("istiod") and w.pods), None)
    if istiod is None:
        return
    for workload, _ in cluster.genai_workloads:
        mesh, evidence = mesh_of(cluster, workload)
        if mesh is not Mesh.ISTIO_SIDECAR or evidence is None:
            continue
        verdict = cluster.admits(workload, istiod, "TCP", XDS)
        if verdict is not None and verdict.verdict is PolicyVerdict.DENY:
            direction = Direction.EGRESS if verdict.egress.verdict is PolicyVerdict.DENY else Direction.INGRESS
            yield Problem(
                f"it may not reach istiod on TCP {XDS}",
                workload.ref,
                (
                    *(
                        derived(p, f"spec.{direction.value}", XDS, f"{p} isolates, and no rule admits TCP {XDS}")
                        for p in verdict.direction(direction).isolated_by
                    ),
                    evidence,
                ),
                _admit_istiod(workload, istiod, direction),
                refuted_by=("NetworkPolicy", _isolated(direction, workload, istiod).namespace),
            )


def _admit_istiod(workload: Workload, istiod: Workload, direction: Direction) -> Remedy:
    """A policy beside those that isolate the workload: what several admit adds up."""
    advice = f"Admit egress to istiod on TCP {XDS}."
    if direction is not Direction.EGRESS:
        return Remedy(f"Admit {workload.ref} at istiod on TCP {XDS}.")
    rule = {"to": [peer(workload.namespace, istiod)], "ports": [{"protocol": "TCP", "port": XDS}]}
    spec = {"podSelector": {"matchLabels": selecting_labels(workload)}, "policyTypes": ["Egress"], "egress": [rule]}
    return adding(advice, network_policy(f"{workload.name}-istiod", workload.namespace, spec))


def _admit_mesh_port(
    policies: tuple[ObjectRef, ...], client: Workload, server: Workload, port: int, direction: Direction
) -> Remedy:
    """A policy for the callee that admits the mesh's port from this caller: with HBONE it stands for every port."""
    if direction is not Direction.INGRESS:
        return Remedy(f"Admit egress to {server.ref} on TCP {port}, beside the application's port.")
    name = policies[0].name if policies else "admit"
    rule = {"from": [peer(server.namespace, client)], "ports": [{"protocol": "TCP", "port": port}]}
    spec = {
        "podSelector": {"matchLabels": selecting_labels(server)},
        "policyTypes": ["Ingress"],
        "ingress": [rule],
    }
    return adding(
        f"Admit TCP {port} from {client.ref}; on that port every port of the pod is reached, so keep what a caller may do "
        "in an AuthorizationPolicy.",
        network_policy(f"{name}-mesh", server.namespace, spec),
    )
