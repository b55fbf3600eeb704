"""Chain names: the hashes are those of kube-proxy's own unit tests."""

import pytest

from kubectl_genainet.proxy import names


@pytest.mark.parametrize(
    ("protocol", "prefix", "chain"),
    [
        ("TCP", "KUBE-SVC-", "KUBE-SVC-XPGD46QRK7WJZT7O"),
        ("tcp", "KUBE-EXT-", "KUBE-EXT-XPGD46QRK7WJZT7O"),
        ("SCTP", "KUBE-SVC-", "KUBE-SVC-GFCIFIA5VTFSTMSM"),
    ],
)
def test_iptables_service_chain_is_kube_proxys(protocol: str, prefix: str, chain: str) -> None:
    service_port = names.service_port_name("ns1", "svc1", "p80")
    assert names.iptables_service_chain(service_port, protocol, prefix) == chain


def test_iptables_endpoint_chain_is_kube_proxys() -> None:
    assert names.iptables_endpoint_chain("ns1/svc1:p80", "TCP", "10.180.0.1:80") == "KUBE-SEP-SXIVWICOYRO3J4NJ"


def test_a_port_without_a_name_leaves_no_colon() -> None:
    assert names.service_port_name("default", "web", "") == "default/web"


def test_nftables_chains_are_kube_proxys() -> None:
    assert names.nftables_service_chain("ns1", "svc1", "p80", "TCP") == "service-ULMVA6XW-ns1/svc1/tcp/p80"
    assert (
        names.nftables_endpoint_chain("ns1", "svc1", "p80", "TCP", "10.180.0.1", 80)
        == "endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"
    )


def test_nftables_names_are_cut_at_the_kernels_limit_and_keep_their_hash() -> None:
    chain = names.nftables_endpoint_chain("n" * 63, "s" * 63, "p" * 15, "SCTP", "fd00:" + "ffff:" * 6 + "1", 65535)
    assert len(chain) <= 256
    assert chain.startswith("endpoint-")
    long = names._nft_base("x" * 300)
    assert len(long) == 240
    assert long.endswith("...")


def test_nftables_names_are_read_back() -> None:
    chain = names.nftables_endpoint_chain("ns1", "svc1", "p80", "TCP", "fd00::1", 80)
    assert names.parse_nftables_chain(chain) == names.NftName("endpoint-", "ns1/svc1:p80", "tcp", "fd00..1/80")
    assert names.parse_nftables_chain("service-endpoints-check") is None
    assert names.parse_nftables_chain("filter-input") is None


def test_calico_chain_is_calicos() -> None:
    assert names.calico_policy_chain("alpha", "access-nginx", "ingress") == "cali-pi-_e8MLrhOHDfNlfSa51Ak"
    assert names.calico_policy_chain("alpha", "access-nginx-complex", "egress") == "cali-po-_w6rJoXTmbxiadSPZU3_"
