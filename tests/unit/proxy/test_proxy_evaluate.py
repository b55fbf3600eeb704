"""The walk through a ruleset: what netfilter does with the cases that kube-proxy's own dumps don't show."""

import json

import pytest

from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.proxy import (
    Evaluation,
    Hook,
    Packet,
    Ruleset,
    RulesetVerdict,
    attribute_nat,
    dump_of,
    evaluate,
    evaluate_hook,
    parse_ruleset,
)

NODE = "192.168.0.2"


def ruleset(*texts: str, node_ips: list[str] | None = None) -> Ruleset:
    return parse_ruleset([dump_of(text) for text in texts], node_ips=[NODE] if node_ips is None else node_ips)


def filter_rules(*rules: str, chains: str = "", policy: str = "ACCEPT") -> Ruleset:
    declared = "".join(f":{name} - [0:0]\n" for name in chains.split())
    return ruleset(f"*filter\n:FORWARD {policy} [0:0]\n{declared}" + "".join(f"-A {r}\n" for r in rules) + "COMMIT\n")


def packet(dst: str = "10.1.0.9", dport: int = 80, src: str | None = "10.0.0.2", protocol: str = "TCP") -> Packet:
    return Packet(src=src, dst=dst, dport=dport, protocol=Protocol(protocol))


def met(result: Evaluation) -> list[tuple[str, int]]:
    return [(r.chain, r.index) for r in result.rules]


def test_a_return_goes_back_behind_the_jump_and_a_goto_does_not() -> None:
    rules = filter_rules(
        "FORWARD -j ONE", "FORWARD -j DROP", "ONE -g TWO", "ONE -j ACCEPT", "TWO -j RETURN", chains="ONE TWO"
    )
    result = evaluate(rules, packet())
    assert result.verdict is RulesetVerdict.DROP
    assert met(result) == [("FORWARD", 1), ("ONE", 1), ("TWO", 1), ("FORWARD", 2)]


def test_a_chains_policy_drops_and_is_named() -> None:
    result = evaluate(filter_rules("FORWARD -p udp -j ACCEPT", policy="DROP"), packet())
    assert result.verdict is RulesetVerdict.DROP
    assert (result.rules[-1].chain, result.rules[-1].index, result.rules[-1].text) == ("FORWARD", 0, "policy DROP")


def test_an_accept_ends_its_own_table_only() -> None:
    text = "*mangle\n-A FORWARD -j ACCEPT\nCOMMIT\n*filter\n-A FORWARD -j REJECT --reject-with tcp-reset\nCOMMIT\n"
    assert evaluate(ruleset(text), packet()).verdict is RulesetVerdict.REJECT


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ("-s 10.0.0.0/8", True),
        ("! -s 10.0.0.0/8", False),
        ("-d 10.1.0.9/32", True),
        ("-p udp", False),
        ("-p tcp -m tcp --dport 80:90", True),
        ("-p tcp -m multiport --dports 443,8080:8090", False),
        ("-p tcp -m multiport ! --dports 443", True),
        ("-m conntrack --ctstate RELATED,ESTABLISHED", False),
        ("-m conntrack --ctstate NEW", True),
        ("-m addrtype --dst-type LOCAL", False),
        ("-m addrtype ! --dst-type LOCAL", True),
        ("-m mark --mark 0x0/0x4000", True),
        ("-m mark --mark 0x4000/0x4000", False),
        ('-m comment --comment "a \\"quoted\\" -j word"', True),
        ("-m iprange --src-range 10.0.0.1-10.0.0.5", True),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", True),
        ("-m recent --rcheck --seconds 10800 --name X --mask 255.255.255.255 --rsource", False),
    ],
)
def test_matches(match: str, matches: bool) -> None:
    result = evaluate(filter_rules(f"FORWARD {match} -j DROP"), packet())
    assert result.verdict is (RulesetVerdict.DROP if matches else RulesetVerdict.NO_MATCH)


