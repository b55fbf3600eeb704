"""The lab's own NetworkPolicy enforcer: iptables chains in a node's filter table. It is no product's.

FORWARD jumps to LAB-FORWARD before anything else. A packet of a known connection is accepted there; the first packet
of a connection goes through the LAB-POD- chain of its source (egress) and of its destination (ingress), where these
pods are on the node and isolated. A pod's chain asks the LAB-POL- chain of each policy that isolates it, whose rules
mark what they admit, and ends in a DROP. Every comment names its pod or policy.

Semantics: networking.k8s.io/v1 NetworkPolicy (API reference). Service addresses are translated before FORWARD.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.lab.datapath.iptables import Tables, comment
from kubectl_genainet.lab.spec import AddressFamily, family_of
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import Pod

ADMITTED = "0x10000/0x10000"


@dataclass(frozen=True, slots=True)
class IsolatingPolicy:
    """A NetworkPolicy and the pods that it isolates, by direction."""

    namespace: str
    name: str
    spec: dict[str, Any]

    @property
    def types(self) -> tuple[str, ...]:
        """Without policyTypes: ingress, and egress where there is an egress section."""
        policy_types = self.spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in self.spec else [])]
        return tuple(str(t).lower() for t in policy_types)

    def isolates(self, pod: Pod, direction: str) -> bool:
        return (
            direction in self.types
            and pod.metadata.namespace == self.namespace
            and selector_matches(self.spec.get("podSelector", {}), pod.metadata.labels)
        )

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def selector_matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """metav1.LabelSelector; the empty one matches everything."""
    if any(labels.get(k) != v for k, v in selector.get("matchLabels", {}).items()):
        return False
    return all(_expression_matches(e, labels) for e in selector.get("matchExpressions", ()))


def _expression_matches(expression: dict[str, Any], labels: dict[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values", ())
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values  # the API: a pod without the key is selected too
        case "Exists":
            return value is not None
        case _:
            return value is None


def policy_chain(policy: str, direction: str) -> str:
    """The chain of "namespace/name" in one direction."""
    return "LAB-POL-" + _digest(f"{policy} {direction}")


def pod_chain(pod: str, direction: str) -> str:
    """The chain of the pod "namespace/name" in one direction."""
    return "LAB-POD-" + _digest(f"{pod} {direction}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16].upper()


def write_policies(tables: Tables, snapshot: ClusterSnapshot, node: str, family: AddressFamily) -> None:
    """Adds the chains of one node and address family to `tables`."""
    policies = [
        IsolatingPolicy(o.namespace, o.name, o.raw.get("spec", {}))
        for o in snapshot.of("NetworkPolicy", "networking.k8s.io")
    ]
    tables.prepend(
        "filter", "FORWARD", comment("genainet lab: NetworkPolicies as the lab itself enforces them"), "-j LAB-FORWARD"
    )
    tables.append(
        "filter",
        "LAB-FORWARD",
        comment("genainet lab: known connections"),
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    )
    written: set[str] = set()
    for direction in ("egress", "ingress"):
        for pod in _pods_on(snapshot, node):
            isolating = [p for p in policies if p.isolates(pod, direction)]
            ip = _ip(pod, family)
            if not isolating or not ip:
                continue
            _write_pod(tables, pod, ip, direction, isolating)
            for policy in isolating:
                if (chain := policy_chain(str(policy), direction)) not in written:
                    written.add(chain)
                    _write_policy(tables, snapshot, policy, direction, family, node)


def _pods_on(snapshot: ClusterSnapshot, node: str) -> Iterator[Pod]:
    return (p for p in snapshot.pods if p.spec.node_name == node and not p.spec.host_network and not p.finished)


def _ip(pod: Pod, family: AddressFamily) -> str:
    return next((ip for ip in pod.ips if family_of(ip) is family), "")


def _write_pod(tables: Tables, pod: Pod, ip: str, direction: str, isolating: list[IsolatingPolicy]) -> None:
    name = f"{pod.metadata.namespace}/{pod.metadata.name}"
    chain = pod_chain(name, direction)
    text = comment(f"genainet lab: pod {name} {direction}")
    tables.append("filter", "LAB-FORWARD", text, f"{'-d' if direction == 'ingress' else '-s'} {ip} -j {chain}")
    tables.append("filter", chain, f"-j MARK --set-xmark 0x0/{ADMITTED.partition('/')[2]}")
    for policy in isolating:
        tables.append(
            "filter",
            chain,
            comment(f"genainet lab: policy {policy} {direction}"),
            f"-j {policy_chain(str(policy), direction)}",
        )
        tables.append(
            "filter", chain, comment(f"genainet lab: admitted by {policy}"), f"-m mark --mark {ADMITTED} -j RETURN"
        )
    names = ", ".join(str(p) for p in isolating)
    reason = f"genainet lab: pod {name} is isolated ({direction}) by {names}: no rule admits"
    tables.append("filter", chain, comment(_cut(reason)), "-j DROP")


def _cut(text: str) -> str:
    """iptables takes comments of at most 255 characters."""
    return text if len(text) <= 255 else text[:252] + "..."


def _write_policy(
    tables: Tables, snapshot: ClusterSnapshot, policy: IsolatingPolicy, direction: str, family: AddressFamily, node: str
) -> None:
    chain = policy_chain(str(policy), direction)
    tables.chain("filter", chain)
    selected = [p for p in _pods_on(snapshot, node) if policy.isolates(p, direction)]
    for number, rule in enumerate(policy.spec.get(direction) or (), 1):
        text = comment(_cut(f"genainet lab: policy {policy} {direction} rule {number}"))
        for match in _rule_matches(snapshot, policy, rule, direction, family, selected):
            tables.append("filter", chain, text, *filter(None, [match]), f"-j MARK --set-xmark {ADMITTED}")


def _rule_matches(
    snapshot: ClusterSnapshot,
    policy: IsolatingPolicy,
    rule: dict[str, Any],
    direction: str,
    family: AddressFamily,
    selected: list[Pod],
) -> Iterator[str]:
    """iptables conditions, any of which is enough for the rule to admit a packet."""
    peers = rule.get("from" if direction == "ingress" else "to")
    flag = "-s" if direction == "ingress" else "-d"
    sources: list[str | Pod] = [""] if not peers else list(_peers(snapshot, policy, peers, family))
    for port in rule.get("ports") or [None]:
        for source in sources:
            peer = source if isinstance(source, str) else _ip(source, family)
            address = f"{flag} {peer}" if peer else ""
            if port is None:
                yield address
            elif not isinstance(port.get("port"), str):
                yield " ".join(filter(None, (address, _numbered_port(port))))
            elif direction == "ingress":
                for ip, match in _named_port(port, selected, family):
                    yield " ".join(filter(None, (address, f"-d {ip}", match)))
            else:
                pods = [source] if isinstance(source, Pod) else [p for p in snapshot.pods if _within(p, source, family)]
                for ip, match in _named_port(port, pods, family):
                    yield f"-d {ip} {match}"


def _peers(
    snapshot: ClusterSnapshot, policy: IsolatingPolicy, peers: Iterable[dict[str, Any]], family: AddressFamily
) -> Iterator[str | Pod]:
    """Pods and CIDRs that the peers select."""
    for peer in peers:
        if block := peer.get("ipBlock"):
            yield from _block(block, family)
            continue
        for pod in snapshot.pods:
            if pod.finished or pod.spec.host_network or not _ip(pod, family):
                continue
            namespace = pod.metadata.namespace
            if (selector := peer.get("namespaceSelector")) is None:
                in_namespace = namespace == policy.namespace
            else:
                in_namespace = selector_matches(selector, snapshot.namespace_labels(namespace))
            if in_namespace and selector_matches(peer.get("podSelector", {}), pod.metadata.labels):
                yield pod


def _block(block: dict[str, Any], family: AddressFamily) -> Iterator[str]:
    """The CIDRs of an ipBlock without its exceptions."""
    networks = [ipaddress.ip_network(block["cidr"], strict=False)]
    if (networks[0].version == 6) != (family is AddressFamily.IPV6):
        return
    for text in block.get("except", ()):
        hole: Any = ipaddress.ip_network(text, strict=False)
        networks = [
            remainder
            for network in networks
            for remainder in (
                network.address_exclude(hole)
                if hole.subnet_of(network)
                else []
                if network.subnet_of(hole)
                else [network]
            )
        ]
    yield from (str(n) for n in networks)


def _within(pod: Pod, cidr: str, family: AddressFamily) -> bool:
    """Whether the pod's address is in a CIDR; the empty one has all."""
    ip = _ip(pod, family)
    if pod.finished or pod.spec.host_network or not ip:
        return False
    return not cidr or ipaddress.ip_address(ip) in ipaddress.ip_network(cidr)


def _numbered_port(port: dict[str, Any]) -> str:
    match = f"-p {port.get('protocol', 'TCP').lower()}"
    if port.get("port") is None:
        return match
    return f"{match} --dport {port['port']}" + (f":{port['endPort']}" if port.get("endPort") else "")


def _named_port(port: dict[str, Any], pods: Iterable[Pod], family: AddressFamily) -> Iterator[tuple[str, str]]:
    """(address, condition) of each pod that declares the port: its number may be another on each."""
    protocol = port.get("protocol", "TCP").lower()
    for pod in pods:
        for declared in pod.ports:
            if declared.name == port["port"] and declared.protocol.lower() == protocol and _ip(pod, family):
                yield _ip(pod, family), f"-p {protocol} --dport {declared.container_port}"
