"""A stream is told as far as its data was counted."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.results.path import ConnectionOutcome
from tests.unit.trace.test_connection_life import DATA, MS, T, counted, exchange, fins
from tests.unit.trace_world import SECOND, World


@pytest.mark.parametrize("of", ["request", "reply"])
def test_data_that_was_seen_and_whose_counts_did_not_come_is_not_said_to_be_no_data(of: str) -> None:
    """Where a trace has just begun: "6099 bytes asked, 0 back" of a connection whose answer was seen after 4 ms."""
    world = World()
    request = world.request(40000, T + MS, DATA, payload=300, seq=1001)
    reply = world.reply(40000, T + 2 * MS, DATA, payload=500, seq=9001)
    counts = [counted(e) for e in (reply if of == "request" else request)]
    (path,) = world.tell([*world.handshake(40000, T), *request, *reply, *counts], fins(world, 40000, T + SECOND))
    assert path.outcome is ConnectionOutcome.ANSWERED and path.response_ns is not None
    assert path.stream is None and path.findings == ()


def test_what_is_sent_again_after_the_fin_takes_nothing_from_what_was_counted() -> None:
    """A flow that is over leaves the node's table: a queue may still make the sender repeat segments, counted anew."""
    world = World()
    reply = world.reply(40000, T + 2 * MS, DATA, payload=500, seq=9001)
    whole = [counted(e, data_bytes=600_000, packets=400, bytes=620_000) for e in reply]
    again = [counted(e, data_bytes=2896, packets=2, bytes=3000, last_ns=T + SECOND, began_ns=T) for e in reply]
    opened = exchange(world, 40000, T)
    (path,) = world.tell(opened, map(counted, opened), whole, fins(world, 40000, T + 3 * MS), again)
    assert path.stream is not None and path.stream.reply_bytes == 600_000
