"""What rules change on a packet's way, as the rules behind them see it: source, sets, marks, NAT's status."""

from __future__ import annotations

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Evaluation, Packet, RulesetVerdict, dumps_of, evaluate, parse_ruleset

NODE = ("192.0.2.10", "10.50.0.1")


def _evaluate(text: str, src: str = "10.50.0.7", protocol: Protocol = Protocol.TCP, dport: int = 80) -> Evaluation:
    ruleset = parse_ruleset(dumps_of(text), node_ips=NODE)
    return evaluate(ruleset, Packet(src=src, sport=40000, dst="203.0.113.5", dport=dport, protocol=protocol))


def _nft(*chains: str) -> str:
    return "table ip own {\n" + "".join(f"\tchain {chain}\n" for chain in chains) + "}\n"


SNAT = "nat {\n type nat hook postrouting priority srcnat;\n snat to 192.0.2.10\n }"
MASQUERADE = "nat {\n type nat hook postrouting priority srcnat;\n masquerade\n }"


def test_a_rule_behind_snat_sees_the_new_source() -> None:
    late = "late {{\n type filter hook postrouting priority 200;\n ip saddr {} drop\n }}"
    assert _evaluate(_nft(SNAT, late.format("192.0.2.10"))).verdict is RulesetVerdict.DROP
    assert _evaluate(_nft(SNAT, late.format("10.50.0.7"))).verdict is RulesetVerdict.NO_MATCH


def test_a_masqueraded_source_is_an_address_of_the_node() -> None:
    late = "late {{\n type filter hook postrouting priority 200;\n ip saddr {} drop\n }}"
    assert _evaluate(_nft(MASQUERADE, late.format("10.50.0.7"))).verdict is RulesetVerdict.NO_MATCH
    some = _evaluate(_nft(MASQUERADE, late.format("192.0.2.0/24")))
    assert some.verdict is RulesetVerdict.UNKNOWN
    assert some.unknown == ("ip saddr 192.0.2.0/24, after the source was translated",)


def test_the_original_source_stays_what_conntrack_says() -> None:
    late = "late {\n type filter hook postrouting priority 200;\n ct original ip saddr 10.50.0.7 drop\n }"
    assert _evaluate(_nft(SNAT, late)).verdict is RulesetVerdict.DROP


def test_answers_for_one_client_are_not_those_of_another_behind_snat() -> None:
    late = "late {\n type filter hook postrouting priority 200;\n ct original ip saddr 10.50.0.7 drop\n }"
    ruleset = parse_ruleset(dumps_of(_nft(SNAT, late)), node_ips=NODE)
    packet = Packet(src="10.50.0.7", dst="203.0.113.5", dport=80, protocol=Protocol.TCP)
    other = Packet(src="10.50.0.8", dst="203.0.113.5", dport=80, protocol=Protocol.TCP)
    assert [evaluate(ruleset, p).verdict for p in (packet, other, packet)] == [
        RulesetVerdict.DROP,
        RulesetVerdict.NO_MATCH,
        RulesetVerdict.DROP,
    ]


def test_what_a_rule_adds_to_a_set_is_found_there() -> None:
    text = """table ip own {
	set seen { type ipv4_addr; flags dynamic; }
	chain c {
		type filter hook forward priority filter;
		add @seen { ip saddr }
		ip saddr @seen drop
	}
}
"""
    assert _evaluate(text).verdict is RulesetVerdict.DROP


def test_a_key_of_another_protocol_ends_the_rule_that_adds_it() -> None:
    text = """table ip own {
	set seen { type inet_service; flags dynamic; }
	chain c {
		type filter hook forward priority filter;
		add @seen { udp sport } drop
	}
}
"""
    assert _evaluate(text).verdict is RulesetVerdict.NO_MATCH
    assert _evaluate(text, protocol=Protocol.UDP).verdict is RulesetVerdict.DROP


def test_recent_remembers_the_packet_that_a_rule_before_has_put_into_its_list() -> None:
    text = (
        "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m recent --set --name a --mask 255.255.255.255 --rsource\n"
        "-A FORWARD -m recent --update --seconds 30{} --name a --mask 255.255.255.255 --rsource -j DROP\nCOMMIT\n"
    )
    assert _evaluate(text.format("")).verdict is RulesetVerdict.DROP
    assert _evaluate(text.format(" --hitcount 4")).verdict is RulesetVerdict.NO_MATCH


