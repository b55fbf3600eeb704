"""What a diagnosis advises to run next: commands with the names that the run knows."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.diagnoses.kernel import UNEXPLAINED
from kubectl_genainet.model.diagnoses.rules import NETFILTER_DROP, RULE_DROP
from kubectl_genainet.model.kube import Pod, Service
from kubectl_genainet.model.results.diagnosis import Cause
from kubectl_genainet.model.target import Target, TargetKind
from kubectl_genainet.shell import sh

_NAMED_BY_EXACT = frozenset({UNEXPLAINED.name, NETFILTER_DROP.name, RULE_DROP.name})


def next_steps(
    causes: tuple[Cause, ...],
    target: Target | None,
    services: tuple[Service, ...],
    snapshot: ClusterSnapshot,
    *,
    seen: bool,
) -> Iterator[str]:
    """`services` are the target's, or those of the namespace; `seen`: whether any connection was."""
    if not causes and not seen:
        yield from _check(target, services, snapshot)
    if any(c.check in _NAMED_BY_EXACT for c in causes):
        named = f" {sh(target)}" if target else ""
        yield f"kubectl genainet trace{named} --exact"


def _check(target: Target | None, services: tuple[Service, ...], snapshot: ClusterSnapshot) -> Iterator[str]:
    """One connection from a pod that should be able to make it; nothing where there is no Service or no such pod."""
    caller = _caller(services, snapshot)
    if caller is None:
        return
    service, pod = caller
    of_service = target is not None and target.kind is TargetKind.SERVICE
    called = target if of_service else f"svc/{service.metadata.namespace}/{service.metadata.name}"
    client = f"pod/{pod.metadata.namespace}/{pod.metadata.name}"
    yield f"kubectl genainet trace {sh(called)} --check --from-pod {sh(client)}"


def _caller(services: tuple[Service, ...], snapshot: ClusterSnapshot) -> tuple[Service, Pod] | None:
    """A pod that is configured to call one of the Services; without one, another pod of the first one's namespace."""
    by_ref = {service.ref: service for service in services}
    for call in Cluster(snapshot).calls:
        if call.service is not None and call.service.ref in by_ref and call.client.pods:
            return by_ref[call.service.ref], call.client.pods[0].pod
    for service in services:
        backends = {backend.ip for port in service.spec.ports for backend in snapshot.backends(service, port)}
        for pod in snapshot.pods:
            here = pod.metadata.namespace == service.metadata.namespace
            if here and pod.ips and not pod.finished and not backends & set(pod.ips):
                return service, pod
    return None
