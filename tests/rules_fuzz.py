"""Random rulesets in a network namespace, real packets through them: what the kernel did beside what the evaluator says.

Three namespaces in a row: a client, a node with the rules, servers that own every address behind it. A packet that the
servers get was forwarded (translated, where its destination changed), one that a raw socket of the node gets was
delivered there, one whose sender is told was rejected; of all others nothing is heard. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import random
import select
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Evaluation, Packet, Verdict, dumps_of, evaluate, parse_ruleset

CLIENTS = ("10.7.0.2", "10.7.0.3")
NODE_IPS = ("10.7.0.1", "10.8.255.1")
DESTINATIONS = ("10.96.0.1", "10.96.0.2", "10.8.0.2", "10.8.0.3", "10.7.0.1")
BACKENDS = ("10.8.0.11", "10.8.0.12", "10.8.0.13")
PORTS = (53, 80, 443, 8080)
WAIT_S = 0.08
NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17}
T = TypeVar("T")


@dataclass(frozen=True)
class Flow:
    src: str
    sport: int
    dst: str
    dport: int
    protocol: Protocol


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


class Wire:
    """The three namespaces and their sockets."""

    def __init__(self) -> None:
        self.name = f"fz{uuid.uuid4().hex[:6]}"
        self.client, self.node, self.servers = (f"{self.name}-{end}" for end in "cns")
        self.sport = 20000

    def __enter__(self) -> Wire:
        for namespace in (self.client, self.node, self.servers):
            _run("ip", "netns", "add", namespace)
        self._link(self.client, "eth0", self.node, "cli0")
        self._link(self.node, "srv0", self.servers, "eth0")
        for address in CLIENTS:
            self.inside(self.client, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.inside(self.node, "ip", "address", "add", f"{NODE_IPS[0]}/24", "dev", "cli0")
        self.inside(self.node, "ip", "address", "add", f"{NODE_IPS[1]}/16", "dev", "srv0")
        self.inside(self.servers, "ip", "address", "add", "10.8.255.2/16", "dev", "eth0")
        for namespace in (self.client, self.node, self.servers):
            self.inside(namespace, "ip", "link", "set", "lo", "up")
        self.inside(self.client, "ip", "route", "add", "default", "via", NODE_IPS[0])
        self.inside(self.servers, "ip", "route", "add", "default", "via", NODE_IPS[1])
        self.inside(self.node, "ip", "route", "add", "10.96.0.0/16", "via", "10.8.255.2")
        for net in ("10.8.0.0/24", "10.96.0.0/16"):
            self.inside(self.servers, "ip", "route", "add", "local", net, "dev", "lo")
        self.inside(self.node, "ip", "route", "replace", "10.8.0.0/24", "via", "10.8.255.2")
        for setting in ("net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0", "net.ipv4.conf.all.rp_filter=0"):
            self.inside(self.node, "sysctl", "-qw", setting)
        self.inside(self.servers, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
        self.sender = self._in(self.client, _raw_sender)
        self.answers = self._in(self.client, _sniffer)
        self.arrivals = self._in(self.servers, _sniffer)
        self.local = [
            self._in(self.node, lambda n=n: socket.socket(socket.AF_INET, socket.SOCK_RAW, n)) for n in (6, 17)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self.sender, self.answers, self.arrivals, *self.local):
            one.close()
        for namespace in (self.client, self.node, self.servers):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)

    def _link(self, one: str, one_name: str, other: str, other_name: str) -> None:
        _run("ip", "-n", one, "link", "add", one_name, "type", "veth", "peer", "name", other_name, "netns", other)
        for namespace, device in ((one, one_name), (other, other_name)):
            self.inside(namespace, "ip", "link", "set", device, "up")

    def inside(self, namespace: str, *command: str, text: str | None = None) -> str:
        return _run("nsenter", f"--net=/run/netns/{namespace}", *command, text=text)

    def _in(self, namespace: str, make: Callable[[], T]) -> T:
        """Makes something in a namespace: in a thread, which is the only one that enters it."""
        made: list[T] = []

        def work() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{namespace}", "rb") as file:
                if libc.setns(file.fileno(), 0x40000000):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(make())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return made[0]

    def random_flows(self, chance: random.Random, count: int) -> list[Flow]:
        flows = []
        for _ in range(count):
            self.sport = 20000 + (self.sport - 19999) % 40000
            protocol = chance.choice((Protocol.TCP, Protocol.UDP))
            flows.append(
                Flow(chance.choice(CLIENTS), self.sport, chance.choice(DESTINATIONS), chance.choice(PORTS), protocol)
            )
        return flows

    def send(self, flows: list[Flow]) -> dict[int, str]:
        """Sends a first packet of each flow; what each did, by its source port."""
        self._drain()
        for flow in flows:
            self.sender.sendto(_packet(flow), (flow.dst, 0))
        asked = {(NUMBERS[f.protocol], f.sport): f for f in flows}
        marks = {_mark(flow): flow for flow in flows}
        did: dict[int, str] = {}
        told: dict[int, str] = {}
        until = time.monotonic() + WAIT_S
        while (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select([self.answers, self.arrivals, *self.local], [], [], left)
            for one in ready:
                data = one.recv(4096)
                if one is self.answers:
                    if (port := _refused(data, asked)) is not None:
                        told[port] = "REJECT"
                elif (seen := _seen(data, marks)) is not None:
                    flow, text = seen
                    did[flow.sport] = "NODE" if one in self.local else text
        return {f.sport: did.get(f.sport) or told.get(f.sport, "DROP") for f in flows}

    def _drain(self) -> None:
        for one in (self.answers, self.arrivals, *self.local):
            with contextlib.suppress(BlockingIOError):
                while True:
                    one.recv(4096, socket.MSG_DONTWAIT)


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[:300]}")
    return done.stdout


def _raw_sender() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _sniffer() -> socket.socket:
    """Every IPv4 packet that comes in, from the network header on."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))


