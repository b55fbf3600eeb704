"""Rules that were read in the middle of a change are read again before they are said to differ from the API."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from kubectl_genainet import api, wire
from kubectl_genainet.doctor import nodes_rules
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import Bye, Progress
from kubectl_genainet.model.finding import Finding, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.proxy import dumps_of
from kubectl_genainet.run.agents import Agents, Warn
from kubectl_genainet.run.collect import DiagnoseCollector, DoctorCollector
from kubectl_genainet.run.diagnose.diagnose import DiagnoseOptions, diagnose
from kubectl_genainet.run.doctor.doctor import DoctorOptions, doctor
from kubectl_genainet.run.rules import RulesOptions, RulesRun, programmed, rules
from kubectl_genainet.run.sources.base import Follower, Source
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.run.watch import AGAIN_S, RulesTold, seen_twice
from tests.unit.agentfleet import Fleet, hello, send


def service(name: str, address: str, endpoint: str) -> tuple[KubeObject, KubeObject]:
    """A Service with one port and one ready endpoint."""
    metadata = {"name": name, "namespace": "default"}
    port = {"port": 80, "protocol": "TCP", "targetPort": 8080}
    labels = {"kubernetes.io/service-name": name}
    return (
        KubeObject(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [port]},
            }
        ),
        KubeObject(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**metadata, "name": f"{name}-x", "labels": labels},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [endpoint], "conditions": {"ready": True}}],
                "ports": [{"port": 8080, "protocol": "TCP"}],
            }
        ),
    )


def rules_for(name: str, address: str, endpoint: str) -> str:
    svc, sep = f"KUBE-SVC-{name.upper():A<16}", f"KUBE-SEP-{name.upper():A<16}"
    return (
        f':{svc} - [0:0]\n:{sep} - [0:0]\n-A KUBE-SERVICES -d {address}/32 -p tcp -m comment --comment "default/{name} cluster '
        f'IP" -m tcp --dport 80 -j {svc}\n-A {svc} -m comment --comment "default/{name} -> {endpoint}:8080" -j {sep}\n'
        f'-A {sep} -p tcp -m comment --comment "default/{name}" -m tcp -j DNAT --to-destination {endpoint}:8080\n'
    )


def dump(*services: str) -> str:
    return (
        "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n"
        f"-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n{''.join(services)}COMMIT\n"
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
    )


LLM, DB = ("llm", "10.96.0.9", "10.244.1.2"), ("db", "10.96.0.10", "10.244.1.3")
# llm's first endpoint came: the table filter, written first, refuses no more, and nat does not translate yet.
TORN = dump(rules_for(*DB))
WHOLE = dump(rules_for(*DB), rules_for(*LLM))
TO_ANOTHER = dump(rules_for(*DB), rules_for("llm", "10.96.0.9", "10.244.1.7"))


class Changing(Source):
    """A live source whose node's rules are, read by read, those of `texts`; the last stays."""

    live = True

    def __init__(self, *texts: str) -> None:
        super().__init__(namespace="default")
        self.texts = list(texts)
        self.reads = self.objects_read = 0

    def _read(self) -> ClusterSnapshot:
        self.objects_read += 1
        return ClusterSnapshot((*service(*LLM), *service(*DB)))

    def node_reports(self, warn: Warn) -> Mapping[str, NodeReport]:
        return {}

    def rulesets(self, warn: Warn, *, conntrack: bool = False) -> Mapping[str, Sequence[RulesetDump]]:
        text = self.texts[min(self.reads, len(self.texts) - 1)]
        self.reads += 1
        return {"n1": [msgspec.structs.replace(dump, node="n1") for dump in dumps_of(text)]}

    def __str__(self) -> str:
        return "a cluster that changes"


Found = Callable[[Source], list[str]]


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("kubectl_genainet.run.watch.sleep", waited.append)
    return waited


def found_by_rules(source: Source) -> list[str]:
    result = rules(source, parse_target("svc/llm"), RulesOptions(), lambda _: None)
    return [finding.title for finding in result.report.findings]


def found_by_doctor(source: Source) -> list[str]:
    options = DoctorOptions(only=("kube-proxy-drift",), measure_s=0)
    return [finding.title for finding in doctor(source, options, DoctorCollector()).report.findings]


@pytest.mark.parametrize("found", [found_by_rules, found_by_doctor])
def test_a_read_between_two_tables_is_no_drift(found: Found, waits: list[float]) -> None:
    source = Changing(TORN, WHOLE)
    assert found(source) == []
    assert (source.reads, source.objects_read, len(waits)) == (2, 2, 1)


@pytest.mark.parametrize("found", [found_by_rules, found_by_doctor])
def test_what_two_reads_say_is_said(found: Found, waits: list[float]) -> None:
    source = Changing(TORN)
    assert found(source) == ["node n1 has no rules for 10.96.0.9:80 (TCP) of Service default/llm"]
    assert (source.reads, len(waits)) == (2, 1)


