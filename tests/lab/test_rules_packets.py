"""The evaluator beside the kernel: random rulesets and every statement of the manuals, with real packets through them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rules_fuzz import Count, Difference, differences
from tests.rules_statements import checked
from tests.rules_wire import Wire


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire() as made:
        yield made


def _told(found: list[Difference]) -> str:
    return "\n".join(f"{d.flow} did {d.did}, said {', '.join(d.said)}:\n{d.text}" for d in found[:5])


def test_random_rulesets_do_what_the_evaluator_says(wire: Wire) -> None:
    count = Count()
    found = list(differences(wire, seed=15, rulesets=60, flows=20, count=count))
    assert not found, _told(found)
    assert count.refused <= 2
    assert count.flows >= 1100
    assert count.unknown <= count.flows * 0.02, count.reasons


def test_single_statements_of_the_manuals_do_what_the_evaluator_says(wire: Wire) -> None:
    count = Count()
    found = list(checked(wire, count))
    assert not found, _told(found)
    assert count.flows >= 3700
    assert count.unknown <= count.flows * 0.04, count.reasons  # a packet's length, its TTL, the time of day
