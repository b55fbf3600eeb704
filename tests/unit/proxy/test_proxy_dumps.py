"""Rules that the real kube-proxy and the lab wrote, and what real packets then did.

Made anew with GENAINET_WRITE_DUMPS=tests/data/proxy on tests/cluster/plane/test_kube_proxy_packets.py (kube-proxy-1.3x),
tests/vm/test_kube_proxy_ipvs.py (ipvs) and tests/lab/rules/test_proxy_lab_rules.py (lab-*); those of 1.20 are kept as they were.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Packet, Ruleset, RulesetVerdict, dump_of, evaluate, parse_ruleset, service_rules

FOLDER = Path(__file__).parents[2] / "data/proxy"
STEMS = sorted(path.name.removesuffix(".flows.json") for path in FOLDER.glob("*.flows.json"))


def _read(stem: str) -> tuple[Ruleset, dict[str, Any]]:
    """The rules, and what was seen with them."""
    seen = json.loads((FOLDER / f"{stem}.flows.json").read_text())
    files = [path for path in sorted(FOLDER.glob(f"{stem}.*")) if not path.name.endswith(".flows.json")]
    return parse_ruleset([dump_of(path.read_text()) for path in files], node_ips=seen["node_ips"]), seen


@pytest.fixture(scope="module")
def ruleset() -> Ruleset:
    return _read("kube-proxy-1.20")[0]


def test_there_is_a_dump_of_the_real_kube_proxy_and_of_each_mode_of_the_lab() -> None:
    assert STEMS == [
        "kube-proxy-1.20",
        "kube-proxy-1.20-ipvs",
        "kube-proxy-1.35.4-nftables",
        "kube-proxy-1.36.3-nftables",
        "kube-proxy-1.37.2-iptables",
        "kube-proxy-1.37.2-nftables",
        "lab-iptables",
        "lab-nftables",
    ]


def _ends(flow: dict[str, Any]) -> set[RulesetVerdict]:
    """The verdicts that fit what was seen."""
    unheard = {RulesetVerdict.REJECT} if flow["protocol"] == "SCTP" else set()  # a raw socket is not told of it
    return (
        unheard
        | {
            "answer": {RulesetVerdict.DNAT},
            "refused": {
                RulesetVerdict.REJECT,
                RulesetVerdict.NO_MATCH,
            },  # or the node's own kernel, for a port where nothing listens
            "timeout": {
                RulesetVerdict.DROP,
                RulesetVerdict.NO_MATCH,
                RulesetVerdict.ACCEPT,
            },  # let through, to where nobody is
            "forbidden": {RulesetVerdict.DROP, RulesetVerdict.REJECT},
            "unreachable": {RulesetVerdict.NO_MATCH},
        }[flow["came"]["end"]]
    )


@pytest.mark.parametrize("stem", STEMS)
def test_every_packet_did_what_the_evaluation_says(stem: str) -> None:
    ruleset, seen = _read(stem)
    wrong = []
    for flow in seen["flows"]:
        protocol = Protocol(flow["protocol"])
        said = evaluate(
            ruleset, Packet(src=flow["src"], dst=flow["dst"], dport=flow["dport"], protocol=protocol, bridged=False)
        )
        backends = {b.address: b.masquerade for b in said.backends}
        answered = flow["came"].get("backend")
        masqueraded = answered is not None and flow["came"]["seen_as"] != flow["src"]
        if said.verdict not in _ends(flow) or (answered and backends.get(answered) is not masqueraded):
            wrong.append((flow, said.verdict, backends))
    assert wrong == []
    assert len(seen["flows"]) > 200


def test_every_service_port_is_read_with_its_backends(ruleset: Ruleset) -> None:
    found = {(r.service, r.protocol, r.source): r for r in service_rules(ruleset)}
    three = found["proxy-rules/cluster-three:http", "TCP", "iptables-nft"]
    assert {b.address: round(b.probability or 0, 2) for b in three.backends} == {
        "10.244.1.11:8080": 0.33,
        "10.244.1.12:8080": 0.33,
        "10.244.1.113:8080": 0.33,
    }
    vias = {a.via for a in found["proxy-rules/balancer:http", "TCP", "iptables-nft"].addresses}
    assert vias == {"clusterIP", "loadBalancer", "nodePort"}
    local = found["proxy-rules/node-port-local:http", "TCP", "iptables-nft"]
    assert {a.via: {b.ip for b in a.backends} for a in local.addresses} == {
        "clusterIP": {"10.244.1.27", "10.244.1.128"},
        "nodePort": {"10.244.1.27"},
    }
    empty = found["proxy-rules/dual-empty:http", "TCP", "ip6tables-nft"]
    assert [(a.via, a.verdict) for a in empty.addresses] == [("clusterIP", "REJECT")]
    assert ("proxy-rules/headless:http", "TCP", "iptables-nft") not in found


def _node_ports(rules: Ruleset) -> set[str]:
    services = [entry for entry in service_rules(rules) if entry.service == "proxy-rules/node-port:http"]
    return {address.address for entry in services for address in entry.addresses if address.via == "nodePort"}


def test_a_node_port_has_the_addresses_that_the_proxy_limits_it_to() -> None:
    assert _node_ports(_read("kube-proxy-1.37.2-nftables")[0]) == {"172.31.0.6:30080"}  # its default: the primary one
    text = (FOLDER / "kube-proxy-1.37.2-iptables.iptables.txt").read_text()
    assert _node_ports(parse_ruleset([dump_of(text)])) == {"*:30080"}
    # Changed as nodePortAddresses changes it, an address a rule.
    jump = next(line for line in text.splitlines() if line.endswith("--dst-type LOCAL -j KUBE-NODEPORTS"))
    jumps = "\n".join(jump.replace("-m addrtype --dst-type LOCAL", f"-d {ip}/32") for ip in ("10.0.0.7", "172.31.0.6"))
    assert _node_ports(parse_ruleset([dump_of(text.replace(jump, jumps))])) == {"10.0.0.7:30080, 172.31.0.6:30080"}
    also = jumps + "\n" + jump.replace("-m addrtype", "-d 192.168.0.0/16 -m addrtype")
    assert _node_ports(parse_ruleset([dump_of(text.replace(jump, also))])) == {"*:30080"}


@pytest.mark.parametrize("stem", STEMS)
def test_endpoints_of_every_service_are_read_whole(stem: str) -> None:
    """A single endpoint is a map of one element (1.35, 1.36) or a plain dnat (1.37)."""
    rules = service_rules(_read(stem)[0])
    assert [(r.service, r.unread) for r in rules if r.unread] == []
    single = [r for r in rules if r.service and r.service.endswith("/cluster-one:http")]
    assert {tuple(b.address for b in r.backends) for r in single} <= {("10.244.1.10:8080",)}
