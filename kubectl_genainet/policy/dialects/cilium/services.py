"""toServices: the backends of Services. Source: Cilium, pkg/policy/k8s/service.go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import Service
from kubectl_genainet.policy.identity import POD_NAMESPACE, IdentityPeer, IdentityScheme, LabelTerm
from kubectl_genainet.policy.matching.api_servers import addresses_in_endpoints
from kubectl_genainet.policy.matching.cidr import AddressBlock, address_of
from kubectl_genainet.policy.matching.peers import BlockPeer, Peer, UnknownPeer
from kubectl_genainet.policy.matching.selectors import Operator, RawSelector, Selector, selector_of
from kubectl_genainet.policy.where import Where

_SOURCE = re.compile("^(k8s|any)[:.]")


def service_peers(
    wanted: tuple[dict[str, Any], ...], snapshot: ClusterSnapshot, identities: IdentityScheme, where: Where
) -> list[Peer]:
    """The pods of a Service's selector, or the addresses of one without a selector."""
    peers: list[Peer] = []
    for i, raw in enumerate(wanted):
        service_field = where.item(i)
        by_name, by_labels = raw.get("k8sService"), raw.get("k8sServiceSelector")
        if isinstance(by_name, dict):
            services = [s for s in _within(by_name, snapshot) if s.metadata.name == by_name.get("serviceName")]
            text = f"Service {by_name.get('serviceName')} is"
        elif isinstance(by_labels, dict):
            selector = _selector(by_labels.get("selector"), service_field.at("k8sServiceSelector"))
            services = [s for s in _within(by_labels, snapshot) if selector.matches(s.metadata.labels)]
            text = f"Services with {selector} are"
        else:
            raise service_field.error("it needs k8sService or k8sServiceSelector")
        for service in services:
            peers += _backends(service, snapshot, identities, service_field)
        if not services:
            peers.append(UnknownPeer(service_field.field, f"{text} not among the objects"))
    return peers


def _within(wanted: dict[str, Any], snapshot: ClusterSnapshot) -> Iterator[Service]:
    namespace = wanted.get("namespace")
    return (s for s in snapshot.services if namespace in (None, "", s.metadata.namespace))


def _selector(raw: Any, where: Where) -> Selector:
    """A selector of Services by their labels, which may be written with the source k8s or any."""
    try:
        written = msgspec.convert(raw or {}, RawSelector)
    except msgspec.ValidationError as error:
        raise where.at("selector").error(str(error)) from None
    labels = {_SOURCE.sub("", key): value for key, value in written.match_labels.items()}
    expressions = tuple(
        msgspec.structs.replace(expression, key=_SOURCE.sub("", expression.key))
        for expression in written.match_expressions
    )
    return selector_of(RawSelector(labels, expressions), where.at("selector"))


def _backends(service: Service, snapshot: ClusterSnapshot, identities: IdentityScheme, where: Where) -> list[Peer]:
    meta = service.metadata
    if service.spec.selector:
        terms = [LabelTerm("k8s", k, Operator.IN, (v,)) for k, v in service.spec.selector.items()]
        terms.append(LabelTerm("k8s", POD_NAMESPACE, Operator.IN, (meta.namespace,)))
        return [IdentityPeer(tuple(terms), identities, where.field, meta.namespace)]
    in_slices = [
        text
        for item in snapshot.endpoint_slices
        if (item.metadata.namespace, item.service) == (meta.namespace, meta.name)
        for endpoint in item.endpoints
        for text in endpoint.addresses
    ]
    texts = in_slices or [ip for ip, _ in addresses_in_endpoints(snapshot, meta.namespace, meta.name)]
    addresses = [address for address in map(address_of, texts) if address is not None]
    if not addresses:
        why = f"the addresses of Service {meta.namespace}/{meta.name} are not among the objects"
        return [UnknownPeer(where.field, why)]
    blocks = [AddressBlock(a.version, a.value, a.value, f"{a}/{32 if a.version == 4 else 128}") for a in addresses]
    return [BlockPeer(b, (), where.field, True) for b in blocks]
