"""Random rulesets in the words that nodes' rules have: iptables-restore texts and nft files.

A fragment is what its tool takes in every chain that it is offered for: the tools refuse what is not, and a ruleset that
is refused tries nothing.
"""

from __future__ import annotations

import random

BACKENDS = ("10.8.0.11", "10.8.0.12", "10.8.0.13")

_PROTOCOLS = (
    *("-p tcp", "-p udp", "! -p tcp", "-p icmp", "! -p icmp"),
    *("-p tcp -m tcp --dport 80", "-p udp -m udp --dport 53", "-p tcp -m tcp ! --dport 80"),
    *("-p tcp -m tcp --dport 80:443", "-p udp -m udp --sport 1024:65535", "-p udp -m udp ! --dport 1:100"),
    *("-p tcp -m multiport --dports 80,443", "-p udp -m multiport ! --dports 53,8080:8090"),
    *("-p tcp -m multiport --sports 1024:65535", "-p tcp -m multiport --ports 53,8080"),
    *("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", "-p tcp -m tcp ! --syn", "-p tcp -m tcp --tcp-flags ALL NONE"),
    *("-p icmp -m icmp --icmp-type 8", "-p icmp -m icmp ! --icmp-type 13", "-p icmp -m icmp --icmp-type any"),
)
_MATCHES = (
    *("-s 10.7.0.2/32", "! -s 10.7.0.2/32", "-s 10.7.0.0/24", "-s 10.7.0.0/255.255.0.255", "! -s 10.7.0.1/32"),
    *("-d 10.96.0.0/16", "-d 10.96.0.1/32", "! -d 10.8.0.2/32", "-d 10.0.0.1/255.0.0.255", "! -d 0.0.0.2/0.0.0.255"),
    *("-m mark --mark 0x4000/0x4000", "-m mark ! --mark 0x1/0x3", "-m mark --mark 0x0"),
    *("-m connmark --mark 0x80/0x80", "-m connmark ! --mark 0x0", "-m connmark --mark 0x4000/0xf000"),
    *("-m conntrack --ctstate NEW", "-m conntrack --ctstate INVALID,UNTRACKED", "-m conntrack ! --ctstate NEW"),
    *("-m conntrack --ctstate DNAT", "-m conntrack ! --ctstate DNAT", "-m conntrack --ctstate SNAT"),
    *("-m conntrack --ctstate RELATED,ESTABLISHED", "-m state --state NEW", "-m conntrack ! --ctstate SNAT,DNAT"),
    *("-m conntrack --ctstatus CONFIRMED", "-m conntrack ! --ctstatus ASSURED", "-m conntrack --ctstatus NONE"),
    *("-m conntrack --ctorigdst 10.96.0.1/32", "-m conntrack ! --ctorigdst 10.96.0.0/16"),
    *("-m conntrack --ctorigsrc 10.7.0.2/32", "-m conntrack --ctreplsrc 10.8.0.0/24"),
    *("-m conntrack --ctdir ORIGINAL", "-m conntrack --ctdir REPLY", "-m conntrack --ctproto 17"),
    *("-m addrtype --dst-type LOCAL", "-m addrtype ! --dst-type LOCAL", "-m addrtype --src-type LOCAL"),
    *("-m addrtype --dst-type UNICAST", "-m addrtype ! --src-type UNICAST", "-m addrtype --dst-type MULTICAST"),
    *("-m set --match-set nets src", "-m set ! --match-set nets src", "-m set --match-set ports dst,dst"),
    *("-m set --match-set both dst", "-m set ! --match-set both src", "-m set --match-set masked src"),
    *("-m set --match-set pairs dst,dst,src", "-m set --match-set triples dst,dst,src"),
    *("-m set --match-set netports dst,dst", "-m set ! --match-set netports dst,dst"),
    *("-m set --match-set ranges src", "-m set ! --match-set numbers dst", "-m set --match-set numbers dst"),
    *("-m set --match-set nets dst", "-m set --match-set one dst"),
    *("-m set --match-set ports src,dst", "-m set ! --match-set both dst,dst", "-m set --match-set cut dst"),
    *("-m set --match-set nets src --return-nomatch", "-m set --match-set nets dst ! --update-counters"),
    *("-m set --match-set devices src,src", "-m set ! --match-set devices src,src"),
    "-m set --match-set devices dst,dst",
    *("-m iprange --dst-range 10.96.0.1-10.96.0.2", "-m iprange ! --src-range 10.7.0.2-10.7.0.9"),
    *("-m statistic --mode random --probability 0.5", "-m statistic --mode nth --every 2 --packet 0"),
    *("-m pkttype --pkt-type unicast", "-m pkttype ! --pkt-type broadcast", "-m dscp --dscp 0x00"),
    *("-m tos --tos 0x00/0x3f", "-m dscp ! --dscp 0x2e", "-m limit --limit 1000/sec --limit-burst 10000"),
    "-m connlimit --connlimit-above 5000 --connlimit-mask 0 --connlimit-saddr",
    "-m hashlimit --hashlimit-upto 5000/sec --hashlimit-burst 5000 --hashlimit-mode srcip --hashlimit-name fz",
    "-m recent --rcheck --seconds 60 --name nobody --mask 255.255.255.255 --rsource",
    "-m recent --rcheck --seconds 60 --hitcount 19 --name many --mask 255.255.255.255 --rsource",
    *('-m comment --comment "a comment, -j DROP"', "", "", ""),
)
_IN = ("-i cli0", "! -i cli0", "-i cli+", "-i lo", "! -i lo", "! -i srv+")
_OUT = ("-o srv0", "! -o srv0", "-o srv+", "-o lo", "! -o lo", "! -o cli0")
_OWNER = (
    "-m owner --uid-owner 0",
    "-m owner ! --uid-owner 0-99",
    "-m owner --gid-owner 1000",
    "-m owner --socket-exists",
)
_MARKS = (
    *("MARK --set-xmark 0x4000/0x4000", "MARK --set-xmark 0x1/0x3", "MARK --set-mark 0x4001", "MARK --or-mark 0x2"),
    *("MARK --and-mark 0xfff0", "MARK --xor-mark 0x4001"),
)
_CONNMARKS = (
    *(
        "CONNMARK --set-xmark 0x80/0x80",
        "CONNMARK --save-mark --nfmask 0x4000 --ctmask 0x4000",
        "CONNMARK --set-mark 0x81",
    ),
    *("CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80", "CONNMARK --restore-mark", "CONNMARK --save-mark"),
    *("CONNMARK --save-mark --nfmask 0x1 --ctmask 0xf0", "CONNMARK --or-mark 0x4000"),
)
_SPECIAL = {
    "raw": ("CT --notrack", "CT --notrack", "DROP", "NOTRACK"),
    "mangle": (
        *_CONNMARKS,
        *("DROP", "DSCP --set-dscp 0x2e", "TOS --set-tos 0x10/0xff", "TTL --ttl-set 60"),
    ),
    "filter": (
        *("DROP", "REJECT --reject-with icmp-port-unreachable", "REJECT --reject-with icmp-admin-prohibited"),
        *("CONNMARK --set-xmark 0x80/0x80", "NFLOG --nflog-group 3"),
    ),
    "nat": ("RETURN",),
    "security": ("DROP", "CONNMARK --restore-mark"),
}
_CHAINS = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("FORWARD",),
}