def _mark(flow: Flow) -> bytes:
    """What NAT leaves alone and tells the flow: the SYN's sequence number, or the datagram's payload."""
    return struct.pack("!I", 0x67000000 | NUMBERS[flow.protocol] << 16 | flow.sport)


def _packet(flow: Flow) -> bytes:
    if flow.protocol is Protocol.TCP:
        body = struct.pack("!HH4sIBBHHH", flow.sport, flow.dport, _mark(flow), 0, 5 << 4, 2, 65535, 0, 0)
        body = body[:16] + struct.pack("!H", _sum(_pseudo(flow, len(body)) + body)) + body[18:]
    else:
        body = struct.pack("!HHHH", flow.sport, flow.dport, 12, 0) + _mark(flow)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(body), flow.sport, 0, 64, NUMBERS[flow.protocol], 0),
        *(socket.inet_aton(flow.src), socket.inet_aton(flow.dst)),
    )
    return head + body


def _pseudo(flow: Flow, length: int) -> bytes:
    return socket.inet_aton(flow.src) + socket.inet_aton(flow.dst) + struct.pack("!HH", NUMBERS[flow.protocol], length)


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _seen(data: bytes, marks: dict[bytes, Flow]) -> tuple[Flow, str] | None:
    """The flow of a packet that arrived, and where: "ADDRESS:PORT", with " masq" where its source was changed."""
    head = (data[0] & 15) * 4
    protocol, body = data[9], data[head:]
    mark = body[4:8] if protocol == 6 else body[8:12]
    flow = marks.get(mark) if protocol in (6, 17) else None
    if flow is None or NUMBERS[flow.protocol] != protocol or (protocol == 6 and body[13] != 2):
        return None
    dport = struct.unpack("!H", body[2:4])[0]
    masq = "" if socket.inet_ntoa(data[12:16]) == flow.src else " masq"
    return flow, f"{socket.inet_ntoa(data[16:20])}:{dport}{masq}"


def _refused(data: bytes, asked: dict[tuple[int, int], Flow]) -> int | None:
    """The source port of the flow that a reset or an ICMP error is about."""
    head = (data[0] & 15) * 4
    body = data[head:]
    if data[9] == 6 and len(body) >= 14 and body[13] & 4:
        port = struct.unpack("!H", body[2:4])[0]
        return port if (6, port) in asked else None
    if data[9] == 1 and body[:1] == b"\x03" and len(body) >= 36:
        inner = body[8:]
        port = struct.unpack("!H", inner[(inner[0] & 15) * 4 :][:2])[0]
        return port if (inner[9], port) in asked else None
    return None


