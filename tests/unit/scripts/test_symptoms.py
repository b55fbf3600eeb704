"""The pages of symptoms and of incidents name what there is: verbs, options, diagnoses, incidents."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from kubectl_genainet.cli import VERBS, cli
from kubectl_genainet.lab.incidents import incidents
from kubectl_genainet.render.diagnoses import diagnoses_markdown
from scripts.incident_index import index_markdown
from scripts.symptoms import ROWS, Row, symptoms_markdown

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_is_the_one_in_docs() -> None:
    assert (DOCS / "symptoms.md").read_text() == symptoms_markdown()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.text)
def test_commands_parse_and_names_exist(row: Row) -> None:
    context = cli.make_context("kubectl genainet", [], resilient_parsing=True)
    for text in row.command.split(";"):
        kubectl, plugin, verb, *arguments = shlex.split(text)
        assert (kubectl, plugin) == ("kubectl", "genainet") and verb in VERBS
        command = cli.get_command(context, verb)
        assert command is not None
        options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        assert {a for a in arguments if a.startswith("-")} <= options
    page = diagnoses_markdown()
    assert all(f"| `{name}` |" in page for name in row.diagnoses)


def test_every_incident_is_listed_and_has_a_page() -> None:
    pages = DOCS / "incidents"
    assert (pages / "README.md").read_text() == index_markdown()
    assert {page.stem for page in pages.glob("*.md")} - {"README"} == set(incidents())


def test_every_incident_has_a_symptom() -> None:
    assert {name for row in ROWS for name in row.incidents} == set(incidents())
