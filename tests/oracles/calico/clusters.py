"""Random clusters in the vocabulary of Calico's policies, for comparison with Calico's own engine."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

Raw = dict[str, Any]

NAMESPACES = {"a": {"team": "a"}, "b": {"team": "b", "env": "prod"}, "c": {}}
ACCOUNTS = {"default": {}, "clerk": {"role": "clerk"}}
OUTSIDE = ("203.0.113.9", "203.0.113.130", "198.51.100.7")
NODE = "192.168.0.1"
APPS = ("s", "c", "d")
PORTS = (80, 443, 8080, 9100, 53)


@dataclass
class Cluster:
    """Objects, and the flows to judge: (source, target, port, protocol). A pod is namespace/name."""

    objects: list[Raw] = field(default_factory=list)
    flows: list[tuple[str, str, int, str]] = field(default_factory=list)

    @property
    def addresses(self) -> dict[str, str]:
        """The address of each pod."""
        return {
            f"{o['metadata']['namespace']}/{o['metadata']['name']}": o["status"]["podIP"]
            for o in self.objects
            if o["kind"] == "Pod"
        }


class Maker:
    """Makes one cluster from a seed; the same seed makes the same one."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def some(self, *choices: Any) -> Any:
        return self.rng.choice(choices)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    # ---- the cluster

    def cluster(self, pods: int = 12, policies: int = 7, flows: int = 40) -> Cluster:
        made = Cluster()
        for name, labels in NAMESPACES.items():
            made.objects.append(_meta("v1", "Namespace", name, labels={**labels, "kubernetes.io/metadata.name": name}))
            made.objects += [_meta("v1", "ServiceAccount", a, name, labels) for a, labels in ACCOUNTS.items()]
        made.objects += [_tier("default", 1_000_000), _tier("first", 10), _tier("open", 20, "Pass")]
        made.objects += [_tier("kube-admin", 1_000, "Pass"), _tier("kube-baseline", 10_000_000, "Pass")]
        made.objects += [self._pod(i) for i in range(pods)]
        made.objects += _service(made)
        made.objects += [self._set(i) for i in range(self.some(0, 1, 3))]
        made.objects += [self._policy(i) for i in range(policies)]
        made.flows = [self._flow(made) for _ in range(flows)]
        return made

    def _pod(self, number: int) -> Raw:
        labels = {"app": self.some(*APPS)}
        if self.chance(0.5):
            labels["tier"] = self.some("x", "y")
        ports = self.some([], [("http", 80, "TCP")], [("http", 8080, "TCP"), ("dns", 53, "UDP")])
        ip = f"10.0.0.{number + 1}"
        return {
            **_meta("v1", "Pod", f"p{number}", self.some(*NAMESPACES), labels),
            "spec": {
                "nodeName": "n1",
                "serviceAccountName": self.some(*ACCOUNTS),
                "containers": [
                    {"name": "c", "ports": [{"name": n, "containerPort": p, "protocol": t} for n, p, t in ports]}
                ],
            },
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        }

    def _set(self, number: int) -> Raw:
        namespace = self.some("", *NAMESPACES)
        kind = "NetworkSet" if namespace else "GlobalNetworkSet"
        labels = {"app": self.some("s", "partners")}
        nets = self.some(["203.0.113.0/24"], ["198.51.100.0/24", "203.0.113.130/32"], [])
        return {**_meta("projectcalico.org/v3", kind, f"s{number}", namespace, labels), "spec": {"nets": nets}}

    def _flow(self, made: Cluster) -> tuple[str, str, int, str]:
        pods = list(made.addresses)
        source = self.some(*pods)
        ends = (source, self.some(*(pod for pod in (*pods, *pods, *OUTSIDE) if pod != source)))
        if self.chance(0.4):
            ends = ends[1], ends[0]
        return (*ends, self.some(*PORTS), self.some("TCP", "TCP", "UDP"))

    # ---- policies

    def _policy(self, number: int) -> Raw:
        if self.chance(0.25):
            return self._network_policy(number)
        if self.chance(0.2):
            return self._administrators(number)
        namespace = "" if self.chance(0.4) else self.some(*NAMESPACES)
        kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
        tier = self.some("default", "default", "default", "first", "open")
        name = f"c{number}" if tier == "default" else f"{tier}.c{number}"
        spec: Raw = {"tier": tier} if tier != "default" or self.chance(0.3) else {}
        if self.chance(0.7):
            spec["order"] = self.some(1, 10, 999, 1000, 1001, 10.5)
        spec["selector"] = self._selector() if self.chance(0.8) else self.some("", "all()")
        if not namespace and self.chance(0.3):
            spec["namespaceSelector"] = self._namespaces(subject=True)
        if self.chance(0.15):
            spec["serviceAccountSelector"] = self.some("role == 'clerk'", "all()", "!has(role)")
        if self.chance(0.6):
            spec["types"] = self.some(["Ingress"], ["Egress"], ["Ingress", "Egress"])
        for side in ("ingress", "egress"):
            if side.capitalize() in spec.get("types", ("Ingress", "Egress")) and self.chance(0.7):
                spec[side] = [self._rule() for _ in range(self.some(0, 1, 1, 2, 3))]
        return {**_meta("projectcalico.org/v3", kind, name, namespace), "spec": spec}

    def _rule(self) -> Raw:
        rule: Raw = {"action": self.some("Allow", "Allow", "Allow", "Deny", "Pass", "Log")}
        if self.chance(0.6):
            rule["protocol"] = self.some("TCP", "TCP", "UDP", "ICMP", 6, 17)
        if self.chance(0.08):
            rule["notProtocol"] = self.some("UDP", "TCP", 17)
        if self.chance(0.06):
            rule["ipVersion"] = self.some(4, 4, 4, 6)
        has_ports = rule.get("protocol") in ("TCP", "UDP", 6, 17) or self.chance(0.01)
        for side, share in (("source", 0.6), ("destination", 0.6)):
            if self.chance(share):
                entity = self._entity()
                if self.chance(0.06 if side == "destination" else 0.02):  # refused on the policy's own side
                    entity = {"services": {"name": "web", "namespace": "a"}}
                if side == "destination" and has_ports and "services" not in entity and self.chance(0.7):
                    entity["ports"] = [self._port() for _ in range(self.some(1, 1, 2))]
                if side == "destination" and has_ports and "services" not in entity and self.chance(0.1):
                    entity["notPorts"] = [self._port()]
                rule[side] = entity
        return rule

    def _port(self) -> int | str:
        found: int | str = self.some(80, 443, 8080, "http", "dns", "8000:9200", "53", 9100)
        return found

    def _entity(self) -> Raw:
        entity: Raw = {}
        match self.rng.randrange(10):
            case 0 | 1 | 2:
                entity["selector"] = self._selector()
            case 3:
                entity["namespaceSelector"] = self._namespaces()
            case 4:
                entity["selector"], entity["namespaceSelector"] = self._selector(), self._namespaces()
            case 5:
                entity["notSelector"] = self._selector()
            case 6:
                entity["serviceAccounts"] = self.some(
                    {"names": ["clerk"]}, {"selector": "role == 'clerk'"}, {"names": ["default"], "selector": "all()"}
                )
            case 7 | 8:
                entity["nets"] = [self._block() for _ in range(self.some(1, 2))]
            case _:
                pass
        if self.chance(0.1):
            entity["notNets"] = [self._block()]
        if self.chance(0.08):
            entity["notSelector"] = self._selector()
        return entity

    def _block(self) -> str:
        if self.chance(0.04):
            return str(self.some("10.0.0.3", "2001:db8::/32", "0.0.0.0/0"))  # mostly refused
        return str(self.some("203.0.113.0/24", "0.0.0.0/1", "198.51.100.0/24", "10.0.0.0/28", "203.0.113.9/32"))

    def _selector(self) -> str:
        return str(
            self.some(
                *(f"app == '{self.some(*APPS)}'",) * 4,
                "has(tier)",
                "!has(tier)",
                "app in {'s', 'c'}",
                "app not in {'s', 'd'}",
                "tier != 'x'",
                "app == 's' && tier == 'x'",
                "app == 's' || tier == 'y'",
                "!(app == 's') && has(app)",
                "app == 'partners'",
                "app contains 'art'",
                "app starts with 's'",
                "all()",
                "projectcalico.org/namespace == 'b'",
                "projectcalico.org/serviceaccount == 'clerk'",
                "projectcalico.org/orchestrator == 'k8s'",
            )
        )

    def _namespaces(self, *, subject: bool = False) -> str:
        if self.chance(0.05 if subject else 0.15):
            return "global()"  # refused in a subject
        return str(
            self.some(
                *("team == 'a'", "team == 'b'", "has(env)", "!has(team)", "all()"),
                *("projectcalico.org/name == 'c'", "kubernetes.io/metadata.name in {'a', 'b'}"),
            )
        )

    # ---- NetworkPolicy

    def _network_policy(self, number: int) -> Raw:
        types = self.some(["Ingress"], ["Egress"], ["Ingress", "Egress"])  # their default is the API server's to set
        spec: Raw = {"podSelector": self._plain_selector(), "policyTypes": types}
        for side, peers in (("ingress", "from"), ("egress", "to")):
            if self.chance(0.6):
                spec[side] = [self._np_rule(peers) for _ in range(self.some(0, 1, 1, 2))]
        return {**_meta("networking.k8s.io/v1", "NetworkPolicy", f"k{number}", self.some(*NAMESPACES)), "spec": spec}

    def _np_rule(self, peers: str) -> Raw:
        rule: Raw = {}
        if self.chance(0.8):
            rule[peers] = [self._np_peer() for _ in range(self.some(1, 1, 2))]
        if self.chance(0.5):
            rule["ports"] = [
                dict(
                    self.some(
                        {"port": 80},
                        {"port": "http"},
                        {"port": 53, "protocol": "UDP"},
                        {"port": 8000, "endPort": 9200},
                        {"protocol": "TCP"},
                        {"port": "dns", "protocol": "UDP"},
                    )
                )
                for _ in range(self.some(1, 2))
            ]
        return rule

    def _np_peer(self) -> Raw:
        if self.chance(0.3):
            return {"ipBlock": dict(self.some({"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25"]}, _BLOCK))}
        peer: Raw = {}
        if self.chance(0.6):
            peer["podSelector"] = self._plain_selector()
        if self.chance(0.5) or not peer:
            peer["namespaceSelector"] = self.some({}, {"matchLabels": {"team": "b"}})
        return peer

    # ---- ClusterNetworkPolicy

    def _administrators(self, number: int) -> Raw:
        spec: Raw = {
            "tier": self.some("Admin", "Admin", "Baseline"),
            "priority": number,
            "subject": self._pods(),
            "ingress": [self._admin_rule("from") for _ in range(self.some(0, 1, 2))],
            "egress": [self._admin_rule("to") for _ in range(self.some(0, 1, 2))],
        }
        return {**_meta("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", f"a{number}"), "spec": spec}

    def _admin_rule(self, side: str) -> Raw:
        rule: Raw = {
            "action": self.some("Accept", "Deny", "Pass"),
            side: [self._pods() for _ in range(self.some(1, 2))],
        }
        if side == "to" and self.chance(0.4):
            rule[side].append({"networks": [self.some("203.0.113.0/24", "0.0.0.0/0", "10.0.0.0/29")]})
        if self.chance(0.5):
            numbers = [{"number": self.some(*PORTS)}, {"range": {"start": 8000, "end": 9200}}]
            ports = [{"tcp": {"destinationPort": n}} for n in numbers] + [{"udp": {}}, {"destinationNamedPort": "http"}]
            rule["protocols"] = self.rng.sample(ports, self.some(1, 2))
        return rule

    def _pods(self) -> Raw:
        namespaces = self.some({}, {"matchLabels": {"team": self.some("a", "b")}})
        if self.chance(0.5):
            return {"namespaces": namespaces}
        return {"pods": {"namespaceSelector": namespaces, "podSelector": self._plain_selector()}}

    def _plain_selector(self) -> Raw:
        return dict(
            self.some(
                {},
                {"matchLabels": {"app": self.some(*APPS)}},
                {"matchExpressions": [{"key": "tier", "operator": self.some("Exists", "DoesNotExist")}]},
                {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["s"]}]},
            )
        )


_BLOCK = {"cidr": "0.0.0.0/0"}


def _meta(version: str, kind: str, name: str, namespace: str = "", labels: dict[str, str] | None = None) -> Raw:
    metadata: Raw = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _tier(name: str, order: float, default: str = "Deny") -> Raw:
    return {**_meta("projectcalico.org/v3", "Tier", name), "spec": {"order": order, "defaultAction": default}}


def _service(made: Cluster) -> list[Raw]:
    """A Service of the pods app=s in namespace a, with its endpoints."""
    pods = [o for o in made.objects if o["kind"] == "Pod" and o["metadata"]["namespace"] == "a"]
    ips = [o["status"]["podIP"] for o in pods if o["metadata"]["labels"]["app"] == "s"]
    service = _meta("v1", "Service", "web", "a")
    service["spec"] = {"selector": {"app": "s"}, "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}
    slices = _meta("discovery.k8s.io/v1", "EndpointSlice", "web-1", "a", {"kubernetes.io/service-name": "web"})
    endpoints = [{"addresses": [ip], "conditions": {"ready": True}} for ip in ips]
    ports = [{"port": 8080, "protocol": "TCP"}]
    return [service, {**slices, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}]
