"""The lab's rules are the newest kube-proxy's: for the same objects both leave the same tables in the kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_genainet.lab.datapath.iptables import Tables
from kubectl_genainet.lab.datapath.kube_proxy import write_iptables
from kubectl_genainet.lab.datapath.kube_proxy_input import ProxyNode
from kubectl_genainet.lab.datapath.kube_proxy_nft import write_nftables
from kubectl_genainet.lab.spec import AddressFamily
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject, without_nulls
from tests.cluster.harness.binaries import Binaries
from tests.cluster.harness.controlplane import SERVICE_CIDRS, ControlPlane
from tests.cluster.harness.kubeproxy import KubeProxy
from tests.cluster.harness.processes import NetNs
from tests.cluster.harness.services import install_services
from tests.proxy_services import NODE

pytestmark = pytest.mark.cluster

CLUSTER_CIDR = {AddressFamily.IPV4: "10.244.0.0/16", AddressFamily.IPV6: "fd44::/64"}
SERVICE_CIDR = dict(zip((AddressFamily.IPV4, AddressFamily.IPV6), SERVICE_CIDRS.split(","), strict=True))
# Chains and maps with an entry a Service, which kube-proxy writes in no certain order.
UNORDERED = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL")

_ACCOUNTING = re.compile(r" -m nfacct --nfacct-name +\S+")


@pytest.fixture(scope="module")
def plane(kubernetes_binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One of its own: without a namespace controller, the others' namespace of these Services never ends."""
    with ControlPlane(kubernetes_binaries, tmp_path_factory.mktemp("lab-rules"), "lr") as plane:
        yield plane


@pytest.fixture(scope="module")
def snapshot(plane: ControlPlane) -> ClusterSnapshot:
    """The Services of every kind, as the API server has them."""
    api = plane.api()
    install_services(api)
    objects = []
    for path, version, kind in (
        ("/api/v1/services", "v1", "Service"),
        ("/apis/discovery.k8s.io/v1/endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
    ):
        objects += [without_nulls({**i, "apiVersion": version, "kind": kind}) for i in api.get(path)["items"]]
    return ClusterSnapshot(tuple(KubeObject(o) for o in objects))


@pytest.fixture
def lab_node() -> Iterator[NetNs]:
    namespace = NetNs("lab-rules")
    yield namespace
    namespace.delete()


def described(node: KubeProxy, family: AddressFamily) -> ProxyNode:
    ip = node.ip if family is AddressFamily.IPV4 else node.ip6
    return ProxyNode(NODE, family, (ip,), CLUSTER_CIDR[family], SERVICE_CIDR[family])


def iptables_chains(text: str) -> dict[str, list[str]]:
    """Rules by "table chain", without counters; chains with an entry a Service in sorted order.

    Accounting (-m nfacct) is left out, with the rules that stand for nothing else: it only counts.
    """
    found: dict[str, list[str]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            found[f"{table} {line[1:].split()[0]}"] = []
        elif line.startswith("["):
            rule = _ACCOUNTING.sub("", line.split("] ", 1)[1])
            if "-d 127.0.0.0/8" in rule and rule.split()[1] == "KUBE-NODEPORTS":
                continue  # counts what reaches a node port by the loopback address; the next rule takes it
            found[f"{table} {rule.split()[1]}"].append(rule)
    return {chain: sorted(r) if chain.endswith(UNORDERED) else r for chain, r in found.items()}


def nft_parts(text: str) -> dict[str, Any]:
    """Chains with their rules in order, sets and maps with their elements in sorted order, without handles."""
    found: dict[str, Any] = {}
    for item in json.loads(text)["nftables"]:
        ((kind, value),) = item.items()
        value = (
            {k: v for k, v in value.items() if k not in ("handle", "index", "family", "table")}
            if kind != "metainfo"
            else {}
        )
        if kind == "rule":
            found[f"chain {value.pop('chain')}"]["rules"].append(value)
        elif kind in ("chain", "set", "map"):
            name = value.pop("name")
            elements = sorted(value.pop("elem", []), key=json.dumps)
            found[f"{kind} {name}"] = {**value, "rules": []} if kind == "chain" else {**value, "elem": elements}
    return found


def differences(real: dict[str, Any], lab: dict[str, Any]) -> list[str]:
    return [
        f"{name}:\n  kube-proxy {real.get(name)}\n  lab        {lab.get(name)}"
        for name in sorted(real.keys() | lab.keys())
        if real.get(name) != lab.get(name)
    ]


@pytest.mark.parametrize("family", [AddressFamily.IPV4, AddressFamily.IPV6])
def test_iptables_rules_are_kube_proxys(
    plane: ControlPlane, snapshot: ClusterSnapshot, lab_node: NetNs, family: AddressFamily
) -> None:
    v6 = family is AddressFamily.IPV6
    with KubeProxy(plane, NODE, {"mode": "iptables"}) as proxy:
        real = proxy.wait_for_rules("dual-empty:http has no endpoints", ipv6=v6)
        tables = Tables()
        write_iptables(tables, snapshot, described(proxy, family))
    lab_node.run("ip6tables-restore" if v6 else "iptables-restore", stdin=tables.restore_text())
    lab = lab_node.run("ip6tables-save" if v6 else "iptables-save", "-c")
    found = differences(iptables_chains(real), iptables_chains(lab))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("family", [AddressFamily.IPV4, AddressFamily.IPV6])
def test_nftables_rules_are_kube_proxys(
    plane: ControlPlane, snapshot: ClusterSnapshot, lab_node: NetNs, family: AddressFamily
) -> None:
    ip = "ip6" if family is AddressFamily.IPV6 else "ip"
    with KubeProxy(plane, NODE, {"mode": "nftables"}) as proxy:
        proxy.wait_for_rules("dual-empty", ipv6=family is AddressFamily.IPV6)
        real = proxy.netns.run("nft", "--json", "list", "table", ip, "kube-proxy")
        text = write_nftables(snapshot, described(proxy, family))
    lab_node.run("nft", "-f", "-", stdin=text)
    lab = lab_node.run("nft", "--json", "list", "table", ip, "kube-proxy")
    found = differences(nft_parts(real), nft_parts(lab))
    assert not found, "\n".join(found)