def test_an_unknown_match_makes_the_verdict_unknown_and_is_named() -> None:
    result = evaluate(filter_rules("FORWARD -m geoip --source-country XX -j DROP"), packet())
    assert result.verdict is RulesetVerdict.UNKNOWN
    assert any("geoip" in name for name in result.unknown)
    assert result.dropping_rules[0].chain == "FORWARD"
    outcomes = {o.verdict for o in result.outcomes}
    assert outcomes == {RulesetVerdict.DROP, RulesetVerdict.NO_MATCH}


def test_an_unknown_match_that_changes_nothing_leaves_the_verdict_known() -> None:
    rules = filter_rules("FORWARD -m limit --limit 5/min -j LOG", "FORWARD -d 10.1.0.0/16 -j DROP")
    assert evaluate(rules, packet()).verdict is RulesetVerdict.DROP
    before_a_false_match = filter_rules("FORWARD -p udp -m string --string x --algo bm -j DROP")
    assert evaluate(before_a_false_match, packet()).verdict is RulesetVerdict.NO_MATCH


def test_an_unknown_target_makes_the_verdict_unknown() -> None:
    result = evaluate(filter_rules("FORWARD -j NFQUEUE --queue-num 3"), packet())
    assert result.unknown == ("a program decides (nfqueue 3)",)
    assert evaluate(filter_rules("FORWARD -j WEIRD"), packet()).unknown == ("target WEIRD",)


def test_devices_that_are_not_known_leave_the_verdict_open_only_where_they_matter() -> None:
    rules = filter_rules("FORWARD -i eth0 -j DROP")
    assert evaluate(rules, packet()).unknown == ("-i eth0",)
    from_pod = Packet(src="10.0.0.2", dst="10.1.0.9", dport=80, protocol=Protocol.TCP, in_device="veth1")
    assert evaluate(rules, from_pod).verdict is RulesetVerdict.NO_MATCH


def test_without_the_nodes_addresses_a_local_destination_is_not_guessed() -> None:
    rules = parse_ruleset([dump_of("*filter\n-A INPUT -j DROP\nCOMMIT\n")])
    result = evaluate(rules, packet())
    assert result.verdict is RulesetVerdict.UNKNOWN
    assert result.unknown == ("whether 10.1.0.9 is an address of the node",)
    assert evaluate(rules, packet("127.0.0.1")).verdict is RulesetVerdict.DROP


def test_marks_are_set_and_asked_bit_by_bit() -> None:
    rules = filter_rules(
        "FORWARD -j MARK --set-xmark 0x30000/0x30000",
        "FORWARD -j MARK --set-xmark 0x0/0x10000",
        "FORWARD -m mark --mark 0x20000/0x30000 -j DROP",
    )
    assert evaluate(rules, packet()).verdict is RulesetVerdict.DROP


def test_inside_the_node_the_mark_is_unknown_but_not_the_bits_that_rules_set() -> None:
    rules = filter_rules(
        "FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
        "FORWARD -j MARK --set-xmark 0x0/0x8",
        "FORWARD -m mark --mark 0x8/0x8 -j DROP",
        "FORWARD -j REJECT",
    )
    result = evaluate_hook(rules, packet(), "FORWARD")
    assert result.verdict is RulesetVerdict.UNKNOWN
    assert [r.index for r in result.dropping_rules] == [4]
    marked = evaluate_hook(rules, Packet(dst="10.1.0.9", protocol=Protocol.TCP, mark=0x4000), Hook.FORWARD)
    assert marked.verdict is RulesetVerdict.ACCEPT
    with pytest.raises(ValueError, match="no netfilter hook"):
        evaluate_hook(rules, packet(), "NOWHERE")


NAT = """*nat
-A PREROUTING -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j SVC
-A OUTPUT -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j SVC
-A SVC -m statistic --mode random --probability 0.25000000000 -j DNAT --to-destination 10.1.0.1:8080
-A SVC -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.1.0.2:8080
-A SVC -j DNAT --to-destination 10.1.0.3:8080
-A POSTROUTING -s 10.1.0.1/32 -d 10.1.0.1/32 -j MASQUERADE
COMMIT
*filter
-A FORWARD -d 10.1.0.3/32 -j DROP
COMMIT
"""