def iptables_text(chance: random.Random) -> str:
    """An iptables-restore text over all tables, with a few chains of its own."""
    tables = []
    for table, chains in _CHAINS.items():
        heads = [
            f":{chain} {'DROP' if table == 'filter' and chance.random() < 0.1 else 'ACCEPT'} [0:0]" for chain in chains
        ]
        rules = []
        for chain in (*chains, "A", "B"):
            few = 3 if chain in ("PREROUTING", "FORWARD", "POSTROUTING", "A") else 2
            for _ in range(chance.randint(0, few)):
                rules.append(_iptables_rule(chance, table, chain))
        tables.append("\n".join((f"*{table}", *heads, ":A - [0:0]", ":B - [0:0]", *rules, "COMMIT", "")))
    return "".join(tables)


def _iptables_rule(chance: random.Random, table: str, chain: str) -> str:
    matches = chance.sample(_MATCHES, chance.randint(0, 2))
    if sum("-s " in m for m in matches) > 1 or sum("-d " in m for m in matches) > 1:
        matches.pop()
    protocol = ""
    if any("ports " in m or "pairs" in m or "triples" in m for m in matches) or chance.random() < 0.4:
        protocol = chance.choice(_PROTOCOLS)
    device = ""
    if chance.random() < 0.25:
        if chain in ("PREROUTING", "INPUT", "FORWARD"):
            device = chance.choice(_IN)
        elif chain in ("OUTPUT", "POSTROUTING"):
            device = chance.choice((*_OUT, *_OWNER) if table != "nat" else _OUT)
        else:
            device = chance.choice((*_IN, *_OUT))
    target = _iptables_target(chance, table, chain)
    if target == "tcp-reset":
        protocol, target = "-p tcp", "REJECT --reject-with tcp-reset"
    elif target == "to-port":
        protocol, target = "-p tcp", f"DNAT --to-destination {chance.choice(BACKENDS)}:{chance.choice((80, 8080))}"
    elif target == "redirect-port":
        protocol, target = "-p udp", "REDIRECT --to-ports 53"
    goes = "-g" if target in ("A", "B") and chance.random() < 0.2 else "-j"
    return " ".join(filter(None, (f"-A {chain}", device, protocol, *matches, f"{goes} {target}")))


