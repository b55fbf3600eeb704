"""The level of following against a node whose costs are known: within the budget soon, and no lower than it must be."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kubectl_genainet.agent.session.budgets import left_percent
from kubectl_genainet.agent.session.sampler import BURST, EVENTS_SHARE, FEWEST_KEPT, Level, Spent, records_per_second
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


def test_records_are_as_many_as_the_budget_has_room_for() -> None:
    assert records_per_second(0.05, 10e-6, most=20_000) == pytest.approx(BURST * EVENTS_SHARE * 5000, abs=1)
    assert records_per_second(4.0, 10e-6, most=20_000) == 20_000
    assert records_per_second(0.001, 50e-6, most=20_000) == 50  # a node must say something


def test_what_looks_at_the_node_has_what_the_programs_leave() -> None:
    assert left_percent(5.0, 0.01) == pytest.approx(4.0)
    assert left_percent(5.0, 0.2) == pytest.approx(1.25)  # the node is looked at all the same
