"""The evaluator beside the kernel: random rulesets and every statement of the manuals, with real packets through them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Packet, dumps_of, evaluate, parse_ruleset
from kubectl_genainet.proxy.firewall.opening import ServicePacket, host_firewall
from tests.rules_fuzz import Count, Difference, differences, load, loaded, packet_of, said, with_less_known
from tests.rules_statements import checked, open_by_nature
from tests.rules_wire import NODE_IPS, Flow, Wire


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire() as made:
        yield made


def _told(found: list[Difference]) -> str:
    return "\n".join(f"{d.flow} did {d.did}, said {', '.join(d.said)}:\n{d.text}" for d in found[:5])


def test_random_rulesets_do_what_the_evaluator_says(wire: Wire) -> None:
    count = Count()
    found = list(differences(wire, seed=15, rulesets=60, flows=20, count=count))
    assert not found, _told(found)
    assert count.refused <= 2
    assert count.flows >= 1100
    assert count.unknown <= count.flows * 0.02, count.reasons
    assert count.decided_with_less >= count.flows * 0.75  # what excludes each other leaves most of them certain


def test_single_statements_of_the_manuals_do_what_the_evaluator_says(wire: Wire) -> None:
    count = Count()
    found = list(checked(wire, count))
    assert not found, _told(found)
    assert count.refused <= 8, count.reasons  # modules that this kernel may lack
    assert count.flows >= 5700
    assert count.unknown <= count.flows * 0.02, count.reasons  # the time of day, a MAC address, a program's say


def test_what_neither_rules_nor_flows_have_is_unknown_and_never_wrong(wire: Wire) -> None:
    refused = 0
    for text, count, found in open_by_nature(wire):
        assert not found, _told(found)
        refused += count.refused
        assert count.refused or count.unknown, text
    assert refused <= 8  # modules that this kernel may lack


def test_an_agent_reads_tables_with_flags_as_they_are_though_nft_garbles_them_in_its_json(wire: Wire) -> None:
    chain = "chain c {\n type filter hook forward priority 0;\n ip daddr %s drop\n }"
    asleep = f"table ip asleep {{\n flags dormant;\n {chain % '10.8.0.2'}\n}}\n"
    load(
        wire,
        "nft",
        f"{asleep}table inet asleep2 {{\n flags dormant;\n}}\ntable ip awake {{\n {chain % '10.8.0.3'}\n}}\n",
    )
    ruleset = parse_ruleset(list(read_rulesets("node", f"/run/netns/{wire.node}")), node_ips=NODE_IPS)
    assert not ruleset.errors
    flows = [Flow("10.7.0.2", wire.port(), dst, 80, Protocol.TCP) for dst in ("10.8.0.2", "10.8.0.3")]
    did = wire.send(flows)
    assert [did[flow.sport] for flow in flows] == ["10.8.0.2:80", "DROP"]
    assert [said(evaluate(ruleset, packet_of(flow)), flow) for flow in flows] == [{"10.8.0.2:80"}, {"DROP"}]


GUARDED = {
    "iptables-nft": "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p udp -j ACCEPT\nCOMMIT\n",
    "iptables-legacy": "*filter\n-A FORWARD -s 10.7.0.0/24 -j REJECT\nCOMMIT\n",
    "nft": "table inet g {\n chain f {\n type filter hook forward priority 0; policy drop;\n }\n}\n",
}


@pytest.mark.parametrize("variant", list(GUARDED))
def test_the_change_of_the_hosts_firewall_lets_real_packets_through(wire: Wire, variant: str) -> None:
    load(wire, variant, GUARDED[variant])
    flow = Flow("10.7.0.2", wire.port(), "10.8.0.2", 8080, Protocol.TCP)
    assert wire.send([flow])[flow.sport] in ("DROP", "REJECT")
    saved = ("nft", "-j", "list", "ruleset") if variant == "nft" else (f"{variant}-save",)
    dumps = dumps_of(wire.inside(wire.node, *saved))
    packet = Packet(src=flow.src, dst=flow.dst, dport=flow.dport, protocol=flow.protocol, bridged=False)
    found = host_firewall(dumps, NODE_IPS, [ServicePacket("outside", packet)])
    assert found.trial, found
    for change in found.changes:
        for command in change.commands:
            name, *words = command.split()
            wire.inside(wire.node, variant if name.startswith("iptables") else name, *words)
    again = Flow(flow.src, wire.port(), flow.dst, flow.dport, flow.protocol)
    other = Flow(flow.src, wire.port(), flow.dst, 443, flow.protocol)
    did = wire.send([again, other])
    assert did[again.sport] == "10.8.0.2:8080"
    assert did[other.sport] in ("DROP", "REJECT")


# Rules of devices, of which a packet has one: what becomes of it (from cli0), and what can be said when it is not given.
EXCLUSIVE = {
    "either drops": (["FORWARD ! -i cli0 -j DROP", "FORWARD ! -i srv0 -j DROP"], "DROP", {"DROP"}),
    "none can be both": (["FORWARD -i cli0 -j A", "A -i srv0 -j DROP"], "10.8.0.2:80", {"10.8.0.2:80"}),
    "one of them drops": (
        ["FORWARD -i cli0 -j A", "FORWARD -i srv0 -j DROP", "A -i srv0 -j DROP"],
        "10.8.0.2:80",
        {"UNKNOWN"},
    ),
    "a wider name": (
        ["FORWARD -i cli+ -j A", "FORWARD ! -i cl+ -j DROP", "A ! -i cl+ -j DROP"],
        "10.8.0.2:80",
        {"UNKNOWN"},
    ),
    "one and the other": (
        ["FORWARD -i cli0 ! -o srv0 -j DROP", "FORWARD ! -i cli0 -o srv0 -j DROP"],
        "10.8.0.2:80",
        {"UNKNOWN"},
    ),
    "neither of two": (
        ["FORWARD -i eth7 -j A", "A -i eth8 -j DROP", "A -i eth7 -j RETURN"],
        "10.8.0.2:80",
        {"10.8.0.2:80"},
    ),
}


@pytest.mark.parametrize("variant", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize("name", list(EXCLUSIVE))
def test_questions_that_exclude_each_other_are_judged_together_as_the_packet_can_have_one_answer(
    wire: Wire, name: str, variant: str
) -> None:
    rules, does, can_be_said = EXCLUSIVE[name]
    text = "*filter\n:FORWARD ACCEPT [0:0]\n:A - [0:0]\n" + "".join(f"-A {rule}\n" for rule in rules) + "COMMIT\n"
    ruleset = loaded(wire, variant, text, "")
    flow = Flow("10.7.0.2", wire.port(), "10.8.0.2", 80, Protocol.TCP)
    assert wire.send([flow])[flow.sport] == does
    assert said(evaluate(ruleset, packet_of(flow)), flow) == {does}
    assert said(evaluate(ruleset, with_less_known(packet_of(flow))), flow) == can_be_said


TPROXY = {
    "iptables-legacy": "*mangle\n-A PREROUTING -p tcp -m tcp --dport 80 -j TPROXY --on-port 9 --tproxy-mark 0x539/0xfff\n"
    "COMMIT\n",
    "nft": "table ip t {\n chain p {\n type filter hook prerouting priority mangle;\n"
    " tcp dport 80 tproxy to :9 meta mark set 0x539 accept\n }\n}\n",
}


@pytest.mark.parametrize("variant", list(TPROXY))
def test_a_program_that_listens_gets_what_tproxy_gives_it(wire: Wire, variant: str) -> None:
    wire.inside(wire.node, "ip", "route", "add", "local", "default", "dev", "lo", "table", "100")
    wire.inside(wire.node, "ip", "rule", "add", "fwmark", "0x539", "lookup", "100")
    ruleset = loaded(wire, variant, TPROXY[variant], "")
    listener = wire.in_node(_transparent_listener)
    try:
        flow = Flow("10.7.0.2", wire.port(), "10.96.0.1", 80, Protocol.TCP)
        assert wire.send([flow])[flow.sport] == "NODE"
        taken = msgspec.structs.replace(packet_of(flow), transparent_socket=True)
        assert said(evaluate(ruleset, taken), flow) == {"NODE"}
    finally:
        listener.close()
        wire.inside(wire.node, "ip", "rule", "delete", "fwmark", "0x539")
        wire.inside(wire.node, "ip", "route", "flush", "table", "100")
    flow = Flow("10.7.0.2", wire.port(), "10.96.0.1", 80, Protocol.TCP)
    without = wire.send([flow])[flow.sport]
    assert said(evaluate(ruleset, packet_of(flow)), flow) == {without}
    assert without == ("DROP" if variant != "nft" else "10.96.0.1:80")


def _transparent_listener() -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
    listener.bind(("0.0.0.0", 9))
    listener.listen()
    return listener
