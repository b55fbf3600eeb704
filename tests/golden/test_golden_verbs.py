"""Bundles recorded from the lab, and what `drops`, `dns` and `rules` make of them (tests/golden/recordings.py)."""

from __future__ import annotations

import json

import pytest

from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.model.events import Bye
from tests.golden.recordings import GOLDEN, LAB, MOST_BYTES, WIDTHS, bundle_of, compare, run

# bundle -> (verb, incident or "", arguments, exit status)
RECORDINGS: dict[str, tuple[str, str, tuple[str, ...], int]] = {
    "drops-policy-drop": ("drops", "policy-drop", ("svc/my-llama-svc",), 1),
    "drops-mtu-blackhole": ("drops", "mtu-blackhole", ("svc/my-llama-svc",), 1),
    "dns-timeout": ("dns", "dns-timeout", (), 1),
    "dns-ndots-waste": ("dns", "ndots-waste", (), 1),
}
# text -> (bundle, arguments, exit status): rulesets are in every trace
RULES: dict[str, tuple[str, tuple[str, ...], int]] = {
    "rules-iptables": ("healthy", ("svc/my-llama-svc",), 0),
    "rules-nftables": ("vxlan-nftables", ("svc/my-llama-svc", "-o", "wide"), 0),
    "rules-tree": ("healthy", ("svc/my-llama-svc", "--node", "node-1", "-o", "tree"), 0),
    "rules-stale-endpoint": ("stale-endpoint", ("svc/my-llama-svc",), 1),
}


@pytest.fixture(scope="module", autouse=True)
def recorded() -> None:
    """Records the bundles where that is asked for."""
    if GOLDEN != "bundles":
        return
    for name, (verb, incident, arguments, status) in RECORDINGS.items():
        run("lab", "up", "--name", LAB)
        try:
            run("lab", "incident", incident, "--name", LAB)
            record = ("--lab", LAB, "--timeout", "8s", "--record", str(bundle_of(name)))
            run(verb, *arguments, *record, status=(status,))
        finally:
            run("lab", "down", "--name", LAB)


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize(("output", "width"), [("table", 80), ("table", 200), ("wide", 200)])
def test_recording_gives_the_expected_text(name: str, output: str, width: int, recorded: None) -> None:
    verb, _, arguments, status = RECORDINGS[name]
    assert bundle_of(name).stat().st_size < MOST_BYTES
    from_bundle = ("--from", str(bundle_of(name)), "-o", output)
    compare(f"{name}-{output}-{width}", run(verb, *arguments, *from_bundle, status=(status,), width=width))


@pytest.mark.parametrize("name", RECORDINGS)
def test_json_and_summary_agree_with_the_recording(name: str, recorded: None) -> None:
    verb, _, arguments, status = RECORDINGS[name]
    text = run(verb, *arguments, "--from", str(bundle_of(name)), "-o", "json", status=(status,))
    records = [json.loads(line) for line in text.splitlines()]
    summary = records[-1]
    assert summary["kind"] == f"{verb}_summary" and summary["lost"] == []
    byes = [event for event in read_bundle(bundle_of(name)).events if isinstance(event, Bye)]
    assert summary["events"] == {
        "emitted": sum(bye.emitted for bye in byes),
        "received": sum(bye.sent for bye in byes),
        "lost": 0,
    }
    assert any(finding["severity"] != "info" for finding in summary["findings"])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", RULES)
def test_recorded_rulesets_give_the_expected_text(name: str, width: int) -> None:
    bundle, arguments, status = RULES[name]
    from_bundle = ("--from", str(bundle_of(bundle)))
    compare(f"{name}-{width}", run("rules", *arguments, *from_bundle, status=(status,), width=width))
