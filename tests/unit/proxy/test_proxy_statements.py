"""Single statements of iptables(8), ipset(8) and nft(8): what each makes of a first packet, a row each."""

import json

import pytest

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Evaluation, Packet, RulesetVerdict, dumps_of, evaluate, parse_ruleset

NODE = "192.168.0.2"
PACKET = Packet(
    src="10.0.0.2",
    sport=20001,
    dst="10.1.0.9",
    dport=80,
    protocol=Protocol.TCP,
    in_device="eth0",
    out_device="veth1",
    bridged=False,
)


def outcome(*texts: str, packet: Packet = PACKET) -> Evaluation:
    dumps = [dump for text in texts for dump in dumps_of(text)]
    return evaluate(parse_ruleset(dumps, node_ips=[NODE]), packet)


def iptables(*rules: str, table: str = "filter", chains: str = "") -> str:
    declared = "".join(f":{name} - [0:0]\n" for name in chains.split())
    return f"*{table}\n{declared}" + "".join(f"-A {rule}\n" for rule in rules) + "COMMIT\n"


IPTABLES = [
    ("-s 10.0.0.0/255.0.0.0", True),
    ("-d 10.0.0.9/255.0.0.255", True),
    ("-d 10.0.0.8/255.0.0.255", False),
    ("-s 10.9.0.0/16,10.0.0.0/16", True),
    ("-p tcp -m tcp --sport 20001", True),
    ("-p tcp -m multiport --ports 53,80", True),
    ("-i eth+", True),
    ("! -o veth1", False),
    ("-f", False),
    ("-m conntrack --ctstate NEW,RELATED", True),
    ("-m conntrack --ctstatus DNAT", False),
    ("-m conntrack ! --ctstatus ASSURED", True),
    ("-m conntrack --ctdir ORIGINAL", True),
    ("-m conntrack --ctorigdst 10.1.0.0/16 --ctorigdstport 80", True),
    ("-m conntrack --ctreplsrc 10.1.0.9", True),
    ("-m connmark --mark 0x0/0xff", True),
    ("-m connmark ! --mark 0x1", True),
    ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", True),
    ("-p tcp -m tcp --tcp-flags ALL NONE", False),
    ("-p tcp -m tcp ! --syn", False),
    ("-m owner --uid-owner 1337", False),
    ("-m owner ! --uid-owner 1337", True),
    ("-m pkttype --pkt-type unicast", True),
    ("-m pkttype --pkt-type multicast", False),
    ("-m addrtype --dst-type UNICAST", True),
    ("-m addrtype --dst-type MULTICAST", False),
    ("-m addrtype --dst-type BROADCAST", False),
    ("-m physdev ! --physdev-is-in", True),
    ("-m physdev --physdev-in veth9", False),
    ("-m dscp --dscp 0x00", True),
    ("-m tos --tos 0x10/0x3f", False),
    ("-m limit --limit 5/min", True),
    ("-m hashlimit --hashlimit-above 10/sec --hashlimit-mode srcip --hashlimit-name a", False),
    ("-m connlimit --connlimit-above 3 --connlimit-mask 32 --connlimit-saddr", False),
    ("-m policy --dir in --pol none", True),
    ("-m rpfilter --validmark --invert", False),
    ("-m recent --set --name x --mask 255.255.255.255 --rsource", True),
    ("-m helper --helper ftp", False),
    ("-m iprange --dst-range 10.1.0.1-10.1.0.9", True),
]


@pytest.mark.parametrize(("match", "matches"), IPTABLES)
def test_a_match_of_iptables(match: str, matches: bool) -> None:
    result = outcome(iptables(f"FORWARD {match} -j DROP"))
    assert result.unknown == ()
    assert result.verdict is (RulesetVerdict.DROP if matches else RulesetVerdict.NO_MATCH)


