"""The cluster's objects as the file of names that agents read for their metrics."""

from __future__ import annotations

from collections import defaultdict

from kubectl_genainet.correlate.identity import workload_of
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.identities import Identities, Owner, backend_key
from kubectl_genainet.model.packet import Protocol


def identities_of(snapshot: ClusterSnapshot, taken_at: float) -> Identities:
    """Names of all pods that run, and of the Services that each endpoint serves. `taken_at`: seconds since 1970."""
    uids: dict[str, Owner] = {}
    addresses: dict[str, Owner] = {}
    for pod in snapshot.pods:
        if pod.finished or pod.spec.host_network:
            continue
        owner = Owner(pod.metadata.namespace, workload_of(pod) or pod.metadata.name)
        if pod.metadata.uid:
            uids[pod.metadata.uid] = owner
        addresses |= {canonical_ip(ip): owner for ip in pod.ips}
    backends: dict[str, set[str]] = defaultdict(set)
    for service in snapshot.services:
        name = f"{service.metadata.namespace}/{service.metadata.name}"
        for port in service.spec.ports:
            for backend in snapshot.backends(service, port):
                backends[backend_key(backend.ip, backend.port, Protocol(port.protocol))].add(name)
    return Identities(taken_at, uids, addresses, {key: tuple(sorted(names)) for key, names in backends.items()})
