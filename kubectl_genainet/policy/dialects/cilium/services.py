"""toServices: the backends of Services. Source: Cilium, pkg/policy/k8s/service.go."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import Service
from kubectl_genainet.policy.identity import POD_NAMESPACE, IdentityPeer, IdentityScheme, LabelTerm
from kubectl_genainet.policy.matching.cidr import Block, address_of
from kubectl_genainet.policy.matching.peers import BlockPeer, Peer, UnknownPeer
from kubectl_genainet.policy.matching.selectors import Operator
from kubectl_genainet.policy.where import Where


def service_peers(
    wanted: tuple[dict[str, Any], ...], snapshot: ClusterSnapshot, identities: IdentityScheme, where: Where
) -> list[Peer]:
    """The pods of a Service's selector, or the addresses of one without a selector."""
    found: list[Peer] = []
    for i, raw in enumerate(wanted):
        at = where.item(i)
        by_name = raw.get("k8sService")
        if not isinstance(by_name, dict):
            found.append(UnknownPeer(at.field, "k8sServiceSelector is not evaluated"))
            continue
        name, namespace = by_name.get("serviceName"), by_name.get("namespace")
        services = [
            s for s in snapshot.services if s.metadata.name == name and namespace in (None, "", s.metadata.namespace)
        ]
        for service in services:
            found += _backends(service, snapshot, identities, at)
        if not services:
            found.append(UnknownPeer(at.field, f"Service {name} is not among the objects"))
    return found


def _backends(service: Service, snapshot: ClusterSnapshot, identities: IdentityScheme, where: Where) -> list[Peer]:
    meta = service.metadata
    if service.spec.selector:
        terms = [LabelTerm("k8s", k, Operator.IN, (v,)) for k, v in service.spec.selector.items()]
        terms.append(LabelTerm("k8s", POD_NAMESPACE, Operator.IN, (meta.namespace,)))
        return [IdentityPeer(tuple(terms), identities, where.field, meta.namespace)]
    addresses = [
        address
        for item in snapshot.endpoint_slices
        if (item.metadata.namespace, item.service) == (meta.namespace, meta.name)
        for endpoint in item.endpoints
        for address in map(address_of, endpoint.addresses)
        if address is not None
    ]
    if not addresses:
        why = f"the addresses of Service {meta.namespace}/{meta.name} are not among the objects"
        return [UnknownPeer(where.field, why)]
    blocks = [Block(a.version, a.value, a.value, f"{a}/{32 if a.version == 4 else 128}") for a in addresses]
    return [BlockPeer(b, (), where.field, True) for b in blocks]
