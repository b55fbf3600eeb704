"""One flow's walk as a tree: base chains in order, each rule below the one that jumped to its chain, what decided marked."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from kubectl_genainet.cli import cli
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy import dumps_of, parse_ruleset
from kubectl_genainet.proxy.batch import flow_of_words
from kubectl_genainet.proxy.evaluator.model import masquerades, translates
from kubectl_genainet.proxy.evaluator.rule_ref import RuleRef
from kubectl_genainet.proxy.walked import FlowWalk, WalkRule, flow_walk

SAVED = """*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SEP-B - [0:0]
[9:540] -A PREROUTING -j KUBE-SERVICES
[3:180] -A POSTROUTING -s 10.5.0.9/32 -j MASQUERADE
[4:240] -A KUBE-SERVICES -d 10.60.0.1/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-A
[1:60] -A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-A
[3:180] -A KUBE-SVC-A -j KUBE-SEP-B
[1:60] -A KUBE-SEP-A -p tcp -j DNAT --to-destination 10.5.1.1:8080
[3:180] -A KUBE-SEP-B -p tcp -j DNAT --to-destination 10.5.1.2:8080
COMMIT
*filter
:FORWARD ACCEPT [0:0]
[0:0] -A FORWARD -d 10.5.1.2/32 -j DROP
COMMIT
"""


def _walk(*words: str) -> FlowWalk:
    ruleset = parse_ruleset(dumps_of(SAVED), node_ips=["192.0.2.1"])
    return flow_walk(ruleset, flow_of_words(words), node="n1")


def _flat(rules: tuple[WalkRule, ...], depth: int = 0) -> list[tuple[int, str, str]]:
    found = []
    for rule in rules:
        found.append((depth, f"{rule.chain} {rule.index}", rule.decides))
        found += _flat(rule.rules, depth + 1)
    return found


def test_each_rule_stands_below_the_one_that_jumped_to_its_chain() -> None:
    walk = _walk("10.5.0.9", "10.60.0.1:80")
    way = next(way for way in walk.ways if way.verdict == "DNAT")
    assert [(chain.hook, chain.table, chain.chain) for chain in way.chains] == [
        ("PRE_ROUTING", "nat", "PREROUTING"),
        ("FORWARD", "filter", "FORWARD"),
        ("POST_ROUTING", "nat", "POSTROUTING"),
    ]
    assert _flat(way.chains[0].rules) == [
        (0, "PREROUTING 1", ""),
        (1, "KUBE-SERVICES 1", ""),
        (2, "KUBE-SVC-A 1", ""),
        (3, "KUBE-SEP-A 1", "translates"),
    ]
    assert way.chains[1].rules == ()
    assert _flat(way.chains[2].rules) == [(0, "POSTROUTING 1", "masquerades")]


def test_a_way_that_is_dropped_says_by_which_rule_and_with_its_counters() -> None:
    walk = _walk("10.5.0.9", "10.60.0.1:80")
    assert walk.verdict == "MIXED"
    way = next(way for way in walk.ways if way.verdict == "DROP")
    assert (way.share, way.to) == (0.5, "10.5.1.2:8080")
    assert _flat(way.chains[-1].rules) == [(0, "FORWARD 1", "drops")]
    assert way.chains[0].rules[0].packets == 9
    assert way.chains[0].rules[0].rules[0].author == "kube-proxy"


def test_a_flow_is_read_as_users_type_it() -> None:
    typed = flow_of_words(["10.1.0.2", "[fd00::1]:53/udp"]).packet
    assert (typed.src, typed.dst, typed.dport, typed.protocol) == ("10.1.0.2", "fd00::1", 53, Protocol.UDP)
    assert flow_of_words(["10.9.9.9:443"]).packet.src is None
    assert flow_of_words(["-", "10.9.9.9"]).packet.dport is None
    assert flow_of_words(['{"destIP": "10.9.9.9", "uid": 7}']).packet.uid == 7


def _of_a_node_unknown(saved: str) -> FlowWalk:
    """The walk where nobody says which addresses are the node's own."""
    return flow_walk(parse_ruleset(dumps_of(saved)), flow_of_words(["10.5.0.9", "10.60.0.1:80"]))


def test_ways_that_only_a_doubt_tells_apart_are_one() -> None:
    plain = "\n".join(line for line in SAVED.splitlines() if "MASQUERADE" not in line and "DROP" not in line) + "\n"
    walk = _of_a_node_unknown(plain)
    assert (walk.verdict, walk.unknown) == ("DNAT", ())
    assert [(way.share, way.alike, way.presumed) for way in walk.ways] == [(0.5, 1, ())]
    assert "10.5.1.1 is an address of the node: no" in walk.assumed[0]


def test_a_doubt_is_said_where_it_changes_the_answer() -> None:
    dropped_if_not_the_nodes = "\n".join(line for line in SAVED.splitlines() if "MASQUERADE" not in line) + "\n"
    walk = _of_a_node_unknown(dropped_if_not_the_nodes)
    assert walk.unknown == ("whether 10.5.1.2 is an address of the node",)
    assert [(way.verdict, way.to, way.share, way.presumed) for way in walk.ways] == [
        ("DNAT", "10.5.1.1:8080", 0.5, ()),
        ("DROP", "10.5.1.2:8080", 0.5, ("whether 10.5.1.2 is an address of the node: no",)),
        ("DNAT", "10.5.1.2:8080", 0.5, ("whether 10.5.1.2 is an address of the node: yes",)),
    ]