@pytest.mark.parametrize("found", [found_by_rules, found_by_doctor])
def test_rules_that_are_in_step_are_read_once(found: Found, waits: list[float]) -> None:
    source = Changing(WHOLE)
    assert found(source) == []
    assert (source.reads, waits) == (1, [])


def test_another_difference_is_read_once_more() -> None:
    source = Changing(TORN, TO_ANOTHER, WHOLE)
    assert found_by_rules(source) == []
    assert source.reads == 3


def test_what_is_watched_is_another_answer_when_something_changes_and_not_as_time_goes_by() -> None:
    torn, whole = (
        rules(Changing(text), parse_target("svc/llm"), RulesOptions(), lambda _: None) for text in (TORN, WHOLE)
    )
    older = [msgspec.structs.replace(f, title=f"{f.title}; the last change is 9 s old") for f in torn.report.findings]
    later = RulesRun(dataclasses.replace(torn.report, findings=tuple(older)), torn.dumps)
    assert programmed(later) == programmed(torn) != programmed(whole)


def noted(name: str, real: Callable[..., object], done: list[str]) -> Callable[..., object]:
    def call(*given: object) -> object:
        done.append(name)
        return real(*given)

    return call


def test_doctor_parses_and_compares_each_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("parse_ruleset", "compare"):
        monkeypatch.setattr(nodes_rules, name, noted(name, getattr(nodes_rules, name), done))
    for texts in ((WHOLE,), (TORN, WHOLE)):
        done.clear()
        doctor(Changing(*texts), DoctorOptions(measure_s=0), DoctorCollector())
        assert done == ["parse_ruleset", "compare"] * len(texts)


class Unchanged:
    def newer(self) -> None:
        return None

    def close(self) -> None:
        """Nothing is open."""


class Watched(Changing):
    """Its agents end a trace at once, after their node's rules, and answer what the rules are."""

    def agents(self) -> Agents:
        return Agents({"n1": Fleet().dial("n1", self._talk)})

    def _talk(self, sock: socket.socket, node: str) -> None:
        request = sock.recv(65536)
        while request.startswith(b"POST") and not request.endswith(b"}"):
            request += sock.recv(65536)
        dumps = self.rulesets(lambda _: None)[node]
        if request.startswith(b"POST"):
            ended = Bye(node=node, emitted=0, sent=0, lost=0, reason="timeout")
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nGenainet-Session: s\r\n\r\n")
            send(sock, hello(node), Progress(node=node, t_ns=0, stage="attached"), *dumps, ended)
            sock.sendall(b"0\r\n\r\n")
        else:
            body = b"".join(map(wire.encode, dumps))
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def follow(self, snapshot: ClusterSnapshot, warn: Warn) -> Follower:
        return Unchanged()


def diagnosed(source: Source, record: Path) -> list[tuple[str, str]]:
    view = DiagnoseCollector()
    diagnose(source, parse_target("svc/llm"), DiagnoseOptions(watch_s=1, record=str(record)), view.for_target)
    rules = next(item.state.value for item in view.conclusion.checked if item.what == "rules")
    return [(cause.check, rules) for cause in view.conclusion.causes] or [("", rules)]


@pytest.mark.parametrize(
    ("texts", "cause", "rules", "reads"),
    [
        ((WHOLE,), "", "fine", 1),
        ((TORN, WHOLE), "", "fine", 2),
        ((TORN,), "service-without-rules", "faulty", 2),
        ((TORN, TO_ANOTHER, WHOLE), "", "fine", 3),
    ],
)
def test_a_diagnosis_reads_rules_that_differ_again(
    texts: tuple[str, ...], cause: str, rules: str, reads: int, tmp_path: Path
) -> None:
    source = Watched(*texts)
    assert diagnosed(source, tmp_path / "a.gnb") == [(cause, rules)]
    assert source.reads == reads
    replayed = api.diagnose(BundleSource(tmp_path / "a.gnb"), "svc/llm").conclusion
    assert [c.check for c in replayed.causes] == ([cause] if cause else [])


def test_rules_that_were_read_some_time_ago_are_read_again_at_once(waits: list[float]) -> None:
    finding = Finding("x", "rules differ", Severity.ERROR, ())
    assert seen_twice([finding], list[Finding], lambda found: found, read_at=monotonic() - AGAIN_S) == []
    assert waits == [0.0]


def test_a_source_that_has_no_rules_any_more_is_told_without_text() -> None:
    told = RulesTold()
    for source in ("iptables-nft", "ip6tables-legacy"):
        told.learn(RulesetDump(node="n1", t_ns=1, source=source, text=TORN))
    now = told.completed({"n1": [RulesetDump(node="n1", t_ns=7, source="iptables-nft", text=WHOLE)]})
    assert [(d.source, d.text, d.t_ns) for d in now] == [("iptables-nft", WHOLE, 7), ("ip6tables-legacy", "", 7)]
