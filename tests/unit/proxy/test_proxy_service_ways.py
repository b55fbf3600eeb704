"""What becomes of a Service's connections is told for each kind of client, way by way."""

import json
from pathlib import Path

import yaml
from click.testing import CliRunner

from kubectl_genainet.cli import cli

RULES = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SEP-B - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "shop/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment "shop/web" -m tcp --dport 30080 -j KUBE-SVC-A
-A KUBE-SVC-A -m comment --comment "shop/web -> 10.244.0.1:8080" -m statistic --mode random --probability 0.5 -j KUBE-SEP-A
-A KUBE-SVC-A -m comment --comment "shop/web -> 10.244.0.2:8080" -j KUBE-SEP-B
-A KUBE-SEP-A -p tcp -m comment --comment "shop/web" -m tcp -j DNAT --to-destination 10.244.0.1:8080
-A KUBE-SEP-B -p tcp -m comment --comment "shop/web" -m tcp -j DNAT --to-destination 10.244.0.2:8080
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD ! -s 10.244.0.0/16 -d 10.244.0.2/32 -p tcp -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""
OBJECTS = (
    {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node-1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.7.2"}]},
    },
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client", "namespace": "shop"},
        "spec": {"nodeName": "node-1", "containers": []},
        "status": {"podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}], "phase": "Running"},
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.10",
            "clusterIPs": ["10.96.0.10"],
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP", "targetPort": 8080}],
        },
    },
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {"name": "web-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in ("10.244.0.1", "10.244.0.2")],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    },
)


def run(tmp_path: Path, *arguments: str) -> str:
    dump, manifests = tmp_path / "rules.txt", tmp_path / "cluster.yaml"
    dump.write_text(RULES)
    manifests.write_text(yaml.safe_dump_all(OBJECTS))
    files = ("--ruleset", str(dump), "--manifests", str(manifests))
    return (
        CliRunner().invoke(cli, ["rules", "svc/web", "-n", "shop", *files, *arguments], catch_exceptions=False).stdout
    )


def test_each_kind_of_client_has_its_ways_with_shares_and_rules(tmp_path: Path) -> None:
    records = [json.loads(line) for line in run(tmp_path, "-o", "json").splitlines()]
    ways = {(way["client"], way["address"]): way for way in records if way["kind"] == "way"}
    assert {key: way["verdict"] for key, way in ways.items()} == {
        ("pod", "10.96.0.10:80"): "DNAT",
        ("node", "10.96.0.10:80"): "DNAT",
        ("outside", "192.168.7.2:30080"): "MIXED",
    }
    sent, refused = sorted(ways["outside", "192.168.7.2:30080"]["outcomes"], key=lambda part: part["verdict"])
    assert (sent["share"], sent["backends"]) == (0.5, ["10.244.0.1:8080"])
    assert (refused["verdict"], refused["share"], refused["rule"]["chain"]) == ("REJECT", 0.5, "FORWARD")


def test_the_table_shows_the_ways_where_some_connections_fail(tmp_path: Path) -> None:
    shown = run(tmp_path)
    line = next(line for line in shown.splitlines() if "outside" in line and "30080" in line and "REJECT" in line)
    assert "50% DNAT" in line
    assert "50% REJECT" in line
