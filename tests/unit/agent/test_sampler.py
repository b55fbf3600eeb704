"""The level of following against a node whose costs are known: within the budget soon, and no lower than it must be."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kubectl_genainet.agent.session.budgets import left_percent
from kubectl_genainet.agent.session.sampler import (
    AIM,
    FEWEST_KEPT,
    FEWEST_RECORDS,
    LEAST_RECORDS,
    Level,
    RecordLevel,
    Spent,
)
from kubectl_genainet.model.packet import ALL_KEPT

BUDGET = 0.05
PACKETS_AN_EVENT = 20


@dataclass
class Node:
    """Costs in seconds: of each event, and of each second whatever comes."""

    event_s: float = 12e-6
    own_s: float = 0.008
    kernel_s: float = 0.015

    def second(self, level: Level, all_events: int) -> float:
        """Lets a second pass with the level's part of the events; returns what it took, as a share of the budget."""
        events = all_events * level.kept // ALL_KEPT
        own = self.own_s + events * self.event_s
        reading = events * self.event_s
        level.look(Spent(1.0, events, events * PACKETS_AN_EVENT, own, reading, self.kernel_s), level.kept)
        return (own + self.kernel_s) / BUDGET


def test_a_burst_is_not_answered_for_once_it_is_over() -> None:
    level, node = Level(BUDGET, 5000), Node()
    spent = [node.second(level, 16_000) for _ in range(20)]
    assert spent[0] > 3
    room = (BUDGET - node.own_s - node.kernel_s) / node.event_s / 16_000
    assert min(spent[8:]) > 0.7 and max(spent[8:]) < 1.15
    assert level.kept / ALL_KEPT == pytest.approx(room, rel=0.4)


def test_all_are_followed_again_when_less_comes() -> None:
    level, node = Level(BUDGET, 5000), Node()
    for _ in range(10):
        node.second(level, 16_000)
    assert level.kept < ALL_KEPT
    for _ in range(20):
        node.second(level, 100)
    assert level.kept == ALL_KEPT


def test_few_events_are_all_followed_beside_costs_that_sampling_does_not_lower() -> None:
    level, node = Level(BUDGET, 5000), Node(own_s=0.2, kernel_s=0.001)
    for _ in range(10):
        node.second(level, 50)
    assert level.kept == ALL_KEPT


def test_packets_of_others_on_a_busy_node_leave_nothing_out() -> None:
    level, node = Level(BUDGET, 5000), Node(kernel_s=0.2)
    for _ in range(10):
        node.second(level, 50)
    assert level.kept == ALL_KEPT


def test_the_sum_is_kept_where_most_of_it_is_not_for_following() -> None:
    level, node = Level(BUDGET, 5000), Node(event_s=40e-6, own_s=0.010, kernel_s=0.037)
    spent = [node.second(level, 16_000) for _ in range(60)]
    assert max(spent[20:]) < 1.05


