"""Many connections as a screen of blocks: what is one block, what comes first, and which connections are shown at all."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from kubectl_genainet.context.selector import parse_selector
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.diagnoses.rules import POLICY_NOT_ENFORCED
from kubectl_genainet.model.finding import Certainty, Evidence, ObjectRef
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.path import Drop, Flow, Hop, PacketPath, Party, ServiceRef, Verdict
from kubectl_genainet.model.results.trace import TraceSummary
from kubectl_genainet.model.target import is_connection_end
from kubectl_genainet.model.units import rfc3339
from kubectl_genainet.render.trace.blocks import blocks
from kubectl_genainet.render.trace.markdown import trace_markdown
from kubectl_genainet.trace.shown.filters import path_filter
from kubectl_genainet.trace.shown.groups import Grouping
from tests.unit.trace_world import pod

SVC = ServiceRef("ai", "vllm", 80, "http", "10.96.7.7")
WHY = "ai/{} is isolated for ingress by ai/vllm-in, and no rule admits TCP 8000 from ai/{}"


def path(client: int, backend: int, *, workload: str = "chat", dropped: bool = False, second: int = 0) -> PacketPath:
    caller, served = f"{workload}-{client}", f"vllm-{backend}"
    drop = Drop(
        "NETFILTER_DROP",
        "nft_do_chain",
        "FORWARD",
        "eth0",
        f"filter POD-{backend} rule 2: -j DROP",
        ("ai/vllm-in",),
        Certainty.DERIVED,
        node="node-2",
        explanation=WHY.format(served, caller),
        check="policy-drop",
        evidence=(
            Evidence("x", Certainty.OBSERVED),
            Evidence("pod labels is app=chta, wanted app=chat", Certainty.ASSUMED),
        ),
    )
    return PacketPath(
        flow=Flow(Party(f"10.244.1.{client}", 40000, "ai", caller, "node-1", workload), SVC, Protocol.TCP),
        backend=Party(f"10.244.2.{backend}", 8000, "ai", served, "node-2", "vllm"),
        nat=None,
        hops=tuple(Hop("node-1", None, f"veth{n}", "rx", n, "10.244.1.2:4", "10.96.7.7:80") for n in range(5)),
        verdict=Verdict.DROPPED if dropped else Verdict.FORWARDED,
        drop=drop if dropped else None,
        handshake_ns=None if dropped else 100_000 + client,
        time=rfc3339(1_700_000_000_000_000_000 + second * 10**9),
    )


def text_of(grouping: Grouping, width: int = 80) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, no_color=True)
    for one in blocks(grouping.groups, grouping.connections, width):
        console.print(one)
    return out.getvalue().splitlines()


def test_thirty_clients_and_eight_backends_are_two_blocks_with_the_failure_first() -> None:
    grouping = Grouping()
    for client in range(30):
        for backend in range(8):
            grouping.add(path(client, backend))
            if client == 7:
                grouping.add(path(99, backend, workload="chat-canary", dropped=True, second=client))
    lines = text_of(grouping)
    assert [g.count for g in grouping.groups] == [8, 240]
    assert lines[0].startswith("✗ DROPPED  8 of 248 connections  22:13:27Z")
    assert any("pod labels is app=chta, wanted app=chat" in line for line in lines[:24])
    assert "✓ FORWARDED  240  22:13:20Z  ai/chat (30 pods) → svc/vllm:80 → ai/vllm (8 pods)" in lines
    assert len(lines) <= 30 and all(len(line) <= 80 and line == line.rstrip() for line in lines)


def test_a_finding_of_several_pods_names_the_others_and_how_many_more_there_are() -> None:
    grouping = Grouping()
    for backend in range(7):
        found = POLICY_NOT_ENFORCED.finding(
            f"pod ai/vllm-{backend} accepts connections that ai/vllm-in does not admit",
            (Evidence("the handshake was seen to end", Certainty.OBSERVED),),
            object=ObjectRef("Pod", f"vllm-{backend}", "ai"),
        )
        grouping.add(msgspec.structs.replace(path(1, backend), findings=(found,)))
    (group,) = grouping.groups
    assert group.elsewhere(group.example.findings[0]) == tuple(f"ai/vllm-{n}" for n in range(1, 7))
    told = " ".join(" ".join(text_of(grouping)).split())
    assert "pod ai/vllm-0 accepts connections" in told
    assert "the same in ai/vllm-1, ai/vllm-2, ai/vllm-3, ai/vllm-4 and 2 more" in told


def test_thirty_client_workloads_with_one_fate_are_one_block() -> None:
    grouping = Grouping()
    for client in range(30):
        grouping.add(path(client, 1, workload=f"team-{client:02}", dropped=True))
    lines = text_of(grouping)
    assert len(grouping.groups) == 1 and lines[0].startswith("✗ DROPPED  30 connections")
    assert "ai/team-00, ai/team-01, ai/team-02, ai/team-03 and 26 more" in " ".join(lines)


def test_narrow_terminals_show_the_cause_and_no_hops() -> None:
    grouping = Grouping()
    grouping.add(path(1, 1, dropped=True))
    lines = text_of(grouping, 40)
    assert all(len(line) <= 40 for line in lines)
    assert "isolated for ingress" in " ".join(" ".join(lines).split()) and not any("veth" in line for line in lines)


def test_markdown_has_a_section_a_group_and_escapes_names() -> None:
    grouping = Grouping()
    grouping.add(path(1, 1, workload="chat_*bold*", dropped=True))
    grouping.add(path(2, 1))
    account: dict[str, int | None] = {"emitted": 4, "received": 4, "lost": 0}
    summary = TraceSummary("svc/vllm", 2, {"dropped": 1, "forwarded": 1}, (), (), account, {}, ("node-1",), (), ())
    lines = list(trace_markdown(grouping.groups, grouping.connections, summary))
    assert lines[0] == "# svc/vllm: 1 of 2 connections failed"
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == [
        "## DROPPED: ai/chat\\_\\*bold\\* → svc/vllm:80 → ai/vllm",
        "## FORWARDED: ai/chat → svc/vllm:80 → ai/vllm",
    ]
    assert lines.count("```text") == lines.count("```") == 2 and any("wanted app=chat" in line for line in lines)


SNAPSHOT = ClusterSnapshot((pod("chat-1", "node-1", "10.244.1.1"), pod("vllm-2", "node-2", "10.244.2.2")))


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"verdicts": ("dropped,rejected",)}, False),
        ({"verdicts": ("Forwarded",)}, True),
        ({"clients": ("deploy/chat",)}, True),
        ({"clients": ("deploy/other",)}, False),
        ({"clients": ("pod/other", "pod/chat-1")}, True),
        ({"clients": ("ns/ai",)}, True),
        ({"clients": ("node/node-2",)}, False),
        ({"servers": ("svc/vllm",)}, True),
        ({"servers": ("svc/vllm",), "namespace": "prod"}, False),
        ({"servers": ("10.244.2.0/24",)}, True),
        ({"servers": ("10.244.1.0/24",)}, False),
        ({"servers": ("svc/vllm",), "clients": ("10.244.9.9",)}, False),
    ],
)
def test_a_filter_admits_what_was_asked_for(asked: dict[str, tuple[str, ...]], shown: bool) -> None:
    assert path_filter(**asked).admits(path(1, 2), SNAPSHOT) is shown  # type: ignore[arg-type]


def test_labels_are_those_of_the_pods_at_either_end() -> None:
    named = ClusterSnapshot(
        tuple(type(o)({**o.raw, "metadata": {**o.raw["metadata"], "namespace": "ai"}}) for o in SNAPSHOT.objects)
    )
    assert path_filter(labels="app=vllm-2").admits(path(1, 2), named)
    assert path_filter(labels="app in (chat-1, x)").admits(path(1, 2), named)
    assert not path_filter(labels="app=rag").admits(path(1, 2), named)
    assert not path_filter(clients=("app=vllm-2",)).admits(path(1, 2), named)


@pytest.mark.parametrize(
    ("selector", "labels", "held"),
    [
        ("a=b,c!=d", {"a": "b"}, True),
        ("a=b,c!=d", {"a": "b", "c": "d"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("x.io/a notin (b,c), a==b", {"x.io/a": "d", "a": "b"}, True),
    ],
)
def test_selectors_are_read_as_kubectl_reads_them(selector: str, labels: dict[str, str], held: bool) -> None:
    assert parse_selector(selector).matches(labels) is held


def test_what_is_no_filter_is_named() -> None:
    for wrong in ({"verdicts": ("lost",)}, {"clients": ("chat",)}, {"labels": "a=(b"}):
        with pytest.raises(InputError) as error:
            path_filter(**wrong)
        assert error.value.hint
    assert is_connection_end("10.0.0.0/8") and is_connection_end("app=rag") and is_connection_end("ns/prod")
    assert not is_connection_end("incident.gnb") and not is_connection_end("recordings/prod")
