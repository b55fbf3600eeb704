"""What is cut short, not as its program writes it, or changed on the way leaves open what depends on it."""

import json
from typing import Any

import pytest

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import Packet, RulesetVerdict, dump_of, evaluate, parse_ruleset
from tests.unit.proxy.test_proxy_statements import iptables, outcome


@pytest.mark.parametrize(
    "text",
    [
        "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -d 10.9.0.0/16 -j DROP\n",
        "table ip t {\n\tchain f {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\ttcp dport 8",
        "table ip t {\n\tchain f {\n\t\ttype filter hook forward priority 0; policy accept;\n\t\ttcp dport $port drop\n\t}\n}\n",
        "add table ip t\nadd chain ip t f { type filter hook forward priority 0; }\ndelete rule ip t f handle 7\n",
        "Name: s\nType: hash:ip\nNumber of entries: 2\nMembers:\n10.0.0.1\n",
    ],
)
def test_what_is_cut_short_or_not_read_decides_nothing(text: str) -> None:
    result = outcome(text)
    assert result.verdict is RulesetVerdict.UNKNOWN
    assert result.unknown


def test_a_member_that_is_missing_leaves_only_its_set_open() -> None:
    cut = "Name: s\nType: hash:ip\nNumber of entries: 2\nMembers:\n10.0.0.1\n"
    assert outcome(iptables("FORWARD -m set --match-set s src -j DROP"), cut).verdict is RulesetVerdict.UNKNOWN
    assert outcome(iptables("FORWARD -p udp -m set --match-set s src -j DROP"), cut).verdict is RulesetVerdict.NO_MATCH


def test_transactions_insert_flush_and_delete() -> None:
    text = (
        "add table ip t\nadd chain ip t f { type filter hook forward priority 0 ; policy accept ; }\n"
        "add rule ip t f accept\ninsert rule ip t f tcp dport 80 drop\n"
    )
    assert outcome(text).verdict is RulesetVerdict.DROP
    assert outcome(text + "flush chain ip t f\n").verdict is RulesetVerdict.NO_MATCH
    assert outcome(text + "delete table ip t\n").verdict is RulesetVerdict.NO_MATCH


OUT_OF_RANGE: tuple[Any, ...] = (
    {"payload": {"base": "nh", "offset": 0, "len": 10**14}},
    {"payload": {"base": "nh", "offset": 0, "len": -1}},
    {"<<": [{"payload": {"protocol": "tcp", "field": "dport"}}, 2**40]},
    {"<<": [{"payload": {"protocol": "tcp", "field": "dport"}}, -1]},
)


@pytest.mark.parametrize("shift", ["<<4294967295", ">>32", "<<-1"])
def test_a_shift_that_the_kernel_does_not_have_is_not_evaluated(shift: str) -> None:
    assert outcome(iptables(f'FORWARD -m u32 --u32 "0{shift}=1" -j DROP')).verdict is RulesetVerdict.UNKNOWN


def test_json_that_is_not_as_libnftables_writes_it_is_named_and_never_a_traceback() -> None:
    chain = {"family": "ip", "table": "t", "name": "f", "type": "filter", "hook": "forward", "prio": 0}
    cases: tuple[Any, ...] = (
        [{}],
        [None],
        [7],
        ["jump {\n\ttcp dport 80 drop\n}"],
        [{"match": {}}],
        [{"vmap": 3}],
        *([{"match": {"op": "==", "left": left, "right": 1}}] for left in OUT_OF_RANGE),
        "x",
        None,
    )
    for expressions in cases:
        rule = {
            "family": "ip",
            "table": "t",
            "chain": "f",
            "expr": [*expressions, {"drop": None}] if isinstance(expressions, list) else expressions,
        }
        text = json.dumps({"nftables": [{"table": {"family": "ip", "name": "t"}}, {"chain": chain}, {"rule": rule}]})
        result = outcome(text)
        assert result.verdict in (RulesetVerdict.UNKNOWN, RulesetVerdict.DROP)


@pytest.mark.parametrize(("adds", "verdict"), [(22, RulesetVerdict.UNKNOWN), (23, RulesetVerdict.NO_MATCH)])
def test_a_set_that_a_rule_on_the_way_adds_to_can_not_be_answered(adds: int, verdict: RulesetVerdict) -> None:
    rules = (
        f"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport {adds} -j SET --add-set knock src\n"
        "-A INPUT -p tcp -m tcp --dport 22 -m set --match-set knock src -j DROP\nCOMMIT\n"
    )
    dumps = [dump_of(rules), dump_of("create knock hash:ip family inet hashsize 1024 maxelem 65536\n")]
    ruleset = parse_ruleset(dumps, node_ips=["192.168.0.2"])
    packet = Packet(src="203.0.113.9", dst="192.168.0.2", dport=22, protocol=Protocol.TCP)
    assert evaluate(ruleset, packet).verdict is verdict