def test_random_ways_have_the_probabilities_of_their_rules() -> None:
    result = evaluate(ruleset(NAT), packet("10.96.0.1"))
    assert result.verdict is RulesetVerdict.MIXED
    assert [(p.verdict, p.share) for p in result.parts] == [(RulesetVerdict.DNAT, 0.625), (RulesetVerdict.DROP, 0.375)]
    assert [(b.address, b.probability) for b in result.backends] == [("10.1.0.1:8080", 0.25), ("10.1.0.2:8080", 0.375)]
    dropped = next(o for o in result.outcomes if o.verdict is RulesetVerdict.DROP)
    assert dropped.probability == pytest.approx(0.375)
    assert dropped.final_rule is not None
    assert dropped.final_rule.text == "-A FORWARD -d 10.1.0.3/32 -j DROP"


def test_masquerade_is_told_for_each_backend() -> None:
    result = evaluate(ruleset(NAT), packet("10.96.0.1", src="10.1.0.1"))
    assert {b.ip: b.masquerade for b in result.backends} == {"10.1.0.1": True, "10.1.0.2": False}
    assert result.masquerade is True


def test_an_established_connection_is_not_translated_anew() -> None:
    result = evaluate(
        ruleset(NAT), Packet(src="10.0.0.2", dst="10.96.0.1", dport=80, protocol=Protocol.TCP, ct_state="ESTABLISHED")
    )
    assert result.verdict is RulesetVerdict.NO_MATCH


def test_a_packet_of_the_node_to_itself_passes_input_with_its_nat_decided() -> None:
    text = (
        "*nat\n-A PREROUTING -j DNAT --to-destination 10.1.0.1\nCOMMIT\n"
        "*filter\n-A OUTPUT -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 30000 -j REJECT\nCOMMIT\n"
    )
    result = evaluate(ruleset(text), packet(NODE, 30000, src=NODE))
    assert result.verdict is RulesetVerdict.REJECT
    assert met(result) == [("OUTPUT", 1), ("INPUT", 1)]


def test_the_kubelets_firewall_keeps_others_from_loopback_addresses() -> None:
    rules = ruleset(
        "*filter\n-A INPUT -j KUBE-FIREWALL\n-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "
        '"block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\nCOMMIT\n'
    )
    assert evaluate(rules, packet("127.0.0.1", src="192.168.0.9")).verdict is RulesetVerdict.DROP
    assert evaluate(rules, packet("127.0.0.1", src="127.0.0.1")).verdict is RulesetVerdict.NO_MATCH


def test_attribution_finds_the_way_that_leads_to_the_observed_backend() -> None:
    before = FiveTuple("10.0.0.2", 40000, "10.96.0.1", 80, Protocol.TCP)
    after = FiveTuple("10.0.0.2", 40000, "10.1.0.2", 8080, Protocol.TCP)
    found = attribute_nat(ruleset(NAT), before, after)
    assert found is not None
    assert (found.mode, found.endpoint_chain, found.rules[-1].index) == ("iptables", "SVC", 2)
    masqueraded = FiveTuple(NODE, 50000, "10.1.0.2", 8080, Protocol.TCP)
    assert attribute_nat(ruleset(NAT), before, masqueraded) is not None
    assert attribute_nat(ruleset(NAT), before, FiveTuple("10.0.0.2", 40000, "10.9.9.9", 80, Protocol.TCP)) is None
    assert attribute_nat(ruleset(NAT), before, before) is None


def test_ipv6_rules_are_for_ipv6_packets() -> None:
    text = (
        "*nat\n-A PREROUTING -d fd96::1/128 -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd44::10]:8080\nCOMMIT\n"
    )
    rules = ruleset(text, NAT)
    assert rules.sources == ("ip6tables-nft", "iptables-nft")
    result = evaluate(rules, packet("fd96::1", src="fd44::2"))
    assert [b.address for b in result.backends] == ["[fd44::10]:8080"]
    assert attribute_nat(
        rules,
        FiveTuple("fd44::2", 1, "fd96::1", 80, Protocol.TCP),
        FiveTuple("fd44::2", 1, "fd44::10", 8080, Protocol.TCP),
    )


