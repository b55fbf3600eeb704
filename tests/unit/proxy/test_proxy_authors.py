"""Who wrote a rule, from its table, its chain and its comments; nobody where nothing tells."""

from __future__ import annotations

import pytest

from kubectl_genainet.proxy import RuleRef
from kubectl_genainet.proxy.authors import author_of, is_kube_proxys

CHAINS = {
    "KUBE-SVC-67NZLRHBNDSAWJRO": "kube-proxy",
    "KUBE-SEP-U6WRKPTGZVEHYPO7": "kube-proxy",
    "KUBE-MARK-MASQ": "kube-proxy",
    "KUBE-FIREWALL": "kubelet",
    "KUBE-ROUTER-FORWARD": "kube-router",
    "KUBE-POD-FW-L4S3QBXN5NJ5GJQW": "kube-router",
    "KUBE-NWPLCY-AAAAAAAAAAAAAAAA": "kube-router",
    "cali-FORWARD": "Calico",
    "cali-tw-cali1234567890a": "Calico",
    "felix-FORWARD": "Calico",
    "OVN-KUBE-NODEPORT": "OVN-Kubernetes",
    "CNI-HOSTPORT-DNAT": "portmap",
    "CNI-DN-3a3b0c36c2ef7c2c0f9b9": "portmap",
    "CNI-FORWARD": "CNI firewall",
    "CILIUM_FORWARD": "Cilium",
    "ISTIO_REDIRECT": "Istio",
    "PROXY_INIT_REDIRECT": "Linkerd",
    "AWS-SNAT-CHAIN-0": "VPC CNI",
    "ANTREA-FORWARD": "Antrea",
    "WEAVE-NPC": "Weave Net",
    "FLANNEL-FWD": "flannel",
    "DOCKER": "Docker",
    "DOCKER-ISOLATION-STAGE-1": "Docker",
    "NETAVARK-1D8721804F16F": "Podman",
    "LIBVIRT_FWI": "libvirt",
    "ufw-user-forward": "ufw",
    "ufw6-before-input": "ufw",
    "f2b-sshd": "fail2ban",
    "IN_public_allow": "firewalld",
    "FWDI_public": "firewalld",
    "filter_IN_public_deny": "firewalld",
    "FORWARD_direct": "firewalld",
    "IP-MASQ-AGENT": "ip-masq-agent",
    "ts-forward": "tailscale",
    "FORWARD": "",
    "my-own-chain": "",
}


@pytest.mark.parametrize(("chain", "author"), CHAINS.items())
def test_the_name_of_a_chain_tells_its_author(chain: str, author: str) -> None:
    assert author_of(RuleRef("filter", chain, 1, f"-A {chain} -j DROP")) == author


TABLES = {
    "ip kube-proxy": "kube-proxy",
    "inet kube-router-filter-ipv4": "kube-router",
    "ip calico": "Calico",
    "inet firewalld": "firewalld",
    "inet cni_hostport": "portmap",
    "inet cni_plugins_masquerade": "CNI firewall",
    "inet kindnet-network-policies": "kindnet",
    "inet kube-network-policies": "kube-network-policies",
    "ip docker-bridges": "Docker",
    "inet netavark": "Podman",
    "ip istio-proxy": "Istio",
    "inet mine": "",
}


@pytest.mark.parametrize(("table", "author"), TABLES.items())
def test_the_name_of_an_nft_table_tells_its_author(table: str, author: str) -> None:
    assert author_of(RuleRef(table, "forward", 1, "drop")) == author


COMMENTS = {
    "cali:Gk5BMGTNQmSZ9Yrg": "Calico",
    "flanneld masq": "flannel",
    "AWS, SNAT": "VPC CNI",
    "cilium: any->proxy redirect": "Cilium",
    "NodeLocal DNS Cache: skip conntrack": "NodeLocal DNSCache",
    'dnat name: "cbr0" id: "abc"': "portmap",
    "rule to drop traffic; KUBE-ROUTER rule - nw policy shop/a": "kube-router",
    "written by hand": "",
}


@pytest.mark.parametrize(("comment", "author"), COMMENTS.items())
def test_a_comment_tells_the_author_in_a_chain_of_everybody(comment: str, author: str) -> None:
    assert author_of(RuleRef("filter", "FORWARD", 1, "-A FORWARD -j DROP", comment)) == author


@pytest.mark.parametrize(
    ("table", "chain", "own"),
    [
        ("ip kube-proxy", "cluster-ips-check", True),
        ("filter", "KUBE-PROXY-FIREWALL", True),
        ("nat", "KUBE-SVC-NPX46M4PTMTKRN6Y", True),
        ("filter", "KUBE-POD-FW-OBX3V7ZEDQ7OBNBW", False),
        ("filter", "KUBE-ROUTER-FORWARD", False),
        ("filter", "FORWARD", False),
    ],
)
def test_kube_proxys_rules_are_told_from_kube_routers(table: str, chain: str, own: bool) -> None:
    assert is_kube_proxys(RuleRef(table, chain, 1, "")) is own
