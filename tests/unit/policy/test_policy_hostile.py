"""Policies that somebody made to keep the reader busy: refused with what is wrong, or read in a moment."""

from __future__ import annotations

import time

import pytest

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.dialects.cilium.checks import check_fqdn
from kubectl_genainet.policy.dialects.cilium.options import KeyFilter, Options
from kubectl_genainet.policy.dialects.cilium.shapes import RawFqdn
from kubectl_genainet.policy.matching.domains import domain_matches
from kubectl_genainet.policy.matching.expressions import parse_selector
from kubectl_genainet.policy.matching.selectors import check_label_key
from kubectl_genainet.policy.where import Where

WHERE = Where(KubeObject({"apiVersion": "v1", "kind": "NetworkPolicy", "metadata": {"name": "x"}}, "file.yaml"))


@pytest.mark.parametrize("stars", [25, 120])
def test_stars_cost_no_time(stars: int) -> None:
    begun = time.process_time()
    assert not domain_matches("*a" * stars + "b.example.com", "a" * 63 + ".example.com")
    assert domain_matches("*a" * 25 + ".example.com", "a" * 63 + ".example.com")
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "anything.at.all", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "example.com", False),
        ("**.example.com", "a.b.example.com", True),
        ("**.example.com", "example.com", False),
        ("**.*.example.com", "a.example.com", False),
        ("**.*.example.com", "a.b.example.com", True),
        ("a*b*c.com", "axxbyyc.com", True),
        ("a*b*c.com", "axxbyy.com", False),
        ("a*.com", "a.com", True),
        ("*a*", "a.b", False),
        ("**.example.com", ".example.com", False),
        ("A.com".lower(), "A.COM", True),
    ],
)
def test_a_star_stays_in_its_label(pattern: str, name: str, matches: bool) -> None:
    assert domain_matches(pattern, name) is matches


@pytest.mark.parametrize(
    "text", ["(" * 400, "!" * 5000, "(" * 400 + "all()" + ")" * 400, "!(" * 3000, "a == 'b' && " * 5000]
)
def test_a_selector_of_any_depth_is_refused_in_a_few_words(text: str) -> None:
    with pytest.raises(InputError, match="is not a selector") as refused:
        parse_selector(text, WHERE)
    assert len(refused.value.message) < 1000


@pytest.mark.parametrize("text", ["has(a) has(b)", "a == 'b' c", "all() )", "a == 'b' 'c'", "a in {'b'} }"])
def test_nothing_follows_a_selector(text: str) -> None:
    """What is left over would be a part of the policy that is not judged."""
    with pytest.raises(InputError, match="unexpected"):
        parse_selector(text, WHERE)


@pytest.mark.timeout(20)
def test_a_label_key_of_any_length_takes_no_time_to_be_looked_for() -> None:
    """A pattern with two repetitions goes over a long key as often as it has characters."""
    keys = KeyFilter.of(Options(read=True, labels=("k8s:a.*b.*c",)))
    assert keys.takes("a" + "b" * 60 + "c") is True
    assert keys.takes("a" + "b" * 1_000) is None


def test_a_long_selector_of_no_depth_is_read() -> None:
    found = parse_selector(" || ".join(f"app == 'a{n}'" for n in range(5000)), WHERE)
    assert found.matches({"app": "a4999"}) and not found.matches({"app": "b"})
    assert parse_selector("!(" * 40 + "all()" + ")" * 40, WHERE).matches({})


@pytest.mark.parametrize(
    "raw",
    [RawFqdn(match_name="a" * 200 + "!"), RawFqdn(match_name="a." * 30_000), RawFqdn(match_pattern="*" * 60_000 + "!")],
)
def test_a_name_that_is_none_is_refused_in_a_moment(raw: RawFqdn) -> None:
    begun = time.process_time()
    with pytest.raises(InputError):
        check_fqdn(raw, WHERE)
    assert time.process_time() - begun < 0.5


def test_a_label_key_of_any_length_is_refused_in_a_moment() -> None:
    begun = time.process_time()
    with pytest.raises(InputError) as refused:
        check_label_key("a" * 60_000 + "/x", WHERE)
    assert time.process_time() - begun < 0.5 and len(refused.value.message) < 1000
