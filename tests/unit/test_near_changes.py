"""What happens near a change of the policies is judged by those of before and those of after: a change is seen late, and
enforcers follow it late."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from kubectl_genainet.context.context import Context
from kubectl_genainet.context.in_force import InForce
from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.drops.rows import Rows
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged, EstablishedCount, Event, Tick
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.drops import Agreement, DropRow
from kubectl_genainet.model.results.path import ConnectionOutcome, Flow, Hop, PacketPath, Party, Verdict
from kubectl_genainet.trace.bypass import Bypass
from tests.unit.drops.droprows import LLAMA, LLAMA_NS, UI, dropped, objects, report, rules, sample, snapshot, tcp

ENFORCER = rules(":cali-tw-llama - [0:0]", "-A FORWARD -p tcp -j cali-tw-llama", "-A cali-tw-llama -j DROP")


def ns(seconds: float) -> int:
    return int(seconds * 1e9)


def tick(seconds: float) -> Tick:
    return Tick(node="node-1", t_ns=ns(seconds))


def policies(*, admit: bool) -> ClusterChanged:
    return ClusterChanged(objects=objects(admits=admit))


def accepted(seconds: float) -> EstablishedCount:
    return EstablishedCount(node="node-1", t_ns=ns(seconds), netns=LLAMA_NS, flow=tcp(UI, 0, LLAMA, 8080), packets=1)


def lost(seconds: float) -> list[Event]:
    events = (sample(), dropped(packets=1))
    return [msgspec.structs.replace(event, t_ns=ns(seconds)) for event in events]


def rows_of(*events: Event, admit: bool) -> list[DropRow]:
    correlator = DropCorrelator(snapshot(admits=admit))
    built = Rows(correlator)
    for event in (report(), ENFORCER, tick(0.5), *events):
        if isinstance(event, ClusterChanged):
            built.settle()
        correlator.feed(event)
    built.is_final = True
    return built.build()


def checks(*events: Event, admit: bool) -> list[tuple[str, int]]:
    return [(row.check, row.packets) for row in rows_of(*events, admit=admit)]


def test_a_connection_is_held_against_policies_that_have_settled_and_did_not_change_unseen() -> None:
    assert checks(accepted(3), accepted(8), tick(12), admit=False) == [("policy-not-enforced", 1)]
    assert checks(accepted(8), tick(10), admit=False) == []  # a change may not have been seen yet
    assert checks(accepted(8), tick(12), admit=True) == []


def test_a_connection_that_came_before_the_change_that_admits_it_was_seen_is_none_against_the_policies() -> None:
    """An incident that healed was followed by a second cause: five connections, against policies that were gone."""
    healed = (tick(20), policies(admit=True), tick(21), tick(30))
    assert checks(accepted(19), accepted(19.5), *healed, admit=False) == []
    assert checks(accepted(10), accepted(19), *healed, admit=False) == [("policy-not-enforced", 1)]


def test_a_connection_that_policies_of_before_and_of_after_do_not_admit_is_held_against_both() -> None:
    other = objects(admits=False)
    other[-1]["metadata"]["labels"] = {"edited": "yes"}
    (row,) = rows_of(accepted(19), tick(20), ClusterChanged(objects=other), tick(30), admit=False)
    assert (row.check, row.packets) == ("policy-not-enforced", 1)
    assert row.policy is not None and row.policy.agreement is Agreement.API_ISOLATES


def test_a_row_of_connections_names_the_policies_that_did_not_admit_them_also_after_these_have_gone() -> None:
    correlator = DropCorrelator(snapshot(admits=False))
    for event in (report(), tick(0.5), accepted(8), tick(20), policies(admit=True), tick(30)):
        correlator.feed(event)
    (row,) = Rows(correlator).build()
    assert row.title == "pod default/my-llama accepts connections that default/llama-in does not admit"


def test_drops_that_end_with_the_policy_are_the_policys() -> None:
    """The enforcer is quicker, or slower, than the change of the objects is seen."""
    (row,) = rows_of(*lost(4), *lost(19), tick(20), policies(admit=True), *lost(22), tick(40), admit=False)
    assert (row.check, row.packets) == ("policy-drop", 3)
    assert row.policy is not None and row.policy.agreement is Agreement.AGREE


def test_drops_that_begin_before_the_policy_is_seen_are_the_policys() -> None:
    assert checks(*lost(19), tick(20), policies(admit=False), tick(40), admit=True) == [("policy-drop", 1)]
    assert checks(tick(20), policies(admit=True), *lost(23), tick(40), admit=False) == [("policy-drop", 1)]


def test_drops_that_go_on_long_after_the_policy_went_disagree_with_the_objects() -> None:
    (row,) = rows_of(*lost(4), tick(20), policies(admit=True), *lost(30), tick(40), admit=False)
    assert row.check == "policy-disagreement"
    assert row.policy is not None and row.policy.agreement is Agreement.API_ADMITS


def path_at(seconds: float) -> PacketPath:
    ui = Party(UI, 40000, "default", "chatbot-ui", "node-1")
    llama = Party(LLAMA, 8080, "default", "my-llama", "node-1")
    hop = Hop("node-1", "chatbot-ui", "eth0", "tx", 0, UI, LLAMA)
    return PacketPath(
        t_ns=ns(seconds),
        time="",
        flow=Flow(ui, None, Protocol.TCP),
        backend=llama,
        nat=None,
        hops=(hop,),
        verdict=Verdict.FORWARDED,
        outcome=ConnectionOutcome.ANSWERED,
        handshake_ns=1000,
    )


def told(events: Iterable[Event | PacketPath], *, admit: bool) -> list[list[str]]:
    """The findings of each path, in the order in which they are told."""
    context = Context(snapshot(admits=admit))
    bypass = Bypass(context)
    paths: list[PacketPath] = []
    for event in events:
        if isinstance(event, PacketPath):
            paths += bypass.hold(event)
            continue
        if isinstance(event, ClusterChanged):
            context.learn(event)
        paths += bypass.feed(event)
    paths += bypass.finish()
    return [[finding.check for finding in path.findings] for path in paths]


@pytest.mark.parametrize(
    ("events", "admit", "found"),
    [
        ((path_at(10), tick(12), tick(14)), False, ["policy-not-enforced"]),
        ((path_at(10), tick(14)), True, []),
        ((path_at(4), tick(14)), False, []),
        ((path_at(10), tick(11), policies(admit=True), tick(14)), False, []),
        ((path_at(10), tick(14), policies(admit=True)), False, ["policy-not-enforced"]),
        ((path_at(10), tick(12)), False, []),
    ],
)
def test_a_path_is_held_against_policies_once_it_is_known_that_these_had_not_changed(
    events: tuple[Any, ...], admit: bool, found: list[str]
) -> None:
    assert told((tick(1), *events), admit=admit) == [found]


def test_what_may_have_been_in_force_is_what_was_before_and_after_a_change() -> None:
    first, second = snapshot(admits=False), snapshot(admits=True)
    before, after = Context(first).engine, Context(second).engine
    in_force = InForce(first, before)
    in_force.change(second, after, {"node-1": ns(20)})

    def at(node: str, seconds: float) -> tuple[object, ...]:
        return in_force.engines(node, ns(seconds), ns(seconds))

    assert [at("node-1", seconds) for seconds in (16, 18, 24, 26)] == [
        (before,),
        (after, before),
        (after, before),
        (after,),
    ]
    assert at("node-2", 10) == (after,)  # it had reported nothing
    in_force.changed_at({"node-1": ns(21), "node-2": ns(20)})
    assert at("node-2", 10) == (before,)


def test_changes_that_policies_do_not_select_by_replace_none() -> None:
    first = snapshot(admits=False)
    grown = ClusterSnapshot((*first.objects, KubeObject({"kind": "ConfigMap", "metadata": {"name": "x"}})))
    labelled = [*objects(admits=False)]
    labelled[1]["metadata"]["labels"]["team"] = "x"
    engines = [Context(first).engine for _ in range(3)]
    in_force = InForce(first, engines[0])
    in_force.change(grown, engines[1], {"node-1": ns(20)})
    assert in_force.engines("node-1", ns(20), ns(20)) == (engines[1],)
    in_force.change(ClusterSnapshot(tuple(map(KubeObject, labelled))), engines[2], {"node-1": ns(21)})
    assert in_force.engines("node-1", ns(21), ns(21)) == (engines[2], engines[1])