def test_legacy_and_nft_tables_of_one_node_are_both_walked() -> None:
    legacy = "# Generated by iptables-save v1.8.9 (legacy)\n*filter\n-A FORWARD -j DROP\nCOMMIT\n"
    rules = ruleset("*filter\n-A FORWARD -p udp -j ACCEPT\nCOMMIT\n", legacy)
    assert rules.sources == ("iptables-nft", "iptables-legacy")
    assert evaluate(rules, packet(protocol="UDP")).verdict is RulesetVerdict.DROP


def test_nft_table_of_iptables_is_not_walked_twice() -> None:
    nft = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n"
    assert evaluate(ruleset(nft), packet()).verdict is RulesetVerdict.DROP
    assert (
        evaluate(ruleset("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", nft), packet()).verdict is RulesetVerdict.NO_MATCH
    )


def nft_chain(*rules: str, sets: str = "") -> Ruleset:
    body = "".join(f"\t\t{rule}\n" for rule in rules)
    hook = "type filter hook forward priority filter; policy accept;"
    return ruleset(f"table inet t {{\n{sets}\tchain forward {{\n\t\t{hook}\n{body}\t}}\n}}\n")


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ("ip daddr 10.1.0.0/16", True),
        ("ip daddr != 10.1.0.9", False),
        ("tcp dport { 80, 443 }", True),
        ("udp dport 80", False),
        ("th dport 80-90", True),
        ("ip6 daddr fd00::1", False),
        ("meta l4proto tcp", True),
        ("ct state established,related", False),
        ("ct state { new, related }", True),
        ("meta mark & 0x4000 == 0x0", True),
        ("meta mark 0x1", False),
        ("fib daddr type local", False),
        ("ip saddr . tcp dport { 10.0.0.2 . 80 }", True),
        ("ip protocol tcp", True),
        ("tcp dport > 1024", False),
        ("meta nfproto ipv4", True),
        ("ip saddr @nets", True),
        ("ip daddr @nets", False),
        ("ct direction original", True),
    ],
)
def test_nft_matches(rule: str, matches: bool) -> None:
    sets = (
        "\tset nets {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { 10.0.0.0/24, 10.5.0.1-10.5.0.9 }\n\t}\n"
    )
    result = evaluate(nft_chain(f"{rule} drop", sets=sets), packet())
    assert result.unknown == ()
    assert result.verdict is (RulesetVerdict.DROP if matches else RulesetVerdict.NO_MATCH)


def test_nft_what_is_not_known_is_named() -> None:
    assert "cgroup" in evaluate(nft_chain("meta cgroup 7 drop"), packet()).unknown[0]
    assert "osf" in evaluate(nft_chain('osf name "Linux" drop'), packet()).unknown[0]
    result = evaluate(nft_chain('meta cgroup 7 log prefix "x" counter', "ip daddr 10.1.0.9 reject"), packet())
    assert result.verdict is RulesetVerdict.REJECT


def test_nft_rule_is_shown_without_what_it_had_counted_when_it_was_read() -> None:
    result = evaluate(nft_chain("ip daddr 10.1.0.9 counter packets 1 bytes 68 drop"), packet())
    assert result.verdict is RulesetVerdict.DROP and result.rules[-1].text == "ip daddr 10.1.0.9 counter drop"


def test_nft_verdict_maps_and_their_comments() -> None:
    sets = (
        "\tmap none {\n\t\ttype ipv4_addr . inet_proto . inet_service : verdict\n"
        '\t\telements = { 10.1.0.9 . tcp . 80 comment "ns1/svc1:p80" : drop }\n\t}\n'
    )
    result = evaluate(nft_chain("ip daddr . meta l4proto . th dport vmap @none", sets=sets), packet())
    assert result.verdict is RulesetVerdict.DROP
    assert result.service == "ns1/svc1:p80"
    assert result.rules[-1].chain == "map none"
    missed = evaluate(nft_chain("ip daddr . meta l4proto . th dport vmap @none", sets=sets), packet(dport=81))
    assert (missed.verdict, missed.rules) == (RulesetVerdict.NO_MATCH, ())


