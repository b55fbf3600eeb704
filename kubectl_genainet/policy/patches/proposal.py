"""Policies and rules that admit one flow, as API objects: the narrowest that stay valid when pods are replaced."""

from __future__ import annotations

import copy
import re
from itertools import combinations
from typing import Any

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.model import Direction, PolicyFlow
from kubectl_genainet.policy.party import Party, PartyKind
from kubectl_genainet.policy.peers import PodsPeer
from kubectl_genainet.policy.selectors import NAMESPACE_NAME_LABEL, Operator, Requirement, Selector

# Set by controllers, and different for the next pod of the same workload.
_PASSING = re.compile(
    r"pod-template-hash|controller-revision-hash|pod-template-generation|job-name|controller-uid"
    r"|statefulset\.kubernetes\.io/pod-name|apps\.kubernetes\.io/pod-index|batch\.kubernetes\.io/.*"
)
_PREFERRED = ("app.kubernetes.io/name", "app", "k8s-app", "app.kubernetes.io/component", "name", "component")
_SERVER_FIELDS = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


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
    raw.setdefault("spec", {})
    return raw


def lasting_labels(pod: Party) -> dict[str, str]:
    """The labels that the next pod of the same workload will have too; all labels where there are no others."""
    return {k: v for k, v in pod.labels.items() if not _PASSING.fullmatch(k)} or dict(pod.labels)


def narrow_labels(engine: PolicyEngine, pod: Party) -> dict[str, str]:
    """The fewest labels that select what all lasting labels of the pod select in its namespace."""
    lasting = lasting_labels(pod)
    order = {key: i for i, key in enumerate(_PREFERRED)}
    keys = sorted(lasting, key=lambda k: (order.get(k, len(order)), k))
    least = _selected(engine, pod, lasting)
    for size in (1, 2):
        for chosen in combinations(keys, size):
            labels = {k: lasting[k] for k in chosen}
            if _selected(engine, pod, labels) == least:
                return labels
    return {k: lasting[k] for k in keys}


def _selected(engine: PolicyEngine, pod: Party, labels: dict[str, str]) -> int:
    requirements = tuple(Requirement(k, Operator.IN, (v,)) for k, v in labels.items())
    return engine.rows.classes.pods_in(PodsPeer(Selector(requirements), namespace=pod.namespace))


def _pod_selector(engine: PolicyEngine, pod: Party) -> dict[str, Any]:
    labels = narrow_labels(engine, pod)
    return {"matchLabels": labels} if labels else {}


def _single_address(party: Party) -> str:
    assert party.address is not None
    return f"{party.address}/{32 if party.address.version == 4 else 128}"


def network_policy_rule(
    engine: PolicyEngine, flow: PolicyFlow, direction: Direction, own: Party, peer: Party
) -> dict[str, Any]:
    """A NetworkPolicy rule for this peer and port."""
    if peer.kind is PartyKind.POD:
        selector: dict[str, Any] = {"podSelector": _pod_selector(engine, peer)}
        if peer.namespace != own.namespace:
            selector = {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: peer.namespace}}, **selector}
    else:
        selector = {"ipBlock": {"cidr": _single_address(peer)}}
    side = "from" if direction is Direction.INGRESS else "to"
    return {side: [selector], "ports": [{"protocol": flow.protocol, "port": flow.port}]}


def new_network_policy(
    engine: PolicyEngine, flow: PolicyFlow, direction: Direction, own: Party, peer: Party
) -> dict[str, Any]:
    """A NetworkPolicy that admits the flow to or from `own`."""
    type_name = direction.value.capitalize()
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": _name(engine, direction, own, peer), "namespace": own.namespace},
        "spec": {
            "podSelector": _pod_selector(engine, own),
            "policyTypes": [type_name],
            direction.value: [network_policy_rule(engine, flow, direction, own, peer)],
        },
    }


def allow_rule(engine: PolicyEngine, kind: str, flow: PolicyFlow, direction: Direction, peer: Party) -> dict[str, Any]:
    """A rule of an administrator's policy that allows this peer and port."""
    if peer.kind is PartyKind.POD:
        selector: dict[str, Any] = {"pods": _pods(engine, peer)}
    else:
        selector = {"networks": [_single_address(peer)]}
    side = "from" if direction is Direction.INGRESS else "to"
    rule: dict[str, Any] = {"name": f"allow-{_plain(peer)}"[:100], "action": "Allow", side: [selector]}
    if kind == "ClusterNetworkPolicy":
        port = {flow.protocol.lower(): {"destinationPort": {"number": flow.port}}}
        return {**rule, "action": "Accept", "protocols": [port]}
    return {**rule, "ports": [{"portNumber": {"protocol": flow.protocol, "port": flow.port}}]}


def new_admin_policy(
    engine: PolicyEngine, denying: KubeObject, flow: PolicyFlow, direction: Direction, own: Party, peer: Party
) -> dict[str, Any] | None:
    """A policy of the same kind that goes before the one that denies; None where there can be none before it."""
    priority = denying.raw["spec"].get("priority")
    if not isinstance(priority, int):
        return None  # the baseline's only policy
    taken = {o.raw["spec"].get("priority") for o in engine.snapshot.by_kind[denying.kind] if "spec" in o.raw}
    free = next((p for p in range(priority - 1, -1, -1) if p not in taken), None)
    if free is None:
        return None
    spec: dict[str, Any] = {"priority": free, "subject": {"pods": _pods(engine, own)}}
    if denying.kind == "ClusterNetworkPolicy":
        spec = {"tier": denying.raw["spec"]["tier"], **spec}
    spec[direction.value] = [allow_rule(engine, denying.kind, flow, direction, peer)]
    return {
        "apiVersion": denying.api_version,
        "kind": denying.kind,
        "metadata": {"name": _name(engine, direction, own, peer)},
        "spec": spec,
    }


def _pods(engine: PolicyEngine, pod: Party) -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: pod.namespace}},
        "podSelector": _pod_selector(engine, pod),
    }


def _name(engine: PolicyEngine, direction: Direction, own: Party, peer: Party) -> str:
    """A free object name: allow-OWN-from-PEER or allow-OWN-to-PEER."""
    word = "from" if direction is Direction.INGRESS else "to"
    base = f"allow-{_plain(own)[:24].rstrip('-')}-{word}-{_plain(peer)[:24]}".rstrip("-")
    taken = {o.name for o in engine.snapshot.objects if "Policy" in o.kind}
    return next(name for i in range(len(taken) + 1) if (name := f"{base}-{i}" if i else base) not in taken)


def _plain(party: Party) -> str:
    """A short word for a party that fits into an object name."""
    text = next((party.labels[k] for k in _PREFERRED if party.labels.get(k)), party.name or str(party.address))
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "pod"
