"""Random clusters whose packets a policy enforcer judges."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from typing import Any

from tests.oracles.calico.clusters import OUTSIDE, PORTS, Cluster, Maker, Raw, _meta

NODE, NODE6 = "172.31.0.2", "fd31::2"  # the first that joins the harness's underlay
CLUSTERS = 30
IPV6_CLUSTERS = 20
CALICO_CLUSTERS = 14
_NOT_PLAIN = ("Tier", "NetworkSet", "GlobalNetworkSet", "ServiceAccount", "Service", "EndpointSlice")


class PacketMaker(Maker):
    """The clusters of tests/oracles/calico, with flows to and from the node."""

    def cluster(self, pods: int = 12, policies: int = 7, flows: int = 60) -> Cluster:
        made = super().cluster(pods, policies, flows)
        names = list(made.addresses)
        made.flows += [(self.some(*names), NODE, self.some(*PORTS), "TCP") for _ in range(5)]
        made.flows += [(NODE, self.some(*names), self.some(*PORTS), "TCP") for _ in range(3)]
        # Outside there are several addresses, and an answer to a datagram comes from the first of them.
        made.flows = [f for f in dict.fromkeys(made.flows) if f[3] == "TCP" or f[1] not in (*OUTSIDE, NODE)]
        made.objects.append(
            {
                **_meta("v1", "Node", "n1"),
                "status": {"addresses": [{"type": "InternalIP", "address": NODE}]},
            }
        )
        return made


class PlainMaker(PacketMaker):
    """NetworkPolicies, AdminNetworkPolicies and a BaselineAdminNetworkPolicy."""

    def cluster(self, pods: int = 12, policies: int = 8, flows: int = 60) -> Cluster:
        made = super().cluster(pods, policies, flows)
        made.objects = [o for o in made.objects if o["kind"] not in _NOT_PLAIN]
        if self.chance(0.5):
            baseline = self._administrators(0)
            del baseline["spec"]["priority"]
            baseline["kind"], baseline["metadata"]["name"] = "BaselineAdminNetworkPolicy", "default"
            for rule in (*baseline["spec"]["ingress"], *baseline["spec"]["egress"]):
                rule["action"] = self.some("Allow", "Deny")
            made.objects.append(baseline)
        return made

    def _policy(self, number: int) -> Raw:
        return self._administrators(number) if self.chance(0.3) else self._network_policy(number)

    def _administrators(self, number: int) -> Raw:
        spec: Raw = {
            "priority": number,
            "subject": self._pods(),
            "ingress": [self._old_rule("from") for _ in range(self.some(0, 1, 2))],
            "egress": [self._old_rule("to") for _ in range(self.some(0, 1, 2))],
        }
        return {**_meta("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", f"a{number}"), "spec": spec}

    def _old_rule(self, side: str) -> Raw:
        rule: Raw = {"action": self.some("Allow", "Deny", "Pass"), side: [self._pods()]}
        if side == "to" and self.chance(0.4):
            rule[side].append({"networks": [self.some("203.0.113.0/24", "0.0.0.0/0", "10.0.0.0/29")]})
        if self.chance(0.5):
            ports: list[dict[str, Any]] = [
                {"portNumber": {"protocol": "TCP", "port": self.some(*PORTS)}},
                {"portRange": {"protocol": "TCP", "start": 8000, "end": 9200}},
                {"portNumber": {"protocol": "UDP", "port": 53}},
                {"namedPort": "http"},
            ]
            rule["ports"] = self.rng.sample(ports, self.some(1, 2))
        return rule


def plain_clusters() -> list[Cluster]:
    return [PlainMaker(8000 + number).cluster() for number in range(CLUSTERS)]


_IPV4 = re.compile(r"(\d+(?:\.\d+){3})(?:/(\d+))?")


def _as_ipv6(text: str) -> str:
    """Text with IPv6 in place of IPv4: an address keeps its bits as the last 32, a block its share of them."""

    def replaced(found: re.Match[str]) -> str:
        address, length = found.groups()
        if address == NODE:
            return NODE6
        if length == "0":
            return "::/0"
        embedded = ipaddress.IPv6Address(
            int(ipaddress.IPv6Address("2001:db8:4::")) + int(ipaddress.IPv4Address(address))
        )
        return f"{embedded}/{96 + int(length)}" if length else str(embedded)

    return _IPV4.sub(replaced, text)


OUTSIDE6 = tuple(map(_as_ipv6, OUTSIDE))


def plain_clusters_of_ipv6() -> list[Cluster]:
    """The same clusters with IPv6 addresses and blocks alone."""
    clusters = []
    for cluster in plain_clusters()[:IPV6_CLUSTERS]:
        objects, flows = json.loads(_as_ipv6(json.dumps([cluster.objects, cluster.flows])))
        clusters.append(
            Cluster(objects, [(source, target, port, protocol) for source, target, port, protocol in flows])
        )
    return clusters


def calico_clusters() -> list[Cluster]:
    """Each policy says its types: what writes them where they are left out is an API server's admission, which is not here."""
    clusters = [PacketMaker(8000 + number).cluster() for number in range(CALICO_CLUSTERS)]
    for cluster in clusters:
        for obj in cluster.objects:
            if obj["apiVersion"] == "projectcalico.org/v3" and "Policy" in obj["kind"]:
                obj["spec"].setdefault("types", ["Ingress", "Egress"])
    return clusters


def digest(clusters: list[Cluster]) -> str:
    text = json.dumps([(one.objects, one.flows) for one in clusters])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


__all__ = [
    "NODE",
    "NODE6",
    "OUTSIDE",
    "OUTSIDE6",
    "PORTS",
    "Cluster",
    "Raw",
    "calico_clusters",
    "digest",
    "plain_clusters",
    "plain_clusters_of_ipv6",
]
