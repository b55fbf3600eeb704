"""Prose for a terminal: wrapped at words, and never where it is a command."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from kubectl_genainet.render.paragraphs import print_prose
from kubectl_genainet.render.text import tell

BUNDLE = Path(__file__).parents[2] / "golden" / "bundles" / "policy-service-port.gnb"
PROSE = "warning: the objects of namespace default were not read: what NetworkPolicy default/model admits is not known"
COMMAND = (
    "Undo it: kubectl genainet lab incident policy-service-port --clear --lab another-lab-with-a-long-name-of-its-own"
)


@pytest.mark.parametrize("command", ["explain deploy/chatbot-ui svc/my-llama-svc", "matrix"])
def test_policy_answers_break_no_word_at_80_columns(command: str) -> None:
    def words(**environment: str) -> tuple[list[str], int]:
        arguments = [sys.executable, "-m", "kubectl_genainet", *command.split(), "--from", str(BUNDLE)]
        done = subprocess.run(arguments, capture_output=True, text=True, env=os.environ | environment, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout.split(), max(map(len, done.stdout.splitlines()))

    whole, longest = words()
    narrow, fits = words(COLUMNS="80")
    assert longest > 80 >= fits
    assert narrow == whole


def test_prose_is_wrapped_and_a_command_in_it_is_not() -> None:
    out = io.StringIO()
    console = Console(file=out, width=40)
    print_prose(console, Text(PROSE))
    print_prose(console, Text(COMMAND))
    *prose, command = out.getvalue().splitlines()
    assert " ".join(line.strip() for line in prose) == PROSE and max(map(len, prose)) <= 40
    assert [line.startswith("  ") for line in prose] == [False, *[True] * (len(prose) - 1)]
    assert command == COMMAND


class Terminal(io.StringIO):
    """A terminal of 40 columns."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


def test_messages_are_wrapped_in_a_terminal_and_whole_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(PROSE)
    assert capsys.readouterr().err == f"{PROSE}\n"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((40, 24)))
    tell(PROSE, "", COMMAND)
    *prose, blank, command = terminal.getvalue().splitlines()
    assert " ".join(line.strip() for line in prose) == PROSE and max(map(len, prose)) <= 40
    assert (blank, command) == ("", COMMAND)
