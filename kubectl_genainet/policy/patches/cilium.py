"""Cilium's own policies as patches, where a NetworkPolicy can't admit a flow: nodes, API servers, domain names."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.identity import POD_NAMESPACE
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import Direction
from kubectl_genainet.policy.patches.proposal import ProposalContext, cleaned, free_name, single_address

_RESOLVERS = ("kube-dns", "rke2-coredns-rke2-coredns", "dns-default")


def rules_for(context: ProposalContext) -> list[dict[str, Any]]:
    """The rules that admit the peer on its port; for a domain name with the DNS rule that lets the agent learn it."""
    flow, peer, side = context.flow, context.peer, context.side
    ports = [{"ports": [{"port": str(flow.port), "protocol": flow.protocol}]}]
    if peer.kind is PartyKind.POD:
        labels = dict(context.labels.of(peer))
        if peer.namespace != context.own.namespace:
            labels = {f"k8s:{POD_NAMESPACE}": peer.namespace, **labels}
        return [{f"{side}Endpoints": [{"matchLabels": labels} if labels else {}], "toPorts": ports}]
    entity = _entity(context)
    if entity:
        return [{f"{side}Entities": [entity], "toPorts": ports}]
    if peer.domain and context.direction is Direction.EGRESS:
        return [{"toFQDNs": [{"matchName": peer.domain}], "toPorts": ports}, _dns_rule(context)]
    return [{f"{side}CIDRSet": [{"cidr": single_address(peer)}], "toPorts": ports}]


def needed(context: ProposalContext) -> bool:
    """Whether only Cilium's own policies can name the peer: Cilium enforces, and it is no pod and no plain address."""
    return context.engine.identities is not None and (
        bool(_entity(context)) or (bool(context.peer.domain) and context.direction is Direction.EGRESS)
    )


def new_policy(context: ProposalContext) -> dict[str, Any]:
    labels = context.labels.of(context.own)
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": free_name(context), "namespace": context.own.namespace},
        "spec": {
            "endpointSelector": {"matchLabels": labels} if labels else {},
            context.direction.value: rules_for(context),
        },
    }


def with_rules(context: ProposalContext, obj: KubeObject) -> dict[str, Any] | None:
    """A policy with the rules added to its only spec; None where it has several."""
    raw = cleaned(obj)
    if "specs" in raw or not isinstance(raw["spec"], dict):
        return None
    side = context.direction.value
    raw["spec"][side] = [*(raw["spec"].get(side) or []), *rules_for(context)]
    return raw


def _entity(context: ProposalContext) -> str:
    """The entity that is the peer and no more than that: the API server, the own node or other nodes."""
    peer, own, identities = context.peer, context.own, context.engine.identities
    if identities is None or peer.kind is PartyKind.POD:
        return ""
    if identities.reserved("kube-apiserver", peer, own).present:
        return "kube-apiserver"
    if peer.kind is PartyKind.OUTSIDE:
        return ""
    return "host" if peer.runs(own) else "remote-node"


def _dns_rule(context: ProposalContext) -> dict[str, Any]:
    namespace, labels = _resolver_pods(context)
    selector = {f"k8s:{POD_NAMESPACE}": namespace, **labels}
    ports = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}
    return {"toEndpoints": [{"matchLabels": selector}], "toPorts": [ports]}


def _resolver_pods(context: ProposalContext) -> tuple[str, dict[str, str]]:
    """The cluster's DNS pods, by the selector of their Service."""
    for service in context.engine.snapshot.services:
        if service.metadata.name in _RESOLVERS and service.spec.selector:
            return service.metadata.namespace, dict(service.spec.selector)
    return "kube-system", {"k8s-app": "kube-dns"}
