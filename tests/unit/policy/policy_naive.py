"""A second evaluator of NetworkPolicy, written for the tests alone: slow, plain, and without a line of the first.

Reads the API objects as they are. Pods are (namespace, labels, ip, ports); a peer outside the cluster is its address.
"""

from __future__ import annotations

import ipaddress
from typing import Any

Raw = dict[str, Any]


def admits(objects: list[Raw], source: str, target: str, protocol: str, port: int) -> bool:
    """Whether NetworkPolicies let a flow pass; ends are "namespace/pod" or an address."""
    if source == target:
        return True
    return direction(objects, "Egress", source, target, target, protocol, port) and direction(
        objects, "Ingress", target, source, target, protocol, port
    )


def direction(objects: list[Raw], kind: str, own: str, peer: str, target: str, protocol: str, port: int) -> bool:
    pods = {f"{o['metadata']['namespace']}/{o['metadata']['name']}": o for o in objects if o["kind"] == "Pod"}
    if own not in pods:
        return True
    namespace = pods[own]["metadata"]["namespace"]
    isolated = False
    for policy in objects:
        if policy["kind"] != "NetworkPolicy" or policy["metadata"]["namespace"] != namespace:
            continue
        spec = policy["spec"]
        types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
        if kind not in types or not selects(spec.get("podSelector", {}), pods[own]["metadata"]["labels"]):
            continue
        isolated = True
        for rule in spec.get(kind.lower()) or []:
            peers = rule.get("from" if kind == "Ingress" else "to") or []
            if peers and not any(peer_matches(objects, pods, namespace, p, peer) for p in peers):
                continue
            ports = rule.get("ports") or []
            if not ports or any(port_matches(p, pods.get(target), protocol, port) for p in ports):
                return True
    return not isolated


def peer_matches(objects: list[Raw], pods: dict[str, Raw], namespace: str, term: Raw, peer: str) -> bool:
    pod = pods.get(peer)
    if "ipBlock" in term:
        address = ipaddress.ip_address(pod["status"]["podIP"] if pod else peer)
        inside = address in ipaddress.ip_network(term["ipBlock"]["cidr"], strict=False)
        return inside and not any(
            address in ipaddress.ip_network(e, strict=False) for e in term["ipBlock"].get("except", [])
        )
    if pod is None:
        return False
    where = pod["metadata"]["namespace"]
    if "namespaceSelector" in term:
        labels = {"kubernetes.io/metadata.name": where}
        for obj in objects:
            if obj["kind"] == "Namespace" and obj["metadata"]["name"] == where:
                labels.update(obj["metadata"]["labels"])
        if not selects(term["namespaceSelector"], labels):
            return False
    elif where != namespace:
        return False
    return selects(term.get("podSelector", {}), pod["metadata"]["labels"])


def selects(selector: Raw, labels: dict[str, str]) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if key not in labels or labels[key] != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        key, operator, values = expression["key"], expression["operator"], expression.get("values", [])
        if operator == "In" and not (key in labels and labels[key] in values):
            return False
        if operator == "NotIn" and key in labels and labels[key] in values:
            return False
        if operator == "Exists" and key not in labels:
            return False
        if operator == "DoesNotExist" and key in labels:
            return False
    return True


def port_matches(term: Raw, target: Raw | None, protocol: str, port: int) -> bool:
    if term.get("protocol", "TCP") != protocol:
        return False
    wanted: Any = term.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        containers = target["spec"]["containers"] if target else []
        return any(
            p["name"] == wanted and p["protocol"] == protocol and p["containerPort"] == port
            for c in containers
            for p in c["ports"]
        )
    return bool(wanted <= port <= term.get("endPort", wanted))
