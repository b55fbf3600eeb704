"""Rulesets as differences: what comes back is the text that was there, or nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_genainet.history.rules import RulesetHistory, apply, difference, without_counters
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.proxy.ruleset import parse_ruleset

DATA = Path(__file__).parents[2] / "data" / "proxy"
DUMPS = [
    ("iptables-nft", "lab-iptables.iptables.txt"),
    ("nft", "lab-nftables.nft.json"),
    ("nft", "kube-proxy-1.37.2-nftables.nft.json"),
]


def dump(text: str, source: str = "iptables-nft", t_ns: int = 1) -> RulesetDump:
    return RulesetDump(node="node-1", t_ns=t_ns, source=source, text=text)


@given(st.lists(st.sampled_from("abcde")), st.lists(st.sampled_from("abcdef")))
def test_a_difference_gives_the_new_text(old: list[str], new: list[str]) -> None:
    before, after = dump("\n".join(old)), dump("\n".join(new), t_ns=2)
    change = difference(before, after)
    if change is not None:
        assert apply(before, change) == after


@pytest.mark.parametrize(("source", "file"), DUMPS)
def test_a_changed_endpoint_is_a_small_difference(source: str, file: str) -> None:
    before = without_counters(dump((DATA / file).read_text(), source))
    address = "10.244." + before.text.split("10.244.")[1].split(" ")[0].split('"')[0].split("/")[0]
    after = msgspec.structs.replace(before, text=before.text.replace(address, "10.244.99.99"))
    change = difference(before, after)
    assert change is not None and apply(before, change) == after
    assert len(msgspec.msgpack.encode(change)) < len(after.text) / 2


@pytest.mark.parametrize(("source", "file"), DUMPS)
def test_rules_without_counters_are_the_same_rules(source: str, file: str) -> None:
    full = dump((DATA / file).read_text(), source)
    bare = without_counters(full)
    assert bare.text != full.text or source == "nft"
    parsed = parse_ruleset([bare])
    assert not parsed.errors
    assert parsed.unread == parse_ruleset([full]).unread
    shapes = [
        [(c.name, len(c.rules)) for t in r.tables for c in t.chains.values()] for r in (parsed, parse_ruleset([full]))
    ]
    assert shapes[0] == shapes[1] and shapes[0]


def test_a_change_whose_base_is_missing_gives_no_rules_until_the_next_dump() -> None:
    first, second, third = (dump("\n".join(f"line {i} of {n}" for i in range(20))) for n in "aab")
    second = msgspec.structs.replace(first, text=first.text + "\nmore")
    change = difference(first, second)
    assert change is not None
    rules = RulesetHistory()
    assert rules.take(change) is None and rules.broken == {("node-1", "iptables-nft")}
    assert rules.take(third) is third and rules.take(change) is None
    assert rules.take(first) is first and rules.take(change) == second and not rules.broken
