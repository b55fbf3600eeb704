"""Causes from what was felt: folded, ranked, and shown; what was looked at besides."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from kubectl_genainet.diagnose.causes import MAX_CAUSES, Gathering
from kubectl_genainet.diagnose.felt import Felt, of_path, of_row
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, Remedy, Severity
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.diagnosis import Checked, CheckState, Conclusion
from kubectl_genainet.model.results.drops import DropOutcome, DropRow
from kubectl_genainet.model.results.path import Drop, Flow, PacketPath, Party, ServiceRef, Verdict
from kubectl_genainet.render.diagnose.text import MarkdownView, TextView
from kubectl_genainet.render.diagnose.words import headline

UI, LLM = "default/ui", "default/llm"


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


def party(name: str, ip: str, port: int | None = None) -> Party:
    return Party(ip, port, "default", f"{name}-abc", "node-1", name)


def causes_of(*things: Felt) -> list[tuple[str, list[str]]]:
    gathering = Gathering()
    for thing in things:
        gathering.add(thing)
    return [(c.check, [s.check for s in c.symptoms]) for c in gathering.causes()]


def test_a_consequence_is_folded_under_the_cause_of_the_same_flow() -> None:
    assert causes_of(felt("unanswered"), felt("listen-overflow", place="default/llm-0")) == [
        ("listen-overflow", ["unanswered"])
    ]


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


def test_errors_come_before_warnings_and_then_what_was_felt_most() -> None:
    warning = felt("slow-upstream", severity=Severity.WARNING, count=900, client="a/b", server="a/c", place="p")
    assert [
        c for c, _ in causes_of(warning, felt("rp-filter", count=2), felt("policy-drop", "policies", "x/y", count=9))
    ] == [
        "policy-drop",
        "rp-filter",
        "slow-upstream",
    ]


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


DROP = Drop(
    "NETFILTER_DROP",
    "nft_do_chain",
    "FORWARD",
    "eth0",
    "filter POD rule 4: -s 10.244.1.2/32 -j DROP",
    ("default/llm-ingress",),
    Certainty.DERIVED,
    node="node-2",
    explanation="isolated",
    check="policy-drop",
)


def path(drop: Drop | None = None, *findings: Finding) -> PacketPath:
    service = ServiceRef("default", "llm", 80, "http", "10.96.0.9")
    flow = Flow(party("ui", "10.244.1.2"), service, Protocol.TCP)
    return PacketPath(
        flow=flow,
        backend=party("llm", "10.244.2.3", 8080),
        nat=None,
        hops=(),
        verdict=Verdict.DROPPED,
        drop=drop,
        findings=findings,
    )


def row(**changes: object) -> DropRow:
    base = DropRow(
        id=1,
        outcome=DropOutcome.DROPPED,
        check="policy-drop",
        severity=Severity.ERROR,
        packets=7,
        bytes=420,
        client=party("ui", "10.244.1.2"),
        server=party("llm", "10.244.2.3", 8080),
        service=None,
        protocol=Protocol.TCP,
        direction="request",
        node="node-2",
        pod=None,
        title="isolated",
        drop=DROP,
    )
    return msgspec.structs.replace(base, **changes)


def test_a_path_and_a_row_of_the_same_policy_have_one_key() -> None:
    (of_the_path,) = of_path(path(DROP))
    of_the_row = of_row(row())
    assert of_the_row is not None
    assert of_the_path.key == of_the_row.key == ("policies", "default/llm-ingress")
    assert of_the_path.pairs == of_the_row.pairs == {(UI, LLM)}


@pytest.mark.parametrize("text", ["-s 10.244.9.9/32", "-s fd00:10:244:9::9/128"])
def test_a_rule_is_the_same_rule_for_another_address(text: str) -> None:
    def key(rule: str) -> tuple[str, ...]:
        (one,) = of_path(path(msgspec.structs.replace(DROP, policies=(), rule=rule)))
        return one.key

    assert key(f"filter FORWARD rule 1: {text} -j DROP") == key("filter FORWARD rule 2: -s 10.244.1.2/32 -j DROP")
    assert key("filter FORWARD rule 1: -p tcp -j DROP") != key("filter FORWARD rule 1: -p udp -j DROP")


def test_a_row_that_lost_nothing_is_not_felt() -> None:
    assert of_row(row(severity=Severity.INFO)) is None


def test_a_pod_that_a_finding_and_a_row_name_is_one_place() -> None:
    finding = Finding("listen-overflow", "full", Severity.ERROR, (), object=ObjectRef("Pod", "llm-0", "default"))
    (one,) = of_path(path(None, finding))
    other = of_row(row(drop=None, check="listen-overflow", pod="default/llm-0"))
    assert other is not None and one.key == other.key


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
    long = felt("rule-drop", title="node-1 drops it by a rule: " + "load test, remove after " * 5)
    text = shown(conclusion(long), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.index("✗ 1. node-1 drops it") < text.index("? dns")
    assert "first seen 4 s" in " ".join(text.split())
    assert "next: kubectl genainet trace svc/llm --exact" in " ".join(text.replace("\\\n", "").split())


def test_markdown_escapes_what_would_be_markup(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = felt("rule-drop", title="<img src=x> [a](b) `c`\x1b[31m", remedy=Remedy("do", yaml="a: 1\n```\nb: 2"))
    MarkdownView().show(conclusion(hostile))
    text = capsys.readouterr().out
    assert r"\<img src=x\> \[a\](b) \`c\`" in text
    assert "\x1b" not in text
    assert text.count("```") == 2
