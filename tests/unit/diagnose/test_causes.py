"""Causes from what was felt: folded, ranked, and shown; what was looked at besides."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kubectl_genainet.diagnose.causes import MAX_CAUSES, Gathering
from kubectl_genainet.diagnose.felt import LOOKUPS_FAIL, Felt, of_finding, of_path
from kubectl_genainet.model.diagnoses import DIAGNOSES, Suspect
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, Remedy, Severity
from kubectl_genainet.model.results.diagnosis import Checked, CheckState, Conclusion
from kubectl_genainet.render.diagnose.text import MarkdownView, TextView
from kubectl_genainet.render.diagnose.words import headline, the_same_in
from tests.unit.diagnose.test_felt import LLM, SERVICE, UI, path


def felt(
    check: str, *key: str, client: str = UI, server: str = LLM, place: str = "node node-1", **rest: object
) -> Felt:
    fields: dict[str, object] = {
        "key": key or (check, place),
        "check": check,
        "title": f"title of {check}",
        "severity": Severity.ERROR,
        "pairs": frozenset({(client, server)}),
        "place": place,
        "count": 1,
        "unit": "connections",
        "evidence": (Evidence(f"seen {check}", Certainty.OBSERVED),),
        **rest,
    }
    return Felt(**fields)  # type: ignore[arg-type]


def causes_of(*things: Felt) -> list[tuple[str, list[str]]]:
    gathering = Gathering()
    for thing in things:
        gathering.add(thing)
    return [(c.check, [s.check for s in c.symptoms]) for c in gathering.causes()]


def test_a_consequence_is_folded_under_the_cause_of_the_same_flow() -> None:
    assert causes_of(felt("unanswered"), felt("listen-overflow", place="default/llm-0")) == [
        ("listen-overflow", ["unanswered"])
    ]


def test_what_a_client_feels_of_a_service_follows_from_a_fault_of_its_backend() -> None:
    """The client's socket knows the Service's address only: it was a second cause beside the full listen queue."""
    sent_again = felt("unacknowledged", server=f"{SERVICE.namespace}/{SERVICE.name}", place="default/ui-0")
    (queue,) = of_path(path(None, Finding("listen-overflow", "full", Severity.ERROR, ())))
    gathering = Gathering()
    for one in (sent_again, queue):
        gathering.add(one)
    (cause,) = gathering.causes()
    assert (cause.check, [s.check for s in cause.symptoms]) == ("listen-overflow", ["unacknowledged"])


def test_a_policy_that_is_bypassed_loses_nothing_so_no_symptom_comes_of_it() -> None:
    """The slow backend was folded under the policy that nobody enforces, and so was not named."""
    assert causes_of(felt("policy-not-enforced"), felt("slow-backend", severity=Severity.WARNING)) == [
        ("policy-not-enforced", []),
        ("slow-backend", []),
    ]
    gave_up = felt("reset-by-client", client="default/web", server=UI, severity=Severity.WARNING)
    assert causes_of(felt("policy-not-enforced"), gave_up) == [("policy-not-enforced", []), ("reset-by-client", [])]


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [("reply-not-translated", "reset-by-client"), ("routing-loop", "ttl-expired"), ("rule-drop", "fragments")],
)
def test_what_one_connection_shows_twice_is_one_cause(cause: str, consequence: str) -> None:
    assert causes_of(felt(cause), felt(consequence)) == [(cause, [consequence])]
    assert causes_of(felt(cause), felt(consequence, count=9)) == [(cause, [consequence])]


@pytest.mark.parametrize(("cause", "symptom"), [("closed-port", "icmp-error"), ("reply-not-translated", "late-answer")])
def test_a_symptom_is_put_under_what_it_is_known_to_follow_from_and_not_the_worst(cause: str, symptom: str) -> None:
    worst = felt("conntrack-invalid", count=9)
    assert causes_of(worst, felt(cause), felt(symptom)) == [("conntrack-invalid", []), (cause, [symptom])]
    assert causes_of(worst, felt(symptom)) == [("conntrack-invalid", [symptom])]


def test_what_a_node_counts_of_no_flow_is_told_with_what_its_packets_showed() -> None:
    counted = felt("conntrack-insert-failed", severity=Severity.WARNING, pairs=frozenset(), unit="packets")
    assert causes_of(counted, felt("snat-ports-exhausted")) == [("snat-ports-exhausted", ["conntrack-insert-failed"])]
    elsewhere = felt("snat-ports-exhausted", place="node node-2")
    assert [check for check, _ in causes_of(counted, elsewhere)] == ["snat-ports-exhausted", "conntrack-insert-failed"]


def test_where_a_cause_may_be_an_mtu_none_is_called_fine() -> None:
    about_mtu = {d.name for d in DIAGNOSES.values() if "MTU" in f"{d.observed} {d.meaning}"}
    assert "peer-refused" in about_mtu
    assert {name for name in about_mtu if Suspect.MTU not in DIAGNOSES[name].blames} == set()


def test_a_server_that_accepts_nothing_does_not_reply_either() -> None:
    waiting = felt("no-reply", severity=Severity.WARNING, place=LLM)
    assert causes_of(felt("listen-overflow", place="default/llm-0"), waiting) == [("listen-overflow", ["no-reply"])]


def test_a_backend_has_one_name() -> None:
    """Of the same connections some were seen to reach a backend: the Service stood beside it, as another one."""
    service = f"{SERVICE.namespace}/{SERVICE.name}"
    called = frozenset({(UI, service)})
    gathering = Gathering()
    for server in (service, LLM):
        gathering.add(felt("conntrack-full", server=server, called=called))
    assert gathering.causes()[0].backends == (LLM,)
    alone = Gathering()
    alone.add(felt("conntrack-full", server=service, called=called))
    assert alone.causes()[0].backends == (service,)


def test_a_consequence_of_another_flow_stays_a_cause_of_its_own() -> None:
    other = felt("unanswered", client="default/batch", server="default/qdrant", place="node node-9")
    assert causes_of(felt("rp-filter"), other) == [("rp-filter", []), ("unanswered", [])]


def test_two_policies_are_two_causes_though_they_hit_the_same_flow() -> None:
    assert causes_of(felt("policy-drop", "policies", "a/one"), felt("policy-drop", "policies", "a/two")) == [
        ("policy-drop", []),
        ("policy-drop", []),
    ]


def test_the_rejects_of_a_service_without_endpoints_are_its_symptoms() -> None:
    reject = felt("rejected-by-rule", "rule", "KUBE-SERVICES rule 3")
    assert causes_of(felt("no-endpoints"), reject) == [("no-endpoints", ["rejected-by-rule"])]


def test_a_full_connection_table_explains_lookups_that_get_no_answer() -> None:
    lost = felt("dns-timeout", server="?", place="queries of ui", dns=True)
    assert causes_of(felt("conntrack-full", server="kube-system/coredns"), lost) == [
        ("conntrack-full", ["dns-timeout"])
    ]


def test_the_same_in_several_pods_is_one_cause_that_counts_them_all() -> None:
    """One of three pods stood for all, and "11 connections" for 29."""
    gathering = Gathering()
    for pod, count in (("llm-cdvlk54g9-9xw2h", 11), ("llm-cdvlk54g9-w6p6s", 10), ("llm-2", 8)):
        title = f"nothing listens on TCP port 8081 in pod default/{pod}"
        gathering.add(felt("closed-port", place=f"default/{pod}", count=count, title=title))
    (cause,) = gathering.causes()
    assert (cause.count, cause.symptoms) == (29, ())
    assert cause.elsewhere == ("default/llm-2", "default/llm-cdvlk54g9-w6p6s")
    assert the_same_in(cause) == "the same in default/llm-2, default/llm-cdvlk54g9-w6p6s"


def test_findings_that_name_no_place_are_told_one_by_one() -> None:
    titles = [f"coredns-7d4b9-{pod} waits for its upstream" for pod in ("c9q7k", "cml8t")]
    gathering = Gathering()
    for title in titles:
        gathering.add(of_finding(Finding("dns-slow-upstream", title, Severity.WARNING, ()), client=UI))
    (cause,) = gathering.causes()
    assert (cause.elsewhere, [s.title for s in cause.symptoms]) == ((), titles[1:])


def test_a_fault_that_hits_more_than_lookups_is_not_told_as_one_of_lookups() -> None:
    lookup = felt("conntrack-full", title=f"{LOOKUPS_FAIL}the table is full", dns=True, unit="queries")
    connection = felt("conntrack-full", title="the table is full")
    for things in ((lookup, connection), (connection, lookup)):
        gathering = Gathering()
        for one in things:
            gathering.add(one)
        assert [cause.title for cause in gathering.causes()] == ["the table is full"]


def test_another_port_of_the_same_pod_is_not_said_to_be_the_same() -> None:
    titles = [f"nothing listens on port {name} in the pod" for name in ("8081", "8082")]
    gathering = Gathering()
    for title in titles:
        gathering.add(felt("closed-port", title, place="default/llm-0", title=title))
    (cause,) = gathering.causes()
    assert {cause.title, *(symptom.title for symptom in cause.symptoms)} == set(titles)
    assert (cause.count, cause.elsewhere) == (1, ())


def test_a_cause_without_a_remedy_of_its_own_has_the_usual_one() -> None:
    own = Remedy("scale it", "kubectl scale deploy/llm --replicas 2")
    for remedy, text in ((None, DIAGNOSES["no-endpoints"].todo), (own, own.text)):
        gathering = Gathering()
        gathering.add(felt("no-endpoints", remedy=remedy))
        (cause,) = gathering.causes()
        assert cause.remedy is not None and cause.remedy.text == text


def test_a_server_that_waits_for_calls_of_its_own_is_no_cause_beside_what_broke_those() -> None:
    """rag-app's lookups were dropped: that it was slow, and that its clients gave up, were causes 2 to 5."""
    lookups = felt("rule-drop", "rule", "block udp", client="default/rag", server="kube-system/coredns", dns=True)
    slow = felt("slow-first-reply", server="default/rag", place="default/rag-0", severity=Severity.WARNING)
    slowest = felt("slow-backend", place="default/rag-0", severity=Severity.WARNING, client="?", server="?")
    gave_up = felt("reset-by-client", server="default/rag", place="default/ui-0", severity=Severity.WARNING)
    assert causes_of(gave_up, slow, slowest, lookups) == [
        ("rule-drop", ["reset-by-client", "slow-first-reply", "slow-backend"])
    ]
    elsewhere = felt("slow-first-reply", place="default/llm-0", severity=Severity.WARNING)
    assert [check for check, _ in causes_of(elsewhere, lookups)] == ["rule-drop", "slow-first-reply"]


