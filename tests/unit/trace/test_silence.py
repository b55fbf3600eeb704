"""Who was waited for in a reply's longest silence: as the packets and the sending socket showed it, and no further."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubectl_genainet.model.events import Event, FlowCounters, FlowSilence, Held, PacketSeen, Point
from kubectl_genainet.model.results.path import PacketPath, WaitedFor
from tests.unit.trace.test_connection_life import DATA, MS, T, counted, fins, resent
from tests.unit.trace_world import POD, RST, SECOND, World

BEGINS = T + 8 * SECOND  # the silence
PACE = (0,) * 62 + (200,)  # of the gaps: 50 ms


def silent(
    length_ns: int,
    at: FlowSilence | None,
    *,
    sent_ns: int | None = None,
    sent_at: int = BEGINS,
    more: list[Event] | None = None,
    server_seen: bool = True,
) -> PacketPath:
    """A reply of 20 s with a silence at the client, and one of `sent_ns` from `sent_at` where the server sends."""
    world = World()
    events: list[Event] = [*world.handshake(40000, T)]
    for e in world.request(40000, T + MS, DATA, payload=300, seq=1001):
        events += [e, counted(e)]
    sent_ns = length_ns if sent_ns is None else sent_ns
    for e in world.reply(40000, T + 2 * MS, DATA, payload=500, seq=9001):
        if e.node == "node-2" and not server_seen:
            continue
        is_sent = e.node == "node-2"
        values: dict[str, Any] = {"silence_ns": sent_ns if is_sent else length_ns}
        values["silence_at_ns"] = sent_at if is_sent else BEGINS
        if (e.node, e.netns, e.point) == ("node-2", POD["node-2"], Point.TX):
            values["at_silence"] = at
        events += [e, counted(e, data_bytes=20_000, last_ns=T + 20 * SECOND, gaps=PACE, **values)]
    (path,) = world.tell(events, more or [], fins(world, 40000, T + 21 * SECOND))
    return path


def turn(path: PacketPath) -> WaitedFor:
    assert path.stream is not None and path.stream.silence is not None
    return path.stream.silence.waited_for


def checks(path: PacketPath) -> list[str]:
    return [finding.check for finding in path.findings]


@pytest.mark.parametrize(
    ("held", "held_s", "heard_s", "whose", "found"),
    [
        (Held.UNACKNOWLEDGED, 0.04, 3.9, WaitedFor.SERVER, ["stream-stalled"]),  # a delayed ACK, then nothing to send
        (Held.UNACKNOWLEDGED, 4.0, 0.001, WaitedFor.NETWORK, ["stream-held-up"]),  # an ACK let it go on
        (Held.UNACKNOWLEDGED, 4.0, 2.0, WaitedFor.UNKNOWN, ["stream-silent"]),  # in flight, and no ACK let it go on
        (Held.BUFFER, 4.0, 2.0, WaitedFor.NETWORK, ["stream-held-up"]),
        (Held.WINDOW, 3.9, 0.001, WaitedFor.CLIENT, []),  # the client reads nothing
        (Held.WINDOW, 0.1, 0.001, WaitedFor.SERVER, ["stream-stalled"]),
        (Held.UNKNOWN, 0, 0, WaitedFor.UNKNOWN, ["stream-silent"]),
    ],
)
def test_the_senders_socket_shows_who_was_waited_for(
    held: Held, held_s: float, heard_s: float, whose: WaitedFor, found: list[str]
) -> None:
    closed_ns = MS if held is Held.WINDOW else 0
    at = FlowSilence(closed_ns=closed_ns, held=held, held_ns=int(held_s * SECOND), heard_ns=int(heard_s * SECOND))
    path = silent(4 * SECOND, at)
    assert turn(path) is whose and checks(path) == found
    assert path.stream is not None and path.stream.silence is not None and path.stream.silence.why


def test_a_window_that_is_full_of_what_a_queue_holds_is_not_the_clients() -> None:
    at = FlowSilence(held=Held.WINDOW, held_ns=4 * SECOND, heard_ns=MS)
    assert turn(silent(4 * SECOND, at)) is WaitedFor.NETWORK


def test_what_an_older_agent_did_not_tell_is_not_guessed() -> None:
    path = silent(4 * SECOND, None)
    assert turn(path) is WaitedFor.UNKNOWN and checks(path) == ["stream-silent"]
    assert path.findings[0].title.endswith("who was waited for is not known")


@pytest.mark.parametrize(("asked_s", "whose"), [(3.5, WaitedFor.CLIENT), (0.5, WaitedFor.SERVER)])
def test_a_client_that_asked_late_was_waited_for(asked_s: float, whose: WaitedFor) -> None:
    at = FlowSilence(asked_ns=int(asked_s * SECOND), held=Held.UNACKNOWLEDGED, held_ns=MS, heard_ns=MS)
    assert turn(silent(4 * SECOND, at)) is whose


def test_a_server_that_sent_meanwhile_was_not_waited_for() -> None:
    path = silent(4 * SECOND, None, sent_ns=60 * MS)
    assert turn(path) is WaitedFor.NETWORK and checks(path) == ["stream-held-up"]
    assert "never silent for more than 60 ms" in path.findings[0].evidence[0].statement


def test_another_silence_of_the_server_tells_nothing_of_this_one() -> None:
    idle = FlowSilence(held=Held.UNACKNOWLEDGED, held_ns=MS)
    path = silent(4 * SECOND, idle, sent_ns=5 * SECOND, sent_at=BEGINS - 7 * SECOND)
    assert turn(path) is WaitedFor.UNKNOWN


def test_losses_until_its_end_are_the_networks_whatever_the_socket_shows() -> None:
    world = World()
    again = [resent(world, 40000, BEGINS + i * SECOND) for i in (1, 3)]
    at = FlowSilence(held=Held.UNACKNOWLEDGED, held_ns=4 * SECOND, heard_ns=2 * SECOND)
    assert turn(silent(4 * SECOND, at, more=list(again))) is WaitedFor.NETWORK


def test_what_a_full_window_loses_is_no_fault_of_the_way() -> None:
    world = World()
    again = [resent(world, 40000, BEGINS + i * SECOND) for i in (1, 3)]
    at = FlowSilence(closed_ns=3 * SECOND, held=Held.WINDOW, held_ns=4 * SECOND, heard_ns=MS)
    assert turn(silent(4 * SECOND, at, more=list(again))) is WaitedFor.CLIENT


def test_a_server_out_of_sight_is_not_blamed() -> None:
    path = silent(4 * SECOND, None, server_seen=False)
    assert turn(path) is WaitedFor.UNKNOWN and "stream-stalled" not in checks(path)


@pytest.mark.parametrize(
    ("held_s", "heard_s", "found"),
    [(0.04, 2.9, ["slow-first-token"]), (3.0, 0.001, ["stream-held-up"]), (3.0, 2.0, ["stream-silent"])],
)
def test_a_first_token_is_late_where_the_server_was_waited_for(held_s: float, heard_s: float, found: list[str]) -> None:
    world, second = World(), T + 2 * MS + 3 * SECOND
    at = FlowSilence(held=Held.UNACKNOWLEDGED, held_ns=int(held_s * SECOND), heard_ns=int(heard_s * SECOND))
    events: list[Event] = [*world.handshake(40000, T)]
    for e in world.request(40000, T + MS, DATA, payload=300, seq=1001):
        events += [e, counted(e)]
    for e in world.reply(40000, T + 2 * MS, DATA, payload=200, seq=9001):
        times = {"second_ns": second, "last_ns": second + 5 * SECOND, "silence_ns": 3 * SECOND, "silence_at_ns": e.t_ns}
        events += [e, counted(e, data_bytes=9000, gaps=PACE, at_silence=at, **times)]
    (path,) = world.tell(events, fins(world, 40000, second + 6 * SECOND))
    assert checks(path) == found


# --- the silence that nothing ended -----------------------------------------------------------------------------------


def left_open(*, asked_ns: int = T + MS, closed_ns: int = 0, came: bool = True, missing: int = 0) -> PacketPath:
    """One reply at once, then nothing for 10 s, and a reset by the server."""
    world = World()
    events: list[Event] = [*world.handshake(40000, T)]
    for e in world.request(40000, T + MS, DATA, payload=300, seq=1001):
        last = asked_ns if came or e.node == "node-1" else e.t_ns
        events += [e, counted(e, last_ns=last, closed_ns=closed_ns)]
    for e in world.reply(40000, T + 2 * MS, DATA, payload=500, seq=9001):
        events += [e, counted(e, data_bytes=500 + (missing if e.node == "node-2" else 0))]
    (path,) = world.tell(events, world.reply(40000, T + 10 * SECOND, RST, seq=9501))
    return path


def test_a_connection_that_idles_at_its_end_may_have_had_its_reply() -> None:
    path = left_open()
    assert turn(path) is WaitedFor.UNKNOWN and "stream-stalled" not in checks(path)


def test_what_was_asked_and_not_answered_is_the_servers_turn() -> None:
    assert turn(left_open(asked_ns=T + 2 * SECOND)) is WaitedFor.SERVER
    assert turn(left_open(asked_ns=T + 2 * SECOND, came=False)) is WaitedFor.NETWORK
    assert turn(left_open(asked_ns=T + 9 * SECOND)) is WaitedFor.CLIENT


def test_data_that_left_and_did_not_arrive_is_the_networks() -> None:
    path = left_open(missing=1448)
    assert turn(path) is WaitedFor.NETWORK and path.stream is not None and path.stream.silence is not None
    assert path.stream.silence.why == "1448 bytes that the server had sent did not arrive"


def test_a_window_that_stays_closed_is_the_clients() -> None:
    assert turn(left_open(closed_ns=T + 8 * SECOND)) is WaitedFor.CLIENT
    assert turn(left_open(closed_ns=T + 1 * SECOND)) is WaitedFor.UNKNOWN


@pytest.mark.parametrize(("quiet_s", "asked_s", "ended"), [(12, 0, "idle"), (8, 0, "open"), (12, 1, "open")])
def test_an_open_connection_idles_after_its_last_reply(quiet_s: int, asked_s: int, ended: str) -> None:
    """Not while what was asked is not answered."""
    world, asked = World(), T + asked_s * SECOND
    events: list[Event] = [*world.begin(), *world.handshake(40000, T)]
    for e in world.request(40000, T + MS, DATA, payload=300, seq=1001):
        events += [e, counted(e, last_ns=asked)]
    for e in world.reply(40000, T + 2 * MS, DATA, payload=500, seq=9001):
        events += [e, counted(e)]
    world.feed([*events, *world.ticks(T + quiet_s * SECOND)])
    (path,) = world.correlator.finish()
    assert path.stream is not None and (path.stream.ended, path.stream.ended_by) == (ended, "")


# --- how late the reply was -------------------------------------------------------------------------------------------


def uploaded(last_asked_ns: int) -> PacketPath:
    """A request whose last data came then, and a reply 5 s after the first."""
    world = World()
    events: list[Event] = [*world.handshake(40000, T)]
    replies: list[PacketSeen] = world.reply(40000, T + 5 * SECOND, DATA, payload=500, seq=9001)
    for e in world.request(40000, T, DATA, payload=300, seq=1001):
        events += [e, counted(e, last_ns=last_asked_ns)]
    for e in replies:
        counts: FlowCounters = counted(e)
        events += [e, msgspec.structs.replace(counts, first_asked_ns=last_asked_ns)]
    (path,) = world.tell(events, fins(world, 40000, T + 6 * SECOND))
    return path


def test_a_server_is_not_slow_while_its_request_still_comes() -> None:
    assert checks(uploaded(T + MS)) == ["slow-first-reply"]
    assert checks(uploaded(T + 4_500 * MS)) == []
