"""kubectl's Go templates over the records of -o json, against what Go itself makes of them (tests/oracles/go_templates)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.errors import InputError
from kubectl_genainet.render.gotemplate.evaluate import GoTemplate

RECORDED = json.loads((Path(__file__).parent / "go_templates.json").read_text())
BUNDLE = Path(__file__).parents[2] / "golden" / "bundles" / "stale-endpoint.gnb"


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["template"])
def test_a_template_gives_what_go_gives(case: dict[str, Any]) -> None:
    if case["text"] is None:
        with pytest.raises(InputError):
            GoTemplate(case["template"]).text_of(RECORDED["data"])
    else:
        assert GoTemplate(case["template"]).text_of(RECORDED["data"]) == case["text"]


@pytest.mark.parametrize(
    "template", ['{{define "a"}}{{end}}', '{{template "a"}}', '{{block "a" .}}{{end}}', "{{call .f}}", "{{.a | js}}"]
)
def test_what_is_not_evaluated_is_said(template: str) -> None:
    with pytest.raises(InputError, match="is not evaluated here"):
        GoTemplate(template)


def test_the_key_of_a_map_is_found_or_not() -> None:
    template = GoTemplate('{{exists .a "b"}} {{exists .a "c"}}')
    assert template.text_of({"a": {"b": None}}) == "true false"


def test_what_comes_from_the_cluster_can_not_drive_a_terminal() -> None:
    assert GoTemplate("{{.name}}{{println}}").text_of({"name": "\x1b[2J\n"}) == "\\x1b[2J\\n\n"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kubectl_genainet", *arguments], capture_output=True, text=True)


def test_commands_write_a_line_a_record(tmp_path: Path) -> None:
    template = tmp_path / "causes.tpl"
    template.write_text("{{.kind}}{{range .causes}} {{.check}}{{end}}\n")
    for output in (f"go-template-file={template}", f"go-template={template.read_text()}"):
        done = run("diagnose", "svc/my-llama-svc", "--from", str(BUNDLE), "-o", output)
        assert (done.returncode, done.stdout) == (1, "diagnosis stale-endpoint\n")


def test_a_template_that_does_not_fit_a_record_is_one_message() -> None:
    done = run("diagnose", "svc/my-llama-svc", "--from", str(BUNDLE), "-o", "go-template={{.kind.x}}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: the Go template can't be evaluated: a string has no field 'x'"


@pytest.mark.parametrize(
    "template",
    ["{{" + "(" * 3000 + "1" + ")" * 3000 + "}}", "x" * 9000, '{{"a\0b"}}', '{{"\\ud800"}}', '{{"\\U00110000"}}'],
)
def test_a_template_that_would_break_the_parser_is_refused(template: str) -> None:
    with pytest.raises(InputError):
        GoTemplate(template)


def test_a_width_beyond_gos_costs_nothing_and_no_character_is_half_of_one() -> None:
    text = GoTemplate('{{printf "%999999999d|%.999999999f|%c" 1 1.5 55296}}').text_of({})
    assert text.startswith("%!(BADWIDTH)|%!(BADPREC)|") and text.encode()
