"""Outputs that the README and the pages of incidents show are what the program prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from kubectl_genainet.assets import recordings
from kubectl_genainet.cli import cli
from kubectl_genainet.lab.incidents import incidents

ROOT = Path(__file__).parents[3]
EXAMPLE = re.compile(r"^    \$ kubectl genainet (.*)\n((?:    .*\n| *\n(?=    ))*)", re.MULTILINE)
TIME = r"\d\d:\d\d:\d\d(?:\.\d\d\d)?Z"
BLOCK = re.compile(r"^[✓✗?] [A-Z]+  \d+(?: of \d+)? connections?(.*)$", re.MULTILINE)
IN_ONE_LINE = re.compile(rf"^[✓✗?] [A-Z]+  \d+(?! of| connection)((?:  {TIME}(?: to {TIME})?)?)  \S", re.MULTILINE)
TREE = re.compile(r"^\S.* on \S+  \S+:\d+  (?:TCP|UDP|SCTP)(?:  ×\d+)?(.*)$", re.MULTILINE)


def examples(page: Path) -> list[tuple[str, str]]:
    """(arguments, output) of each command that a page shows with what it prints."""
    found = EXAMPLE.findall(page.read_text())
    return [(arguments, re.sub(r"^    ", "", output, flags=re.MULTILINE).strip()) for arguments, output in found]


@pytest.mark.parametrize(("number", "recording"), [(0, "healthy"), (1, "policy-service-port")])
def test_what_the_readme_shows_is_printed_of_the_recordings(number: int, recording: str) -> None:
    arguments, shown = examples(ROOT / "README.md")[number]
    source = ("--from", str(recordings() / f"{recording}.gnb"))
    done = CliRunner(env={"COLUMNS": "130"}).invoke(cli, [*shlex.split(arguments), *source])
    printed = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    assert len(shown.splitlines()) > 5 and shown in printed


@pytest.mark.parametrize("name", incidents())
def test_the_page_of_an_incident_names_its_cause_first(name: str) -> None:
    cause = incidents()[name].cause
    (arguments, conclusion), *_ = examples(ROOT / "docs" / "incidents" / f"{name}.md")
    assert arguments == f"diagnose {cause.target} --for {cause.watch_s}s --lab"
    first = re.search(r"^\S 1\. (.*?)\n\n", conclusion, re.MULTILINE | re.DOTALL)
    assert first is not None and cause.title in re.sub(r"\s+", " ", first[1])


@pytest.mark.parametrize("page", [f"docs/incidents/{name}.md" for name in incidents()] + ["README.md"])
def test_connections_are_shown_with_their_times_as_the_program_has_them(page: str) -> None:
    for _, output in examples(ROOT / page):
        ends = [*BLOCK.findall(output), *IN_ONE_LINE.findall(output), *TREE.findall(output)]
        assert [end for end in ends if not re.fullmatch(rf"  {TIME}(?: to {TIME})?", end)] == []
