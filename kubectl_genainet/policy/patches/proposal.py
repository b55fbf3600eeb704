"""Policies and rules that admit one flow, as API objects: the narrowest that stay valid when pods are replaced."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import BUILT_HERE, MANAGED_BY_LABEL, KubeObject
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.party import PartyKind, PolicyParty
from kubectl_genainet.policy.matching.selectors import NAMESPACE_NAME_LABEL
from kubectl_genainet.policy.model import Direction, PolicyFlow
from kubectl_genainet.policy.patches.labels import PodLabels

_SERVER_FIELDS = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink")
# The most rules that the schema of a kind admits in one direction.
MOST_RULES = {"AdminNetworkPolicy": 100, "BaselineAdminNetworkPolicy": 100, "ClusterNetworkPolicy": 25}
_NAMING = ("app.kubernetes.io/name", "app", "k8s-app", "app.kubernetes.io/component", "name", "component")
_NESTED_NAMESPACES = frozenset({"namespaceSelector", "sameLabels", "notSameLabels"})
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class ProposalContext:
    """What proposals for one direction of one flow are made from."""

    engine: PolicyEngine
    labels: PodLabels
    flow: PolicyFlow
    direction: Direction
    own: PolicyParty
    peer: PolicyParty

    @property
    def side(self) -> str:
        """ "from" or "to"."""
        return "from" if self.direction is Direction.INGRESS else "to"


def cleaned(obj: KubeObject) -> dict[str, Any]:
    """A copy that `kubectl apply` takes: without status and the server's own metadata."""
    raw = copy.deepcopy(obj.raw)
    raw.pop("status", None)
    metadata = raw["metadata"]
    for name in _SERVER_FIELDS:
        metadata.pop(name, None)
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        annotations.pop(_LAST_APPLIED, None)
        if not annotations:
            del metadata["annotations"]
    if obj.labels.get(MANAGED_BY_LABEL) == BUILT_HERE:
        metadata["labels"].pop(MANAGED_BY_LABEL)
        if not metadata["labels"]:
            del metadata["labels"]
    spec = raw.setdefault("spec", {})
    if obj.kind == "NetworkPolicy" and obj.group == "networking.k8s.io":
        spec.setdefault("podSelector", {})  # required before Kubernetes 1.34
    return raw


def _pod_selector(context: ProposalContext, pod: PolicyParty) -> dict[str, Any]:
    labels = context.labels.of(pod)
    return {"matchLabels": labels} if labels else {}


def single_address(party: PolicyParty) -> str:
    assert party.address is not None
    return f"{party.address}/{32 if party.address.version == 4 else 128}"


def network_policy_rule(context: ProposalContext) -> dict[str, Any]:
    """A NetworkPolicy rule for this peer and port."""
    flow, own, peer = context.flow, context.own, context.peer
    if peer.kind is PartyKind.POD:
        selector: dict[str, Any] = {"podSelector": _pod_selector(context, peer)}
        if peer.namespace != own.namespace:
            selector = {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: peer.namespace}}, **selector}
    else:
        selector = {"ipBlock": {"cidr": single_address(peer)}}
    return {context.side: [selector], "ports": [{"protocol": flow.protocol, "port": flow.port}]}


def new_network_policy(context: ProposalContext) -> dict[str, Any]:
    """A NetworkPolicy that admits the flow to or from `own`."""
    own, direction = context.own, context.direction
    type_name = direction.value.capitalize()
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": free_name(context), "namespace": own.namespace},
        "spec": {
            "podSelector": _pod_selector(context, own),
            "policyTypes": [type_name],
            direction.value: [network_policy_rule(context)],
        },
    }


def allow_rule(context: ProposalContext, kind: str) -> dict[str, Any]:
    """A rule of an administrator's policy that allows this peer and port."""
    flow, peer = context.flow, context.peer
    if peer.kind is PartyKind.POD:
        pods = _pods(context, peer)
        if kind != "ClusterNetworkPolicy" and _peers_are_nested(context.engine.snapshot):
            pods = {"namespaces": {"namespaceSelector": pods["namespaceSelector"]}, "podSelector": pods["podSelector"]}
        selector: dict[str, Any] = {"pods": pods}
    else:
        selector = {"networks": [single_address(peer)]}
    rule: dict[str, Any] = {"name": f"allow-{_plain(context, peer)}"[:100], "action": "Allow", context.side: [selector]}
    if kind == "ClusterNetworkPolicy":
        port = {flow.protocol.lower(): {"destinationPort": {"number": flow.port}}}
        return {**rule, "action": "Accept", "protocols": [port]}
    return {**rule, "ports": [{"portNumber": {"protocol": flow.protocol, "port": flow.port}}]}


def _peers_are_nested(snapshot: ClusterSnapshot) -> bool:
    """Whether the API server has the peers of network-policy-api 0.1.1 and older (`pods: {namespaces: …}`): the first
    peer that shows it tells. Later ones refuse that shape, and older ones refuse today's."""
    for kind in ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy"):
        for obj in snapshot.of(kind, "policy.networking.k8s.io"):
            for pods in _peers_that_are_pods(obj.raw.get("spec")):
                return "namespaces" in pods
    return False


def _peers_that_are_pods(spec: Any) -> Iterator[dict[str, Any]]:
    sides = (("ingress", "from"), ("egress", "to")) if isinstance(spec, dict) else ()
    for direction, side in sides:
        for rule in spec.get(direction) or ():
            for peer in rule.get(side) or ():
                if isinstance(peer.get("pods"), dict):
                    yield peer["pods"]
                elif (peer.get("namespaces") or {}).keys() & _NESTED_NAMESPACES:
                    yield peer


def new_admin_policy(context: ProposalContext, denying: KubeObject) -> dict[str, Any] | None:
    """A policy of the same kind that goes before the one that denies; None where there can be none before it."""
    priority = denying.raw["spec"].get("priority")
    if not isinstance(priority, int):
        return None  # the baseline's only policy
    taken = {o.raw["spec"].get("priority") for o in context.engine.snapshot.by_kind[denying.kind] if "spec" in o.raw}
    free = next((p for p in range(priority - 1, -1, -1) if p not in taken), None)
    if free is None:
        return None
    spec: dict[str, Any] = {"priority": free, "subject": {"pods": _pods(context, context.own)}}
    if denying.kind == "ClusterNetworkPolicy":
        spec = {"tier": denying.raw["spec"]["tier"], **spec}
    spec[context.direction.value] = [allow_rule(context, denying.kind)]
    return {
        "apiVersion": denying.api_version,
        "kind": denying.kind,
        "metadata": {"name": free_name(context)},
        "spec": spec,
    }


def _pods(context: ProposalContext, pod: PolicyParty) -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: pod.namespace}},
        "podSelector": _pod_selector(context, pod),
    }


def free_name(context: ProposalContext) -> str:
    """A free object name: allow-OWN-from-PEER or allow-OWN-to-PEER."""
    base = f"allow-{_plain(context, context.own)[:24].rstrip('-')}-{context.side}-{_plain(context, context.peer)[:24]}".rstrip(
        "-"
    )
    taken = context.engine.policy_names
    return next(name for i in range(len(taken) + 1) if (name := f"{base}-{i}" if i else base) not in taken)


def _plain(context: ProposalContext, party: PolicyParty) -> str:
    """A short word for a party that fits into an object name: of the labels by which it is known."""
    own = party.name or party.domain or str(party.address)
    labels = context.labels.of(party) if party.kind is PartyKind.POD else {}
    text = next((labels[k] for k in _NAMING if labels.get(k)), next(iter(labels.values()), own))
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "pod"
