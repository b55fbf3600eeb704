"""Random clusters in the vocabulary of Cilium's policies, for comparison with Cilium's own engine."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

Raw = dict[str, Any]

NAMESPACES = {"a": {"team": "a"}, "b": {"team": "b", "env": "prod"}, "c": {}}
NODES = ("n1", "n2", "n3")
API_SERVER_NODE = "n3"
OUTSIDE_API_SERVER = "198.51.100.77"
OUTSIDE = ("203.0.113.9", "203.0.113.130", "198.51.100.7", OUTSIDE_API_SERVER)
NAMES = ("api.openai.com", "cdn.huggingface.co", "a.b.huggingface.co", "huggingface.co")
APPS = ("s", "c", "d")
PORTS = (80, 443, 8080, 9100, 53)
# Labels that are no part of an identity by the default list, and some that look like them and are one.
OUTSIDE_IDENTITY = (
    *("controller-revision-hash", "apps.kubernetes.io/pod-index", "batch.kubernetes.io/job-completion-index"),
    *("batch.kubernetes.io/controller-uid", "controller-uid", "node.beta.kubernetes.io/x", "kubernetes.io/x"),
    *(
        "k8s.io/x",
        "topology.kubernetes.io/zone",
        "batch.kubernetes.io/job-name",
        "my.kubernetes.io/x",
        "pod-template-x",
    ),
)


@dataclass
class Cluster:
    """Objects, and the flows to judge: (source, target, port, protocol)."""

    objects: list[Raw] = field(default_factory=list)
    flows: list[tuple[str, str, int, str]] = field(default_factory=list)

    @property
    def policies(self) -> list[Raw]:
        kinds = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "CiliumCIDRGroup")
        return [o for o in self.objects if o["kind"] in kinds]


class Maker:
    """Makes one cluster from a seed; the same seed makes the same one."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def some(self, *choices: Any) -> Any:
        return self.rng.choice(choices)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    # ---- the cluster

    def cluster(self, pods: int = 12, policies: int = 6, flows: int = 40) -> Cluster:
        made = Cluster()
        for name, labels in NAMESPACES.items():
            made.objects.append(_meta("v1", "Namespace", name, labels={**labels, "kubernetes.io/metadata.name": name}))
        for i, name in enumerate(NODES):
            status = {"addresses": [{"type": "InternalIP", "address": f"192.168.0.{i + 1}"}]}
            made.objects.append({**_meta("v1", "Node", name, labels={"zone": name}), "status": status})
        made.objects.append(_api_servers())
        made.objects += [self._pod(i) for i in range(pods)]
        made.objects += [self._group(i) for i in range(self.some(0, 2))]
        made.objects += [self._policy(i) for i in range(policies)]
        made.flows = [self._flow(made) for _ in range(flows)]
        return made

    def _pod(self, number: int) -> Raw:
        namespace = self.some(*NAMESPACES)
        labels = {"app": self.some(*APPS)}
        if self.chance(0.5):
            labels["tier"] = self.some("x", "y")
        if self.chance(0.3):
            labels["app.kubernetes.io/name"] = "n"
        if self.chance(0.3):
            labels["statefulset.kubernetes.io/pod-name"] = f"p{number}"
        if self.chance(0.3):
            labels["pod-template-hash"] = "h"
        if self.chance(0.3):
            labels[self.some(*OUTSIDE_IDENTITY)] = "h"
        host = self.chance(0.15)
        node = self.some(*NODES)
        node_ip = f"192.168.0.{NODES.index(node) + 1}"
        ip = node_ip if host else f"10.0.0.{number + 1}"
        ports = self.some([], [("http", 80, "TCP")], [("http", 8080, "TCP"), ("dns", 53, "UDP")])
        return {
            **_meta("v1", "Pod", f"p{number}", namespace, labels),
            "spec": {
                "nodeName": node,
                "hostNetwork": host,
                "serviceAccountName": self.some("default", "clerk"),
                "containers": [
                    {"name": "c", "ports": [{"name": n, "containerPort": p, "protocol": t} for n, p, t in ports]}
                ],
            },
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": node_ip},
        }

    def _group(self, number: int) -> Raw:
        spec = {"externalCIDRs": self.some(["203.0.113.0/25"], ["198.51.100.0/24", "203.0.113.128/25"])}
        labels = {"kind": self.some("good", "bad")} if self.chance(0.8) else {}
        return {**_meta("cilium.io/v2", "CiliumCIDRGroup", f"g{number}", labels=labels), "spec": spec}

    def _flow(self, made: Cluster) -> tuple[str, str, int, str]:
        pods = [f"{o['metadata']['namespace']}/{o['metadata']['name']}" for o in made.objects if o["kind"] == "Pod"]
        nodes = [f"192.168.0.{i + 1}" for i in range(len(NODES))]
        ends = (self.some(*pods), self.some(*pods, *pods, *nodes, *OUTSIDE, *NAMES))
        if self.chance(0.4) and ends[1] not in NAMES:
            ends = ends[1], ends[0]
        return (*ends, self.some(*PORTS), self.some("TCP", "TCP", "TCP", "UDP"))

    # ---- policies

    def _policy(self, number: int) -> Raw:
        if self.chance(0.3):
            return self._network_policy(number)
        clusterwide = self.chance(0.25)
        namespace = "" if clusterwide else self.some(*NAMESPACES)
        kind = "CiliumClusterwideNetworkPolicy" if clusterwide else "CiliumNetworkPolicy"
        made = _meta("cilium.io/v2", kind, f"c{number}", namespace)
        if self.chance(0.1):
            made["specs"] = [self._spec() for _ in range(self.some(2, 2, 2, 0))]
        else:
            made["spec"] = self._spec()
        return made

    def _spec(self) -> Raw:
        spec: Raw = {"endpointSelector": self._selector(subject=True)}
        for side, share in (("ingress", 0.6), ("egress", 0.6), ("ingressDeny", 0.2), ("egressDeny", 0.2)):
            if self.chance(share):
                count = self.some(1, 1, 2, 0) if "Deny" not in side else 1
                spec[side] = [self._rule(side) for _ in range(count)]
        if self.chance(0.15):
            spec["enableDefaultDeny"] = {self.some("ingress", "egress"): self.some(True, False)}
        return spec

    def _rule(self, side: str) -> Raw:
        rule: Raw = {}
        prefix = "from" if side.startswith("ingress") else "to"
        for _ in range(2 if self.chance(0.06) else 1):
            rule.update(self._peers(prefix, side))
        if self.chance(0.5):
            rule["toPorts"] = self._port_rules(side)
        if self.chance(0.05):
            rule["icmps"] = self.some([], [{"fields": [{"type": 8, "family": "IPv4"}]}])
        return rule

    def _peers(self, prefix: str, side: str) -> Raw:
        match self.rng.randrange(13):
            case 0 | 1 | 2 | 3:
                return {f"{prefix}Endpoints": [self._selector() for _ in range(self.some(1, 1, 2, 0))]}
            case 4:
                return {f"{prefix}CIDR": [self._block() for _ in range(self.some(1, 2, 0))]}
            case 5 | 6:
                return {f"{prefix}CIDRSet": [self._cidr_rule() for _ in range(self.some(1, 1, 2, 0))]}
            case 7 | 8 | 9:
                return {f"{prefix}Entities": [self._entity() for _ in range(self.some(1, 1, 2, 0))]}
            case 10 if side == "egress":
                return {"toFQDNs": [self._fqdn() for _ in range(self.some(1, 1, 0))]}
            case 11:
                if self.chance(0.2):
                    return {f"{prefix}Nodes": self.some([{}], [], [{"matchLabels": {"zone": "n1"}}])}
                if side == "egress" and self.chance(0.3):
                    return dict(self.some({"toServices": []}, {"toGroups": []}))
                return {}
            case _:
                return {}

    def _entity(self) -> str:
        return str(
            self.some(
                *("all", "world", "cluster", "host", "remote-node", "kube-apiserver", "none", "cluster-mesh"),
                *("world-ipv4", "health", "world", "cluster", "init", "ingress", "unmanaged"),
            )
        )

    def _fqdn(self) -> Raw:
        if self.chance(0.4):
            return {"matchName": self.some(*NAMES, "API.openai.com.")}
        return {
            "matchPattern": self.some(
                "*",
                "**",
                "*.huggingface.co",
                "**.huggingface.co",
                "*ingface.co",
                "a*.openai.*",
                "**.",
                "*.*.huggingface.co",
            )
        }

    def _block(self) -> str:
        return str(
            self.some(
                *("203.0.113.0/24", "0.0.0.0/0", "198.51.100.0/24", "10.0.0.0/8", "192.168.0.0/16", "203.0.113.9/32"),
                *("203.0.113.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "0.0.0.0/1", "10.0.0.3/32"),
                *("::ffff:203.0.113.0/120", "128.0.0.0/1"),
            )
        )

    def _cidr_rule(self) -> Raw:
        if self.chance(0.2):
            return {"cidrGroupRef": self.some("g0", "g1")}
        if self.chance(0.2):
            return {
                "cidrGroupSelector": self.some(
                    {"matchLabels": {"kind": "good"}},
                    {"matchExpressions": [{"key": "kind", "operator": "NotIn", "values": ["bad"]}]},
                    {"matchExpressions": [{"key": "kind", "operator": "Exists"}]},
                )
            }
        rule: Raw = {"cidr": self._block()}
        if self.chance(0.4):
            rule["except"] = [self.some("203.0.113.128/25", "203.0.113.9/32", rule["cidr"])]
        return rule

    def _selector(self, *, subject: bool = False) -> Raw:
        labels: dict[str, str] = {}
        expressions: list[Raw] = []
        for _ in range(self.some(0, 1, 1, 1, 2)):
            key, value = self._label()
            operator = self.some("", "", "", "In", "NotIn", "Exists", "DoesNotExist")
            if not operator:
                labels[key] = value
            else:
                values = {"values": [value]} if operator in ("In", "NotIn") else {}
                expressions.append({"key": key, "operator": operator, **values})
        if subject and self.chance(0.5):
            return {"matchLabels": {"app": self.some(*APPS)}}
        made: Raw = {}
        if labels:
            made["matchLabels"] = labels
        if expressions:
            made["matchExpressions"] = expressions
        return made

    def _label(self) -> tuple[str, str]:
        source = self.some("", "", "", "k8s:", "any:")
        key, value = self.some(
            *(("app", self.some(*APPS)),) * 4,
            ("tier", "x"),
            ("app.kubernetes.io/name", "n"),
            ("io.kubernetes.pod.namespace", self.some(*NAMESPACES)),
            ("io.kubernetes.pod.namespace", self.some(*NAMESPACES)),
            ("io.cilium.k8s.namespace.labels.team", self.some("a", "b")),
            ("io.cilium.k8s.policy.serviceaccount", self.some("default", "clerk")),
            ("io.cilium.k8s.policy.cluster", self.some("default", "other")),
            ("statefulset.kubernetes.io/pod-name", "p1"),
            ("pod-template-hash", "h"),
            (self.some(*OUTSIDE_IDENTITY), "h"),
            ("reserved:" + self.some("host", "remote-node", "world", "kube-apiserver", "init"), ""),
            ("container:app", "s"),
        )
        return (key if ":" in key else source + key), value

    def _port_rules(self, side: str) -> list[Raw]:
        return [self._port_rule(side) for _ in range(self.some(1, 1, 1, 2, 0))]

    def _port_rule(self, side: str) -> Raw:
        if self.chance(0.05):
            http = {"rules": {"http": [{"method": "GET"}]}} if "Deny" not in side else {}
            return dict(self.some({}, {"ports": []}, http))
        rule: Raw = {"ports": [self._port() for _ in range(self.some(1, 1, 2))]}
        if side == "egress" and self.chance(0.15):
            rule = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}
        elif "Deny" not in side and self.chance(0.08):
            rule["rules"] = {"http": [{"method": "GET"}]}
        return rule

    def _port(self) -> Raw:
        port: Raw = {"port": self.some("80", "443", "8080", "0", "http", "HTTP", "dns", "53", "0120", "9100")}
        if self.chance(0.03):
            port["port"] = self.some("080", "")
        if self.chance(0.03):
            del port["port"]
        if self.chance(0.2):
            port["endPort"] = self.some(90, 10000, 8080)
        if self.chance(0.8):
            port["protocol"] = self.some("TCP", "TCP", "UDP", "ANY", "SCTP")
        return port

    # ---- NetworkPolicy

    def _network_policy(self, number: int) -> Raw:
        made = _meta("networking.k8s.io/v1", "NetworkPolicy", f"k{number}", self.some(*NAMESPACES))
        spec: Raw = {"podSelector": self._plain_selector()}
        if self.chance(0.7):
            spec["policyTypes"] = self.some(["Ingress"], ["Egress"], ["Ingress", "Egress"])
        for side in ("ingress", "egress"):
            if self.chance(0.6):
                spec[side] = [
                    self._np_rule("from" if side == "ingress" else "to") for _ in range(self.some(0, 1, 1, 2))
                ]
        return {**made, "spec": spec}

    def _np_rule(self, prefix: str) -> Raw:
        rule: Raw = {}
        if self.chance(0.8):
            rule[prefix] = [self._np_peer() for _ in range(self.some(1, 1, 2))]
        if self.chance(0.5):
            rule["ports"] = [self._np_port() for _ in range(self.some(1, 2))]
        return rule

    def _np_peer(self) -> Raw:
        if self.chance(0.3):
            block: Raw = {"cidr": self._block()}
            if block["cidr"] == "203.0.113.0/24" and self.chance(0.5):
                block["except"] = ["203.0.113.128/25"]
            return {"ipBlock": block}
        peer: Raw = {}
        if self.chance(0.6):
            peer["podSelector"] = self._plain_selector()
        if self.chance(0.5) or not peer:
            peer["namespaceSelector"] = self.some(
                {},
                {"matchLabels": {"team": "b"}},
                {"matchLabels": {"kubernetes.io/metadata.name": "a"}},
                {"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]},
            )
        return peer

    def _np_port(self) -> Raw:
        return dict(
            self.some(
                {"port": 80},
                {"port": 443, "protocol": "TCP"},
                {"port": "http"},
                {"port": 53, "protocol": "UDP"},
                {"port": 8000, "endPort": 9200},
                {"protocol": "TCP"},
                {"port": "dns", "protocol": "UDP"},
                {"port": "http", "protocol": "UDP"},
                {"port": 9100, "protocol": "SCTP"},
                {"port": 1, "endPort": 65535},
            )
        )

    def _plain_selector(self) -> Raw:
        return dict(
            self.some(
                {},
                {"matchLabels": {"app": self.some(*APPS)}},
                {"matchLabels": {"app": self.some(*APPS), "tier": "x"}},
                {"matchExpressions": [{"key": "tier", "operator": self.some("Exists", "DoesNotExist")}]},
                {"matchLabels": {self.some("pod-template-hash", *OUTSIDE_IDENTITY): "h"}},
                {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["s"]}]},
            )
        )


def _meta(version: str, kind: str, name: str, namespace: str = "", labels: dict[str, str] | None = None) -> Raw:
    metadata: Raw = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _api_servers() -> Raw:
    addresses = [f"192.168.0.{NODES.index(API_SERVER_NODE) + 1}", OUTSIDE_API_SERVER]
    return {
        **_meta("discovery.k8s.io/v1", "EndpointSlice", "kubernetes", "default"),
        "addressType": "IPv4",
        "endpoints": [{"addresses": addresses}],
        "ports": [{"port": 6443}],
    }
