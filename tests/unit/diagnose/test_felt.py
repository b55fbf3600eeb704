"""What was felt: a path, a row of drops or a finding, and the key that tells one cause from another."""

from __future__ import annotations

import msgspec
import pytest

from kubectl_genainet.diagnose.felt import of_path, of_row
from kubectl_genainet.model.finding import Certainty, Finding, ObjectRef, Severity
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.drops import DropOutcome, DropRow
from kubectl_genainet.model.results.path import Drop, Flow, PacketPath, Party, ServiceRef, Verdict

UI, LLM = "default/ui", "default/llm"
SERVICE = ServiceRef("default", "llm-svc", 80, "http", "10.96.0.9")


def party(name: str, ip: str, port: int | None = None) -> Party:
    return Party(ip, port, "default", f"{name}-abc", "node-1", name)


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
    flow = Flow(party("ui", "10.244.1.2"), SERVICE, Protocol.TCP)
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


def test_a_reset_in_the_clients_own_pod_is_the_clients() -> None:
    client = Party("10.244.1.2", None, "default", "ui-abc", "node-1", "ui")
    fields = {"check": "reset-by-app", "drop": None, "client": client}
    by_client, by_server = of_row(row(pod="default/ui-abc", **fields)), of_row(row(pod="default/llm-abc", **fields))
    assert by_client is not None and by_server is not None
    assert (by_client.check, by_server.check) == ("reset-by-client", "reset-by-app")
    either = of_row(row(pod="default/ui-abc", direction="unknown", **fields))
    assert either is not None and either.check == "reset-by-app"  # its row's client is only who sent
