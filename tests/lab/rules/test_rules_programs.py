"""firewalld, ufw, Docker and portmap write their rules, and real packets go through them as the evaluator says."""

from __future__ import annotations

import msgspec
import pytest

from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Packet, Ruleset, evaluate, parse_ruleset
from kubectl_genainet.proxy.authors import author_of
from kubectl_genainet.proxy.evaluator.model import translates
from kubectl_genainet.proxy.firewall.opening import ServicePacket, host_firewall
from kubectl_genainet.proxy.iptables.read import BASE_CHAINS
from tests.rules_fuzz import Count, judged, packet_of
from tests.rules_programs import AUTHORS, PROGRAMS, flows_of, let_write
from tests.rules_wire import NODE_IPS, Flow, Wire


@pytest.mark.parametrize("program", list(PROGRAMS))
def test_what_a_firewall_wrote_is_judged_as_the_kernel_does(program: str) -> None:
    with Wire() as wire:
        let_write(wire, program)
        dumps = list(read_rulesets("node", f"/run/netns/{wire.node}"))
        ruleset = parse_ruleset(dumps, node_ips=NODE_IPS)
        assert (ruleset.errors, ruleset.unread) == ((), ())
        count, flows = Count(), flows_of(wire, program)
        wrong = list(judged(wire, ruleset, flows, count))
        assert not wrong
        assert count.unknown <= count.flows * 0.02, count.reasons
        assert count.decided_with_less >= count.flows * 0.4  # their devices exclude each other, so some are certain
        assert len(set(wire.send(flows_of(wire, program)).values())) > 6  # it lets through, refuses and translates
        assert_named(ruleset, flows, AUTHORS[program])


def assert_named(ruleset: Ruleset, flows: list[Flow], author: str) -> None:
    """Each rule that decides is known for its program's, where it stands in a chain of that program."""
    deciding = {
        (outcome.final_rule or next((rule for rule in reversed(outcome.rules) if translates(rule)), None)): outcome
        for flow in flows
        for outcome in evaluate(ruleset, packet_of(flow)).outcomes
    }
    rules = [
        rule for rule in deciding if rule is not None and rule.chain not in BASE_CHAINS["filter"] | BASE_CHAINS["nat"]
    ]
    assert rules
    assert {author_of(rule) for rule in rules} - {"kube-proxy"} == {author}


@pytest.mark.parametrize("program", ["firewalld", "ufw", "docker"])
def test_the_change_that_opens_a_firewall_opens_it(program: str) -> None:
    with Wire() as wire:
        let_write(wire, program)
        dumps = list(read_rulesets("node", f"/run/netns/{wire.node}"))
        refused = Flow("10.7.0.2", wire.port(), "10.8.0.3", 8080, Protocol.TCP)
        assert wire.send([refused])[refused.sport] in ("DROP", "REJECT")
        packet = Packet(src=refused.src, dst=refused.dst, dport=8080, protocol=Protocol.TCP, bridged=False)
        packet = msgspec.structs.replace(packet, in_device="cli0", out_device="srv0")
        opening = host_firewall(dumps, NODE_IPS, [ServicePacket("outside", packet)])
        assert opening.trial, opening
        let_write(wire, program, [command for change in opening.changes for command in change.commands])
        again = Flow(refused.src, wire.port(), refused.dst, 8080, Protocol.TCP)
        assert wire.send([again])[again.sport].startswith("10.8.0.3:8080"), opening.changes
