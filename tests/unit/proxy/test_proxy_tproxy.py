"""TPROXY and the socket match: what hangs on a program of the node is said, and a flow can state it."""

import pytest

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Evaluation, Packet, RulesetVerdict, dumps_of, evaluate, parse_ruleset
from kubectl_genainet.proxy.batch import flow_of_words, result_of

IPTABLES = """*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m socket --transparent -j MARK --set-xmark 0x200/0xffffffff
-A PREROUTING -p tcp -m tcp --dport 80 -j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xfff
-A INPUT -m mark ! --mark 0x539/0xfff -j DROP
COMMIT
"""
NFT = """table inet proxy {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		tcp dport 80 tproxy ip to 127.0.0.1:15006 meta mark set 0x1 accept
		tcp dport 80 counter drop
	}
}
"""


def to_port_80(text: str, transparent_socket: bool | None, dport: int = 80) -> Evaluation:
    packet = Packet(
        src="10.1.0.2",
        sport=40000,
        dst="10.2.0.3",
        dport=dport,
        protocol=Protocol.TCP,
        transparent_socket=transparent_socket,
    )
    return evaluate(parse_ruleset(dumps_of(text), node_ips=["10.0.0.1"]), packet)


@pytest.mark.parametrize(("text", "socket"), [(IPTABLES, "10.0.0.1:15006"), (NFT, "127.0.0.1:15006")])
def test_a_listening_program_gets_what_tproxy_gives_it(text: str, socket: str) -> None:
    result = result_of(to_port_80(text, True))
    assert (result.verdict, result.redirected) == ("ACCEPT", socket)
    assert any("ip rule" in what for what in result.assumed)


@pytest.mark.parametrize("text", [IPTABLES, NFT])
def test_without_a_listening_program_the_rules_say_what_becomes_of_the_packet(text: str) -> None:
    evaluation = to_port_80(text, False)
    assert evaluation.verdict is RulesetVerdict.DROP
    assert len(evaluation.rules) == 1


@pytest.mark.parametrize("text", [IPTABLES, NFT])
def test_the_verdict_names_the_socket_that_it_depends_on(text: str) -> None:
    evaluation = to_port_80(text, None)
    assert evaluation.verdict is RulesetVerdict.UNKNOWN
    assert evaluation.unknown == ("whether a transparent socket listens on port 15006",)
    assert {outcome.verdict for outcome in evaluation.outcomes} == {RulesetVerdict.ACCEPT, RulesetVerdict.DROP}


def test_a_socket_match_of_a_connections_first_packet_is_taken_for_none_and_said_so() -> None:
    evaluation = to_port_80(IPTABLES, None, dport=81)
    assert evaluation.verdict is RulesetVerdict.NO_MATCH
    assert any("socket" in what for what in evaluation.assumed)


def test_a_flow_states_whether_a_program_listens() -> None:
    line = '{"src": "10.1.0.2", "dst": "10.2.0.3", "port": 80, "transparentSocket": true}'
    assert flow_of_words([line]).packet.transparent_socket is True
    assert flow_of_words(["10.1.0.2", "10.2.0.3:80"]).packet.transparent_socket is None
