"""The registry of diagnoses: complete, used by every verb, and what the docs say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kubectl_genainet
from kubectl_genainet.model.diagnoses import BY_REASON, DIAGNOSES, Diagnosis, Sentence, Topic
from kubectl_genainet.model.diagnoses import diagnosis as registry
from kubectl_genainet.model.finding import Certainty, Evidence, Severity
from kubectl_genainet.render.diagnoses import diagnoses_markdown

PACKAGE = Path(kubectl_genainet.__file__).parent
DOCS = PACKAGE.parent / "docs"
# Whoever says something from a registry, and who reads what was said. `doctor` has a registry of its own, the lab only expects.
SAYING = ("context", "diagnose", "dns", "drops", "proxy/drift", "render", "run", "trace", "why")


@pytest.mark.parametrize("one", DIAGNOSES.values(), ids=lambda d: d.name)
def test_a_diagnosis_says_what_is_seen_what_it_means_and_what_to_do(one: Diagnosis) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one.name)
    assert one.observed and not one.observed.endswith(".")
    assert one.meaning.endswith(".") and one.todo.endswith(".")
    assert "\n" not in one.observed + one.meaning + one.todo + one.source


def test_a_name_and_a_reason_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ALL", dict(DIAGNOSES))
    monkeypatch.setattr(registry, "_BY_REASON", dict(BY_REASON))
    words = (Severity.ERROR, "something is seen", "It means that.", "Do this.")
    with pytest.raises(ValueError, match="two diagnoses are named closed-port"):
        Diagnosis(Topic.KERNEL, "closed-port", *words)
    with pytest.raises(ValueError, match="two diagnoses have a sentence for PROTO_MEM"):
        Diagnosis(Topic.KERNEL, "of-the-test", *words, sentences=(Sentence("memory is used up", "PROTO_MEM"),))


def test_what_follows_from_a_diagnosis_names_one_that_is_there() -> None:
    assert {name for one in DIAGNOSES.values() for name in one.follows} <= DIAGNOSES.keys()


def test_the_docs_are_what_the_registry_says() -> None:
    assert (DOCS / "diagnoses.md").read_text() == diagnoses_markdown()


def named_checks(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names of diagnoses that a module writes out, other than as the name of one that it makes."""
    made = {id(n.args[1]) for n in ast.walk(tree) if isinstance(n, ast.Call) and _makes(n) and len(n.args) > 1}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and str(node.value) in DIAGNOSES and id(node) not in made:
            yield node.lineno, str(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def _makes(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "Diagnosis"


def test_nobody_names_a_diagnosis_but_by_the_registry() -> None:
    modules = [path for package in SAYING for path in (PACKAGE / package).rglob("*.py")]
    assert len(modules) > 50
    assert [(path.name, *name) for path in modules for name in named_checks(ast.parse(path.read_text()))] == []


def test_a_finding_has_the_severity_of_its_diagnosis_unless_another_is_given() -> None:
    evidence = (Evidence("seen", Certainty.OBSERVED),)
    late = DIAGNOSES["late-answer"]
    assert late.finding("an answer", evidence).severity is Severity.INFO
    worse = late.finding("an answer", evidence, severity=Severity.ERROR)
    assert (worse.check, worse.severity, worse.evidence) == ("late-answer", Severity.ERROR, evidence)