def said(evaluation: Evaluation, flow: Flow) -> set[str]:
    """What an evaluation allows a flow to do, in the words of `Wire.send`."""
    if evaluation.verdict is Verdict.UNKNOWN:
        return {"UNKNOWN"}
    ways = set()
    for outcome in evaluation.outcomes:
        if outcome.verdict in (Verdict.DROP, Verdict.REJECT):
            ways.add(outcome.verdict.value)
        else:
            at = outcome.backend.address if outcome.backend is not None else f"{flow.dst}:{flow.dport}"
            local = at.rpartition(":")[0] in NODE_IPS
            ways.add("NODE" if local else at + (" masq" if outcome.masquerade else ""))
    return ways


# ---- rulesets

MATCHES = (
    "-s 10.7.0.2/32", "! -s 10.7.0.2/32", "-s 10.7.0.0/24", "-d 10.96.0.0/16", "-d 10.96.0.1/32", "! -d 10.8.0.2/32",
    "-d 10.0.0.1/255.0.0.255", "-p tcp", "-p udp", "! -p tcp", "-p tcp -m tcp --dport 80", "-p udp -m udp --dport 53",
    "-p tcp -m tcp ! --dport 80", "-p tcp -m multiport --dports 80,443", "-p udp -m multiport ! --dports 53,8080:8090",
    "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", "-p tcp -m tcp ! --syn", "-m mark --mark 0x4000/0x4000",
    "-m mark ! --mark 0x1/0x3", "-m connmark --mark 0x80/0x80", "-m connmark ! --mark 0x0",
    "-m conntrack --ctstate NEW", "-m conntrack --ctstate INVALID,UNTRACKED", "-m conntrack ! --ctstate NEW",
    "-m conntrack --ctstate DNAT", "-m conntrack --ctstatus CONFIRMED", "-m conntrack ! --ctstatus ASSURED",
    "-m conntrack --ctorigdst 10.96.0.1/32", "-m conntrack --ctreplsrc 10.8.0.0/24", "-m conntrack --ctdir ORIGINAL",
    "-m addrtype --dst-type LOCAL", "-m addrtype ! --dst-type LOCAL", "-m addrtype --src-type LOCAL",
    "-m set --match-set nets src", "-m set ! --match-set nets src", "-m set --match-set ports dst,dst",
    "-m set --match-set both dst", "-m set --match-set masked src", "-m iprange --dst-range 10.96.0.1-10.96.0.2",
    "-m statistic --mode random --probability 0.5", "-m pkttype --pkt-type unicast", "-m dscp --dscp 0x00",
    "-m limit --limit 1000/sec --limit-burst 10000", "-m connlimit --connlimit-above 5000 --connlimit-mask 0 --connlimit-saddr",
    "-m socket --nowildcard", "",
)  # fmt: off


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
    "ip saddr 10.7.0.2", "ip saddr != 10.7.0.2", "ip daddr 10.96.0.0/16", "ip daddr & 255.0.0.255 == 10.0.0.1",
    "ip daddr { 10.96.0.1, 10.8.0.2-10.8.0.3 }", "ip daddr != @nets", "ip saddr . tcp dport @pairs", "tcp dport 80",
    "tcp dport != { 80, 443 }", "udp dport 0x35", "th dport 53-80", "meta l4proto { tcp, udp }", "meta l4proto != tcp",
    "ct state new", "ct state invalid,untracked", "ct state != new", "ct status dnat", "ct status != dnat",
    "ct mark & 0x80 == 0x80", "ct mark 0", "meta mark & 0x4000 != 0", "meta mark 0x1", "ct direction original",
    "ct original ip daddr 10.96.0.1", "ct reply ip saddr 10.8.0.0/24", "fib daddr type local", "fib daddr type != local",
    'iifname "cli*"', 'iifname != { "srv0", "lo" }', "meta pkttype host", "tcp flags syn", "tcp flags & (syn | ack) == ack",
    "numgen random mod 4 < 2", "symhash mod 1 == 0", "ip dscp cs0", "limit rate 1000/second burst 10000 packets",
    "meta skuid 0", "ip protocol udp", "meta nfproto ipv4", "counter",
)  # fmt: off


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
                src=flow.src, sport=flow.sport, dst=flow.dst, dport=flow.dport, protocol=flow.protocol,
                in_device="cli0", out_device="srv0", bridged=False,
            )  # fmt: skip
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
