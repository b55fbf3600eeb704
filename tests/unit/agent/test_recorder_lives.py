"""What a recorder takes for trouble, what it keeps of it, and that it lets go of what is over."""

from __future__ import annotations

import pytest

from kubectl_genainet.agent.record.lives import ENDED_NS, Lives
from kubectl_genainet.model.events import Event, FlowCounters, Point, TcpRetransmit
from kubectl_genainet.model.history import ConnectionKept
from kubectl_genainet.model.packet import FiveTuple, Protocol
from tests.unit.agent.test_agent_recorder import ACK, BACKEND, CLIENT, RST, SERVICE, SYN, healthy, packet
from tests.unit.history.recording import MONO, NODE, SECOND

PORT = 40_000


class Watched:
    """Lives of which no connection is an example."""

    def __init__(self) -> None:
        self.written: list[Event] = []
        self.sightings: list[bytes] = []
        self.lives = Lives(NODE, self.written.append, self.sightings.append)
        self.lives.share = 0

    def see(self, *packets: bytes) -> None:
        for data in packets:
            self.lives.sighting(data)

    def look(self, at_s: float) -> None:
        self.lives.look(MONO + int(at_s * SECOND))

    @property
    def kept(self) -> list[str]:
        return [event.why for event in self.written if isinstance(event, ConnectionKept)]


def handshake(at_s: float) -> list[bytes]:
    return [
        packet(at_s, PORT, SYN),
        packet(at_s + 0.1, PORT, SYN | ACK, back=True),
        packet(at_s + 0.1, PORT, ACK),
    ]


def test_a_connection_that_is_opened_and_says_nothing_is_in_no_trouble() -> None:
    watched = Watched()
    watched.see(*handshake(1))
    watched.look(100)
    assert not watched.kept and not watched.sightings


@pytest.mark.parametrize(
    "packets, why",
    [
        ([packet(1, PORT, SYN), packet(1.1, PORT, RST | ACK, back=True)], "refused"),
        ([*handshake(1), packet(2, PORT, RST, back=True)], "reset"),
        ([packet(1, PORT, ACK, payload=5), packet(2, PORT, RST, back=True)], "reset"),  # it was open before
        (
            [packet(1, PORT, SYN), packet(1.6, PORT, SYN), packet(1.7, PORT, SYN | ACK, back=True)],
            "not answered at once",
        ),
        ([*handshake(1), packet(2, PORT, ACK, payload=5), packet(2.6, PORT, ACK, back=True, payload=5)], "slow"),
    ],
)
def test_the_first_trouble_of_a_connection_is_what_it_is_kept_for_with_all_that_came_before(
    packets: list[bytes], why: str
) -> None:
    watched = Watched()
    watched.see(*packets)
    assert watched.kept == [why]
    assert watched.sightings == packets


def test_a_reset_after_both_sides_have_closed_is_no_trouble() -> None:
    watched = Watched()
    watched.see(*healthy(1, PORT), packet(1.1, PORT, RST))
    assert not watched.kept


@pytest.mark.parametrize("after_s, kept", [(0.4, []), (0.6, ["no reply yet"])])
def test_a_request_without_a_reply_is_trouble_after_half_a_second(after_s: float, kept: list[str]) -> None:
    watched = Watched()
    watched.see(*handshake(1), packet(2, PORT, ACK, payload=5))
    watched.look(2 + after_s)
    assert watched.kept == kept


@pytest.mark.parametrize("silence_s, kept", [(1.4, []), (1.6, ["stalled"])])
def test_a_silence_of_a_second_and_a_half_is_a_stall(silence_s: float, kept: list[str]) -> None:
    watched = Watched()
    packets = handshake(1)
    watched.see(*packets)
    counters = FlowCounters(
        node=NODE,
        t_ns=MONO + 4 * SECOND,
        netns=7,
        ifindex=2,
        device="eth0",
        point=Point.TX,
        flow=FiveTuple(CLIENT, PORT, SERVICE, 80, Protocol.TCP),
        packets=9,
        bytes=900,
        data_bytes=500,
        first_ns=MONO + SECOND,
        last_ns=MONO + 4 * SECOND,
        silence_ns=int(silence_s * SECOND),
    )
    watched.lives.take(counters)
    assert watched.kept == kept
    assert (counters in watched.written) == bool(kept)
    assert watched.sightings == (packets if kept else [])


def test_a_translated_connection_is_one_under_both_its_tuples() -> None:
    watched = Watched()
    watched.see(packet(1, PORT, SYN), packet(1.001, PORT, SYN, dst=BACKEND))
    watched.lives.take(
        TcpRetransmit(
            node=NODE,
            t_ns=MONO + 2 * SECOND,
            netns=7,
            flow=FiveTuple(CLIENT, PORT, BACKEND, 80, Protocol.TCP),
            state="SYN_SENT",
        )
    )
    (kept,) = [event for event in watched.written if isinstance(event, ConnectionKept)]
    assert kept.why == "sent again" and [flow.dst for flow in kept.flows] == [SERVICE, BACKEND]
    assert len(watched.lives) == 1


def test_the_sequence_number_of_another_packet_than_a_syn_joins_no_connections() -> None:
    watched = Watched()
    watched.see(packet(1, PORT, ACK, seq=7, payload=5), packet(1.1, PORT + 1, SYN, seq=7))
    assert len(watched.lives) == 2


def test_what_is_over_is_let_go_of() -> None:
    watched = Watched()
    watched.see(*healthy(1, PORT), packet(1, PORT + 1, SYN), packet(1.1, PORT + 1, RST | ACK, back=True))
    watched.look(1.1 + ENDED_NS / SECOND - 0.1)
    assert len(watched.lives) == 2  # for late records
    watched.look(1.2 + ENDED_NS / SECOND)
    assert len(watched.lives) == 0
    assert not watched.lives._by_key and not watched.lives._by_seq


def test_a_port_that_is_used_again_is_another_connection() -> None:
    watched = Watched()
    watched.see(*healthy(1, PORT), packet(1.5, PORT, SYN, seq=99), packet(1.6, PORT, RST | ACK, back=True))
    assert watched.kept == ["refused"]
    assert len(watched.sightings) == 2 and watched.lives.begun == 2


def test_connections_that_end_are_counted_by_what_became_of_them() -> None:
    watched = Watched()
    watched.see(*healthy(1, PORT), packet(1, PORT + 1, SYN), packet(1.1, PORT + 1, RST | ACK, back=True))
    watched.look(10)
    rows = {row.outcome: row.followed for row in watched.lives.times.drain()}
    assert rows == {"": 1, "refused": 1}
