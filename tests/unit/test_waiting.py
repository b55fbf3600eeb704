"""Records wait for a slow reader within bounds of number and bytes."""

from __future__ import annotations

import threading

import pytest

from kubectl_genainet.model.events import AgentFailed
from kubectl_genainet.wire.waiting import WaitingRecords

RECORD = AgentFailed(node="n", message="x")


def never() -> bool:
    return False


def refuses(waiting: WaitingRecords, size: int) -> bool:
    """Whether a record of this size would have to wait: its writer gives up at once."""
    asked: list[None] = []

    def gives_up() -> bool:
        asked.append(None)
        return True

    waiting.put([RECORD], size, gives_up)
    return bool(asked)


def test_records_come_out_in_order_and_their_ends_with_them() -> None:
    waiting = WaitingRecords(10, 1000)
    waiting.put([RECORD], 10, never)
    waiting.put(None, 0, never)
    assert [waiting.get(0), waiting.get(0)] == [[RECORD], None]
    with pytest.raises(TimeoutError):
        waiting.get(0.01)


def test_a_writer_waits_for_room_in_number_and_in_bytes() -> None:
    assert refuses(full := WaitingRecords(1, 1000), 1) is False
    assert refuses(full, 1)
    heavy = WaitingRecords(100, 1000)
    assert not refuses(heavy, 900)
    assert refuses(heavy, 101)
    assert not refuses(heavy, 100)
    heavy.get(0)
    assert not refuses(heavy, 900)


def test_what_waits_alone_may_be_larger_than_the_bound() -> None:
    waiting = WaitingRecords(100, 1000)
    assert not refuses(waiting, 5000)
    assert refuses(waiting, 1)
    waiting.put(None, 0, never)  # an end never waits
    assert waiting.get(0) == [RECORD]


def test_a_writer_goes_on_when_the_reader_has_made_room() -> None:
    waiting = WaitingRecords(1, 1000)
    waiting.put([RECORD], 1, never)
    writer = threading.Thread(target=waiting.put, args=([RECORD], 1, never))
    writer.start()
    assert waiting.get(5) == [RECORD]
    assert waiting.get(5) == [RECORD]
    writer.join()


def test_each_record_of_a_line_counts() -> None:
    waiting = WaitingRecords(3, 1000)
    waiting.put([RECORD, RECORD], 10, never)
    assert not refuses(waiting, 10)
    assert refuses(waiting, 10)
    assert waiting.get(0) == [RECORD, RECORD]
    assert not refuses(waiting, 10) and not refuses(waiting, 10) and refuses(waiting, 10)
