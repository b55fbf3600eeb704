"""Quantities and durations as Kubernetes and Go write them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kubectl_genainet.model.units import quantity, seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100n", 1e-7),
        ("250u", 2.5e-4),
        ("100m", 0.1),
        ("2", 2),
        (3, 3),
        (".5", 0.5),
        ("1.5Gi", 1.5 * 2**30),
        ("2Ei", 2**61),
        ("5k", 5000),
        ("1E", 1e18),
        ("1E3", 1000),
        ("1e3", 1000),
        ("-1", -1),
    ],
)
def test_a_quantity_is_in_its_unit(text: Any, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1Zi", "1..2", "Gi", None, {}])
def test_what_is_no_quantity_is_nothing(text: Any) -> None:
    assert quantity(text) == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1h30m", 5400),
        ("1m30s", 90),
        ("1.5s", 1.5),
        ("500ms", 0.5),
        ("20us", 2e-5),
        ("20µs", 2e-5),
        ("5ns", 5e-9),
        (7, 7),
    ],
)
def test_a_duration_is_in_seconds(text: Any, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "soon", "10x", "1m 30s", "s", "1.2.3s", None])
def test_what_is_no_duration_is_none(text: Any) -> None:
    assert seconds(text) is None


@pytest.mark.parametrize("text", ["9" * 200_000 + "x", "1h" * 100_000, "." * 200_000])
def test_a_duration_of_any_length_takes_no_time(text: str) -> None:
    begun = time.process_time()
    assert seconds(text) is None
    assert time.process_time() - begun < 1
