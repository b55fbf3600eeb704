"""Loads packet rules into the nodes: kube-proxy's, the enforcer's, and those that incidents add."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from typing import Any

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.datapath.enforcer import write_policies
from kubectl_genainet.lab.datapath.iptables import Tables, comment
from kubectl_genainet.lab.datapath.kube_proxy import write_iptables, write_kubelet_firewall
from kubectl_genainet.lab.datapath.kube_proxy_input import ProxyNode
from kubectl_genainet.lab.datapath.kube_proxy_nft import write_nftables
from kubectl_genainet.lab.spec import AddressFamily, ProxyMode
from kubectl_genainet.lab.state import LabRecord
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject

Object = dict[str, Any]
_RESTORE = {AddressFamily.IPV4: "iptables-restore", AddressFamily.IPV6: "ip6tables-restore"}


def snapshot_of(objects: Iterable[Object]) -> ClusterSnapshot:
    return ClusterSnapshot(tuple(KubeObject(raw=o) for o in objects))


def load_rules(record: LabRecord, objects: list[Object], proxied: list[Object] | None = None) -> None:
    """Brings the rules of all nodes in line with the objects, each table at one stroke.

    `proxied`: the objects as a kube-proxy that lags behind still knows them, for the nodes in `record.lagging`.
    """
    fresh = snapshot_of(objects)
    stale = snapshot_of(proxied) if proxied is not None else fresh
    loads = [
        _start(record.nodes[node.metadata.name], command, text)
        for node in fresh.nodes
        for command, text in _node_rules(record, fresh, stale, node.metadata.name)
    ]
    for load in loads:
        _finish(*load)


def _node_rules(
    record: LabRecord, fresh: ClusterSnapshot, stale: ClusterSnapshot, name: str
) -> Iterable[tuple[list[str], str]]:
    spec = record.spec
    known = stale if name in record.lagging else fresh
    node_ips = next(n.ips for n in fresh.nodes if n.metadata.name == name)
    for family in spec.families:
        node = ProxyNode(
            name,
            family,
            tuple(ip for ip in node_ips if (":" in ip) == (family is AddressFamily.IPV6)),
            family.cluster_cidr,
            family.service_cidr,
        )
        tables = Tables()
        if spec.proxy_mode is ProxyMode.IPTABLES:
            write_iptables(tables, known, node)
        else:
            write_kubelet_firewall(tables, family)
            yield ["nft", "-f", "-"], write_nftables(known, node)
        _write_masquerade(tables, family)
        write_policies(tables, fresh, name, family)
        for extra in record.extra_rules:
            if extra.node == name and extra.family == family.value:
                tables.prepend(extra.table, extra.chain, extra.rule)
        yield [_RESTORE[family], "--wait"], tables.restore_text()


def _write_masquerade(tables: Tables, family: AddressFamily) -> None:
    """Pods' traffic that leaves the cluster takes the node's address, as kindnet and flannel arrange it."""
    tables.append("nat", "POSTROUTING", comment("genainet lab: traffic that leaves the pod network"), "-j LAB-MASQ")
    cidr = family.cluster_cidr
    tables.append("nat", "LAB-MASQ", f"-s {cidr} ! -d {cidr} -j MASQUERADE --random-fully")


def _start(namespace: str, command: list[str], text: str) -> tuple[subprocess.Popen[str], list[str], str]:
    with netns.inside(namespace):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    return process, command, text


def _finish(process: subprocess.Popen[str], command: list[str], text: str) -> None:
    output, _ = process.communicate(text, timeout=60)
    if process.returncode:
        raise GenainetError(f"{' '.join(command)} refused the lab's rules: {output.strip()}")
