"""Dumps of one node's rules in a folder, as a sosreport has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Packet, RulesetVerdict, evaluate, parse_ruleset
from kubectl_genainet.run.rules import RulesOptions, saved_dumps, walked
from kubectl_genainet.run.sources.dumps import folder_dumps

SAVED = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp -m tcp --dport 81 -j DROP\nCOMMIT\n"
LISTING = """Chain INPUT (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination

Chain FORWARD (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination
    0     0 DROP       tcp  --  *      *       0.0.0.0/0            0.0.0.0/0            tcp dpt:82

Chain OUTPUT (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination
"""
IPVS = "IP Virtual Server version 1.2.1 (size=4096)\nTCP 10.9.0.1:80 rr\n  -> 10.9.1.1:8080 Masq 1 0 0\n"


def _verdict(folder: Path, dport: int, dst: str = "203.0.113.9") -> RulesetVerdict:
    (dumps,) = saved_dumps([], folder_dumps(folder)).values()
    packet = Packet(src="198.51.100.1", dst=dst, dport=dport, protocol=Protocol.TCP)
    return evaluate(parse_ruleset(dumps, node_ips=["192.0.2.1"]), packet).verdict


def _sos(folder: Path, **files: str) -> None:
    place = folder / "sos_commands" / "firewall_tables"
    place.mkdir(parents=True)
    for name, text in files.items():
        (place / name).write_text(text)
    (folder / "version.txt").write_text("sosreport: 4.5\n")
    (folder / "dmesg").write_bytes(b"\x7fELF\0\0 *filter\n")


def test_dumps_are_found_among_other_files(tmp_path: Path) -> None:
    _sos(tmp_path, iptables_nvL=LISTING, ipvsadm_Ln=IPVS)
    assert _verdict(tmp_path, 82) is RulesetVerdict.DROP
    assert _verdict(tmp_path, 80, "10.9.0.1") is RulesetVerdict.DNAT


def test_a_listing_says_nothing_where_the_rules_are_saved(tmp_path: Path) -> None:
    _sos(tmp_path, iptables_nvL=LISTING, iptables_save=SAVED)
    assert _verdict(tmp_path, 81) is RulesetVerdict.DROP
    assert _verdict(tmp_path, 82) is RulesetVerdict.NO_MATCH


def test_the_security_table_is_told_by_the_files_name(tmp_path: Path) -> None:
    _sos(tmp_path, **{"iptables_-t_security_-nvL": LISTING, "iptables_-nvL": LISTING.replace("dpt:82", "dpt:83")})
    tables = [
        table.name for table in parse_ruleset(next(iter(saved_dumps([], folder_dumps(tmp_path)).values()))).tables
    ]
    assert sorted(tables) == ["filter", "security"]
    assert _verdict(tmp_path, 82) is RulesetVerdict.DROP
    assert _verdict(tmp_path, 83) is RulesetVerdict.DROP


def test_a_folder_without_dumps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here\n")
    with pytest.raises(GenainetError, match="no dump of rules"):
        folder_dumps(tmp_path)


def test_a_listing_of_ip6tables_is_one_whatever_its_rules_say(tmp_path: Path) -> None:
    _sos(
        tmp_path,
        **{"ip6tables_-nvL": LISTING.replace("0.0.0.0/0           ", "::/0                "), "iptables_-nvL": LISTING},
    )
    (dumps,) = saved_dumps([], folder_dumps(tmp_path)).values()
    assert sorted(dump.source for dump in dumps) == ["ip6tables-nft", "iptables-nft"]


NAT = """Chain PREROUTING (policy ACCEPT 12 packets, 720 bytes)
 pkts bytes target     prot opt in     out     source               destination
   12   720 DNAT       6    --  *      *       0.0.0.0/0            10.9.0.2             tcp dpt:80 to:10.9.1.2:8080

Chain INPUT (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination

Chain OUTPUT (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination

Chain POSTROUTING (policy ACCEPT 0 packets, 0 bytes)
 pkts bytes target     prot opt in     out     source               destination
"""
NFT = """table ip nat { # handle 1
\tchain PREROUTING { # handle 1
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tmeta l4proto tcp ip daddr 10.9.0.2  counter packets 12 bytes 720 dnat to 10.9.1.2:8080 # handle 5
\t}
}
table inet other { # handle 2
\tchain forward { # handle 1
\t\ttype filter hook forward priority filter; policy accept;
\t\ttcp dport 84 drop # handle 2
\t}
}
"""
STATS = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.9.0.1:80                        4       20       16     1200     2400
  -> 10.9.1.1:8080                      4       20       16     1200     2400
"""
THRESHOLDS = STATS.replace("Conns   InPkts  OutPkts  InBytes OutBytes", "Uthreshold Lthreshold ActiveConn InActConn")


def test_a_sosreport_is_read_as_its_plugins_write_it(tmp_path: Path) -> None:
    """Names and commands of the plugins firewall_tables, ipvs, networking and conntrack of sos 4.11."""
    counted = LISTING.replace("    0     0 DROP", "   17  1020 DROP")
    _sos(
        tmp_path,
        **{
            "nft_-a_list_ruleset": NFT,
            "iptables_-t_nat_-nvL": NAT,
            "iptables_-t_filter_-nvL": LISTING,
            "iptables_-vnxL": counted,
        },
    )
    for plugin, name, text in (
        ("ipvs", "ipvsadm_-Ln", IPVS.replace("TCP ", "Prot LocalAddress:Port Scheduler Flags\nTCP ")),
        ("ipvs", "ipvsadm_-Ln_--connection", "IPVS connection entries\npro expire state source virtual destination\n"),
        ("ipvs", "ipvsadm_-Ln_--stats", STATS),
        ("ipvs", "ipvsadm_-Ln_--thresholds", THRESHOLDS),
        ("ipvs", "ipvsadm_-Ln_--timeout", "Timeout (tcp tcpfin udp): 900 120 300\n"),
        ("networking/namespaces/cni-1", "ip_netns_exec_cni-1_iptables-save", SAVED.replace("dport 81", "dport 85")),
        ("networking", "ip_route_show_table_all", "default via 192.0.2.254 dev eth0\n"),
        ("conntrack", "conntrack_-S", "cpu=0 found=0 invalid=0 insert=0\n"),
    ):
        place = tmp_path / "sos_commands" / plugin
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    (dumps,) = saved_dumps([], folder_dumps(tmp_path)).values()
    ruleset = parse_ruleset(dumps, node_ips=["192.0.2.1"])
    assert sorted(table.title for table in ruleset.tables) == ["filter", "inet other", "nat"]
    assert [(s.title, s.scheduler, len(s.real_servers)) for s in ruleset.virtual_servers] == [
        ("TCP 10.9.0.1:80", "rr", 1)
    ]
    assert not [part for part in ruleset.unread if part.anywhere]
    for dport, dst, verdict in (
        (82, "203.0.113.9", RulesetVerdict.DROP),
        (84, "203.0.113.9", RulesetVerdict.DROP),
        (85, "203.0.113.9", RulesetVerdict.NO_MATCH),
        (80, "10.9.0.2", RulesetVerdict.DNAT),
        (80, "10.9.0.1", RulesetVerdict.DNAT),
    ):
        assert _verdict(tmp_path, dport, dst) is verdict, (dport, dst)


def test_saved_dumps_are_of_the_node_that_is_named() -> None:
    options = RulesOptions(saved=saved_dumps([("rules.txt", SAVED)]), node="node-1")
    (walk,) = walked(None, ["198.51.100.1", "203.0.113.9:81"], options, lambda text: None)
    assert (walk.node, walk.verdict) == ("node-1", "UNKNOWN")  # which addresses are the node's is not known