def _iptables_target(chance: random.Random, table: str, chain: str) -> str:
    common = ["RETURN", "ACCEPT", *chance.sample(_MARKS, 2), "LOG"]
    if chain not in ("A", "B"):
        common += ["A", "B"]
    elif chain == "A":
        common += ["B"]
    special = list(_SPECIAL[table])
    if table == "filter":
        special += ["tcp-reset"]
    if table == "nat" and chain in ("PREROUTING", "OUTPUT"):
        backend = chance.choice(BACKENDS)
        special = [
            *(f"DNAT --to-destination {backend}", f"DNAT --to-destination {BACKENDS[0]}-{BACKENDS[2]}"),
            *(f"DNAT --to-destination {BACKENDS[0]}-{BACKENDS[1]} --persistent", "to-port", "REDIRECT"),
            *("redirect-port", "NETMAP --to 10.8.0.0/24"),
        ]
    elif table == "nat" and chain == "POSTROUTING":
        special = ["MASQUERADE", "SNAT --to-source 10.8.255.1", "MASQUERADE --random-fully"]
    return chance.choice(common + special * 2)


_NFT_MATCHES = (
    *("ip saddr 10.7.0.2", "ip saddr != 10.7.0.2", "ip daddr 10.96.0.0/16", "ip daddr & 255.0.0.255 == 10.0.0.1"),
    *("ip daddr & 0.0.0.255 != 0.0.0.2", "ip saddr 10.7.0.2-10.7.0.9", "ip saddr != { 10.7.0.1, 10.7.0.2 }"),
    *("ip daddr { 10.96.0.1, 10.8.0.2-10.8.0.3 }", "ip daddr != @nets", "ip saddr . tcp dport @pairs"),
    *("ip daddr . meta l4proto . th dport @services", "meta l4proto . th dport { tcp . 80, udp . 53-60 }"),
    *("tcp dport 80", "tcp dport != { 80, 443 }", "udp dport 0x35", "th dport 53-80", "tcp dport != 80-443"),
    *("udp sport >= 1024", "tcp dport < 443", "th dport & 0x1 == 0", "tcp dport { 0x50-0x1bb }"),
    *("meta l4proto { tcp, udp }", "meta l4proto != tcp", "ip protocol udp", "ip protocol != { icmp, tcp }"),
    *("icmp type echo-request", "icmp type != timestamp-request", "icmp type { 8, 13 } icmp code 0"),
    *("ct state new", "ct state invalid,untracked", "ct state != new", "ct state { established, related }"),
    *("ct state untracked", "ct state vmap { established : accept, invalid : continue, new : continue }"),
    *("ct status dnat", "ct status != dnat", "ct status & dnat == dnat", "ct status & (snat | dnat) != 0"),
    *("ct status ! dnat", "ct status confirmed", "ct mark & 0x80 == 0x80", "ct mark 0", "ct mark != 0x80"),
    *("ct mark and 0xf0 != 0x0", "ct direction original", "ct direction reply", "ct protocol tcp"),
    *("meta mark & 0x4000 != 0", "meta mark 0x1", "meta mark != 0", "meta mark and 0x3 == 0x1", "mark 0x4000-0x4fff"),
    *("ct original ip daddr 10.96.0.1", "ct reply ip saddr 10.8.0.0/24", "ct original ip saddr 10.7.0.2"),
    *("ct original proto-dst 80", "fib daddr type local", "fib daddr type != local", "fib saddr type local"),
    *("fib daddr type { local, unicast }", "fib daddr type != { multicast, broadcast }", "fib saddr . iif oif exists"),
    *('iifname "cli*"', 'iifname != { "srv0", "lo" }', 'iifname "lo"', 'iifname { "cli*", "eth7" }', "iif lo"),
    *("iif != lo", 'oifname "srv0"', 'oifname != "lo"', 'oifname { "srv*", "lo" }', "oif lo"),
    *("meta pkttype host", "meta pkttype != { broadcast, multicast }", "meta nfproto ipv4", "meta protocol ip"),
    *("tcp flags syn", "tcp flags & (syn | ack) == ack", "tcp flags & (fin | syn | rst | ack) == syn"),
    *("tcp flags != syn", "tcp flags { syn, syn | ack }", "tcp flags syn / fin,syn,rst,ack", "tcp flags ! ack"),
    *("numgen random mod 4 < 2", "numgen inc mod 2 0", "symhash mod 1 == 0", "jhash ip saddr mod 1 0"),
    *("ip dscp cs0", "ip dscp != { ef, cs6 }", "ip dscp < 0x10", "ip version 4"),
    *(
        "limit rate 1000/second burst 10000 packets",
        "limit rate over 9000/second burst 9000 packets",
        "counter",
        "counter name hits",
    ),
    *(
        "meta skuid 0",
        "meta skuid != 0",
        "meta skgid 1000",
        "meter fzm { ip saddr limit rate over 9000/second burst 9000 packets }",
    ),
    *('log prefix "a: b; drop"', "quota over 500 mbytes", "ct count over 5000", "add @seen { ip saddr . udp sport }"),
    *(
        "ip saddr . udp sport @seen",
        "ip saddr . udp sport != @seen",
        "meta mark . ip saddr { 0x0 . 10.7.0.2, 0x1 . 10.7.0.3 }",
    ),
)
NFT_SETS = """	set nets {
		type ipv4_addr
		flags interval
		elements = { 10.8.0.0/24, 10.96.0.2 }
	}
	set pairs {
		type ipv4_addr . inet_service
		elements = { 10.7.0.2 . 80, 10.7.0.3 . 443 }
	}
	set services {
		type ipv4_addr . inet_proto . inet_service
		flags interval
		elements = { 10.96.0.0/24 . tcp . 80-443, 10.8.0.2 . udp . 53 }
	}
	set seen {
		type ipv4_addr . inet_service
		size 65535
		flags dynamic,timeout
		timeout 1m
	}
	map to {
		type inet_service : ipv4_addr . inet_service
		elements = { 80 : 10.8.0.11 . 8080 }
	}
	map marks {
		type ipv4_addr : mark
		elements = { 10.7.0.2 : 0x4000, 10.7.0.3 : 0x1 }
	}
	map v {
		type ipv4_addr : verdict
		elements = { 10.96.0.1 : jump a, 10.8.0.2 : drop }
	}
	counter hits {
	}
"""
_HOOKS = (
    ("raw", "type filter hook prerouting priority raw"),
    ("mangle", "type filter hook prerouting priority mangle"),
    ("pre", "type nat hook prerouting priority dstnat"),
    ("pre2", "type nat hook prerouting priority dstnat - 5"),
    ("onward", "type filter hook forward priority filter"),
    ("onward2", "type filter hook forward priority filter"),
    ("inp", "type filter hook input priority filter"),
    ("out", "type filter hook output priority filter"),
    ("outnat", "type nat hook output priority -100"),
    ("post", "type nat hook postrouting priority srcnat"),
    ("last", "type filter hook postrouting priority 150"),
)