def test_nft_remembered_clients_keep_their_backend() -> None:
    text = """table ip kube-proxy {
	set affinity-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80 {
		type ipv4_addr
		flags dynamic,timeout
		timeout 3h
		elements = { 10.0.0.2 expires 2h59m }
	}
	chain endpoint-a { dnat to 10.180.0.1:80
	}
	chain endpoint-b { dnat to 10.180.2.1:80
	}
	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip saddr @affinity-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80 goto endpoint-a
		numgen random mod 2 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b }
	}
}
"""
    assert [b.ip for b in evaluate(ruleset(text), packet()).backends] == ["10.180.0.1"]
    fresh = evaluate(ruleset(text), packet(src="10.0.0.3"))
    assert [(b.ip, b.probability) for b in fresh.backends] == [("10.180.0.1", 0.5), ("10.180.2.1", 0.5)]


def icmp_error(kind: int, code: int) -> Packet:
    return Packet(src="10.0.0.2", dst="10.1.0.9", protocol=Protocol.ICMP, ct_state="RELATED", icmp=(kind, code))


@pytest.mark.parametrize(("kind", "code", "rule"), [(3, 4, 4), (3, 1, 3), (11, 0, 6), (12, 0, 0)])
def test_icmp_rules_match_their_type_and_code(kind: int, code: int, rule: int) -> None:
    rules = filter_rules(
        "FORWARD -p icmp -m icmp --icmp-type 8 -j DROP",
        "FORWARD -p tcp -j DROP",
        "FORWARD -p icmp -m icmp --icmp-type 3/1 -j DROP",
        "FORWARD -p icmp -m icmp --icmp-type 3/4 -j DROP",
        "FORWARD -p icmp -m icmp ! --icmp-type 12 -m conntrack --ctstate NEW -j DROP",
        "FORWARD -p icmp -m icmp ! --icmp-type 12 -j DROP",
    )
    found = evaluate_hook(rules, icmp_error(kind, code), "FORWARD").dropping_rules
    assert [r.index for r in found] == ([rule] if rule else [])


@pytest.mark.parametrize(("kind", "code", "handles"), [(3, 4, [3]), (3, 1, [5]), (11, 0, [5]), (12, 0, [])])
def test_nft_names_icmp_types_and_codes(kind: int, code: int, handles: list[int]) -> None:
    def match(field: str, right: object) -> dict[str, object]:
        left = {"payload": {"protocol": "icmp", "field": field}}
        return {"match": {"op": "==", "left": left, "right": right}}

    def rule(handle: int, *matches: dict[str, object]) -> dict[str, object]:
        place = {"family": "ip", "table": "t", "chain": "c", "handle": handle}
        return {"rule": {**place, "expr": [*matches, {"drop": None}]}}

    chain = {
        "family": "ip",
        "table": "t",
        "name": "c",
        "type": "filter",
        "hook": "forward",
        "prio": 0,
        "policy": "accept",
    }
    text = json.dumps(
        {
            "nftables": [
                {"table": {"family": "ip", "name": "t"}},
                {"chain": chain},
                rule(2, match("type", "echo-request")),
                rule(3, match("type", "destination-unreachable"), match("code", "frag-needed")),
                rule(5, match("type", {"set": ["destination-unreachable", "time-exceeded"]})),
            ]
        }
    )
    found = evaluate_hook(ruleset(text), icmp_error(kind, code), "FORWARD").dropping_rules
    assert [r.index for r in found] == [{3: 2, 5: 3}[h] for h in handles]


def test_jumps_within_jumps_are_followed_up_to_a_number_of_rules() -> None:
    """100 rules that jump to 100 rules that jump to 100 rules that jump to 100: a hundred million in 6 KB."""
    levels = [f"{above} -j {below}" for above, below in (("FORWARD", "A"), ("A", "B"), ("B", "C")) for _ in range(100)]
    ruleset = filter_rules(*levels, *["C -s 1.2.3.4/32 -j DROP"] * 100, chains="A B C")
    result = evaluate(ruleset, packet())
    assert result.verdict is RulesetVerdict.UNKNOWN
    assert result.unknown[0].startswith("more than 500000 rules are met")
