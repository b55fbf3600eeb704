"""The lab's iptables rules against those that kube-proxy's own tests expect.

tests/cluster/plane/test_lab_rules.py compares both modes with what the real kube-proxy leaves in the kernel.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.lab.datapath.iptables import Tables
from kubectl_genainet.lab.datapath.kube_proxy import write_iptables
from kubectl_genainet.lab.datapath.kube_proxy_input import ProxyNode
from kubectl_genainet.lab.spec import AddressFamily
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject

CONFORMANCE = Path(os.environ.get("GENAINET_CONFORMANCE", Path(__file__).parents[3] / "../shared/conformance"))
DUMPS = CONFORMANCE / "kubeproxy"
IPTABLES = sorted((DUMPS / "iptables").glob("*.json"))
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
    return ProxyNode(NODE, AddressFamily.IPV4, tuple(case["node_ips"]), case["pod_cidr"], case.get("service_cidr", ""))


@needs_conformance
@pytest.mark.parametrize("path", IPTABLES, ids=lambda p: p.stem)
def test_iptables_rules_equal_what_kube_proxy_restores(path: Path) -> None:
    case = json.loads(path.read_text())
    tables = Tables()
    write_iptables(tables, snapshot_of(case), node_of(case), random_fully=False, kubelet=False)
    # What is newer than those tests: chains that kube-proxy watches, and a rule that is only a comment.
    newer = ("KUBE-PROXY-CANARY", "will be dropped by KUBE-PROXY-FIREWALL")
    text = tables.restore_text().partition("*mangle")
    lines = [
        line
        for line in (text[0] + text[2].partition("COMMIT\n")[2]).splitlines()
        if not any(words in line for words in newer)
    ]
    assert lines == (path.parent / case["restore_input"]).read_text().splitlines()
