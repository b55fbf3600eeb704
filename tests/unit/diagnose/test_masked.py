"""What one cause hides of another: named where the run has evidence of it, and else not called fine."""

from __future__ import annotations

import msgspec
import pytest

from kubectl_genainet.context.context import Context
from kubectl_genainet.diagnose.causes import Gathering
from kubectl_genainet.diagnose.checked import Watched, checked
from kubectl_genainet.diagnose.felt import of_path
from kubectl_genainet.diagnose.reach import Reach, reach_of
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.diagnoses import DIAGNOSES
from kubectl_genainet.model.finding import Certainty, Evidence, Remedy
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.diagnosis import CheckState
from kubectl_genainet.model.results.path import ConnectionOutcome, Drop, Hop, Verdict
from tests.unit.diagnose.test_felt import path

TO_LLM = FiveTuple("10.244.1.2", 0, "10.244.2.3", 8080, Protocol.TCP)


def test_a_rule_that_drops_what_the_policies_would_drop_too_is_one_cause_and_the_policy_another() -> None:
    statements = (
        Evidence("freed", Certainty.OBSERVED),
        Evidence("rule 1 of FORWARD ends the walk", Certainty.DERIVED),
        Evidence("default/llm is isolated for ingress by default/in, and no rule admits TCP 8080", Certainty.ASSUMED),
        Evidence("rule 1: the port is TCP 8080; the rule requires TCP 80", Certainty.ASSUMED),
    )
    drop = Drop(
        "NETFILTER_DROP",
        "nft_do_chain",
        "FORWARD",
        "eth0",
        "filter FORWARD rule 1: -j DROP",
        ("default/in",),
        Certainty.DERIVED,
        node="node-1",
        explanation="a rule of node-1 drops it: load test",
        check="rule-drop",
        evidence=statements,
        remedy=Remedy("once the rule is gone: admit it"),
    )
    gathering = Gathering()
    for one in of_path(path(drop)):
        gathering.add(one)
    rule, policy = sorted(gathering.causes(), key=lambda cause: cause.check, reverse=True)
    assert (rule.check, rule.title) == ("rule-drop", drop.explanation)
    assert rule.remedy == Remedy(DIAGNOSES["rule-drop"].todo)
    assert (policy.check, policy.title, policy.remedy) == ("policy-drop", statements[2].statement, drop.remedy)
    assert [e.statement for e in policy.evidence] == [statements[3].statement]


def test_how_far_connections_came() -> None:
    stopped = path()
    in_pod = msgspec.structs.replace(stopped, hops=(Hop("node-1", "llm-abc", "eth0", "rx", 1, "a", "b"),))
    established = msgspec.structs.replace(stopped, established=True, verdict=Verdict.FORWARDED)
    answered = msgspec.structs.replace(established, response_ns=5, outcome=ConnectionOutcome.ANSWERED)
    assert reach_of([stopped]) == Reach(1, flows=frozenset({TO_LLM}))
    counts = reach_of([stopped, in_pod, established, answered])
    assert (counts.seen, counts.met_pod, counts.established, counts.carried, counts.answered) == (4, 3, 2, 1, 1)


def test_a_datagram_that_was_not_stopped_carried_data() -> None:
    flow = msgspec.structs.replace(path().flow, protocol=Protocol.UDP)
    passed = msgspec.structs.replace(path(), flow=flow, verdict=Verdict.FORWARDED)
    assert (reach_of([passed]).carried, reach_of([passed]).answered) == (1, 0)


@pytest.mark.parametrize(
    ("reach", "state", "why"),
    [
        (Reach(), CheckState.NOT_CHECKED, "no connection was seen"),
        (Reach(3), CheckState.NOT_CHECKED, "no connection was established"),
        (Reach(3, 2, 1), CheckState.NOT_CHECKED, "no connection carried data"),
        (
            Reach(9, 9, 9, 9, 1),
            CheckState.NOT_CHECKED,
            "of 9 connections that carried data only 1 had an answer until the end",
        ),
        (Reach(9, 9, 9, 8, 8), CheckState.FINE, "8 of 9 established connections were answered"),
        (
            Reach(9, 9, 5, 5, 5),
            CheckState.FINE,
            "5 of 5 established connections were answered; 4 were never established",
        ),
    ],
)
def test_what_is_said_of_the_applications_answers(reach: Reach, state: CheckState, why: str) -> None:
    watched = Watched(Context(ClusterSnapshot()), (), (), (), None, reach, 0, 0, {})
    answers = next(item for item in checked(watched, ()) if item.what == "answers")
    assert (answers.state, answers.why) == (state, why)