def test_what_the_kernel_halved_is_the_number_that_is_in_force() -> None:
    level = Level(BUDGET, 5000)
    assert not level.look(Spent(1.0, 1000, 5000, 0.01, 0.008, 0.01), ALL_KEPT // 4)
    assert level.kept == ALL_KEPT // 4


def test_after_a_calm_time_a_burst_is_answered_with_fewer_and_not_with_more() -> None:
    level, node = Level(BUDGET, 5000), Node(kernel_s=0.005)
    for _ in range(10):
        node.second(level, 10)
    node.kernel_s, halved = 0.035, ALL_KEPT // 8
    level.look(Spent(1.0, 2000, 40_000, 0.030, 0.022, node.kernel_s), halved)
    for _ in range(3):
        assert level.kept <= halved
        node.second(level, 16_000)


def test_what_a_second_takes_now_and_then_counts_as_what_it_takes_on_average() -> None:
    level, node = Level(BUDGET, 5000), Node()
    for _ in range(30):
        node.second(level, 16_000)
    before, spent = level.kept, []
    for second in range(90):
        node.own_s = 0.148 if second % 15 == 7 else 0.008  # rules are read
        spent.append(node.second(level, 16_000))
        assert level.kept > 0.4 * before
    assert sum(spent) / len(spent) < 1


def test_one_costly_second_right_after_a_change_is_no_reason_for_fewer() -> None:
    level, node = Level(BUDGET, 5000), Node()
    for _ in range(30):
        node.second(level, 16_000)
    usual = level.kept
    for _ in range(10):
        node.second(level, 8_000)
    while level.kept < 1.5 * usual:
        node.second(level, 8_000)
    more = level.kept
    node.own_s = 0.148
    node.second(level, 8_000)
    assert level.kept > 0.8 * more


def test_a_burst_that_the_kernel_has_cut_is_not_answered_for_twice() -> None:
    """The first second takes what all connections take until they are cut to what there is room for."""
    level, node = Level(BUDGET, 5000), Node()
    room = ALL_KEPT * (BUDGET - node.own_s - node.kernel_s) / node.event_s / 16_000
    halved = ALL_KEPT // 8
    level.look(Spent(1.0, 5000, 100_000, 0.07, 0.06, 0.02), halved)
    assert level.kept == halved > 0.8 * room
    numbers = []
    for _ in range(10):
        node.second(level, 16_000)
        numbers.append(level.kept)
    assert min(numbers) >= 0.7 * room and numbers[-1] == pytest.approx(room, rel=0.3)


def test_some_connections_are_followed_whatever_they_cost() -> None:
    level, node = Level(BUDGET, 5000), Node(kernel_s=1.0)
    for _ in range(40):
        node.second(level, 1_000_000)
    assert FEWEST_KEPT <= level.kept < 2 * FEWEST_KEPT


def test_an_event_costs_what_it_was_measured_to_cost() -> None:
    level, node = Level(BUDGET, 5000), Node(event_s=30e-6, own_s=0.0)
    before = level.events_per_second
    for _ in range(3):
        node.second(level, 16_000)
    assert level.events_per_second < before


def reported(level: RecordLevel, asked: int, others_s: float, record_s: float = 15e-6) -> float:
    """Lets a second pass with so many exchanges on two CPUs; returns what reporting them took, as a share of the budget."""
    records = min(asked, 2 * level.per_second)
    level.look(1.0, records, records * record_s, others_s)
    return records * record_s / BUDGET


def test_dns_exchanges_have_what_all_else_leaves_of_the_budget() -> None:
    level = RecordLevel(BUDGET, 20_000, 2)
    spent = [reported(level, 20_000, others_s=0.5 * BUDGET) for _ in range(30)]
    assert spent[0] > 0.5 and max(spent[10:]) < 0.5 and spent[-1] == pytest.approx(AIM - 0.5, abs=0.03)
    assert [reported(level, 20_000, others_s=0.2 * BUDGET) for _ in range(30)][-1] == pytest.approx(AIM - 0.2, abs=0.03)


def test_some_dns_exchanges_are_reported_whatever_else_there_is() -> None:
    level = RecordLevel(BUDGET, 20_000, 2)
    spent = [reported(level, 20_000, others_s=3 * BUDGET) for _ in range(30)]
    assert spent[-1] == pytest.approx(LEAST_RECORDS, abs=0.03)
    assert (
        RecordLevel(1e-6, 20_000, 2).per_second == FEWEST_RECORDS and RecordLevel(4.0, 20_000, 2).per_second == 20_000
    )


def test_few_dns_exchanges_leave_room_for_a_burst() -> None:
    level = RecordLevel(BUDGET, 20_000, 2)
    first = level.per_second
    for _ in range(30):
        reported(level, 100, others_s=0.3 * BUDGET)
    assert level.per_second >= first


def test_the_tables_are_read_within_what_the_programs_leave() -> None:
    assert left_percent(5.0, 0.01) == pytest.approx(4.0)
    assert left_percent(5.0, 0.2) == pytest.approx(1.25)  # they are read all the same
