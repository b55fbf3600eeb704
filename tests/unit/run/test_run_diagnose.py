"""One session with the probes of all commands: each command reads its own records of it, live and from its bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kubectl_genainet import api
from kubectl_genainet.agent.serve.limits import checked_changes, checked_request
from kubectl_genainet.bundle import Bundle, BundleWriter, new_header, read_bundle
from kubectl_genainet.errors import InputError
from kubectl_genainet.history.select import part_of
from kubectl_genainet.model.events import AgentFailed, ClusterChanged, DropSampled, Event, Hello, PacketDropped, Tick
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.history import Gap
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.results.diagnosis import Cause
from kubectl_genainet.model.units import rfc3339
from kubectl_genainet.run.diagnose.conclude import notes
from kubectl_genainet.run.diagnose.watching import Collected
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.wire import FilterEntry, TraceRequest

BUNDLES = Path(__file__).parents[2] / "golden" / "bundles"
RECORDED = BUNDLES / "policy-service-port.gnb"
LLAMA = "svc/my-llama-svc"
CALLED_NOBODY = "did not connect to it; it asked DNS for nothing either"
NOT_ALL_WATCHED = "none of its connections was seen, and not all was watched"


def write(path: Path, bundle: Bundle, command: str) -> Path:
    with BundleWriter(path, new_header(command, {"target": LLAMA}, ""), bundle.snapshot) as writer:
        for event in bundle.events:
            writer.write(event)
    return path


def with_samples(bundle: Bundle) -> Bundle:
    """As a session with all probes has it: the drops probe reports what the packet probe reports too."""
    events: list[Event] = []
    for event in bundle.events:
        events.append(event)
        if type(event) is PacketDropped:
            events.append(DropSampled(**{f: getattr(event, f) for f in PacketDropped.__struct_fields__}))
    return Bundle(bundle.header, bundle.snapshot, tuple(events))


def test_a_trace_of_a_diagnosis_bundle_is_not_told_what_other_probes_saw(tmp_path: Path) -> None:
    bundle = read_bundle(RECORDED)
    whole = write(tmp_path / "whole.gnb", with_samples(bundle), "diagnose")
    replayed = [api.trace(BundleSource(path), LLAMA).paths for path in (whole, RECORDED)]
    seen = [[(p.flow, p.hops, p.verdict, p.attempts, p.recovered_drops) for p in paths] for paths in replayed]
    assert len(tuple(read_bundle(whole).events)) > len(tuple(bundle.events))
    assert seen[0] == seen[1] != []


def test_a_diagnosis_replays_a_trace_and_says_what_it_could_not_check() -> None:
    result = api.diagnose(BundleSource(RECORDED), LLAMA)
    assert result.conclusion.causes[0].check == "policy-drop"
    states = {item.what: (item.state.value, item.why) for item in result.conclusion.checked}
    assert states["dns"][0] == "not-checked" and "recorded by `trace`" in states["dns"][1]
    assert result.conclusion.timeline is not None and result.conclusion.began
    counts = {series.name: sum(series.counts.values()) for series in result.conclusion.timeline.series}
    assert counts["failed connections"] == result.conclusion.failed > 0


def looked_at(bundle: Path) -> dict[str, tuple[str, str]]:
    conclusion = api.diagnose(BundleSource(bundle), LLAMA).conclusion
    return {item.what: (item.state.value, item.why) for item in conclusion.checked}


def test_what_no_connection_came_as_far_as_is_not_called_fine() -> None:
    """Of connections that a policy dropped no packet was larger than an MTU: nothing large was ever sent."""
    denied, refused, healthy = (
        looked_at(BUNDLES / f"{name}.gnb")
        for name in ("conntrack-full-and-policy-drop", "no-endpoints", "policy-bypassed-and-slow-backend")
    )
    assert denied["mtu"] == denied["answers"] == ("not-checked", "no connection was established")
    assert refused["mtu"][0] == refused["answers"][0] == "not-checked"
    assert healthy["mtu"][0] == "fine"
    assert healthy["answers"] == ("faulty", next(c.title for c in slow_causes()))


def slow_causes() -> list[Cause]:
    conclusion = api.diagnose(BundleSource(BUNDLES / "policy-bypassed-and-slow-backend.gnb"), LLAMA).conclusion
    return [cause for cause in conclusion.causes if cause.check == "slow-backend"]


def test_a_service_that_nobody_could_try_and_that_has_no_ready_endpoint_is_a_cause(tmp_path: Path) -> None:
    """It stood among what was looked at only: the headline counted the causes without it."""
    bundle = read_bundle(BUNDLES / "no-endpoints.gnb")
    silent = tuple(event for event in bundle.events if part_of(event) is None)
    path = write(tmp_path / "silent.gnb", Bundle(bundle.header, bundle.snapshot, silent), "diagnose")
    conclusion = api.diagnose(BundleSource(path), LLAMA).conclusion
    assert [(c.check, c.severity, c.title) for c in conclusion.causes] == [
        ("no-endpoints", Severity.ERROR, "Service default/my-llama-svc has no ready endpoint")
    ]
    assert conclusion.connections == 0


def test_nodes_whose_recording_has_gaps_or_whose_agent_failed_are_not_called_fine(tmp_path: Path) -> None:
    bundle = read_bundle(RECORDED)
    gap = Gap(node="node-2", since_ns=1, until_ns=2_000_000_000, why="the recorder did not run")
    nodes = {}
    failed = AgentFailed(node="node-9", message="connection refused")
    broken = {"whole": bundle.events, "holes": (gap, *bundle.events), "failed": (failed, *bundle.events)}
    for name, events in broken.items():
        path = write(tmp_path / f"{name}.gnb", Bundle(bundle.header, bundle.snapshot, events), "diagnose")
        conclusion = api.diagnose(BundleSource(path), LLAMA).conclusion
        nodes[name] = next((item.state.value, item.why) for item in conclusion.checked if item.what == "nodes")
    assert nodes["whole"] == ("fine", "3 agents reported, no event lost")
    state, why = nodes["holes"]
    assert state == "not-checked" and "node-2 has gaps" in why
    assert nodes["failed"] == ("not-checked", "the agents of node-9 failed: what was not seen may have been wrong")


def test_filters_of_one_probe_are_checked_like_those_of_all() -> None:
    changed = checked_changes({"dns": (FilterEntry("10.0.0.1", 53, "udp"),)})
    assert changed == {"dns": (FilterEntry("10.0.0.1", 53, "UDP"),)}
    with pytest.raises(InputError, match="unknown probes"):
        checked_changes({"mail": ()})
    with pytest.raises(InputError, match="not an IP address"):
        checked_request(TraceRequest(filters=(), own_filters={"dns": (FilterEntry("nowhere"),)}))


def test_rules_that_lag_are_the_cause_though_no_connection_was_seen_to_go_their_way(tmp_path: Path) -> None:
    bundle = read_bundle(BUNDLES / "stale-endpoint.gnb")
    events = tuple(event for event in bundle.events if part_of(event) is None)
    still = write(tmp_path / "still.gnb", Bundle(bundle.header, bundle.snapshot, events), "diagnose")
    (cause,) = api.diagnose(BundleSource(still), LLAMA).conclusion.causes
    assert cause.check == "stale-endpoint-rules" and "still sends to 10.244.3.3:8080" in cause.title
    (seen, *_) = api.diagnose(BundleSource(BUNDLES / "stale-endpoint.gnb"), LLAMA).conclusion.causes
    assert seen.check == "stale-endpoint" and seen.remedy is not None


def test_rules_that_were_not_read_since_the_endpoints_changed_are_not_said_to_lag(tmp_path: Path) -> None:
    bundle = read_bundle(RECORDED)
    fewer = tuple(
        KubeObject({**o.raw, "endpoints": o.raw["endpoints"][:1]}) if o.kind == "EndpointSlice" else o
        for o in bundle.snapshot.objects
    )
    last = max((e for e in bundle.events if isinstance(e, Tick)), key=lambda e: e.t_ns)
    hello = next(e for e in bundle.events if isinstance(e, Hello) and e.node == last.node)
    at = rfc3339(hello.realtime_ns + last.t_ns - hello.t_ns - 3_000_000_000)
    change = ClusterChanged.of(dataclasses.replace(bundle.snapshot, objects=fewer, taken_at=at))
    state = tuple(event for event in bundle.events if part_of(event) is None)
    dumps = tuple(event for event in state if isinstance(event, RulesetDump))
    conclusions = []
    afterwards: tuple[tuple[str, tuple[Event, ...]], ...] = (("unread", (change,)), ("read", (change, *dumps)))
    for name, then in afterwards:
        path = write(tmp_path / f"{name}.gnb", Bundle(bundle.header, bundle.snapshot, (*state, *then)), "diagnose")
        conclusions.append(api.diagnose(BundleSource(path), LLAMA).conclusion)
    unread, read = conclusions
    rules = next(item for item in unread.checked if item.what == "rules")
    assert unread.causes == () and rules.state.value == "not-checked" and "may be older" in rules.why
    assert [cause.check for cause in read.causes] == ["stale-endpoint-rules"]


@pytest.mark.parametrize(
    ("collected", "said"),
    [
        (Collected(), CALLED_NOBODY),
        (Collected(gaps=[Gap(node="", since_ns=1, until_ns=2, why="x")]), CALLED_NOBODY),
        (Collected(gaps=[Gap(node="n", since_ns=1, until_ns=2, why="x")]), NOT_ALL_WATCHED),
        (Collected(failed_nodes={"n"}), NOT_ALL_WATCHED),
    ],
)
def test_a_client_is_said_to_have_called_nobody_only_where_all_was_watched(collected: Collected, said: str) -> None:
    assert list(notes({"default/ui": 0, "default/rag": 3}, [], collected, 0))[-1].endswith(said)
