"""The registry of diagnoses: complete, used by every verb, and what the docs say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kubectl_genainet
from kubectl_genainet.model.diagnoses import DIAGNOSES, GROUPS, Diagnosis
from kubectl_genainet.model.finding import Certainty, Evidence, Severity
from kubectl_genainet.model.reasons import SENTENCES
from kubectl_genainet.render.diagnoses import diagnoses_markdown

PACKAGE = Path(kubectl_genainet.__file__).parent
DOCS = PACKAGE.parent / "docs"
SAYING = ("why", "trace", "drops", "dns")


@pytest.mark.parametrize("one", DIAGNOSES.values(), ids=lambda d: d.name)
def test_a_diagnosis_says_what_is_seen_what_it_means_and_what_to_do(one: Diagnosis) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one.name)
    assert one.observed and not one.observed.endswith(".")
    assert one.meaning.endswith(".") and one.todo.endswith(".")
    assert "\n" not in one.observed + one.meaning + one.todo + one.source


def test_names_are_unique_over_all_groups() -> None:
    assert len(DIAGNOSES) == sum(len(group) for group in GROUPS.values())


def test_the_docs_are_what_the_registry_says() -> None:
    assert (DOCS / "diagnoses.md").read_text() == diagnoses_markdown()


def said(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names of checks that a module writes out: arguments of Finding and DropExplanation, and whatever is called `check`."""
    for node in ast.walk(tree):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call):
            named = isinstance(node.func, ast.Name) and node.func.id in ("Finding", "DropExplanation", "reading")
            values += [node.args[0]] if named and node.args else []
            values += [k.value for k in node.keywords if k.arg == "check"]
        elif isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "check" for t in node.targets):
            values.append(node.value)
        elif isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id == "check":
            values += node.comparators
        for value in values:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.lineno, value.value


def test_whatever_a_correlator_says_is_in_the_registry() -> None:
    modules = [path for package in SAYING for path in (PACKAGE / package).glob("*.py")]
    names = [(path.name, *found) for path in modules for found in said(ast.parse(path.read_text()))]
    assert [item for item in names if item[2] not in DIAGNOSES] == []
    assert {sentence.check for sentence in SENTENCES.values()} <= DIAGNOSES.keys()


def test_a_finding_has_the_severity_of_its_diagnosis_unless_another_is_given() -> None:
    evidence = (Evidence("seen", Certainty.OBSERVED),)
    late = DIAGNOSES["late-answer"]
    assert late.finding("an answer", evidence).severity is Severity.INFO
    worse = late.finding("an answer", evidence, severity=Severity.ERROR)
    assert (worse.check, worse.severity, worse.evidence) == ("late-answer", Severity.ERROR, evidence)
