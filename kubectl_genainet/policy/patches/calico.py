"""Calico's policies as patches: an Allow rule before the one that denies."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.model import Direction
from kubectl_genainet.policy.patches.proposal import ProposalContext, cleaned, free_name, single_address


def before_denying_rule(context: ProposalContext, obj: KubeObject, number: int) -> dict[str, Any]:
    """The policy with an Allow rule before its rule `number` (from 1)."""
    raw = cleaned(obj)
    side = context.direction.value
    rules = raw["spec"].get(side) or []
    raw["spec"][side] = [*rules[: number - 1], _rule(context, obj.namespace), *rules[number - 1 :]]
    return raw


def new_policy(context: ProposalContext, denying: KubeObject) -> dict[str, Any] | None:
    """A namespaced policy of the same tier that is consulted before the one that denies; None where none can be."""
    spec = denying.raw.get("spec") or {}
    order = spec.get("order")
    if isinstance(order, int | float) and order <= 0:
        return None
    tier = spec.get("tier") or "default"
    name = free_name(context)
    own = context.own
    made: dict[str, Any] = {"tier": tier} if tier != "default" else {}
    made |= {
        "order": order - 1 if isinstance(order, int | float) else 1000,
        "selector": _selector(context.labels.of(own)),
        "types": [context.direction.value.capitalize()],
        context.direction.value: [_rule(context, own.namespace)],
    }
    return {
        "apiVersion": denying.api_version,
        "kind": "NetworkPolicy",
        "metadata": {"name": name if tier == "default" else f"{tier}.{name}", "namespace": own.namespace},
        "spec": made,
    }


def _rule(context: ProposalContext, namespace: str) -> dict[str, Any]:
    """`namespace` is the policy's, "" for a global one."""
    peer, flow = context.peer, context.flow
    entity = _entity(context, peer, namespace)
    if context.direction is Direction.INGRESS:
        ends: dict[str, Any] = {"source": entity, "destination": {"ports": [flow.port]}}
    else:
        ends = {"destination": {**entity, "ports": [flow.port]}}
    return {"action": "Allow", "protocol": flow.protocol, **ends}


def _entity(context: ProposalContext, peer: PolicyParty, namespace: str) -> dict[str, Any]:
    if peer.kind is not PartyKind.POD:
        return {"nets": [single_address(peer)]}
    entity: dict[str, Any] = {"selector": _selector(context.labels.of(peer))}
    if peer.namespace != namespace:
        entity["namespaceSelector"] = f"projectcalico.org/name == '{peer.namespace}'"
    return entity


def _selector(labels: dict[str, str]) -> str:
    return " && ".join(f"{k} == '{v}'" for k, v in labels.items()) or "all()"
