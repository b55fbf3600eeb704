"""The checks describe themselves, and docs/checks.md says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubectl_genainet.doctor.check import Area, Check
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.render.doctor.docs import checks_markdown

DOCS = Path(__file__).parents[4] / "docs" / "checks.md"


@pytest.mark.parametrize("check", all_checks(), ids=lambda c: c.name)
def test_a_docstring_says_what_why_and_by_which_source(check: Check) -> None:
    first, _, rest = check.doc.partition("\n")
    assert first.endswith(".")
    assert re.search(r"^(Looks|Asks|Compares|Counts)\b", rest, re.MULTILINE)
    assert "\nWhy: " in rest
    assert re.search(r"\nSource: \S", rest)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", check.name)


@pytest.mark.parametrize("check", all_checks(), ids=lambda c: c.name)
def test_a_docstring_says_what_its_severity_means_for_users(check: Check) -> None:
    word = {"error": "an error", "warning": "a warning", "info": "information"}[check.severity.value]
    assert word in " ".join(check.doc.lower().split())


def test_names_are_unique_and_every_area_has_checks() -> None:
    names = [c.name for c in all_checks()]
    assert len(names) == len(set(names))
    assert {c.area for c in all_checks()} == set(Area)


def test_the_page_of_checks_is_in_step_with_the_docstrings() -> None:
    assert DOCS.read_text(encoding="utf-8") == checks_markdown(all_checks()), (
        "run: python -m kubectl_genainet.render.doctor.docs > docs/checks.md"
    )
