"""The name lookups of a Service's callers: where they fail, no connection comes about, and `trace` would see nothing."""

from __future__ import annotations

import dataclasses

from kubectl_genainet.context.identity import workload_of
from kubectl_genainet.context.targets import Resolved
from kubectl_genainet.dns.targets import DNS_PORT, dns_servers
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.results.path import PacketPath, Verdict
from kubectl_genainet.model.target import TargetKind
from kubectl_genainet.wire import FilterEntry

MOST_PODS = 5_000  # in larger clusters who calls whom is not looked up before a trace
MOST_CALLERS = 200  # pods whose lookups are followed
LOST = frozenset({Verdict.DROPPED, Verdict.REJECTED})


def callers_of(resolved: Resolved, snapshot: ClusterSnapshot) -> frozenset[str]:
    """Addresses of the pods that are configured to call the target, a Service; empty where they are very many."""
    service = snapshot.service(resolved.namespace, resolved.target.name)
    if resolved.target.kind is not TargetKind.SERVICE or service is None or len(snapshot.of("Pod", "")) > MOST_PODS:
        return frozenset()
    if any(port.port == DNS_PORT for port in service.spec.ports):
        return frozenset()  # the target is a DNS server itself
    calls = Cluster(snapshot).calls
    names = {(c.client.namespace, c.client.ref.name) for c in calls if c.service and c.service.ref == service.ref}
    pods = [p for p in snapshot.pods if (p.metadata.namespace, workload_of(p) or p.metadata.name) in names]
    ips = frozenset(canonical_ip(ip) for p in pods if not p.spec.host_network and not p.finished for ip in p.ips)
    return ips if len(ips) <= MOST_CALLERS else frozenset()


def with_lookups(resolved: Resolved, snapshot: ClusterSnapshot) -> Resolved:
    """The target with the datagrams of its callers followed too."""
    callers = callers_of(resolved, snapshot)
    if not callers:
        return resolved
    services = (s for s in snapshot.services if any(p.port == DNS_PORT for p in s.spec.ports))
    servers = {canonical_ip(ip) for s in services for ip in s.cluster_ips} | set(
        map(canonical_ip, dns_servers(snapshot))
    )
    return dataclasses.replace(
        resolved,
        filters=(*resolved.filters, *(FilterEntry(ip, 0, "UDP") for ip in sorted(callers))),
        servers=resolved.servers | {(ip, DNS_PORT) for ip in servers},
        lookups=frozenset(servers),
    )


def is_lost_lookup(path: PacketPath, resolved: Resolved) -> bool:
    """Whether it is a caller's query that did not reach its server."""
    service = path.flow.service
    asked = {end.ip for end in (service, path.backend) if end is not None and end.port == DNS_PORT}
    return bool(asked & resolved.lookups) and path.verdict in LOST
