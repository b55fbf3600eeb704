"""Patterns of input from anybody: they say what Python's say, in a time that their length bounds."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.kustomize.patterns import MAX_VALUE, Pattern

_ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "[a-c]", r"\d", r"\.", "-", "c"])
_PATTERNS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("*+?")).map(lambda t: f"({t[0]}){t[1]}"),
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(_PATTERNS, st.text("abc1.-", max_size=8))
def test_they_say_what_pythons_say(text: str, value: str) -> None:
    assert Pattern(text).matches(value) is (re.fullmatch(text, value) is not None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(a+)+b", "a" * 250),
        ("(a|a)*b", "a" * 250),
        ("(.*)*x", "a" * 250),
        ("a?" * 80 + "a" * 80, "a" * 100),
        ("(a|aa)" * 40, "a" * 61),
        (".*.*.*.*.*.*.*.*=.*", "a" * 253),
        ("(" * 20 + "a" + ")*" * 20, "b" * 250),
    ],
)
def test_none_takes_long(text: str, value: str) -> None:
    begun = time.process_time()
    Pattern(text).matches(value)
    assert time.process_time() - begun < 1


def test_one_that_goes_on_for_values_without_end_is_stopped() -> None:
    slow = Pattern(".*a" + "." * 200)
    with pytest.raises(InputError, match="takes too long"):
        for i in range(5000):
            slow.matches(f"{i:b}".replace("1", "a").replace("0", "b").ljust(MAX_VALUE, "ab"[i % 2]))


@pytest.mark.parametrize(
    "text",
    [
        "a{2}",
        "(?=a)",
        r"\bx",
        r"(a)\1",
        "[a",
        "(a",
        "a)",
        "*",
        "a**",
        "x" * 300,
        "\\",
        "[[:a:]]",
        "(" * 21 + "a" + ")" * 21,
    ],
)
def test_what_is_not_read_is_named(text: str) -> None:
    with pytest.raises(InputError, match="is not read"):
        Pattern(text)


def test_a_value_that_is_no_name_matches_nothing() -> None:
    assert not Pattern(".*").matches("a" * (MAX_VALUE + 1))
    assert Pattern("").matches("") and Pattern("^web-.*$").matches("web-1")
