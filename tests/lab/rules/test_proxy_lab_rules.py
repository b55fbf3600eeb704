"""The lab's own rules for Services of every kind, in both modes: every evaluation agrees with what real packets do."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.lab.api.endpoints import allocate
from kubectl_genainet.lab.datapath.iptables import Tables
from kubectl_genainet.lab.datapath.kube_proxy import write_iptables, write_kubelet_firewall
from kubectl_genainet.lab.datapath.kube_proxy_input import ProxyNode
from kubectl_genainet.lab.datapath.kube_proxy_nft import write_nftables
from kubectl_genainet.lab.datapath.rules import snapshot_of
from kubectl_genainet.lab.spec import AddressFamily, LabSpec, ProxyMode
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.proxy import RulesetVerdict, compare, evaluate
from kubectl_genainet.proxy.dumps.forms import dump_of
from kubectl_genainet.proxy.ruleset import Ruleset, parse_ruleset
from tests.proxy_services import (
    NAMESPACE,
    NODE,
    SERVICES,
    all_flows,
    disagreement,
    endpoint_slices,
    endpoints,
    from_another_node,
    packet_of,
    sent,
)
from tests.proxy_services import write_dump as write
from tests.proxy_traffic import Namespace, Traffic, inside

NODE_IP, NODE_IP6 = "172.31.0.2", "fd31::2"
FAMILIES = (AddressFamily.IPV4, AddressFamily.IPV6)


def objects() -> list[dict[str, Any]]:
    services: list[dict[str, Any]] = []
    for name, spec, _, balancer in SERVICES:
        spec = copy.deepcopy(spec)
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec,
        }
        if balancer:
            service["status"] = {"loadBalancer": {"ingress": [{"ip": ip} for ip in balancer]}}
        services.append(service)
    made = allocate(LabSpec(name="rules", families=FAMILIES), services)
    for service, (*_, balancer) in zip(made, SERVICES, strict=True):
        if balancer:  # the addresses that the flows know
            service["status"] = {"loadBalancer": {"ingress": [{"ip": ip} for ip in balancer]}}
    return made + [s for name, spec, suffixes, _ in SERVICES for s in endpoint_slices(name, spec, suffixes)]


class Loaded:
    """A node's namespace with the lab's rules of one mode, and traffic around it."""

    def __init__(self, mode: ProxyMode) -> None:
        self.mode = mode
        made = objects()
        self.snapshot: ClusterSnapshot = snapshot_of(made)
        self.services = {o["metadata"]["name"]: o for o in made if o["kind"] == "Service"}
        self.node = Namespace("lab-rules")
        try:
            for ip in (NODE_IP, NODE_IP6):
                inside(self.node.name, "ip", "addr", "add", ip, "dev", "lo")
            self._load()
            self.traffic = Traffic(self.node.name, endpoints())
        except BaseException:
            self.node.delete()
            raise

    def _load(self) -> None:
        for family, ip in zip(FAMILIES, (NODE_IP, NODE_IP6), strict=True):
            node = ProxyNode(NODE, family, (ip,), family.cluster_cidr, family.service_cidr)
            tables = Tables()
            if self.mode is ProxyMode.IPTABLES:
                write_iptables(tables, self.snapshot, node)
            else:
                write_kubelet_firewall(tables, family)
                inside(self.node.name, "nft", "-f", "-", stdin=write_nftables(self.snapshot, node))
            restore = "ip6tables-restore" if family is AddressFamily.IPV6 else "iptables-restore"
            inside(self.node.name, restore, stdin=tables.restore_text())

    def texts(self) -> dict[str, str]:
        name = self.node.name
        found = {
            "iptables.txt": inside(name, "iptables-save", "-c"),
            "ip6tables.txt": inside(name, "ip6tables-save", "-c"),
        }
        return (
            found
            if self.mode is ProxyMode.IPTABLES
            else {**found, "nft.json": inside(name, "nft", "-j", "list", "ruleset")}
        )

    def ruleset(self) -> Ruleset:
        dumps = [dump_of(text, node=NODE, name=name) for name, text in self.texts().items()]
        return parse_ruleset(dumps, node_ips=self.traffic.node_ips())

    def stop(self) -> None:
        self.traffic.stop()
        self.node.delete()


@pytest.fixture(scope="module", params=list(ProxyMode), ids=lambda m: m.value)
def loaded(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    found = Loaded(request.param)
    yield found
    found.stop()


def test_every_evaluation_agrees_with_real_packets(loaded: Loaded) -> None:
    ruleset = loaded.ruleset()
    flows = [f for f in all_flows(loaded.services, NODE_IP, NODE_IP6) if not from_another_node(f)]
    said = [evaluate(ruleset, packet_of(flow)) for flow in flows]
    came = sent(loaded.traffic, flows, said)
    problems = [disagreement(*case) for case in zip(flows, said, came, strict=True)]
    wrong = [f"{f}: {c['end']}, {p}" for f, c, p in zip(flows, came, problems, strict=True) if p]
    assert wrong == []
    if folder := os.environ.get("GENAINET_WRITE_DUMPS"):
        write(Path(folder), f"lab-{loaded.mode.value}", loaded.texts(), loaded.traffic.node_ips(), flows, came)
    assert {c["end"] for c in came} >= {"answer", "refused", "timeout"}
    assert {s.verdict for s in said} >= {RulesetVerdict.DNAT, RulesetVerdict.REJECT, RulesetVerdict.DROP}
    assert len(flows) > 200


def test_the_rules_are_what_the_objects_say(loaded: Loaded) -> None:
    assert compare(loaded.snapshot, {NODE: loaded.ruleset()}) == []
