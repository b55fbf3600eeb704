"""What Calico's rules name besides selectors and nets: service accounts by labels, and the endpoints of Services.

Source: Calico documentation, "Service accounts in policy" and "Network policy", ServiceMatch.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import Service
from kubectl_genainet.policy.matching.cidr import AddressBlock, address_of
from kubectl_genainet.policy.matching.expressions import Expression
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.matching.peers import YES, AnyOfPeer, BlockPeer, Match, Peer, no
from kubectl_genainet.policy.model import Term
from kubectl_genainet.policy.rules import NumberedPorts

Accounts = Mapping[tuple[str, str], dict[str, str]]  # labels by namespace and name


def accounts_of(snapshot: ClusterSnapshot) -> Accounts:
    return {(o.namespace, o.name): dict(o.labels) for o in snapshot.of("ServiceAccount", "")}


class AccountLabelsPeer(msgspec.Struct, frozen=True):
    """Pods by the labels of their service account."""

    selector: Expression
    accounts: Accounts
    text: str
    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if party.kind is not PartyKind.POD:
            return no(Term.SERVICE_ACCOUNT, self.text, party.text, self.field)
        labels = self.accounts.get((party.namespace, party.service_account))
        if labels is None:
            account = f"{party.namespace}/{party.service_account}"
            return Match(None, why=f"the labels of ServiceAccount {account} are not known: it was not read")
        if self.selector.matches(labels):
            return YES
        return no(Term.SERVICE_ACCOUNT, self.text, party.service_account, self.field)


class ServicePodsPeer(msgspec.Struct, frozen=True):
    """The pods of a Service's selector."""

    name: str
    pods: frozenset[tuple[str, str]]
    field: str

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if party.kind is PartyKind.POD and (party.namespace, party.name) in self.pods:
            return YES
        return no(Term.ADDRESS, f"an endpoint of Service {self.name}", party.text, self.field)


def endpoints_of(
    snapshot: ClusterSnapshot, namespace: str, name: str, field: str
) -> tuple[Peer, tuple[NumberedPorts, ...]] | None:
    """The endpoints of a Service and the ports that they listen on; None where it was not read."""
    service = snapshot.service(namespace, name)
    if service is None:
        return None
    pods: set[tuple[str, str]] = set()
    addresses: set[str] = set()
    ports: dict[NumberedPorts, None] = {}
    for port in service.spec.ports:
        for backend in snapshot.backends(service, port):
            addresses.add(canonical_ip(backend.ip))
            ports[NumberedPorts(port.protocol, backend.port, backend.port, field)] = None
        if not snapshot.has_slices(service):
            for key, number in _selected(snapshot, service, port.target_port, port.port):
                pods.add(key)
                ports[NumberedPorts(port.protocol, number, number, field)] = None
    blocks = [
        AddressBlock(a.version, a.value, a.value, str(a)) for a in map(address_of, sorted(addresses)) if a is not None
    ]
    by_selector = ServicePodsPeer(f"{namespace}/{name}", frozenset(pods), field)
    return AnyOfPeer((by_selector, *(BlockPeer(block, (), field) for block in blocks))), tuple(ports)


def _selected(
    snapshot: ClusterSnapshot, service: Service, target: int | str, number: int
) -> list[tuple[tuple[str, str], int]]:
    """The pods of a Service's selector, each with the number of its target port."""
    wanted, endpoints = service.spec.selector.items(), []
    for pod in snapshot.pods:
        meta = pod.metadata
        if not wanted or meta.namespace != service.metadata.namespace or not wanted <= meta.labels.items():
            continue
        named = next((p.container_port for p in pod.ports if p.name == target), 0)
        target_port = (target or number) if isinstance(target, int) else named
        if target_port:
            endpoints.append(((meta.namespace, meta.name), target_port))
    return endpoints
