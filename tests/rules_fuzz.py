"""Random rulesets in a network namespace, real packets through them: what the kernel did beside what the evaluator says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_genainet.proxy import Evaluation, Packet, RulesetVerdict, dumps_of, evaluate, parse_ruleset
from tests.rules_wire import NODE_IPS, Flow, Wire

BACKENDS = ("10.8.0.11", "10.8.0.12", "10.8.0.13")


@dataclass(frozen=True)
class Difference:
    """A flow that did something else than was said, with the rules that it met."""

    dumps: tuple[str, ...]
    flow: Flow
    did: str
    said: tuple[str, ...]


@dataclass
class Count:
    flows: int = 0
    unknown: int = 0
    refused: int = 0  # rulesets that the kernel's tools did not take


def said(evaluation: Evaluation, flow: Flow) -> set[str]:
    """What an evaluation allows a flow to do, in the words of `Wire.send`."""
    if evaluation.verdict is RulesetVerdict.UNKNOWN:
        return {"UNKNOWN"}
    ways = set()
    for outcome in evaluation.outcomes:
        if outcome.verdict in (RulesetVerdict.DROP, RulesetVerdict.REJECT):
            ways.add(outcome.verdict.value)
        else:
            at = outcome.backend.address if outcome.backend is not None else f"{flow.dst}:{flow.dport}"
            local = at.rpartition(":")[0] in NODE_IPS
            ways.add("NODE" if local else at + (" masq" if outcome.masquerade else ""))
    return ways


MATCHES = (
    "-s 10.7.0.2/32",
    "! -s 10.7.0.2/32",
    "-s 10.7.0.0/24",
    "-d 10.96.0.0/16",
    "-d 10.96.0.1/32",
    "! -d 10.8.0.2/32",
    "-d 10.0.0.1/255.0.0.255",
    "-p tcp",
    "-p udp",
    "! -p tcp",
    "-p tcp -m tcp --dport 80",
    "-p udp -m udp --dport 53",
    "-p tcp -m tcp ! --dport 80",
    "-p tcp -m multiport --dports 80,443",
    "-p udp -m multiport ! --dports 53,8080:8090",
    "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
    "-p tcp -m tcp ! --syn",
    "-m mark --mark 0x4000/0x4000",
    "-m mark ! --mark 0x1/0x3",
    "-m connmark --mark 0x80/0x80",
    "-m connmark ! --mark 0x0",
    "-m conntrack --ctstate NEW",
    "-m conntrack --ctstate INVALID,UNTRACKED",
    "-m conntrack ! --ctstate NEW",
    "-m conntrack --ctstate DNAT",
    "-m conntrack --ctstatus CONFIRMED",
    "-m conntrack ! --ctstatus ASSURED",
    "-m conntrack --ctorigdst 10.96.0.1/32",
    "-m conntrack --ctreplsrc 10.8.0.0/24",
    "-m conntrack --ctdir ORIGINAL",
    "-m addrtype --dst-type LOCAL",
    "-m addrtype ! --dst-type LOCAL",
    "-m addrtype --src-type LOCAL",
    "-m set --match-set nets src",
    "-m set ! --match-set nets src",
    "-m set --match-set ports dst,dst",
    "-m set --match-set both dst",
    "-m set --match-set masked src",
    "-m iprange --dst-range 10.96.0.1-10.96.0.2",
    "-m statistic --mode random --probability 0.5",
    "-m pkttype --pkt-type unicast",
    "-m dscp --dscp 0x00",
    "-m limit --limit 1000/sec --limit-burst 10000",
    "-m connlimit --connlimit-above 5000 --connlimit-mask 0 --connlimit-saddr",
    "",
)


def _pick(chance: random.Random, options: tuple[str, ...]) -> str:
    return chance.choice(options)


def iptables_text(chance: random.Random) -> str:
    """An iptables-restore text over all tables, with a few chains of its own."""
    tables = []
    for table, chains in (
        ("raw", ("PREROUTING",)),
        ("mangle", ("PREROUTING", "FORWARD", "POSTROUTING")),
        ("nat", ("PREROUTING", "POSTROUTING")),
        ("filter", ("INPUT", "FORWARD")),
    ):
        heads = [
            f":{chain} {'DROP' if table == 'filter' and chance.random() < 0.15 else 'ACCEPT'} [0:0]" for chain in chains
        ]
        rules = []
        for chain in (*chains, "A", "B"):
            for _ in range(chance.randint(0, 3)):
                where = "POSTROUTING" if chain == "POSTROUTING" else chain
                rules.append(f"-A {chain} {_match(chance)} -j {_target(chance, table, where)}")
        tables.append("\n".join((f"*{table}", *heads, ":A - [0:0]", ":B - [0:0]", *rules, "COMMIT", "")))
    return "".join(tables)


def _match(chance: random.Random) -> str:
    one = _pick(chance, MATCHES)
    return one if chance.random() < 0.6 or "-p " in one else f"{one} {_pick(chance, MATCHES[9:30])}"


def _target(chance: random.Random, table: str, chain: str) -> str:
    common = ["RETURN", "MARK --set-xmark 0x4000/0x4000", "MARK --set-xmark 0x1/0x3", "ACCEPT"]
    if chain not in ("A", "B"):
        common += ["A", "B"]
    elif chain == "A":
        common += ["B"]
    special = {
        "raw": ["CT --notrack", "DROP"],
        "mangle": [
            *("CONNMARK --set-xmark 0x80/0x80", "CONNMARK --save-mark --nfmask 0x4000 --ctmask 0x4000", "DROP"),
            *("CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80", "CONNMARK --restore-mark"),
        ],
        "filter": ["DROP", "REJECT --reject-with icmp-port-unreachable"],
        "nat": ["RETURN"],
    }[table]
    if table == "nat" and chain == "PREROUTING":
        backend = chance.choice(BACKENDS)
        special = [
            *(f"DNAT --to-destination {backend}", f"DNAT --to-destination {BACKENDS[0]}-{BACKENDS[2]}"),
            *("REDIRECT", "NETMAP --to 10.8.0.0/24"),
        ]
    elif table == "nat" and chain == "POSTROUTING":
        special = ["MASQUERADE"]
    return chance.choice(common + special * 2)


IPSETS = """create nets hash:net family inet
add nets 10.7.0.0/24
add nets 10.7.0.3 nomatch
create ports hash:ip,port family inet
add ports 10.96.0.1,tcp:80
add ports 10.96.0.2,udp:53
create one hash:ip family inet
add one 10.8.0.2
create masked hash:ip family inet netmask 25
add masked 10.7.0.0
create both list:set size 4
add both one
add both nets
"""

NFT_MATCHES = (
    "ip saddr 10.7.0.2",
    "ip saddr != 10.7.0.2",
    "ip daddr 10.96.0.0/16",
    "ip daddr & 255.0.0.255 == 10.0.0.1",
    "ip daddr { 10.96.0.1, 10.8.0.2-10.8.0.3 }",
    "ip daddr != @nets",
    "ip saddr . tcp dport @pairs",
    "tcp dport 80",
    "tcp dport != { 80, 443 }",
    "udp dport 0x35",
    "th dport 53-80",
    "meta l4proto { tcp, udp }",
    "meta l4proto != tcp",
    "ct state new",
    "ct state invalid,untracked",
    "ct state != new",
    "ct status dnat",
    "ct status != dnat",
    "ct mark & 0x80 == 0x80",
    "ct mark 0",
    "meta mark & 0x4000 != 0",
    "meta mark 0x1",
    "ct direction original",
    "ct original ip daddr 10.96.0.1",
    "ct reply ip saddr 10.8.0.0/24",
    "fib daddr type local",
    "fib daddr type != local",
    'iifname "cli*"',
    'iifname != { "srv0", "lo" }',
    "meta pkttype host",
    "tcp flags syn",
    "tcp flags & (syn | ack) == ack",
    "numgen random mod 4 < 2",
    "symhash mod 1 == 0",
    "ip dscp cs0",
    "limit rate 1000/second burst 10000 packets",
    "meta skuid 0",
    "ip protocol udp",
    "meta nfproto ipv4",
    "counter",
)


def nft_text(chance: random.Random) -> str:
    family = chance.choice(("ip", "inet"))
    chains = (
        ("raw", "type filter hook prerouting priority raw; policy accept;"),
        ("mangle", "type filter hook prerouting priority mangle; policy accept;"),
        ("pre", "type nat hook prerouting priority dstnat; policy accept;"),
        ("pre2", "type nat hook prerouting priority dstnat; policy accept;"),
        ("onward", f"type filter hook forward priority filter; policy {chance.choice(('accept', 'accept', 'drop'))};"),
        ("inp", "type filter hook input priority filter; policy accept;"),
        ("post", "type nat hook postrouting priority srcnat; policy accept;"),
    )
    blocks = [f"\tchain a {{\n{_nft_rules(chance, 'a')}\t}}\n"]
    blocks += [f"\tchain {name} {{\n\t\t{hook}\n{_nft_rules(chance, name)}\t}}\n" for name, hook in chains]
    sets = (
        "\tset nets {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { 10.8.0.0/24, 10.96.0.2 }\n\t}\n"
        "\tset pairs {\n\t\ttype ipv4_addr . inet_service\n\t\telements = { 10.7.0.2 . 80, 10.7.0.3 . 443 }\n\t}\n"
        "\tmap to {\n\t\ttype inet_service : ipv4_addr . inet_service\n\t\telements = { 80 : 10.8.0.11 . 8080 }\n\t}\n"
        "\tmap v {\n\t\ttype ipv4_addr : verdict\n\t\telements = { 10.96.0.1 : jump a, 10.8.0.2 : drop }\n\t}\n"
    )
    return f"table {family} fz {{\n{sets}{''.join(blocks)}}}\n"


def _nft_rules(chance: random.Random, chain: str) -> str:
    rules = []
    for _ in range(chance.randint(0, 3)):
        matches = " ".join(chance.sample(NFT_MATCHES, chance.randint(0, 2)))
        rules.append(f"\t\t{matches} {_nft_verdict(chance, chain)}\n")
    return "".join(rules)


def _nft_verdict(chance: random.Random, chain: str) -> str:
    common = ["accept", "return", "meta mark set 0x4000", "ct mark set ct mark | 0x80", "meta mark set ct mark"]
    if chain != "a":
        common += ["jump a", "ip daddr vmap @v", "meta l4proto vmap { tcp : jump a, udp : return }"]
    special = {
        "raw": ["notrack", "drop"],
        "onward": ["drop", "reject", "reject with tcp reset", "ip daddr vmap @v"],
        "inp": ["drop", "reject"],
        "post": ["masquerade", "snat ip to ip daddr map { 10.8.0.11 : 10.8.255.1 }"],
    }
    if chain in ("pre", "pre2"):
        return chance.choice(
            [
                *common,
                *("dnat ip to 10.8.0.11", "tcp dport 80 dnat ip to 10.8.0.12:8080", "dnat ip to 10.8.0.11-10.8.0.13"),
                *(
                    "dnat ip addr . port to tcp dport map @to",
                    "redirect",
                    "dnat ip to ip daddr map { 10.96.0.1 : 10.8.0.13 }",
                ),
                "dnat ip to numgen random mod 2 map { 0 : 10.8.0.11, 1 : 10.8.0.12 }",
            ]
        )
    return chance.choice(common + special.get(chain, []) * 2)


def differences(wire: Wire, seed: int, rulesets: int, flows: int, count: Count) -> Iterator[Difference]:
    """Loads random rulesets, one after the other, and yields every flow that was judged wrongly."""
    chance = random.Random(seed)
    wire.inside(wire.node, "ipset", "restore", text=IPSETS)
    sets = wire.inside(wire.node, "ipset", "list")
    for number in range(rulesets):
        variant = ("iptables-nft", "iptables-legacy", "nft")[number % 3]
        try:
            dumps = _load(wire, chance, variant, sets)
        except RuntimeError:
            count.refused += 1
            continue
        ruleset = parse_ruleset([dump for text in dumps for dump in dumps_of(text)], node_ips=NODE_IPS)
        tried = wire.random_flows(chance, flows)
        did = wire.send(tried)
        for flow in tried:
            count.flows += 1
            packet = Packet(
                src=flow.src,
                sport=flow.sport,
                dst=flow.dst,
                dport=flow.dport,
                protocol=flow.protocol,
                in_device="cli0",
                out_device="srv0",
                bridged=False,
            )
            ways = said(evaluate(ruleset, packet), flow)
            if ways == {"UNKNOWN"}:
                count.unknown += 1
            elif did[flow.sport] not in ways:
                yield Difference(tuple(dumps), flow, did[flow.sport], tuple(sorted(ways)))


def _load(wire: Wire, chance: random.Random, variant: str, sets: str) -> list[str]:
    wire.inside(wire.node, "nft", "flush", "ruleset")
    empty = "".join(f"*{t}\nCOMMIT\n" for t in ("raw", "mangle", "nat", "filter"))
    if variant == "nft":
        wire.inside(wire.node, "iptables-legacy-restore", text=empty)
        wire.inside(wire.node, "nft", "-f", "-", text=nft_text(chance))
        return [wire.inside(wire.node, "nft", *(("-j",) if chance.random() < 0.5 else ()), "list", "ruleset")]
    if variant == "iptables-nft":
        wire.inside(wire.node, "iptables-legacy-restore", text=empty)
    wire.inside(wire.node, f"{variant}-restore", text=iptables_text(chance))
    return [wire.inside(wire.node, f"{variant}-save"), sets]
