"""The evaluator beside the kernel: random rulesets and every statement of the manuals, with real packets through them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Packet, dumps_of, evaluate, parse_ruleset
from kubectl_genainet.proxy.firewall.opening import ServicePacket, host_firewall
from tests.rules_fuzz import Count, Difference, differences, load, packet_of, said
from tests.rules_statements import checked
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


def test_single_statements_of_the_manuals_do_what_the_evaluator_says(wire: Wire) -> None:
    count = Count()
    found = list(checked(wire, count))
    assert not found, _told(found)
    assert count.refused <= 8, count.reasons  # modules that this kernel may lack
    assert count.flows >= 5700
    assert count.unknown <= count.flows * 0.02, count.reasons  # the time of day, a MAC address, a program's say


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
