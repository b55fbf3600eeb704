"""Bundles of two incidents at once, recorded from the lab by `diagnose`, and the conclusion: both causes, and no other."""

from __future__ import annotations

import json

import pytest

from tests.golden.recordings import GOLDEN, LAB, MOST_BYTES, WIDTHS, bundle_of, compare, run

TARGET = "svc/my-llama-svc"
# bundle -> the two incidents
PAIRS = {
    "conntrack-full-and-policy-drop": ("conntrack-full", "policy-drop"),
    "listen-overflow-and-dns-timeout": ("listen-overflow", "dns-timeout"),
    "mtu-blackhole-and-dns-slow-upstream": ("mtu-blackhole", "dns-slow-upstream"),
    "policy-bypassed-and-slow-backend": ("policy-bypassed", "slow-backend"),
}
NARROW = 40


@pytest.fixture(scope="module", autouse=True)
def recorded() -> None:
    """Records the bundles where that is asked for."""
    if GOLDEN != "bundles":
        return
    for name, incidents in PAIRS.items():
        run("lab", "up", "--lab", LAB)
        try:
            for incident in incidents:
                run("lab", "incident", incident, "--lab", LAB)
            run("diagnose", TARGET, "--lab", LAB, "--for", "9s", "--record", str(bundle_of(name)), status=(1,))
        finally:
            run("lab", "down", "--lab", LAB)


@pytest.mark.parametrize(
    ("name", "width"),
    [*((name, 80) for name in PAIRS), *(("listen-overflow-and-dns-timeout", width) for width in (NARROW, max(WIDTHS)))],
)
def test_two_incidents_at_once_are_two_causes(name: str, width: int, recorded: None) -> None:
    assert bundle_of(name).stat().st_size < MOST_BYTES
    text = run("diagnose", TARGET, "--from", str(bundle_of(name)), status=(1,), width=width)
    assert "2 causes found" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width
    compare(f"diagnose-{name}-{width}", text)


def test_what_happened_when_counts_the_connections_that_the_conclusion_counts(recorded: None) -> None:
    """Name lookups were among them: 63 connections on a page that has 11."""
    name = "listen-overflow-and-dns-timeout"
    conclusion = json.loads(run("diagnose", TARGET, "--from", str(bundle_of(name)), "-o", "json", status=(1,)))
    totals = {series["name"]: sum(series["counts"].values()) for series in conclusion["timeline"]["series"]}
    assert totals["connections"] == conclusion["connections"]
    assert totals["failed connections"] == conclusion["failed"]
