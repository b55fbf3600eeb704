"""Totals since a trace began, of what the kernel's table, which is emptied, held each time."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.agent.session.totals import RunningTotals
from kubectl_genainet.model.events import ConnectionCounts


def counted(client: str, **numbers: Any) -> ConnectionCounts:
    return ConnectionCounts(node="n", t_ns=1, side="client", client=client, server="10.0.0.2", port=80, **numbers)


def test_what_was_counted_adds_up_for_each_pair_of_ends() -> None:
    totals = RunningTotals()
    assert totals.with_earlier(counted("a", opened=2)) == counted("a", opened=2)
    assert totals.with_earlier(counted("b", opened=7)) == counted("b", opened=7)
    assert totals.with_earlier(counted("a", opened=1, sent=9)) == counted("a", opened=3, sent=9)
    assert totals.lost == 0


def test_ends_without_a_place_are_counted_as_lost_and_the_others_go_on() -> None:
    totals = RunningTotals(most=1)
    totals.with_earlier(counted("a", opened=1))
    assert totals.with_earlier(counted("b", opened=1)) is None
    assert totals.with_earlier(counted("a", opened=1)) == counted("a", opened=2)
    assert totals.lost == 1
