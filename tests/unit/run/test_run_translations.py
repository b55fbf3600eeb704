"""Rules that send a Service's packets to what is no endpoint any more: agents are asked to follow them there too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.model.events import ClusterChanged, Event, PacketDropped, PacketSeen
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.model.results.path import PacketPath, Verdict
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.run import collect
from kubectl_genainet.run.diagnose.diagnose import DiagnoseOptions, DiagnoseRun
from kubectl_genainet.run.drops import DropsOptions, drops_run
from kubectl_genainet.run.session import Run
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.run.trace import TraceOptions, trace_run
from kubectl_genainet.wire import FilterEntry, Filters

BUNDLE = Path(__file__).parents[2] / "golden" / "bundles" / "stale-endpoint.gnb"
GONE = FilterEntry("10.244.3.3", 8080, "TCP")  # the pod that is gone: node-1 still sends to it, and node-3 drops that
LLAMA = "svc/my-llama-svc"


def traced(target: str, view: collect.TraceCollector | None = None) -> Run:
    views = view or collect.TraceCollector()
    return trace_run(BundleSource(BUNDLE), parse_target(target), TraceOptions(), lambda _, live: views)[0]


def drops_of(target: str) -> Run:
    views = collect.DropsCollector()
    return drops_run(BundleSource(BUNDLE), parse_target(target), DropsOptions(), lambda _, live: views)[0]


def diagnosed(target: str) -> Run:
    views = collect.DiagnoseCollector()
    return DiagnoseRun(BundleSource(BUNDLE), parse_target(target), DiagnoseOptions(), lambda _, live: views)


def entries(filters: Filters) -> set[FilterEntry]:
    return set(filters["packet"] if isinstance(filters, dict) else filters)


@pytest.mark.parametrize("begin", [traced, drops_of, diagnosed])
def test_what_old_rules_send_a_service_to_is_followed_whatever_becomes_of_the_objects(
    begin: Callable[[str], Run],
) -> None:
    run, bundle = begin(LLAMA), read_bundle(BUNDLE)
    own = entries(run.filters)
    for event in bundle.events:
        if isinstance(event, RulesetDump):
            run.take(event)
    assert GONE not in own and entries(run.filters) == own | {GONE}
    run.take(ClusterChanged.of(bundle.snapshot))
    assert entries(run.filters) == own | {GONE}


def test_of_the_services_in_front_of_a_pod_nothing_more_is_followed() -> None:
    pod = next(p for p in read_bundle(BUNDLE).snapshot.pods if p.metadata.name.startswith("my-llama-finetuned"))
    run = traced(f"pod/{pod.metadata.name}")
    own = entries(run.filters)
    for event in read_bundle(BUNDLE).events:
        if isinstance(event, RulesetDump):
            run.take(event)
    assert entries(run.filters) == own


def as_nodes_with_kernels_of_their_own(run: Run) -> Iterator[Event]:
    """The recorded events, of the packets those alone that an agent with the run's filters sees: a packet that comes from
    another node has nothing but its addresses there."""
    for event in read_bundle(BUNDLE).events:
        if isinstance(event, PacketSeen | PacketDropped):
            flow, followed = event.flow, {(entry.ip, entry.port) for entry in entries(run.filters)}
            if not {(flow.dst, flow.dport), (flow.src, flow.sport)} & followed:
                continue
        yield event


def test_packets_of_old_rules_are_dropped_where_another_nodes_kernel_drops_them() -> None:
    view = collect.TraceCollector()
    run = traced(LLAMA, view)
    for event in as_nodes_with_kernels_of_their_own(run):
        run.take(event)
    run.finish(live=False)

    def place(path: PacketPath) -> tuple[str | None, str]:
        return (path.drop.node, path.drop.location.partition("+")[0]) if path.drop is not None else ("", "")

    assert {place(path) for path in view.paths if path.verdict is Verdict.DROPPED} == {("node-3", "ip_error")}