def test_errors_come_before_warnings_and_then_what_was_felt_most() -> None:
    warning = felt("slow-upstream", severity=Severity.WARNING, count=900, client="a/b", server="a/c", place="p")
    assert [
        c for c, _ in causes_of(warning, felt("rp-filter", count=2), felt("policy-drop", "policies", "x/y", count=9))
    ] == [
        "policy-drop",
        "rp-filter",
        "slow-upstream",
    ]


def test_what_is_no_fault_comes_last_and_names_no_fault() -> None:
    aside = felt(
        "reset-by-client", client="default/job", server="default/other", place="p", severity=Severity.INFO, title="old"
    )
    slow = felt("slow-backend", severity=Severity.WARNING)
    assert [check for check, _ in causes_of(aside, slow)] == ["slow-backend", "reset-by-client"]
    of_the_same_flow = felt("reset-by-client", severity=Severity.INFO)
    assert [check for check, _ in causes_of(of_the_same_flow, slow)] == ["slow-backend", "reset-by-client"]
    gathering = Gathering()
    gathering.add(aside)
    gathering.add(
        felt(
            "reset-by-client",
            client="default/job",
            server="default/other",
            place="p",
            severity=Severity.WARNING,
            title="reset midway",
        )
    )
    assert [(c.title, c.severity) for c in gathering.causes()] == [("reset midway", Severity.WARNING)]