NFT = [
    ("ip daddr & 255.0.0.255 == 10.0.0.9", True),
    ("ip daddr 10.1.0.1-10.1.0.9", True),
    ("tcp dport 0x50-0x51", True),
    ("tcp dport != 80", False),
    ("udp dport != 53", False),
    ("tcp flags syn", True),
    ("tcp flags & (fin | syn | rst | ack) == syn", True),
    ("tcp flags syn / fin,syn,rst,ack", True),
    ("tcp flags ack", False),
    ("ct state new", True),
    ("ct state != new", False),
    ("ct status dnat", False),
    ("ct status & snat == snat", False),
    ("ct direction original", True),
    ("ct original ip daddr 10.1.0.9", True),
    ("ct reply ip saddr 10.1.0.9", True),
    ("ct original proto-dst 80", True),
    ("ct mark 0x0", True),
    ("ct mark & 0xff != 0x1", True),
    ("meta mark & 0x0000ff00 == 0x00000000", True),
    ("meta pkttype host", True),
    ("meta skuid 1000", False),
    ("meta l4proto { tcp, udp }", True),
    ("meta nfproto ipv6", False),
    ("meta protocol ip", True),
    ('iifname "eth*"', True),
    ('iifname { "lo", "eth*" }', True),
    ('oifname != { "veth1" }', False),
    ('iif "eth0" oif "veth1"', True),
    ("ip dscp cs0", True),
    ("ip dscp ef", False),
    ("icmp type echo-request", False),
    ("fib daddr type unicast", True),
    ("fib daddr type { local, multicast }", False),
    ("fib saddr . iif oif missing", False),
    ("ip saddr . ip daddr . tcp dport { 10.0.0.0/8 . 10.1.0.9 . 80-90 }", True),
    ("symhash mod 1 == 0", True),
    ("limit rate over 10/second", False),
    ("limit rate 10/second burst 5 packets", True),
    ("ct count over 5", False),
    ("add @seen { ip saddr limit rate over 5/second }", False),
    ("quota over 10 mbytes", False),
    ("meta ipsec missing", True),
    ("th dport 80", True),
    ("meta mark set 0x1 meta mark 0x1", True),
    ("meta mark set 0x1 meta mark 0x2", False),
    ("ct mark set 0x5 ct mark 0x5", True),
    ("meta mark set 0x10 ct mark set mark ct mark 0x10", True),
    ('log prefix "seen: " level warn counter name "drops"', True),
]


@pytest.mark.parametrize(("match", "matches"), NFT)
def test_a_statement_of_nft(match: str, matches: bool) -> None:
    hook = "type filter hook forward priority filter; policy accept;"
    text = f"table inet t {{\n\tset seen {{\n\t\ttype ipv4_addr\n\t}}\n\tchain f {{\n\t\t{hook}\n\t\t{match} drop\n\t}}\n}}\n"
    result = outcome(text)
    assert result.unknown == ()
    assert result.verdict is (RulesetVerdict.DROP if matches else RulesetVerdict.NO_MATCH)


OPEN = [
    ("rt ip nexthop 10.9.0.1", ""),
    ('fib saddr oifname "eth9"', ""),
    ('fib saddr . iif oif "eth9"', ""),
    ("ct zone 3", "ct zone set 3"),
    ("ct zone 0", "ct zone set 3"),
]


@pytest.mark.parametrize(("match", "before"), OPEN)
def test_a_statement_of_nft_that_rules_and_flow_can_not_answer(match: str, before: str) -> None:
    raw = f"\tchain r {{\n\t\ttype filter hook prerouting priority raw;\n\t\t{before}\n\t}}\n"
    hook = "type filter hook forward priority filter; policy accept;"
    result = outcome(f"table inet t {{\n{raw}\tchain f {{\n\t\t{hook}\n\t\t{match} drop\n\t}}\n}}\n")
    assert result.verdict is RulesetVerdict.UNKNOWN


IPSETS = [
    ("hash:net", "10.0.0.0/8\n10.0.0.0/24 nomatch", "src", False),
    ("hash:net", "10.0.0.0/24\n10.0.0.0/8 nomatch", "src", True),
    ("hash:ip,port", "10.1.0.9,tcp:80", "dst,dst", True),
    ("hash:ip,port,net", "10.1.0.9,tcp:80,10.0.0.0/16", "dst,dst,src", True),
    ("hash:net,iface", "10.0.0.0/8,eth0", "src,src", True),
    ("hash:net,iface", "10.0.0.0/8,et wildcard", "src,src", True),
    ("hash:net,port", "10.1.0.0/16,udp:80", "dst,dst", False),
    ("bitmap:port", "80", "dst", True),
    ("hash:ip,port", "10.1.0.9,tcp:80", "dst", False),
    ("hash:net", "10.0.0.0/8\n10.0.0.0/24 nomatch", "src --return-nomatch", True),
    ("hash:net", "10.0.0.0/24\n10.0.0.0/8 nomatch", "src --return-nomatch", False),
    ("hash:net", "10.9.0.0/24 nomatch", "src --return-nomatch", False),
    ("hash:ip", "10.0.0.2", "src --return-nomatch", True),
]


