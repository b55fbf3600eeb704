"""Names that the cluster's own DNS answers: of Services, of pods behind them, and of pods by their address.

Source: Kubernetes, "DNS for Services and Pods"; the search list of a pod ends in svc.CLUSTER-DOMAIN, so NAME.NAMESPACE is
looked up there before it is taken for a name of the internet.
"""

from __future__ import annotations

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import Pod
from kubectl_genainet.model.target import Target, TargetKind, service_named
from kubectl_genainet.policy.matching.api_servers import api_servers, is_its_service

_DOMAIN = ["cluster", "local"]


def in_cluster(snapshot: ClusterSnapshot, host: str, port: int | str | None, namespace: str) -> Target | None:
    """What a name stands for inside the cluster; None for a name that the internet's DNS answers.

    Raises InputError for a name of the cluster's domain that nothing answers to.
    """
    labels = host.lower().rstrip(".").split(".")
    if labels[-2:] == _DOMAIN:
        labels = labels[:-2]
        if labels[-1:] not in (["svc"], ["pod"]):
            raise InputError(f"{host} is no name that the cluster's DNS answers", hint="Names end in NAMESPACE.svc.")
    if labels[-1] == "pod" and len(labels) == 3:
        return _by_address(labels[0], port)
    ours = labels[-1] == "svc"
    if ours:
        labels = labels[:-1]
    match labels:
        case [name] if not ours and snapshot.service(namespace, name) is not None:
            return Target(TargetKind.SERVICE, "Service", name, port, namespace)
        case [name, where] if ours or snapshot.service(where, name) is not None:
            if not (is_its_service(where, name) and api_servers(snapshot)):
                service_named(snapshot, where, name)
            return Target(TargetKind.SERVICE, "Service", name, port, where)
        case [hostname, name, where] if ours or snapshot.service(where, name) is not None:
            service_named(snapshot, where, name)
            return _behind(snapshot, hostname, name, where, port)
        case _ if ours:
            raise InputError(f"{host} is no name that the cluster's DNS answers", hint="Names end in NAMESPACE.svc.")
    return None


def _by_address(text: str, port: int | str | None) -> Target:
    """A pod by its address with dashes: 10-244-0-7.NAMESPACE.pod."""
    address = canonical_ip(text.replace("-", "." if text.count("-") == 3 else ":"))
    return Target(TargetKind.ADDRESS, "", address, port)


def _behind(snapshot: ClusterSnapshot, hostname: str, service: str, namespace: str, port: int | str | None) -> Target:
    """One pod behind a headless Service."""
    selector = snapshot.service(namespace, service)
    wanted = selector.spec.selector.items() if selector is not None else {}.items()
    for pod in snapshot.pods:
        if pod.metadata.namespace == namespace and wanted <= pod.metadata.labels.items() and _is(pod, hostname):
            return Target(TargetKind.POD, "Pod", pod.metadata.name, port, namespace)
    raise InputError(f"no pod behind Service {namespace}/{service} has the hostname {hostname!r}")


def _is(pod: Pod, hostname: str) -> bool:
    return (pod.spec.hostname or pod.metadata.name) == hostname