def test_a_random_mark_is_followed_each_way_to_the_end_of_its_rule() -> None:
    rules = "c {\n type filter hook forward priority filter;\n meta mark set numgen random mod 4 meta mark 3 drop\n }"
    evaluation = _evaluate(_nft(rules))
    assert evaluation.verdict is RulesetVerdict.MIXED
    assert {part.verdict: part.share for part in evaluation.parts} == {
        RulesetVerdict.DROP: 0.25,
        RulesetVerdict.NO_MATCH: 0.75,
    }


def test_a_mark_that_is_written_in_an_unknown_way_is_not_known() -> None:
    rules = "c {\n type filter hook forward priority filter;\n meta mark set ct id\n meta mark 3 drop\n }"
    evaluation = _evaluate(_nft(rules))
    assert evaluation.verdict is RulesetVerdict.UNKNOWN
    assert evaluation.unknown


def test_status_has_the_bits_of_nats_decisions() -> None:
    """`ct status != dnat` compares all bits: IPS_DST_NAT_DONE is among them where any chain translates."""
    nat = "nat {\n type nat hook prerouting priority dstnat;\n dnat to 10.50.1.1\n }"
    rules = "c {\n type filter hook forward priority filter;\n ct status != dnat drop\n }"
    assert _evaluate(_nft(nat, rules)).verdict is RulesetVerdict.DROP


def test_th_dport_of_icmp_is_its_checksum_which_nobody_knows() -> None:
    rules = "c {\n type filter hook forward priority filter;\n th dport 80 drop\n }"
    assert _evaluate(_nft(rules), protocol=Protocol.ICMP).verdict is RulesetVerdict.UNKNOWN
    assert _evaluate(_nft(rules)).verdict is RulesetVerdict.DROP


def test_a_port_from_a_map_is_read_in_text() -> None:
    nat = "nat {\n type nat hook prerouting priority dstnat;\n dnat to 10.50.1.1:tcp dport map { 80 : 8080, 443 : 53 }\n }"
    assert [b.address for b in _evaluate(_nft(nat)).backends] == ["10.50.1.1:8080"]


def test_a_net_is_translated_to_a_net() -> None:
    nat = "nat {\n type nat hook prerouting priority dstnat;\n dnat prefix to ip daddr map { 203.0.113.0/24 : 10.50.2.0/24 }\n }"
    assert [b.ip for b in _evaluate(_nft(nat)).backends] == ["10.50.2.5"]


def test_ctproto_asks_for_a_connection_that_raw_has_not_yet() -> None:
    text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m conntrack --ctproto 6 -j DROP\nCOMMIT\n"
    assert _evaluate(text).verdict is RulesetVerdict.NO_MATCH


def test_a_type_at_one_device_is_known_of_addresses_that_are_no_nodes() -> None:
    """As Calico masquerades, and the VPC CNI marks: `--limit-iface-out`, `--limit-iface-in`."""
    rule = "-A POSTROUTING -m addrtype ! --src-type LOCAL --limit-iface-out -j MASQUERADE"
    text = f"*nat\n:POSTROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n"
    assert _evaluate(text).masquerade is True
    assert _evaluate(text, src="10.50.0.1").masquerade is None


def test_a_virtual_server_without_a_proper_address_is_named_as_not_read() -> None:
    ruleset = parse_ruleset(dumps_of("-A -t 10.50.9.9:80 -s rr\n-A -t --seconds:80 -s rr\n"), node_ips=NODE)
    assert [server.vip for server in ruleset.virtual_servers] == ["10.50.9.9"]
    assert "--seconds" in ruleset.unread[0].what


def test_every_nought_packets_is_not_read() -> None:
    rule = "-A FORWARD -m statistic --mode nth --every 0 --packet 0 -j DROP"
    assert _evaluate(f"*filter\n:FORWARD ACCEPT [0:0]\n{rule}\nCOMMIT\n").verdict is RulesetVerdict.UNKNOWN
