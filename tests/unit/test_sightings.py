"""Sightings travel as the kernel wrote them, and are read as if each had come alone."""

from __future__ import annotations

import pytest

from kubectl_genainet import wire
from kubectl_genainet.agent.probes import packet
from kubectl_genainet.agent.probes.declare import DecodeContext
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import Bye, Sightings
from kubectl_genainet.wire.sightings import PACKET, is_sighting

CLIENT, SERVER, ZERO = (b"\0" * 10 + b"\xff\xff" + bytes(ip) for ip in ((10, 0, 0, 1), (10, 0, 0, 2), (0, 0, 0, 0)))
CONTEXT = DecodeContext("node-1", {}, lambda _: "")


def record(kind: int = 1, proto: int = 6, point: int = 1, outer_proto: int = 0, is_sockets: int = 0) -> bytes:
    tuples = (CLIENT, SERVER, 40000, 80, proto, ZERO, SERVER, 7, 8, outer_proto, is_sockets)
    numbers = (3, 2, 1000, 2000, 60, 5, 99, 7, kind, point, 2, 0, 0, 0, 0, b"eth0".ljust(16, b"\0"), 1, 0, 64)
    return PACKET.pack(5, 6, *tuples, *numbers)


def test_many_are_read_as_each_alone() -> None:
    records = [
        record(),
        record(proto=17, point=0),
        record(point=2, outer_proto=17),
        record(outer_proto=6, is_sockets=1),
    ]
    assert all(map(is_sighting, records))
    line = wire.encode(Sightings(node="node-1", data=b"".join(records)))
    assert list(wire.expand(wire.decode(line))) == [packet.decode(one, CONTEXT) for one in records]


def test_other_records_stand_for_themselves() -> None:
    bye = Bye(node="n", emitted=0, sent=0, lost=0, reason="timeout")
    assert list(wire.expand(bye)) == [bye]
    assert not is_sighting(record(kind=4)) and not is_sighting(record() + b"\0" * 176)


@pytest.mark.parametrize("data", [record()[:-1], record() + record(kind=2)])
def test_damaged_ones_are_an_error(data: bytes) -> None:
    with pytest.raises(GenainetError, match="node-1 sent sightings that this version can't read"):
        list(wire.expand(Sightings(node="node-1", data=data)))