@pytest.mark.parametrize(("kind", "members", "flags", "matches"), IPSETS)
def test_a_set_of_ipset(kind: str, members: str, flags: str, matches: bool) -> None:
    listed = f"Name: s\nType: {kind}\nHeader: family inet hashsize 64\nMembers:\n{members}\n"
    result = outcome(iptables(f"FORWARD -m set --match-set s {flags} -j DROP"), listed)
    assert result.verdict is (RulesetVerdict.DROP if matches else RulesetVerdict.NO_MATCH)


def test_a_set_masks_addresses_and_a_list_of_sets_asks_its_members() -> None:
    masked = "create m hash:ip family inet netmask 24\nadd m 10.0.0.0\ncreate l list:set size 8\nadd l m\n"
    rules = iptables("FORWARD -m set --match-set l src -j DROP")
    assert outcome(rules, masked).verdict is RulesetVerdict.DROP
    lost = "create l list:set size 8\nadd l gone\n"
    assert outcome(rules, lost).verdict is RulesetVerdict.UNKNOWN


@pytest.mark.parametrize("asked", ["src --packets-gt 7", "src ! --update-counters --bytes-lt 9"])
def test_an_option_that_can_not_be_answered_leaves_open_what_its_extension_asks(asked: str) -> None:
    """It may turn the answer of the options before it: a miss of theirs is no miss of the match."""
    listed = "Name: s\nType: hash:ip\nHeader: family inet counters\nMembers:\n10.9.0.9 packets 0 bytes 0\n"
    assert outcome(iptables(f"FORWARD -m set --match-set s {asked} -j DROP"), listed).verdict is RulesetVerdict.UNKNOWN
    elsewhere = iptables(f"FORWARD -p udp -m set --match-set s {asked} -j DROP")
    assert outcome(elsewhere, listed).verdict is RulesetVerdict.NO_MATCH


def nat(rule: str, sets: str = "") -> str:
    hook = "type nat hook prerouting priority dstnat; policy accept;"
    return f"table inet n {{\n{sets}\tchain p {{\n\t\t{hook}\n\t\t{rule}\n\t}}\n}}\n"


PORTS = "\tmap m {\n\t\ttype inet_service : ipv4_addr . inet_service\n\t\telements = { 80 : 10.7.0.1 . 8080 }\n\t}\n"


@pytest.mark.parametrize(
    ("rule", "backends"),
    [
        ("tcp dport 80 dnat ip to 10.7.0.1:8080", {"10.7.0.1:8080"}),
        ("tcp dport 80 dnat ip addr . port to 10.7.0.1 . 8080", {"10.7.0.1:8080"}),
        ("dnat ip addr . port to tcp dport map @m", {"10.7.0.1:8080"}),
        ("dnat ip to numgen random mod 2 map { 0 : 10.7.0.1, 1 : 10.7.0.2 }", {"10.7.0.1:80", "10.7.0.2:80"}),
        ("dnat ip to jhash ip saddr mod 2 map { 0 : 10.7.0.1, 1 : 10.7.0.2 }", {"10.7.0.1:80", "10.7.0.2:80"}),
        ("dnat ip to ip daddr map { 10.1.0.9 : 10.7.0.3 }", {"10.7.0.3:80"}),
        ("dnat ip to ip daddr map { 10.1.0.8 : 10.7.0.3 }", set()),
        ("tcp dport 80 dnat ip to 10.7.0.1-10.7.0.1:90-99", {"10.7.0.1:90"}),
    ],
)
def test_translations_of_nft(rule: str, backends: set[str]) -> None:
    assert {b.address for b in outcome(nat(rule, PORTS)).backends} == backends


def test_an_address_of_a_range_is_the_one_that_the_kernels_hash_picks() -> None:
    rule = "PREROUTING -j DNAT --to-destination 10.7.0.1-10.7.0.16"
    first = outcome(iptables(rule, table="nat")).backends
    unknown = outcome(iptables(rule, table="nat"), packet=Packet(dst="10.1.0.9", dport=80, protocol=Protocol.TCP))
    assert len(first) == 1
    assert {b.ip for b in unknown.backends} == {f"10.7.0.{n}" for n in range(1, 17)}