def test_counts_of_one_cause_add_up_and_keep_the_first_and_last_time() -> None:
    gathering = Gathering()
    for second in (3.0, 7.5, 5.0):
        gathering.add(felt("rp-filter"), second)
    (cause,) = gathering.causes()
    assert (cause.count, cause.unit, cause.first_s, cause.last_s) == (3, "connections", 3.0, 7.5)
    assert (cause.clients, cause.backends) == ((UI,), (LLM,))


def test_causes_are_bounded_and_what_found_no_room_is_counted() -> None:
    gathering = Gathering()
    for number in range(MAX_CAUSES + 3):
        gathering.add(felt("rule-drop", "rule", str(number)))
    assert (len(gathering.causes()), gathering.forgotten) == (MAX_CAUSES, 3)


def conclusion(*things: Felt, connections: int = 12) -> Conclusion:
    gathering = Gathering()
    for thing in things:
        gathering.add(thing, 4.0)
    return Conclusion(
        target="svc/llm",
        seconds=15.0,
        connections=connections,
        failed=0,
        queries=0,
        causes=gathering.causes(),
        checked=(
            Checked("dns", CheckState.NOT_CHECKED, "no query of a caller was seen"),
            Checked("rules", CheckState.FINE, "they match"),
        ),
        notes=(),
        callers={UI: connections},
        next=("kubectl genainet trace svc/llm --exact",),
        nodes=("node-1",),
        silent_nodes=(),
        lost=0,
    )


def shown(value: Conclusion, width: int) -> str:
    out = io.StringIO()
    TextView(Console(file=out, width=width, highlight=False, emoji=False, no_color=True)).show(value)
    return out.getvalue()


def test_nothing_wrong_and_nothing_seen_are_two_answers() -> None:
    assert "nothing wrong was seen" in headline(conclusion())
    assert "nothing can be said" in headline(conclusion(connections=0))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_cause_comes_first_and_every_line_fits(width: int) -> None:
    long = felt("rule-drop", title="a rule of node-1 drops it: " + "load test, remove after " * 5)
    text = shown(conclusion(long), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.index("✗ 1. a rule of node-1") < text.index("? dns")
    assert "first seen 4 s" in " ".join(text.split())
    assert "next: kubectl genainet trace svc/llm --exact" in " ".join(text.replace("\\\n", "").split())


def test_markdown_escapes_what_would_be_markup(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = felt("rule-drop", title="<img src=x> [a](b) `c`\x1b[31m", remedy=Remedy("do", yaml="a: 1\n```\nb: 2"))
    MarkdownView().show(conclusion(hostile))
    text = capsys.readouterr().out
    assert r"\<img src=x\> \[a\](b) \`c\`" in text
    assert "\x1b" not in text
    assert text.count("```") == 2
