"""Rules that the kernel named, found again by node and tuple."""

import pytest

from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.proxy import Ruleset, dump_of, parse_ruleset
from kubectl_genainet.trace import exact
from kubectl_genainet.trace.exact import ExactHits

BEFORE = FiveTuple("10.244.1.3", 40000, "10.96.0.65", 80, Protocol.TCP)
AFTER = FiveTuple("10.244.1.3", 40000, "10.244.2.3", 8080, Protocol.TCP)
RULES = """\
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SEP-B - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.65/32 -p tcp -m comment --comment "default/llama:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SVC-A -m comment --comment "default/llama:http" -j KUBE-SEP-B
-A KUBE-SEP-B -p tcp -m comment --comment "default/llama:http" -m tcp -j DNAT --to-destination 10.244.2.3:8080
COMMIT
*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -d 10.244.2.3/32 -j DROP
COMMIT
"""


@pytest.fixture
def ruleset() -> Ruleset:
    return parse_ruleset([dump_of(RULES)])


def hit(chain: str, verdict: str, flow: FiveTuple | None = None, *, trace: int = 1, table: str = "nat") -> RuleHit:
    return RuleHit(
        node="node-1",
        t_ns=0,
        trace=trace,
        engine="nftrace",
        family=4,
        table=table,
        chain=chain,
        index=1,
        verdict=verdict,
        flow=flow,
    )


def packet(trace: int = 1) -> list[RuleHit]:
    """The kernel gives the tuple with the first hit of each hook only."""
    return [
        hit("PREROUTING", "jump KUBE-SERVICES", BEFORE, trace=trace),
        hit("KUBE-SERVICES", "jump KUBE-SVC-A", trace=trace),
        hit("KUBE-SVC-A", "jump KUBE-SEP-B", trace=trace),
        hit("KUBE-SEP-B", "accept", trace=trace),
        hit("FORWARD", "drop", AFTER, trace=trace, table="filter"),
    ]


def test_the_translation_is_found_by_the_tuple_before_it(ruleset: Ruleset) -> None:
    hits = ExactHits()
    for one in packet():
        hits.learn(one)
    found = hits.translation(ruleset, "node-1", BEFORE)
    assert found is not None
    assert (found.service_chain, found.endpoint_chain) == ("KUBE-SVC-A", "KUBE-SEP-B")
    assert found.service == "default/llama:http"
    assert hits.translation(ruleset, "node-2", BEFORE) is None


def test_the_dropping_rule_is_found_by_the_tuple_as_it_was_dropped(ruleset: Ruleset) -> None:
    hits = ExactHits()
    for one in packet():
        hits.learn(one)
    rule = hits.dropping_rule(ruleset, "node-1", AFTER)
    assert rule is not None
    assert rule.text == "-A FORWARD -d 10.244.2.3/32 -j DROP"


def test_a_packet_that_met_no_nat_rule_has_no_observed_translation(ruleset: Ruleset) -> None:
    hits = ExactHits()
    hits.learn(hit("FORWARD", "accept", AFTER, table="filter"))
    assert hits.translation(ruleset, "node-1", AFTER) is None
    assert hits.dropping_rule(ruleset, "node-1", AFTER) is None


def test_the_oldest_packets_are_forgotten_first(ruleset: Ruleset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "MAX_PACKETS", 2)
    hits = ExactHits()
    for trace, flow in enumerate((BEFORE, AFTER, BEFORE.reversed)):
        hits.learn(hit("PREROUTING", "accept", flow, trace=trace))
    assert len(hits._packets) == 2
    assert list(hits._by_flow) == [("node-1", AFTER), ("node-1", BEFORE.reversed)]