def test_untracked_packets_are_not_translated() -> None:
    raw = iptables("PREROUTING -d 10.1.0.9/32 -j CT --notrack", table="raw")
    dnat = iptables("PREROUTING -j DNAT --to-destination 10.7.0.1", table="nat")
    assert outcome(raw + dnat).verdict is RulesetVerdict.NO_MATCH
    late = iptables("PREROUTING -j CT --notrack", table="mangle")
    assert outcome(late + dnat).verdict is RulesetVerdict.DNAT


def test_connection_marks_are_written_and_read_under_both_masks() -> None:
    rules = iptables(
        "PREROUTING -j MARK --set-xmark 0x4080/0x4080",
        "PREROUTING -j CONNMARK --save-mark --nfmask 0x80 --ctmask 0x80",
        "PREROUTING -j MARK --set-xmark 0x0/0x80",
        "PREROUTING -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80",
        table="mangle",
    )
    assert outcome(rules + iptables("FORWARD -m mark --mark 0x4080 -j DROP")).verdict is RulesetVerdict.DROP


def test_hooks_of_devices_and_dormant_tables() -> None:
    hook = 'type filter hook ingress device "eth0" priority filter; policy accept;'
    text = "table {} t {{\n\tchain i {{\n\t\t" + hook + "\n\t\tdrop\n\t}}\n}}\n"
    assert outcome(text.format("netdev")).verdict is RulesetVerdict.DROP
    assert outcome(text.format("inet").replace("eth0", "eth1")).verdict is RulesetVerdict.NO_MATCH
    assert (
        outcome(text.format("netdev").replace("\tchain", "\tflags dormant\n\tchain", 1)).verdict
        is RulesetVerdict.NO_MATCH
    )


SIZED = Packet(
    src="10.0.0.2", dst="10.1.0.9", dport=80, sport=20001, protocol=Protocol.TCP, ttl=64, length=60, bridged=False
)
HEADERS = [
    ("-m ttl --ttl-eq 63", "ip ttl 63", True, True),  # one less than it came in with
    ("-m ttl --ttl-gt 63", "ip ttl > 63", False, True),
    ("-m length --length 60:80", "ip length 60-80", True, True),
    ("-m length ! --length :60", "meta length > 60", False, True),
    ('-m u32 --u32 "0&0xFFFF=60 && 6&0xFF=6"', "@nh,16,16 60 @nh,72,8 6", True, True),
    ('-m u32 --u32 "0>>22&0x3C@0&0xFFFF=80"', "@th,16,16 80", True, False),
    ("-m connbytes --connbytes 1:1 --connbytes-dir both --connbytes-mode packets", "ct packets 1", True, False),
]


@pytest.mark.parametrize(("match", "nft", "matches", "asks_size"), HEADERS)
def test_header_fields_that_a_flow_gives_are_compared_and_are_unknown_else(
    match: str, nft: str, matches: bool, asks_size: bool
) -> None:
    expected = RulesetVerdict.DROP if matches else RulesetVerdict.NO_MATCH
    chain = f"table ip t {{\n chain c {{\n type filter hook forward priority 0;\n {nft} drop\n }}\n}}\n"
    for text in (iptables(f"FORWARD {match} -j DROP"), chain):
        assert outcome(text, packet=SIZED).verdict is expected
        assert outcome(text).verdict is (RulesetVerdict.UNKNOWN if asks_size else expected)


def test_marking_by_hash_leaves_the_mark_open_and_the_way_known() -> None:
    marked = iptables("PREROUTING -j HMARK --hmark-tuple src --hmark-mod 4", table="mangle")
    assert outcome(marked).verdict is RulesetVerdict.NO_MATCH
    assert outcome(marked + iptables("FORWARD -m mark --mark 2 -j DROP")).verdict is RulesetVerdict.UNKNOWN


def test_tos_bits_outside_the_mask_stay() -> None:
    both = iptables("PREROUTING -j DSCP --set-dscp 0x2e", "PREROUTING -j TOS --set-tos 0x00/0x80", table="mangle")
    assert outcome(both + iptables("FORWARD -m tos --tos 0x38/0xff -j DROP")).verdict is RulesetVerdict.DROP