def test_a_way_that_is_masqueraded_by_a_doubt_is_told_with_it() -> None:
    walk = _of_a_node_unknown("\n".join(line for line in SAVED.splitlines() if "DROP" not in line) + "\n")
    told = [(way.to, way.masquerade, [answer[-3:].strip(": ") for answer in way.presumed]) for way in walk.ways]
    assert told == [
        ("10.5.1.1:8080", True, ["no"]),
        ("10.5.1.1:8080", False, ["yes"]),
        ("10.5.1.2:8080", True, ["no"]),
        ("10.5.1.2:8080", False, ["yes"]),
    ]


def test_many_endpoints_of_a_node_unknown_are_no_open_question() -> None:
    chains = "".join(f":KUBE-SEP-{i} - [0:0]\n" for i in range(40))
    rules = "".join(
        f"-A KUBE-SVC-A -m statistic --mode random --probability {1 / (40 - i):.6f} -j KUBE-SEP-{i}\n"
        f"-A KUBE-SEP-{i} -p tcp -j DNAT --to-destination 10.5.1.{i + 1}:8080\n"
        for i in range(40)
    )
    walk = _of_a_node_unknown(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SVC-A - [0:0]\n"
        f"{chains}-A PREROUTING -d 10.60.0.1/32 -p tcp --dport 80 -j KUBE-SVC-A\n{rules}COMMIT\n"
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"
    )
    assert (walk.verdict, walk.unknown) == ("DNAT", ())
    assert "and 38 more such answers" in walk.assumed[0]
    (ways,) = {way.presumed for way in walk.ways}
    assert ways == ()


def test_a_flow_in_one_pair_of_quotes_is_read_as_its_words() -> None:
    assert flow_of_words(["10.5.0.9 10.60.0.1:80/TCP"]) == flow_of_words(["10.5.0.9", "10.60.0.1:80/TCP"])
    shown = CliRunner().invoke(cli, ["rules", "why", "10.5.0.9  10.60.0.1:80", "--ruleset", "-"], input=SAVED)
    assert shown.exit_code == 0
    assert shown.output.startswith("10.5.0.9 to 10.60.0.1:80 TCP")


@pytest.mark.parametrize("words", [[], ["10.1.0.2", "10.1.0.3:http"], ["a", "b"], ["10.1.0.1", "10.1.0.2", "10.1.0.3"]])
def test_what_is_no_flow_is_refused_with_how_to_write_one(words: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        flow_of_words(words)
    assert "SRC DST:PORT" in (raised.value.hint or "")


def test_the_command_prints_the_tree_and_the_record() -> None:
    flow = {"sourceIP": "10.5.0.9", "destIP": "10.60.0.1", "destPort": 80, "nodeIPs": ["192.0.2.1"]}
    arguments = ["rules", "why", json.dumps(flow), "--ruleset", "-"]
    shown = CliRunner().invoke(cli, arguments, input=SAVED)
    assert shown.exit_code == 0
    assert "KUBE-SEP-A 1  [1 packets] -A KUBE-SEP-A -p tcp -j DNAT" in shown.output
    assert "<- translates" in shown.output
    record = json.loads(CliRunner().invoke(cli, [*arguments, "-o", "json"], input=SAVED).output)
    assert (record["kind"], record["verdict"], len(record["ways"])) == ("walk", "MIXED", 2)


def test_a_flow_that_is_missing_is_said_before_a_cluster_is_looked_for() -> None:
    refused = CliRunner().invoke(cli, ["rules", "why"])
    assert refused.exit_code == 2
    assert "FLOW is missing: rules why SRC DST:PORT" in refused.output


def test_a_word_behind_a_target_is_refused() -> None:
    refused = CliRunner().invoke(cli, ["rules", "svc/a", "svc/b", "--ruleset", "-"], input=SAVED)
    assert refused.exit_code == 2
    assert "rules why FLOW" in refused.output


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ('-A X -m comment --comment "to masquerade, a DNAT" -j KUBE-MARK-MASQ', "-A X  -j KUBE-MARK-MASQ"),
        ("-A X -m comment --comment DNAT -j RETURN", "-A X  -j RETURN"),
        ('accept comment "dnat to nobody"', "accept "),
        ('-A X -m comment --comment "say \\"DNAT \\" twice" -j ACCEPT', "-A X  -j ACCEPT"),
        ("-A X -p tcp -j DNAT --to-destination 10.0.0.1:80", "-A X -p tcp -j DNAT --to-destination 10.0.0.1:80"),
    ],
)
def test_what_a_rule_does_is_not_what_its_comment_says(text: str, bare: str) -> None:
    rule = RuleRef("nat", "X", 1, text)
    assert rule.bare_text == bare
    assert translates(rule) is ("DNAT" in bare)


@pytest.mark.parametrize(
    ("text", "destination", "source"),
    [
        ("-A P -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT", False, False),
        ("-A P -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT", False, False),
        ("-A P -p tcp -j DNAT --to-destination 10.0.0.1:80", True, False),
        ("-A P -j MASQUERADE --random-fully", False, True),
        ("ct status dnat accept", False, False),
        ("ct status snat accept", False, False),
        ("tcp dport 80 dnat ip to 10.0.0.1:80", True, False),
        ("tcp dport 80 redirect to :8080", True, False),
        ("ip saddr 10.0.0.0/8 masquerade fully-random", False, True),
    ],
)
def test_what_translates_is_the_target_and_not_a_word(text: str, destination: bool, source: bool) -> None:
    rule = RuleRef("nat", "P", 1, text)
    assert (translates(rule), masquerades(rule)) == (destination, source)