def nft_text(chance: random.Random) -> str:
    """A table with chains at every hook; now and then a second one, of the same priorities, and rules of a device."""
    text = _nft_table(chance, chance.choice(("ip", "inet")), "fz")
    if chance.random() < 0.3:
        text += _nft_table(chance, chance.choice(("ip", "inet")), "gz", dormant=chance.random() < 0.3)
    if chance.random() < 0.3:
        rules = "".join(
            f"\t\tip {side} {address} {verdict}\n"
            for side, address, verdict in (
                ("saddr", "10.7.0.3", chance.choice(("drop", "accept", "meta mark set 0x1"))),
                ("daddr", "10.96.0.2", chance.choice(("drop", "accept", "meta mark set 0x4000"))),
            )
        )
        device = chance.choice(("device cli0", 'devices = { "cli0", "srv0" }'))
        text += (
            f"table netdev dz {{\n\tchain in {{\n\t\ttype filter hook ingress {device} priority 0\n{rules}\t}}\n}}\n"
        )
    return text


def _nft_table(chance: random.Random, family: str, name: str, *, dormant: bool = False) -> str:
    blocks = [f"\tchain {one} {{\n{_nft_rules(chance, one)}\t}}\n" for one in ("b", "a")]
    for chain, hook in _HOOKS:
        drops = chain in ("onward", "inp", "out", "last") and chance.random() < 0.08
        policy = f"; policy {'drop' if drops else 'accept'};"
        blocks.append(f"\tchain {chain} {{\n\t\t{hook}{policy}\n{_nft_rules(chance, chain)}\t}}\n")
    flags = "\tflags dormant\n" if dormant else ""
    return f"table {family} {name} {{\n{flags}{NFT_SETS}{''.join(blocks)}}}\n"


