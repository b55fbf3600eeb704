"""Who asks for some records only is told of what is missing as who asks for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kubectl_genainet.history import blocks, read
from kubectl_genainet.history.select import RecordPart, Selection
from kubectl_genainet.history.store import segments
from kubectl_genainet.model.events import Event, TcpRetransmit
from kubectl_genainet.model.history import Gap
from tests.unit.history.recording import SECOND, WALL, Recording, resent, tick

ELSEWHERE = "10.9.9.9"


def asked(recording: Recording, until_s: float, address: str = ELSEWHERE) -> list[Event]:
    return recording.events(0, until_s, Selection((RecordPart.TRACE,), (address,)))


def gaps(events: list[Event]) -> list[tuple[float, float, str]]:
    return [((e.since_ns - WALL) / SECOND, (e.until_ns - WALL) / SECOND, e.why) for e in events if isinstance(e, Gap)]


def test_records_of_a_newer_version_are_a_gap_and_not_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path)
    recording.block(resent(1))
    with monkeypatch.context() as newer:
        newer.setattr(blocks, "_encoder", Newer())
        recording.block(resent(6))
    recording.block(resent(11))
    given = asked(recording, 15, "10.96.0.5")
    assert gaps(given) == [(5.0, 10.0, read.NEWER)]
    assert [event for event in given if isinstance(event, TcpRetransmit)] == [resent(1), resent(11)]
    assert gaps(asked(recording, 15)) == []  # its index says that it has nothing of the address


class Newer:
    """Encodes records of a kind that this version does not know."""

    def encode(self, _: list[Event]) -> bytes:
        return msgspec.msgpack.encode([{"kind": "from-the-future"}])


def test_blocks_in_which_nothing_is_wanted_are_one_up_to_a_hole(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    written = [recording.block(resent(5 * number + 1), tick(5 * number + 4)) for number in range(6)]
    path = segments(tmp_path)[0].path
    path.write_bytes(path.read_bytes().replace(written[2], b""))
    given = recording.range(0, 30, Selection((RecordPart.TRACE,), (ELSEWHERE,))).blocks
    covers = [((b.covers.wall_from - WALL) / SECOND, (b.covers.wall_until - WALL) / SECOND) for b in given[:-1]]
    assert covers == [(0, 10), (15, 30)]
    assert gaps(asked(recording, 30)) == [(10.0, 15.0, read.MISSING)]


@pytest.mark.parametrize(("address", "passes"), [(ELSEWHERE, 1), ("10.96.0.5", 2)])
def test_a_recording_is_read_twice_only_where_connections_have_other_ends(
    address: str, passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(tmp_path)
    for second in (1, 6, 11):
        recording.block(resent(second), tick(second))
    scans: list[int] = []

    def counted(data: bytes) -> Iterator[blocks.Block | blocks.Damage]:
        scans.append(len(data))
        return blocks.scan(data)

    monkeypatch.setattr(read, "scan", counted)
    assert asked(recording, 15, address).count(resent(6)) == passes - 1
    assert len(scans) == passes


def test_a_long_answer_is_not_kept_while_other_ends_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(tmp_path)
    for second in (1, 6, 11):
        recording.block(tick(second))
    short = asked(recording, 15)
    monkeypatch.setattr(read, "SHORT", 0)
    assert asked(recording, 15) == short
