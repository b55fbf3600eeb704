"""The verbs that read no recording: names made to do something, and a full disk, in every form that they have."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from kubectl_genainet.cli import cli
from tests.unit.commands.live_output import LIVE, asked
from tests.unit.commands.test_hostile_output import HOSTILE, LONG, RECORDED, forms_of, strings, values_in

FORMS = [(verb, form) for verb in LIVE for form in forms_of(verb)]


def commands_with_output(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands_with_output(command, (*path, name))
        elif command is not None and any(option.name == "output" for option in command.params):
            yield " ".join((*path, name))


def test_every_verb_whose_answer_has_forms_is_tried() -> None:
    assert sorted(commands_with_output(cli)) == sorted((*RECORDED, *LIVE))


def printed(words: list[str], form: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setattr("kubectl_genainet.run.fabric.time", SimpleNamespace(sleep=lambda _: None))
    done = CliRunner().invoke(cli, [*words, "-o", form], standalone_mode=False)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.stdout, done.stderr


@pytest.mark.parametrize(("verb", "form"), FORMS)
def test_a_name_does_nothing_in_any_form(verb: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with asked(verb, HOSTILE, tmp_path, monkeypatch) as (words, _):
        text, said = printed(words, form, monkeypatch)
    assert {c for c in text + said if not c.isprintable() and c != "\n"} == set()
    assert text
    if form in ("json", "yaml"):
        whole = (verb, form) == ("deploy", "json")  # one list; the others are a record a line
        found = [name for value in values_in("sarif" if whole else form, text) for name in strings(value)]
        assert any(HOSTILE in name for name in found), "it stays the same value"
        return
    assert "\\x1b" in text or "\\u001b" in text or (verb, form) == ("lab list", "name")
    assert not [line for line in (text + said).splitlines() if re.match(r"[\W_]*FORGED", line)]


@pytest.mark.parametrize(("verb", "form"), FORMS)
def test_a_name_without_end_is_a_name(verb: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with asked(verb, LONG, tmp_path, monkeypatch) as (words, _):
        assert printed(words, form, monkeypatch)[0]


@pytest.mark.parametrize("verb", LIVE)
def test_on_a_full_disk_no_form_of_an_answer_is_taken_for_one(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asked(verb, "", tmp_path, monkeypatch) as (words, environment):
        forms = json.dumps({form: [*words, "-o", form] for form in forms_of(verb)})
        command = [sys.executable, "-m", "tests.unit.commands.full_disk"]
        done = subprocess.run(
            command,
            input=forms,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
            env={**os.environ, **environment},
        )
    ended = json.loads(done.stdout)
    assert ended.keys() == set(forms_of(verb))
    for form, (status, said) in ended.items():
        assert (status, "No space left on device" in said, "Traceback" in said) == (2, True, False), (form, said)
