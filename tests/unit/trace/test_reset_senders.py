"""Who reset a connection: "neither end sent it" is said only where its sender's end would have been seen to."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from kubectl_genainet.model.events import ClusterChanged, Event, LostEvents, PacketSeen
from kubectl_genainet.model.node import NodeReport
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.results.path import ConnectionOutcome, PacketPath, Verdict
from tests.unit.trace.test_connection_life import DATA, MS, counted, exchange, fins
from tests.unit.trace_world import CLIENT, POD, RST, SECOND, SNAPSHOT, SYN, World

T = 1000 * SECOND
OUTSIDE = "203.0.113.7"


def checks(path: PacketPath) -> list[str]:
    return [finding.check for finding in path.findings]


def reset_of(world: World, *, seen_at: Callable[[PacketSeen], bool] = lambda _: True) -> list[PacketSeen]:
    """The server's, where it was seen."""
    return [seen for seen in world.reply(40000, T + 3 * SECOND, RST, seq=9501) if seen_at(seen)]


def not_in_the_server(seen: PacketSeen) -> bool:
    return (seen.node, seen.netns) != ("node-2", POD["node-2"])


def test_reset_that_an_end_did_not_send_though_its_packets_were_seen_there_was_made_on_the_way() -> None:
    world = World()
    opened = exchange(world, 40000, T)
    counts = [counted(seen) for seen in opened if seen.payload]
    (path,) = world.tell(opened, counts, reset_of(world, seen_at=not_in_the_server))
    assert checks(path) == ["reset-on-path"]
    assert path.stream is not None and (path.stream.ended, path.stream.ended_by) == ("reset", "network")


