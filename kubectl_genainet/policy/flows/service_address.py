"""A pod's connection to a Service, under an enforcer that judges egress before address translation.

It sees the ClusterIP and the Service's port. A rule selects that address by its blocks, or where its selector of pods selects
the labels in the Service's own selector. Sources: Amazon EKS user guide, network policies, considerations;
amazon-network-policy-controller-k8s, pkg/resolvers/endpoints.go.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_genainet.model.kube import Service, ServicePort
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.cidr import address_of
from kubectl_genainet.policy.matching.party import NamedPort, PolicyParty
from kubectl_genainet.policy.model import Direction, PolicyFlow, PolicyVerdict


def why_it_may_differ(engine: PolicyEngine, flow: PolicyFlow, service: Service) -> str:
    """Why the client's egress policies may not say of the Service's address what they say of the pod; "" where they do."""
    own, peer = engine.ends(flow)
    after = engine.direction_of(flow, Direction.EGRESS, own, peer).verdict
    for address in _addresses(service, peer):
        for port in _ports(service, flow):
            seen = msgspec.structs.replace(flow, port=port.port)
            before = engine.direction_of(seen, Direction.EGRESS, own, _front(service, peer, address)).verdict
            if before is not after:
                return (
                    f"{engine.enforcer.title} judges what a pod sends before address translation: of {address}:{port.port} "
                    f"(Service {service.metadata.namespace}/{service.metadata.name}) its policies say "
                    f"{_SAYS[before]}, of the pod and port {flow.port} {_SAYS[after]}. A rule admits a Service by a block "
                    "with its ClusterIP, or by a selector of pods that selects the labels in the Service's selector, on "
                    "the Service's port"
                )
    return ""


_SAYS = {PolicyVerdict.ALLOW: "allow", PolicyVerdict.DENY: "deny", PolicyVerdict.UNKNOWN: "unknown"}


def _addresses(service: Service, peer: PolicyParty) -> Iterator[str]:
    """The ClusterIPs of the family that the flow uses."""
    for ip in service.cluster_ips:
        address = address_of(ip)
        if address is not None and (peer.address is None or peer.address.version == address.version):
            yield ip


def _ports(service: Service, flow: PolicyFlow) -> Iterator[ServicePort]:
    """The ports of the Service that may lead to the flow's."""
    for port in service.spec.ports:
        target = port.target_port or port.port
        if port.protocol == flow.protocol and (isinstance(target, str) or target == flow.port):
            yield port


def _front(service: Service, backend: PolicyParty, address: str) -> PolicyParty:
    """The Service as the peer that rules select."""
    ports = (
        NamedPort(name, port.protocol, port.port)
        for port in service.spec.ports
        for name in (port.name, port.target_port)
        if isinstance(name, str) and name
    )
    return msgspec.structs.replace(
        backend,
        text=f"Service {service.metadata.namespace}/{service.metadata.name}",
        name="",
        labels=service.spec.selector,
        address=address_of(address),
        node="",
        host_ip=None,
        ports=tuple(ports),
    )
