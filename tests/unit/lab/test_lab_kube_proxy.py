"""The lab's kube-proxy writer against rules that kube-proxy's own tests expect."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.lab.datapath.iptables import Tables
from kubectl_genainet.lab.datapath.kube_proxy import write_iptables
from kubectl_genainet.lab.datapath.kube_proxy_input import ProxyNode
from kubectl_genainet.lab.datapath.kube_proxy_nft import write_nftables
from kubectl_genainet.lab.spec import Family
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject

CONFORMANCE = Path(os.environ.get("GENAINET_CONFORMANCE", Path(__file__).parents[3] / "../shared/conformance"))
DUMPS = CONFORMANCE / "kubeproxy"
IPTABLES = sorted((DUMPS / "iptables").glob("*.json"))
NFTABLES = sorted(p for p in (DUMPS / "nftables").glob("*.json") if not p.name.endswith(".nft.json"))
needs_conformance = pytest.mark.skipif(not DUMPS.is_dir(), reason=f"{DUMPS} is missing")
NODE = "this-node"


def service_objects(described: dict[str, Any]) -> list[KubeObject]:
    """The Service and EndpointSlices that a conformance file describes."""
    metadata = {"name": described["name"], "namespace": described["namespace"]}
    spec = {
        "type": described["type"],
        "clusterIP": described["clusterIP"],
        "ports": described["ports"],
        "externalTrafficPolicy": described.get("externalTrafficPolicy", "Cluster"),
        "internalTrafficPolicy": described.get("internalTrafficPolicy", "Cluster"),
        "externalIPs": described.get("externalIPs", []),
        "loadBalancerSourceRanges": described.get("loadBalancerSourceRanges", []),
        "healthCheckNodePort": described.get("healthCheckNodePort", 0),
        "sessionAffinity": described.get("sessionAffinity", "None"),
    }
    ingress = [{"ip": ip} for ip in described.get("loadBalancerIPs", [])]
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}},
    }
    slices: list[dict[str, Any]] = []
    for port in described["ports"]:
        several = len(described["ports"]) > 1
        for number, endpoint in enumerate(described["endpoints"]):
            target = port.get("targetPort", port["port"]) if several else endpoint["port"]
            slices.append(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "addressType": "IPv4",
                    "metadata": {
                        "name": f"{described['name']}-{port['name']}-{number}",
                        "namespace": described["namespace"],
                        "labels": {"kubernetes.io/service-name": described["name"]},
                    },
                    "ports": [{"name": port["name"], "protocol": port["protocol"], "port": target}],
                    "endpoints": [
                        {
                            "addresses": [endpoint["ip"]],
                            "conditions": {"ready": True},
                            "nodeName": NODE if endpoint["local"] else "another-node",
                        }
                    ],
                }
            )
    return [KubeObject(raw=o) for o in (service, *slices)]


def snapshot_of(case: dict[str, Any]) -> ClusterSnapshot:
    return ClusterSnapshot(tuple(o for s in case["services"] for o in service_objects(s)))


def node_of(case: dict[str, Any]) -> ProxyNode:
    return ProxyNode(NODE, Family.IPV4, tuple(case["node_ips"]), case["pod_cidr"], case.get("service_cidr", ""))


@needs_conformance
@pytest.mark.parametrize("path", IPTABLES, ids=lambda p: p.stem)
def test_iptables_rules_equal_what_kube_proxy_restores(path: Path) -> None:
    case = json.loads(path.read_text())
    tables = Tables()
    write_iptables(tables, snapshot_of(case), node_of(case), random_fully=False, kubelet=False)
    assert tables.restore_text().splitlines() == (path.parent / case["restore_input"]).read_text().splitlines()


@needs_conformance
@pytest.mark.parametrize("path", NFTABLES, ids=lambda p: p.stem)
def test_nftables_transaction_equals_what_kube_proxy_loads(path: Path) -> None:
    case = json.loads(path.read_text())
    text = write_nftables(snapshot_of(case), node_of(case), replace=False)
    expected = (path.parent / case["transaction"]).read_text()
    assert sorted(text.splitlines()) == sorted(expected.splitlines())
    for chain in {line.split()[4] for line in expected.splitlines() if line.startswith("add rule")}:
        prefix = f"add rule ip kube-proxy {chain} "
        assert _starting(prefix, text) == _starting(prefix, expected)


def _starting(prefix: str, text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(prefix)]