def test_networks_of_connections_that_nft_prints_from_their_last_byte_on() -> None:
    chain = "table ip t {\n chain c {\n type filter hook forward priority 0;\n ct original ip saddr %s drop\n }\n}\n"
    assert outcome(chain % "0.10.0.0").verdict is RulesetVerdict.DROP
    assert outcome(chain % "0.0.0.10").verdict is RulesetVerdict.DROP
    assert outcome(chain % "0.0.10.1").verdict is RulesetVerdict.NO_MATCH


def with_flags(flags: object, policy: str = "accept") -> RulesetVerdict:
    """Of a table with one chain that drops all, whose flags nft's JSON gives so."""
    chain = {"type": "filter", "hook": "forward", "prio": 0, "policy": policy}
    objects: list[dict[str, object]] = [
        {"table": {"family": "ip", "name": "t", "flags": flags}},
        {"chain": {"family": "ip", "table": "t", "name": "c", **chain}},
    ]
    if policy == "accept":
        objects.append({"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [{"drop": None}]}})
    return outcome(json.dumps({"nftables": objects})).verdict


@pytest.mark.parametrize("policy", ["accept", "drop"])
def test_flags_of_a_table_that_nft_garbles_leave_open_whether_it_is_dormant(policy: str) -> None:
    assert with_flags(["dormant"], policy) is RulesetVerdict.NO_MATCH
    assert with_flags("dormant", policy) is RulesetVerdict.NO_MATCH
    assert with_flags("owner", policy) is with_flags(["owner", "persist"], policy) is RulesetVerdict.DROP
    assert with_flags("Lester Gooch #5", policy) is RulesetVerdict.UNKNOWN


def test_flags_of_a_listing_are_read_apart() -> None:
    text = "table ip t {{\n\tflags {}\n\tchain c {{\n\t\ttype filter hook forward priority 0;\n\t\tdrop\n\t}}\n}}\n"
    assert outcome(text.format("owner,persist")).verdict is RulesetVerdict.DROP
    assert outcome(text.format("dormant,owner")).verdict is RulesetVerdict.NO_MATCH


def test_of_chains_of_one_priority_the_one_registered_last_runs_first() -> None:
    one, two = nat("dnat ip to 10.7.0.1"), nat("dnat ip to 10.7.0.2").replace(" n {", " m {")
    assert [b.ip for b in outcome(one + two).backends] == ["10.7.0.2"]
    legacy = "# Generated by iptables-save v1.8.9 on Monday\n" + iptables(
        "PREROUTING -j DNAT --to-destination 10.7.0.3", table="nat"
    )
    tied = outcome(one, legacy)
    assert tied.verdict is RulesetVerdict.UNKNOWN
    assert "iptables-legacy" in tied.unknown[0]


def test_questions_that_exclude_each_other_are_judged_together() -> None:
    packet = Packet(src="10.0.0.2", dst="10.1.0.9", dport=80, protocol=Protocol.TCP)
    apart = iptables("FORWARD ! -i eth0 -j DROP", "FORWARD ! -i eth1 -j DROP")
    assert outcome(apart, packet=packet).verdict is RulesetVerdict.DROP
    either = iptables("FORWARD -i eth0 -j MARK --set-xmark 0x1/0x1", "FORWARD -i eth1 -j MARK --set-xmark 0x2/0x2")
    both = iptables("FORWARD -i eth0 -j A", "FORWARD -i eth1 -j DROP", "A -i eth1 -j DROP", chains="A")
    assert outcome(either, packet=packet).verdict is RulesetVerdict.NO_MATCH
    result = outcome(both, packet=packet)
    assert result.verdict is RulesetVerdict.UNKNOWN
    assert "-i eth1" in result.unknown


def test_random_ways_that_end_differently_are_told_with_their_shares_and_rules() -> None:
    result = outcome(iptables("FORWARD -m statistic --mode random --probability 0.25 -j DROP"))
    assert result.verdict is RulesetVerdict.MIXED
    parts = {part.verdict: (part.share, part.rule.index if part.rule else None) for part in result.parts}
    assert parts == {RulesetVerdict.DROP: (0.25, 1), RulesetVerdict.NO_MATCH: (0.75, None)}