@pytest.mark.parametrize(("after_ns", "silent"), [(3 * SECOND, True), (SECOND // 2, False)])
def test_client_that_resets_after_a_silence_has_given_up(after_ns: int, silent: bool) -> None:
    """As its TCP does where its keepalives stay unanswered."""
    world = World()
    opened = exchange(world, 40000, T)
    counts = [counted(seen) for seen in opened if seen.payload]
    (path,) = world.tell(opened, counts, world.request(40000, T + after_ns, RST, seq=1101))
    (title,) = [finding.title for finding in path.findings if finding.check == "reset-by-client"]
    assert ("when neither side had sent anything new for 3.0 s" in title) is silent


def test_reset_in_a_namespace_that_was_not_followed_yet_is_nobodys() -> None:
    """Nothing of the connection was seen there either: a new pod's namespace is found a moment after it was made."""
    world = World()
    seen = [e for e in (*exchange(world, 40000, T), *reset_of(world)) if not_in_the_server(e)]
    (path,) = world.tell(seen)
    assert checks(path) == ["reset-unattributed"]
    assert "pod default/llm-0, which may not have been followed yet" in path.findings[0].title


def test_reset_of_an_older_connection_is_made_on_the_way_where_the_namespace_was_followed_before_and_after() -> None:
    world = World()
    seen = [
        e for e in (*world.request(40000, T, DATA, payload=100, seq=1001), *reset_of(world)) if not_in_the_server(e)
    ]
    later = NodeReport(node="node-2", t_ns=T + 9 * SECOND, namespaces=world.namespaces("node-2"))
    (path,) = world.tell(seen, [later])
    assert checks(path) == ["reset-on-path"]
    (path,) = World().tell(seen)
    assert checks(path) == ["reset-unattributed"]


def test_reset_by_a_pod_whose_namespace_is_reported_later_waits_for_the_report() -> None:
    world = World()
    begin = world.begin()
    late = [e for e in begin if isinstance(e, NodeReport) and e.node == "node-2"]
    early = [e for e in begin if e not in late]
    assert world.feed([*early, *exchange(world, 40000, T), *reset_of(world), *world.ticks(T + 4 * SECOND)]) == []
    known = msgspec.structs.replace(late[0], t_ns=T + 5 * SECOND)
    (path,) = world.feed([known, *world.ticks(T + 6 * SECOND)])
    assert checks(path) == ["reset-by-app"]


def test_reset_by_a_pod_that_the_objects_have_later_than_its_node_is_its_own() -> None:
    world = World()
    without = [o for o in SNAPSHOT.objects if (o.kind, o.name) != ("Pod", "llm-0")]
    world.correlator.context.learn(ClusterChanged(objects=[o.raw for o in without]))
    begin = world.begin()
    (path,) = world.feed(
        [
            *begin,
            ClusterChanged.of(SNAPSHOT),
            *exchange(world, 40000, T),
            *reset_of(world),
            *world.ticks(T + 9 * SECOND),
        ]
    )
    assert checks(path) == ["reset-by-app"] and "pod default/llm-0" in path.findings[0].title


@pytest.mark.parametrize("ahead", [-400 * SECOND, 400 * SECOND], ids=["behind", "ahead"])
def test_reset_is_the_senders_whatever_the_nodes_monotonic_clocks_say(ahead: int) -> None:
    """Each counts from its own node's start."""
    world = World(skew={"node-1": ahead}, boot={"node-1": "one", "node-2": "two"})
    (path,) = world.tell(exchange(world, 40000, T), reset_of(world))
    assert checks(path) == ["reset-by-app"]


def test_reset_while_the_senders_node_lost_records_is_nobodys() -> None:
    world = World()
    lost = LostEvents(node="node-2", probe="packet", count=3, where="ring buffer")
    (path,) = world.tell(exchange(world, 40000, T), [lost], reset_of(world, seen_at=not_in_the_server))
    assert (path.outcome, checks(path)) == (ConnectionOutcome.RESET, ["reset-unattributed"])
    assert "lost records" in path.findings[0].title


def test_losses_of_other_probes_take_nothing_from_a_path() -> None:
    world = World()
    lost = LostEvents(node="node-2", probe="dns", count=3, where="left out by the recorder")
    (path,) = world.tell(exchange(world, 40000, T), [lost], reset_of(world, seen_at=not_in_the_server))
    assert checks(path) == ["reset-on-path"] and not path.incomplete


def test_reset_may_follow_an_orderly_end_where_every_node_lost_records() -> None:
    world = World()
    lost = [LostEvents(node=node, probe="packet", count=3, where="ring buffer") for node in ("node-1", "node-2")]
    (path,) = world.tell(exchange(world, 40000, T), lost, reset_of(world))
    assert (path.outcome, path.verdict) == (ConnectionOutcome.UNKNOWN, Verdict.UNKNOWN)
    assert "the FIN of an orderly end may have been among them" in path.waited and checks(path) == []


def test_reset_from_an_address_without_an_agent_is_from_outside() -> None:
    world = World()

    def outside(events: list[PacketSeen]) -> list[Event]:
        """Of a connection of the client's to a server that is none of the cluster's."""
        kept = [e for e in events if e.node == "node-1"]
        return [msgspec.structs.replace(e, flow=_renamed(e.flow)) for e in kept]

    def _renamed(flow: FiveTuple) -> FiveTuple:
        ends = {"src": flow.src, "dst": flow.dst}
        return msgspec.structs.replace(flow, **{k: v if v == CLIENT else OUTSIDE for k, v in ends.items()})

    world.correlator.connections.servers.update({(OUTSIDE, 80), (OUTSIDE, 8080)})
    (path,) = world.tell(outside(exchange(world, 40000, T)), outside(reset_of(world)))
    assert checks(path) == ["reset-from-outside"] and OUTSIDE in path.findings[0].title


def test_syn_that_was_sent_again_after_a_drop_may_have_been_answered_among_lost_records() -> None:
    def told(*, lost: bool) -> PacketPath:
        world = World()
        first = world.request(40000, T)
        again = world.request(40000, T + SECOND, SYN, ip_id=8)[:3]
        events: list[Event] = [*first[:4], world.dropped(first[3], "NETFILTER_DROP", "FORWARD"), *again]
        losses = [LostEvents(node="node-2", probe="packet", count=1, where="ring buffer")] if lost else []
        (path,) = world.tell(events, losses)
        return path

    assert told(lost=False).outcome is ConnectionOutcome.DROPPED
    assert told(lost=True).outcome is ConnectionOutcome.UNKNOWN
    assert told(lost=True).drop is not None


def test_reset_with_a_sequence_number_is_no_refusal_where_the_handshake_may_be_lost() -> None:
    def told(seq: int, *, lost: bool) -> ConnectionOutcome:
        world = World()
        losses = [LostEvents(node="node-2", probe="packet", count=1, where="ring buffer")] if lost else []
        (path,) = world.tell(world.request(40000, T), losses, world.reply(40000, T + MS, RST, seq=seq))
        return path.outcome

    assert told(0, lost=True) is ConnectionOutcome.REFUSED
    assert told(9001, lost=True) is ConnectionOutcome.UNKNOWN


def test_late_or_missing_replies_are_not_told_of_where_records_were_lost() -> None:
    def told(*, lost: bool) -> list[str]:
        world = World()
        losses = [LostEvents(node="node-2", probe="packet", count=1, where="ring buffer")] if lost else []
        asked = world.request(40000, T + MS, DATA, payload=100, seq=1001)
        answer = world.reply(40000, T + 2 * SECOND, DATA, payload=100, seq=9001)
        counts = [counted(seen) for seen in (*asked, *answer)]
        end = fins(world, 40000, T + 3 * SECOND)
        (path,) = world.tell(world.handshake(40000, T), asked, losses, answer, counts, end)
        return checks(path)

    assert told(lost=False) == ["slow-first-reply"] and told(lost=True) == []