def _nft_rules(chance: random.Random, chain: str) -> str:
    rules = []
    for _ in range(chance.choice((0, 0, 1, 1, 2, 3))):
        offered = [m for m in _NFT_MATCHES if not ("oif" in m and chain in ("raw", "mangle", "pre", "pre2", "inp"))]
        if chain in ("post", "last", "out", "outnat"):
            offered = [m for m in offered if "iif" not in m]
        if chain in ("raw", "mangle", "pre", "pre2", "inp", "onward", "onward2"):
            offered = [m for m in offered if "sku" not in m and "skg" not in m]
        if chain not in ("raw", "mangle", "pre", "pre2", "inp", "onward", "onward2"):
            offered = [m for m in offered if "fib saddr . iif" not in m]
        if chain in ("a", "b"):
            offered = [m for m in offered if "fib" not in m or "daddr type" in m]
        matches = " ".join(chance.sample(offered, chance.choice((0, 1, 1, 2))))
        rules.append(f"\t\t{matches} {_nft_verdict(chance, chain)}\n")
    return "".join(rules)


_NFT_COMMON = (
    *("accept", "return", "continue", "meta mark set 0x4000", "ct mark set ct mark | 0x80", "meta mark set ct mark"),
    *("meta mark set meta mark & 0xfffffff0 | 0x1", "meta mark set ip saddr map @marks", "ct mark set meta mark"),
    *("meta mark set meta mark ^ 0x4001", "ip dscp set ef", "meta mark set ct mark & 0x80", "counter name hits return"),
    *("ct mark set 0x80 ct mark & 0x80 == 0x80 accept", "meta mark set 0x1 meta mark 0x1 return"),
)
_NFT_JUMPS = (
    *("jump a", "goto a", "ip daddr vmap @v", "meta l4proto vmap { tcp : jump a, udp : return }"),
    *(
        "ip saddr . tcp dport vmap { 10.7.0.2 . 80 : jump a, 10.7.0.3 . 443 : drop }",
        "jump { ip saddr 10.7.0.2 drop; accept; }",
    ),
    *("fib daddr type vmap { local : jump a, unicast : continue }", "ip dscp vmap { cs0 : jump b, ef : accept }"),
    *(
        "meta pkttype vmap { host : jump a, broadcast : drop }",
        "meta mark vmap { 0x0 : jump a, 0x4000 : accept, * : return }",
    ),
    *("symhash mod 1 vmap { 0 : jump a }", "numgen random mod 2 vmap { 0 : jump a, 1 : return }"),
    *(
        "jhash ip saddr . tcp sport mod 2 vmap { 0 : jump a, 1 : jump b }",
        "tcp dport vmap { 80-443 : jump b, * : jump a }",
    ),
    *("ct state vmap { established : accept, related : accept, new : jump a, invalid : drop }",),
    *('iifname vmap { "cli*" : jump a, "lo" : accept }', "tcp flags vmap { syn : jump b, ack : drop }"),
)
_NFT_SPECIAL = {
    "raw": ("notrack", "notrack", "drop", "ip saddr 10.7.0.3 notrack return"),
    "mangle": ("drop",),
    "onward": ("drop", "reject", "reject with tcp reset", "ip daddr vmap @v", "reject with icmp type host-prohibited"),
    "onward2": (
        "drop",
        "reject with icmpx type admin-prohibited",
        "accept",
        "meta l4proto vmap { tcp : drop, udp : accept }",
    ),
    "inp": ("drop", "reject", "meta l4proto tcp reject with tcp reset"),
    "out": ("drop", "reject"),
    "last": ("drop", "accept"),
    "post": (
        *("masquerade", "snat ip to ip daddr map { 10.8.0.11 : 10.8.255.1 }", "snat ip to 10.8.255.1"),
        *("masquerade fully-random", "snat ip to ip saddr map { 10.7.0.2 : 10.8.255.1, 10.7.0.9 : 10.8.255.1 }"),
    ),
}
_NFT_DNAT = (
    *("dnat ip to 10.8.0.11", "tcp dport 80 dnat ip to 10.8.0.12:8080", "dnat ip to 10.8.0.11-10.8.0.13"),
    *("dnat ip addr . port to tcp dport map @to", "redirect", "dnat ip to ip daddr map { 10.96.0.1 : 10.8.0.13 }"),
    *("dnat ip to numgen random mod 2 map { 0 : 10.8.0.11, 1 : 10.8.0.12 }", "udp dport 80 redirect to :53"),
    "dnat ip addr . port to ip daddr . tcp dport map { 10.96.0.1 . 80 : 10.8.0.11 . 8080, 10.96.0.2 . 443 : 10.8.0.12 . 80 }",
    *(
        "meta l4proto udp dnat ip to ip saddr map { 10.7.0.2 : 10.8.0.12 }:53",
        "dnat ip to 10.8.0.11-10.8.0.13 persistent",
    ),
    "meta l4proto tcp dnat ip addr . port to jhash ip saddr mod 2 map { 0 : 10.8.0.11 . 80, 1 : 10.8.0.12 . 8080 }",
    "dnat ip to symhash mod 2 map { 0 : 10.8.0.11, 1 : 10.8.0.13 }",
    "meta l4proto tcp dnat ip to 10.8.0.11 : tcp dport map { 80 : 8080, 443 : 53 }",
)


def _nft_verdict(chance: random.Random, chain: str) -> str:
    common = list(_NFT_COMMON)
    if chain in ("a", "raw"):  # without conntrack's marks: raw comes before it, and a and b are reached from there
        common += ["drop"] if chain == "raw" else ["jump b", "accept"]
    elif chain != "b":
        jumps = [j for j in _NFT_JUMPS if not ("iif" in j and chain in ("post", "last", "out", "outnat"))]
        common += chance.sample(jumps, 6)
    if chain in ("pre", "pre2", "outnat"):
        return chance.choice(common + list(_NFT_DNAT))
    return chance.choice(common + list(_NFT_SPECIAL.get(chain, ())) * 3)
